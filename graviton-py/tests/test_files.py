"""Readers and writers as binary files, and the standard library on top of them."""

from __future__ import annotations

import csv
import errno
import gc
import gzip
import io
import os
import pickle
import random
import shutil
import sqlite3
import tarfile
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import graviton
import numpy as np
import pytest
from graviton import BlobId, BlobReader, BlobWriter, Store
from PIL import Image


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_reader_does_what_a_file_does(store: Store, tmp_path: Path) -> None:
    data = content(100_000)
    (tmp_path / "file").write_bytes(data)
    id = store.put(data)
    chosen = random.Random(2)
    for buffering in (0, 100, 65536):
        with store.open(id, buffering=buffering) as ours, (tmp_path / "file").open("rb") as theirs:
            for _ in range(300):
                step = chosen.randrange(6)
                size = chosen.choice([0, 1, 10, 1000, 50_000])
                if step == 0:
                    target = chosen.randrange(120_000)
                    assert ours.seek(target) == theirs.seek(target)
                elif step == 1:
                    back = -chosen.randrange(len(data))
                    assert ours.seek(back, os.SEEK_END) == theirs.seek(back, os.SEEK_END)
                elif step == 2:
                    assert ours.seek(size, os.SEEK_CUR) == theirs.seek(size, os.SEEK_CUR)
                elif step == 3:
                    one, two = bytearray(size), bytearray(size)
                    assert ours.readinto(one) == theirs.readinto(two)
                    assert one == two
                elif step == 4:
                    assert ours.readline(size) == theirs.readline(size)
                else:
                    assert ours.read(size) == theirs.read(size)
                assert ours.tell() == theirs.tell()
            ours.seek(0)
            assert ours.read() == data and ours.read() == b""


def test_what_a_reader_says_of_itself(local: Store) -> None:
    id = local.put(b"hello")
    raw = local.open(id, buffering=0)
    assert isinstance(raw, BlobReader) and isinstance(raw, io.RawIOBase)
    assert (raw.id, raw.name, raw.size, raw.mode) == (id, str(id), 5, "rb")
    assert raw.readable() and raw.seekable() and not raw.writable() and id in repr(raw)
    for offset, whence in ((-1, 0), (-6, 2), (-1, 1), (0, 3)):
        with pytest.raises(ValueError):
            raw.seek(offset, whence)
    # Like a file of the standard library, for code that looks for the start.
    for offset, whence in ((-1, 0), (-6, 2), (-1, 1)):
        with pytest.raises(OSError) as refused:
            raw.seek(offset, whence)
        assert refused.value.errno == errno.EINVAL and refused.value.strerror == os.strerror(errno.EINVAL)
    assert not zipfile.is_zipfile(raw)
    with pytest.raises(io.UnsupportedOperation):
        raw.write(b"x")
    raw.close()
    raw.close()
    assert raw.closed and "closed" in repr(raw)
    for use in (raw.read, raw.tell, raw.readable, raw.seekable, lambda: raw.seek(0), lambda: raw.readinto(bytearray(1))):
        with pytest.raises(ValueError):
            use()
    buffered = local.open(id)
    assert isinstance(buffered, io.BufferedReader) and buffered.peek(1)[:1] == b"h" and list(buffered) == [b"hello"]
    buffered.close()


def test_a_reader_goes_on_when_its_blob_is_deleted(store: Store) -> None:
    data = content(500_000)
    id = store.put(data)
    with store.open(id, buffering=0) as file:
        assert file.read(10) == data[:10]
        store.delete(id)
        assert file.read() == data[10:]


def test_a_writer_commits_at_the_end_of_a_clean_with(store: Store) -> None:
    data = content(300_000)
    with store.writer() as writer:
        assert isinstance(writer, io.BufferedIOBase) and writer.writable() and not writer.readable()
        assert writer.tell() == 0 and writer.write(data[:100_000]) == 100_000 and writer.tell() == 100_000
        with pytest.raises(ValueError):
            _ = writer.id
        writer.writelines([data[100_000:200_000], bytearray(data[200_000:])])
        writer.flush()
        assert BlobId.of(data) not in store
        with pytest.raises(io.UnsupportedOperation):
            writer.seek(0)
        with pytest.raises(io.UnsupportedOperation):
            writer.read()
    assert writer.id == BlobId.of(data) and writer.receipt.created and writer.closed and writer.id in repr(writer)
    assert store.get(writer.id) == data
    for use in (lambda: writer.write(b"x"), writer.flush, writer.tell, writer.writable):
        with pytest.raises(ValueError):
            use()
    writer.close()
    with pytest.raises(ValueError), writer:
        pass


