"""Blob ids: validated text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _graviton

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer


class BlobId(str):
    """The id of a blob: ``<algorithm>:<hash of the whole content>:<length in bytes>``.

    It is a ``str`` that was validated: immutable, equal to its text with the same hash, and usable wherever
    text is: dictionaries, JSON, databases, pickles. Other text is an :class:`InvalidIdError`.

    >>> id = graviton.BlobId.of(b"hello")
    >>> print(id)
    blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5
    >>> id.algo, id.size
    ('blake3', 5)
    >>> id == str(id) and hash(id) == hash(str(id))
    True
    >>> try:
    ...     graviton.BlobId("blake3:ea8f:5")
    ... except graviton.InvalidIdError as error:
    ...     print(error)
    "blake3:ea8f:5" is not a blob id: the digest is not 64 lower-case hex digits
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Parse an id. ``sha-256:`` is read as ``sha256:``."""
        return super().__new__(cls, text if type(text) is cls else _graviton.blob_id(text))

    @classmethod
    def of(cls, data: Buffer, algo: str = "blake3") -> Self:
        """Compute the id of these bytes, whether they are stored or not.

        >>> graviton.BlobId.of(bytearray(b"hello"), "sha256").hexdigest[:8]
        '2cf24dba'
        """
        return super().__new__(cls, _graviton.blob_id_of(data, algo))

    @property
    def algo(self) -> str:
        """The algorithm of the digest: ``blake3`` or ``sha256``."""
        return self.partition(":")[0]

    @property
    def digest(self) -> bytes:
        """The digest of the content, 32 bytes."""
        return bytes.fromhex(self.hexdigest)

    @property
    def hexdigest(self) -> str:
        """The digest in hexadecimal, as ``b3sum`` and ``sha256sum`` print it."""
        return self.split(":")[1]

    @property
    def size(self) -> int:
        """The length of the content in bytes."""
        return int(self.rpartition(":")[2])

    def __repr__(self) -> str:
        return f"BlobId({str(self)!r})"

    def __str__(self) -> str:
        return str.__str__(self)


def known(text: str) -> BlobId:
    """The id that the engine wrote, which need not be checked again."""
    return str.__new__(BlobId, text)
