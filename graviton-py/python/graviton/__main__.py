"""``python -m graviton``: the basic commands of the command line, ``graviton``, which has more.

Exit codes are the same: 0 done, 1 failed, 2 usage, 3 not found, 4 corrupt or missing data, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import graviton
from graviton import _graviton
from graviton._html import size
from graviton._reports import BlobStat
from graviton._settings import Place
from graviton._transfer import appearing, write_all

_PIECE = 1 << 20
_EXIT_CODES = {code: exit_code for code, exit_code in _graviton.EXIT_CODES}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, and returns the exit code."""
    _fill_in()
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.run is _put and given.expect is not None and len(given.paths) > 1:
        parser.error("--expect is for one PATH")
    try:
        try:
            code = _run(given)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # The reader has closed the pipe.
            return 0
    except KeyboardInterrupt:
        _complain("cancelled", "interrupted before the end", "unfinished work left nothing behind; run it again")
        return 130
    except graviton.GravitonError as error:
        return _report(error)
    except OSError as error:
        if error.errno == errno.EPIPE:
            return 0
        _complain("io", str(error), None)
        return 1
    finally:
        _silence()


def _run(given: argparse.Namespace) -> int:
    command: Callable[[graviton.Store, argparse.Namespace], int] = given.run
    with _open(given) as store:
        return command(store, given)


def _open(given: argparse.Namespace) -> graviton.Store:
    settings = dict(_graviton.environment())
    for text in given.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise graviton.ConfigError(f"--set {text} does not have the form KEY=VALUE")
        settings[name] = value
    if given.root is not None:
        settings["GRAVITON_FS_ROOT"] = given.root
    place = Place.found(None, settings, given.mode, adopt=False, take_over=False)
    try:
        return graviton.Store._at(place)
    except graviton.ForbiddenError:
        if given.run is not _verify:
            raise
        # Damage can be found but not marked there.
        return graviton.Store._at(place._replace(mode="read"))


# ---- The commands


def _put(store: graviton.Store, given: argparse.Namespace) -> int:
    code = 0
    for path in given.paths:
        try:
            if path == "-":
                receipt = store.put_receipt(io.FileIO(0, closefd=False), expect=given.expect)
            else:
                receipt = store.put_receipt(Path(path), expect=given.expect)
        except graviton.GravitonError as error:
            # A missing file of the user's own is not a missing blob.
            code = max(code, _report(error, outside=True))
            continue
        _line(
            given,
            str(receipt.id),
            path=path,
            id=receipt.id,
            size=receipt.size,
            blocks=receipt.blocks,
            fresh_blocks=receipt.fresh_blocks,
            fresh_bytes=receipt.fresh_bytes,
            fresh_stored_bytes=receipt.fresh_stored_bytes,
        )
        sys.stdout.flush()
    return code


def _get(store: graviton.Store, given: argparse.Namespace) -> int:
    with store.open(given.id, buffering=0) as source:
        # Before the file is opened.
        start, end = _bytes_of(given, source.size)
        if given.output in (None, "-"):
            _copy(source, _to_stdout, start, end)
            return 0
        with appearing(given.output) as target:
            _copy(source, partial(write_all, target.write), start, end)
    return 0


def _stat(store: graviton.Store, given: argparse.Namespace) -> int:
    found = store.stat(given.id)
    if given.json:
        _line(given, "", **_facts(found))
        return 0
    for name, value in (
        ("id", found.id),
        ("size", _words(found.size)),
        ("blocks", found.blocks),
        ("chunker", found.chunker),
        ("created", _time(found)),
    ):
        _print(f"{name:<8} {value}")
    return 0


def _list(store: graviton.Store, given: argparse.Namespace) -> int:
    left = given.limit
    for found in store.list(after=given.after):
        if left is not None:
            if left <= 0:
                break
            left -= 1
        blocks = f"{found.blocks} block{'' if found.blocks == 1 else 's'}"
        text = f"{found.id:<82}  {size(found.size):>11}  {blocks:>12}  {_time(found)}  {found.chunker}"
        _line(given, text, **_facts(found))
    return 0


def _remove(store: graviton.Store, given: argparse.Namespace) -> int:
    return _each(store, given, store.delete, "deleted")


def _restore(store: graviton.Store, given: argparse.Namespace) -> int:
    return _each(store, given, store.restore, "live")


def _each(
    store: graviton.Store, given: argparse.Namespace, change: Callable[[str], None], state: str
) -> int:
    code = 0
    # Parsed before anything is done, so a malformed id stops the command.
    for id in [graviton.BlobId(text) for text in given.ids]:
        try:
            change(id)
        except graviton.NotFoundError as error:
            code = _report(error)
            continue
        _line(given, str(id), id=id, state=state)
        sys.stdout.flush()
    return code


