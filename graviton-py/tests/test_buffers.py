"""Memory to store from, and memory to fill."""

from __future__ import annotations

import array
import asyncio
import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graviton
import graviton.aio
import numpy as np
import pytest
from graviton import BlobId, Store


def test_every_contiguous_buffer_goes_in(store: Store, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as writable:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as fixed:
            buffers: list[Any] = [
                data,
                bytearray(data),
                memoryview(data),
                memoryview(b"x" + data + b"x")[1:-1],
                array.array("I", data),
                np.frombuffer(data, np.uint8),
                np.frombuffer(data, np.float32),
                np.frombuffer(data, np.uint16).reshape(2, 5, -1),
                (ctypes.c_char * len(data)).from_buffer_copy(data),
                writable,
                fixed,
            ]
            buffer: Any = None
            for buffer in buffers:
                assert store.put(buffer) == BlobId.of(data), type(buffer)
                assert BlobId.of(buffer) == BlobId.of(data)
                with store.writer() as writer:
                    assert writer.write(buffer) == len(data)
                assert writer.id == BlobId.of(data)
            buffers.clear()
            del buffer
    for empty in (b"", bytearray(), memoryview(b""), np.empty((0, 3)), array.array("d")):
        assert store.put(empty) == BlobId.of(b"")


def test_what_is_not_contiguous_or_has_no_bytes_is_refused(local: Store) -> None:
    strided = np.arange(100)[::2]
    for refused in (strided, np.ones((4, 5)).T, memoryview(b"abcdef")[::2]):
        with pytest.raises(BufferError):
            local.put(refused)
    with pytest.raises(TypeError):
        local.put(np.array([object()]))
    assert local.put(np.ascontiguousarray(strided)).size == 50 * strided.itemsize


def test_every_writable_buffer_is_filled(store: Store) -> None:
    data = bytes(range(256)) * 40
    id = store.put(data)
    buffers: list[Any] = [
        bytearray(len(data)),
        memoryview(bytearray(len(data))),
        array.array("I", bytes(len(data))),
        np.zeros(len(data) // 8),
        (ctypes.c_char * len(data))(),
        mmap.mmap(-1, len(data)),
    ]
    for buffer in buffers:
        assert store.get_into(id, buffer) == len(data)
        assert bytes(memoryview(buffer).cast("B")) == data, type(buffer)
        with store.open(id, buffering=0) as file:
            file.seek(256)
            assert file.readinto(buffer) == len(data) - 256
            assert bytes(memoryview(buffer).cast("B"))[:-256] == data[256:]
    buffers[-1].close()
    with pytest.raises(BufferError):
        store.get_into(id, memoryview(bytearray(2 * len(data)))[::2])


def test_a_buffer_is_held_while_it_is_used_and_no_longer(local: Store) -> None:
    data = bytearray(5 << 20)
    before = sys.getrefcount(data)
    grown = threading.Event()
    refused: list[BaseException] = []

    def grow() -> None:
        try:
            while not grown.is_set():
                data.append(0)
                data.pop()
        except BufferError as error:
            refused.append(error)

    thread = threading.Thread(target=grow)
    thread.start()
    for _ in range(20):
        local.put(data)
        local.get_into(BlobId.of(data), data)
    grown.set()
    thread.join()
    data.append(0)
    assert sys.getrefcount(data) == before


def test_memory_that_changes_is_stored_as_it_was_hashed(store: Store) -> None:
    """The id is that of the readable content, even if another thread writes meanwhile."""
    data = bytearray(2 << 20)
    done = threading.Event()

    def change() -> None:
        value = 0
        while not done.is_set():
            value = (value + 1) % 256
            for at in range(0, len(data), 8191):
                data[at] = value

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            receipt = store.put_receipt(data)
            assert BlobId.of(store.get(receipt.id)) == receipt.id
            with store.writer() as writer:
                writer.write(data)
            assert BlobId.of(store.get(writer.id)) == writer.id
    finally:
        done.set()
        thread.join()
    assert store.verify(deep=True).clean


def test_the_same_goes_in_with_progress_and_from_asyncio(local: Store) -> None:
    asynchronous = graviton.aio.Store(local)

    async def written(data: Any) -> BlobId:
        async with asynchronous.writer() as file:
            await file.write(data)
        return file.id

    ways: list[Callable[[Any], BlobId]] = [
        local.put,
        lambda data: local.put(data, progress=lambda done, total: None),
        lambda data: asyncio.run(asynchronous.put(data)),
        lambda data: asyncio.run(asynchronous.put(data, progress=lambda done, total: None)),
        lambda data: asyncio.run(written(data)),
    ]
    data: Any
    refused: Any
    pairs = np.zeros(100, dtype=[("a", "<i4"), ("b", "<f8")])
    for put in ways:
        for data in (np.zeros((0, 3)), np.arange(1_000_000.0).reshape(1000, 1000), pairs, bytearray(3_000_000)):
            assert put(data) == BlobId.of(data)
        for refused in (np.ones((4, 5)).T, np.arange(100)[::2]):
            with pytest.raises(BufferError):
                put(refused)
        for refused in (np.array([object()]), np.array([(1, object())], dtype=[("a", "i4"), ("b", "O")])):
            with pytest.raises(TypeError, match="Python objects"):
                put(refused)


def test_asyncio_fills_the_same(local: Store) -> None:
    store = graviton.aio.Store(local)
    data = os.urandom(2_400_000)
    id = local.put(data)

    async def main() -> None:
        buffer: Any
        refused: Any
        empty: Any = np.zeros((0, 3))
        objects: Any = np.array([object()] * 300_000)
        for buffer in (np.zeros((1000, 300)), np.zeros(200_000, dtype=[("a", "<i4"), ("b", "<f8")]), bytearray(2_400_000)):
            assert await store.get_into(id, buffer) == len(data)
            assert bytes(memoryview(buffer)) == data
        assert await store.get_into(await store.put(b""), empty) == 0
        for refused in (data, np.zeros((300, 1000)).T):
            with pytest.raises(BufferError):
                await store.get_into(id, refused)
        with pytest.raises(TypeError, match="Python objects"):
            await store.get_into(id, objects)
        async with store.open(id) as file:
            with pytest.raises(TypeError, match="Python objects"):
                await file.readinto(objects)

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="classes have no __buffer__ yet")
def test_a_class_that_heeds_the_flags_is_filled(local: Store) -> None:
    class Heeding:
        def __init__(self) -> None:
            self.memory = bytearray(5)

        def __buffer__(self, flags: int) -> memoryview:
            view = memoryview(self.memory)
            return view if flags & 1 else view.toreadonly()

    buffer: Any = Heeding()
    assert local.get_into(local.put(b"hello"), buffer) == 5 and buffer.memory == b"hello"


def test_what_is_read_only_is_not_filled(local: Store) -> None:
    id = local.put(b"hello")
    refused: Any
    for refused in (b"hello", memoryview(b"hello"), np.frombuffer(b"hello", np.uint8)):
        with pytest.raises(BufferError, match="the memory is read-only"):
            local.get_into(id, refused)
    with pytest.raises(TypeError):
        local.get_into(id, "hello")  # type: ignore[arg-type]
