"""The exceptions: one class for each code, under :class:`GravitonError`.

Where Python has a built-in exception for the same failure, the class derives from it too, so that ``except
FileNotFoundError`` and ``except ValueError`` work.
"""

from __future__ import annotations

import builtins
import errno as _errno
import os
from typing import Any, ClassVar

from . import _graviton

__all__ = [
    "BackendUnavailableError",
    "CancelledError",
    "ClosedError",
    "ConfigError",
    "ConflictError",
    "CorruptBlockError",
    "CorruptDatabaseError",
    "DigestMismatchError",
    "ForbiddenError",
    "ForkedError",
    "GravitonError",
    "IntegrityError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidIdError",
    "IoError",
    "LatchedError",
    "LengthRequiredError",
    "MethodNotAllowedError",
    "MissingBlockError",
    "NoSpaceError",
    "NotFoundError",
    "OverloadedError",
    "QuotaExceededError",
    "RangeError",
    "RateLimitedError",
    "TimeoutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnsupportedError",
    "VersionError",
    "WriterExpiredError",
]


class GravitonError(Exception):
    """The base class of all errors of Graviton.

    ``str(error)`` is the message: the operation, its object, and the reason for the failure. ``advice`` says
    what to do, and appears below the message in a traceback.

    >>> try:
    ...     graviton.BlobId("blake3:no")
    ... except graviton.GravitonError as error:
    ...     error.code, error.retryable
    ('invalid-id', False)
    """

    code: ClassVar[str] = "internal"
    """The stable name of the error code, the same in every language."""

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without a change."""

    advice: str | None
    """The advice, one sentence."""

    errno: int | None
    """The operating system's error number that caused the failure, if any."""

    strerror: str | None
    """The operating system's text for this number."""

    filename: str | None
    """The file or directory concerned, if any."""

    def __init__(
        self,
        message: str = "",
        *,
        advice: str | None = None,
        errno: int | None = None,
        filename: str | None = None,
    ) -> None:
        super().__init__(message)
        self.advice = advice
        self.errno = errno
        self.strerror = None if errno is None else os.strerror(errno)
        self.filename = filename
        if advice:
            self.add_note(advice)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self.advice, self.errno, self.filename)


class InvalidArgumentError(GravitonError, ValueError):
    """An argument is invalid; the call did nothing."""


class InvalidIdError(GravitonError, ValueError):
    """The text is not a blob id."""


class NotFoundError(GravitonError, FileNotFoundError):
    """There is no such blob, file or store."""


class IntegrityError(GravitonError):
    """Stored or given content is wrong. The base class of the more specific errors."""


class DigestMismatchError(IntegrityError, ValueError):
    """The content does not match its id; it was not stored."""


class CorruptBlockError(IntegrityError):
    """The bytes of a block do not match its key. They were not returned."""


class MissingBlockError(IntegrityError):
    """A block that a blob needs is missing."""


class CorruptDatabaseError(IntegrityError):
    """The database is damaged, or another program changed it."""


class OverloadedError(GravitonError):
    """Too many operations at once; trying again may help."""


class ConflictError(GravitonError):
    """Something is in another state than the caller requires; the call did nothing."""


class TooLargeError(GravitonError, ValueError):
    """Larger than a limit allows."""


class RangeError(GravitonError, ValueError):
    """The range starts beyond the end of the blob."""


class UnauthorizedError(GravitonError, PermissionError):
    """The credentials are missing or wrong."""


class ForbiddenError(GravitonError, PermissionError):
    """The credentials or the operating system do not allow this."""


class BackendUnavailableError(GravitonError, ConnectionError):
    """The database or the block store does not answer; trying again may help."""


class WriterExpiredError(GravitonError):
    """The put lost the database for longer than its lease; put again."""


class NoSpaceError(GravitonError, OSError):
    """The disk is full."""


class QuotaExceededError(GravitonError, OSError):
    """A quota is used up."""


class MethodNotAllowedError(GravitonError):
    """The path does not have this HTTP method."""


class TimeoutError(GravitonError, builtins.TimeoutError):
    """It took too long."""


class LengthRequiredError(GravitonError):
    """A length is required."""


class UnsupportedError(GravitonError, NotImplementedError):
    """A known feature that is not supported here."""


class RateLimitedError(GravitonError):
    """Too many requests."""


class ConfigError(GravitonError, ValueError):
    """The settings are wrong, or contradict each other."""


class VersionError(GravitonError):
    """The store was written by a newer version."""


class ForkedError(GravitonError, RuntimeError):
    """The store was opened before ``fork``, by the parent process; open it again."""


class ClosedError(GravitonError, ValueError):
    """The store, reader or writer is closed."""


class CancelledError(GravitonError):
    """The call was cancelled."""


class IoError(GravitonError, OSError):
    """The operating system reported an input or output error."""


class LatchedError(GravitonError, OSError):
    """An earlier write failed, and this store refuses writes until it is opened again."""


class InternalError(GravitonError, RuntimeError):
    """A bug in Graviton."""


# The `OSError.errno` of errors that do not come from the operating system.
_ERRNO = {
    "not-found": _errno.ENOENT,
    "unauthorized": _errno.EACCES,
    "forbidden": _errno.EACCES,
    "no-space": _errno.ENOSPC,
    "quota-exceeded": _errno.EDQUOT,
    "timeout": _errno.ETIMEDOUT,
    "io": _errno.EIO,
    "latched": _errno.EIO,
}


def _class_of(code: str, name: str, retryable: bool) -> type[GravitonError]:
    found: type[GravitonError] = globals()[name]
    found.code = code
    found.retryable = retryable
    return found


_CLASSES = {code: _class_of(code, name, retryable) for code, name, retryable in _graviton.CODES}

for _name in __all__:
    globals()[_name].__module__ = "graviton"


def make(
    code: str,
    message: str,
    advice: str | None = None,
    errno: int | None = None,
    filename: str | None = None,
) -> GravitonError:
    """The exception for an error of the engine. Called from there."""
    errno = _ERRNO.get(code) if errno is None else errno
    return _CLASSES[code](message, advice=advice, errno=errno, filename=filename)


def _rebuild(
    kind: type[GravitonError],
    message: str,
    advice: str | None,
    errno: int | None,
    filename: str | None = None,
) -> GravitonError:
    return kind(message, advice=advice, errno=errno, filename=filename)
