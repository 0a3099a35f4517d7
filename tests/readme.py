#!/usr/bin/env python3
"""Runs the README's commands and programs word for word: every ```sh or ```python block that follows the comment
`<!-- run -->`. Programs run in the virtual environment `.venv`, which a command has made. A block that follows
`<!-- save NAME -->` is a file of that name for those after it.

They run in order, in one copy of the checkout, so that they leave nothing behind here. A test of the README's own:
a README without such a block fails. Needs PostgreSQL, and some ports that the README names.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^<!-- (?:run|save (\S+)) -->\n+```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INTERPRETERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [".venv/bin/python", "-W", "error", "-c"]}
SECONDS_EACH = 1800
OURS = ("GRAVITON_", "QUASAR_", "MINIO_", "PG_")


def fresh_copy(to):
    """What is or could be committed. The place and the times stay the same, so that cargo builds it once."""
    shutil.rmtree(to, ignore_errors=True)
    listed = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY)
    for name in filter(None, listed.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, to / name)


def run(language, block, **options):
    """The exit code."""
    process = subprocess.Popen([*INTERPRETERS[language], block], stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        return process.wait(SECONDS_EACH)
    except subprocess.TimeoutExpired:
        return f"none after {SECONDS_EACH} s"
    finally:
        end(process)


def end(process):
    """First so that it can stop what it started, then with all that is left of it."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    blocks = BLOCK.findall((REPOSITORY / "README.md").read_text())
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).absolute()
    copy = target / "readme"
    fresh_copy(copy)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment["CARGO_TARGET_DIR"] = str(target)
    failed = 0
    for name, language, block in blocks:
        if name:
            (copy / name).write_text(block)
            print(f"{name}: {block.count(chr(10))} lines", flush=True)
            continue
        if language not in INTERPRETERS:
            failed += 1
            print(f"README.md: {language} cannot be run; is <!-- save NAME --> meant?", flush=True)
            continue
        print(f"{'$' if language == 'sh' else '>>>'} {block.rstrip()}", flush=True)
        code = run(language, block, cwd=copy, env=environment)
        if code != 0:
            failed += 1
            print(f"README.md: exit code {code}", flush=True)
    shutil.rmtree(copy, ignore_errors=True)
    if not blocks:
        failed = 1
        print("README.md has no block behind <!-- run -->")
    ran = sum(not name for name, _, _ in blocks)
    print(f"readme: {ran - failed if blocks else 0} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
