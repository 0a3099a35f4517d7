"""``graviton://`` as a filesystem, modelled on fsspec's own suite, and libraries that read through it."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import graviton
import pytest
from conftest import Place, cluster
from fsspec.callbacks import Callback
from graviton import BlobId
from graviton.fsspec import GravitonFileSystem


@pytest.fixture
def fs(store: graviton.Store) -> Iterator[Any]:
    yield GravitonFileSystem(store=store)


# ---- How fsspec finds it


def test_it_is_registered(files: Place) -> None:
    assert fsspec.get_filesystem_class("graviton") is GravitonFileSystem
    with files.open() as store:
        id = store.put(b"hello")
    url = f"graviton://{id}"
    options: dict[str, Any] = {"path": str(files.path), **files.settings}
    opened: Any = fsspec.open(url, **options)
    with opened as file:
        assert file.read() == b"hello"
    fs, path = fsspec.core.url_to_fs(url, **options)
    assert (path, fs.info(path)["size"]) == (id, 5)
    assert fs.unstrip_protocol(path) == url
    assert fsspec.filesystem("graviton", **options) == fs


def test_it_opens_the_store_of_the_environment(files: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in files.environment().items():
        monkeypatch.setenv(name, value)
    with files.open() as store:
        id = store.put(b"hello")
    assert GravitonFileSystem().cat_file(id) == b"hello"


def test_settings_and_a_store_contradict_each_other(local: graviton.Store) -> None:
    with pytest.raises(graviton.ConfigError):
        GravitonFileSystem("somewhere", store=local)


def test_it_is_pickled(fs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    id = fs.pipe_file("new", b"hello")
    for name, value in zip(("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"), ("GRAVITON_TEST_S3_USER", "GRAVITON_TEST_S3_PASSWORD")):
        monkeypatch.setenv(name, os.environ.get(value, ""))
    for name, value in fs.store._place.settings.items():
        monkeypatch.setenv(name, value)
    other = pickle.loads(pickle.dumps(fs))
    assert other.cat_file(id) == b"hello"


def test_no_instance_is_handed_out_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(**options: Any) -> GravitonFileSystem:
        found: GravitonFileSystem = fsspec.filesystem("graviton", **options)
        return found

    path = str(tmp_path / "store")
    opened(path=path).store.close()
    assert opened(path=path).ls("") == []
    with graviton.open(path) as store:
        opened(store=store)
    with graviton.open(path) as store:
        assert opened(store=store).store is store and opened(store=store).ls("") == []
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found.append(opened(path="store"))
        assert found[-1].ls("") == []
        found[-1].pipe_file("new", name.encode())
    assert found[0] != found[1] and found[0].fsid != found[1].fsid
    assert found[1] == opened(path=str(tmp_path / "b/store")) and hash(found[1]) == hash(opened(path="store"))
    for name in ("c", "d"):
        monkeypatch.setenv("GRAVITON_FS_ROOT", str(tmp_path / name))
        assert opened().ls("") == []
        opened().pipe_file("new", name.encode())


def test_nothing_of_it_has_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = cluster(tmp_path / "store")
    settings: dict[str, Any] = {**place.settings}
    password, url = settings["minio_root_password"], settings["manifest_url"]
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "")
    fs = GravitonFileSystem(str(place.path), **place.settings)
    id = fs.pipe_file("new", b"hello")
    shown = repr([pickle.dumps(fs), fs.to_json(), fs.to_dict(), fs.storage_args, fs.storage_options, fs.fsid, fs])
    assert password not in shown and url not in shown and str(urlsplit(url).password) not in shown
    with pytest.raises(graviton.ConfigError):
        GravitonFileSystem.from_json(fs.to_json())
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    for other in (GravitonFileSystem.from_json(fs.to_json()), pickle.loads(pickle.dumps(fs))):
        assert other.cat_file(id) == b"hello" and other == fs


# ---- Metadata


def test_info_and_listings(fs: Any) -> None:
    assert fs.ls("") == []
    ids = sorted(fs.pipe_file("new", os.urandom(length)) for length in (0, 10, 20_000))
    assert fs.ls("", detail=False) == ids == fs.find("") == [info["name"] for info in fs.ls("graviton://")]
    info = fs.info(f"graviton://{ids[0]}")
    assert info["name"] == ids[0] and info["size"] == ids[0].size and info["type"] == "file"
    assert info["created"] == fs.created(ids[0]) == fs.modified(ids[0]) == fs.store.stat(ids[0]).created_at
    assert fs.ls(ids[0]) == [info]
    assert fs.info("")["type"] == "directory" and fs.isdir("") and not fs.isdir(ids[0])
    assert fs.size(ids[1]) == ids[1].size and fs.sizes(ids) == [id.size for id in ids]
    assert fs.isfile(ids[0]) and not fs.isfile("") and not fs.isfile("new")
    assert fs.du("") == sum(id.size for id in ids)
    assert fs.glob("blake3:*") == ids and fs.glob(f"*:{ids[2].size}") == [ids[2]]
    assert list(fs.walk("")) == [("", [], [str(id) for id in ids])]
    assert fs.ukey(ids[0]) == ids[0] and fs.checksum(ids[0]) != fs.checksum(ids[1])


def test_what_is_not_there(fs: Any) -> None:
    missing = BlobId.of(b"missing")
    assert fs.exists("") and not fs.exists(missing) and not fs.exists("nonsense")
    for path in (missing, "nonsense", "a/b"):
        for call in (fs.info, fs.ls, fs.cat_file, fs.open, fs.rm_file, fs.created, fs.size):
            with pytest.raises(FileNotFoundError):
                call(path)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(missing, 1, 2)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(BlobId("blake3:" + "0" * 64 + ":0"), 0, 2)


# ---- Reading

RANGES = [(None, None), (0, 10), (5, None), (None, 7), (-10, None), (-10, -5), (None, -5), (3, 3), (9, 3), (50_000, 99_999_999)]


def test_cat(fs: Any) -> None:
    data = os.urandom(100_000)
    id = fs.pipe_file("new", data)
    for start, end in [*RANGES, (99_999_999, None), (100_000, 100_001)]:
        assert fs.cat_file(id, start, end) == data[start:end], (start, end)
    assert fs.cat_ranges([id] * len(RANGES), [start for start, _ in RANGES], [end for _, end in RANGES]) == [
        data[start:end] for start, end in RANGES
    ]
    assert fs.cat_ranges([id, id], 5, 9) == [data[5:9]] * 2
    other = fs.pipe_file("new", b"other")
    assert fs.cat([id, other]) == {id: data, other: b"other"} and fs.cat(id) == data
    assert fs.head(id, 5) == data[:5] and fs.tail(id, 5) == data[-5:]
    assert fs.read_bytes(id, 1, 3) == data[1:3]

    found = fs.cat_ranges([id, BlobId.of(b"no")], [0, 0], [3, 3])
    assert found[0] == data[:3] and isinstance(found[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([id, BlobId.of(b"no")], [0, 0], [3, 3], on_error="raise")
    with pytest.raises(ValueError, match="as many"):
        fs.cat_ranges([id], [1, 2], [3])


def test_many_ranges_take_one_reader(local: graviton.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fs: Any = GravitonFileSystem(store=local)
    ids = [fs.pipe_file("new", bytes([number]) * 5) for number in range(4)]
    files: list[graviton.BlobReader] = []
    opened = local.open

    def open(id: str, *, buffering: int) -> Any:
        assert all(file.closed for file in files)
        files.append(opened(id, buffering=0))
        return files[-1]

    monkeypatch.setattr(local, "open", open)
    paths = [*ids, BlobId.of(b"no"), *(f"graviton://{id}" for id in reversed(ids))]
    found = fs.cat_ranges(paths, 1, 3)
    assert found[:4] == found[:4:-1] == [bytes([number]) * 2 for number in range(4)]
    assert isinstance(found[4], FileNotFoundError)
    assert len(files) == 4 and all(file.closed for file in files)


def test_files(fs: Any) -> None:
    data = os.urandom(100_000)
    id = fs.pipe_file("new", data)
    for block_size in (None, 1, 1000, 1 << 20):
        with fs.open(id, block_size=block_size) as file:
            assert (file.size, file.blob_id, file.path) == (len(data), id, id)
            assert file.readable() and file.seekable() and not file.writable()
            assert file.read(10) == data[:10] and file.tell() == 10
            assert file.seek(-10, 2) == len(data) - 10 and file.read() == data[-10:] and file.read(1) == b""
            assert file.seek(5) == 5 and file.peek(1)[:1] == data[5:6]
            buffer = bytearray(7)
            assert file.readinto(buffer) == 7 and buffer == data[5:12]
        assert file.closed
        with pytest.raises(ValueError):
            file.read()
    text = fs.pipe_file("new", "grün\nblau\n".encode())
    with fs.open(text, "r", encoding="utf-8") as lines:
        assert list(lines) == ["grün\n", "blau\n"]
    packed = fs.pipe_file("new", gzip.compress(data))
    with fs.open(packed, compression="gzip") as file:
        assert file.read() == data


def test_get(fs: Any, tmp_path: Path) -> None:
    ids = [fs.pipe_file("new", os.urandom(length)) for length in (10, 3_000_000)]
    seen: list[tuple[int | None, int]] = []

    class Told(Callback):  # type: ignore[misc]
        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
            seen.append((self.size, self.value))

    fs.get_file(ids[1], tmp_path / "deep/er/file", callback=Told())
    assert (tmp_path / "deep/er/file").read_bytes() == fs.cat_file(ids[1])
    assert seen[-1] == (3_000_000, 3_000_000) and len(seen) > 2
    fs.get(ids, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert (tmp_path / "b").read_bytes() == fs.cat_file(ids[1])
    file = io.BytesIO()
    fs.get_file(ids[0], file)
    assert file.getvalue() == fs.cat_file(ids[0])
    fs.get("", str(tmp_path / "all") + "/", recursive=True)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(ids)
    with pytest.raises(FileNotFoundError):
        fs.get_file(BlobId.of(b"no"), tmp_path / "no")
    assert not (tmp_path / "no").exists()


# ---- Writing


def test_a_written_file_says_what_it_became(fs: Any) -> None:
    with fs.open("new", "wb") as file:
        assert file.writable() and file.write(b"hello, ") == 7
        file.write(b"graviton")
        with pytest.raises(ValueError):
            _ = file.blob_id
        assert fs.ls("") == []
    assert file.blob_id == BlobId.of(b"hello, graviton") == file.receipt.id
    assert fs.cat_file(file.blob_id) == b"hello, graviton"
    with fs.open("graviton://", "w", encoding="utf-8") as text:
        text.write("grün")
        inner = text.buffer
    assert inner.blob_id == BlobId.of("grün".encode())
    with pytest.raises(ZeroDivisionError), fs.open("new", "wb") as file:
        file.write(b"lost")
        raise ZeroDivisionError
    assert not fs.exists(BlobId.of(b"lost"))


def test_a_path_cannot_be_chosen(fs: Any, tmp_path: Path) -> None:
    id = BlobId.of(b"hello")
    with pytest.raises(ValueError, match="the content decides the name"):
        fs.open("table.parquet", "wb")
    with pytest.raises(ValueError, match="the content decides the name"):
        fs.pipe_file("name", b"hello")
    assert fs.pipe_file(id, b"hello") == id
    with pytest.raises(graviton.DigestMismatchError), fs.open(id, "wb") as file:
        file.write(b"other")
    assert not fs.exists(BlobId.of(b"other"))
    calls: list[Callable[[], object]] = [
        lambda: fs.open(id, "ab"),
        lambda: fs.open(id, "r+b"),
        lambda: fs.mv(id, "new"),
        lambda: fs.mkdir("folder"),
        lambda: fs.makedirs("folder"),
        lambda: fs.touch(id),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError):
            call()
    fs.makedirs("", exist_ok=True)
    fs.cp_file(id, id)
    with pytest.raises(ValueError):
        fs.cp_file(id, BlobId.of(b"another"))


def test_put_and_pipe(fs: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    assert fs.put_file(tmp_path / "file", "new") == BlobId.of(b"from a file")
    fs.put(str(tmp_path / "file"), "new")
    fs.pipe("new", b"piped")
    fs.pipe({"new": b"piped too"})
    assert {fs.cat_file(path) for path in fs.ls("", detail=False)} == {b"from a file", b"piped", b"piped too"}


def test_stored_is_told_every_id(local: graviton.Store, tmp_path: Path) -> None:
    import pandas

    ids: list[BlobId] = []
    options = {"store": local, "stored": ids.append}
    fs = fsspec.filesystem("graviton", **options)
    (tmp_path / "file").write_bytes(b"from a file")
    fs.put_file(tmp_path / "file", "new")
    fs.pipe("new", b"piped")
    assert ids == [BlobId.of(b"from a file"), BlobId.of(b"piped")]
    with fs.transaction:
        with fs.open("new", "wb") as file:
            file.write(b"later")
        assert len(ids) == 2
    assert ids.pop() == BlobId.of(b"later")
    with pytest.raises(ZeroDivisionError), fs.open("new", "wb") as file:
        raise ZeroDivisionError
    assert len(ids) == 2
    frame = pandas.DataFrame({"number": range(10)})
    frame.to_csv("graviton://new", index=False, storage_options=options)
    frame.to_parquet("graviton://new", storage_options=options)
    assert len(ids) == 4 and len(set(ids)) == 4
    assert frame.equals(pandas.read_csv(f"graviton://{ids[2]}", storage_options={"store": local}))
    assert frame.equals(pandas.read_parquet(f"graviton://{ids[3]}", storage_options={"store": local}))


def test_transactions(fs: Any) -> None:
    with fs.transaction:
        with fs.open("new", "wb") as file:
            file.write(b"later")
        assert fs.ls("") == []
    assert file.blob_id == BlobId.of(b"later") and fs.exists(file.blob_id)
    with pytest.raises(ZeroDivisionError), fs.transaction:
        with fs.open("new", "wb") as file:
            file.write(b"never")
        raise ZeroDivisionError
    assert not fs.exists(BlobId.of(b"never"))


def test_transactions_hold_everything_that_writes(fs: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file" * 300_000)
    (tmp_path / "other").write_bytes(b"from another")
    ids: list[BlobId] = []
    fs.stored = ids.append

    def write() -> None:
        fs.pipe("new", b"piped")
        fs.pipe({"new": b"piped too"})
        fs.pipe_file("new", b"piped alone")
        fs.put(str(tmp_path / "file"), "new")
        fs.put_file(tmp_path / "other", "new")
        assert fs.ls("") == [] and ids == []

    with pytest.raises(ZeroDivisionError), fs.transaction:
        write()
        raise ZeroDivisionError
    assert fs.ls("") == [] and ids == []
    with fs.transaction:
        write()
    assert len(ids) == 5 and set(ids) == set(fs.ls("", detail=False))
    assert fs.cat_file(BlobId.of(b"from a file" * 300_000)) == b"from a file" * 300_000


def test_reading_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAVITON_FS_ROOT", raising=False)
    id = BlobId.of(b"hello")
    for options in ({}, {"path": "named"}):
        fs = fsspec.filesystem("graviton", **options)
        assert fs.ls("") == [] and not fs.exists(id) and not fs.isfile(id)
        for use in ("cat_file", "info", "open", "rm_file"):
            with pytest.raises(FileNotFoundError):
                getattr(fs, use)(id)
        again = pickle.loads(pickle.dumps(fs))
        assert again == fs and again.ls("") == [] and os.listdir(tmp_path) == []
        assert fs.pipe_file("new", b"hello") == id
        assert fs.cat_file(id) == b"hello" and again.cat_file(id) == b"hello" and fs == again
        for made in os.listdir(tmp_path):
            shutil.rmtree(made)
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem("graviton", path="named", create=False)
    assert fsspec.filesystem("graviton", path="named", create=True).ls("") == [] and os.listdir(tmp_path) == ["named"]


def test_a_store_that_does_not_exist_yet_keeps_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = cluster(tmp_path / "store")
    fs = GravitonFileSystem(str(place.path), **place.settings)
    other = GravitonFileSystem(str(tmp_path / "store"))
    assert fs != other and fs.ls("") == []
    settings: dict[str, Any] = {**place.settings}
    password, url = settings["minio_root_password"], settings["manifest_url"]
    shown = repr([pickle.dumps(fs), fs.to_json(), fs.storage_options, fs.fsid])
    assert password not in shown and url not in shown
    with pytest.raises(graviton.ConfigError):
        GravitonFileSystem.from_json(fs.to_json())
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    again = pickle.loads(pickle.dumps(fs))
    id = again.pipe_file("new", b"hello")
    assert again == fs and fs.cat_file(id) == b"hello" and not other.exists(id)
    assert not (tmp_path / "store" / "manifests.db").exists()


def test_rm(fs: Any) -> None:
    ids = [fs.pipe_file("new", bytes([number])) for number in range(4)]
    fs.rm_file(ids[0])
    fs.rm([ids[1], ids[2]])
    assert fs.ls("", detail=False) == [ids[3]]
    fs.store.restore(ids[0])
    assert fs.exists(ids[0])
    with pytest.raises(FileNotFoundError):
        fs.rm_file(ids[1])


# ---- Libraries that read through it


def test_pandas_and_pyarrow_read_a_parquet_file(local: graviton.Store) -> None:
    import pandas
    import pyarrow.parquet as parquet

    fs: Any = GravitonFileSystem(store=local)
    frame = pandas.DataFrame({"number": range(50_000), "text": [f"row {number % 97}" for number in range(50_000)]})
    with fs.open("new", "wb") as file:
        frame.to_parquet(file, row_group_size=5_000)
    id = file.blob_id
    assert frame.equals(pandas.read_parquet(f"graviton://{id}", storage_options={"store": local}))
    assert frame.equals(pandas.read_parquet(f"graviton://{id}", filesystem=fs, engine="pyarrow"))
    table = parquet.read_table(id, filesystem=fs, columns=["number"], filters=[("number", ">=", 49_000)])
    assert table.column("number").to_pylist() == list(range(49_000, 50_000))
    with fs.open(id) as source:
        assert parquet.ParquetFile(source).read_row_group(3).column("number")[0].as_py() == 15_000
    csv = fs.pipe_file("new", frame.to_csv(index=False).encode())
    assert frame.equals(pandas.read_csv(f"graviton://{csv}", storage_options={"store": local}))


def test_h5py_reads_an_array(local: graviton.Store) -> None:
    import h5py
    import numpy

    fs: Any = GravitonFileSystem(store=local)
    array = numpy.random.default_rng(1).random((300, 400))
    file = io.BytesIO()
    with h5py.File(file, "w") as written:
        written.create_dataset("array", data=array, chunks=(50, 50), compression="gzip")
    id = fs.pipe_file("new", file.getvalue())
    with fs.open(id) as source, h5py.File(source, "r") as read:
        stored: Any = read["array"]
        assert numpy.array_equal(stored[120:180, 70:310], array[120:180, 70:310])
        assert numpy.array_equal(stored[...], array)
