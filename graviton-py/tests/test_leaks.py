"""Memory does not grow, however often everything is called: `GRAVITON_PY_CALLS=1000000` is the long leg."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = int(os.environ.get("GRAVITON_PY_CALLS", "12000"))
# Memory that allocators keep. A leak of 100 bytes per call exceeds it in the long leg, and a leak of one
# object per cycle in the short leg.
SLACK = 6 << 20


@pytest.mark.usefixtures("_long")
def test_resident_memory_stays_flat(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("leaks.py")), str(CALLS), str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    calls, before, grown = map(int, done.stdout.split())
    print(f"{calls} calls: {before >> 20} MiB, grown by {grown >> 10} KiB")
    assert grown < SLACK


@pytest.fixture
def _long() -> None:
    """The long leg takes longer than the limit for hanging tests."""
    import faulthandler

    faulthandler.cancel_dump_traceback_later()
