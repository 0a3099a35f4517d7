"""Versions of a model's checkpoint: each is kept as a whole, and only its changes take space.

    python checkpoints.py [DIRECTORY]

It needs numpy.
"""

from __future__ import annotations

import io
import sys
import tempfile

import graviton
import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]


def save(store: graviton.Store, weights: Weights) -> graviton.PutReceipt:
    """Any serializer works. Unchanged data keeps its bytes, wherever it moves, as long as it is not
    compressed."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **weights)
    return store.put_receipt(file.getbuffer())


def load(store: graviton.Store, id: str) -> Weights:
    with store.open(id) as file, np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def train(weights: Weights, step: int, random: np.random.Generator) -> None:
    """Fine-tuning: the head changes each time, one of the layers below now and then."""
    touched = ["head", f"layer{step % 8}"] if step % 2 else ["head"]
    for name in touched:
        weights[name] += random.normal(0, 0.01, weights[name].shape).astype(np.float32)


def main(place: str) -> None:
    random = np.random.default_rng(1)
    weights: Weights = {f"layer{number}": random.random((512, 1024), np.float32) for number in range(8)}
    weights["head"] = random.random((512, 100), np.float32)
    history = []
    # A checkpoint takes the time that the disk needs for its new blocks.
    with graviton.open(place, chunker="fastcdc:16384:65536:262144") as store:
        for step in range(10):
            train(weights, step, random)
            receipt = save(store, weights)
            history.append(receipt.id)
            print(f"step {step}: {receipt.size / 2**20:5.1f} MiB, of which {receipt.fresh_bytes / 2**20:5.1f} are new")

        last = load(store, history[-1])
        assert all(np.array_equal(last[name], weights[name]) for name in weights)
        stats = store.stats()
        saving = 1 - stats.stored_bytes / stats.logical_bytes
        print(
            f"{stats.blobs} checkpoints of {stats.logical_bytes / 2**20:.1f} MiB "
            f"take {stats.stored_bytes / 2**20:.1f} MiB: {saving:.0%} saved"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
