"""Manifests for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .._manifest import ManifestBase, ManifestEntry, entries_of
from ._call import call


class Manifest(ManifestBase):
    """The blocks of a blob, in order. ``async for`` reads them from the store a page at a time."""

    def __aiter__(self) -> AsyncIterator[ManifestEntry]:
        """Its blocks, from the first."""
        return self.starting(0)

    async def starting(self, offset: int) -> AsyncIterator[ManifestEntry]:
        """Its blocks, from the one that contains the byte at ``offset``."""
        offset = self._start(offset)
        while page := entries_of(await call(self._store._engine.aio_manifest, self.id, offset, self.PAGE)):
            for entry in page:
                yield entry
            offset = page[-1].offset + page[-1].size
