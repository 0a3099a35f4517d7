"""Views for notebooks and prompts."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import graviton
import pytest
from graviton import _html
from graviton._html import MOST_BLOCKS, NEW, REPEATED, SHARED, WIDTH


class Page(HTMLParser):
    """Checks that every tag is closed and that only expected tags occur."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._open: list[str] = []
        self.rectangles: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"table", "caption", "tbody", "tr", "th", "td", "code", "div", "span", "svg", "rect", "title"}
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("href", "src")]
        self._open.append(tag)
        if tag == "rect":
            self.rectangles.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def width(self, colour: str) -> float:
        """The width of all parts of the picture with this colour."""
        found = [float(rect["width"] or 0) for rect in self.rectangles if rect["fill"] == colour]
        return sum(found)


def page(shown: object) -> Page:
    text = shown._repr_html_()  # type: ignore[attr-defined]
    ElementTree.fromstring(f"<all>{text}</all>")
    return Page(text)


def test_stats(local: graviton.Store) -> None:
    assert "dedup ratio1.00" in page(local.stats()).text
    data = os.urandom(50_000)
    local.put(data)
    local.put(data + b"more")
    shown = page(local.stats())
    assert "blobs2" in shown.text and "97.7 KiB" in shown.text
    assert shown.width(NEW) > 0 and shown.width(SHARED) > 0
    assert "blobs=2" in repr(local.stats())


def test_receipts(local: graviton.Store) -> None:
    data = os.urandom(100_000)
    shown = page(local.put_receipt(data))
    assert shown.width(SHARED) == 0 and shown.width(NEW) == pytest.approx(WIDTH, abs=1)
    again = local.put_receipt(data)
    shown = page(again)
    assert shown.width(NEW) < 1 and shown.width(SHARED) == pytest.approx(WIDTH, abs=1)
    assert str(again.id) in shown.text and "was there already" in shown.text
    # An empty blob causes no division by zero.
    assert page(local.put_receipt(b"")).rectangles == []
    assert repr(again).startswith("PutReceipt(id=BlobId('blake3:")


def test_a_manifest_shows_what_is_shared(local: graviton.Store) -> None:
    first = os.urandom(100_000)
    twice = os.urandom(20_000) * 2
    before = local.manifest(local.put(first))
    manifest = local.manifest(local.put(first + os.urandom(100_000) + twice))
    assert repr(manifest) == f"<graviton.Manifest of {manifest.id}: {len(manifest)} blocks>"

    alone = page(manifest)
    repeated = len(manifest) - len({entry.key for entry in manifest})
    assert repeated > 0 and alone.width(REPEATED) > 0 and alone.width(SHARED) == 0
    assert f"different blocks{len(manifest) - repeated:,}" in alone.text
    assert alone.text.count("repeated in this blob, ") >= repeated

    compared = page(manifest.against(before))
    shared = {entry.key for entry in manifest} & {entry.key for entry in before}
    assert shared and compared.text.count("there before, ") >= len(shared)
    whole = sum(compared.width(colour) for colour in (NEW, REPEATED, SHARED))
    share = sum(entry.size for entry in manifest if entry.key in shared) / manifest.id.size
    assert compared.width(SHARED) / whole == pytest.approx(share, abs=0.05)

    assert page(local.manifest(local.put(b""))).rectangles == []
    assert page(local.manifest(local.put(b"x"))).width(NEW) > 0


def test_a_picture_stays_small(files: object, local: graviton.Store) -> None:
    with graviton.open(local._place.path, chunker="fixed:16") as store:
        manifest = store.manifest(store.put(os.urandom(16 * (MOST_BLOCKS + 500))))
        shown = page(manifest)
        assert MOST_BLOCKS <= len(shown.rectangles) < MOST_BLOCKS + 10
        assert f"shownthe first {_html.size(16 * MOST_BLOCKS)}" in shown.text


def test_everything_is_escaped() -> None:
    evil = "<script>alert('&')</script>\"'"
    shown = Page(_html.table(evil, {evil: evil}) + _html.bar([(evil, 1, NEW)]))
    assert "alert" in shown.text


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), ((1 << 63) - 1, "8.0 EiB")],
)
def test_sizes(count: int, words: str) -> None:
    assert _html.size(count) == words
