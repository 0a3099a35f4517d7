#!/usr/bin/env python3
"""An independent client checks the objects that `graviton put` leaves in a bucket: exact keys, exact bytes,
nothing else.

usage: tests/servers tests/python tests/s3_layout.py GRAVITON

The keys are computed here, with other implementations of the hashes. The settings are those of an existing
deployment (QUASAR_MINIO_URL and PG_JDBC_URL with their credentials), against SeaweedFS and moto.
"""
import hashlib
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import blake3
import boto3

BLOCK = 65536
HASHES = {"blake3": lambda data: blake3.blake3(data).hexdigest(), "sha256": lambda data: hashlib.sha256(data).hexdigest()}
# Pairs of the setting and the prefix of every key.
PREFIXES = [(None, "cas/blocks/"), ("/", ""), ("plain", "plain/"), ("with/slash/", "with/slash/"), ("ü/a b+c~", "ü/a b+c~/")]

OWN = ("GRAVITON_", "QUASAR_", "MINIO_", "PG_", "AWS_")
ALWAYS = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}


def contents():
    """Blobs with every interesting number of blocks of that size, and two that share a block."""
    noise = random.Random(3)
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 20 * BLOCK + 7):
        yield noise.randbytes(size)
    shared = noise.randbytes(BLOCK)
    yield shared + b"one"
    yield shared + b"two"


def expected_objects(prefix, algo):
    found = {}
    for content in contents():
        for at in range(0, len(content), BLOCK):
            block = content[at:at + BLOCK]
            found[f"{prefix}{algo}/{HASHES[algo](block)}-{len(block)}"] = block
    return found


class Place:
    """A bucket and a database for one test, and their settings."""
    number = 0

    def __init__(self, endpoint, graviton):
        Place.number += 1
        user, password = os.environ["GRAVITON_TEST_S3_USER"], os.environ["GRAVITON_TEST_S3_PASSWORD"]
        postgres = urlsplit(os.environ["GRAVITON_TEST_POSTGRES"])
        self.graviton, self.bucket, database = graviton, f"layout-{Place.number}", f"layout_{Place.number}"
        self.s3 = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=user, aws_secret_access_key=password,
                               region_name="us-east-1")
        self.s3.create_bucket(Bucket=self.bucket)
        subprocess.run(["psql", "--quiet", "--no-psqlrc", "--dbname", f"{postgres.geturl()}/postgres", "--command",
                        f"CREATE DATABASE {database}"], check=True)
        self.environment = {
            **ALWAYS, "GRAVITON_BLOB_BACKEND": "minio", "QUASAR_MINIO_URL": endpoint, "MINIO_ROOT_USER": user,
            "MINIO_ROOT_PASSWORD": password, "GRAVITON_S3_BLOCK_BUCKET": self.bucket,
            "PG_JDBC_URL": f"jdbc:postgresql://{postgres.hostname}:{postgres.port}/{database}",
            "PG_USERNAME": postgres.username, "PG_PASSWORD": postgres.password, "GRAVITON_CHUNKER": f"fixed:{BLOCK}"}

    def run(self, *arguments):
        # The directory where a store would wrongly keep files.
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run([self.graviton, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  cwd=directory, env=self.environment, timeout=120)
            left = os.listdir(directory)
        if done.returncode != 0 or left:
            raise AssertionError(f"{arguments}: exit code {done.returncode}, left {left}")
        return done.stdout

    def put_all(self, sources):
        return self.run("put", *sources).decode().split()

    def objects(self):
        """All objects: key, bytes, and the time of each write."""
        found, times = {}, {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for entry in page.get("Contents", []):
                key = entry["Key"]
                found[key] = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
                times[key] = entry["LastModified"]
        return found, times


def check(endpoint, graviton, sources, setting, prefix):
    place = Place(endpoint, graviton)
    if setting is not None:
        place.environment["GRAVITON_S3_BLOCK_PREFIX"] = setting
    expected = {}
    for algo, digest in HASHES.items():
        place.environment["GRAVITON_HASH"] = algo
        blobs = [f"{algo}:{digest(content)}:{len(content)}" for content in contents()]
        put = place.put_all(sources)
        assert put == blobs, f"{put} instead of {blobs}"
        for blob, content in zip(blobs[-3:], list(contents())[-3:]):
            assert place.run("get", blob) == content, f"{blob} came out as something else"
        expected.update(expected_objects(prefix, algo))
    found, times = place.objects()
    store_id = found.pop(f"{prefix}store-id", b"none")
    assert len(store_id) == 33 and store_id.endswith(b"\n") and int(store_id, 16) >= 0, f"store-id is {store_id}"
    for key in sorted(found.keys() ^ expected.keys()):
        raise AssertionError(f"{key} is {'too much' if key in found else 'missing'}")
    for key, block in found.items():
        assert block == expected[key], f"{key} has other bytes"

    # Another put of everything writes nothing.
    place.put_all(sources)
    assert place.objects()[1] == times, "an object was written again"
    assert b"blobs" in place.run("stats")


def main():
    graviton = os.path.abspath(sys.argv[1])
    failed = done = 0
    with tempfile.TemporaryDirectory() as directory:
        sources = [Path(directory) / str(number) for number, _ in enumerate(contents())]
        for path, content in zip(sources, contents()):
            path.write_bytes(content)
        for name, endpoint in (("SeaweedFS", "GRAVITON_TEST_S3"), ("moto", "GRAVITON_TEST_MOTO")):
            for setting, prefix in PREFIXES:
                done += 1
                try:
                    check(os.environ[endpoint], graviton, sources, setting, prefix)
                    print(f"{name}, prefix {setting!r}: ok", flush=True)
                except AssertionError as error:
                    failed += 1
                    print(f"{name}, prefix {setting!r}: {error}", flush=True)
    print(f"s3_layout: {done - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
