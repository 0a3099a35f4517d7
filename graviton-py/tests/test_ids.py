"""Blob ids: validated text."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from pathlib import Path

import graviton
import pytest
from graviton import BlobId

TEXT = "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5"


def test_it_is_its_text() -> None:
    id = BlobId(TEXT)
    assert id == TEXT and TEXT == id and hash(id) == hash(TEXT) and str(id) == f"{id}" == TEXT
    assert type(str(id)) is str
    assert {TEXT: 1}[id] == 1 and TEXT in {id}
    assert repr(id) == f"BlobId({TEXT!r})" and eval(repr(id)) == id
    assert sorted([id, "a", "z"]) == ["a", id, "z"]
    assert json.loads(json.dumps({id: id})) == {TEXT: TEXT}
    assert id != BlobId.of(b"other") and id < BlobId.of(b"hello", "sha256")


def test_its_parts() -> None:
    id = BlobId(TEXT)
    assert (id.algo, id.size, id.hexdigest) == ("blake3", 5, TEXT.split(":")[1])
    assert id.digest.hex() == id.hexdigest
    sha = BlobId.of(b"hello", "sha256")
    assert sha.digest == hashlib.sha256(b"hello").digest() and sha.algo == "sha256"


def test_it_cannot_be_changed() -> None:
    id = BlobId(TEXT)
    for name in ("algo", "digest", "size", "other"):
        with pytest.raises(AttributeError):
            setattr(id, name, "x")


def test_copies_are_ids() -> None:
    id = BlobId(TEXT)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(id, protocol))
        assert again == id and type(again) is BlobId
    assert type(copy.deepcopy(id)) is BlobId and type(BlobId(id)) is BlobId


@pytest.mark.parametrize("data", [b"", b"hello", bytearray(b"hello"), memoryview(b"hello"), b"x" * 5_000_000])
def test_the_id_of_bytes(data: bytes) -> None:
    assert BlobId.of(data).size == len(data)
    assert BlobId.of(data, "sha256").digest == hashlib.sha256(data).digest()
    with pytest.raises(graviton.GravitonError):
        BlobId.of(data, "md5")


HEX = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize(
    "text",
    ["", "x", HEX, f"{HEX}:5", f"blake2:{HEX}:5", f"blake3:{HEX.upper()}:5", f"blake3:{HEX[1:]}:5", f"blake3:{HEX}:05"]
    + [f"blake3:{HEX}:-5", f"blake3:{HEX}:+5", f"blake3:{HEX}:5 ", f"blake3:{HEX}:5\n", f"blake3:{HEX}:{1 << 63}"]
    + [f"blake3:{HEX}:5:", f"blake3:{HEX}:٣", f"blake3:{HEX}:", "\0", "🦀" * 200],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(graviton.InvalidIdError) as refused:
        BlobId(text)
    assert isinstance(refused.value, ValueError) and refused.value.advice


def test_the_other_name_of_sha256_is_read_and_never_written() -> None:
    id = BlobId(f"sha-256:{HEX}:5")
    assert id == f"sha256:{HEX}:5" and (id.algo, id.size) == ("sha256", 5) and type(BlobId(id)) is BlobId


def test_what_is_not_text_is_refused() -> None:
    for wrong in (5, None, b"blake3", Path(TEXT)):
        with pytest.raises(TypeError):
            BlobId(wrong)  # type: ignore[arg-type]
    for half in ("\udc80", "\ud800", TEXT.replace("b", "\udcff")):
        with pytest.raises(graviton.InvalidIdError, match="is not a blob id") as refused:
            BlobId(half)
        assert refused.value.advice
