#!/usr/bin/env python3
"""A server under mixed load for any time (GRAVITON_SOAK_SECONDS), with flat memory and descriptors: the
largest figures of the second half are hardly above those of the first.

usage: tests/python tests/http/soak.py graviton-server
"""
import os
import random
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent))
from server import Server

CLIENTS = 8
MIB = 1 << 20


def client(server, seed, ended, failed):
    chance = random.Random(seed)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        known = []
        while not ended.is_set():
            try:
                dice = chance.random()
                if dice < 0.3 or not known:
                    content = random.Random(chance.randrange(200)).randbytes(chance.choice([100, 50_000, 3 * MIB]))
                    known.append(client.post("/api/blobs", content=content).raise_for_status().json())
                    known = known[-20:]
                elif dice < 0.7:
                    client.get(f"/api/blobs/{chance.choice(known)}", headers={"Range": "bytes=10-99999"})
                elif dice < 0.8:
                    client.get("/api/blobs/nonsense")
                elif dice < 0.9:
                    # A client that disconnects in the middle.
                    with client.stream("GET", f"/api/blobs/{chance.choice(known)}") as got:
                        next(got.iter_raw(), None)
                elif dice < 0.95:
                    with socket.create_connection(("127.0.0.1", server.port)) as raw:
                        raw.sendall(b"POST /api/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
                else:
                    client.get("/metrics")
            except Exception as error:
                failed.append(repr(error))
                return


def main():
    program = sys.argv[1]
    seconds = float(os.environ.get("GRAVITON_SOAK_SECONDS", "30"))
    with tempfile.TemporaryDirectory(prefix="graviton-soak-") as work:
        work = Path(work)
        with Server(program, work / "store", ["GRAVITON_HTTP_LOG=warn"], work / "log") as server:
            ended, failed, figures = threading.Event(), [], []
            clients = [threading.Thread(target=client, args=(server, seed, ended, failed), daemon=True) for seed in range(CLIENTS)]
            for one in clients:
                one.start()
            ending = time.monotonic() + seconds
            while time.monotonic() < ending and not failed:
                time.sleep(seconds / 60)
                figures.append((server.status("VmRSS"), server.status("fds")))
            ended.set()
            for one in clients:
                one.join(60)
            # The first sixth warms up caches.
            figures = figures[len(figures) // 6:]
            half = len(figures) // 2
            for name, index, spare in (("memory", 0, 48 * MIB), ("descriptors", 1, 40)):
                before = max(figure[index] for figure in figures[:half])
                after = max(figure[index] for figure in figures[half:])
                print(f"soak: {name} at most {before} in the first half, {after} in the second")
                if after > before * 1.2 + spare:
                    failed.append(f"{name} grows")
            if server.stop() != 0:
                failed.append("the server did not end well")
    if failed:
        sys.exit("soak: " + "; ".join(failed[:5]))


if __name__ == "__main__":
    main()