def test_a_writer_without_with_commits_when_it_is_closed(local: Store) -> None:
    writer = local.writer()
    writer.write(b"data")
    writer.close()
    assert local.get(writer.id) == b"data"
    assert local.get(local.put(b"")) == b""


def test_an_exception_aborts_a_writer(store: Store) -> None:
    with pytest.raises(KeyError), store.writer() as writer:
        writer.write(content(300_000))
        raise KeyError
    assert writer.closed and "aborted" in repr(writer)
    with pytest.raises(graviton.ClosedError):
        _ = writer.id
    other = store.writer()
    other.write(b"data")
    other.abort()
    other.close()
    assert store.stats().blobs == 0


@pytest.mark.parametrize("wrap", [io.TextIOWrapper, lambda writer: io.TextIOWrapper(io.BufferedWriter(writer))])
def test_what_wraps_a_writer_does_not_store_it_after_an_exception(local: Store, wrap: Any) -> None:
    with pytest.raises(KeyError), local.writer() as writer, wrap(writer) as text:
        text.write("partial")
        raise KeyError
    assert local.stats().blobs == 0 and writer.closed and "aborted" in repr(writer)
    with local.writer() as writer, wrap(writer) as text:
        text.write("whole")
    assert local.get(writer.id) == b"whole"


def test_closing_a_writer_inside_of_with_ends_the_writing(local: Store) -> None:
    with local.writer() as writer:
        writer.write(b"data")
        with writer:
            pass
        writer.close()
        assert writer.closed and BlobId.of(b"data") not in local
        for use in (lambda: writer.write(b"x"), writer.flush, writer.tell, lambda: writer.id):
            with pytest.raises(ValueError):
                use()
    assert local.get(writer.id) == b"data"


def test_a_handler_that_raises_what_a_refusal_does_aborts(local: Store) -> None:
    """The engine writes a part, and is interrupted."""
    for failure in (TypeError, BufferError):
        writer = local.writer()
        engine = writer._writer

        class Interrupted:
            def write(self, data: bytes) -> int:
                assert engine is not None
                engine.write(data[:1])
                raise failure  # noqa: B023

            def abort(self) -> None:
                assert engine is not None
                engine.abort()

        writer._writer = Interrupted()  # type: ignore[assignment]
        with pytest.raises(failure):
            writer.write(b"data")
        assert writer.closed
        with pytest.raises(graviton.ClosedError):
            writer.write(b"more")
    assert local.stats().blobs == 0


def test_a_write_that_is_refused_takes_nothing(local: Store) -> None:
    with local.writer() as writer:
        writer.write(b"one")
        for wrong in ("text", 5, None, [b"x"]):
            with pytest.raises(TypeError):
                writer.write(wrong)  # type: ignore[arg-type]
        with pytest.raises(BufferError):
            writer.write(memoryview(b"abcdef")[::2])
        with pytest.raises(TypeError):
            writer.write(np.array([object()], dtype=object))  # type: ignore[arg-type]
        writer.write(b"two")
    assert local.get(writer.id) == b"onetwo"


def test_a_failed_write_is_never_committed(local: Store) -> None:
    with pytest.raises(graviton.ClosedError, match="nothing was stored"), local.writer() as writer:
        writer.write(b"data")
        local.close()
        with pytest.raises(graviton.GravitonError):
            writer.write(content(100 << 20))
    assert writer.closed


