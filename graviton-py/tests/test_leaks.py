"""Memory stays where it is, however often everything is called: `GRAVITON_PY_CALLS=1000000` is the long leg."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = int(os.environ.get("GRAVITON_PY_CALLS", "12000"))
# What allocators keep; a leak of a hundred bytes a call is more in the long leg, of one object a cycle in the short.
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
    """The long leg takes longer than anything that hangs."""
    import faulthandler

    faulthandler.cancel_dump_traceback_later()
