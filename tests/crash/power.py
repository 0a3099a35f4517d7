"""Power cuts: every state of the disk after a cut in a workload, and the store's reaction to it."""
import os
import random
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

import disk
import trace


class Expected:
    """The output of the program under test, and the blobs that it promises."""

    def __init__(self):
        self.must, self.may, self.gone, self.phase, self.deleted = set(), set(), set(), "open", set()
        self.full, self.relaxed_before = True, False

    def hear(self, text):
        """True if this line adds an expectation."""
        what, _, step = text.partition(" ")
        verb, _, names = step.partition(" ")
        names = set(names.split("|")) - {""}
        if what == "begin":
            self.phase = verb
            if verb in ("put", "delete"):
                self.must -= names if verb == "delete" else set()
                self.may |= names - self.must
                self.gone -= names
                self.deleted -= names
            elif verb == "relaxed":
                self.full = False
            return False
        if what == "failed":
            return False
        if verb == "put":
            self.must |= names
            self.may -= names
            # A put of a store that is `full` again makes everything before it durable.
            self.full = self.full or self.durable_again
        elif verb == "delete":
            self.deleted |= names
            self.may -= names
        elif verb == "gc":
            self.gone |= self.deleted
            self.deleted = set()
        elif verb == "full":
            self.durable_again = True
            return False
        return True

    durable_again = False

    def line(self):
        lists = (",".join(sorted(names)) for names in (self.must, self.may, self.gone))
        return "{} must={} may={} gone={}".format("full" if self.full else "relaxed", *lists)


class Site:
    """A directory in memory in which a workload is recorded and each state is laid out, under the same path,
    because stores record their location; and the program that judges the states."""

    def __init__(self, program, within, layout):
        self.layout = layout
        self.environment = {**os.environ, "GRAVITON_BLOCK_LAYOUT": layout}
        self.place = Path(tempfile.mkdtemp(dir=within)).resolve()
        self.base, self.program = self.place / "base", program
        self.judge = None

    def record(self, workload):
        shutil.rmtree(self.base, ignore_errors=True)
        self.base.mkdir()
        command = [self.program, "run", self.base / "store", workload]
        calls = trace.record(command, self.place / "trace", self.environment)
        replay = trace.Replay(str(self.base))
        events = replay.run(calls)
        failed = [event[1] for event in events if event[0] == "say" and event[1].startswith("failed")]
        # Deleting a missing blob is no mistake here.
        if any("NotFound" not in line for line in failed):
            raise RuntimeError(f"{workload}: {failed}")
        return events, replay.labels

    def ask(self, tree, line):
        """Judges a tree. Returns the empty text if all is well."""
        shutil.rmtree(self.base, ignore_errors=True)
        self.base.mkdir()
        if "/store" in tree:
            # Space that nothing reads, so that not every state creates it again.
            tree = {**tree, "/store/reserve": b""}
        for path, data in sorted(tree.items()):
            at = Path(f"{self.base}{path}")
            if data is None:
                at.mkdir()
            else:
                at.write_bytes(data)
        return self.ask_here(line)

    def ask_here(self, line):
        """The same for the current tree."""
        if self.judge is None:
            self.judge = subprocess.Popen([self.program, "check", self.base / "store"], stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
                                          env=self.environment)
        print(line, file=self.judge.stdin)
        answer = self.judge.stdout.readline().strip()
        if not answer:
            said = self.judge.communicate()[1]
            self.judge = None
            return f"the program that judges ended: {said.strip()[-400:]}"
        return "" if answer == "ok" else answer


def cuts(events):
    """(Number of the event, the disk, the expectation) for each point where a cut may leave a new state."""
    now, expected = disk.Disk(), Expected()
    for number, event in enumerate(events):
        if event[0] == "say":
            if not expected.hear(event[1]):
                continue
        else:
            now.apply(event)
            if event[0] not in ("write", "cut", "name", "unname"):
                continue
        yield number, now, expected


def judge_cuts(site, events, most, wanted=lambda number: True, limit=None, seed=0, seen=None):
    """Cuts the power at every wanted point. Returns the number of judged states, and the first wrong one."""
    seen = set() if seen is None else seen
    judged = 0
    for number, now, expected in cuts(events):
        if not wanted(number):
            continue
        line = expected.line()
        for key, tree in now.states(most, random.Random(zlib.crc32(f"{seed}/{number}".encode()))):
            if (key, line) in seen:
                continue
            seen.add((key, line))
            judged += 1
            wrong = site.ask(tree, line)
            if wrong:
                return judged, f"power cut after event {number} ({expected.phase}): {wrong} [{line}]"
            if limit and judged >= limit:
                return judged, None
    return judged, None
