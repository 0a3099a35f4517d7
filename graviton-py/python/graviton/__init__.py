"""An embeddable, content-addressed blob store: SQLite for blobs.

A stream is cut into blocks at boundaries that its content decides, each block is stored once under its hash,
and the stream is read back verified, as a whole or any range of it.

>>> import graviton
>>> with graviton.open(directory) as store:         # files and SQLite under one directory
...     id = store.put(b"hello, graviton")          # or a pathlib.Path, a binary file, an iterable of bytes
...     print(store.get(id))
...     with store.open(id) as file:                # a binary file: seek, read, peek, readinto
...         _ = file.seek(7)
...         print(file.read())
b'hello, graviton'
b'graviton'

A blob's id is text, ``<algorithm>:<hash of the content>:<length>``, which is all you need to get it back.
Errors are :class:`GravitonError`, with a class for each code. The logger is called ``graviton``.
"""

from ._errors import (
    BackendUnavailableError,
    CancelledError,
    ClosedError,
    ConfigError,
    ConflictError,
    CorruptBlockError,
    CorruptDatabaseError,
    DigestMismatchError,
    ForbiddenError,
    ForkedError,
    GravitonError,
    IntegrityError,
    InternalError,
    InvalidArgumentError,
    InvalidIdError,
    IoError,
    LatchedError,
    LengthRequiredError,
    MethodNotAllowedError,
    MissingBlockError,
    NoSpaceError,
    NotFoundError,
    OverloadedError,
    QuotaExceededError,
    RangeError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedError,
    VersionError,
    WriterExpiredError,
)
from ._errors import TimeoutError as TimeoutError
from ._files import BlobReader, BlobWriter
from ._graviton import VERSION as __version__
from ._id import BlobId
from ._manifest import Manifest, ManifestEntry
from ._progress import Progress
from ._reports import (
    BlobStat,
    CopyReport,
    Finding,
    GcReport,
    PutReceipt,
    RepackReport,
    RepairReport,
    StoreStats,
    VerifyReport,
)
from ._settings import Settings
from ._store import Store
from ._store import open as open

# Without `open` and `TimeoutError`, which would hide the builtins after `import *`.
__all__ = [
    "BackendUnavailableError",
    "BlobId",
    "BlobReader",
    "BlobStat",
    "BlobWriter",
    "CancelledError",
    "ClosedError",
    "ConfigError",
    "ConflictError",
    "CopyReport",
    "CorruptBlockError",
    "CorruptDatabaseError",
    "DigestMismatchError",
    "Finding",
    "ForbiddenError",
    "ForkedError",
    "GcReport",
    "GravitonError",
    "IntegrityError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidIdError",
    "IoError",
    "LatchedError",
    "LengthRequiredError",
    "Manifest",
    "ManifestEntry",
    "MethodNotAllowedError",
    "MissingBlockError",
    "NoSpaceError",
    "NotFoundError",
    "OverloadedError",
    "Progress",
    "PutReceipt",
    "QuotaExceededError",
    "RangeError",
    "RateLimitedError",
    "RepackReport",
    "RepairReport",
    "Settings",
    "Store",
    "StoreStats",
    "TooLargeError",
    "UnauthorizedError",
    "UnsupportedError",
    "VerifyReport",
    "VersionError",
    "WriterExpiredError",
    "__version__",
]
