"""Settings as keyword arguments, and how a pickled store finds its settings again without its secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple, TypedDict
from urllib.parse import urlsplit

from . import _graviton
from ._errors import make
from ._transfer import path_of

PREFIX = "GRAVITON_"


class Settings(TypedDict, total=False):
    """The settings, as keyword arguments of :func:`graviton.open`: the names of the environment variables in
    lower case, without ``GRAVITON_``."""

    blob_backend: str
    """Where blocks are stored: ``fs``, ``s3`` or ``minio``."""
    fs_root: str | os.PathLike[str]
    """The directory of the store; the same as the argument ``path``."""
    fs_block_prefix: str
    """The directory of the blocks under it."""
    block_layout: str
    """Where new blocks are written: ``files`` (each is a file or object of its own) or ``packs``."""
    compression: str
    """How new blocks in packs are compressed: ``none``, ``zstd`` or ``zstd:<level>``, 1 to 19."""
    quasar_minio_url: str
    """The S3 server; without it, ``s3`` is AWS."""
    minio_root_user: str
    """The access key of the S3 server."""
    minio_root_password: str
    """The secret key of the S3 server."""
    s3_block_bucket: str
    """The bucket for blocks, which must exist."""
    s3_block_prefix: str
    """The prefix of the blocks' object keys."""
    s3_region: str
    """The region of the bucket."""
    s3_addressing: str
    """Where the bucket is in URLs of the S3 server: ``path`` (host/bucket) or ``virtual`` (bucket.host)."""
    s3_ca: str | os.PathLike[str]
    """A PEM file of authorities to trust besides those of the system."""
    manifest_url: str
    """``sqlite:PATH`` or ``postgres://user:password@host:port/database``."""
    sqlite_network: str
    """``one-host`` if the database is on a network filesystem and no other host ever opens it."""
    pg_jdbc_url: str
    """The database of an existing deployment: ``jdbc:postgresql://host:port/database``."""
    pg_username: str
    """Its user."""
    pg_password: str
    """Its password."""
    pg_schema: str
    """The schema of the tables in PostgreSQL."""
    pg_connections: int | str
    """Connections to PostgreSQL of one open store at once, and one more for its lease."""
    hash: str
    """The hash algorithm for new blobs: ``blake3`` or ``sha256``."""
    chunker: str
    """How streams are cut: ``fixed:<bytes>``, ``fastcdc:<min>:<avg>:<max>`` or ``delimiter:<hex>:<max>``."""
    durability: str
    """``full``: a returned put survives power loss; ``relaxed``: only a crash of the process."""
    verify_reads: bool | str
    """Whether every block is hashed before any of it is returned."""
    gc_grace: str | timedelta
    """How long a deleted blob can be restored: ``30m``, ``1h``, ``8d``, or a ``timedelta`` of whole seconds.
    """


_NAMES = {name.removeprefix(PREFIX).lower(): name for name, _, _ in _graviton.SETTINGS}

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.ASCII | re.IGNORECASE)

_PLAIN_URL = re.compile(r"postgres(ql)?://([\w.-]+@)?[\w.-]+(:\d+)?/[\w-]*", re.ASCII)


