"""The programs of examples/python work as described, and leave no process running."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import graviton
import pytest
from graviton import BlobId

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/python"


def run(name: str, *arguments: object, code: int = 0) -> str:
    line = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, ""), done
    return done.stdout


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text()
    assert all(f'run("{path.name}"' in text for path in EXAMPLES.glob("*.py"))
    assert list(EXAMPLES.glob("*.py"))


def test_checkpoints(tmp_path: Path) -> None:
    last = run("checkpoints.py", tmp_path / "store").splitlines()[-1]
    assert last.startswith("10 checkpoints of ")
    assert int(last.split(": ")[1].split("%")[0]) >= 75
    with graviton.open(tmp_path / "store", create=False) as store:
        assert store.stats().blobs == 10 and store.verify(deep=True).clean


def test_a_dataset_read_by_workers(tmp_path: Path) -> None:
    assert "40 batches in 3 processes" in run("dataset.py", tmp_path / "store")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server for this test, on the loopback interface."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    pages = tmp_path / "pages"
    pages.mkdir()
    for number in range(5):
        (pages / f"page{number}").write_bytes(os.urandom(2_000_000))
    (pages / "copy").write_bytes((pages / "page0").read_bytes())
    handler = functools.partial(Quiet, directory=str(pages))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download(tmp_path: Path, site: str) -> None:
    names = [f"page{number}" for number in range(5)]
    run("download.py", tmp_path / "store", *(f"{site}/{name}" for name in names))
    output = run("download.py", tmp_path / "store", f"{site}/copy", f"{site}/missing", code=1)
    assert f"{BlobId.of((tmp_path / 'pages/page0').read_bytes())}  {site}/copy  0 new bytes\n" in output
    assert f"failed  {site}/missing  HTTP Error 404" in output
    assert "the store has 5 blobs of 10000000 bytes in 10000000\n" in output
    with graviton.open(tmp_path / "store", create=False) as store:
        assert {BlobId.of((tmp_path / "pages" / name).read_bytes()) for name in names} == set(store)


def test_the_tour() -> None:
    assert "take" in run("tour.py")