def test_a_forgotten_writer_warns_and_leaves_nothing(local: Store) -> None:
    writer: BlobWriter | None = local.writer()
    assert writer is not None
    writer.write(b"data")
    with pytest.warns(ResourceWarning, match="unclosed"):
        writer = None
        gc.collect()
    assert local.stats().blobs == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done: BlobWriter | None = local.writer()
        assert done is not None
        done.close()
        reader: Any = local.open(done.id)
        del done, reader
        gc.collect()


def test_files_keep_their_store_alive(local: Store, tmp_path: Path) -> None:
    store = graviton.open(tmp_path / "another")
    reader, writer = store.open(store.put(b"data")), store.writer()
    del store
    gc.collect()
    assert reader.read() == b"data"
    with writer:
        writer.write(b"more")
    reader.close()


def test_one_reader_and_one_writer_may_be_used_by_many_threads(store: Store) -> None:
    data = content(2_000_000)
    id = store.put(data)
    pieces: list[bytes] = []
    with store.open(id, buffering=0) as reader, store.writer() as writer:

        def work() -> None:
            while piece := reader.read(10_000):
                pieces.append(piece)
                writer.write(b"x" * 1000)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(pieces) == sorted(data[at : at + 10_000] for at in range(0, len(data), 10_000))
    assert store.get(writer.id) == b"x" * 1000 * len(pieces)


# ---- The standard library, and others


def test_tarfile(store: Store) -> None:
    files = {f"{number}.bin": content(number * 5000, number) for number in range(20)}
    for mode in ("w", "w:gz", "w|"):
        with store.writer() as writer:
            with tarfile.open(mode=mode, fileobj=writer) as archive:
                for name, data in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        for read_mode in ("r", "r|*"):
            with store.open(writer.id) as file, tarfile.open(mode=read_mode, fileobj=file) as archive:
                found = {}
                for info in archive:
                    member = archive.extractfile(info)
                    assert member is not None
                    found[info.name] = member.read()
                assert found == files


def test_zipfile(store: Store) -> None:
    files = {f"{number}.bin": content(number * 5000, number) for number in range(20)}
    with store.writer() as writer, zipfile.ZipFile(writer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    for buffering in (0, 65536):
        with store.open(writer.id, buffering=buffering) as file, zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == files


def test_gzip_pickle_csv_and_text(store: Store) -> None:
    data = content(200_000)
    with store.writer() as writer, gzip.open(writer, "wb") as packed:
        packed.write(data)
    with store.open(writer.id) as file, gzip.open(file) as unpacked:
        assert unpacked.read() == data

    value = {"numbers": list(range(1000)), "bytes": data}
    with store.writer() as writer:
        pickle.dump(value, writer)
    with store.open(writer.id) as file:
        assert pickle.load(file) == value

    rows = [[str(number), "a,b", "é\n"] for number in range(1000)]
    with store.writer() as writer, io.TextIOWrapper(writer, "utf-8", newline="") as text:
        csv.writer(text).writerows(rows)
    with store.open(writer.id) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        assert list(csv.reader(text)) == rows


def test_shutil_in_both_directions(store: Store, tmp_path: Path) -> None:
    data = content(3_000_000)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as source, store.writer() as writer:
        shutil.copyfileobj(source, writer)
    with store.open(writer.id) as stored, (tmp_path / "out").open("wb") as target:
        shutil.copyfileobj(stored, target)
    assert (tmp_path / "out").read_bytes() == data


def test_a_database_in_a_blob(store: Store) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (x)")
    database.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(10_000)])
    database.commit()
    id = store.put(database.serialize())
    database.close()
    again = sqlite3.connect(":memory:")
    again.deserialize(store.get(id))
    assert again.execute("SELECT sum(x), ? FROM t", (id,)).fetchone() == (sum(range(10_000)), id)
    again.close()


def test_images_and_arrays(store: Store) -> None:
    with store.writer() as writer, Image.new("RGB", (300, 200), (1, 2, 3)) as image:
        image.save(writer, "PNG")
    with store.open(writer.id) as file, Image.open(file) as image:
        assert image.getpixel((5, 5)) == (1, 2, 3)
    array = np.arange(100_000, dtype=np.float64)
    with store.writer() as writer:
        np.save(writer, array)
    with store.open(writer.id) as file:
        assert np.array_equal(np.load(file), array)