class Place(NamedTuple):
    """The location of a store and its settings: everything that is needed to open it again."""

    path: str
    settings: dict[str, str]
    mode: str
    adopt: bool
    take_over: bool

    @classmethod
    def of(
        cls, path: str | os.PathLike[str] | None, config: Mapping[str, object], mode: str, adopt: bool, take_over: bool
    ) -> Place:
        """The place from keyword arguments."""
        settings = {}
        for key, value in config.items():
            if key not in _NAMES:
                raise make("config", f"{key!r} is not a setting", f"the settings are {', '.join(_NAMES)}")
            if value is not None:
                settings[_NAMES[key]] = _text(key, value)
        return cls.found(path, settings, mode, adopt, take_over)

    @classmethod
    def found(
        cls, path: str | os.PathLike[str] | None, settings: dict[str, str], mode: str, adopt: bool, take_over: bool
    ) -> Place:
        """The place from settings. Its paths stay correct when the working directory changes."""
        root = settings.pop("GRAVITON_FS_ROOT", None)
        if path is not None and root is not None:
            raise make("config", "the directory is given twice, as path and as fs_root", "give one of them")
        start = path_of(root or "./.graviton" if path is None else path)
        if not start:
            raise make("config", "the path of the store is empty", "name a directory")
        if start == ":memory:" or _ADDRESS.match(start):
            raise make(
                "config",
                f"cannot open a store in {start!r}: it is an address, not a directory",
                "name a directory; blocks in S3 and manifests in PostgreSQL are settings",
            )
        url = settings.get("GRAVITON_MANIFEST_URL", "")
        if url.startswith("sqlite::memory:"):
            raise make("config", f"manifest_url cannot be {url!r}: manifests live in a file", "name one: sqlite:PATH")
        if url.startswith("sqlite:") and url != "sqlite:":
            settings["GRAVITON_MANIFEST_URL"] = "sqlite:" + os.path.abspath(url.removeprefix("sqlite:"))
        if authorities := settings.get("GRAVITON_S3_CA"):
            settings["GRAVITON_S3_CA"] = os.path.abspath(authorities)
        return cls(os.path.abspath(start), settings, mode, adopt, take_over)

    def open(self) -> _graviton.Store:
        """Open the store there."""
        return _graviton.Store.open(list(self.settings.items()), self.path, self.mode, self.adopt, self.take_over)

    def without_secrets(self) -> tuple[Place, dict[str, str]]:
        """The same place without secrets, and the names of the secrets, each with its public part."""
        names = _graviton.secrets(list(self.settings.items()))
        secret = {name: _public(name, self.settings[name]) for name in names if not self._is_known(name)}
        rest = {name: value for name, value in self.settings.items() if name not in secret}
        # A copy takes over once, and not at every later opening.
        return self._replace(settings=rest, take_over=False), secret

    def _is_known(self, name: str) -> bool:
        """Whether a possible secret certainly contains none: the URL of a database need not have a
        password."""
        return name == "GRAVITON_MANIFEST_URL" and _PLAIN_URL.fullmatch(self.settings[name]) is not None

    def with_secrets(self, secret: dict[str, str]) -> Place:
        """The inverse: secrets come from the environment of this process."""
        found = {}
        for name, public in secret.items():
            value = os.environ.get(name)
            if not value:
                raise make(
                    "config",
                    f"cannot reopen a pickled store: {name} is not set",
                    f"pickles carry no secrets: set {name} in the environment of the process that unpickles",
                )
            if _public(name, value) != public:
                raise make(
                    "config",
                    f"cannot reopen a pickled store: {name} names another place than the one that was pickled",
                    f"set {name} to the place that the store had, {public}",
                )
            found[name] = _unicode(name, value)
        return self._replace(settings=self.settings | found)

    def __repr__(self) -> str:
        """The place without secrets."""
        rest, secret = self.without_secrets()
        names = [f"{name.removeprefix(PREFIX).lower()}={value!r}" for name, value in rest.settings.items()]
        names += [f"{name.removeprefix(PREFIX).lower()}=…" for name in secret]
        return ", ".join([repr(self.path), *names])


def _text(key: str, value: object) -> str:
    """A value as text for the engine, which then checks it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, timedelta):
        seconds = value / timedelta(seconds=1)
        if seconds != int(seconds) or seconds < 0:
            raise make("config", f"{key} cannot be {value}", "give whole seconds, 0 or more")
        return f"{int(seconds)}s"
    if isinstance(value, int) and key == "pg_connections":
        return str(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError(f"{key} is text, not {type(value).__name__}")
    return _unicode(key, value)


def _unicode(key: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        # The error does not show the value, which may be a secret.
        raise make("config", f"the value of {key} has half of a surrogate pair in it", "give Unicode text") from None
    return value


def _public(name: str, value: str) -> str:
    """The public part of a secret: the host and the database that a URL names."""
    if name != "GRAVITON_MANIFEST_URL":
        return ""
    try:
        parts = urlsplit(value)
        host = f"{parts.hostname or ''}:{parts.port or 5432}"
    except ValueError:
        return ""
    return f"{host}{parts.path}"
