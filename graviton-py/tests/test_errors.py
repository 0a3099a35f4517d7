"""The exceptions."""

from __future__ import annotations

import asyncio
import builtins
import copy
import errno
import io
import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import graviton
import graviton.aio
import pytest
from graviton import BlobId, GravitonError, Store, _errors, _graviton

CLASSES = [getattr(graviton, name) for _, name, _ in _graviton.CODES]

BASES: dict[str, type[Exception]] = {
    "NotFoundError": FileNotFoundError,
    "TimeoutError": builtins.TimeoutError,
    "ForbiddenError": PermissionError,
    "UnauthorizedError": PermissionError,
    "InvalidArgumentError": ValueError,
    "InvalidIdError": ValueError,
    "RangeError": ValueError,
    "ClosedError": ValueError,
    "ConfigError": ValueError,
    "CorruptBlockError": graviton.IntegrityError,
    "MissingBlockError": graviton.IntegrityError,
    "DigestMismatchError": graviton.IntegrityError,
    "CorruptDatabaseError": graviton.IntegrityError,
    "IoError": OSError,
    "NoSpaceError": OSError,
    "QuotaExceededError": OSError,
    "BackendUnavailableError": ConnectionError,
}


def test_every_code_has_a_class_that_is_exported_and_documented() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES) == len(_graviton.CODES)
    for code, name, retryable in _graviton.CODES:
        cls = getattr(graviton, name)
        assert issubclass(cls, GravitonError) and (cls.code, cls.retryable) == (code, retryable)
        assert (name in graviton.__all__) != hasattr(builtins, name) and cls.__doc__ and cls.__module__ == "graviton"
        assert issubclass(cls, BASES.get(name, GravitonError))
    assert {cls.__name__ for cls in CLASSES} | {"GravitonError", "IntegrityError"} == set(_errors.__all__)


@pytest.mark.parametrize("code", [code for code, _, _ in _graviton.CODES])
def test_all_of_an_exception_survives_pickling(code: str) -> None:
    error = _errors.make(code, "it was tried, and failed", "do it again", None)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error) and str(again) == str(error) == "it was tried, and failed"
        assert (again.code, again.advice, again.errno) == (code, "do it again", error.errno)
        assert again.__notes__ == ["do it again"]
    shown = "".join(traceback.format_exception(error))
    assert "it was tried, and failed" in shown and "do it again" in shown
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        assert error.errno is not None


def test_the_system_says_why(local: Store, tmp_path: Path) -> None:
    with pytest.raises(graviton.NotFoundError) as missing:
        local.put_file(tmp_path / "missing")
    assert missing.value.errno == errno.ENOENT and missing.value.advice
    assert isinstance(missing.value.__cause__, OSError) and missing.value.__cause__.errno == errno.ENOENT


def test_a_damaged_block_is_told_and_not_handed_out(local: Store, tmp_path: Path) -> None:
    id = local.put(b"precious")
    (block,) = (tmp_path / "store" / "cas" / "blocks" / "blake3").iterdir()
    block.chmod(0o600)
    block.write_bytes(b"Precious")
    with pytest.raises(graviton.CorruptBlockError) as corrupt:
        local.get(id)
    assert isinstance(corrupt.value, graviton.IntegrityError) and not isinstance(corrupt.value, RuntimeError)
    with local.open(id) as file, pytest.raises(graviton.IntegrityError):
        file.read()
    with local.open(id, buffering=0) as raw, pytest.raises(graviton.IntegrityError):
        raw.readinto(bytearray(8))
    block.unlink()
    with pytest.raises(graviton.MissingBlockError):
        local.get_into(id, bytearray(8))
    report = local.verify()
    assert not report.clean and report.missing == 1
    (finding,) = report.findings
    assert finding.is_damage and finding.blobs == (id,) and "missing" in str(finding)


def test_everything_of_a_closed_store_says_so(local: Store) -> None:
    id = local.put(b"x")
    file = local.open(id)
    local.close()
    local.close()
    assert local.closed and "closed" in repr(local)
    for call in (local.get, local.stat, local.exists, local.open, local.delete):
        with pytest.raises(graviton.ClosedError):
            call(id)
    for use in (local.stats, local.gc, local.verify, local.writer, lambda: local.put(b"y"), lambda: list(local.list())):
        with pytest.raises(graviton.ClosedError):
            use()
    file.close()


