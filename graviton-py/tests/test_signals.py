"""Signals: a handler that raises ends any call, however long the call would take.

None of these calls ever ends by itself, so a test that passes was interrupted. Each is repeated, with the
signal at other moments.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import graviton
import pytest
from conftest import Place
from graviton import BlobId, Store

ROUNDS = 10


class Alarm(Exception):
    pass


def interrupted(call: Callable[[], object]) -> None:
    def ring(number: int, frame: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for number in range(ROUNDS):
            with pytest.raises(Alarm):
                # Repeats every 5 s, in case other code has caught the exception.
                signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.03 * number, 5)
                while True:
                    call()
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as server:
        yield server.getsockname()[1]


def test_a_put_of_a_file_that_never_ends(local: Store, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Held open, so that opening the pipe returns and reading it does not.
    held = os.open(fifo, os.O_RDWR)
    try:
        interrupted(lambda: local.put(fifo))
        interrupted(lambda: local.put_many([fifo, fifo]))
    finally:
        os.write(held, b"x" * 100)
        os.close(held)
    interrupted(lambda: local.put(Path("/dev/zero")))
    assert local.stats().blobs == 0


def test_a_put_of_pieces_that_never_end(store: Store) -> None:
    def pieces() -> Iterator[bytes]:
        while True:
            yield b"x" * 100_000

    interrupted(lambda: store.put(pieces()))
    assert store.stats().blobs == 0


def test_calls_that_end_soon(store: Store) -> None:
    data = os.urandom(4 << 20)
    id = store.put(data)
    buffer = bytearray(len(data))
    interrupted(lambda: store.put(data))
    interrupted(lambda: store.get(id))
    interrupted(lambda: store.get_into(id, buffer))
    interrupted(lambda: BlobId.of(data))
    interrupted(store.stats)
    interrupted(lambda: list(store.list()))
    assert store.get(id) == data and store.verify(deep=True).clean


def test_a_slow_verification_and_collection(local: Store) -> None:
    ids = [local.put(os.urandom(50_000)) for _ in range(40)]
    interrupted(lambda: local.verify(deep=True, bytes_per_second=1000))
    for id in ids:
        local.delete(id)
    interrupted(lambda: local.gc(grace=0, blocks_per_second=1, dry_run=False))
    assert local.verify(deep=True).clean


def test_a_server_that_does_not_answer(tmp_path: Path, mute: int) -> None:
    place = Place(
        tmp_path / "store",
        {
            "blob_backend": "minio",
            "quasar_minio_url": f"http://127.0.0.1:{mute}",
            "minio_root_user": "user",
            "minio_root_password": "password",
        },
    )

    def put() -> None:
        with place.open() as store:
            store.put(b"x")

    interrupted(put)
    interrupted(lambda: graviton.open(tmp_path / "other", manifest_url=f"postgres://u:p@127.0.0.1:{mute}/d"))


def test_waiting_for_another_threads_turn(local: Store, tmp_path: Path) -> None:
    ended = threading.Event()
    with local.writer() as writer:

        def hold() -> None:
            data = b"x" * (64 << 20)
            while not ended.is_set():
                writer.write(data)

        threads = [threading.Thread(target=hold) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            interrupted(writer.tell)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        writer.abort()


def test_a_handler_that_uses_what_it_interrupted(local: Store) -> None:
    """The handler's call is refused; it does not wait for itself."""
    refused: list[BaseException] = []

    def ring(number: int, frame: object) -> None:
        try:
            writer.write(b"y")
        except graviton.GravitonError as error:
            refused.append(error)

    # Zeros that were never touched take no memory. A call checks for signals every 50 ms, and this one takes
    # much longer.
    data = bytes(1 << 30)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with local.writer() as writer:
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.1)
            while not refused:
                writer.write(data)
    except graviton.ClosedError:
        # The handler's own failed write has aborted the writer.
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "signal handler" in str(refused[0])


def test_a_handler_that_does_not_raise_changes_nothing(store: Store) -> None:
    rung = []
    data = os.urandom(2 << 20)
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(20):
            assert store.get(store.put(data)) == data
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung


def test_a_close_that_was_interrupted_can_be_done_again(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = local._engine

    class Interrupted:
        def close(self) -> None:
            raise Alarm

    monkeypatch.setattr(local, "_opened", Interrupted())
    with pytest.raises(Alarm):
        local.close()
    monkeypatch.setattr(local, "_opened", engine)
    assert not local.closed
    local.close()
    with pytest.raises(graviton.ClosedError):
        engine.stats()
    assert local.closed


PROGRAM = """
import sys, graviton
from pathlib import Path
store = graviton.open(sys.argv[1])
try:
    print("ready", flush=True)
    store.put(Path("/dev/zero"))
except KeyboardInterrupt:
    print(store.stats().blobs)
    raise
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_program(tmp_path: Path, number: signal.Signals) -> None:
    for _ in range(3):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "store")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            out, error = process.communicate()
        assert process.returncode == -number
        if number == signal.SIGINT:
            assert out == "0\n" and "KeyboardInterrupt" in error
