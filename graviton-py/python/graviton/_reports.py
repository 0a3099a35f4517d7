"""Results of calls: plain, immutable values.

The parts between ``# report:`` and ``# end`` are made from the declaration of the reports in
``graviton-core/src/report.rs``, and a test compares them. To renew them, run
``GRAVITON_UPDATE=1 cargo test -p graviton-py --test reports``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from . import _html
from ._id import BlobId, known

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "BlobStat",
    "CopyReport",
    "Finding",
    "GcReport",
    "PutReceipt",
    "RepackReport",
    "RepairReport",
    "StoreStats",
    "VerifyReport",
]


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


# report: PutReceipt
@dataclass(frozen=True, slots=True)
class PutReceipt:
    """The result of a put."""

    id: BlobId
    """The id of the content."""
    blocks: int
    """The number of blocks of the content."""
    fresh_blocks: int
    """The number of its blocks that were new to the store and were written."""
    fresh_bytes: int
    """The size of those in bytes."""
    fresh_stored_bytes: int
    """The bytes that they take where they are stored, after compression."""
    created: bool
    """Whether the blob is new; ``False`` if it already existed."""

    @classmethod
    def _from_engine(cls, values: tuple[str, int, int, int, int, bool]) -> Self:
        return cls(known(values[0]), *values[1:])
    # end

    @property
    def size(self) -> int:
        """The size of the content in bytes."""
        return self.id.size

    def _repr_html_(self) -> str:
        rows = {
            "id": self.id,
            "size": _html.size(self.size),
            "blocks": f"{self.blocks:,}, of which {self.fresh_blocks:,} new ({_html.size(self.fresh_bytes)})",
            "blob": "new" if self.created else "was there already",
        }
        parts = [
            ("new", self.fresh_bytes, _html.NEW),
            ("there before, or repeated", self.size - self.fresh_bytes, _html.SHARED),
        ]
        return _html.shares("Graviton put", rows, parts)


# report: BlobStat
@dataclass(frozen=True, slots=True)
class BlobStat:
    """The metadata of a blob."""

    id: BlobId
    """Its id."""
    blocks: int
    """The number of its blocks."""
    chunker: str
    """The chunker that cut it (GRAVITON_CHUNKER)."""
    created_at: datetime
    """The time of the put, in UTC; as a number, in milliseconds since 1970-01-01."""

    @classmethod
    def _from_engine(cls, values: tuple[str, int, str, int]) -> Self:
        return cls(known(values[0]), values[1], values[2], _time(values[3]))
    # end

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.id.size


# report: StoreStats
@dataclass(frozen=True, slots=True)
class StoreStats:
    """The totals of a store."""

    blobs: int
    """Live blobs."""
    logical_bytes: int
    """The sum of their sizes in bytes."""
    blocks: int
    """Blocks that are stored, each once."""
    stored_bytes: int
    """The sum of their sizes in bytes."""
    dead_blobs: int
    """Deleted blobs that can still be restored."""
    dead_bytes: int
    """The sum of their sizes in bytes."""
    reclaimable_bytes: int
    """Bytes of stored blocks that neither a live blob nor a running put references. A collection without a
    grace period frees these, and blocks of failed and aborted puts, which only a dry run counts."""
    references: int
    """Blocks of all manifests together, those of deleted blobs included; a block counts as often as it
    occurs. Each takes about 100 bytes of the database."""
    directory_share: float
    """How full the index of the fullest directory of blocks is, from 0 to 1: close to 1 a new block may find
    no place there, however much space is free. It does not go down after deletions, nor at once after the
    directory was given room for more. 0 where no limit is known, and for blocks in S3."""
    packs: int
    """Packs that the database knows. Their headers of 64 bytes each, and the bytes of the next five fields,
    are the length of their files."""
    pack_live_bytes: int
    """Bytes of their records that are used, with the headers of the records."""
    pack_dead_bytes: int
    """Bytes of their records that nothing uses and that take space. A collection moves what is live out of
    packs with many of them."""
    pack_punched_bytes: int
    """Bytes of such records that take no space any more: holes were punched there."""
    pack_pending_bytes: int
    """Bytes that the next collections give back: of records that were released, and of packs that nothing
    uses and that wait for the end of the grace period."""
    pack_open_bytes: int
    """Bytes that nothing uses of packs that are not sealed: space that is reserved, records of running puts,
    and dead ones."""
    unknown_packs: int
    """Packs that the database does not know, as a restored one does not. A verification lists them."""
    unknown_pack_bytes: int
    """The sum of their lengths in bytes."""

    @classmethod
    def _from_engine(
        cls, values: tuple[int, int, int, int, int, int, int, int, float, int, int, int, int, int, int, int, int]
    ) -> Self:
        return cls(*values)
    # end

    @property
    def dedup_ratio(self) -> float:
        """Bytes of blobs for each stored byte; 1 for an empty store."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 1.0

    def _repr_html_(self) -> str:
        rows = {
            "blobs": f"{self.blobs:,}",
            "their bytes": _html.size(self.logical_bytes),
            "blocks": f"{self.blocks:,}",
            "stored bytes": _html.size(self.stored_bytes),
            "dedup ratio": f"{self.dedup_ratio:.2f}",
            "deleted, restorable": f"{self.dead_blobs:,} ({_html.size(self.dead_bytes)})",
            "reclaimable": _html.size(self.reclaimable_bytes),
        }
        parts = [
            ("stored", self.stored_bytes, _html.NEW),
            ("saved by storing once", self.logical_bytes - self.stored_bytes, _html.SHARED),
        ]
        return _html.shares("Graviton store", rows, parts)


