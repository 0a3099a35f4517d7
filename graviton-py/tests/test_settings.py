"""How a store is opened, and how a pickle opens it again."""

from __future__ import annotations

import copy
import os
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import graviton
import pytest
from conftest import Place as StorePlace
from graviton import Settings, _graviton
from graviton._settings import Place


def test_every_setting_has_a_keyword() -> None:
    names = {name.removeprefix("GRAVITON_").lower() for name, _, _ in _graviton.SETTINGS}
    assert names == set(Settings.__annotations__)


def test_a_path_and_its_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with graviton.open(tmp_path / "a") as store:
        id = store.put(b"data")
    monkeypatch.chdir(tmp_path)
    places: list[Any] = ["a", str(tmp_path / "a"), Path("a")]
    for path in places:
        with graviton.open(path, create=False) as store:
            assert id in store
    with graviton.open(fs_root="a", create=False) as store, graviton.Store(tmp_path / "a", read_only=True) as reader:
        assert id in store and id in reader
        with pytest.raises(graviton.GravitonError):
            reader.put(b"more")
    with graviton.open() as store:
        assert id not in store
    assert (tmp_path / ".graviton").is_dir()
    name = os.fsdecode(b"\xff\xfe")
    with graviton.open(tmp_path / name) as store:
        store.put(b"data")
    assert os.path.isdir(os.fsencode(tmp_path) + b"/\xff\xfe")


def test_an_address_is_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("http://localhost:8081", "s3://bucket/prefix", "postgresql://host/name", "file:///tmp/x", ":memory:"):
        with pytest.raises(graviton.ConfigError, match="an address, not a directory"):
            graviton.open(address)
        with pytest.raises(graviton.ConfigError, match="an address, not a directory"):
            graviton.open(fs_root=address)
    assert list(tmp_path.iterdir()) == []
    graviton.open("./http:").close()


def test_values_of_settings(tmp_path: Path) -> None:
    options: list[Settings] = [
        {"hash": "sha256"},
        {"verify_reads": False},
        {"verify_reads": "true"},
        {"gc_grace": timedelta(hours=8)},
        {"gc_grace": "0"},
        {"durability": "relaxed"},
        {"chunker": "fixed:4096"},
        {"manifest_url": f"sqlite:{tmp_path / 'elsewhere.db'}"},
    ]
    for number, settings in enumerate(options):
        with graviton.open(tmp_path / str(number), **settings) as store:
            assert store.put(b"data").algo == settings.get("hash", "blake3")
    assert (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"hush": "x"},
        {"hash": "md5"},
        {"GRAVITON_HASH": "sha256"},
        {"verify_reads": "maybe"},
        {"gc_grace": timedelta(seconds=1.5)},
        {"gc_grace": timedelta(seconds=-1)},
        {"blob_backend": "minio"},
        {"fs_root": "x"},
        {"manifest_url": "mysql://h/d"},
        {"manifest_url": "sqlite::memory:"},
    ],
)
def test_wrong_settings(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(graviton.ConfigError) as wrong:
        graviton.open(tmp_path / "store", **settings)
    assert isinstance(wrong.value, ValueError) and wrong.value.advice
    if "hush" in settings:
        assert "durability" in wrong.value.advice
    assert not (tmp_path / "store").exists()


def test_values_of_the_wrong_type(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        graviton.open(tmp_path, hash=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        graviton.open(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(graviton.ConfigError):
        graviton.open("")


def test_the_environment_is_read_only_when_asked(place: StorePlace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with graviton.Store.from_env() as store, place.open() as same:
        id = store.put(b"data")
        assert id in same
        with pickle.loads(pickle.dumps(store)) as again:
            assert id in again
    with graviton.open(tmp_path / "other") as store:
        assert id not in store
    monkeypatch.setenv("GRAVITON_HASH", "md5")
    with pytest.raises(graviton.ConfigError):
        graviton.Store.from_env()


def test_credentials_for_something_else_are_none_of_our_business(files: StorePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAVITON_FS_ROOT", str(files.path))
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "not a\npassword")
    with graviton.Store.from_env() as store:
        pickle.loads(pickle.dumps(store)).close()


def test_a_pickle_opens_the_same_place(files: StorePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with graviton.open("store", chunker="fixed:1000", gc_grace=timedelta(minutes=5)) as store:
        id = store.put(b"x" * 10_000)
        pickled = pickle.dumps(store)
        monkeypatch.chdir("/")
        for again in (pickle.loads(pickled), copy.copy(store)):
            with again:
                assert type(again) is graviton.Store and again.get(id) == b"x" * 10_000
                assert repr(again) == repr(store)
    with graviton.open(tmp_path / "store", read_only=True) as reader, pickle.loads(pickle.dumps(reader)) as again:
        with pytest.raises(graviton.GravitonError):
            again.put(b"y")


def test_a_pickle_has_no_secrets_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import cluster

    place = cluster(tmp_path / "store")
    secret, url = place.settings.get("minio_root_password", ""), place.settings.get("manifest_url", "")
    with place.open() as store:
        id = store.put(b"data")
        pickled = pickle.dumps(store)
        assert secret.encode() not in pickled and secret not in repr(store)
        # Not raised when it is unpickled: that would end a worker of a pool and lose its task.
        without = pickle.loads(pickled)
        with pytest.raises(graviton.ConfigError, match="is not set"):
            without.get(id)
        monkeypatch.setenv("MINIO_ROOT_PASSWORD", secret)
        monkeypatch.setenv("GRAVITON_MANIFEST_URL", url + "x")
        elsewhere = pickle.loads(pickled)
        with elsewhere, pytest.raises(graviton.ConfigError, match="another place") as wrong:
            elsewhere.stats()
        assert secret not in str(wrong.value) + str(wrong.value.advice)
        monkeypatch.setenv("GRAVITON_MANIFEST_URL", url)
        # A store that could not be opened still knows its missing secrets.
        for each in (pickled, pickle.dumps(without), pickle.dumps(elsewhere)):
            with pickle.loads(each) as again:
                assert again.get(id) == b"data"


class Mine(graviton.Store):
    pass


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgres://host/database", True),
        ("postgresql://user@host:5432/database", True),
        ("postgres://user:xyzzy@host/database", False),
        ("postgres://host/database?password=xyzzy", False),
        ("postgres://:xyzzy@host/", False),
    ],
)
def test_a_url_is_pickled_if_it_surely_has_no_password(url: str, kept: bool) -> None:
    options: dict[str, object] = {
        "manifest_url": url,
        "blob_backend": "minio",
        "quasar_minio_url": "http://localhost:9000",
        "minio_root_user": "user",
        # Even if it looks like a URL.
        "minio_root_password": "postgres://xyzzy/xyzzy",
    }
    place, secret = Place.of("store", options, "create", adopt=False, take_over=False).without_secrets()
    assert set(secret) == {"MINIO_ROOT_PASSWORD"} | (set() if kept else {"GRAVITON_MANIFEST_URL"})
    assert (place.settings.get("GRAVITON_MANIFEST_URL") == url) is kept
    assert "xyzzy" not in repr(place) + repr(secret)


def test_a_store_can_be_used_as_a_base_class(files: StorePlace) -> None:
    with Mine(files.path) as store, copy.copy(store) as again:
        id = store.put(b"data")
        assert type(again) is Mine and id in again