def _gc(store: graviton.Store, given: argparse.Namespace) -> int:
    report = store.gc(grace=given.grace, dry_run=given.dry_run)
    if given.json:
        for id in report.named:
            _line(given, "", kind="blob", id=id)
        _line(given, "", kind="summary", **_without(report, "named"))
        return 0
    for id in report.named:
        _print(f"would delete {id}")
    amount = f"{_count(report.blobs, 'blob')}, {_count(report.blocks, 'block')}, {size(report.bytes)}"
    _print(f"would free {amount}" if report.dry_run else f"freed {amount} in {report.seconds:.2f} s")
    return 0


def _repack(store: graviton.Store, given: argparse.Namespace) -> int:
    report = store.repack(given.to)
    moved = f"{_count(report.blocks, 'block')}, {size(report.bytes)}"
    _line(given, f"moved {moved} in {report.seconds:.2f} s", kind="summary", **_without(report))
    if not given.json:
        for number, why in (
            (report.damaged, "damaged: put the content again"),
            (report.remaining, "left: in use by a put, or put meanwhile; run it again"),
        ):
            if number:
                _print(f"{_count(number, 'block')} {why}")
    return _EXIT_CODES["corrupt-block"] if report.damaged else 0


def _verify(store: graviton.Store, given: argparse.Namespace) -> int:
    def found(finding: graviton.Finding) -> None:
        _line(given, str(finding), kind=finding.kind, what=finding.what, why=finding.why, blobs=list(finding.blobs))
        if not given.json and finding.kind == "block":
            for blob in finding.blobs:
                _print(f"  in blob {blob}")

    present, code = [], 0
    for id in [graviton.BlobId(text) for text in given.ids]:
        try:
            present.append(store.stat(id).id)
        except graviton.NotFoundError as error:
            code = _report(error)
    if given.ids and not present:
        return code
    report = store.verify(present, deep=given.deep, found=found)
    facts = _without(report, "findings")
    text = (
        f"{'clean' if report.clean else 'damaged'}: {_count(report.blobs, 'blob')}, {_count(report.blocks, 'block')}"
        f" in {report.seconds:.2f} s"
    )
    _line(given, text, kind="summary", clean=report.clean, **facts)
    return code if report.clean else _EXIT_CODES["corrupt-block"]


def _stats(store: graviton.Store, given: argparse.Namespace) -> int:
    found = store.stats()
    if given.json:
        _line(given, "", **_without(found), dedup_ratio=found.dedup_ratio)
        return 0
    for name, value in (
        ("blobs", found.blobs),
        ("logical bytes", _words(found.logical_bytes)),
        ("blocks", found.blocks),
        ("stored bytes", _words(found.stored_bytes)),
        ("dedup ratio", f"{found.dedup_ratio:.2f}"),
        ("dead blobs", found.dead_blobs),
        ("dead bytes", _words(found.dead_bytes)),
        ("reclaimable bytes", _words(found.reclaimable_bytes)),
        ("packs", found.packs),
        ("pack live bytes", _words(found.pack_live_bytes)),
        ("pack dead bytes", _words(found.pack_dead_bytes)),
        ("pack punched bytes", _words(found.pack_punched_bytes)),
        ("pack pending bytes", _words(found.pack_pending_bytes)),
        ("pack open bytes", _words(found.pack_open_bytes)),
        ("unknown packs", found.unknown_packs),
        ("unknown pack bytes", _words(found.unknown_pack_bytes)),
    ):
        _print(f"{name:<18} {value}")
    return 0


