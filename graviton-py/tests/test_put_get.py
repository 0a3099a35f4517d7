"""Putting and getting, with bytes in every supported form."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import os
import random
import socket
import stat
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import graviton
import graviton.aio
import pytest
from graviton import BlobId, Store

SIZES = [0, 1, 1023, 1024, 1025, 16384, 16385, 1 << 20, (3 << 20) + 7]


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_every_form_of_the_same_bytes_is_the_same_blob(store: Store, tmp_path: Path, size: int) -> None:
    data = content(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw, gzip.open(io.BytesIO(gzip.compress(data))) as packed:
        sources: list[Any] = [
            data,
            bytearray(data),
            memoryview(data),
            path,
            file,
            raw,
            packed,
            io.BytesIO(data),
            [data[:100], data[100:]],
            (data[at : at + 997] for at in range(0, size, 997)),
        ]
        ids = [store.put(source) for source in sources]
    assert set(ids) == {BlobId.of(data)}
    receipt = store.put_receipt(data)
    assert (receipt.created, receipt.fresh_blocks, receipt.size) == (False, 0, size)
    assert store.put_file(str(path)) == store.put_file(path) == receipt.id

    id = receipt.id
    assert store.get(id) == store.get(str(id)) == data
    buffer = bytearray(b"\xff" * (size + 10))
    assert store.get_into(id, buffer) == size
    assert buffer == data + b"\xff" * 10
    target = io.BytesIO()
    assert store.get_to(id, target) == size
    assert target.getvalue() == data
    assert store.get_to(id, tmp_path / "out") == store.get_to(str(id), str(tmp_path / "out")) == size
    assert (tmp_path / "out").read_bytes() == data
    with store.open(id) as opened:
        assert opened.read() == data


def test_ranges_are_those_of_the_bytes(store: Store) -> None:
    data = content(200_000)
    id = store.put(data)
    chosen = random.Random(1)
    for _ in range(100):
        offset, length = chosen.randrange(len(data) + 1), chosen.randrange(50_000)
        assert store.read_range(id, offset, length) == data[offset : offset + length]
    assert store.read_range(id, len(data), 5) == b""
    assert store.read_range(id, 0, 1 << 100) == data
    for offset in (len(data) + 1, 1 << 63, 1 << 100):
        with pytest.raises(graviton.RangeError):
            store.read_range(id, offset, 1)
    for wrong in [(-1, 1), (0, -1)]:
        with pytest.raises(graviton.InvalidArgumentError):
            store.read_range(id, *wrong)


@pytest.mark.parametrize("source", ["text", "/etc/hostname", 5, None, 1.5, object()])
def test_what_is_not_bytes_is_refused(local: Store, source: Any) -> None:
    with pytest.raises(TypeError):
        local.put(source)


@pytest.mark.parametrize("pieces", [["text"], [b"good", 5], {"a": 1}, range(3)])
def test_pieces_that_are_not_bytes_are_refused_and_leave_nothing(local: Store, pieces: Any) -> None:
    with pytest.raises(TypeError):
        local.put(pieces)
    assert local.stats().blobs == 0


def test_files_that_give_no_bytes_are_refused(local: Store, tmp_path: Path) -> None:
    for text in ("", "text"):
        with pytest.raises(TypeError):
            local.put(io.StringIO(text))  # type: ignore[arg-type]

    class NonBlocking:
        def read(self, size: int) -> None:
            return None

    with pytest.raises(BlockingIOError):
        local.put(NonBlocking())
    with pytest.raises(FileNotFoundError) as missing:
        local.put(tmp_path / "missing")
    assert isinstance(missing.value, graviton.NotFoundError)
    with pytest.raises(graviton.GravitonError):
        local.put(tmp_path)


class Boom(Exception):
    pass


def test_a_response_that_was_cut_short_is_not_stored(local: Store) -> None:
    def answer(announced: int) -> str:
        """The address of a server that announces this many bytes and sends five."""
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with listener, listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\nhello".encode())

        threading.Thread(target=serve).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    with urllib.request.urlopen(answer(7)) as response, pytest.raises(OSError, match="2 bytes of it are missing"):
        local.put(response)
    assert list(local.list()) == []
    with urllib.request.urlopen(answer(5)) as response:
        assert local.get(local.put(response)) == b"hello"


def test_what_a_source_raises_comes_out_as_it_is(store: Store) -> None:
    boom = Boom("broken")

    def pieces() -> Iterator[bytes]:
        yield content(100_000)
        raise boom

    class Broken:
        def read(self, size: int) -> bytes:
            raise boom

    sources: list[Callable[[], Any]] = [pieces, Broken]
    for source in sources:
        with pytest.raises(Boom) as raised:
            store.put(source())
        assert raised.value is boom
    assert store.stats().blobs == 0


def test_only_the_expected_content_is_stored(store: Store, tmp_path: Path) -> None:
    data, other = content(50_000), content(50_000, seed=1)
    path = tmp_path / "file"
    path.write_bytes(data)
    wrong = BlobId.of(other)
    sources: list[Any] = [data, path, io.BytesIO(data), [data]]
    for source in sources:
        with pytest.raises(graviton.DigestMismatchError):
            store.put(source, expect=wrong)
    with pytest.raises(graviton.DigestMismatchError):
        store.put_file(path, expect=wrong)
    with pytest.raises(graviton.DigestMismatchError), store.writer(expect=wrong) as writer:
        writer.write(data)
    assert store.stats().blobs == 0
    assert store.put(path, expect=str(BlobId.of(data))) == BlobId.of(data)


def test_many_files_keep_their_order(store: Store, tmp_path: Path) -> None:
    paths = []
    for number in range(200):
        path = tmp_path / f"{number}"
        path.write_bytes(content(number * 37, seed=number % 150))
        paths.append(path)
    assert store.put_many(paths) == [BlobId.of(path.read_bytes()) for path in paths]
    assert store.put_many(str(path) for path in paths[:3]) == store.put_many(paths[:3])
    assert store.put_many([]) == []
    # Seeds repeat only for different sizes.
    assert store.stats().blobs == 200


def test_the_first_of_many_that_fails_is_raised(store: Store, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"good")
    with pytest.raises(graviton.NotFoundError, match="missing"):
        store.put_many([good, tmp_path / "missing", good])
    with pytest.raises(TypeError):
        store.put_many([5])  # type: ignore[list-item]


def test_a_blob_of_many_gigabytes_that_is_not_there_is_not_allocated(local: Store) -> None:
    with pytest.raises(graviton.NotFoundError):
        local.get(f"blake3:{'0' * 64}:{(1 << 63) - 1}")


def test_a_buffer_must_be_large_enough_and_writable(local: Store) -> None:
    id = local.put(content(1000))
    buffer = bytearray(999)
    with pytest.raises(graviton.InvalidArgumentError, match="does not fit"):
        local.get_into(id, buffer)
    assert buffer == bytes(999)
    with pytest.raises(BufferError):
        local.get_into(id, bytes(1000))
    with pytest.raises(BufferError):
        local.get_into(id, memoryview(bytearray(1000)).toreadonly())
    with pytest.raises(TypeError):
        local.get_into(id, "text")  # type: ignore[arg-type]


def test_a_file_appears_whole_or_not_at_all(local: Store, tmp_path: Path) -> None:
    id = local.put(content(100_000))
    out = tmp_path / "out"
    out.write_bytes(b"before")

    def fail(done: int, total: int | None) -> None:
        raise Boom

    with pytest.raises(Boom):
        local.get_to(id, out, progress=fail)
    with pytest.raises(graviton.NotFoundError):
        local.get_to(BlobId.of(b"missing"), out)
    assert out.read_bytes() == b"before"
    with pytest.raises(FileNotFoundError):
        local.get_to(id, tmp_path / "missing" / "out")
    out.chmod(0o604)
    before = os.umask(0o027)
    try:
        local.get_to(id, out)
        local.get_to(id, tmp_path / "new")
    finally:
        os.umask(before)
    assert out.read_bytes() == (tmp_path / "new").read_bytes() == content(100_000)
    assert stat.S_IMODE(out.stat().st_mode) == 0o604
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["new", "out", "store"]
    with pytest.raises(TypeError):
        local.get_to(id, 5)  # type: ignore[arg-type]


def test_what_is_no_regular_file_is_written_to(local: Store, tmp_path: Path) -> None:
    id = local.put(b"data")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to(fifo)
    with open(os.open(fifo, os.O_RDWR), "rb", buffering=0) as held:
        for path in (fifo, tmp_path / "link", f"/proc/self/fd/{held.fileno()}"):
            assert local.get_to(id, path) == 4 and held.read(100) == b"data"
    assert fifo.is_fifo()
    with pytest.raises(IsADirectoryError):
        local.get_to(id, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link", "store"]


def test_links_are_followed(local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    id = local.put(b"data")
    (tmp_path / "deep").mkdir()
    for name, target in (("there", "deep/out"), ("absent", "deep/other")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "deep/out").write_bytes(b"before")
    for name in ("there", "absent"):
        local.get_to(id, tmp_path / name)
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"data"
    assert sorted(os.listdir(tmp_path / "deep")) == ["other", "out"]
    monkeypatch.chdir(tmp_path)
    local.get_to(id, "n" * 255)
    assert Path("n" * 255).read_bytes() == b"data"


def test_a_file_is_on_the_disk_before_it_appears(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def syncs(file: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        fsync(file)

    def replaces(one: str, other: str) -> None:
        done.append("replace")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(os, "replace", replaces)
    local.get_to(local.put(b"data"), tmp_path / "out")
    assert done == ["file", "replace", "directory"]


@pytest.mark.parametrize("lacking", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_appears_where_directories_and_permissions_are_not_kept(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    fsync = os.fsync

    def syncs(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(lacking, os.strerror(lacking))
        fsync(file)

    def refuses(file: int, mode: int) -> None:
        raise OSError(lacking, os.strerror(lacking))

    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(os, "fchmod", refuses)
    id = local.put(b"data")
    for _ in range(2):
        local.get_to(id, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"data"


def test_a_target_may_take_less_than_it_is_given(local: Store) -> None:
    data = content(3_000_000)
    taken = bytearray()

    class Slow(io.RawIOBase):
        def write(self, piece: Any) -> int:
            taken.extend(piece[:100_000])
            return min(len(piece), 100_000)

    assert local.get_to(local.put(data), Slow()) == len(data)
    assert taken == data


def test_a_target_that_takes_nothing_loses_nothing_silently(local: Store) -> None:
    id = local.put(content(3_000_000))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with io.FileIO(reading), io.FileIO(writing, "w") as full, pytest.raises(BlockingIOError):
        local.get_to(id, full)


@pytest.mark.parametrize("count", [0, -1, 10_000_000])
def test_a_target_that_miscounts_is_told(local: Store, count: int) -> None:
    class Wrong(io.RawIOBase):
        def write(self, piece: Any) -> int:
            return count

    with pytest.raises(OSError, match=f"took {count} bytes"):
        local.get_to(local.put(content(3_000_000)), Wrong())


def test_a_target_need_not_count(local: Store) -> None:
    taken = bytearray()

    class Plain:
        def write(self, piece: memoryview) -> None:
            taken.extend(piece)

    assert local.get_to(local.put(b"data"), Plain()) == 4 and taken == b"data"


def test_the_list_is_lazy_complete_and_in_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graviton._store, "PAGE", 100)
    ids = {store.put(f"{number}".encode()) for number in range(210)}
    listed = store.list()
    assert next(listed).id in ids
    found = [blob.id for blob in store.list()]
    assert set(found) == ids and len(found) == 210 and list(store) == found
    assert sorted(found, key=lambda id: (id.algo, id.digest, id.size)) == found
    assert list(store.list(after=found[-1])) == []
    assert [blob.id for blob in store.list(after=found[199])] == found[200:]


def test_a_manifest_tiles_its_blob(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(300_000)
    id = store.put(data)
    manifest = store.manifest(id)
    entries = list(manifest)
    assert len(manifest) == len(entries) == store.stat(id).blocks > 10
    assert b"".join(data[entry.offset : entry.offset + entry.size] for entry in entries) == data
    for entry in entries:
        assert entry.key == BlobId.of(data[entry.offset : entry.offset + entry.size])
    monkeypatch.setattr(graviton.Manifest, "PAGE", 7)
    assert list(manifest) == entries
    assert list(manifest.starting(entries[3].offset + 1)) == entries[3:]
    assert list(store.manifest(store.put(b""))) == []
    assert id in repr(manifest)


def test_what_is_there(store: Store) -> None:
    id = store.put(b"here")
    assert id in store and str(id) in store and store.exists(id)
    for absent in [BlobId.of(b"absent"), "text", "\udc80", 5, None, b"bytes"]:
        assert absent not in store
    with pytest.raises(graviton.InvalidIdError):
        store.exists("text")
    stat = store.stat(id)
    assert (stat.id, stat.size, stat.blocks) == (id, 4, 1)
    assert stat.created_at.tzinfo is not None
    assert stat.chunker.startswith("fastcdc:")
    with pytest.raises(graviton.NotFoundError):
        store.stat(BlobId.of(b"absent"))
    stats = store.stats()
    assert (stats.blobs, stats.logical_bytes, stats.blocks) == (1, 4, 1)
    assert stats.dedup_ratio == 1.0


@pytest.mark.parametrize("call", ["get", "stat", "exists", "open", "manifest", "delete", "restore"])
def test_an_id_is_text_that_is_an_id(local: Store, call: str) -> None:
    method = getattr(local, call)
    for wrong in ["", "text", "blake3:00:5", f"blake3:{'A' * 64}:5"]:
        with pytest.raises(graviton.InvalidIdError):
            method(wrong)
    for wrong_type in [5, None, b"bytes", object()]:
        with pytest.raises(TypeError):
            method(wrong_type)


def test_a_blob_of_many_megabytes_comes_back_whole(local: Store) -> None:
    """The memory has a mapping of its own, on which advice is given."""
    data = os.urandom(1 << 20) * 34 + b"the end"
    id = local.put(data)
    assert local.get(id) == data
    assert local.read_range(id, 3, len(data)) == data[3:]
    with local.open(id, buffering=0) as file:
        assert file.read() == data
    assert asyncio.run(graviton.aio.Store(local).get(id)) == data
