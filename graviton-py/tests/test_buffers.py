"""Memory that goes in, and memory that is filled."""

from __future__ import annotations

import array
import ctypes
import mmap
import sys
import threading
from pathlib import Path
from typing import Any

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
    """Whatever another thread writes meanwhile, the id is that of what can be read."""
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
