"""``python -m graviton``: commands, exit codes, Ctrl-C, closed pipes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import graviton
import pytest
from conftest import Place
from graviton import BlobId

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def command(*arguments: object, input: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        line = [sys.executable, "-m", "graviton", *map(str, arguments)]
        place = {"GRAVITON_FS_ROOT": str(tmp_path / "store")}
        done = subprocess.run(line, input=input, capture_output=True, env={**os.environ, **place}, cwd=tmp_path)
        assert done.returncode == code, (arguments, done)
        return done

    return command


def test_the_basic_commands(run: Run, tmp_path: Path) -> None:
    data = os.urandom(500_000)
    (tmp_path / "file").write_bytes(data)
    id = run("put", tmp_path / "file").stdout.decode().strip()
    assert id == BlobId.of(data)
    assert run("put", "-", input=b"hello").stdout.decode().strip() == BlobId.of(b"hello")
    assert run("get", id).stdout == data
    assert run("get", id, "--range", "10-19").stdout == data[10:20]
    assert run("get", id, "--range", "499990-").stdout == data[-10:]
    assert run("get", "--range=-7", id).stdout == data[-7:]
    run("get", id, "-o", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    run("get", id, "-o", tmp_path / "part", "--range", "0-3")
    assert (tmp_path / "part").read_bytes() == data[:4]
    assert f"id       {id}\nsize     500000 (488.3 KiB)\n" in run("stat", id).stdout.decode()
    assert json.loads(run("stat", id, "--json").stdout)["size"] == 500_000
    ids = [line.split()[0] for line in run("ls").stdout.decode().splitlines()]
    assert ids == sorted([id, str(BlobId.of(b"hello"))])
    assert len(run("ls", "--limit", 1).stdout.splitlines()) == 1
    assert [json.loads(line)["id"] for line in run("--json", "ls", "--after", ids[0]).stdout.splitlines()] == ids[1:]
    assert json.loads(run("stats", "--json").stdout)["blobs"] == 2
    assert b"dedup ratio        1.00\n" in run("stats").stdout
    assert run("rm", id).stdout.decode().strip() == id
    run("get", id, code=3)
    assert run("restore", id).stdout.decode().strip() == id
    run("rm", id)
    assert run("gc", "--dry-run", "--grace", "0").stdout.decode().startswith(f"would delete {id}\nwould free 1 blob")
    assert json.loads(run("gc", "--grace", "0s", "--json").stdout)["blobs"] == 1
    assert json.loads(run("repack", "--to", "packs", "--json").stdout)["complete"]
    assert run("repack", "--to", "files").stdout.decode().startswith("moved ")
    assert run("verify", "--deep").stdout.startswith(b"clean: 1 blob, 1 block in")


def test_exit_codes_are_those_of_the_command_line(run: Run, tmp_path: Path) -> None:
    missing = str(BlobId.of(b"missing"))
    assert b"error[not-found]: there is no store" in run("get", missing, code=3).stderr
    id = run("put", "-", input=b"hello").stdout.decode().strip()
    assert run("get", missing, code=3).stderr.startswith(b"error[not-found]: ")
    assert b"  help: " in run("get", missing, code=3).stderr
    done = run("put", "not there", "-", input=b"other", code=1)
    assert done.stdout.decode().strip() == BlobId.of(b"other")
    run("put", "-", "--expect", missing, input=b"something else", code=1)
    done = run("rm", missing, id, code=3)
    assert done.stdout.decode().strip() == id
    # A malformed id deletes nothing.
    done = run("rm", BlobId.of(b"other"), "nonsense", code=graviton_exit_code("invalid-id"))
    assert not done.stdout
    run("get", BlobId.of(b"other"), "--range", "5-", code=graviton_exit_code("range-not-satisfiable"))
    run("put", "--expect", id, "-", "-", code=2)
    for wrong in ([], ["nonsense"], ["get"], ["get", id, "--range", "5-3"], ["gc", "--grace", "1x"]):
        run(*wrong, code=2)
    run("stats", "--set", "GRAVITON_NONSENSE=1", code=graviton_exit_code("config"))

    (block,) = [path for path in (tmp_path / "store/cas/blocks/blake3").iterdir() if path.read_bytes() == b"other"]
    block.write_bytes(b"0ther")
    done = run("verify", "--deep", code=4)
    assert BlobId.of(b"other").encode() in done.stdout
    run("get", BlobId.of(b"other"), code=4)


def test_a_range_that_is_not_there_leaves_the_file_alone(run: Run, tmp_path: Path) -> None:
    id = run("put", "-", input=b"hello").stdout.decode().strip()
    (tmp_path / "out").write_bytes(b"before")
    for name in ("out", "new"):
        run("get", id, "--range", "5-", "-o", name, code=graviton_exit_code("range-not-satisfiable"))
    assert (tmp_path / "out").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]
    run("get", id, "--range", "1-2", "-o", "out")
    assert (tmp_path / "out").read_bytes() == b"el"


def graviton_exit_code(code: str) -> int:
    from graviton import _graviton

    return dict(_graviton.EXIT_CODES)[code]


def test_control_characters_do_not_reach_the_terminal(run: Run) -> None:
    done = run("put", "a\x1b[2Jb", code=1)
    assert b"\x1b" not in done.stderr and b"a\\x1b[2Jb" in done.stderr


def test_a_reader_that_has_had_enough(files: Place) -> None:
    with graviton.open(files.path) as store:
        id = store.put(os.urandom(20 << 20))
        for number in range(2000):
            store.put(number.to_bytes(4, "big"))
    for arguments in (["get", id], ["ls"]):
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-m", "graviton", "--root", str(files.path), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        assert (process.wait(), said) == (0, b"")


def test_ids_are_told_as_soon_as_they_are_stored(files: Place, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "later")
    (tmp_path / "now").write_bytes(b"now")
    command = [sys.executable, "-m", "graviton", "--root", str(files.path), "put", "now", "later"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == BlobId.of(b"now")
        except BaseException:
            process.kill()
            raise
        (tmp_path / "later").write_bytes(b"later")
        assert process.stdout.read().strip() == BlobId.of(b"later")
    assert process.returncode == 0


def test_standard_streams_that_are_closed(files: Place) -> None:
    with files.open() as store:
        id = store.put(b"data")
    python = f"{shlex.quote(sys.executable)} -X dev -m graviton --root {shlex.quote(str(files.path))}"
    for command in ("ls >&-", "stats --json >&-", f"get {id} >&-", "put - <&-"):
        done = subprocess.run(f"{python} {command}", shell=True, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") < 3, done
        assert done.stderr.startswith("error[io]: ") and "Bad file descriptor" in done.stderr, done
    done = subprocess.run(f"{python} get blake3:no 2>&- <&-", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (graviton_exit_code("invalid-id"), "")


def test_ctrl_c(files: Place) -> None:
    with graviton.open(files.path):
        pass
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "graviton", "--root", str(files.path), "put", "/dev/zero"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # The put is running once it has written blocks.
    blocks = files.path / "cas/blocks/blake3"
    while not (blocks.exists() and any(blocks.iterdir())):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, said = process.communicate()
    assert (process.returncode, output) == (130, b"")
    assert said.startswith(b"error[cancelled]: interrupted before the end\n") and said.count(b"\n") == 2
    with graviton.open(files.path) as store:
        assert list(store) == []
