"""Blobs as binary files: one to read, one to write."""

from __future__ import annotations

import errno
import io
import os
import warnings
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from . import _graviton
from ._errors import ClosedError, ForkedError, InvalidArgumentError, make
from ._id import BlobId
from ._reports import PutReceipt

if TYPE_CHECKING:
    from typing import BinaryIO, Self

    from typing_extensions import Buffer

__all__ = ["BlobReader", "BlobWriter"]

_MOST = (1 << 64) - 1


if TYPE_CHECKING:
    # Like typeshed's files of the standard library, so that these are accepted as `BinaryIO`.
    class _RawIO(io.RawIOBase, BinaryIO):
        def __enter__(self) -> Self: ...

    class _BufferedIO(io.BufferedIOBase, BinaryIO):
        def __enter__(self) -> Self: ...

else:
    _RawIO, _BufferedIO = io.RawIOBase, io.BufferedIOBase


class OffsetError(InvalidArgumentError, OSError):
    """An offset before the start. Files of the standard library raise :class:`OSError` for it, and code that
    looks for the start expects it."""


class BlobReader(_RawIO):
    """A blob being read: a verified binary file.

    :meth:`Store.open` returns one, inside an :class:`io.BufferedReader` unless told otherwise. It may be used
    from several threads, one at a time. It works for the grace period after its blob was deleted.

    >>> id = store.put(b"hello, graviton")
    >>> with store.open(id, buffering=0) as file:
    ...     file.seek(-8, 2), file.read()
    (7, b'graviton')
    """

    def __init__(self, id: BlobId, reader: _graviton.Reader) -> None:
        super().__init__()
        self._id = id
        self._reader = reader

    @property
    def id(self) -> BlobId:
        """The blob that is read."""
        return self._id

    @property
    def name(self) -> str:
        """The text of the id, for code that asks a file for its name."""
        return str(self._id)

    @property
    def mode(self) -> str:
        """The mode, ``rb``."""
        return "rb"

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._reader.size

    def readable(self) -> bool:
        """Return ``True``."""
        self._check()
        return True

    def seekable(self) -> bool:
        """Return ``True``."""
        self._check()
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read bytes into the buffer until it is full or the blob ends, and return their number."""
        return self._reader.readinto(buffer)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; by default all that are left."""
        return self._reader.read(_MOST if size is None or size < 0 else min(size, _MOST))

    def readall(self) -> bytes:
        """Return the remaining bytes."""
        return self.read()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move, and return the new position. Reads beyond the end return nothing. A position before the start
        raises an :class:`OSError` with ``EINVAL``, as for a file of the standard library."""
        if not -(1 << 63) <= offset < 1 << 63 or whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise make("invalid-argument", f"cannot move to {offset} from {whence}", "see io.IOBase.seek")
        try:
            return self._reader.seek(offset, whence)
        except InvalidArgumentError as error:
            raise OffsetError(str(error), advice=error.advice, errno=errno.EINVAL) from None

    def tell(self) -> int:
        """Return the position."""
        return self._reader.seek(0, os.SEEK_CUR)

    def write(self, data: Buffer, /) -> int:
        """Refuse: blobs never change."""
        raise io.UnsupportedOperation("a blob that is being read cannot be written to")

    def close(self) -> None:
        """Close the reader."""
        if not self.closed:
            try:
                # A forked child releases nothing: the reader belongs to the parent.
                with suppress(ForkedError):
                    self._reader.close()
            finally:
                super().close()

    def _check(self) -> None:
        if self.closed:
            raise ClosedError("the reader is closed")

    def __repr__(self) -> str:
        return f"<graviton.BlobReader of {self._id}{', closed' if self.closed else ''}>"


class BlobWriter(_BufferedIO):
    """A blob being written: a sequential binary file.

    The blob becomes visible when the file is closed. ``with`` closes it or, after an exception, aborts it,
    which leaves no blob; the next :meth:`Store.gc` frees blocks that were written. A writer that is
    garbage-collected aborts too, with a :class:`ResourceWarning`. Closing it inside its ``with``, as an
    :class:`io.TextIOWrapper` around it does, only ends the writing; the end of the ``with`` decides whether
    the blob is stored. It may be used from several threads, one at a time.

    >>> with store.writer() as file:
    ...     file.write(b"hello, ")
    ...     file.write(b"graviton")
    7
    8
    >>> file.id.size, file.receipt.created
    (15, True)
    """

    def __init__(self, writer: _graviton.Writer) -> None:
        super().__init__()
        self._writer: _graviton.Writer | None = writer
        self._receipt: PutReceipt | None = None
        self._failure: BaseException | None = None
        self._withs = 0

    @property
    def name(self) -> str:
        """The text of the id, for code that asks a file for its name; empty before it is closed."""
        return "" if self._receipt is None else str(self._receipt.id)

    @property
    def mode(self) -> str:
        """The mode, ``wb``."""
        return "wb"

    @property
    def receipt(self) -> PutReceipt:
        """The receipt, once it is closed."""
        if self._receipt is None:
            if self._writer is not None:
                when = "the end of its with" if self._withs else "its writer is closed"
                raise ValueError(f"the blob has no id before {when}")
            raise ClosedError("nothing was stored: the writer was aborted") from self._failure
        return self._receipt

    @property
    def id(self) -> BlobId:
        """The id of the blob, once it is closed."""
        return self.receipt.id

    def writable(self) -> bool:
        """Return ``True``."""
        self._open()
        return True

    def write(self, data: Buffer, /) -> int:
        """Write all of the bytes, and return their number. An error aborts the writer, except for a wrong
        type.
        """
        writer = self._open()
        # Before the writing: if the data is not bytes, nothing is taken, and the writer remains usable.
        _graviton.piece_of(data, 0, 0)
        try:
            return writer.write(data)
        except BaseException as failure:
            self._failure = failure
            self.abort()
            raise

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._open().size()

    def flush(self) -> None:
        """Do nothing: only closing makes anything durable."""
        if self.closed:
            raise ClosedError("the writer is closed")

    def close(self) -> None:
        """Commit the blob: when this returns, it is visible, and as durable as the store. Inside ``with``,
        the end of the ``with`` commits it, and writing ends here.
        """
        if getattr(self, "_withs", 0):
            super().close()
            return
        writer, self._writer = getattr(self, "_writer", None), None
        if writer is None:
            super().close()
            return
        try:
            receipt = writer.finish()
            if receipt is not None:
                self._receipt = PutReceipt._from_engine(receipt)
        except BaseException as failure:
            self._failure = failure
            raise
        finally:
            super().close()

    def abort(self) -> None:
        """Abort the blob, and close."""
        writer, self._writer = getattr(self, "_writer", None), None
        try:
            if writer is not None:
                # A forked child discards nothing: the writer belongs to the parent.
                with suppress(ForkedError):
                    writer.abort()
        finally:
            super().close()

    def _open(self) -> _graviton.Writer:
        if self._writer is None or self.closed:
            raise ClosedError("the writer is closed") from self._failure
        return self._writer

    def __enter__(self) -> Self:
        self._open()
        self._withs += 1
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._withs -= 1
        if exc_type is not None:
            self.abort()
            return
        self.close()
        if self._failure is not None and self._receipt is None:
            raise ClosedError("nothing was stored: an earlier write failed") from self._failure

    def __del__(self) -> None:
        writer = getattr(self, "_writer", None)
        if writer is None:
            return
        try:
            writer.abort()
        except ForkedError:
            # The parent still has it.
            return
        warnings.warn(f"unclosed {self!r}: what was written to it is lost", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        if self._receipt is not None:
            state = f"of {self._receipt.id}"
        else:
            state = "open" if self._writer is not None else "aborted"
        return f"<graviton.BlobWriter, {state}>"
