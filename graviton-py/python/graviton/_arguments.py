"""Checks of arguments that several calls of a store take."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from ._errors import make

# Beyond every possible size and offset.
FAR = (1 << 63) - 1


def mode(read_only: bool, create: bool) -> str:
    """The mode in which the engine opens a store."""
    if read_only:
        return "read"
    return "create" if create else "existing"


def span(offset: int, length: int) -> tuple[int, int]:
    """The offset and the length of a range, limited to the engine's largest number."""
    if offset < 0 or length < 0:
        raise make("invalid-argument", f"cannot read {length} bytes at {offset}", "give numbers of 0 or more")
    return min(offset, FAR), min(length, FAR)


def texts(ids: Iterable[str]) -> list[str]:
    """The ids; a single id is refused."""
    if isinstance(ids, str):
        raise TypeError("give an iterable of ids, such as [id]")
    return list(ids)


def seconds(name: str, time: timedelta | float | None) -> float | None:
    """A length of time in seconds."""
    if time is None:
        return None
    count = time / timedelta(seconds=1) if isinstance(time, timedelta) else time
    if not isinstance(count, (int, float)):
        raise TypeError(f"{name} is seconds or a timedelta, not {type(time).__name__}")
    if not 0 <= count < FAR:
        raise make("invalid-argument", f"{name} cannot be {count} seconds", "give a number of 0 or more")
    return count


def limit(name: str, count: int | None, most: int = FAR) -> int | None:
    """The limit, at most ``most``."""
    if count is None:
        return None
    if count < 0:
        raise make("invalid-argument", f"{name} cannot be {count}", "give a number of 0 or more")
    return min(count, most)
