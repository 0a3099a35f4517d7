"""Blobs as a filesystem of :mod:`fsspec`: ``graviton://<id>``. Needs the extra ``graviton[fsspec]``.

Everything that opens fsspec URLs can read blobs: pandas, pyarrow, h5py, dask, xarray. The options are those
of :func:`graviton.open`, or an open ``store``; without any of them, the environment describes the store. A
store that does not exist is made by the first write, unless ``create`` says otherwise.

>>> import fsspec
>>> with graviton.open(directory) as table:
...     id = table.put(b"a,b\\n1,2\\n")
>>> with fsspec.open(f"graviton://{id}", path=directory) as file:
...     file.readline()
b'a,b\\n'

There is one directory, the root, and the names of its files are ids. A file is written as ``new``, any number
of times, and has its id when it is closed. A file that is written under an id must have that content.

>>> fs = fsspec.filesystem("graviton", store=store)
>>> with fs.open("new", "wb") as file:
...     file.write(b"hello")
5
>>> file.blob_id in fs.ls("", detail=False)
True

Code that writes to a URL does not get the file. The option ``stored`` is a function that is called with the
id of each blob that the filesystem stores, on the thread that stores it.

>>> ids = []
>>> with fsspec.open("graviton://new", "w", store=store, stored=ids.append) as file:
...     file.write("hello")
5
>>> fs.cat(ids[0])
b'hello'

Pickles and JSON contain the location of the store, but neither secrets, which come from the environment, nor
``stored``.
"""

# fsspec has no types, and its own filesystems do not follow the types that checkers infer.
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import unquote

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path, tokenize

from . import _graviton
from ._errors import NotFoundError, make
from ._files import BlobReader, BlobWriter
from ._id import BlobId
from ._reports import BlobStat
from ._settings import Place
from ._store import BUFFER_SIZE, Store, Unopened
from ._transfer import pieces_of

__all__ = ["GravitonFile", "GravitonFileSystem", "GravitonWriter"]

NEW = "new"


class GravitonFile(io.BufferedReader):
    """A blob being read."""

    def __init__(self, reader: BlobReader, buffer_size: int) -> None:
        super().__init__(reader, buffer_size)
        self.blob_id = reader.id
        """The id of the blob."""
        self.size = reader.size
        """Its size in bytes."""
        self.path = str(reader.id)
        """Its path in the filesystem."""


class GravitonWriter(BlobWriter):
    """A blob being written. Within a transaction of the filesystem, it is stored at the end of the
    transaction.
    """

    autocommit = True
    stored: Callable[[BlobId], object] | None = None

    @property
    def blob_id(self) -> BlobId:
        """The id of the blob, once it is stored."""
        return self.id

    def close(self) -> None:
        """Store the written bytes, unless a transaction does it."""
        if self.autocommit or self._writer is None:
            super().close()
        if self._receipt is not None and self.stored is not None:
            stored, self.stored = self.stored, None
            stored(self.id)

    def commit(self) -> None:
        """Store the blob, at the end of a transaction."""
        self.autocommit = True
        self.close()

    def discard(self) -> None:
        """Discard the blob, at the end of a failed transaction."""
        self.abort()


class GravitonFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Blobs by their ids.

    A path is an id, or ``new`` for a blob to be written. The root is the only directory, and names cannot be
    chosen, so methods that rename or append raise :class:`NotImplementedError`.
    """

    protocol: ClassVar[str] = "graviton"
    root_marker = ""
    # The store of an instance may be closed, and the same arguments mean another place in another directory
    # or environment. Only the content of an id is the same everywhere.
    cachable = False

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        store: Store | None = None,
        stored: Callable[[BlobId], object] | None = None,
        place: Sequence[Any] | None = None,
        **options: Any,
    ) -> None:
        # Options of fsspec itself.
        own = {
            name: options.pop(name)
            for name in ("use_listings_cache", "listings_expiry_time", "max_paths", "asynchronous", "loop", "batch_size")
            if name in options
        }
        options.pop("skip_instance_cache", None)
        super().__init__(**own)
        self.stored = stored
        # The place where the first write creates the store, if it does not exist.
        self._missing: Place | None = None
        self._lock = threading.Lock()
        if store is not None:
            if path is not None or options:
                raise make("config", "an open store and settings are given together", "give one of them")
            self._store = store
        elif place is not None:
            # From `storage_options`.
            *found, secret = place
            self._store = self._open_store(Place(*found).with_secrets(secret))
        elif path is None and not options:
            self._store = self._open_store(Place.found(None, dict(_graviton.environment()), "create", False, False))
        elif {"create", "read_only"} & options.keys():
            self._store = Store(path, **options)
        else:
            flags = [options.pop(name, False) for name in ("adopt", "take_over")]
            self._store = self._open_store(Place.of(path, options, "create", *flags))

    def _open_store(self, place: Place) -> Store:
        """The store there. If it does not exist, each use raises that until it is created."""
        if place.mode != "create":
            return Store._at(place)
        try:
            store = Store._at(place._replace(mode="existing"))
            self._missing = None
        except NotFoundError as error:
            store = Store.__new__(Store)
            public, secret = place.without_secrets()
            store._start(public, Unopened(error, secret))
            self._missing = place
        return store

    @property
    def store(self) -> Store:
        """The store, for methods that only read."""
        with self._lock:
            if self._missing is not None:
                # Another process may have created it.
                self._store = self._open_store(self._missing)
            return self._store

    @property
    def _store_to_write(self) -> Store:
        with self._lock:
            if self._missing is not None:
                self._store, self._missing = Store._at(self._missing), None
            return self._store

    @property
    def _public_place(self) -> tuple[Place, dict[str, str]]:
        """The place without its secrets, and their public parts."""
        store = self.store
        if isinstance(store._opened, Unopened):
            return store._place, store._opened.secret
        return store._place.without_secrets()

    @property
    def _is_there(self) -> bool:
        return not isinstance(self.store._opened, Unopened)

    @property
    def storage_args(self) -> tuple[Any, ...]:
        """An empty tuple."""
        return ()

    @storage_args.setter
    def storage_args(self, given: tuple[Any, ...]) -> None:
        """Ignored: the arguments that fsspec would keep contain secrets."""

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options that open the same place again, without its secrets."""
        place, secret = self._public_place
        return {"place": [*place, secret]}

    @storage_options.setter
    def storage_options(self, given: dict[str, Any]) -> None:
        """Ignored, like ``storage_args``."""

    @property
    def _fs_token(self) -> str:
        """A token that is the same for the same place."""
        place, secret = self._public_place
        return str(tokenize(type(self), place.path, sorted(place.settings.items()), sorted(secret.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._is_there:
            return _restored, (type(self), self.storage_options)
        return type(self), (None, self.store)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = unquote(stringify_path(path))
        return text.removeprefix("graviton://").removeprefix("graviton::").strip("/")

    @property
    def fsid(self) -> str:
        """The identity of this filesystem."""
        return f"graviton:{self._fs_token}"

    # ---- Metadata

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """The metadata of a blob, or of the root."""
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        return _info(self.store.stat(self._id(path)))

    def ls(self, path: str = "", detail: bool = True, **kwargs: Any) -> list[Any]:
        """All blobs, or the one at the path."""
        path = self._strip_protocol(path)
        if not path:
            found = (_info(stat) for stat in self.store.list()) if self._is_there else iter([])
        else:
            found = iter([self.info(path)])
        return [info if detail else info["name"] for info in found]

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Test whether the blob exists. False for anything that is not an id."""
        path = self._strip_protocol(path)
        return not path or (self._is_there and path in self.store)

    def isfile(self, path: str) -> bool:
        """Whether it is a blob that exists."""
        return self._is_there and self._strip_protocol(path) in self.store

    def isdir(self, path: str) -> bool:
        """Whether it is the root."""
        return not self._strip_protocol(path)

    def created(self, path: str) -> datetime:
        """The time of the put."""
        return self.store.stat(self._id(path)).created_at

    def modified(self, path: str) -> datetime:
        """The time of the put, because a blob never changes."""
        return self.created(path)

    def checksum(self, path: str) -> int:
        """A number that identifies the content."""
        return int.from_bytes(BlobId(self._id(path)).digest, "big")

    def ukey(self, path: str) -> str:
        """The id, because a blob has only one version."""
        return self._id(path)

    # ---- Reading

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Bytes of a blob, verified; negative offsets count from its end."""
        id = self._id(path)
        if start is None and end is None:
            return self.store.get(id)
        size = BlobId(id).size
        first, behind = _offset(start, size, 0), _offset(end, size, size)
        if first >= size:
            # An offset beyond the end reads nothing, as in a file; a store would refuse it. But the blob must
            # exist.
            self.store.stat(id)
            return b""
        return self.store.read_range(id, first, max(0, behind - first))

    def cat_ranges(
        self,
        paths: list[str],
        starts: int | Sequence[int | None] | None,
        ends: int | Sequence[int | None] | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Many ranges. Neighbours in one block are read and verified once."""
        if not isinstance(paths, list):
            raise TypeError("paths is a list")
        starts = [starts] * len(paths) if starts is None or isinstance(starts, int) else starts
        ends = [ends] * len(paths) if ends is None or isinstance(ends, int) else ends
        if not len(paths) == len(starts) == len(ends):
            raise ValueError("there are not as many starts and ends as paths")
        found: list[Any] = [None] * len(paths)
        file: BlobReader | None = None

        def read(path: str, start: int | None, end: int | None) -> bytes:
            nonlocal file
            id = self._id(path)
            if file is None or file.name != id:
                if file is not None:
                    file.close()
                file = self.store.open(id, buffering=0)
            first, behind = _offset(start, file.size, 0), _offset(end, file.size, file.size)
            file.seek(first)
            return file.read(max(0, min(behind, file.size) - first))

        # In the order of their offsets, so that one reader at a time reads straight on.
        order = sorted(range(len(paths)), key=lambda at: (self._strip_protocol(paths[at]), starts[at] or 0))
        try:
            for at in order:
                try:
                    found[at] = read(paths[at], starts[at], ends[at])
                except Exception as error:
                    if on_error != "return":
                        raise
                    found[at] = error
        finally:
            if file is not None:
                file.close()
        return found

    def get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **kwargs: Any
    ) -> None:
        """Copy a blob to a local file, which appears when it is complete."""
        id = self._strip_protocol(rpath)
        if not id:
            os.makedirs(lpath, exist_ok=True)
            return
        id = self._id(id)

        def tell(done: int, total: int | None) -> None:
            callback.absolute_update(done)

        callback.set_size(BlobId(id).size)
        if outfile is None and not hasattr(lpath, "write") and (folder := os.path.dirname(lpath)):
            os.makedirs(folder, exist_ok=True)
        self.store.get_to(id, lpath if outfile is None else outfile, progress=tell)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> GravitonFile | GravitonWriter:
        if mode == "rb":
            buffer_size = block_size if isinstance(block_size, int) and block_size > 0 else BUFFER_SIZE
            return GravitonFile(self.store.open(self._id(path), buffering=0), buffer_size)
        if mode not in ("wb", "xb"):
            raise NotImplementedError(f"mode {mode!r}: a blob never changes")
        writer = GravitonWriter(self._store_to_write._engine.writer(self._to_write(path)))
        writer.autocommit = autocommit
        writer.stored = self.stored
        return writer

    # ---- Writing

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> BlobId | None:
        """Store these bytes, and return their id. Within a transaction they are stored at its end, and
        ``stored`` gets the id."""
        if self._intrans:
            opened: Any = self.open(path, "wb")
            with opened as file:
                file.write(value)
            return None
        return self._tell(self._store_to_write.put(value, expect=self._to_write(path)))

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **kwargs: Any
    ) -> BlobId | None:
        """Store a local file, and return its id; within a transaction as :meth:`pipe_file`."""
        if os.path.isdir(lpath):
            return None
        callback.set_size(os.path.getsize(lpath))
        if self._intrans:
            opened: Any = self.open(rpath, "wb")
            with open(lpath, "rb") as source, opened as file:
                for piece in pieces_of(source.read):
                    callback.relative_update(file.write(piece))
            return None

        def tell(done: int, total: int | None) -> None:
            callback.absolute_update(done)

        return self._tell(self._store_to_write.put_file(lpath, expect=self._to_write(rpath), progress=tell))

    def _tell(self, id: BlobId) -> BlobId:
        if self.stored is not None:
            self.stored(id)
        return id

    def rm_file(self, path: str) -> None:
        """Delete a blob. The store can restore it for the grace period."""
        self.store.delete(self._id(path))

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Do nothing, because a copy of a blob is that blob; any other name is refused."""
        id = self._id(path1)
        self.store.stat(id)
        if self._to_write(path2) not in (None, id):
            raise make("invalid-argument", f"cannot copy {id} to {path2}", "a blob's name is the id of its content")

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Not supported."""
        raise NotImplementedError("a blob cannot be renamed: its name is the id of its content")

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Not supported, except for the root, which exists."""
        if self._strip_protocol(path):
            raise NotImplementedError("there are no directories")

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Not supported, except for the root, which exists."""
        self.mkdir(path)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Not supported: a blob never changes."""
        raise NotImplementedError("a blob never changes")

    # ---- Paths

    def _id(self, path: str) -> str:
        """The id in a path, as text. A path that is no id does not exist."""
        text: str = self._strip_protocol(path)
        try:
            return BlobId(text)
        except ValueError as error:
            raise NotFoundError(f"there is no blob {text!r}: {error}") from error

    def _to_write(self, path: str) -> str | None:
        """The expected id of a blob that is written to this path."""
        text: str = self._strip_protocol(path)
        if text in ("", NEW):
            return None
        try:
            return BlobId(text)
        except ValueError as error:
            raise make(
                "invalid-argument",
                f"cannot write to {text!r}: the content decides the name of a blob",
                f"write to {NEW!r}, and look at the file's blob_id after it was closed",
            ) from error


def _restored(kind: type[GravitonFileSystem], options: dict[str, Any]) -> GravitonFileSystem:
    """The same filesystem in another process, for a store that did not exist yet."""
    return kind(**options)


def _info(stat: BlobStat) -> dict[str, Any]:
    return {
        "name": str(stat.id),
        "size": stat.size,
        "type": "file",
        "blob_id": stat.id,
        "blocks": stat.blocks,
        "chunker": stat.chunker,
        "created": stat.created_at,
    }


def _offset(given: int | None, size: int, otherwise: int) -> int:
    if given is None:
        return otherwise
    return max(0, size + given) if given < 0 else given
