"""Failing system calls: each call that changes the disk fails once, at each of its occurrences in a workload.

The program must end by itself. Its steps must be done or have failed with a fitting error, say `latched` or
the I/O error after a failed sync, and it must never panic. Everything that it acknowledged must be there, and
everything that is judged after a power cut is judged here too.
"""
import collections
import random
import re
import shutil
import subprocess

import power

WORKLOADS = ("put A; put B; delete A; gc; put D", "put C; delete C; gc; put A|B")
CALLS = ("openat", "write", "pwrite64", "pwritev", "fallocate", "fsync", "fdatasync", "syncfs", "linkat", "renameat", "renameat2", "unlink", "unlinkat",
         "mkdir", "ftruncate")
SYNCS = ("fsync", "fdatasync", "syncfs")
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "EROFS")
# `NotFound` comes from deleting a blob that could not be put.
FITTING = {"Io", "NoSpace", "QuotaExceeded", "Latched", "BackendUnavailable", "Forbidden", "NotFound", "Config"}
SECONDS = 30


def sensible(call, error):
    """Whether a call can fail with this error."""
    if call in SYNCS:
        return error in ("EIO", "ENOSPC", "EDQUOT")
    return error != "EMFILE" or call == "openat"


def run(site, workload, *options):
    shutil.rmtree(site.base, ignore_errors=True)
    site.base.mkdir()
    command = ["strace", "-f", "-qq", "-y", "-e", "signal=none", "-e", "trace=" + ",".join(CALLS), *options,
               "-o", site.place / "trace", site.program, "run", site.base / "store", workload]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=SECONDS, env=site.environment)
    return done, (site.place / "trace").read_text(errors="replace")


def tasks(site, most, seed):
    """[(workload, call, error, occurrence)], at most this many, with an equal share for each call and
    error."""
    found = collections.defaultdict(list)
    for workload in WORKLOADS:
        _, trace = run(site, workload)
        # Each thread counts occurrences separately, so the same number may strike in several.
        counts, elsewhere, here = collections.Counter(), set(), set()
        for line in trace.splitlines():
            if match := re.match(r"(\d+) +(\w+)\(", line):
                counts[match.groups()] += 1
                at = (match.group(2), counts[match.groups()])
                # Writes to standard output do not fail, nor do opens of the dynamic loader.
                (here if str(site.base) in line else elsewhere).add(at)
        for call, occurrence in sorted(here - elsewhere):
            for how in [f"error={error}" for error in ERRORS if sensible(call, error)]:
                found[call, how].append((workload, call, how, occurrence))
    chance = random.Random(seed)
    for each in found.values():
        chance.shuffle(each)
    kinds = sorted(found)
    chosen = []
    for turn in range(max(map(len, found.values()))):
        chosen.extend(found[kind][turn] for kind in kinds if turn < len(found[kind]))
    return chosen[:most] if most else chosen


def fail_calls(site, workload, call, how, occurrence):
    """The name of the run, 1, whether a step failed, and what is wrong."""
    name = f"{call} {how} at {occurrence} of: {workload}"
    try:
        done, trace = run(site, workload, "-e", f"inject={call}:{how}:when={occurrence}")
    except subprocess.TimeoutExpired:
        return name, 1, 0, f"it did not end within {SECONDS} s"
    struck = [line for line in trace.splitlines() if "(INJECTED)" in line]
    if not all(str(site.base) in line for line in struck):
        # The fault struck another thread, on a file that is not in the store.
        return name, 1, 0, None
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith("failed")]
    wrong = judge(site, done, lines, failed, call, trace)
    return name, 1, int(bool(failed)), wrong and f"{wrong} {failed}"


def judge(site, done, lines, failed, call, trace):
    if done.returncode != 0 or "panicked" in done.stderr or not lines or lines[-1] != "done close":
        return f"it ended with {done.returncode}: {done.stderr.strip()[-300:]}"
    codes = [re.match(r"failed [^:]*: (\w+):", line).group(1) for line in failed]
    if not set(codes) <= FITTING:
        return "another error was to be expected"
    expected = power.Expected()
    for number, line in enumerate(lines):
        expected.hear(line)
        if line.startswith("failed open"):
            line = lines[number - 1].replace("begin", "failed") + ":"
        if line.startswith("failed put"):
            # One of two concurrent puts may be there.
            names = set(re.match(r"failed put ([\w|]+)", line).group(1).split("|"))
            expected.may |= names - expected.must
        elif line.startswith("failed delete"):
            name = line.split()[2].rstrip(":")
            expected.may |= {name} - expected.deleted - expected.gone
        elif line.startswith("failed gc"):
            expected.may |= expected.deleted
    # A collection that could not delete something reports it and leaves it to the next one.
    expected.gone = set() if failed or "INJECTED" in trace else expected.gone
    if call in SYNCS:
        # Only until the store is closed; after a failed opening nothing can be latched.
        at = next((number for number, line in enumerate(lines) if re.match(r"failed (?!open)[^:]*: Io:", line)), len(lines))
        if any(line.startswith("done put") for line in lines[at:]):
            return "a sync failed, and a later put of the same store did not"
    return site.ask_here(expected.line())
