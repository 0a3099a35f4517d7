"""The asynchronous API: the same results as the synchronous one."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import graviton
import graviton.aio
import pytest
from conftest import Place, run
from graviton import BlobId

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_what_goes_in_comes_out(place: Place, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 30_000):
            yield data[start : start + 30_000]

    class Stream:
        def __init__(self) -> None:
            self._file = io.BytesIO(data)

        async def read(self, size: int) -> bytes:
            return self._file.read(size)

    async def main(store: graviton.aio.Store) -> None:
        id = await store.put(data)
        assert id == BlobId.of(data)
        sources: list[Any] = [
            bytearray(data),
            memoryview(data),
            path,
            io.BytesIO(data),
            [data[:50_000], data[50_000:]],
            pieces(),
            Stream(),
        ]
        for source in sources:
            assert (await store.put_receipt(source)) == graviton.PutReceipt(
                id, (await store.stat(id)).blocks, 0, 0, 0, False
            ), source
        assert await store.put_file(path) == id
        assert await store.put_many([path, path, path]) == [id] * 3
        assert await store.get(id) == data
        assert await store.read_range(id, 10, 20) == data[10:30]
        assert await store.exists(id)
        buffer = bytearray(len(data) + 5)
        assert await store.get_into(id, buffer) == len(data)
        assert buffer == data + bytes(5)
        target = tmp_path / "copy"
        assert await store.get_to(id, target) == len(data)
        assert target.read_bytes() == data
        file = io.BytesIO()
        await store.get_to(id, file)
        assert file.getvalue() == data
        assert [blob.id async for blob in store.list()] == [id] == [found async for found in store]
        manifest = await store.manifest(id)
        entries = [entry async for entry in manifest]
        assert len(entries) == len(manifest) == (await store.stat(id)).blocks
        assert sum(entry.size for entry in entries) == len(data)
        assert list(store.synchronous.manifest(id)) == entries
        assert (await store.stats()).blobs == 1
        await store.delete(id)
        assert not await store.exists(id)
        await store.restore(id)
        assert await store.exists(id)
        await store.delete(id)
        # It also collects the rows of the puts that found the blob there.
        assert (await store.gc(grace=0)).blobs >= 1
        assert (await store.repack("packs")).complete
        assert (await store.stats()).dead_blobs == 0
        assert (await store.verify(deep=True)).clean
        assert (await store.verify(rebuild=True)).rebuilt == 0
        assert (await store.stats()).blocks == 0

    run(place, main)


def test_files(place: Place) -> None:
    data = os.urandom(3 << 20)

    async def main(store: graviton.aio.Store) -> None:
        async with store.writer() as writer:
            assert await writer.write(data[:1000]) == 1000
            assert await writer.write(bytearray(data[1000:])) == len(data) - 1000
            assert await writer.tell() == len(data)
            with pytest.raises(ValueError, match="no id"):
                _ = writer.id
        assert writer.closed and writer.id == BlobId.of(data)
        with pytest.raises(graviton.ClosedError):
            await writer.write(b"more")

        async with store.open(writer.id) as file:
            assert file.size == len(data) and not file.closed
            assert b"".join([piece async for piece in file]) == data
            assert await file.read() == b""
            assert await file.seek(-5, os.SEEK_END) == len(data) - 5
            assert await file.read(3) == data[-5:-2]
            assert await file.tell() == len(data) - 2
            assert await file.seek(2_000_000) == 2_000_000
            assert await file.read(1_000_000) == data[2_000_000:3_000_000]
            buffer = bytearray(100)
            await file.seek(50)
            assert await file.readinto(buffer) == 100 and buffer == data[50:150]
            with pytest.raises(graviton.InvalidArgumentError) as refused:
                await file.seek(-1)
            assert isinstance(refused.value, OSError)
        assert file.closed
        with pytest.raises(graviton.ClosedError):
            await file.read()

        reader = await store.open(writer.id)
        writing = await store.writer(expect=writer.id)
        assert await reader.read(4) == data[:4]
        await reader.close()
        await writing.abort()

    run(place, main)


def test_errors_are_those_of_the_synchronous_api(files: Place) -> None:
    nothing = BlobId.of(b"nothing")

    async def main(store: graviton.aio.Store) -> None:
        for call in (store.get, store.stat, store.delete, store.restore, store.manifest):
            with pytest.raises(graviton.NotFoundError):
                await call(nothing)
        with pytest.raises(graviton.InvalidIdError):
            await store.get("no id")
        with pytest.raises(graviton.DigestMismatchError):
            await store.put(b"something", expect=nothing)
        with pytest.raises(TypeError):
            await store.put("text")  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError):
            await store.put_many([files.path / "not there", __file__])
        with pytest.raises(graviton.RangeError):
            await store.read_range(await store.put(b"1234"), 5, 1)
        assert await store.put(b"something") == BlobId.of(b"something")

    run(files, main)

    async def missing() -> None:
        with pytest.raises(graviton.NotFoundError):
            await graviton.aio.open(files.path / "elsewhere", create=False)
        with pytest.raises(graviton.ConfigError):
            await graviton.aio.open(files.path, hash="md5")

    asyncio.run(missing())


def test_a_closed_store_is_closed(files: Place) -> None:
    async def main() -> None:
        store = await graviton.aio.open(files.path, **files.settings)
        id = await store.put(b"data")
        await store.close()
        await store.close()
        assert store.closed and store.synchronous.closed
        with pytest.raises(graviton.ClosedError):
            await store.get(id)

    asyncio.run(main())


def test_progress_is_told_on_the_event_loop(files: Place, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 << 20))
    told: list[tuple[int, int | None]] = []
    where = set()

    def progress(done: int, total: int | None) -> None:
        where.add(threading.current_thread())
        told.append((done, total))

    async def main(store: graviton.aio.Store) -> None:
        id = await store.put(path, progress=progress)
        assert told[-1] == (3 << 20, 3 << 20) and len(told) > 1
        told.clear()
        await store.put_many([path] * 5, progress=progress)
        assert told[-1] == (15 << 20, 15 << 20) and len(told) == 5
        told.clear()
        await store.verify(deep=True, progress=progress)
        await asyncio.sleep(0)
        assert told
        await store.delete(id)
        assert where == {threading.current_thread()}

        def refuse(done: int, total: int | None) -> None:
            raise ZeroDivisionError("enough")

        with pytest.raises(ZeroDivisionError):
            await store.put(path, progress=refuse)

    run(files, main)


def test_large_reads_are_whole(files: Place) -> None:
    data = os.urandom(5_000_000)

    async def main(store: graviton.aio.Store) -> None:
        id = await store.put(data)
        assert await store.get(id) == data
        for offset, length in [(0, 1 << 70), (1, 3_000_000), (4_000_000, 10), (4_000_000, 1 << 70), (5_000_000, 1 << 70)]:
            assert await store.read_range(id, offset, length) == data[offset : offset + length]
        with pytest.raises(graviton.RangeError):
            await store.read_range(id, 5_000_001, 2_000_000)
        with pytest.raises(graviton.NotFoundError):
            await store.get(BlobId("blake3:" + "0" * 64 + ":5000000"))
        with pytest.raises(graviton.NotFoundError):
            await store.read_range(BlobId("blake3:" + "0" * 64 + ":5000000"), 0, 5_000_000)
        async with store.open(id) as file:
            assert await file.seek(7) == 7
            assert await file.read(2_000_000) == data[7:2_000_007]
            assert await file.read(1 << 70) == data[2_000_007:] and await file.read() == b""
            assert await file.read1(1 << 70) == b""
        tasks = [asyncio.ensure_future(store.get(id)) for _ in range(10)]
        for task in tasks[::2]:
            await asyncio.sleep(0)
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(found, asyncio.CancelledError) or found == data

    run(files, main)


def test_arguments_that_make_no_sense(files: Place) -> None:
    async def main(store: graviton.aio.Store) -> None:
        manifest = await store.manifest(await store.put(b"hello"))
        with pytest.raises(graviton.InvalidArgumentError):
            _ = [entry async for entry in manifest.starting(-1)]
        assert [entry async for entry in manifest.starting(1 << 70)] == []

    run(files, main)


def test_it_is_pickled_as_the_synchronous_one(files: Place) -> None:
    async def main(store: graviton.aio.Store) -> None:
        id = await store.put(b"data")
        async with pickle.loads(pickle.dumps(store)) as again:
            assert type(again) is graviton.aio.Store and await again.get(id) == b"data"

    run(files, main)
