"""Calls everything again and again, and prints the growth of resident memory after a warm-up.

usage: leaks.py CALLS DIRECTORY
"""

from __future__ import annotations

import gc
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import graviton
from graviton import BlobId


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except (graviton.GravitonError, TypeError, BufferError, KeyError):
        return
    raise AssertionError("it was not refused")


def _raising() -> Iterator[bytes]:
    yield b"x"
    raise KeyError


def cycle(store: graviton.Store, id: BlobId, large: BlobId, file: Path) -> None:
    """30 calls."""
    data = bytearray(b"hello")
    absent = BlobId.of(b"absent")
    store.get(id)
    store.get(large)
    store.get_into(id, bytearray(10))
    store.get_to(id, io.BytesIO())
    store.read_range(large, 5000, 10)
    store.stat(id)
    store.exists(id)
    assert absent not in store
    next(store.list())
    list(store.manifest(large))
    store.put(data)
    store.put([b"he", memoryview(b"llo")])
    store.put_file(file)
    store.put_many([file])
    with store.open(large) as reader:
        reader.seek(7)
        reader.read(5)
    with store.open(large, buffering=0) as raw:
        raw.readinto(data)
    with store.writer() as writer:
        writer.write(b"hello")
    store.writer().abort()
    store.delete(id)
    store.restore(id)
    pickle.loads(pickle.dumps(id))
    repr(store)
    repr(store.stat(id))
    refused(lambda: store.get(absent))
    refused(lambda: store.get("text"))
    refused(lambda: store.get_into(large, data))
    refused(lambda: store.put("text"))  # type: ignore[arg-type]
    refused(lambda: store.put(_raising()))
    refused(lambda: store.put_file("/missing"))
    refused(lambda: store.put(b"x", expect=absent))


CALLS = 30


def main() -> None:
    calls, directory = int(sys.argv[1]), Path(sys.argv[2])
    file = directory / "file"
    file.write_bytes(b"hello")
    with graviton.open(directory / "store", chunker="fastcdc:1024:4096:16384", durability="relaxed") as store:
        id, large = store.put(b"hello"), store.put(bytes(range(256)) * 200)
        rounds = calls // CALLS
        for _ in range(rounds // 4):
            cycle(store, id, large, file)
        gc.collect()
        before = resident()
        for _ in range(rounds - rounds // 4):
            cycle(store, id, large, file)
        gc.collect()
        print(rounds * CALLS, before, resident() - before)


if __name__ == "__main__":
    main()
