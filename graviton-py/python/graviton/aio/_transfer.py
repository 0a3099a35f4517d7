"""The sources of an asynchronous put and the targets of an asynchronous get."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

from .. import _transfer
from .._progress import Meter, Progress
from .._transfer import PIECE, is_end
from ._call import in_thread
from ._files import BlobReader

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Readable(Protocol):
    """A binary file to read from, whose ``read`` may be a coroutine function."""

    def read(self, size: int, /) -> Buffer | None | Awaitable[Buffer]: ...


class Writable(Protocol):
    """A binary file to write to, whose ``write`` may be a coroutine function."""

    def write(self, data: Any, /) -> object: ...


Source: TypeAlias = Union["Buffer", "os.PathLike[str]", Readable, "Iterable[Buffer]", "AsyncIterable[Buffer]"]


async def each(pieces: Iterable[Buffer]) -> AsyncIterator[Buffer]:
    """The pieces, for ``async for``."""
    for piece in pieces:
        yield piece


async def read_all(read: Callable[[int], Any]) -> AsyncIterator[Buffer]:
    """The rest of a file, in pieces. A synchronous ``read`` is called on another thread."""
    coroutine = inspect.iscoroutinefunction(read)
    while True:
        piece = await read(PIECE) if coroutine else await asyncio.to_thread(read, PIECE)
        if inspect.isawaitable(piece):
            piece = await piece
        if is_end(piece):
            return
        yield piece


@asynccontextmanager
async def appearing(path: str) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """A function that writes to a file, which appears when it is complete. Every step may block, and runs on
    another thread. Cancellation of the task waits for the running step."""
    stack = ExitStack()
    try:
        file = await in_thread(lambda check: stack.enter_context(_transfer.appearing(path, check)))

        async def write(data: bytes) -> None:
            await in_thread(lambda check: _transfer.write_patiently(file, data, check))

        yield write
    except BaseException as raised:
        failure = raised
        await in_thread(lambda check: stack.__exit__(type(failure), failure, failure.__traceback__))
        raise
    await in_thread(lambda check: stack.close())


async def copy(source: BlobReader, write: Callable[[Any], object], progress: Progress) -> int:
    """Write the rest of a blob, and return the blob's size. A synchronous ``write`` is called on another
    thread."""
    coroutine = inspect.iscoroutinefunction(write)
    with Meter(progress, "writing", source.size) as meter:
        async for piece in source:
            if coroutine:
                await write(piece)  # type: ignore[misc]
            else:
                await asyncio.to_thread(_transfer.write_all, write, memoryview(piece))
            meter.add(len(piece))
    return source.size
