#!/usr/bin/env python3
"""The server in a real browser: a page of another origin fetches with Range, and the documentation at /docs
loads nothing from other origins. Chromium runs both and prints the results.

usage: tests/python tests/http/browser.py graviton-server
"""
import http.server
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from pathlib import Path

import blake3
import httpx

sys.path.insert(0, str(Path(__file__).parent))
from server import Server

PAGE = """<!doctype html><title>test</title><pre id="result">nothing</pre><script>
(async () => {
  const say = text => document.getElementById("result").textContent = text;
  try {
    const part = await fetch("URL", {headers: {Range: "bytes=1000-1999"}});
    const bytes = new Uint8Array(await part.arrayBuffer());
    const whole = await (await fetch("URL")).arrayBuffer();
    const put = await fetch("BASE/api/blobs", {method: "POST", body: whole});
    const wrong = await fetch("BASE/api/blobs/x");
    say(JSON.stringify({status: part.status, range: part.headers.get("content-range"), etag: part.headers.get("etag"),
      sum: bytes.reduce((sum, byte) => sum + byte, 0), size: whole.byteLength, put: await put.json(),
      code: (await wrong.json()).code}));
  } catch (error) { say(String(error)); }
})();
</script>"""


def main():
    program = sys.argv[1]
    content = random.Random(2).randbytes(3_000_000)
    blob = f"blake3:{blake3.blake3(content).hexdigest()}:{len(content)}"
    with tempfile.TemporaryDirectory(prefix="graviton-browser-") as work:
        pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        origin = f"http://127.0.0.1:{pages.server_port}"
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        with Server(program, Path(work) / "store", [f"GRAVITON_HTTP_CORS={origin}"]) as server:
            httpx.post(f"{server.url}/api/blobs", content=content).raise_for_status()
            Page.text = PAGE.replace("URL", f"{server.url}/api/blobs/{blob}").replace("BASE", server.url)
            document = chromium(work, origin).stdout
            check_docs(work, server.url)
        check_pictures(program, work)
        pages.shutdown()
    said = re.search('<pre id="result">(.*?)</pre>', document, re.DOTALL)
    result = said.group(1).replace("&quot;", '"') if said else document
    expected = {"status": 206, "range": f"bytes 1000-1999/{len(content)}", "etag": f'"{blob}"', "sum": sum(content[1000:2000]),
                "size": len(content), "put": blob, "code": "invalid-id"}
    if not result.startswith("{") or json.loads(result) != expected:
        sys.exit(f"browser: {result}\nexpected {expected}")
    print("browser: fetch of a range, of the whole, a put and a failure, from another origin")


PICTURES = """<!doctype html><title>test</title><pre id="result">nothing</pre><script>
(async () => {
  const load = source => new Promise(done => {
    const picture = new Image();
    picture.onload = () => done("loaded");
    picture.onerror = () => done("refused");
    picture.src = source;
  });
  document.getElementById("result").textContent = await load("URL");
})();
</script>"""

def pixel():
    """A PNG of one white pixel."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\xff")) + chunk(b"IEND", b""))


def check_pictures(program, work):
    """A page of another origin cannot find out whether a blob is stored by loading it, unless it is
    allowed."""
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    origin = f"http://127.0.0.1:{pages.server_port}"
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    for settings, expected in (([], "refused"), (["GRAVITON_HTTP_CORS=*"], "loaded")):
        with Server(program, Path(work) / f"pictures {expected}", settings) as server:
            blob = httpx.post(f"{server.url}/api/blobs", content=pixel()).raise_for_status().json()
            Page.text = PICTURES.replace("URL", f"{server.url}/api/blobs/{blob}?type=image/png")
            document = chromium(work, origin).stdout
            if f'<pre id="result">{expected}</pre>' not in document:
                sys.exit(f"browser: a picture of another origin is not {expected}:\n{document}")
    check_links(program, work, origin)
    pages.shutdown()
    print("browser: a blob is no picture for pages of other origins, unless they may or have a link")


def check_links(program, work, origin):
    """A page of another origin shows a blob of a server with tokens, if it has a link."""
    keys, tokens = Path(work) / "keys", Path(work) / "tokens"
    keys.write_text("0123456789abcdef0123456789abcdef")
    command = [program, "token", "page", "--scopes", "read,write", "--file", tokens]
    token = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    settings = [f"GRAVITON_HTTP_TOKENS={tokens}", f"GRAVITON_HTTP_LINK_KEYS={keys}"]
    with Server(program, Path(work) / "links", settings) as server:
        known = {"Authorization": f"Bearer {token}"}
        blob = httpx.post(f"{server.url}/api/blobs", content=pixel(), headers=known).raise_for_status().json()
        address = f"{server.url}/api/blobs/{blob}"
        link = httpx.post(f"{address}/links?type=image/png", headers=known).raise_for_status().json()["url"]
        for source, expected in ((f"{address}?type=image/png", "refused"), (link, "loaded")):
            Page.text = PICTURES.replace("URL", source)
            document = chromium(work, origin).stdout
            if f'<pre id="result">{expected}</pre>' not in document:
                sys.exit(f"browser: {source} is not {expected}:\n{document}")


def chromium(work, address, *flags):
    """Opens a page, waits for its scripts, and prints the resulting document."""
    command = ["chromium", "--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={work}/profile",
               "--virtual-time-budget=20000", "--enable-logging=stderr", *flags, "--dump-dom", address]
    return subprocess.run(command, env={**os.environ, "HOME": work}, capture_output=True, text=True, timeout=120)


def check_docs(work, url):
    """The page shows every route, its Markdown is rendered, and it sends no request to another origin."""
    log = Path(work) / "net-log.json"
    done = chromium(work, f"{url}/docs#not-found", f"--log-net-log={log}")
    document = httpx.get(f"{url}/api/openapi.json").raise_for_status().json()
    shown = [*(f'data-path="{path}"' for path in document["paths"]), "<code>/api/v1/</code>", "btn authorize",
             '<tr id="not-found">']
    missing = [text for text in shown if text not in done.stdout]
    if missing:
        sys.exit(f"browser: /docs does not show {missing}:\n{done.stderr}\n{done.stdout}")
    if "Refused to" in done.stderr or "violates" in done.stderr or "Uncaught" in done.stderr:
        sys.exit(f"browser: /docs wants what it may not have, or fails:\n{done.stderr}")
    requests = [event["params"] for event in json.loads(log.read_text())["events"] if "url" in event.get("params", {})]
    asked = {request["url"] for request in requests if url in (request.get("initiator"), request["url"][:len(url)])}
    foreign = [address for address in asked if not address.startswith((f"{url}/", "data:"))]
    if foreign or f"{url}/docs/swagger-ui.js" not in asked or f"{url}/api/openapi.json" not in asked:
        sys.exit(f"browser: /docs asked for {sorted(asked)}, of other origins {foreign}")
    print(f"browser: /docs shows {len(document['paths'])} paths and asks only its own server, {len(asked)} times")


class Page(http.server.BaseHTTPRequestHandler):
    text = ""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    main()
