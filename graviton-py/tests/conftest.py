"""Stores for the tests. A test with a ``place`` or a ``store`` runs twice: with blocks in files and manifests
in SQLite, and with blocks in S3 and manifests in PostgreSQL, on the servers of ``tests/servers``."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graviton
import graviton.aio
import pytest
from graviton import Settings

_numbers = itertools.count()


@dataclass
class Place:
    """A place where a store can be opened, any number of times."""

    path: Path
    settings: Settings = field(default_factory=Settings)

    @property
    def is_files(self) -> bool:
        """Whether it is on files and SQLite."""
        return "blob_backend" not in self.settings

    def open(self, *, read_only: bool = False, create: bool = True) -> graviton.Store:
        """Open the store there."""
        return graviton.open(self.path, read_only=read_only, create=create, **self.settings)

    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        given = {"fs_root": str(self.path), **self.settings}
        own = ("quasar_", "minio_", "pg_")
        return {(name if name.startswith(own) else f"graviton_{name}").upper(): str(value) for name, value in given.items()}


def variable(name: str) -> str:
    """An environment variable that ``tests/servers`` sets."""
    value = os.environ.get(name)
    if value is None:
        pytest.fail(f"{name} is not set: run this through tests/servers")
    return value


def new_database() -> str:
    """The URL of an empty database."""
    server = variable("GRAVITON_TEST_POSTGRES")
    name = f"python_{os.getpid()}_{next(_numbers)}"
    psql = sorted(Path("/usr/lib/postgresql").glob("*/bin/psql"))
    command = [str(psql[-1]) if psql else "psql", "--quiet", "--no-psqlrc", "--dbname", f"{server}/postgres"]
    subprocess.run([*command, "--command", f"CREATE DATABASE {name}"], check=True)
    return f"{server}/{name}"


def cluster(path: Path) -> Place:
    """An unused place on S3 and PostgreSQL."""
    return Place(
        path,
        {
            "chunker": "fastcdc:1024:4096:16384",
            "blob_backend": "minio",
            "quasar_minio_url": variable("GRAVITON_TEST_S3"),
            "minio_root_user": variable("GRAVITON_TEST_S3_USER"),
            "minio_root_password": variable("GRAVITON_TEST_S3_PASSWORD"),
            "s3_block_bucket": "graviton-test",
            "s3_block_prefix": f"python/{os.getpid()}-{time.time_ns()}-{next(_numbers)}",
            "manifest_url": new_database(),
        },
    )


@pytest.fixture
def files(tmp_path: Path) -> Place:
    """A place on files and SQLite."""
    return Place(tmp_path / "store", {"chunker": "fastcdc:1024:4096:16384"})


@pytest.fixture(params=["files", "cluster"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place of either kind."""
    if request.param == "cluster":
        return cluster(tmp_path / "store")
    return Place(tmp_path / "store", {"chunker": "fastcdc:1024:4096:16384"})


@pytest.fixture
def store(place: Place) -> Iterator[graviton.Store]:
    """An open store of either kind."""
    with place.open() as store:
        yield store


@pytest.fixture
def local(files: Place) -> Iterator[graviton.Store]:
    """An open store on files and SQLite."""
    with files.open() as store:
        yield store


# ---- The asynchronous API

Main = Callable[[graviton.aio.Store], Coroutine[Any, Any, None]]


def run(place: Place, main: Main) -> None:
    """Opens the store there for asyncio, and runs this coroutine function with it."""

    async def opened() -> None:
        async with graviton.aio.open(place.path, **place.settings) as store:
            await main(store)

    asyncio.run(opened(), debug=True)


def threads() -> int:
    """The number of threads of this process."""
    return len(os.listdir("/proc/self/task"))


def leftovers(place: Place) -> graviton.StoreStats:
    """The totals of the store after a collection without grace."""
    with place.open() as store:
        store.gc(grace=0)
        assert store.verify(deep=True).clean
        return store.stats()


@pytest.fixture
def no_warnings() -> Iterator[None]:
    """Fails on warnings, and on exceptions that are only printed: unobserved ones and those of finalizers."""
    heard: list[str] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda found: heard.append(str(found))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    sys.unraisablehook = hook
    assert not heard
