"""Calls of the engine as awaitables."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary, ref

from .. import _graviton
from .._errors import CancelledError
from .._progress import Meter, Progress

T = TypeVar("T")
P = ParamSpec("P")

# One queue for each event loop. The loop holds its queue until it is closed, because it listens to it.
# Nothing else may hold it: the queue refers to futures, and these to their loop.
_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[_graviton.AnswerQueue]] = WeakKeyDictionary()
# Each loop runs in its own thread.
_lock = threading.Lock()


def _queue(loop: asyncio.AbstractEventLoop) -> _graviton.AnswerQueue:
    known = _queues.get(loop)
    found = None if known is None else known()
    if found is None:
        found = _graviton.AnswerQueue()
        loop.add_reader(found.fileno(), found.deliver)
        with _lock:
            _queues[loop] = ref(found)
    return found


async def call(
    begin: Callable[Concatenate[_graviton.AnswerQueue, asyncio.Future[T], P], _graviton.Task],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Begin a call of the engine, and wait for its answer. Cancellation drops the call at once."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    task = begin(_queue(loop), future, *args, **kwargs)
    try:
        return await future
    except BaseException:
        task.abort()
        raise


async def in_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """Run long and rare work on a thread of its own. The work gets a function to call from time to time,
    which raises after the waiting task was cancelled. The cancellation waits for that."""
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise CancelledError("the call was cancelled")

    running = asyncio.ensure_future(asyncio.to_thread(work, check))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait([running])
        # Retrieved, because asyncio logs exceptions that nobody retrieves.
        running.exception()
        raise


async def in_thread_telling(progress: Progress, work: Callable[[Callable[[int, int | None], None]], T]) -> T:
    """Run work like :func:`in_thread`, and report its progress on the event loop."""
    loop = asyncio.get_running_loop()
    meter: list[Meter] = []
    raised: list[BaseException] = []

    def show(done: int, total: int | None) -> None:
        try:
            if not meter:
                meter.append(Meter(progress, "working", total).__enter__())
            meter[0].reach(done)
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    def run(check: Callable[[], None]) -> T:
        def tell(done: int, total: int | None) -> None:
            check()
            if raised:
                raise raised[0]
            if progress:
                loop.call_soon_threadsafe(show, done, total)

        return work(tell)

    try:
        result = await in_thread(run)
    finally:
        if meter:
            meter[0].__exit__(None, None, None)
    if raised:
        raise raised[0]
    return result


async def together(works: list[Any]) -> None:
    """Wait for all of them. The first failure ends the others, and is raised unchanged."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Closable(Protocol):
    """A result of an :class:`Opening`."""

    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, *raised: Any) -> None: ...


C = TypeVar("C", bound=Closable)


class Opening(Generic[C]):
    """The result of ``open`` and ``writer``, for ``await`` or ``async with``. Nothing is opened before that.
    """

    def __init__(self, opening: Callable[[], Awaitable[C]]) -> None:
        self._opening = opening
        self._opened: C | None = None

    def __repr__(self) -> str:
        return "<graviton.aio: to be awaited, or used with `async with`>"

    def __await__(self) -> Generator[Any, None, C]:
        return self._opening().__await__()

    async def __aenter__(self) -> C:
        self._opened = await self._opening()
        await self._opened.__aenter__()
        return self._opened

    async def __aexit__(self, *raised: Any) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.__aexit__(*raised)
