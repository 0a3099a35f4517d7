"""The shared parts of the benchmarks: one process with its time and memory, two sides in turns, and the table
of ratios."""
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Run:
    """One finished process: its duration, its processor time, its largest resident memory, its output."""

    def __init__(self, command, stdout=subprocess.DEVNULL, cwd=None, env=None):
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=stdout, cwd=cwd,
                                   env=env)
        self.output = process.stdout.read().decode() if stdout == subprocess.PIPE else ""
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        self.processor = usage.ru_utime + usage.ru_stime
        # At least the memory of this process, which the kernel counts from before the exec.
        self.peak_mib = usage.ru_maxrss / 1024
        if process.returncode != 0:
            sys.exit(f"{Path(str(command[0])).name} failed: exit code {process.returncode}")


class Table:
    """Rows of ratios. Each row's two sides run in turns: the machine's noise hits both."""

    def __init__(self, pairs):
        self.count = pairs
        self.rows = []
        self.missed = 0
        self.notes = []
        self.load = os.getloadavg()[0]

    def turns(self, *sides):
        """Runs all sides in turns, each at every position of the order as often as the count allows. Returns
        the seconds of each."""
        for side in sides:
            side()
        times = [[] for _ in sides]
        for number in range(self.count):
            for place in range(len(sides)):
                which = (number + place + 1) % len(sides)
                subprocess.run(["sync"], check=True)        # so that nobody pays for the other's dirty pages
                times[which].append(sides[which]())
            last = ", ".join(f"{of[-1]:.3f} s" for of in times)
            print(f"  round {number + 1}: {last}", file=sys.stderr, flush=True)
        return times

    def row(self, what, peer, us, them, at_least=None, at_most=None):
        """A ratio of throughputs with a minimum, or of times with a maximum, or without a target."""
        ratios = [u / t if at_most else t / u for u, t in zip(us, them)]
        middle = statistics.median(ratios)
        target, met = "none", True
        if at_least:
            target, met = f">= {at_least}", middle >= at_least
        elif at_most:
            target, met = f"<= {at_most}", middle <= at_most
        self.add(what, f"{statistics.median(us):.3f} s", peer, f"{statistics.median(them):.3f} s", middle,
                 min(ratios), max(ratios), target, met)

    def add(self, what, us, peer, them, ratio, low, high, target, met):
        self.rows.append((what, us, peer, them, f"{ratio:.2f}", f"{low:.2f} to {high:.2f}", target,
                          "yes" if met else "NO"))
        self.missed += not met

    def print(self, aside=""):
        head = ("work", "graviton", "peer", "its figure", "ratio", "range", "target", "met")
        widths = [max(len(row[column]) for row in [head, *self.rows]) for column in range(len(head))]
        for row in [head, ["-" * width for width in widths], *self.rows]:
            print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |")
        print(f"\nmedians of {self.count} rounds; the range of a ratio is that of its rounds{aside}")
        for note in self.notes:
            print(note)
        print(f"load before and after: {self.load:.1f}, {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def release(*what):
    """Builds the release as it is shipped. Returns the directory of the build."""
    subprocess.run(["cargo", "build", "--profile", "dist", "--quiet", *what], cwd=REPOSITORY, check=True)
    return target() / "dist"


def target():
    """The target directory of cargo."""
    metadata = subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=REPOSITORY)
    return Path(json.loads(metadata)["target_directory"])


def random_file(path, mebibytes):
    """A file of random bytes in the page cache, made if it does not exist."""
    if not path.exists():
        with open(path, "wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1 << 20))
        subprocess.run(["sync"], check=True)
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
    return path


def need_disk(place, gibibytes):
    """Exits if the directory is unsuitable for measurements."""
    place.mkdir(parents=True, exist_ok=True)
    have = os.statvfs(place)
    have = have.f_bavail * have.f_frsize / 2**30
    if have < gibibytes + 2:
        sys.exit(f"{place} has {have:.0f} GiB free and the benchmark takes {gibibytes:.0f}: "
                 "set GRAVITON_BENCH_DIR or a smaller GRAVITON_BENCH_MIB")
    if subprocess.check_output(["stat", "-f", "-c", "%T", place], text=True).strip() in ("tmpfs", "ramfs"):
        sys.exit(f"{place} is in memory, where a sync costs nothing: set GRAVITON_BENCH_DIR")
