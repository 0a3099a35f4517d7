"""Where the bytes of a put come from, and where those of a get go."""

from __future__ import annotations

import io
import os
import secrets
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
    """A file that appears under its path when it is complete, and not before."""
    temporary = f"{path}.{secrets.token_hex(6)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = io.FileIO(os.open(temporary, flags, 0o666), "w")
    try:
        with file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


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
