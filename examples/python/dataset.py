"""A dataset of fixed-size records in one blob, read by range from worker processes.

    python dataset.py [DIRECTORY]
"""

from __future__ import annotations

import multiprocessing
import struct
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import graviton

RECORD = struct.Struct("<Id240x")
RECORDS = 40_000
BATCH = 1_000

_store: graviton.Store


def records() -> Iterator[bytes]:
    """Records from any source; the program never holds all of them."""
    for number in range(RECORDS):
        yield RECORD.pack(number, number**0.5)


def begin(store: graviton.Store) -> None:
    """Runs once in each worker. The store came in a pickle, which has its location but no secrets, and was
    opened again."""
    global _store
    _store = store


def work(id: str, first: int) -> float:
    """One batch: the bytes of its records. Only the blocks that contain them are read and verified."""
    data = _store.read_range(id, first * RECORD.size, BATCH * RECORD.size)
    return float(sum(value for _, value in RECORD.iter_unpack(data)))


def main(place: str) -> None:
    with graviton.open(place) as store:
        id = store.put(records())
        print(f"stored {id.size / 2**20:.1f} MiB as {id}")
    with graviton.open(place, read_only=True) as store:
        workers = ProcessPoolExecutor(3, multiprocessing.get_context("spawn"), initializer=begin, initargs=(store,))
        with workers:
            firsts = range(0, RECORDS, BATCH)
            total = sum(workers.map(work, [id] * len(firsts), firsts))
    expected = sum(number**0.5 for number in range(RECORDS))
    assert abs(total - expected) < 1e-6 * expected
    print(f"{len(firsts)} batches in 3 processes: the sum is {total:.3f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
