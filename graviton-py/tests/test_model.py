"""A store beside a dictionary that should hold the same, through random programs. For longer runs:
``GRAVITON_MODEL_EXAMPLES=1000`` and ``GRAVITON_MODEL_STEPS=200``."""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import graviton
import pytest
from graviton import BlobId
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

EXAMPLES = int(os.environ.get("GRAVITON_MODEL_EXAMPLES", "25"))
STEPS = int(os.environ.get("GRAVITON_MODEL_STEPS", "40"))

CHUNKERS = ["fastcdc:64:256:1024", "fixed:100", "fixed:1", "delimiter:0a:50"]


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Bytes that repeat themselves and each other: pieces of a few streams, one after another."""
    pieces = st.tuples(st.integers(0, 3), st.integers(0, 2000), st.sampled_from([0, 1, 2, 99, 100, 101, 255, 700]))
    return b"".join(STREAMS[which][start : start + length] for which, start, length in draw(st.lists(pieces, max_size=6)))


STREAMS = [random.Random(seed).randbytes(4000) for seed in range(3)] + [b"\n\n\n" + bytes(4000)]


class Model(RuleBasedStateMachine):
    """``live`` and ``dead`` are the blobs that the store should hold; ``ids`` has every id so far."""

    ids: Bundle[BlobId] = Bundle("ids")
    writers: Bundle[tuple[graviton.BlobWriter, bytearray]] = Bundle("writers")

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.live: dict[BlobId, bytes] = {}
        self.dead: dict[BlobId, bytes] = {}
        self.open: list[graviton.BlobWriter] = []
        self.store = graviton.open(self.place, chunker=CHUNKERS[0], durability="relaxed")

    def teardown(self) -> None:
        for writer in self.open:
            writer.abort()
        assert self.store.verify(deep=True).clean
        for data in list(self.live):
            self.store.delete(data)
        self.store.close()
        shutil.rmtree(self.place)

    def keep(self, id: BlobId, data: bytes) -> BlobId:
        assert id == BlobId.of(data, id.algo) and (id.algo, id.size) in (("blake3", len(data)), ("sha256", len(data)))
        self.live[id] = data
        return id

    @rule(target=ids, data=contents(), how=st.sampled_from(["bytes", "bytearray", "file", "pieces", "path"]))
    def put(self, data: bytes, how: str) -> BlobId:
        path = self.place / "source"
        path.write_bytes(data)
        sources: dict[str, Any] = {
            "bytes": data,
            "bytearray": bytearray(data),
            "file": io.BytesIO(data),
            "pieces": [data[:7], data[7:]],
            "path": path,
        }
        receipt = self.store.put_receipt(sources[how])
        assert receipt.created == (receipt.id not in self.live)
        assert receipt.fresh_bytes <= len(data) and receipt.fresh_blocks <= receipt.blocks
        return self.keep(receipt.id, data)

    @rule(data=contents(), id=ids)
    def put_expecting(self, data: bytes, id: BlobId) -> None:
        if BlobId.of(data, id.algo) == id:
            self.keep(self.store.put(data, expect=id), data)
        else:
            with pytest.raises(graviton.DigestMismatchError):
                self.store.put(data, expect=id)

    @rule(target=writers)
    def begin(self) -> tuple[graviton.BlobWriter, bytearray]:
        self.open.append(self.store.writer())
        return self.open[-1], bytearray()

    @rule(writer=writers, data=contents())
    def write(self, writer: tuple[graviton.BlobWriter, bytearray], data: bytes) -> None:
        writer[0].write(data)
        writer[1].extend(data)
        assert writer[0].tell() == len(writer[1])

    @rule(target=ids, writer=consumes(writers))
    def finish(self, writer: tuple[graviton.BlobWriter, bytearray]) -> BlobId:
        writer[0].close()
        return self.keep(writer[0].id, bytes(writer[1]))

    @rule(writer=consumes(writers))
    def abort(self, writer: tuple[graviton.BlobWriter, bytearray]) -> None:
        writer[0].abort()

    @rule(id=ids)
    def get(self, id: BlobId) -> None:
        if id in self.live:
            assert self.store.get(id) == self.live[id]
            assert self.store.stat(id).id == id and id in self.store
            assert b"".join(self.live[id][at : at + size] for at, size, _ in self.store.manifest(id)) == self.live[id]
        else:
            assert id not in self.store
            with pytest.raises(graviton.NotFoundError):
                self.store.get(id)

    @rule(id=ids, offset=st.integers(0, 5000), length=st.integers(0, 5000))
    def read_range(self, id: BlobId, offset: int, length: int) -> None:
        if id not in self.live:
            with pytest.raises(graviton.NotFoundError):
                self.store.read_range(id, offset, length)
        elif offset > id.size:
            with pytest.raises(graviton.RangeError):
                self.store.read_range(id, offset, length)
        else:
            assert self.store.read_range(id, offset, length) == self.live[id][offset : offset + length]

    @rule(id=ids, moves=st.lists(st.tuples(st.integers(0, 5000), st.integers(-1, 3000)), max_size=5))
    def read_as_a_file(self, id: BlobId, moves: list[tuple[int, int]]) -> None:
        if id in self.live:
            like = io.BytesIO(self.live[id])
            with self.store.open(id, buffering=0) as file:
                for offset, count in moves:
                    assert file.seek(offset) == like.seek(offset)
                    assert file.read(count) == like.read(count)
                    assert file.tell() == like.tell()

    @rule(id=ids)
    def delete(self, id: BlobId) -> None:
        if id in self.live:
            self.store.delete(id)
            self.dead[id] = self.live.pop(id)
        else:
            with pytest.raises(graviton.NotFoundError):
                self.store.delete(id)

    @rule(id=ids)
    def restore(self, id: BlobId) -> None:
        if id in self.live or id in self.dead:
            self.store.restore(id)
            self.live.setdefault(id, self.dead.get(id, b""))
        else:
            with pytest.raises(graviton.NotFoundError):
                self.store.restore(id)

    @rule(dry_run=st.booleans())
    def collect_within_the_grace(self, dry_run: bool) -> None:
        self.store.gc(dry_run=dry_run)

    @rule()
    def collect(self) -> None:
        self.store.gc(grace=0)
        self.dead.clear()
        assert self.store.stats().dead_blobs == 0

    @rule(chunker=st.sampled_from(CHUNKERS), hash=st.sampled_from(["blake3", "sha256"]))
    @precondition(lambda self: not self.bundle("writers"))
    def reopen(self, chunker: str, hash: str) -> None:
        self.store.close()
        self.store = graviton.open(self.place, chunker=chunker, hash=hash, durability="relaxed")

    @invariant()
    def lists_what_is_there(self) -> None:
        assert [blob.id for blob in self.store.list()] == sorted(self.live, key=lambda id: (id.algo, id.digest, id.size))
        stats = self.store.stats()
        assert (stats.blobs, stats.logical_bytes) == (len(self.live), sum(map(len, self.live.values())))


class TestModel(Model.TestCase):  # type: ignore[misc, valid-type]
    """The random programs, the same in each run unless hypothesis is told otherwise."""

    settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=EXAMPLES == 25,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        database=None,
    )
