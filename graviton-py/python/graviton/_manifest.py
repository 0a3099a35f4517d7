"""Manifests: the blocks of a blob."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Protocol

from . import _graviton, _html
from ._errors import make
from ._id import BlobId
from ._reports import BlobStat


class ManifestEntry(NamedTuple):
    """A block of a blob."""

    offset: int
    """Its offset in the blob, in bytes."""
    size: int
    """Its size in bytes."""
    key: str
    """Its key: ``<algorithm>:<hash of its bytes>:<size>``. Equal keys are one stored block."""


class HasEngine(Protocol):
    """A store."""

    @property
    def _engine(self) -> _graviton.Store: ...


class ManifestBase:
    """The part that synchronous and asynchronous manifests share."""

    PAGE: ClassVar[int] = 1024

    def __init__(self, store: HasEngine, stat: BlobStat) -> None:
        self._store = store
        self._stat = stat

    @property
    def id(self) -> BlobId:
        """The blob."""
        return self._stat.id

    @property
    def stat(self) -> BlobStat:
        """The metadata of the blob."""
        return self._stat

    def __len__(self) -> int:
        """The number of its blocks."""
        return self._stat.blocks

    def _start(self, offset: int) -> int:
        """The offset of the first page."""
        if offset < 0:
            raise make("invalid-argument", f"no block is at {offset}", "give a number of 0 or more")
        return min(offset, self.id.size)

    def __repr__(self) -> str:
        package = type(self).__module__.rpartition(".")[0]
        return f"<{package}.Manifest of {self.id}: {len(self)} blocks>"


def entries_of(page: list[tuple[int, str]]) -> list[ManifestEntry]:
    """The entries of a page of offsets and keys."""
    return [ManifestEntry(start, int(key.rpartition(":")[2]), key) for start, key in page]


class Manifest(ManifestBase):
    """The blocks of a blob, in order. Iteration reads them from the store a page at a time.

    >>> manifest = store.manifest(store.put(b"hello"))
    >>> len(manifest), [(entry.offset, entry.size) for entry in manifest]
    (1, [(0, 5)])
    """

    def __init__(self, store: HasEngine, stat: BlobStat, before: tuple[Manifest, ...] = ()) -> None:
        super().__init__(store, stat)
        self._before = before

    def __iter__(self) -> Iterator[ManifestEntry]:
        """Its blocks, from the first."""
        return self.starting(0)

    def starting(self, offset: int) -> Iterator[ManifestEntry]:
        """Its blocks, from the one that contains the byte at ``offset``."""
        offset = self._start(offset)
        while page := entries_of(self._store._engine.manifest(self.id, offset, self.PAGE)):
            yield from page
            offset = page[-1].offset + page[-1].size

    def against(self, *before: Manifest) -> Manifest:
        """The same manifest. In a notebook it also shows the blocks that it shares with these manifests.

        >>> first = store.manifest(store.put(b"hello"))
        >>> "there before" in store.manifest(first.id).against(first)._repr_html_()
        True
        """
        return Manifest(self._store, self._stat, before)

    def _repr_html_(self) -> str:
        facts = {
            "cut with": self.stat.chunker,
            "put at": self.stat.created_at.isoformat(timespec="seconds"),
        }
        known = {entry.key for other in self._before for entry in other}
        return _html.manifest(self.id, self.id.size, len(self), facts, self, known)
