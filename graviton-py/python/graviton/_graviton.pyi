"""The engine of the package ``graviton``, which is what to import."""

from asyncio import Future
from collections.abc import Callable
from os import PathLike
from typing import Final, TypedDict, final

from typing_extensions import Buffer

__all__ = [
    "AioReader",
    "AioWriter",
    "CODES",
    "EXIT_CODES",
    "Mailbox",
    "Reader",
    "SETTINGS",
    "Store",
    "Task",
    "VERSION",
    "Writer",
    "blob_id",
    "blob_id_of",
    "environment",
    "fill_at",
    "piece_of",
    "secrets",
]

VERSION: Final[str]
SETTINGS: Final[list[tuple[str, str, str]]]
CODES: Final[list[tuple[str, str, bool]]]
EXIT_CODES: Final[list[tuple[str, int]]]

_Settings = list[tuple[str, str]]
_Path = str | PathLike[str]
_Texts = list[str]
_Paths = list[_Path]
_Receipt = tuple[str, int, int, int, bool]
_Receipts = list[_Receipt]
_Stat = tuple[str, int, str, int]
_Page = list[_Stat]
_Entries = list[tuple[int, str]]
_Progress = Callable[[int, int], object]

class _Stats(TypedDict):
    blobs: int
    logical_bytes: int
    blocks: int
    stored_bytes: int
    dead_blobs: int
    dead_bytes: int
    reclaimable_bytes: int

class _GcReport(TypedDict):
    dry_run: bool
    abandoned_puts: int
    blobs: int
    named: list[str]
    blocks: int
    bytes: int
    kept_referenced: int
    kept_doomed: int
    kept_failed: int
    leftovers: int
    seconds: float
    complete: bool

class _VerifyReport(TypedDict):
    blobs: int
    blocks: int
    bytes: int
    missing: int
    corrupt: int
    broken_manifests: int
    database_problems: int
    unreferenced: int
    unreferenced_bytes: int
    seconds: float
    cursor: str | None

class _CopyReport(TypedDict):
    blobs: int
    present: int
    blocks: int
    bytes: int
    damaged: list[str]
    seconds: float
    complete: bool

class _RepairReport(TypedDict):
    checked: int
    repaired: int
    bytes: int
    lost: list[str]
    seconds: float
    complete: bool

def environment() -> _Settings: ...
def secrets(settings: _Settings) -> list[str]: ...
def blob_id(text: str) -> tuple[str, str, int]: ...
def blob_id_of(data: Buffer, algo: str) -> str: ...
def piece_of(data: Buffer, from_offset: int, most: int) -> bytes: ...
def fill_at(buffer: Buffer, offset: int, data: bytes) -> int: ...
@final
class Store:
    @staticmethod
    def open(settings: _Settings, path: _Path | None, mode: str, adopt: bool) -> Store: ...
    def close(self) -> None: ...
    def put(self, data: Buffer, expect: str | None = None) -> _Receipt: ...
    def put_files(
        self,
        paths: _Paths,
        expect: str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> _Receipts: ...
    def writer(self, expect: str | None = None) -> Writer: ...
    def reader(self, id: str) -> Reader: ...
    def get(self, id: str) -> bytes: ...
    def get_into(self, id: str, buffer: Buffer) -> int: ...
    def read_range(self, id: str, offset: int, length: int) -> bytes: ...
    def stat(self, id: str) -> _Stat: ...
    def exists(self, id: str) -> bool: ...
    def list(self, after: str | None, limit: int) -> _Page: ...
    def manifest(self, id: str, from_offset: int, limit: int) -> _Entries: ...
    def delete(self, id: str) -> None: ...
    def restore(self, id: str) -> None: ...
    def backup(self, to: _Path) -> None: ...
    def stats(self) -> _Stats: ...
    def gc(
        self,
        grace: float | None,
        dry_run: bool,
        max_time: float | None,
        max_blocks: int | None,
        max_bytes: int | None,
        blocks_per_second: int | None,
        progress: _Progress | None,
    ) -> _GcReport: ...
    def verify(
        self,
        only: _Texts,
        deep: bool,
        bytes_per_second: int | None,
        cursor: str | None,
        adopt: bool,
        finding: Callable[[str, str, str, _Texts], object],
        progress: _Progress | None,
    ) -> _VerifyReport: ...
    def copy_from(self, other: Store, only: _Texts, progress: _Progress | None) -> _CopyReport: ...
    def repair_from(self, other: Store, progress: _Progress | None) -> _RepairReport: ...
    @staticmethod
    def aio_open(
        mailbox: Mailbox, future: Future[Store], settings: _Settings, path: _Path | None, mode: str, adopt: bool
    ) -> Task: ...
    def aio_close(self, mailbox: Mailbox, future: Future[None]) -> Task: ...
    def aio_put(self, mailbox: Mailbox, future: Future[_Receipt], data: bytes, expect: str | None) -> Task: ...
    def aio_put_file(
        self, mailbox: Mailbox, future: Future[_Receipt], path: _Path, expect: str | None
    ) -> Task: ...
    def aio_writer(self, mailbox: Mailbox, future: Future[AioWriter], expect: str | None) -> Task: ...
    def aio_reader(self, mailbox: Mailbox, future: Future[AioReader], id: str) -> Task: ...
    def aio_get(self, mailbox: Mailbox, future: Future[bytes | AioReader], id: str) -> Task: ...
    def aio_read_range(
        self, mailbox: Mailbox, future: Future[bytes | AioReader], id: str, offset: int, length: int
    ) -> Task: ...
    def aio_stat(self, mailbox: Mailbox, future: Future[_Stat], id: str) -> Task: ...
    def aio_exists(self, mailbox: Mailbox, future: Future[bool], id: str) -> Task: ...
    def aio_list(self, mailbox: Mailbox, future: Future[_Page], after: str | None, limit: int) -> Task: ...
    def aio_manifest(
        self, mailbox: Mailbox, future: Future[_Entries], id: str, from_offset: int, limit: int
    ) -> Task: ...
    def aio_stats(self, mailbox: Mailbox, future: Future[_Stats]) -> Task: ...
    def aio_delete(self, mailbox: Mailbox, future: Future[None], id: str) -> Task: ...
    def aio_restore(self, mailbox: Mailbox, future: Future[None], id: str) -> Task: ...

@final
class Reader:
    @property
    def size(self) -> int: ...
    def readinto(self, buffer: Buffer) -> int: ...
    def read(self, most: int) -> bytes: ...
    def seek(self, offset: int, whence: int) -> int: ...
    def close(self) -> None: ...

@final
class Writer:
    def write(self, data: Buffer) -> int: ...
    def size(self) -> int: ...
    def finish(self) -> _Receipt | None: ...
    def abort(self) -> None: ...

@final
class Mailbox:
    def __new__(cls) -> Mailbox: ...
    def fileno(self) -> int: ...
    def open(self) -> None: ...

@final
class Task:
    def abort(self) -> None: ...

@final
class AioReader:
    @property
    def size(self) -> int: ...
    def read(self, mailbox: Mailbox, future: Future[bytes], from_offset: int, most: int, all: bool) -> Task: ...
    def close(self) -> None: ...

@final
class AioWriter:
    def write(self, mailbox: Mailbox, future: Future[int], data: bytes) -> Task: ...
    def finish(self, mailbox: Mailbox, future: Future[_Receipt]) -> Task: ...
    def abort(self, mailbox: Mailbox, future: Future[None]) -> Task: ...