# report: GcReport
@dataclass(frozen=True, slots=True)
class GcReport:
    """The report of a collection: its work or, after a dry run, the work that it would do."""

    dry_run: bool
    """Whether it was a dry run."""
    blobs: int
    """Deleted blobs that were collected, including those of abandoned and failed puts."""
    named: tuple[BlobId, ...]
    """The ids of some of them; only after a dry run."""
    blocks: int
    """Blocks that were deleted."""
    bytes: int
    """The sum of their sizes in bytes."""
    abandoned_puts: int
    """Puts whose writer is gone."""
    kept_referenced: int
    """Blocks that lost a reference and are kept because another one remains."""
    kept_doomed: int
    """Blocks that are kept for now because another collection is about to delete them, or was before it died,
    or because the server did not answer."""
    kept_failed: int
    """Blocks that could not be deleted; the next collection tries again."""
    failure: str
    """Why the first block is kept that could not be deleted or whose deletion got no answer, or why the
    collection failed. Empty if nothing did."""
    leftovers: int
    """Files of dead processes that were removed."""
    complete: bool
    """Whether nothing is left to do; ``False`` if a limit or the caller stopped it."""
    seconds: float
    """The duration in seconds."""
    unreferenced: int
    """Blocks and packs on a filesystem without a row in the database, among some that a complete collection
    looked at: of running puts, or left by killed ones. `verify` with `adopt` hands them to the next
    collection."""
    unreferenced_bytes: int
    """The sum of their sizes in bytes."""
    future_times: int
    """Times of deletions, leases and deletions under way that lay further ahead than they can: a clock was
    ahead when they were written. The collection brought them back, so that nothing waits for that clock."""

    @classmethod
    def _from_engine(
        cls, values: tuple[bool, int, tuple[str, ...], int, int, int, int, int, int, str, int, bool, float, int, int, int]
    ) -> Self:
        return cls(values[0], values[1], tuple(map(known, values[2])), *values[3:])
    # end


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a verification."""

    kind: str
    """``block``, ``manifest``, ``database``, ``unreferenced``, ``pack`` or ``record``. The last three are no
    damage.
    """
    what: str
    """The key of the block, the id of the blob, or the name of the pack; empty for the database."""
    why: str
    """Why it is not in order."""
    blobs: tuple[BlobId, ...]
    """The blobs that are damaged, up to a thousand of them."""

    @property
    def is_damage(self) -> bool:
        """Whether it damages a live blob."""
        return self.kind not in ("unreferenced", "pack", "record")

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.why}" if self.what else f"{self.kind}: {self.why}"


# report: VerifyReport
@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The report of a verification."""

    blobs: int
    """Blobs whose manifests were checked."""
    blocks: int
    """Blocks that were checked."""
    bytes: int
    """Bytes that were hashed."""
    missing: int
    """Blocks of live blobs that are missing."""
    corrupt: int
    """Blocks of live blobs with a wrong length or wrong bytes."""
    broken_manifests: int
    """Live blobs with a broken manifest."""
    database_problems: int
    """Problems that the self-check of the database found."""
    unreferenced: int
    """Blocks and packs without a row in the database."""
    unreferenced_bytes: int
    """The sum of their sizes in bytes."""
    rebuilt: int
    """Blocks that were missing or damaged and were copied from packs that the database did not use."""
    rebuilt_bytes: int
    """The sum of their sizes in bytes."""
    unusable: int
    """Records of unknown packs that could not be used, and packs that belong to another store."""
    complete: bool
    """Whether everything was checked; ``False`` if the caller stopped it."""
    cursor: str | None
    """The cursor to continue from, if it was stopped early."""
    seconds: float
    """The duration in seconds."""

    @classmethod
    def _from_engine(
        cls, values: tuple[int, int, int, int, int, int, int, int, int, int, int, int, bool, str | None, float]
    ) -> Self:
        return cls(*values)
    # end

    findings: tuple[Finding, ...] = field(default=(), repr=False)
    """All findings, unless a function was given to take them."""

    @property
    def clean(self) -> bool:
        """Whether no live blob is damaged."""
        return not (self.missing or self.corrupt or self.broken_manifests or self.database_problems)


