"""How a call of the engine becomes something to await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary, ref

from .. import _graviton
from .._errors import CancelledError

T = TypeVar("T")
P = ParamSpec("P")

# One box for each event loop. The loop holds it, as what it listens to, until it is closed; nobody else may, for the box
# leads to futures, and these to their loop.
_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[_graviton.Mailbox]] = WeakKeyDictionary()
# Loops run in threads of their own.
_lock = threading.Lock()


def _mailbox(loop: asyncio.AbstractEventLoop) -> _graviton.Mailbox:
    known = _mailboxes.get(loop)
    found = None if known is None else known()
    if found is None:
        found = _graviton.Mailbox()
        loop.add_reader(found.fileno(), found.open)
        with _lock:
            _mailboxes[loop] = ref(found)
    return found


async def call(
    begin: Callable[Concatenate[_graviton.Mailbox, asyncio.Future[T], P], _graviton.Task],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Begin a call of the engine, and wait for its answer. Cancelled, the call is dropped where it is."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    task = begin(_mailbox(loop), future, *args, **kwargs)
    try:
        return await future
    except BaseException:
        task.abort()
        raise


async def in_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """Run work that is long and rare on a thread of its own. It gets a function that raises once the task that waits for
    it was cancelled, to be called from time to time; cancellation waits for that."""
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
        # Looked at, or asyncio would complain that nobody did.
        running.exception()
        raise


class Closable(Protocol):
    """What an :class:`Opening` may give."""

    async def __aenter__(self) -> Any: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


C = TypeVar("C", bound=Closable)


class Opening(Generic[C]):
    """What ``open`` and ``writer`` give: to be awaited, or used by ``async with`` at once. It opens when it is, and
    once."""

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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.__aexit__(kind, raised, traceback)
