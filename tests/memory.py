#!/usr/bin/env python3
"""A long stream goes in and out of the command line in bounded memory, and comes out unchanged.

usage: tests/memory.py GRAVITON MEBIBYTES [shared]

The stream is generated while it is read, and never repeats, so that nothing is deduplicated. The store is
made under the target directory and takes as much disk space as the stream. With `shared`, its blocks are in
S3 and its manifests in PostgreSQL, on the servers of tests/servers.
"""
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_MIB = 192
PIECE = 1 << 20


def pieces(count):
    """Random bytes are slow to make, so one random piece is varied by a number in every KiB of it."""
    piece = bytearray(random.Random(1).randbytes(PIECE))
    for number in range(count):
        for at in range(0, PIECE, 1024):
            piece[at:at + 8] = number.to_bytes(8, "little")
        yield bytes(piece)


def peak_mib(process):
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 1024


def shared_store():
    """The settings of a store on the servers."""
    given = os.environ
    return {
        "GRAVITON_BLOB_BACKEND": "minio",
        "QUASAR_MINIO_URL": given["GRAVITON_TEST_S3"],
        "MINIO_ROOT_USER": given["GRAVITON_TEST_S3_USER"],
        "MINIO_ROOT_PASSWORD": given["GRAVITON_TEST_S3_PASSWORD"],
        "GRAVITON_S3_BLOCK_BUCKET": "graviton-test",
        "GRAVITON_S3_BLOCK_PREFIX": f"memory-{os.getpid()}",
        "GRAVITON_MANIFEST_URL": given["GRAVITON_TEST_POSTGRES"] + "/postgres",
    }


def main():
    graviton, mebibytes = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    environment = {**os.environ, **(shared_store() if sys.argv[3:] == ["shared"] else {})}
    place = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[1] / "target"))
    place.mkdir(parents=True, exist_ok=True)
    root = tempfile.mkdtemp(prefix="memory-", dir=place)
    problems = []
    try:
        put = subprocess.Popen([graviton, "--root", root, "put", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env=environment)
        sent = hashlib.sha256()
        try:
            for piece in pieces(mebibytes):
                sent.update(piece)
                put.stdin.write(piece)
            put.stdin.close()
        except BrokenPipeError:
            pass
        blob = put.stdout.read().decode().strip()
        peak = peak_mib(put)
        print(f"put of {mebibytes} MiB: exit code {put.returncode}, peak {peak:.0f} MiB")
        if put.returncode != 0 or peak > LIMIT_MIB:
            problems.append("put")

        get = subprocess.Popen([graviton, "--root", root, "get", blob], stdout=subprocess.PIPE, env=environment)
        got = hashlib.sha256()
        for piece in iter(lambda: get.stdout.read(PIECE), b""):
            got.update(piece)
        peak = peak_mib(get)
        print(f"get of {mebibytes} MiB: exit code {get.returncode}, peak {peak:.0f} MiB")
        if get.returncode != 0 or peak > LIMIT_MIB or got.digest() != sent.digest():
            problems.append("get")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"memory: {2 - len(problems)} passed, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
