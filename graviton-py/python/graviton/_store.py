"""The synchronous store."""

from __future__ import annotations

import copy
import dataclasses
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from . import _graviton
from ._arguments import limit, mode, seconds, span, texts
from ._errors import InvalidIdError
from ._files import BlobReader, BlobWriter
from ._id import BlobId, known
from ._manifest import Manifest
from ._progress import Meter, Progress
from ._reports import (
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
from ._settings import Place, Settings
from ._transfer import appearing, bytes_of, copy_all, no_source, no_target, path_of, paths_of, pieces_in, pieces_of

if TYPE_CHECKING:
    from typing import Self, Unpack

    from typing_extensions import Buffer

    from ._transfer import Path, Source, Writable

log = logging.getLogger("graviton")
# Without a handler, Python prints warnings of programs that have not set up logging.
log.addHandler(logging.NullHandler())

# Blobs of a list that are fetched at once.
PAGE = 1000
BUFFER_SIZE = 64 << 10


class Unopened(NamedTuple):
    """The reason why a store was not reopened, and the secrets that reopening needs."""

    why: Exception
    secret: dict[str, str]


class Store:
    """An open store. :func:`graviton.open` makes one; ``with`` closes it.

    Any number of threads may use it at once, and any number of processes may open the same location. Calls
    release the GIL, and Ctrl-C interrupts them. After a ``fork``, a store of the parent raises
    :class:`ForkedError`. A pickle contains the location and the settings, but no secrets. Unpickling opens
    the store, with secrets from the environment. If that fails, the error is raised at the first use.

    >>> with graviton.open(directory) as store:
    ...     id = store.put(b"hello")
    ...     store.get(id)
    b'hello'
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        read_only: bool = False,
        create: bool = True,
        adopt: bool = False,
        take_over: bool = False,
        **config: Unpack[Settings],
    ) -> None:
        self._start(Place.of(path, config, mode(read_only, create), adopt, take_over))

    @classmethod
    def from_env(
        cls, *, read_only: bool = False, create: bool = True, adopt: bool = False, take_over: bool = False
    ) -> Self:
        """Open the store that the environment describes (``GRAVITON_FS_ROOT`` and so on).

        >>> os.environ["GRAVITON_FS_ROOT"] = directory
        >>> graviton.Store.from_env().close()
        """
        settings = dict(_graviton.environment())
        return cls._at(Place.found(None, settings, mode(read_only, create), adopt, take_over))

    @classmethod
    def _at(cls, place: Place) -> Self:
        store = cls.__new__(cls)
        store._start(place)
        return store

    def _start(self, place: Place, engine: _graviton.Store | Unopened | None = None) -> None:
        self._place = place
        self._opened = place.open() if engine is None else engine
        self._closed = False
        log.debug("opened %r", self)

    @property
    def _engine(self) -> _graviton.Store:
        if isinstance(self._opened, Unopened):
            raise copy.copy(self._opened.why) from self._opened.why.__cause__
        return self._opened

    # ---- Putting

    def put(self, source: Source, *, expect: str | None = None, progress: Progress = None) -> BlobId:
        """Store the content of the source, and return its id. The blob is not visible before this returns.

        The source is bytes (any C-contiguous buffer: ``bytes``, ``bytearray``, ``memoryview``, ``mmap``, a
        NumPy array), a :class:`pathlib.Path`, a binary file, which is read from its position to its end, or
        an iterable of bytes. Text is refused: encode it, or name a file with :meth:`put_file`.

        With ``expect``, content with any other id is a :class:`DigestMismatchError`, and is not stored.

        >>> store.put(b"hello") == store.put(io.BytesIO(b"hello")) == store.put([b"hel", b"lo"])
        True
        """
        if type(source) is bytes and not progress:
            return known(self._engine.put(source, expect)[0])
        return self.put_receipt(source, expect=expect, progress=progress).id

    def put_receipt(
        self, source: Source, *, expect: str | None = None, progress: Progress = None
    ) -> PutReceipt:
        """The same, but return the receipt.

        >>> store.put_receipt(b"some bytes").fresh_blocks
        1
        >>> store.put_receipt(b"some bytes").fresh_blocks
        0
        """
        data = bytes_of(source)
        if data is not None:
            if not progress:
                return PutReceipt._from_engine(self._engine.put(data, expect))
            size, pieces = pieces_in(data)
            return self._put_pieces(pieces, size, expect, progress)
        if isinstance(source, os.PathLike):
            return self._put_file(source, expect, progress)
        read = getattr(source, "read", None)
        if callable(read):
            return self._put_pieces(pieces_of(read), None, expect, progress)
        if isinstance(source, Iterable):
            return self._put_pieces(source, None, expect, progress)
        raise no_source(source)

    def put_file(self, path: Path, *, expect: str | None = None, progress: Progress = None) -> BlobId:
        """Store the content of a file, and return its id.

        >>> store.put_file(__file__).size == os.path.getsize(__file__)
        True
        """
        return self._put_file(path, expect, progress).id

    def put_many(self, paths: Iterable[Path], *, progress: Progress = None) -> list[BlobId]:
        """Store the content of many files, several at a time, and return their ids in the order of the paths.

        This is much faster than one after the other, because the files share transactions and syncs. The
        first failure is raised; files that were stored before stay stored.

        >>> len(store.put_many([__file__, __file__]))
        2
        """
        names = paths_of(paths)
        if not progress:
            return [known(put[0]) for put in self._engine.put_files(names)]
        sizes = (os.stat(name).st_size for name in names if os.path.isfile(name))
        with Meter(progress, "storing", sum(sizes)) as meter:
            return [known(put[0]) for put in self._engine.put_files(names, None, meter.add)]

    def writer(self, *, expect: str | None = None) -> BlobWriter:
        """Create a blob that is written as a binary file.

        >>> import csv, io
        >>> with store.writer() as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        ...     _ = csv.writer(text).writerow(["a", "b"])
        >>> store.get(file.id)
        b'a,b\\r\\n'
        """
        return BlobWriter(self._engine.writer(expect))

    def _put_file(self, path: Path, expect: str | None, progress: Progress) -> PutReceipt:
        path = path_of(path)
        if not progress:
            return PutReceipt._from_engine(self._engine.put_files([path], expect)[0])
        with io.FileIO(path) as file:
            total = os.fstat(file.fileno()).st_size or None
            return self._put_pieces(pieces_of(file.read), total, expect, progress)

    def _put_pieces(
        self, pieces: Iterable[Buffer], total: int | None, expect: str | None, progress: Progress
    ) -> PutReceipt:
        with Meter(progress, "storing", total) as meter, self.writer(expect=expect) as writer:
            for piece in pieces:
                meter.add(writer.write(piece))
        return writer.receipt

    # ---- Getting

    def get(self, id: str) -> bytes:
        """Return the content of a blob, verified.

        >>> store.get(store.put(b"hello"))
        b'hello'
        """
        return self._engine.get(id)

    def get_into(self, id: str, buffer: Buffer) -> int:
        """Fill a writable buffer with the content of a blob, and return the number of bytes.

        >>> buffer = bytearray(8)
        >>> store.get_into(store.put(b"hello"), buffer), buffer
        (5, bytearray(b'hello\\x00\\x00\\x00'))
        """
        return self._engine.get_into(id, buffer)

    def get_to(self, id: str, target: Path | Writable, *, progress: Progress = None) -> int:
        """Write the content of a blob to a file, and return the number of bytes.

        The target is a binary file or a path. At a path, the file appears when it is complete and on disk. It
        replaces an existing file, and keeps that file's mode. A path that is no regular file, such as a named
        pipe, is written to directly.

        >>> import tempfile
        >>> with tempfile.TemporaryFile() as file:
        ...     store.get_to(store.put(b"hello"), file)
        5
        """
        reader = self._engine.reader(id)
        write = getattr(target, "write", None)
        if callable(write):
            return copy_all(reader, write, progress)
        if not isinstance(target, str | os.PathLike):
            raise no_target(target)
        with appearing(path_of(target)) as file:
            return copy_all(reader, file.write, progress)

    @overload
    def open(self, id: str) -> io.BufferedReader: ...
    @overload
    def open(self, id: str, *, buffering: Literal[0]) -> BlobReader: ...
    @overload
    def open(self, id: str, *, buffering: int) -> BlobReader | io.BufferedReader: ...
    def open(self, id: str, *, buffering: int = BUFFER_SIZE) -> BlobReader | io.BufferedReader:
        """Open a blob for reading, as a binary file: ``read``, ``seek``, ``peek``, ``readinto``, lines.

        ``buffering`` is the size of the buffer; with 0 there is none, and the result is a
        :class:`BlobReader`.

        >>> with store.open(store.put(b"one\\ntwo\\n")) as file:
        ...     [line for line in file]
        [b'one\\n', b'two\\n']
        """
        raw = BlobReader(BlobId(id), self._engine.reader(id))
        return raw if buffering == 0 else io.BufferedReader(raw, buffering if buffering > 0 else BUFFER_SIZE)

    def read_range(self, id: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes of a blob from an offset. Only the blocks that hold them are read. An
        offset beyond the end is a :class:`RangeError`.

        >>> store.read_range(store.put(b"hello, graviton"), 7, 4)
        b'grav'
        """
        return self._engine.read_range(id, *span(offset, length))

    # ---- What is there

    def stat(self, id: str) -> BlobStat:
        """Get the metadata of a blob.

        >>> store.stat(store.put(b"hello")).size
        5
        """
        return BlobStat._from_engine(self._engine.stat(id))

    def exists(self, id: str) -> bool:
        """Test whether the blob exists. Text that is not an id is an :class:`InvalidIdError`."""
        return self._engine.exists(id)

    def __contains__(self, id: object) -> bool:
        """``id in store``: whether the blob exists. False for objects that are not ids.

        >>> store.put(b"hello") in store, "hello" in store
        (True, False)
        """
        try:
            return isinstance(id, str) and self._engine.exists(id)
        except InvalidIdError:
            return False

    def list(self, *, after: str | None = None) -> Iterator[BlobStat]:
        """Iterate over all blobs, or those after one, ordered by algorithm, digest and size. The list is read
        during iteration, so blobs that are put or deleted meanwhile may or may not appear.

        >>> id = store.put(b"hello")
        >>> id in [blob.id for blob in store.list()]
        True
        """
        while page := self._engine.list(after, PAGE):
            yield from map(BlobStat._from_engine, page)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def __iter__(self) -> Iterator[BlobId]:
        """Iterate over the ids of all blobs."""
        return (blob.id for blob in self.list())

    def manifest(self, id: str) -> Manifest:
        """Get the manifest of a blob: its blocks, in order.

        >>> [entry.size for entry in store.manifest(store.put(b"hello"))]
        [5]
        """
        return Manifest(self, self.stat(id))

    def stats(self) -> StoreStats:
        """Get the totals of the store. Takes time proportional to the number of blobs and blocks.

        >>> id = store.put(b"hello")
        >>> store.stats().blobs > 0
        True
        """
        return StoreStats._from_engine(self._engine.stats())

    # ---- Deletion and upkeep

    def delete(self, id: str) -> None:
        """Delete a blob: no process finds it any more. It can be restored for the grace period (``gc_grace``,
        an hour by default); the first :meth:`gc` after that frees its space.

        >>> id = store.put(b"no longer wanted")
        >>> store.delete(id)
        >>> id in store
        False
        >>> store.restore(id)
        >>> id in store
        True
        """
        self._engine.delete(id)

    def restore(self, id: str) -> None:
        """Restore a deleted blob, within the grace period."""
        self._engine.restore(id)

    def gc(
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
        """Free the space of blobs that were deleted before the grace period, while the store is in use.

        Times are seconds or a ``timedelta``. Progress is freed bytes; the total is not known.

        >>> store.delete(store.put(b"no longer wanted"))
        >>> store.gc(grace=0).blobs > 0
        True
        """
        with Meter(progress, "collecting", None) as meter:
            found = self._engine.gc(
                seconds("grace", grace),
                dry_run,
                seconds("max_time", max_time),
                limit("max_blocks", max_blocks),
                limit("max_bytes", max_bytes),
                limit("blocks_per_second", blocks_per_second, (1 << 32) - 1),
                (lambda _blocks, bytes: meter.reach(bytes)) if meter.active else None,
            )
        report = GcReport._from_engine(found)
        log.info(
            "%s %d blobs, %d blocks, %d bytes in %.1f s",
            "would collect" if dry_run else "collected",
            report.blobs,
            report.blocks,
            report.bytes,
            report.seconds,
        )
        if report.kept_failed:
            log.warning(
                "%d blocks could not be deleted (%s); the next collection tries again", report.kept_failed, report.failure
            )
        return report

    def verify(
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
        """Check that all blocks are present and, with ``deep``, that they are intact, which reads every byte.

        With ``ids``, only these blobs are checked. Each finding is logged, and either passed to ``found`` at
        once or collected in the report. ``cursor`` continues an earlier verification; ``adopt`` leaves stray
        blocks and packs to :meth:`gc`. ``rebuild`` copies blocks that are missing or damaged from packs that
        the database does not know, after it was restored from a backup. Progress is blocks.

        >>> store.verify(deep=True).clean
        True
        """
        only = texts(ids)
        if found is not None and not callable(found):
            raise TypeError(f"found is a function, not {type(found).__name__}")
        findings: list[Finding] = []

        def tell(kind: str, what: str, why: str, blobs: list[str]) -> None:
            finding = Finding(kind, what, why, tuple(map(known, blobs)))
            log.log(logging.WARNING if finding.is_damage else logging.INFO, "%s", finding)
            (found or findings.append)(finding)

        total = self.stats().blocks if progress and not only else None
        with Meter(progress, "verifying", total, " blocks") as meter:
            values = self._engine.verify(
                only,
                deep,
                limit("bytes_per_second", bytes_per_second),
                cursor,
                adopt,
                rebuild,
                tell,
                (lambda blocks, _bytes: meter.reach(blocks)) if meter.active else None,
            )
        report = dataclasses.replace(VerifyReport._from_engine(values), findings=tuple(findings))
        log.info("verified %d blobs and %d blocks in %.1f s", report.blobs, report.blocks, report.seconds)
        return report

    def repack(self, to: Literal["files", "packs"], *, progress: Progress = None) -> RepackReport:
        """Move all blocks into packs, or out of them into files of their own, while the store is in use.

        An interrupted repack can be repeated. Where new blocks are written is a setting (``block_layout``).
        Progress is moved bytes.

        >>> store.repack("packs").complete
        True
        """
        with Meter(progress, "repacking", None) as meter:
            found = self._engine.repack(to, (lambda _blocks, bytes: meter.reach(bytes)) if meter.active else None)
        report = RepackReport._from_engine(found)
        log.info("moved %d blocks, %d bytes in %.1f s", report.blocks, report.bytes, report.seconds)
        if report.damaged:
            log.warning("%d blocks are damaged; put their content again, or use repair_from", report.damaged)
        if report.kept_failed:
            log.warning("%d files could not be removed (%s); gc tries again", report.kept_failed, report.failure)
        return report

    def copy_from(self, other: Store, ids: Iterable[str] = (), *, progress: Progress = None) -> CopyReport:
        """Copy these blobs, or all, from another store, verified. Only blocks that are missing here are
        transferred, so an interrupted copy can be repeated. Progress is bytes.

        >>> import tempfile
        >>> id = store.put(b"hello")
        >>> with tempfile.TemporaryDirectory() as place, graviton.open(place) as mirror:
        ...     mirror.copy_from(store, [id]).blobs
        1
        """
        with Meter(progress, "copying", None) as meter:
            found = self._engine.copy_from(
                _engine_of(other),
                texts(ids),
                (lambda _blocks, bytes: meter.reach(bytes)) if meter.active else None,
            )
        report = CopyReport._from_engine(found)
        log.info("copied %d blobs, %d blocks, %d bytes in %.1f s", report.blobs, report.blocks, report.bytes, report.seconds)
        for id in report.damaged:
            log.warning("the other store does not have %s whole; it was left out", id)
        return report

    def repair_from(self, other: Store, *, progress: Progress = None) -> RepairReport:
        """Replace blocks that are missing or damaged by those of another store, after verifying them.
        Progress is blocks that were checked.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place, graviton.open(place) as mirror:
        ...     store.repair_from(mirror).lost
        ()
        """
        with Meter(progress, "repairing", None, " blocks") as meter:
            found = self._engine.repair_from(
                _engine_of(other), (lambda blocks, _bytes: meter.reach(blocks)) if meter.active else None
            )
        report = RepairReport._from_engine(found)
        log.info("repaired %d of %d blocks in %.1f s", report.repaired, report.checked, report.seconds)
        for key in report.lost:
            log.warning("the other store does not have block %s whole either", key)
        return report

    def backup(self, path: Path) -> None:
        """Write a consistent copy of the manifests in SQLite to a new file, while the store is in use. Copy
        it before the blocks; with both, the store can be restored.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     store.backup(os.path.join(place, "manifests.backup"))
        """
        self._engine.backup(path_of(path))

    # ---- The store itself

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._closed

    def close(self) -> None:
        """Close the store. Later calls raise :class:`ClosedError`; running puts fail."""
        if not self._closed:
            if not isinstance(self._opened, Unopened):
                self._opened.close()
            # Not earlier: after an interruption, the store can be closed again.
            self._closed = True
            log.debug("closed %r", self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._opened, Unopened):
            place, secret = self._place, self._opened.secret
        else:
            place, secret = self._place.without_secrets()
        return _reopen, (type(self), tuple(place), secret)

    def __repr__(self) -> str:
        return f"<graviton.Store {self._place!r}{', closed' if self._closed else ''}>"


def open(  # noqa: A001
    path: Path | None = None,
    *,
    read_only: bool = False,
    create: bool = True,
    adopt: bool = False,
    take_over: bool = False,
    **config: Unpack[Settings],
) -> Store:
    """Open the store in a directory, ``./.graviton`` by default. It is created if it does not exist.

    Settings are keyword arguments: the names of the environment variables in lower case, without
    ``GRAVITON_`` (:class:`Settings` lists them). The environment is not read; :meth:`Store.from_env` reads
    it. With ``create=False`` or ``read_only=True``, a store that does not exist is a :class:`NotFoundError`.
    Nothing is written to a store that is read only. ``adopt`` uses blocks of the first Graviton server.
    ``take_over`` makes a copy of the database (a restored backup, a promoted standby) the one that owns the
    blocks; end everything that uses the other one first, and do not pass it at every opening.

    >>> with graviton.open(directory, hash="sha256") as store:
    ...     print(store.put(b"hello"))
    sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824:5
    """
    return Store(path, read_only=read_only, create=create, adopt=adopt, take_over=take_over, **config)


def _reopen(kind: type[Store], place: tuple[str, dict[str, str], str, bool, bool], secret: dict[str, str]) -> Store:
    public = Place(*place)
    try:
        return kind._at(public.with_secrets(secret))
    except Exception as error:  # noqa: BLE001
        # Raised here, it would end the worker of a pool and lose the task. At the first use, it becomes the
        # task's result.
        store = kind.__new__(kind)
        store._start(public, Unopened(error.with_traceback(None), secret))
        return store


def _engine_of(other: Store) -> _graviton.Store:
    if not isinstance(other, Store):
        raise TypeError(f"the other store is an open graviton.Store, not {type(other).__name__}")
    return other._engine


__all__ = ["Store", "open"]
