"""What calls come back with: plain, immutable values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from . import _html
from ._errors import make
from ._id import BlobId

if TYPE_CHECKING:
    from ._store import Store

__all__ = [
    "BlobStat",
    "CopyReport",
    "Finding",
    "GcReport",
    "Manifest",
    "ManifestEntry",
    "PutReceipt",
    "RepairReport",
    "StoreStats",
    "VerifyReport",
]


@dataclass(frozen=True, slots=True)
class PutReceipt:
    """What came of a put."""

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

    @property
    def size(self) -> int:
        """The length of the content in bytes."""
        return self.id.size

    def _repr_html_(self) -> str:
        return _html.receipt(self)


@dataclass(frozen=True, slots=True)
class BlobStat:
    """What is known of a blob."""

    id: BlobId
    """Its id."""
    blocks: int
    """How many blocks it has."""
    chunker: str
    """The setting it was cut with."""
    created_at: datetime
    """When it was put, in UTC."""

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.id.size


class ManifestEntry(NamedTuple):
    """A block of a blob."""

    offset: int
    """Where it starts in the blob, in bytes."""
    size: int
    """How many bytes it has."""
    key: str
    """Which block it is: ``<algorithm>:<hash of its bytes>:<size>``. Equal keys are one stored block."""


class Manifest:
    """Which blocks a blob has, in order. It is read from the store as it is iterated over, and never as a whole.

    >>> manifest = store.manifest(store.put(b"hello"))
    >>> len(manifest), [(entry.offset, entry.size) for entry in manifest]
    (1, [(0, 5)])
    """

    PAGE: ClassVar[int] = 1024

    def __init__(self, store: Store, stat: BlobStat, before: tuple[Manifest, ...] = ()) -> None:
        self._store = store
        self._stat = stat
        self._before = before

    @property
    def id(self) -> BlobId:
        """The blob."""
        return self._stat.id

    @property
    def stat(self) -> BlobStat:
        """What is known of the blob."""
        return self._stat

    def __len__(self) -> int:
        """How many blocks it has."""
        return self._stat.blocks

    def __iter__(self) -> Iterator[ManifestEntry]:
        """Its blocks from the first on."""
        return self.starting(0)

    def starting(self, offset: int) -> Iterator[ManifestEntry]:
        """Its blocks from the one on that holds the byte at ``offset``."""
        if offset < 0:
            raise make("invalid-argument", f"no block is at {offset}", "give a number of 0 or more")
        offset = min(offset, self.id.size)
        while page := self._store._engine.manifest(self.id, offset, self.PAGE):
            for start, key in page:
                offset = start + int(key.rpartition(":")[2])
                yield ManifestEntry(start, offset - start, key)

    def against(self, *before: Manifest) -> Manifest:
        """The same manifest, which in a notebook also shows which blocks it shares with these.

        >>> first = store.manifest(store.put(b"hello"))
        >>> "there before" in store.manifest(first.id).against(first)._repr_html_()
        True
        """
        return Manifest(self._store, self._stat, before)

    def __repr__(self) -> str:
        return f"<graviton.Manifest of {self.id}: {len(self)} blocks>"

    def _repr_html_(self) -> str:
        return _html.manifest(self, self._before)


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds."""

    blobs: int
    """Live blobs."""
    logical_bytes: int
    """The sum of their sizes."""
    blocks: int
    """Blocks that are stored, each once."""
    stored_bytes: int
    """The sum of their sizes."""
    dead_blobs: int
    """Deleted blobs that can still be restored."""
    dead_bytes: int
    """The sum of their sizes."""
    reclaimable_bytes: int
    """Bytes of stored blocks that neither a live blob nor a put under way refers to. A collection without grace frees these,
    and what a put that failed or was aborted had announced and may have written: ``gc(grace=0, dry_run=True)`` tells both."""

    @property
    def dedup_ratio(self) -> float:
        """How many bytes of blobs a stored byte serves; 1 for an empty store."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 1.0

    def _repr_html_(self) -> str:
        return _html.stats(self)


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a collection did, or, after a dry run, would do."""

    dry_run: bool
    """Whether it was a dry run."""
    abandoned_puts: int
    """Puts of writers that are gone."""
    blobs: int
    """Deleted blobs that went, those of abandoned and failed puts among them."""
    named: tuple[BlobId, ...]
    """The names of some of them; of a dry run only."""
    blocks: int
    """Blocks that were deleted."""
    bytes: int
    """The sum of their sizes."""
    kept_referenced: int
    """Blocks that lost a reference and are kept, because something else refers to them."""
    kept_doomed: int
    """Blocks that are kept for now because another collection is about to delete them."""
    kept_failed: int
    """Blocks that could not be deleted; the next collection tries again."""
    leftovers: int
    """Files of dead processes that were removed."""
    seconds: float
    """How long it took."""
    complete: bool
    """Whether nothing is left to do; ``False`` if a limit ended it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a verification found."""

    kind: str
    """``block``, ``manifest``, ``database`` or ``unreferenced``; only the last one hurts nobody."""
    what: str
    """The block's key or the blob's id that it is about."""
    why: str
    """What is wrong."""
    blobs: tuple[BlobId, ...]
    """The blobs that are hurt, up to a thousand of them."""

    @property
    def is_damage(self) -> bool:
        """Whether a live blob is hurt."""
        return self.kind != "unreferenced"

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.why}" if self.what else f"{self.kind}: {self.why}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification looked at and found."""

    blobs: int
    """Blobs whose manifests were looked at."""
    blocks: int
    """Blocks that were looked at."""
    bytes: int
    """Bytes that were hashed."""
    missing: int
    """Blocks of live blobs that are missing."""
    corrupt: int
    """Blocks of live blobs with another length or other bytes."""
    broken_manifests: int
    """Live blobs whose manifest does not tile them."""
    database_problems: int
    """What the database found wrong with itself."""
    unreferenced: int
    """Blocks that no row knows."""
    unreferenced_bytes: int
    """Their bytes."""
    seconds: float
    """How long it took."""
    cursor: str | None
    """Where to go on, if it was ended early."""
    findings: tuple[Finding, ...] = field(default=(), repr=False)
    """All that it found, unless a function was given to take it."""

    @property
    def clean(self) -> bool:
        """Whether no live blob is hurt."""
        return not (self.missing or self.corrupt or self.broken_manifests or self.database_problems)


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
    """Their bytes."""
    damaged: tuple[BlobId, ...]
    """Blobs that the other store does not have whole. They were left out."""
    seconds: float
    """How long it took."""
    complete: bool
    """Whether all was done."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was mended with blocks of another store."""

    checked: int
    """Blocks that were looked at."""
    repaired: int
    """Bad blocks that are whole again."""
    bytes: int
    """Their bytes."""
    lost: tuple[str, ...]
    """The keys of bad blocks that the other store does not have either, or not whole."""
    seconds: float
    """How long it took."""
    complete: bool
    """Whether all was looked at."""