# ---- The command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m graviton",
        description="A content-addressed blob store. The command `graviton` has more: copy, repair, backup.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 corrupt or missing data, 130 interrupted.",
        parents=[_common()],
    )
    parser.set_defaults(root=None, set=[], json=False)
    parser.add_argument("--version", action="version", version=f"graviton {graviton.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[graviton.Store, argparse.Namespace], int], mode: str, help: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[_common()], help=help, description=help)
        added.set_defaults(run=run, mode=mode)
        return added

    put = command("put", _put, "create", "store files and print their ids; - is standard input")
    put.add_argument("paths", nargs="+", metavar="PATH")
    put.add_argument("--expect", metavar="ID", help="store the one PATH only if its content has this id")
    get = command("get", _get, "read", "write a blob to standard output or a file")
    get.add_argument("id", metavar="ID")
    get.add_argument("-o", "--output", metavar="FILE")
    get.add_argument("--range", type=_range, metavar="FIRST-LAST", help="only these bytes; FIRST- and -N work too")
    command("stat", _stat, "read", "show the metadata of a blob").add_argument("id", metavar="ID")
    ls = command("ls", _list, "read", "list the blobs")
    ls.add_argument("--after", metavar="ID")
    ls.add_argument("--limit", type=int, metavar="N")
    command("rm", _remove, "existing", "delete blobs").add_argument("ids", nargs="+", metavar="ID")
    command("restore", _restore, "existing", "restore deleted blobs").add_argument("ids", nargs="+", metavar="ID")
    gc = command("gc", _gc, "existing", "free the space of blobs that were deleted before the grace period")
    gc.add_argument("--grace", type=_duration, metavar="DURATION", help="such as 30m or 0")
    gc.add_argument("--dry-run", action="store_true")
    repack = command("repack", _repack, "existing", "move all blocks into packs, or out of them into files")
    repack.add_argument("--to", required=True, choices=("files", "packs"))
    verify = command("verify", _verify, "existing", "check that everything is there, and with --deep intact")
    verify.add_argument("ids", nargs="*", metavar="ID")
    verify.add_argument("--deep", action="store_true")
    command("stats", _stats, "read", "show totals of the store")
    return parser


def _common() -> argparse.ArgumentParser:
    """The options that are allowed before and after the command. A new parser for each position, because
    argparse changes the defaults in place."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", metavar="DIR", default=argparse.SUPPRESS, help="the directory of the store")
    common.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=argparse.SUPPRESS, help="change a setting"
    )
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object a line")
    return common


def _range(text: str) -> tuple[int | None, int | None]:
    first, dash, last = text.partition("-")
    if not dash or not (first or last) or not all(part.isascii() and part.isdigit() for part in (first, last) if part):
        raise argparse.ArgumentTypeError("use FIRST-LAST, FIRST- or -N")
    if first and last and int(last) < int(first):
        raise argparse.ArgumentTypeError("LAST is before FIRST")
    return int(first) if first else None, int(last) if last else None


def _duration(text: str) -> timedelta:
    number, unit = (text, "s") if text == "0" else (text[:-1], text[-1:])
    if unit not in _UNITS or not (number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError("use a whole number with s, m, h or d, such as 30m, or 0")
    return timedelta(seconds=int(number) * _UNITS[unit])


def _bytes_of(given: argparse.Namespace, whole: int) -> tuple[int, int]:
    """The start and the end of the requested bytes."""
    if given.range is None:
        return 0, whole
    first, last = given.range
    if first is None:
        return max(0, whole - last), whole
    if first >= whole:
        raise graviton.RangeError(
            f"blob {given.id} has no bytes in that range", advice=f"it has {whole} bytes, counted from 0"
        )
    return first, whole if last is None else min(last + 1, whole)


# ---- Output


def _copy(source: graviton.BlobReader, write: Callable[[memoryview], object], start: int, end: int) -> None:
    source.seek(start)
    with memoryview(bytearray(min(_PIECE, max(end - start, 1)))) as buffer:
        while start < end:
            count = source.readinto(buffer[: min(len(buffer), end - start)])
            write(buffer[:count])
            start += count


def _to_stdout(data: memoryview) -> None:
    sys.stdout.flush()
    while data:
        data = data[os.write(1, data) :]


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _line(given: argparse.Namespace, text: str, **facts: object) -> None:
    _print(json.dumps(facts, separators=(",", ":"), default=str) if given.json else text)


def _facts(found: BlobStat) -> dict[str, object]:
    return {
        "id": found.id,
        "size": found.size,
        "blocks": found.blocks,
        "chunker": found.chunker,
        "created_at": _time(found),
    }


def _without(report: Any, *names: str) -> dict[str, object]:
    return {name: getattr(report, name) for name in report.__dataclass_fields__ if name not in names}


def _time(found: BlobStat) -> str:
    return found.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _words(count: int) -> str:
    return str(count) if count < 1024 else f"{count} ({size(count)})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _report(error: graviton.GravitonError, *, outside: bool = False) -> int:
    _complain(error.code, str(error), error.advice)
    return 1 if outside and isinstance(error, graviton.NotFoundError) else _EXIT_CODES[error.code]


def _complain(code: str, message: str, advice: str | None) -> None:
    lines: Iterable[str] = [f"error[{code}]: {_printable(message)}"] + ([f"  help: {_printable(advice)}"] if advice else [])
    try:
        sys.stderr.write("\n".join([*lines, ""]))
    except OSError:
        pass


def _printable(text: str) -> str:
    """Escape the control characters of a file name, which could move the cursor or fake a line."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _fill_in() -> None:
    """Replace standard streams that were closed before the start. They fail when they are used, but not with
    an `AttributeError`, and no file of the store gets their numbers.
    """
    for name, access, mode in (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, access), mode, closefd=False))


def _silence() -> None:
    """Keep Python from flushing standard output again at its end, which would fail on a closed pipe."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
