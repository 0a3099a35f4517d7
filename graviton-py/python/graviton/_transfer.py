"""Where the bytes of a put come from, and where those of a get go."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

from . import _graviton
from ._progress import Meter, Progress

if TYPE_CHECKING:
    from typing_extensions import Buffer

# What is asked of a source, and given to a target, at once.
PIECE = 1 << 20


class Readable(Protocol):
    """A binary file to read from."""

    def read(self, size: int, /) -> Buffer | None: ...


class Writable(Protocol):
    """A binary file to write to."""

    def write(self, data: memoryview, /) -> object: ...


Path: TypeAlias = Union[str, "os.PathLike[str]"]
Source: TypeAlias = Union["Buffer", "os.PathLike[str]", Readable, "Iterable[Buffer]"]


def bytes_of(source: object) -> Any:
    """The source, if it has bytes of its own in memory."""
    if isinstance(source, bytes | bytearray | memoryview):
        return source
    try:
        memoryview(source).release()  # type: ignore[arg-type]
    except TypeError:
        return None
    return source


def pieces_in(data: Buffer) -> tuple[int, Iterator[bytes]]:
    """The size of what is in memory, which the engine would take, and copies of its pieces, while it cannot move."""
    _graviton.piece_of(data, 0, 0)

    def pieces() -> Iterator[bytes]:
        with memoryview(data) as held:
            for at in range(0, held.nbytes, PIECE):
                yield _graviton.piece_of(held, at, PIECE)

    with memoryview(data) as view:
        return view.nbytes, pieces()


def pieces_of(read: Callable[[int], Any]) -> Iterator[Buffer]:
    while True:
        piece = read(PIECE)
        if piece is None:
            raise BlockingIOError("the source is a non-blocking file, and has no data at the moment")
        if not piece:
            if isinstance(piece, str):
                raise TypeError("the source is a text file: open it in binary mode")
            return
        yield piece


def write_all(write: Callable[[memoryview], object], data: memoryview) -> None:
    """To any kind of file: a raw one may take less than it is given."""
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
def appearing(path: str) -> Iterator[io.FileIO]:
    """A file that appears under its path when it is complete, and durable, and not before. A link is followed, and one
    that it replaces leaves it its mode. What is no regular file, such as a pipe, is written to as the bytes come.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        with io.FileIO(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "w") as file:
            yield file
        return
    directory, name = os.path.split(os.path.realpath(path) if os.path.islink(path) else path)
    # Short, where the file's own may be as long as names can be.
    temporary = os.path.join(directory, f".{secrets.token_hex(6)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = io.FileIO(os.open(temporary, flags, 0o666 if mode is None else 0o600), "w")
    try:
        with file:
            yield file
            if mode is not None:
                os.fchmod(file.fileno(), mode & 0o777)
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(directory, name))
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(directory or ".")


def _sync_directory(path: str) -> None:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        # One may be allowed to write to it and not to read it.
        return
    try:
        os.fsync(directory)
    except OSError as error:
        # There are filesystems that cannot.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(directory)


def copy_all(reader: _graviton.Reader, write: Callable[[memoryview], object], progress: Progress) -> int:
    """Write all that is left to read, and return how many bytes that was."""
    total = reader.size
    done = 0
    with Meter(progress, "writing", total) as meter, memoryview(bytearray(min(PIECE, total))) as buffer:
        while done < total:
            count = reader.readinto(buffer)
            write_all(write, buffer[:count])
            done += count
            meter.add(count)
    return done
