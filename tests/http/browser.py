#!/usr/bin/env python3
"""A browser's fetch with Range, from a page of another origin: chromium runs the page below and prints what became of it.

usage: tests/python tests/http/browser.py graviton-server
"""
import http.server
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
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
            command = ["chromium", "--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={work}/profile",
                       "--virtual-time-budget=20000", "--dump-dom", origin]
            document = subprocess.run(command, env={**os.environ, "HOME": work}, capture_output=True, text=True,
                                      timeout=120).stdout
        pages.shutdown()
    said = re.search('<pre id="result">(.*?)</pre>', document, re.DOTALL)
    result = said.group(1).replace("&quot;", '"') if said else document
    expected = {"status": 206, "range": f"bytes 1000-1999/{len(content)}", "etag": f'"{blob}"', "sum": sum(content[1000:2000]),
                "size": len(content), "put": blob, "code": "invalid-id"}
    if not result.startswith("{") or json.loads(result) != expected:
        sys.exit(f"browser: {result}\nexpected {expected}")
    print("browser: fetch of a range, of the whole, a put and a failure, from another origin")


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
