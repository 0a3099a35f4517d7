"""Blobs as asynchronous binary files: one to read, one to write."""

from __future__ import annotations

import asyncio
import errno
import os
import warnings
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .. import _graviton
from .._errors import ClosedError, make
from .._files import OffsetError
from .._id import BlobId
from .._reports import PutReceipt
from .._transfer import pieces_in
from ._call import call

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

__all__ = ["BlobReader", "BlobWriter"]

# Beyond every possible size.
_ALL = 0xFFFF_FFFF_FFFF_FFFF


class BlobReader:
    """A blob being read, verified. For one task at a time.

    It works for the grace period after its blob was deleted. Iteration yields the rest of the blob in pieces,
    each the rest of a block.
    """

    mode = "rb"

    def __init__(self, id: BlobId, reader: _graviton.AioReader) -> None:
        self._id = id
        self._reader = reader
        self._position = 0
        self._closed = False

    @property
    def id(self) -> BlobId:
        """The blob that is read."""
        return self._id

    @property
    def name(self) -> str:
        """The text of the id."""
        return str(self._id)

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._reader.size

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def seekable(self) -> bool:
        """Return ``True``."""
        return True

    async def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; by default all that are left."""
        return await self._read(_ALL if size is None or size < 0 else min(size, _ALL), all=True)

    async def read1(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes that are available at once. Empty at the end."""
        return await self._read(_ALL if size < 0 else min(size, _ALL), all=False)

    async def readinto(self, buffer: Buffer, /) -> int:
        """Read bytes into the buffer until it is full or the blob ends, and return their number."""
        _graviton.fill_at(buffer, 0, b"")
        # Held, so that the memory does not move meanwhile.
        with memoryview(buffer) as view:
            done = 0
            while done < view.nbytes:
                piece = await self.read1(view.nbytes - done)
                if not piece:
                    break
                done += _graviton.fill_at(buffer, done, piece)
            return done

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move, and return the new position. Reads beyond the end return nothing."""
        self._check()
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in starts:
            raise make("invalid-argument", f"whence cannot be {whence}: it is 0, 1 or 2")
        position = starts[whence] + offset
        if position < 0:
            raise OffsetError(f"cannot seek before the start of blob {self._id}", errno=errno.EINVAL)
        self._position = min(position, _ALL)
        return self._position

    async def tell(self) -> int:
        """Return the position."""
        self._check()
        return self._position

    async def close(self) -> None:
        """Close the reader."""
        if not self._closed:
            self._closed = True
            self._reader.close()

    async def _read(self, most: int, *, all: bool) -> bytes:
        self._check()
        data = await call(self._reader.read, self._position, most, all)
        self._position += len(data)
        return data

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("the reader is closed")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The rest of the blob, in pieces."""
        while piece := await self.read1():
            yield piece

    async def __aenter__(self) -> Self:
        self._check()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<graviton.aio.BlobReader of {self._id}{', closed' if self._closed else ''}>"


class BlobWriter:
    """A blob being written sequentially. For one task at a time.

    The blob becomes visible when it is closed. ``async with`` closes it or, after an exception or a
    cancellation, aborts it, which leaves no blob; the next ``gc`` frees blocks that were written. A writer
    that is garbage-collected aborts too, with a :class:`ResourceWarning`, and so does one whose ``write``
    failed or was cancelled half-way.
    """

    mode = "wb"

    def __init__(self, writer: _graviton.AioWriter) -> None:
        self._writer: _graviton.AioWriter | None = writer
        self._receipt: PutReceipt | None = None
        self._failure: BaseException | None = None
        self._size = 0

    @property
    def receipt(self) -> PutReceipt:
        """The receipt, once it is closed."""
        if self._receipt is None:
            if self._writer is not None:
                raise ValueError("the blob has no id before its writer is closed")
            raise ClosedError("nothing was stored: the writer was aborted") from self._failure
        return self._receipt

    @property
    def id(self) -> BlobId:
        """The id of the blob, once it is closed."""
        return self.receipt.id

    @property
    def closed(self) -> bool:
        """Whether it was closed or aborted."""
        return self._writer is None

    def writable(self) -> bool:
        """Return ``True``."""
        return True

    async def write(self, data: Buffer, /) -> int:
        """Write all of the bytes, and return their number. An error or a cancellation aborts the writer,
        except for a wrong type.
        """
        writer = self._open()
        # Before the writing: if the data is not bytes, nothing is taken, and the writer remains usable.
        size, pieces = (len(data), iter([data])) if isinstance(data, bytes) else pieces_in(data)
        try:
            for piece in pieces:
                self._size += await call(writer.write, piece)
            return size
        except BaseException as failure:
            self._failure = failure
            self._abort()
            raise

    async def tell(self) -> int:
        """Return the number of bytes written."""
        self._open()
        return self._size

    async def flush(self) -> None:
        """Do nothing: only closing makes anything durable."""
        self._open()

    async def close(self) -> None:
        """Commit the blob: when this returns, it is visible, and as durable as the store."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            self._receipt = PutReceipt._from_engine(await call(writer.finish))
        except BaseException as failure:
            self._failure = failure
            raise

    async def abort(self) -> None:
        """Abort the blob, and close."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # Runs to its end, even if the task is cancelled again meanwhile.
            await asyncio.shield(call(writer.abort))

    def _abort(self) -> None:
        # When the call failed, the engine dropped its part. This covers a call that did not get its turn.
        self._writer = None

    def _open(self) -> _graviton.AioWriter:
        if self._writer is None:
            raise ClosedError("the writer is closed") from self._failure
        return self._writer

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if kind is not None:
            await self.abort()
            return
        await self.close()
        if self._receipt is None and self._failure is not None:
            raise ClosedError("nothing was stored: an earlier write failed") from self._failure

    def __del__(self) -> None:
        if getattr(self, "_writer", None) is not None:
            warnings.warn(
                f"unclosed {self!r}: what was written to it is lost", ResourceWarning, stacklevel=2, source=self
            )
            self._writer = None

    def __repr__(self) -> str:
        if self._receipt is not None:
            state = f"of {self._receipt.id}"
        else:
            state = "open" if self._writer is not None else "aborted"
        return f"<graviton.aio.BlobWriter, {state}>"
