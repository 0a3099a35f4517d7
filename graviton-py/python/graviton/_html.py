"""Views for notebooks: what ``_repr_html_`` of reports gives. Everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._reports import Manifest, ManifestEntry, PutReceipt, StoreStats

# Colours that colour-blind people tell apart, on light and dark ground.
NEW, SHARED, REPEATED = "#0072b2", "#e69f00", "#009e73"

# Blocks in a picture at most: more could not be seen, and would make a heavy page.
MOST_BLOCKS = 2000
WIDTH, ROW, ROWS = 720, 14, 8

_TABLE = 'style="text-align:left;border-collapse:collapse"'


def size(count: int) -> str:
    """A number of bytes in words: ``1536`` is ``1.5 KiB``."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def table(caption: str, rows: Mapping[str, object]) -> str:
    """Names and values, in two columns."""
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left"><code>{escape(str(value))}</code></td></tr>'
        for name, value in rows.items()
    )
    return f"<table {_TABLE}><caption>{escape(caption)}</caption><tbody>{cells}</tbody></table>"


def stats(found: StoreStats) -> str:
    """What a store holds, and how much of it is stored once only."""
    shares = [
        ("stored", found.stored_bytes, NEW),
        ("saved by storing once", max(0, found.logical_bytes - found.stored_bytes), SHARED),
    ]
    rows = {
        "blobs": f"{found.blobs:,}",
        "their bytes": size(found.logical_bytes),
        "blocks": f"{found.blocks:,}",
        "stored bytes": size(found.stored_bytes),
        "dedup ratio": f"{found.dedup_ratio:.2f}",
        "deleted, restorable": f"{found.dead_blobs:,} ({size(found.dead_bytes)})",
        "reclaimable": size(found.reclaimable_bytes),
    }
    return table("Graviton store", rows) + bar(shares)


def receipt(put: PutReceipt) -> str:
    """What came of a put: how much of it was new."""
    shares = [
        ("new", put.fresh_bytes, NEW),
        ("there before, or repeated", max(0, put.size - put.fresh_bytes), SHARED),
    ]
    rows = {
        "id": put.id,
        "size": size(put.size),
        "blocks": f"{put.blocks:,}, of which {put.fresh_blocks:,} new ({size(put.fresh_bytes)})",
        "blob": "new" if put.created else "was there already",
    }
    return table("Graviton put", rows) + bar(shares)


def bar(shares: Sequence[tuple[str, int, str]]) -> str:
    """Shares of a whole, in one bar, with its legend. Nothing for nothing."""
    whole = sum(amount for _, amount, _ in shares)
    if not whole:
        return ""
    drawn, at = [], 0.0
    for name, amount, colour in shares:
        width = WIDTH * amount / whole
        title = escape(f"{name}: {size(amount)}, {100 * amount / whole:.1f} %")
        drawn.append(_rectangle(at, 0, width, colour, title))
        at += width
    return _picture(drawn, ROW) + _legend((f"{name} {size(amount)}", colour) for name, amount, colour in shares)


def manifest(found: Manifest, before: Iterable[Manifest]) -> str:
    """The blocks of a blob in order, each as wide as it is long, in the colour of what it shares with itself and with
    others that were there before."""
    known = {entry.key for other in before for entry in other}
    seen: set[str] = set()
    entries = list(islice(found, MOST_BLOCKS))
    kinds: list[tuple[ManifestEntry, str, str]] = []
    for entry in entries:
        if entry.key in known:
            kinds.append((entry, "there before", SHARED))
        elif entry.key in seen:
            kinds.append((entry, "repeated in this blob", REPEATED))
        else:
            kinds.append((entry, "new" if known else "stored once", NEW))
        seen.add(entry.key)
    shown = entries[-1].offset + entries[-1].size if entries else 0
    rows = {
        "id": found.id,
        "size": size(found.id.size),
        "blocks": f"{len(found):,}",
        "different blocks": f"{len(seen):,}" + (f" of the first {len(entries):,}" if len(entries) < len(found) else ""),
        "cut with": found.stat.chunker,
        "put at": found.stat.created_at.isoformat(timespec="seconds"),
    }
    legend: dict[tuple[str, str], int] = {}
    for entry, name, colour in kinds:
        legend[name, colour] = legend.get((name, colour), 0) + entry.size
    if len(entries) < len(found):
        rows["shown"] = f"the first {size(shown)}"
    drawing = _picture(_blocks(kinds, shown), ROW * ROWS) if shown else ""
    return (
        table("Graviton blob", rows)
        + drawing
        + _legend((f"{name} {size(amount)}", colour) for (name, colour), amount in legend.items())
    )


def _blocks(kinds: Iterable[tuple[ManifestEntry, str, str]], whole: int) -> Iterable[str]:
    """Blocks in rows from the left to the right, each broken where its row ends."""
    edges = [whole * row // ROWS for row in range(ROWS + 1)]
    row = 0
    for entry, name, colour in kinds:
        title = escape(f"{entry.offset:,}: {size(entry.size)}, {name}, {entry.key}")
        start, end = entry.offset, entry.offset + entry.size
        while start < end:
            while start >= edges[row + 1]:
                row += 1
            stop = min(end, edges[row + 1])
            scale = WIDTH / (edges[row + 1] - edges[row])
            yield _rectangle(scale * (start - edges[row]), row * ROW, scale * (stop - start), colour, title)
            start = stop


def _rectangle(x: float, y: float, width: float, colour: str, title: str) -> str:
    # A gap between blocks, as long as there is room for one.
    drawn = max(width - 0.5, width * 0.6)
    return (
        f'<rect x="{x:.2f}" y="{y}" width="{drawn:.2f}" height="{ROW - 3}" fill="{colour}">'
        f"<title>{title}</title></rect>"
    )


def _picture(drawn: Iterable[str], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" style="max-width:100%">{"".join(drawn)}</svg>'
    )


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    items = "".join(
        f'<span style="margin-right:1em"><span style="color:{colour}">&#9632;</span> {escape(text)}</span>'
        for text, colour in entries
    )
    return f"<div>{items}</div>"