def test_arguments_that_make_no_sense(local: Store) -> None:
    id = local.put(b"data")
    with local.open(id, buffering=0) as reader:
        calls: list[Callable[[], object]] = [
            lambda: local.gc(grace=-1),
            lambda: local.gc(grace=float("nan")),
            lambda: local.gc(max_time=timedelta(seconds=-1)),
            lambda: local.gc(max_time=float("inf")),
            lambda: local.gc(max_blocks=-1),
            lambda: local.gc(max_bytes=-1),
            lambda: local.gc(blocks_per_second=-1),
            lambda: local.verify(bytes_per_second=-1),
            lambda: list(local.manifest(id).starting(-1)),
            lambda: reader.seek(1 << 70),
            lambda: reader.seek(-(1 << 70), 2),
            lambda: reader.seek(0, 300),
            lambda: reader.seek(0, -1),
        ]
        for call in calls:
            with pytest.raises(graviton.InvalidArgumentError) as wrong:
                call()
            assert "Some" not in str(wrong.value)
        assert reader.read(1 << 70) == b"data"
    local.gc(max_blocks=1 << 70, max_bytes=1 << 70, blocks_per_second=1 << 70)
    assert list(local.manifest(id).starting(1 << 70)) == []
    odd: Any = object()
    calls = [
        lambda: local.put_many(__file__),
        lambda: asyncio.run(graviton.aio.Store(local).put_many(__file__)),
        lambda: local.put(b"data", progress=odd),
        lambda: local.put_file(__file__, progress=odd),
        lambda: local.gc(grace=odd),
        lambda: local.verify(found=odd),
        lambda: local.copy_from(odd),
        lambda: local.repair_from(odd),
        lambda: asyncio.run(graviton.aio.Store(local).copy_from(odd)),
        lambda: asyncio.run(graviton.aio.Store(local).verify(found=odd)),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="not object|give an iterable"):
            call()


@pytest.mark.parametrize("half", ["\ud800", "\udcff", "blake3:\udcff"])
def test_text_that_is_not_unicode_is_no_id(local: Store, half: str) -> None:
    calls: list[Callable[[str], object]] = [
        local.get, local.open, local.stat, local.exists, local.delete, local.restore, local.manifest,
        lambda id: local.get_into(id, bytearray(5)), lambda id: local.get_to(id, io.BytesIO()),
        lambda id: local.read_range(id, 0, 1), lambda id: list(local.list(after=id)), lambda id: local.verify([id]),
        lambda id: local.put(b"", expect=id), lambda id: local.writer(expect=id), lambda id: local.copy_from(local, [id]),
        lambda id: local.put_file(__file__, expect=id),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(graviton.InvalidIdError):
            call(half)
    assert half not in local
    with pytest.raises(graviton.InvalidArgumentError):
        local.verify(cursor=half)
    with pytest.raises(graviton.GravitonError):
        BlobId.of(b"", half)
    with pytest.raises(graviton.ConfigError):
        graviton.open("store", s3_region=half)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_path_that_no_file_can_have(local: Store, name: str) -> None:
    asynchronous = graviton.aio.Store(local)
    id = local.put(b"data")
    calls: list[Callable[[], object]] = [
        lambda: graviton.open(name),
        lambda: local.put_file(name),
        lambda: local.put(Path(name)),
        lambda: local.put_file(name, progress=lambda done, total: None),
        lambda: local.put_many([name]),
        lambda: local.get_to(id, name),
        lambda: local.backup(name),
        lambda: asyncio.run(asynchronous.put_file(name)),
        lambda: asyncio.run(asynchronous.put_file(name, progress=lambda done, total: None)),
        lambda: asyncio.run(asynchronous.put_many([name])),
        lambda: asyncio.run(asynchronous.get_to(id, name)),
        lambda: asyncio.run(asynchronous.backup(name)),
    ]
    for call in calls:
        with pytest.raises(graviton.InvalidArgumentError, match="no file is called"):
            call()


def test_a_path_need_not_be_unicode(local: Store, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    id = local.put(b"data")
    assert local.get_to(id, name) == 4 and local.put_file(name) == id
    with graviton.open(name + "-store") as other:
        assert other.put(b"data") == id


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(FileNotFoundError):
            graviton.open(tmp_path / "missing", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "missing").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(graviton.ConfigError):
        graviton.open(tmp_path / "file")
    # The kernel reports that a part of this path is missing, even if all of it exists.
    with pytest.raises(graviton.NotFoundError, match="/proc/store"):
        graviton.open("/proc/store")


def test_a_file_that_cannot_be_written_is_named(local: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        local.get_to(local.put(b"data"), tmp_path / "missing" / "file")
    assert missing.value.filename == str(tmp_path / "missing" / "file")


def test_errors_about_files_name_them(store: Store, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for call in (lambda: store.put_file(missing), lambda: store.put_many([missing]), lambda: store.put(missing)):
        with pytest.raises(FileNotFoundError) as refused:
            call()
        error = refused.value
        assert (error.filename, error.errno, error.strerror) == (str(missing), errno.ENOENT, os.strerror(errno.ENOENT))
        again = pickle.loads(pickle.dumps(error))
        assert again.filename == str(missing)
        # The text is our own, as before.
        assert str(error).startswith("cannot read ")
    with pytest.raises(GravitonError) as other:
        store.get("blake3:no")
    assert other.value.filename is None
    with pytest.raises(GravitonError) as unwritable:
        graviton.open("/proc/nowhere/store")
    assert unwritable.value.filename == "/proc/nowhere"
