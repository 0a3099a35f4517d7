"""The asynchronous store, the source of all other asynchronous objects."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from .. import _graviton
from .._arguments import mode, span
from .._errors import make
from .._id import BlobId, known
from .._progress import Meter, Progress
from .._reports import (
    BlobStat,
    CopyReport,
    Finding,
    GcReport,
    PutReceipt,
    RepackReport,
    RepairReport,
    StoreStats,
    VerifyReport,
)
from .._settings import Place, Settings
from .._store import PAGE, Unopened, log
from .._store import Store as _Store
from .._transfer import Path, bytes_of, no_source, no_target, path_of, paths_of, pieces_in
from ._call import Opening, call, in_thread, in_thread_telling, together
from ._files import BlobReader, BlobWriter
from ._manifest import Manifest
from ._transfer import appearing, copy, each, read_all

if TYPE_CHECKING:
    from typing import Self, Unpack

    from typing_extensions import Buffer

    from ._transfer import Source, Writable

__all__ = ["Store", "open"]

# The most files of a `put_many` in flight, as in `Store.put_many`.
_AT_ONCE = 64

class Store:
    """An open store for asyncio. :func:`graviton.aio.open` makes one; ``async with`` closes it.

    Methods and exceptions are those of :class:`graviton.Store`. Cancelling the task that waits for a call
    ends the call; a cancelled ``put`` leaves no blob, and the next :meth:`gc` frees blocks that it had
    written. A ``put`` or ``delete`` that was cancelled at its very end may have succeeded. It pickles like a
    synchronous one. Functions given as ``progress`` and ``found`` are called on the event loop.
    """

    def __init__(self, store: _Store) -> None:
        """Wrap a synchronous store. Both are closed together."""
        self._store = store

    @property
    def _engine(self) -> _graviton.Store:
        return self._store._engine

    @classmethod
    def from_env(
        cls, *, read_only: bool = False, create: bool = True, adopt: bool = False, take_over: bool = False
    ) -> Opening[Self]:
        """Open the store that the environment describes (``GRAVITON_FS_ROOT`` and so on)."""

        async def opening() -> Self:
            settings = dict(_graviton.environment())
            return await cls._at(Place.found(None, settings, mode(read_only, create), adopt, take_over))

        return Opening(opening)

    @classmethod
    async def _at(cls, place: Place) -> Self:
        engine = await call(
            _graviton.Store.aio_open,
            list(place.settings.items()),
            place.path,
            place.mode,
            place.adopt,
            place.take_over,
        )
        store = _Store.__new__(_Store)
        store._start(place, engine)
        return cls(store)

    @property
    def synchronous(self) -> _Store:
        """The same store for synchronous code. Its calls block their thread."""
        return self._store

    # ---- Putting

    async def put(self, source: Source, *, expect: str | None = None, progress: Progress = None) -> BlobId:
        """Store the content of the source, and return its id.

        The source is anything that :meth:`graviton.Store.put` takes, an asynchronous iterable of bytes, or a
        file whose ``read`` is a coroutine function. A synchronous ``read`` is called on another thread.
        """
        return (await self.put_receipt(source, expect=expect, progress=progress)).id

    async def put_receipt(
        self, source: Source, *, expect: str | None = None, progress: Progress = None
    ) -> PutReceipt:
        """The same, but return the receipt."""
        data = bytes_of(source)
        if isinstance(data, bytes) and not progress:
            return PutReceipt._from_engine(await call(self._engine.aio_put, data, expect))
        if data is not None:
            size, pieces = pieces_in(data)
            return await self._put_pieces(each(pieces), size, expect, progress)
        if isinstance(source, os.PathLike):
            return await self._put_file(source, expect, progress)
        read = getattr(source, "read", None)
        if callable(read):
            return await self._put_pieces(read_all(read), None, expect, progress)
        if isinstance(source, AsyncIterable):
            return await self._put_pieces(source, None, expect, progress)
        if isinstance(source, Iterable):
            return await self._put_pieces(each(source), None, expect, progress)
        raise no_source(source)

    async def put_file(self, path: Path, *, expect: str | None = None, progress: Progress = None) -> BlobId:
        """Store the content of a file, and return its id."""
        return (await self._put_file(path, expect, progress)).id

    async def put_many(self, paths: Iterable[Path], *, progress: Progress = None) -> list[BlobId]:
        """Store the content of many files, several at a time, and return their ids in the order of the
        paths. The first failure is raised and ends the others; files that were stored before it stay
        stored.
        """
        names = paths_of(paths)
        sizes = (os.stat(name).st_size for name in names if os.path.isfile(name)) if progress else ()
        found: list[BlobId | None] = [None] * len(names)
        waiting = iter(enumerate(names))
        with Meter(progress, "storing", sum(sizes)) as meter:

            async def work() -> None:
                for place, name in waiting:
                    found[place] = id = (await self._put_file(name, None, None)).id
                    meter.add(id.size)

            await together([work() for _ in range(min(_AT_ONCE, len(names)))])
        return [id for id in found if id is not None]

    def writer(self, *, expect: str | None = None) -> Opening[BlobWriter]:
        """A blob to be written: ``async with store.writer() as file``, or ``file = await store.writer()``."""

        async def opening() -> BlobWriter:
            return BlobWriter(await call(self._engine.aio_writer, expect))

        return Opening(opening)

    async def _put_file(self, path: Path, expect: str | None, progress: Progress) -> PutReceipt:
        path = path_of(path)
        if not progress:
            return PutReceipt._from_engine(await call(self._engine.aio_put_file, path, expect))
        file = await asyncio.to_thread(io.FileIO, path)
        try:
            total = os.fstat(file.fileno()).st_size or None
            return await self._put_pieces(read_all(file.read), total, expect, progress)
        finally:
            file.close()

    async def _put_pieces(
        self, pieces: AsyncIterable[Buffer], total: int | None, expect: str | None, progress: Progress
    ) -> PutReceipt:
        with Meter(progress, "storing", total) as meter:
            async with self.writer(expect=expect) as writer:
                async for piece in pieces:
                    meter.add(await writer.write(piece))
            return writer.receipt

    # ---- Getting

    async def get(self, id: str) -> bytes:
        """Return the content of a blob, verified."""
        found = await call(self._engine.aio_get, id)
        return found if isinstance(found, bytes) else await call(found.read, 0, found.size, True)

    async def get_into(self, id: str, buffer: Buffer) -> int:
        """Read a blob into a writable buffer, and return the number of bytes."""
        blob = BlobId(id)
        _graviton.fill_at(buffer, 0, b"")
        with memoryview(buffer) as view:
            if blob.size > view.nbytes:
                raise make(
                    "invalid-argument",
                    f"blob {blob} does not fit into a buffer of {view.nbytes} bytes",
                    f"give one of {blob.size} bytes or more",
                )
            async with self.open(blob) as file:
                return await file.readinto(buffer)

    async def get_to(self, id: str, target: Path | Writable, *, progress: Progress = None) -> int:
        """Write the content of a blob to a file, and return the number of bytes.

        The target is a binary file, whose ``write`` may be a coroutine function, or a path. At a path, the
        file appears when it is complete and not before.
        """
        write = getattr(target, "write", None)
        if callable(write):
            return await self._copy_to(id, write, progress)
        if not isinstance(target, str | os.PathLike):
            raise no_target(target)
        async with self.open(id) as source, appearing(path_of(target)) as write:
            return await copy(source, write, progress)

    async def _copy_to(self, id: str, write: Callable[[Any], object], progress: Progress) -> int:
        async with self.open(id) as source:
            return await copy(source, write, progress)

    def open(self, id: str) -> Opening[BlobReader]:
        """Open a blob for reading: ``async with store.open(id) as file``, or ``file = await
        store.open(id)``.
        """

        async def opening() -> BlobReader:
            return BlobReader(BlobId(id), await call(self._engine.aio_reader, id))

        return Opening(opening)

    async def read_range(self, id: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes of a blob from an offset."""
        offset, length = span(offset, length)
        found = await call(self._engine.aio_read_range, id, offset, length)
        return found if isinstance(found, bytes) else await call(found.read, offset, length, True)

    # ---- What is there

    async def stat(self, id: str) -> BlobStat:
        """Get the metadata of a blob."""
        return BlobStat._from_engine(await call(self._engine.aio_stat, id))

    async def exists(self, id: str) -> bool:
        """Test whether the blob exists. Text that is not an id is an ``InvalidIdError``."""
        return await call(self._engine.aio_exists, id)

    async def list(self, *, after: str | None = None) -> AsyncIterator[BlobStat]:
        """Iterate over all blobs, or those after one, ordered by algorithm, digest and size: ``async for
        blob in store.list()``.
        """
        while page := await call(self._engine.aio_list, after, PAGE):
            for found in page:
                yield BlobStat._from_engine(found)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    async def __aiter__(self) -> AsyncIterator[BlobId]:
        """Iterate over the ids of all blobs."""
        async for blob in self.list():
            yield blob.id

    async def manifest(self, id: str) -> Manifest:
        """The blocks of a blob, in order."""
        return Manifest(self, await self.stat(id))

    async def stats(self) -> StoreStats:
        """Get the totals of the store. Takes time proportional to the number of blobs and blocks."""
        return StoreStats._from_engine(await call(self._engine.aio_stats))

    # ---- Deletion and upkeep

    async def delete(self, id: str) -> None:
        """Delete a blob. It can be restored for the grace period."""
        await call(self._engine.aio_delete, id)

    async def restore(self, id: str) -> None:
        """Restore a deleted blob; this works at least for the grace period."""
        await call(self._engine.aio_restore, id)

    async def gc(
        self,
        *,
        grace: timedelta | float | None = None,
        dry_run: bool = False,
        max_time: timedelta | float | None = None,
        max_blocks: int | None = None,
        max_bytes: int | None = None,
        blocks_per_second: int | None = None,
        progress: Progress = None,
    ) -> GcReport:
        """Free the space of blobs that were deleted before the grace period. When cancelled, it ends after
        the current step.
        """
        return await in_thread_telling(
            progress,
            lambda tell: self._store.gc(
                grace=grace,
                dry_run=dry_run,
                max_time=max_time,
                max_blocks=max_blocks,
                max_bytes=max_bytes,
                blocks_per_second=blocks_per_second,
                progress=tell,
            ),
        )

    async def verify(
        self,
        ids: Iterable[str] = (),
        *,
        deep: bool = False,
        bytes_per_second: int | None = None,
        cursor: str | None = None,
        adopt: bool = False,
        rebuild: bool = False,
        found: Callable[[Finding], object] | None = None,
        progress: Progress = None,
    ) -> VerifyReport:
        """Check that everything is there or, with ``deep``, also intact. When cancelled, it ends after the
        current step.
        """
        loop = asyncio.get_running_loop()
        # Other values are refused below.
        heard = (lambda finding: loop.call_soon_threadsafe(found, finding)) if callable(found) else found
        return await in_thread_telling(
            progress,
            lambda tell: self._store.verify(
                ids,
                deep=deep,
                bytes_per_second=bytes_per_second,
                cursor=cursor,
                adopt=adopt,
                rebuild=rebuild,
                found=heard,
                progress=tell,
            ),
        )

    async def repack(self, to: Literal["files", "packs"], *, progress: Progress = None) -> RepackReport:
        """Move all blocks into packs, or out of them into files of their own. When cancelled, it ends after
        the current step.
        """
        return await in_thread_telling(progress, lambda tell: self._store.repack(to, progress=tell))

    async def copy_from(
        self, other: Store | _Store, ids: Iterable[str] = (), *, progress: Progress = None
    ) -> CopyReport:
        """Copy these blobs, or all, from another store, verified. Only blocks that are missing here are
        transferred.
        """
        source = other._store if isinstance(other, Store) else other
        return await in_thread_telling(progress, lambda tell: self._store.copy_from(source, ids, progress=tell))

    async def repair_from(self, other: Store | _Store, *, progress: Progress = None) -> RepairReport:
        """Replace blocks that are missing or damaged by those of another store, after verifying them."""
        source = other._store if isinstance(other, Store) else other
        return await in_thread_telling(progress, lambda tell: self._store.repair_from(source, progress=tell))

    async def backup(self, path: Path) -> None:
        """Write a consistent copy of the manifests in SQLite to a new file, while the store is in use. When
        cancelled, it finishes writing and removes the file.
        """

        path = path_of(path)

        def run(check: Callable[[], None]) -> None:
            self._store.backup(path)
            try:
                check()
            except BaseException:
                os.unlink(path)
                raise

        await in_thread(run)

    # ---- The store itself

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._store.closed

    async def close(self) -> None:
        """Close the store. Later calls raise ``ClosedError``; running puts fail."""
        if not self._store._closed:
            if not isinstance(self._store._opened, Unopened):
                await asyncio.shield(call(self._engine.aio_close))
            # Not earlier: if the waiting is cancelled, the store can be closed again.
            self._store._closed = True
            log.debug("closed %r", self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._store,)

    def __repr__(self) -> str:
        return f"<graviton.aio.Store {self._store._place!r}{', closed' if self.closed else ''}>"


def open(  # noqa: A001
    path: Path | None = None,
    *,
    read_only: bool = False,
    create: bool = True,
    adopt: bool = False,
    take_over: bool = False,
    **config: Unpack[Settings],
) -> Opening[Store]:
    """Open the store in a directory: ``async with graviton.aio.open(path) as store``, or
    ``store = await graviton.aio.open(path)``. The arguments are those of :func:`graviton.open`."""

    async def opening() -> Store:
        return await Store._at(Place.of(path, config, mode(read_only, create), adopt, take_over))

    return Opening(opening)
