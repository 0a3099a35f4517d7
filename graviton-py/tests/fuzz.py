"""Fuzzes parsers: ids, settings, paths of fsspec, the command line, cursors of verify, pickled places. For
any input, the answer is a value or one of the expected exceptions, and the same the second time; never
another exception, a panic or a hang.

    python tests/fuzz.py [--seconds N] [--seed N] [--runs N]

It uses atheris, guided by coverage of the package's Python code. A failure prints the input and ends with
another exit code. tests/py/run has a short leg; a long one is ``--seconds 36000``.
"""

# atheris and fsspec have no types, and the inferred ones are wrong.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import atheris

with atheris.instrument_imports(include=["graviton"]):
    import graviton
    import graviton.__main__ as command_line
    from graviton import BlobId, _graviton
    from graviton import fsspec as graviton_fsspec
    from graviton._settings import _NAMES, Place

ID = str(BlobId.of(b"hello"))
# Pieces that make a string look like valid input.
WORDS = ["blake3", "sha256", ":", "-", ID, "5", "graviton://", "new", "fastcdc:64:256:1024", "fixed:", "delimiter:0a:", "sqlite:",
         "postgres://", "jdbc:postgresql://", "user:secret@", "host", "1h", "0", "s3", "fs", "true", "--root", "--set",
         "GRAVITON_HASH=sha256", "--json", "--range", "--grace", "put", "get", "stat", "ls", "rm", "\x00", "\ud800", "%00"]


def text(data: Any) -> str:
    """Some text: meaningful words, and any other text."""
    pieces = []
    for _ in range(data.ConsumeIntInRange(0, 5)):
        if data.ConsumeBool():
            pieces.append(WORDS[data.ConsumeIntInRange(0, len(WORDS) - 1)])
        else:
            pieces.append(data.ConsumeUnicode(data.ConsumeIntInRange(0, 12)))
    return "".join(pieces)


def blob_id(data: Any, _store: graviton.Store) -> None:
    given = text(data)
    try:
        id = BlobId(given)
    except graviton.InvalidIdError:
        return
    given = given.replace("sha-256:", "sha256:", 1)
    assert given == id and f"{id.algo}:{id.hexdigest}:{id.size}" == given and BlobId(str(id)) == id
    assert id.digest.hex() == id.hexdigest and len(id.digest) == 32


def ids_of_calls(data: Any, store: graviton.Store) -> None:
    given = text(data)
    calls: list[Callable[[str], object]] = [
        store.get, store.stat, store.exists, store.open, store.delete, store.restore, store.manifest, store.__contains__,
        lambda id: store.read_range(id, 0, 1), lambda id: next(store.list(after=id), None),
        lambda id: store.writer(expect=id).abort(), lambda id: store.verify([id]),
    ]
    try:
        calls[data.ConsumeIntInRange(0, len(calls) - 1)](given)
    except (graviton.InvalidIdError, graviton.NotFoundError):
        pass
    store.put(b"hello")


def numbers(data: Any, store: graviton.Store) -> None:
    offset, length = data.ConsumeInt(9), data.ConsumeInt(9)
    try:
        assert store.read_range(ID, offset, length) == b"hello"[offset : offset + length]
    except (graviton.RangeError, graviton.InvalidArgumentError):
        assert offset < 0 or length < 0 or offset > 5
    with store.open(ID, buffering=0) as file:
        try:
            file.seek(offset, data.ConsumeIntInRange(-1, 3))
        except (graviton.InvalidArgumentError, OverflowError, ValueError):
            pass


def configuration(data: Any, _store: graviton.Store) -> None:
    name = list(_NAMES)[data.ConsumeIntInRange(0, len(_NAMES) - 1)] if data.ConsumeBool() else text(data)
    value = text(data)
    try:
        place = Place.of("/nowhere", {name: value}, "read", adopt=False, take_over=False)
        rest, secret = place.without_secrets()
        repr(place)
    except graviton.ConfigError:
        return
    # A password is in a setting of its own, or in a URL; other values are no secret, whatever they look like.
    urls = [name for name in rest.settings if name.endswith("_URL") and not rest.settings[name].startswith("sqlite:")]
    assert not any("secret@" in rest.settings[name] for name in urls), rest
    assert not any(name.endswith("PASSWORD") for name in rest.settings), rest
    assert not any("secret@" in public for public in secret.values()), secret


def cursors(data: Any, store: graviton.Store) -> None:
    try:
        store.verify(cursor=text(data))
    except (graviton.InvalidArgumentError, graviton.InvalidIdError):
        pass


def paths(data: Any, store: graviton.Store) -> None:
    fs = graviton_fsspec.GravitonFileSystem(store=store, skip_instance_cache=True)
    given = text(data)
    calls: list[Callable[[str], object]] = [fs.info, fs.cat_file, fs.exists, fs.open, fs.isdir, fs.ls]
    calls.append(lambda path: fs.cat_file(path, data.ConsumeInt(4), data.ConsumeInt(4)))
    with contextlib.suppress(FileNotFoundError):
        calls[data.ConsumeIntInRange(0, len(calls) - 1)](given)
    with contextlib.suppress(graviton.InvalidArgumentError):
        fs.open(given, "wb").abort()


def commands(data: Any, store: graviton.Store) -> None:
    # These commands change nothing outside of the store.
    safe = ["get", "stat", "ls", "rm", "restore", "stats", "nonsense"]
    arguments = [safe[data.ConsumeIntInRange(0, len(safe) - 1)]]
    arguments += [text(data) for _ in range(data.ConsumeIntInRange(0, 4))]
    if any(argument.startswith(("-o", "--o", "--roo", "--set", "--se")) for argument in arguments):
        return
    output = io.TextIOWrapper(io.BytesIO(), write_through=True)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        real, command_line._to_stdout = command_line._to_stdout, lambda data: None
        try:
            code = command_line.main(["--root", store._place.path, *arguments])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 2
        except UnicodeError:
            code = 1
        finally:
            command_line._to_stdout = real
    assert code in (0, 1, 2, 3, 4), (arguments, code)
    store.put(b"hello")


ENTRIES = [blob_id, ids_of_calls, numbers, configuration, cursors, paths, commands]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    # libFuzzer ends its process without telling Python. It prints a lot, and only the end is needed.
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile("w+", errors="replace") as log:
        work = os.fork()
        if work == 0:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            fuzz(place, given)
        _, status = os.waitpid(work, 0)
        code = os.waitstatus_to_exitcode(status)
        log.seek(0)
        print(*log.read().splitlines()[-1 if code == 0 else -25 :], sep="\n")
    sys.exit(code if code >= 0 else 128 - code)


def fuzz(place: str, given: argparse.Namespace) -> None:
    """Does not return."""
    store = graviton.open(place, durability="relaxed")
    store.put(b"hello")

    def one(raw: bytes) -> None:
        data = atheris.FuzzedDataProvider(raw)
        ENTRIES[data.ConsumeIntInRange(0, len(ENTRIES) - 1)](data, store)

    options = [f"-max_total_time={given.seconds}", f"-runs={given.runs}", f"-seed={given.seed}", "-timeout=30", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, "-max_len=512", f"-artifact_prefix={place}/"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
