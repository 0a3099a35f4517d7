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
    "RepairReport",
    "StoreStats",
    "VerifyReport",
]


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


# report: PutReceipt
@dataclass(frozen=True, slots=True)
class PutReceipt:
    """What a put did."""

    id: BlobId
    """The id under which the content can be read."""
    blocks: int
    """How many blocks the content was cut into."""
    fresh_blocks: int
    """How many of them were not in the store before and were written."""
    fresh_bytes: int
    """The bytes of those."""
    created: bool
    """Whether the blob is new; ``False`` if it was there already."""

    @classmethod
    def _from_engine(cls, values: tuple[str, int, int, int, bool]) -> Self:
        return cls(known(values[0]), *values[1:])
    # end

    @property
    def size(self) -> int:
        """The length of the content in bytes."""
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
    """What is known of a live blob."""

    id: BlobId
    """Its id."""
    blocks: int
    """How many blocks it has."""
    chunker: str
    """The setting GRAVITON_CHUNKER that it was cut with."""
    created_at: datetime
    """When it was put, in UTC."""

    @classmethod
    def _from_engine(cls, values: tuple[str, int, str, int]) -> Self:
        return cls(known(values[0]), values[1], values[2], _time(values[3]))
    # end

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.id.size


# report: StoreStats
@dataclass(frozen=True, slots=True)
class StoreStats:
    """Sums over a store."""

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
    """Bytes of stored blocks that neither a live blob nor a put under way refers to. A collection without
    grace frees them. It also frees what failed and aborted puts left, which only the plan of a collection
    counts."""

    @classmethod
    def _from_engine(cls, values: tuple[int, int, int, int, int, int, int]) -> Self:
        return cls(*values)
    # end

    @property
    def dedup_ratio(self) -> float:
        """How many bytes of blobs a stored byte serves; 1 for an empty store."""
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
    """What a collection did, or, after a dry run, would do."""

    dry_run: bool
    """Whether it was a dry run."""
    blobs: int
    """Deleted blobs that were removed, those of abandoned and failed puts among them."""
    named: tuple[BlobId, ...]
    """The ids of some of them, after a dry run only."""
    blocks: int
    """Blocks that were deleted."""
    bytes: int
    """The sum of their sizes in bytes."""
    abandoned_puts: int
    """Puts that were given up because their process or session is gone."""
    kept_referenced: int
    """Blocks that lost a reference and were kept, because other blobs refer to them."""
    kept_doomed: int
    """Blocks that were kept for now, because another collection is about to delete them, or was when it died."""
    kept_failed: int
    """Blocks that could not be deleted. The next collection tries again."""
    leftovers: int
    """Files of dead processes that were removed."""
    complete: bool
    """Whether nothing is left to do; ``False`` if a limit or the caller ended it."""
    seconds: float
    """How long it took, in seconds."""

    @classmethod
    def _from_engine(
        cls, values: tuple[bool, int, tuple[str, ...], int, int, int, int, int, int, int, bool, float]
    ) -> Self:
        return cls(values[0], values[1], tuple(map(known, values[2])), *values[3:])
    # end


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a verification."""

    kind: str
    """``block``, ``manifest``, ``database`` or ``unreferenced``; only the last one is no damage."""
    what: str
    """The key of the block, or the id of the blob; empty for the database."""
    why: str
    """Why it is not in order."""
    blobs: tuple[BlobId, ...]
    """The blobs that are damaged, up to a thousand of them."""

    @property
    def is_damage(self) -> bool:
        """Whether it damages a live blob."""
        return self.kind != "unreferenced"

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.why}" if self.what else f"{self.kind}: {self.why}"


# report: VerifyReport
@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification checked and found."""

    blobs: int
    """Blobs whose manifests were checked."""
    blocks: int
    """Blocks that were checked."""
    bytes: int
    """Bytes that were hashed."""
    missing: int
    """Blocks of live blobs that are missing."""
    corrupt: int
    """Blocks of live blobs that have another length or other bytes."""
    broken_manifests: int
    """Live blobs whose manifest does not tile them."""
    database_problems: int
    """Problems that the database found in itself."""
    unreferenced: int
    """Blocks that no row of the database knows."""
    unreferenced_bytes: int
    """The sum of their sizes in bytes."""
    complete: bool
    """Whether everything was checked; ``False`` if the caller ended it early."""
    cursor: str | None
    """Where to go on, if it was ended early."""
    seconds: float
    """How long it took, in seconds."""

    @classmethod
    def _from_engine(
        cls, values: tuple[int, int, int, int, int, int, int, int, int, bool, str | None, float]
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
    """What was copied from another store."""

    blobs: int
    """Blobs that are new here."""
    present: int
    """Blobs that were here already."""
    blocks: int
    """Blocks that were fetched from the other store."""
    bytes: int
    """The sum of their sizes in bytes."""
    damaged: tuple[BlobId, ...]
    """Blobs that the other store does not have whole. They were left out."""
    complete: bool
    """Whether everything was copied; ``False`` if the caller ended it."""
    seconds: float
    """How long it took, in seconds."""

    @classmethod
    def _from_engine(cls, values: tuple[int, int, int, int, tuple[str, ...], bool, float]) -> Self:
        return cls(values[0], values[1], values[2], values[3], tuple(map(known, values[4])), *values[5:])
    # end


# report: RepairReport
@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was repaired with blocks of another store."""

    checked: int
    """Blocks that were checked."""
    repaired: int
    """Bad blocks that are whole again."""
    bytes: int
    """The sum of their sizes in bytes."""
    lost: tuple[str, ...]
    """Bad blocks that the other store does not have whole either."""
    complete: bool
    """Whether every block was checked; ``False`` if the caller ended it."""
    seconds: float
    """How long it took, in seconds."""

    @classmethod
    def _from_engine(cls, values: tuple[int, int, int, tuple[str, ...], bool, float]) -> Self:
        return cls(*values)
    # end
