"""Progress of long calls: shown by tqdm, passed to a function, or neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from typing import Self

Progress: TypeAlias = bool | Callable[[int, int | None], object] | None
"""``True`` for a bar, if tqdm is installed, or a function of the work done and the total (``None`` if
unknown). An exception in the function ends the call.
"""


class Meter:
    """Counts the work that is done, and reports it. ``unit`` is ``B`` for bytes."""

    def __init__(self, progress: Progress, what: str, total: int | None, unit: str = "B") -> None:
        if progress and progress is not True and not callable(progress):
            raise TypeError(f"progress is True or a function, not {type(progress).__name__}")
        self._tell = progress if callable(progress) else None
        self._total = total
        self._done = 0
        self._bar: Any = None
        if progress is True:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, desc=what, unit=unit, unit_scale=True, unit_divisor=1024 if unit == "B" else 1000)

    @property
    def active(self) -> bool:
        """Whether anything receives the progress."""
        return self._bar is not None or self._tell is not None

    def add(self, count: int) -> None:
        """Add ``count`` to the work that is done."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """Set the work that is done."""
        if self._bar is not None:
            self._bar.update(done - self._done)
        self._done = done
        if self._tell is not None:
            self._tell(done, self._total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._bar is not None:
            self._bar.close()
