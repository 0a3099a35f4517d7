"""The sources of a put and the targets of a get."""

from __future__ import annotations

import errno
import io
import os
import secrets
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

from . import _graviton
from ._errors import make
from ._progress import Meter, Progress

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Bytes that are read from a source, or written to a target, at once.
PIECE = 1 << 20
# Seconds between two checks while waiting.
_PATIENCE = 0.05


class Readable(Protocol):
    """A binary file to read from."""

    def read(self, size: int, /) -> Buffer | None: ...


class Writable(Protocol):
    """A binary file to write to."""

    def write(self, data: memoryview, /) -> object: ...


Path: TypeAlias = Union[str, "os.PathLike[str]"]
Source: TypeAlias = Union["Buffer", "os.PathLike[str]", Readable, "Iterable[Buffer]"]


def path_of(path: Path) -> str:
    """The text of a path, if a file can have it."""
    text: object = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is text or a pathlib.Path, not {type(text).__name__}")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise make("invalid-argument", f"no file is called {text!r}: it has half of a surrogate pair") from None
    if b"\0" in encoded:
        raise make("invalid-argument", f"no file is called {text!r}: it has a null character")
    return text


def paths_of(paths: Iterable[Path]) -> list[str]:
    """The texts of the paths."""
    if isinstance(paths, (str, bytes)):
        raise TypeError("give an iterable of paths, such as [path]")
    return [path_of(path) for path in paths]


def no_source(source: object) -> TypeError:
    """The error for an object that cannot be stored."""
    kind = type(source).__name__
    return TypeError(f"cannot store a {kind}: give bytes, a path, a binary file or an iterable of bytes")


def no_target(target: object) -> TypeError:
    """The error for an object that cannot be written to."""
    return TypeError(f"cannot write to a {type(target).__name__}: give a path or a binary file")


def bytes_of(source: object) -> Any:
    """The source, if its bytes are in memory. Text is refused."""
    if isinstance(source, str):
        raise TypeError("text is not stored as it is: encode it, or name a file with put_file or a pathlib.Path")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return source
    try:
        memoryview(source).release()  # type: ignore[arg-type]
    except TypeError:
        return None
    return source


def pieces_in(data: Buffer) -> tuple[int, Iterator[bytes]]:
    """The size of an object in memory that the engine accepts, and copies of its pieces. The object cannot
    move meanwhile."""
    _graviton.piece_of(data, 0, 0)

    def pieces() -> Iterator[bytes]:
        with memoryview(data) as held:
            for at in range(0, held.nbytes, PIECE):
                yield _graviton.piece_of(held, at, PIECE)

    with memoryview(data) as view:
        return view.nbytes, pieces()


def is_end(piece: object) -> bool:
    """Whether a file that returned this piece is at its end. Files that are not binary or not ready are
    errors."""
    if piece is None:
        raise BlockingIOError("the source is a non-blocking file, and has no data at the moment")
    if isinstance(piece, str) and not piece:
        raise TypeError("the source is a text file: open it in binary mode")
    return not piece


def pieces_of(read: Callable[[int], Any]) -> Iterator[Buffer]:
    """The rest of a file, in pieces."""
    while not is_end(piece := read(PIECE)):
        yield piece
    if left := _left_of(getattr(read, "__self__", None)):
        raise make("io", f"the response ended early: {left} bytes of it are missing", "request it again")


def _left_of(source: object) -> int:
    """The number of bytes that an HTTP response announced (``Content-Length``) and has not delivered. A
    response ends like a file when its connection is cut. The names are those of ``urllib3`` and of
    ``http.client``."""
    left = getattr(source, "length_remaining", None)
    client = sys.modules.get("http.client")
    if left is None and client is not None and isinstance(source, client.HTTPResponse):
        left = getattr(source, "length", None)
    return left if isinstance(left, int) else 0


def write_all(write: Callable[[memoryview], object], data: memoryview) -> None:
    """Write to any kind of file: a raw one may take only a part of the data."""
    while data:
        count = write(data)
        if count is None and isinstance(getattr(write, "__self__", None), io.RawIOBase):
            raise BlockingIOError("the target is a non-blocking file, and takes nothing at the moment")
        if not isinstance(count, int):
            return
        if not 0 < count <= len(data):
            raise OSError(f"the target says that it took {count} bytes of {len(data)}")
        data = data[count:]


@contextmanager
def appearing(path: str, check: Callable[[], None] | None = None) -> Iterator[io.FileIO]:
    """A file that appears under its path when it is complete and durable. A link is followed. An existing
    file is replaced, and its mode is kept. A path that is no regular file, such as a pipe, is written to
    directly.

    With ``check``, which raises to end the call, no step waits for another process: it polls for the reader
    of a named pipe, and files that are not regular are non-blocking (see :func:`write_patiently`).
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        with io.FileIO(_opened_as_it_is(path, check), "w") as file:
            yield file
        return
    directory, name = os.path.split(os.path.realpath(path) if os.path.islink(path) else path)
    # Short, because the file's own name may have the maximum length already.
    temporary = os.path.join(directory, f".{secrets.token_hex(6)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        file = io.FileIO(os.open(temporary, flags, 0o666 if mode is None else 0o600), "w")
    except OSError as error:
        # The caller does not know the temporary name.
        error.filename = path
        raise
    try:
        with file:
            yield file
            if mode is not None:
                _set_mode(file.fileno(), mode & 0o777)
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(directory, name))
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(directory or ".")


def _opened_as_it_is(path: str, check: Callable[[], None] | None) -> int:
    if check is None:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            # A named pipe without a reader.
            if error.errno != errno.ENXIO:
                raise
        time.sleep(_PATIENCE)
        check()


def write_patiently(file: io.FileIO, data: Buffer, check: Callable[[], None]) -> None:
    """Write all of the bytes to a file of :func:`appearing`, unless ``check`` raises while no process reads
    them."""
    ready = select.poll()
    ready.register(file, select.POLLOUT)
    with memoryview(data) as left:
        done = 0
        while done < len(left):
            if ready.poll(int(_PATIENCE * 1000)):
                done += file.write(left[done:]) or 0
            else:
                check()


# Errors of filesystems that lack a feature.
_LACKING = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def _set_mode(file: int, mode: int) -> None:
    try:
        os.fchmod(file, mode)
    except OSError as error:
        # On some filesystems all files have the same mode.
        if error.errno not in _LACKING | {errno.EPERM}:
            raise


def _sync_directory(path: str) -> None:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        # A directory can be writable without being readable.
        return
    try:
        os.fsync(directory)
    except OSError as error:
        # Some filesystems cannot sync directories.
        if error.errno not in _LACKING:
            raise
    finally:
        os.close(directory)


def copy_all(reader: _graviton.Reader, write: Callable[[memoryview], object], progress: Progress) -> int:
    """Write the rest, and return its number of bytes."""
    total = reader.size
    done = 0
    with Meter(progress, "writing", total) as meter, memoryview(bytearray(min(PIECE, total))) as buffer:
        while done < total:
            count = reader.readinto(buffer)
            write_all(write, buffer[:count])
            done += count
            meter.add(count)
    return done
