"""A graviton-server for one test: started on a free port, and ended when it is no longer needed."""
import ctypes
import os
import signal
import subprocess

PR_SET_PDEATHSIG = 1
OURS = ("GRAVITON_", "QUASAR_", "MINIO_", "PG_")


def _dies_with_us():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Server:
    """Runs until the end of a `with` block. `settings` are NAME=VALUE pairs for --set."""

    def __init__(self, program, root, settings=(), log=None, port=0):
        command = [program, "--root", str(root), "--set", f"GRAVITON_HTTP_PORT={port}"]
        for setting in settings:
            command += ["--set", setting]
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(OURS) or name.startswith("GRAVITON_TEST_")}
        self.log = open(log or os.devnull, "ab")
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.log, preexec_fn=_dies_with_us)
        # The first line has the address, or the output ends.
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on "):
            raise SystemExit(f"graviton-server did not start: {self.process.wait()}")
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=60):
        """Stops it with SIGTERM. Returns its exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def status(self, name):
        """A figure of /proc: VmRSS in bytes, or the number of open descriptors as `fds`."""
        process = self.process.pid
        if name == "fds":
            return len(os.listdir(f"/proc/{process}/fd"))
        with open(f"/proc/{process}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name + ":"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            try:
                self.stop(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process.stdout.close()
        self.log.close()
