#!/usr/bin/env python3
"""Runs the commands and programs of the documentation word for word.

In README.md and the pages of docs/, a comment says how to treat the block of code after it:

  <!-- run -->        an `sh` or `python` block is executed; Python is that of the virtual environment
                      `.venv`, which a command has made
  <!-- save NAME -->  the block becomes a file of that name, for the blocks after it
  <!-- file NAME -->  the block is the content of that file of the repository

Each page runs in its own copy of the checkout, in order, and leaves nothing behind here. The copies have the
same path, keep the times of the files, and share one target directory (CARGO_TARGET_DIR, by default ./target)
with the checkout. So cargo builds each program once for all pages, and not at all if the release exists.

Links must lead to an existing file and heading, and paths such as `graviton-core/src` must exist.

Needs PostgreSQL, and the ports that the pages name.

usage: tests/readme.py [PAGE ...]      all pages by default
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^<!-- (run|save|file)(?: (\S+))? -->\n+```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^<!-- (?:run|save|file)\b", re.MULTILINE)
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")
PATH = re.compile(r"`((?:graviton-\w+|tests|examples|docs|include)/[\w./-]*)[`\s]")
INTERPRETERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [".venv/bin/python", "-W", "error", "-c"]}
MUST_RUN = {"README.md", "docs/guide.md", "docs/operations.md"}
SECONDS_EACH = 1800
OURS = ("GRAVITON_", "QUASAR_", "MINIO_", "PG_")


def pages():
    yield "README.md"
    for path in sorted(REPOSITORY.glob("docs/*.md")):
        yield f"docs/{path.name}"
    for path in sorted(REPOSITORY.glob("*.md")):
        if path.name != "README.md":
            yield path.name


def fresh_copy(to, target):
    """Copies every file that is or could be committed. `target` becomes a link to the shared target
    directory."""
    shutil.rmtree(to, ignore_errors=True)
    listed = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY)
    for name in filter(None, listed.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, to / name)
    (to / "target").mkdir()
    (to / "target/release").symlink_to(target / "release")


def run(language, block, **options):
    """Runs a block. Returns the exit code."""
    process = subprocess.Popen([*INTERPRETERS[language], block], stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        return process.wait(SECONDS_EACH)
    except subprocess.TimeoutExpired:
        return f"none after {SECONDS_EACH} s"
    finally:
        end(process)


def end(process):
    """Asks it to stop its children, then kills the rest of its session."""
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


def anchors(text):
    """The anchors of the headings of a page, as on GitHub."""
    found = []
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        before = found.count(anchor)
        found.append(f"{anchor}-{before}" if before else anchor)
    return found


def broken_links(page):
    text = re.sub(r"^```.*?^```$", "", (REPOSITORY / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        path = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        if not path.exists():
            yield f"the link {link} leads to no file"
        elif anchor and anchor not in anchors(path.read_text()):
            yield f"the link {link} leads to no heading"
    if page != "CHANGELOG.md":
        for path in PATH.findall(text):
            if not (REPOSITORY / path).exists():
                yield f"there is no {path}"


def run_page(page, copy, environment):
    """The number of blocks that ran, and the failures."""
    text = (REPOSITORY / page).read_text()
    blocks = BLOCK.findall(text)
    ran, wrong = 0, list(broken_links(page))
    if len(COMMENT.findall(text)) != len(blocks):
        wrong.append("a comment is followed by no block")
    for action, name, language, block in blocks:
        if action == "save":
            (copy / name).write_text(block)
            print(f"{name}: {block.count(chr(10))} lines", flush=True)
        elif action == "file":
            if (copy / name).read_text() != block:
                wrong.append(f"the block is not the content of {name}")
        elif language not in INTERPRETERS:
            wrong.append(f"{language} cannot be run; is <!-- save NAME --> meant?")
        else:
            ran += 1
            print(f"{'$' if language == 'sh' else '>>>'} {block.rstrip()}", flush=True)
            start = time.monotonic()
            code = run(language, block, cwd=copy, env=environment)
            print(f"    {time.monotonic() - start:.0f} s", flush=True)
            if code != 0:
                wrong.append(f"exit code {code}")
                print(f"{page}: exit code {code}", flush=True)
    if page in MUST_RUN and not ran:
        wrong.append("no block is behind <!-- run -->")
    return ran, wrong


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).absolute()
    target.mkdir(parents=True, exist_ok=True)
    copy = target / "readme"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment["CARGO_TARGET_DIR"] = str(target)
    # Each block has its own shell, so a change of the path in one block is lost in the next.
    environment["PATH"] = f"{copy}/target/release:{environment['PATH']}"
    passed, failures = 0, []
    for page in sys.argv[1:] or pages():
        print(f"---- {page}", flush=True)
        fresh_copy(copy, target)
        ran, wrong = run_page(page, copy, environment)
        passed += ran
        failures += [f"{page}: {what}" for what in wrong]
    shutil.rmtree(copy, ignore_errors=True)
    for failure in failures:
        print(failure)
    print(f"docs: {passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
