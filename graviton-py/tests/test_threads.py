"""Threads: 32 of them use one store for everything at once, and calls do not delay each other."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import graviton
from graviton import BlobId, Store

THREADS = 32


def test_everything_at_once(store: Store, tmp_path: Path) -> None:
    rounds = 12
    shared = [random.Random(number).randbytes(20_000) for number in range(10)]

    def work(number: int) -> None:
        chosen = random.Random(number)
        for turn in range(rounds):
            own = chosen.randbytes(chosen.randrange(30_000)) + f"{number}-{turn}".encode()
            id = store.put(own)
            assert store.get(id) == own and id in store
            common = chosen.choice(shared)
            assert store.put([common[:5000], common[5000:]]) == BlobId.of(common)
            with store.open(id) as file:
                file.seek(len(own) // 2)
                assert file.read() == own[len(own) // 2 :]
            with store.writer() as writer:
                writer.write(own[::-1])
            buffer = bytearray(len(own))
            assert store.get_into(writer.id, buffer) == len(own) and buffer == own[::-1]
            store.get_to(id, tmp_path / f"{number}")
            store.delete(id)
            try:
                store.get(id)
            except graviton.NotFoundError:
                pass
            else:
                raise AssertionError("a deleted blob was found")
            if turn % 6 == 5:
                store.gc(grace=0)
                assert store.stats().blobs > 0

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    for data in shared:
        if BlobId.of(data) in store:
            assert store.get(BlobId.of(data)) == data
    assert store.verify(deep=True).clean


def test_a_call_that_waits_holds_up_nobody(local: Store, tmp_path: Path) -> None:
    """While puts wait for a source without data, all other calls continue."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDWR)
    ids: list[BlobId] = []
    threads = [threading.Thread(target=lambda: ids.append(local.put_file(fifo)), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(100):
        assert local.get(local.put(f"{number}".encode())) == f"{number}".encode()
    assert not ids
    os.write(held, b"data")
    os.close(held)
    for thread in threads:
        thread.join()
    # One of them got the bytes and the other the end, or one got both parts.
    assert sum(id.size for id in ids) == 4


def test_stores_are_opened_and_closed_by_many(tmp_path: Path) -> None:
    def work(number: int) -> None:
        for _ in range(5):
            with graviton.open(tmp_path / "store") as store:
                assert store.get(store.put(b"data")) == b"data"

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


def test_closing_under_way_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    for _ in range(10):
        store = graviton.open(tmp_path / "store")
        started = threading.Barrier(9)
        unexpected: list[BaseException] = []

        def work(store: Store = store, started: threading.Barrier = started) -> None:
            started.wait()
            try:
                while True:
                    store.get(store.put(os.urandom(10_000)))
            except graviton.GravitonError as error:
                if not isinstance(error, graviton.ClosedError | graviton.BackendUnavailableError | graviton.NotFoundError):
                    unexpected.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        started.wait()
        store.close()
        for thread in threads:
            thread.join()
        assert not unexpected, unexpected
