#!/usr/bin/env python3
"""Contract tests that schemathesis makes from the OpenAPI document: no 5xx, every answer as documented,
malformed requests refused, and protected routes closed without a token. GRAVITON_CONTRACT_SECONDS is the
longest time that it runs. GRAVITON_CONTRACT_SEED repeats the requests of an earlier run; by default it is
random.

usage: tests/python tests/http/contract.py graviton-server
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from server import Server

HERE = Path(__file__).parent


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="graviton-contract-") as work:
        work = Path(work)
        command = [program, "token", "contract", "--scopes", "read,write,delete,admin", "--file", work / "tokens"]
        token = subprocess.check_output(command, text=True).strip()
        (work / "keys").write_text("0123456789abcdef0123456789abcdef")
        settings = [f"GRAVITON_HTTP_TOKENS={work / 'tokens'}", f"GRAVITON_HTTP_LINK_KEYS={work / 'keys'}"]
        with Server(program, work / "store", settings, work / "log") as server:
            seconds = os.environ.get("GRAVITON_CONTRACT_SECONDS", "120")
            seed = os.environ.get("GRAVITON_CONTRACT_SEED")
            again = ["--seed", seed] if seed else []
            # A request may wait for a job for 60 s, and a job that is deliberately slow takes longer.
            done = subprocess.run(
                [Path(sys.executable).with_name("schemathesis"), "--config-file", HERE / "schemathesis.toml", "run",
                 f"{server.url}/api/openapi.json", "--header", f"Authorization: Bearer {token}", "--max-time", seconds,
                 "--request-timeout", "90", *again],
                cwd=work)
            panics = [line for line in (work / "log").read_text().splitlines() if "panicked" in line]
            if panics:
                sys.exit("the server panicked:\n" + "\n".join(panics))
            if server.stop() != 0:
                sys.exit("the server did not end well")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
