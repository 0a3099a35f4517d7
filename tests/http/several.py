#!/usr/bin/env python3
"""Several servers on one PostgreSQL and one bucket, under puts, reads, deletions and collections, with one of
them killed (kill -9) every few seconds. At the end every blob that was acknowledged and not deleted is there,
byte for byte, and a deep verification finds nothing wrong.

usage: tests/servers tests/python tests/http/several.py graviton-server
"""
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import blake3
import httpx

sys.path.insert(0, str(Path(__file__).parent))
from server import Server

SERVERS, CLIENTS = 3, 6
SECONDS_BETWEEN_KILLS = 4


def settings():
    environment = os.environ
    database = f"several_{os.getpid()}"
    url = environment["GRAVITON_TEST_POSTGRES"]
    from subprocess import run
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/psql"))
    run([programs[-1] if programs else "psql", "--quiet", "--no-psqlrc", f"{url}/postgres", "-c", f"CREATE DATABASE {database}"],
        check=True)
    return ["GRAVITON_BLOB_BACKEND=minio", f"QUASAR_MINIO_URL={environment['GRAVITON_TEST_S3']}",
            f"MINIO_ROOT_USER={environment['GRAVITON_TEST_S3_USER']}",
            f"MINIO_ROOT_PASSWORD={environment['GRAVITON_TEST_S3_PASSWORD']}", "GRAVITON_S3_BLOCK_BUCKET=graviton-test",
            f"GRAVITON_S3_BLOCK_PREFIX={database}", f"GRAVITON_MANIFEST_URL={url}/{database}",
            "GRAVITON_CHUNKER=fastcdc:16384:65536:262144", "GRAVITON_HTTP_LOG=warn"]


class Load:
    """The knowledge of the clients: acknowledged blobs, and blobs that may be deleted or not."""

    def __init__(self, servers):
        self.servers, self.lock, self.ended = servers, threading.Lock(), threading.Event()
        self.there, self.unknown = {}, set()
        self.counts, self.wrong = {"put": 0, "get": 0, "delete": 0, "failed": 0}, []

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def client(self, seed):
        chance = random.Random(seed)
        with httpx.Client(timeout=60) as client:
            while not self.ended.is_set():
                try:
                    self.step(client, chance)
                except (httpx.TransportError, OSError):
                    # The server was killed, so a put without an acknowledgement may be there or not.
                    self.count("failed")
                    time.sleep(0.05)
                except Exception as error:
                    self.wrong.append(f"a client failed: {error!r}")
                    return

    def step(self, client, chance):
        url = chance.choice(self.servers).url
        dice = chance.random()
        with self.lock:
            known = list(self.there.items())
        if dice < 0.5 or len(known) < 10:
            # Common parts, so that blobs share blocks while they come and go.
            content = chance.randbytes(chance.choice([10, 5_000, 100_000]))
            content += random.Random(chance.randrange(20)).randbytes(200_000) * chance.randrange(3)
            blob = f"blake3:{blake3.blake3(content).hexdigest()}:{len(content)}"
            put = client.post(f"{url}/api/blobs", content=content)
            if put.status_code in (200, 201):
                if put.json() != blob:
                    self.wrong.append(f"put {blob} gave {put.text}")
                with self.lock:
                    self.there[blob] = content
                self.count("put")
            elif put.status_code != 503:
                self.wrong.append(f"put: {put.status_code} {put.text}")
        elif dice < 0.85:
            blob, content = chance.choice(known)
            got = client.get(f"{url}/api/blobs/{blob}")
            if got.status_code == 200 and got.content != content:
                self.wrong.append(f"{blob} came back altered")
            elif got.status_code == 404:
                with self.lock:
                    if blob in self.there:
                        self.wrong.append(f"{blob} is lost")
            elif got.status_code not in (200, 503):
                self.wrong.append(f"get: {got.status_code} {got.text}")
            self.count("get")
        elif dice < 0.97:
            # No other client may report it as lost.
            with self.lock:
                blob = chance.choice(list(self.there))
                del self.there[blob]
                self.unknown.add(blob)
            client.delete(f"{url}/api/blobs/{blob}")
            self.count("delete")
        else:
            client.post(f"{url}/api/admin/gc", json={"grace_seconds": 5})


def main():
    program = sys.argv[1]
    seconds = float(os.environ.get("GRAVITON_SEVERAL_SECONDS", "40"))
    with tempfile.TemporaryDirectory(prefix="graviton-several-") as work:
        work, shared = Path(work), settings()
        servers = [Server(program, work, shared, work / f"log{number}") for number in range(SERVERS)]
        load = Load(servers)
        clients = [threading.Thread(target=load.client, args=(seed,), daemon=True) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        kills, ending = 0, time.monotonic() + seconds
        while time.monotonic() < ending and not load.wrong:
            time.sleep(SECONDS_BETWEEN_KILLS)
            number = kills % SERVERS
            servers[number].kill()
            servers[number] = Server(program, work, shared, work / f"log{number}", servers[number].port)
            kills += 1
        load.ended.set()
        for client in clients:
            client.join(120)
        with httpx.Client(base_url=servers[0].url, timeout=300) as client:
            for blob, content in load.there.items():
                got = client.get(f"/api/blobs/{blob}")
                if got.status_code != 200 or got.content != content:
                    load.wrong.append(f"{blob} was acknowledged, and is {got.status_code} now")
            job = client.post("/api/admin/verify", json={"deep": True}).json()
            while job["state"] == "running":
                job = client.get(f"/api/admin/jobs/{job['id']}", params={"wait": 30}).json()
            if job["state"] != "done" or not job["report"]["clean"]:
                load.wrong.append(f"verify: {job}")
        for server in servers:
            if server.stop() != 0:
                load.wrong.append("a server did not end well")
    print(f"several: {kills} kills, {load.counts}, {len(load.there)} blobs at the end")
    if load.wrong or not load.counts["put"] or not load.counts["get"] or not kills:
        sys.exit("several:\n" + "\n".join(load.wrong[:20] or ["nothing was done"]))


if __name__ == "__main__":
    main()
