#!/usr/bin/env python3
"""graviton-server behind a real nginx that publishes it under a path. Each client has its own limits and its
own address in the log, and every address from the server leads back through nginx.

usage: tests/python tests/http/proxy.py graviton-server
"""
import concurrent.futures
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent))
from server import Server

CLIENTS = 60
MIB = 1 << 20
TOO_LONG = 60


def nginx(work, server):
    """Starts nginx. Returns its address and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = work / "nginx.conf"
    configuration.write_text(f"""
        daemon off; worker_processes 1; pid {work}/nginx.pid; error_log {work}/nginx.log warn;
        events {{ worker_connections 1024; }}
        http {{ access_log off; client_max_body_size 0;
            client_body_temp_path {work}/body; proxy_temp_path {work}/temporary; fastcgi_temp_path {work}/fastcgi;
            uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
            server {{ listen 127.0.0.1:{port};
                location /data/store/ {{
                    proxy_pass http://127.0.0.1:{server.port};
                    proxy_http_version 1.1; proxy_request_buffering off;
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    proxy_set_header X-Forwarded-Host $http_host;
                    proxy_set_header X-Forwarded-Proto $scheme;
                }} }} }}""")
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    process = subprocess.Popen([program, "-c", configuration, "-e", work / "nginx.log"], stdin=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/data/store"
    for _ in range(400):
        try:
            if httpx.get(f"{address}/api/health").status_code == 200:
                return address, process
        except httpx.TransportError:
            time.sleep(0.05)
    sys.exit("nginx did not start: " + (work / "nginx.log").read_text())


def client(number, **options):
    """A client with its own address, which claims another one."""
    transport = httpx.HTTPTransport(local_address=f"127.0.1.{number}")
    return httpx.Client(transport=transport, timeout=TOO_LONG, headers={"X-Forwarded-For": "192.0.2.1"}, **options)


def upload_at_once(server, address, expected):
    """All clients upload at once. Returns the number of accepted uploads. An upload ends when the expected
    number of uploads is running and all others have been refused. Until then it keeps sending, so that it is
    not cut off as slow."""
    over = threading.Event()

    def content(number):
        yield number.to_bytes(4) * (MIB // 4)
        while not over.wait(0.2):
            yield bytes(4096)

    def upload(number):
        with client(number) as one:
            return one.post(f"{address}/api/blobs", content=content(number)).status_code

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as all_at_once:
        uploads = [all_at_once.submit(upload, number) for number in range(1, CLIENTS + 1)]
        deadline = time.monotonic() + TOO_LONG
        while time.monotonic() < deadline:
            metrics = httpx.get(f"{server.url}/metrics").text
            refused = re.findall(r'graviton_http_requests_total\{[^}]*status="503"[^}]*\} (\d+)', metrics)
            under_way = f"graviton_uploads {expected}\n" in metrics
            if under_way and sum(map(int, refused)) == CLIENTS - expected:
                break
            time.sleep(0.2)
        over.set()
        # nginx may turn a 503 that came before the end of the upload into a 502.
        return [one.result() for one in uploads].count(201)


def check_addresses(server, address, log):
    content = b"found again" * 1000
    with client(9, base_url=address) as one:
        stored = one.post("/api/blobs", content=content)
        blob, location = stored.json(), stored.headers["location"]
        for found in (location, f"/data/store/api/v1/blobs/{blob}"):
            if httpx.get(address.removesuffix("/data/store") + found).content != content:
                sys.exit(f"proxy: {found} does not lead to the blob")
        link = one.post(f"/api/blobs/{blob}/links?type=text/plain").json()["url"]
        if not link.startswith(address) or httpx.get(link).content != content:
            sys.exit(f"proxy: the link {link} does not lead to the blob")
        problem = one.get("/api/blobs/nonsense").json()
        if problem["type"] != "/data/store/docs#invalid-id":
            sys.exit(f"proxy: {problem}")
        page = one.get("/docs").text
        for found in re.findall('(?:src|href)="([^"]+)"', page):
            one.get(f"/{found}").raise_for_status()
    peers = set(re.findall(r"peer=(\S+)", log.read_text()))
    if "127.0.1.9" not in peers or "192.0.2.1" in peers:
        sys.exit(f"proxy: the log names {sorted(peers)}")


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="graviton-proxy-") as work:
        work = Path(work)
        (work / "keys").write_text("0123456789abcdef0123456789abcdef")
        settings = ["GRAVITON_HTTP_PREFIX=/data/store", f"GRAVITON_HTTP_LINK_KEYS={work / 'keys'}"]
        trusted = "GRAVITON_HTTP_TRUSTED_PROXIES=127.0.0.1"
        for name, more, expected in (("known", [trusted], CLIENTS), ("unknown", [], 48)):
            log = work / f"{name}.log"
            with Server(program, work / name, settings + more, log) as server:
                address, process = nginx(work, server)
                try:
                    stored = upload_at_once(server, address, expected)
                    if stored != expected:
                        sys.exit(f"proxy: behind a nginx that is {name} {stored} uploads were stored, not {expected}")
                    if more:
                        check_addresses(server, address, log)
                finally:
                    process.terminate()
                    process.wait()
    print(f"proxy: {CLIENTS} clients behind nginx upload at once, and all addresses lead back through it")


if __name__ == "__main__":
    main()