# report: CopyReport
@dataclass(frozen=True, slots=True)
class CopyReport:
    """The report of a copy."""

    blobs: int
    """Blobs that were copied."""
    present: int
    """Blobs that already existed here."""
    blocks: int
    """Blocks that were transferred from the other store."""
    bytes: int
    """The sum of their sizes in bytes."""
    damaged: tuple[BlobId, ...]
    """Blobs that are damaged in the other store. They were skipped."""
    complete: bool
    """Whether everything was copied; ``False`` if the caller stopped it."""
    seconds: float
    """The duration in seconds."""

    @classmethod
    def _from_engine(cls, values: tuple[int, int, int, int, tuple[str, ...], bool, float]) -> Self:
        return cls(values[0], values[1], values[2], values[3], tuple(map(known, values[4])), *values[5:])
    # end


# report: RepairReport
@dataclass(frozen=True, slots=True)
class RepairReport:
    """The report of a repair."""

    checked: int
    """Blocks that were checked."""
    repaired: int
    """Bad blocks that were replaced."""
    bytes: int
    """The sum of their sizes in bytes."""
    lost: tuple[str, ...]
    """Bad blocks that are missing or damaged in the other store too."""
    complete: bool
    """Whether every block was checked; ``False`` if the caller stopped it."""
    seconds: float
    """The duration in seconds."""

    @classmethod
    def _from_engine(cls, values: tuple[int, int, int, tuple[str, ...], bool, float]) -> Self:
        return cls(*values)
    # end


# report: RepackReport
@dataclass(frozen=True, slots=True)
class RepackReport:
    """The report of a repack."""

    blocks: int
    """Blocks that were moved into the other layout."""
    bytes: int
    """The sum of their sizes in bytes."""
    present: int
    """Stored blocks that were there already when it began."""
    damaged: int
    """Blocks that were found damaged. They are marked as not stored, so that the next put of them writes them
    again."""
    skipped: int
    """Blocks that were left where they are because a running put uses them, or because they were moved or
    deleted meanwhile."""
    remaining: int
    """Stored blocks that are not there yet."""
    leftovers: int
    """Files or objects of blocks in packs that an earlier repack had left, and that were removed."""
    kept_failed: int
    """Files or objects of moved blocks that could not be removed; a later collection tries again."""
    failure: str
    """Why the first file is kept that could not be removed. Empty if there is none."""
    complete: bool
    """Whether every stored block is there; ``False`` if some remain, or the caller stopped it."""
    seconds: float
    """The duration in seconds."""

    @classmethod
    def _from_engine(cls, values: tuple[int, int, int, int, int, int, int, int, str, bool, float]) -> Self:
        return cls(*values)
    # end
