"""Blobs as binary files: one to read, one to write."""

from __future__ import annotations

import io
import os
import warnings
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from . import _graviton
from ._errors import ClosedError, ForkedError, make
from ._id import BlobId, known
from ._reports import PutReceipt

if TYPE_CHECKING:
    from typing import BinaryIO, Self

    from typing_extensions import Buffer

__all__ = ["BlobReader", "BlobWriter"]

_MOST = (1 << 64) - 1


if TYPE_CHECKING:
    # As typeshed has it for the files of the standard library, so that they go wherever a `BinaryIO` is wanted.
    class _RawIO(io.RawIOBase, BinaryIO):
        def __enter__(self) -> Self: ...

    class _BufferedIO(io.BufferedIOBase, BinaryIO):
        def __enter__(self) -> Self: ...

else:
    _RawIO, _BufferedIO = io.RawIOBase, io.BufferedIOBase


class BlobReader(_RawIO):
    """A blob that is being read: a binary file, every byte of which was verified.

    :meth:`Store.open` gives one, inside of an :class:`io.BufferedReader` unless told otherwise. It may be
    used from several threads, one at a time. It goes on for the grace after its blob was deleted.

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
        """The text of the id, for what asks a file for its name."""
        return str(self._id)

    @property
    def mode(self) -> str:
        """How a file of this kind is opened: ``rb``."""
        return "rb"

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._reader.size

    def readable(self) -> bool:
        """It is."""
        self._check()
        return True

    def seekable(self) -> bool:
        """It is."""
        self._check()
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill the buffer, unless the blob ends before, and return how many bytes that were."""
        return self._reader.readinto(buffer)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes, or as many as are left; all that are left by default."""
        return self._reader.read(_MOST if size is None or size < 0 else min(size, _MOST))

    def readall(self) -> bytes:
        """Return all bytes that are left."""
        return self.read()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move, and return the new position. Behind the end there is nothing to read."""
        if not -(1 << 63) <= offset < 1 << 63 or whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise make("invalid-argument", f"cannot move to {offset} from {whence}", "see io.IOBase.seek")
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._reader.seek(0, os.SEEK_CUR)

    def write(self, data: Buffer, /) -> int:
        """Refuse: blobs never change."""
        raise io.UnsupportedOperation("a blob that is being read cannot be written to")

    def close(self) -> None:
        """Let go of the blob."""
        if not self.closed:
            try:
                # A forked child lets go of nothing: it is the parent's.
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
    """A blob that is being written: a binary file that takes bytes in order.

    Nothing is visible before it is closed. ``with`` closes it, or, after an exception, aborts it, which leaves no
    blob; blocks that were written go with the next :meth:`Store.gc`. So does a writer that is forgotten, with a
    :class:`ResourceWarning`. What closes it inside of its ``with``, as an :class:`io.TextIOWrapper` around it does, only
    ends the writing: whether it is stored is decided at the end of the ``with``. It may be used from several threads, one
    at a time.

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
        """The text of the id, for what asks a file for its name; empty before it is closed."""
        return "" if self._receipt is None else str(self._receipt.id)

    @property
    def mode(self) -> str:
        """How a file of this kind is opened: ``wb``."""
        return "wb"

    @property
    def receipt(self) -> PutReceipt:
        """What came of it, once it is closed."""
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
        """It is."""
        self._open()
        return True

    def write(self, data: Buffer, /) -> int:
        """Take all of the bytes, and return how many they are. An error aborts the writer, except that what is not
        bytes is refused.
        """
        writer = self._open()
        # Before the writing: of what is not bytes, nothing is taken, and it goes on.
        _graviton.piece_of(data, 0, 0)
        try:
            return writer.write(data)
        except BaseException as failure:
            self._failure = failure
            self.abort()
            raise

    def tell(self) -> int:
        """Return how many bytes were taken."""
        return self._open().size()

    def flush(self) -> None:
        """Do nothing: only closing makes anything durable."""
        if self.closed:
            raise ClosedError("the writer is closed")

    def close(self) -> None:
        """Store what was written: it is visible, and as durable as the store, when this returns. Inside of ``with``, the
        end of that stores it, and until then nothing more is taken.
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
                self._receipt = PutReceipt(known(receipt[0]), *receipt[1:])
        except BaseException as failure:
            self._failure = failure
            raise
        finally:
            super().close()

    def abort(self) -> None:
        """Forget what was written, and close."""
        writer, self._writer = getattr(self, "_writer", None), None
        try:
            if writer is not None:
                # A forked child forgets nothing: it is the parent's.
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
            # The parent has it still.
            return
        warnings.warn(f"unclosed {self!r}: what was written to it is lost", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        if self._receipt is not None:
            state = f"of {self._receipt.id}"
        else:
            state = "open" if self._writer is not None else "aborted"
        return f"<graviton.BlobWriter, {state}>"
