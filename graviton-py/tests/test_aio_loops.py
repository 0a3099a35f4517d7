"""Many asynchronous calls at once, on one event loop and on several."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from pathlib import Path
from typing import Any
from weakref import WeakSet

import graviton
import graviton.aio
import pytest
from conftest import Place, leftovers, run, threads
from graviton import BlobId
from graviton.aio._call import _queue

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_thousands_of_calls_share_few_threads(place: Place) -> None:
    calls = 5000 if place.is_files else 1000

    async def main(store: graviton.aio.Store) -> None:
        contents = [os.urandom(3000) for _ in range(50)]
        ids = [await store.put(data) for data in contents]
        before, most, running = threads(), 0, 0
        together = 0

        async def one(number: int) -> None:
            nonlocal most, running, together
            running += 1
            together = max(together, running)
            assert await store.get(ids[number % 50]) == contents[number % 50]
            running -= 1
            if number % 100 == 0:
                most = max(most, threads())

        await asyncio.gather(*(one(number) for number in range(calls)))
        assert together == calls
        assert most < before + 100, (before, most)

        puts = [os.urandom(2000) for _ in range(500)]
        assert await asyncio.gather(*map(store.put, puts)) == [BlobId.of(data) for data in puts]

    run(place, main)


def test_loops_one_after_the_other_and_beside_each_other(files: Place) -> None:
    def work(number: int) -> None:
        run(files, lambda store: several(store, number))

    async def several(store: graviton.aio.Store, number: int) -> None:
        data = os.urandom(1000)
        for id in await asyncio.gather(*(store.put(data + bytes([number])) for _ in range(20))):
            assert await store.get(id) == data + bytes([number])

    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        work(number)
    beside = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in beside:
        thread.start()
    for thread in beside:
        thread.join()
    # A collected loop closes its socket.
    import gc

    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_a_loop_that_ends_early_hurts_nobody(files: Place) -> None:
    """Calls whose loop is closed before they are done."""

    async def main() -> None:
        store = await graviton.aio.open(files.path, **files.settings)
        for _ in range(100):
            asyncio.ensure_future(store.put(os.urandom(100_000)))
        await asyncio.sleep(0)

    for _ in range(10):
        asyncio.run(main())
    leftovers(files)


def _of_loops() -> int:
    """The number of open files that belong to event loops; the engine may open others at any time."""
    count = 0
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(file).startswith(("socket:", "anon_inode:[eventpoll]"))
    return count


def test_a_loop_is_let_go_of_with_its_calls(files: Place) -> None:
    """The calls are cancelled at the very end of the loop, or left unfinished."""
    loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
    with files.open() as synchronous:
        id = synchronous.put(os.urandom(3_000_000))
        store = graviton.aio.Store(synchronous)
        before = _of_loops()

        async def cancelled() -> None:
            loops.add(asyncio.get_running_loop())
            task = asyncio.ensure_future(store.get(id))
            await asyncio.sleep(0)
            task.cancel()

        async def left() -> None:
            loops.add(asyncio.get_running_loop())
            loop = asyncio.get_running_loop()
            loop.left = asyncio.ensure_future(store.get(id))  # type: ignore[attr-defined]
            await asyncio.sleep(0)

        def turn() -> None:
            asyncio.run(cancelled())
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda loop, context: None)
            loop.run_until_complete(left())
            loop.close()

        for _ in range(8):
            turn()
        # An object that a thread of the engine released is dropped by the next call.
        while gc.collect() or len(loops) or _of_loops() > before:
            synchronous.exists(id)
            time.sleep(0.01)


def test_one_future_does_not_cost_the_others_their_answers(files: Place) -> None:
    async def main(store: graviton.aio.Store) -> None:
        loop = asyncio.get_running_loop()
        met: list[Any] = []
        loop.set_exception_handler(lambda loop, context: met.append(context["exception"]))

        class Bad(asyncio.Future[Any]):
            def set_result(self, result: Any) -> None:
                raise ZeroDivisionError

        id = await store.put(b"hello")
        queue = _queue(loop)
        futures: list[asyncio.Future[Any]] = [Bad(), loop.create_future(), Bad(), loop.create_future()]
        for future in futures:
            store._engine.aio_exists(queue, future, id)
        # All of them arrive before the loop runs again.
        for _ in range(4):
            store.synchronous.stat(id)
        time.sleep(0.1)
        assert await futures[1] and await futures[3]
        assert [type(error) for error in met] == [ZeroDivisionError] * len(met) and met

    run(files, main)
