"""Deleting, collecting, verifying, repairing, copying, and the progress and logs of these calls."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import graviton
import graviton.aio
import pytest
from conftest import Place
from graviton import BlobId, Finding, Store


class Boom(Exception):
    pass


def test_what_is_deleted_comes_back_or_goes(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    id = store.put(b"x" * 100_000)
    store.delete(id)
    assert id not in store and store.stats().dead_blobs == 1
    with pytest.raises(graviton.NotFoundError):
        store.delete(id)
    store.restore(id)
    assert store.get(id) == b"x" * 100_000
    store.delete(id)
    with caplog.at_level(logging.INFO, "graviton"):
        plan = store.gc(grace=timedelta(0), dry_run=True)
        assert (plan.dry_run, plan.named, plan.blobs) == (True, (id,), 1) and plan.blocks > 0
        assert store.gc().blobs == 0
        report = store.gc(grace=0, max_time=60.0, max_blocks=1_000_000, max_bytes=1 << 40, blocks_per_second=1_000_000)
    assert (report.blobs, report.blocks, report.bytes, report.complete) == (1, plan.blocks, plan.bytes, True)
    assert any("collected 1 blobs" in record.getMessage() for record in caplog.records)
    assert store.stats().blocks == 0
    with pytest.raises(graviton.NotFoundError):
        store.restore(id)
    for wrong in (-1, float("nan"), float("inf"), timedelta(-1)):
        with pytest.raises(graviton.InvalidArgumentError):
            store.gc(grace=wrong)


def test_what_an_aborted_put_leaves_is_planned_and_freed(store: Store) -> None:
    def aborted(megabytes: int) -> None:
        with pytest.raises(Boom), store.writer() as file:
            for _ in range(megabytes):
                file.write(os.urandom(1_000_000))
            raise Boom

    # A put may end before any of its blocks was sent, unless it is longer than a writer's window.
    megabytes = 5
    while store.gc(grace=0, dry_run=True).bytes == 0:
        aborted(megabytes)
        megabytes *= 2
    id = store.put(os.urandom(30_000))
    store.delete(id)
    # A put ends before the last step of its abort, so the plan grows until all of them have ended.
    plan, since = store.gc(grace=0, dry_run=True), time.monotonic()
    while time.monotonic() - since < 5:
        time.sleep(0.2)
        again = store.gc(grace=0, dry_run=True)
        if again.bytes != plan.bytes:
            plan, since = again, time.monotonic()
    # The plan has every announced block, written or not; written blocks are reclaimable.
    assert 30_000 <= store.stats().reclaimable_bytes <= plan.bytes
    assert plan.bytes > 30_000
    assert 30_000 <= store.gc(grace=0).bytes <= plan.bytes
    # The share of its directory does not go down.
    found = store.stats()
    nothing = graviton.StoreStats(0, 0, 0, 0, 0, 0, 0, 0, found.directory_share, 0, 0, 0, 0, 0, 0, 0, 0)
    assert found == nothing


def test_verification_finds_repair_mends_and_both_are_logged(
    files: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with files.open() as store, graviton.open(tmp_path / "mirror") as mirror:
        ids = [store.put(bytes([number]) * 5000) for number in range(10)]
        assert mirror.copy_from(store).blobs == 10
        assert mirror.copy_from(store, ids[:3]).present == 3
        blocks = files.path / "cas" / "blocks" / "blake3"
        for number, path in enumerate(sorted(blocks.iterdir())[:4]):
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:-1] + b"?") if number % 2 else path.unlink()
        caplog.set_level(logging.INFO, "graviton")
        found: list[Finding] = []
        report = store.verify(deep=True, found=found.append)
        assert not report.clean and (report.missing, report.corrupt, report.findings) == (2, 2, ())
        hurt = {id for finding in found for id in finding.blobs}
        assert len(found) == 4 and hurt <= set(ids) and all(isinstance(id, BlobId) for id in hurt)
        assert sum(record.levelno == logging.WARNING for record in caplog.records) == 4
        assert not store.verify(iter(hurt), deep=True).clean
        assert store.verify([id for id in ids if id not in hurt]).clean
        mended = store.repair_from(mirror)
        assert (mended.repaired, mended.lost, mended.complete) == (4, (), True)
        assert store.verify(deep=True).clean and all(store.get(id) for id in ids)
        assert any("repaired 4" in record.getMessage() for record in caplog.records)
        with pytest.raises(TypeError):
            store.verify(ids[0])


def test_blocks_are_rebuilt_from_packs_that_a_restored_database_does_not_know(tmp_path: Path) -> None:
    data, database = os.urandom(10_000), tmp_path / "manifests.db"

    def packs() -> list[Path]:
        return list((tmp_path / "cas" / "blocks-packs").iterdir())

    with graviton.open(tmp_path, block_layout="packs") as store:
        receipt = store.put_receipt(data)
        assert receipt.fresh_stored_bytes == receipt.fresh_bytes == 10_000
        id = receipt.id
    backup = database.read_bytes()
    packs()[0].unlink()
    with graviton.open(tmp_path, block_layout="packs") as store:
        assert store.put_receipt(data).fresh_blocks == 1
    database.write_bytes(backup)
    with graviton.open(tmp_path) as store:
        assert store.verify().missing == 1
        report = store.verify(rebuild=True, adopt=True)
        assert report.clean and (report.rebuilt, report.rebuilt_bytes, report.unusable) == (1, 10_000, 0)
        assert [finding.kind for finding in report.findings] == ["pack"]
        assert store.get(id) == data
        assert store.stats().packs == 2 and store.stats().unknown_packs == 0


def test_between_stores_of_both_kinds(store: Store, tmp_path: Path) -> None:
    ids = [store.put(bytes([number]) * 50_000) for number in range(5)]
    with graviton.open(tmp_path / "mirror") as mirror:
        done: list[int] = []
        report = mirror.copy_from(store, progress=lambda bytes, total: done.append(bytes))
        assert (report.blobs, report.damaged, report.complete) == (5, (), True)
        assert done == sorted(done) and done[-1] == report.bytes
        assert [mirror.get(id) for id in ids] == [store.get(id) for id in ids]
        assert store.repair_from(mirror).repaired == 0


def test_a_backup_is_a_database(files: Place, tmp_path: Path) -> None:
    with files.open() as store:
        store.put(b"data")
        store.backup(tmp_path / "backup")
        with pytest.raises(graviton.GravitonError):
            store.backup(tmp_path / "backup")
    database = sqlite3.connect(tmp_path / "backup")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_backup_takes_over_only_when_it_is_told_to(files: Place, tmp_path: Path) -> None:
    with files.open() as store:
        id = store.put(b"data")
        store.backup(tmp_path / "backup")
    settings = files.settings.copy()
    settings["manifest_url"] = f"sqlite:{tmp_path / 'backup'}"
    with graviton.open(files.path, **settings) as copy:
        assert copy.get(id) == b"data"
        with pytest.raises(graviton.ConfigError, match="is a backup"):
            copy.put(b"more")
    with graviton.open(files.path, take_over=True, **settings) as copy:
        copy.put(b"more")
        again = pickle.loads(pickle.dumps(copy))
        assert again.get(id) == b"data"

    async def opened() -> None:
        async with graviton.aio.open(files.path, take_over=True, **files.settings) as store:
            await store.put(b"other")
        async with graviton.aio.open(files.path, **settings) as copy:
            with pytest.raises(graviton.ConfigError, match="is an old copy"):
                await copy.put(b"more")

    asyncio.run(opened())
    # A pickled store does not take over again.
    with pytest.raises(graviton.ConfigError):
        pickle.loads(pickle.dumps(again)).put(b"more")
    again.close()


def test_a_backup_of_postgres_is_not_ours_to_make(place: Place, tmp_path: Path) -> None:
    if place.is_files:
        return
    with place.open() as store, pytest.raises(graviton.UnsupportedError):
        store.backup(tmp_path / "backup")


def test_progress_is_told_and_may_end_the_call(store: Store, tmp_path: Path) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(700_000))
    path = tmp_path / "file"
    path.write_bytes(data)
    told: list[tuple[int, int | None]] = []

    def tell(done: int, total: int | None) -> None:
        told.append((done, total))

    id = store.put(data, progress=tell)
    assert told[-1] == (len(data), len(data)) and len(told) > 2
    for put in (store.put, store.put_file):
        told.clear()
        assert put(path, progress=tell) == id
        assert told[-1] == (len(data), len(data)) and len(told) > 2
    told.clear()
    assert store.put([data, b""], progress=tell) == id
    assert told[-1][0] == len(data) and told[-1][1] is None
    told.clear()
    store.put_many([path, path], progress=tell)
    assert told == [(len(data), 2 * len(data)), (2 * len(data), 2 * len(data))]
    told.clear()
    store.get_to(id, tmp_path / "out", progress=tell)
    assert told[-1] == (len(data), len(data))
    told.clear()
    store.verify(deep=True, progress=tell)
    assert told and told[-1][1] == store.stats().blocks

    def stop(done: int, total: int | None) -> None:
        raise Boom

    store.delete(id)
    calls: list[Callable[[], object]] = [
        lambda: store.put(data, progress=stop),
        lambda: store.put_file(path, progress=stop),
        lambda: store.put_many([path] * 3, progress=stop),
        lambda: store.gc(grace=0, progress=stop),
    ]
    for call in calls:
        with pytest.raises(Boom):
            call()
    store.put(data)
    more: list[Callable[[], object]] = [
        lambda: store.verify(progress=stop),
        lambda: store.get_to(id, tmp_path / "out", progress=stop),
    ]
    for call in more:
        with pytest.raises(Boom):
            call()


def test_a_bar_is_shown(local: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    id = local.put(b"x" * 3_000_000, progress=True)
    local.get_to(id, tmp_path / "out", progress=True)
    local.verify(progress=True)
    local.put(b"silent", progress=False)
    shown = capsys.readouterr()
    assert "storing" in shown.err and "writing" in shown.err and "verifying" in shown.err and not shown.out


def test_a_time_that_makes_no_sense_is_told_as_it_is(local: Store) -> None:
    with pytest.raises(graviton.InvalidArgumentError, match=r"^grace cannot be -1(\.0)? seconds"):
        local.gc(grace=-1)
