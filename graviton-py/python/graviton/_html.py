"""Views for notebooks, for ``_repr_html_``. All text from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from html import escape
from itertools import islice
from typing import TypeAlias

# Offset, size and key of a block.
Block: TypeAlias = tuple[int, int, str]

# Colours that colour-blind people can tell apart, on light and dark backgrounds.
NEW, SHARED, REPEATED = "#0072b2", "#e69f00", "#009e73"

# The most blocks in a picture: more would not be visible, and would make a heavy page.
MOST_BLOCKS = 2000
WIDTH, ROW, ROWS = 720, 14, 8

_TABLE = 'style="text-align:left;border-collapse:collapse"'


def size(count: int) -> str:
    """A number of bytes as text: ``1536`` becomes ``1.5 KiB``."""
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


def shares(caption: str, rows: Mapping[str, object], parts: Sequence[tuple[str, int, str]]) -> str:
    """A table, and below it a bar of parts. A part is a name, a number of bytes and a colour; a negative
    number counts as 0."""
    return table(caption, rows) + bar([(name, max(0, amount), colour) for name, amount, colour in parts])


def bar(shares: Sequence[tuple[str, int, str]]) -> str:
    """Shares of a whole in one bar, with its legend. Empty if all shares are 0."""
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


def manifest(
    id: str, length: int, count: int, facts: Mapping[str, object], blocks: Iterable[Block], known: Set[str]
) -> str:
    """The blocks of a blob in order, each with a width proportional to its size. The colour shows whether a
    block is repeated in this blob, or has one of the known keys of other, earlier blobs."""
    seen: set[str] = set()
    kinds: list[tuple[Block, str, str]] = []
    shown = 0
    for block in islice(blocks, MOST_BLOCKS):
        offset, width, key = block
        if key in known:
            kinds.append((block, "there before", SHARED))
        elif key in seen:
            kinds.append((block, "repeated in this blob", REPEATED))
        else:
            kinds.append((block, "new" if known else "stored once", NEW))
        seen.add(key)
        shown = offset + width
    cut = len(kinds) < count
    rows = {
        "id": id,
        "size": size(length),
        "blocks": f"{count:,}",
        "different blocks": f"{len(seen):,}" + (f" of the first {len(kinds):,}" if cut else ""),
        **facts,
    }
    if cut:
        rows["shown"] = f"the first {size(shown)}"
    legend: dict[tuple[str, str], int] = {}
    for (_, width, _), name, colour in kinds:
        legend[name, colour] = legend.get((name, colour), 0) + width
    drawing = _picture(_blocks(kinds, shown), ROW * ROWS) if shown else ""
    return (
        table("Graviton blob", rows)
        + drawing
        + _legend((f"{name} {size(amount)}", colour) for (name, colour), amount in legend.items())
    )


def _blocks(kinds: Iterable[tuple[Block, str, str]], whole: int) -> Iterable[str]:
    """Rectangles for blocks, in rows from left to right. A block that crosses the end of a row is split."""
    edges = [whole * row // ROWS for row in range(ROWS + 1)]
    row = 0
    for (start, width, key), name, colour in kinds:
        title = escape(f"{start:,}: {size(width)}, {name}, {key}")
        end = start + width
        while start < end:
            while start >= edges[row + 1]:
                row += 1
            stop = min(end, edges[row + 1])
            scale = WIDTH / (edges[row + 1] - edges[row])
            yield _rectangle(scale * (start - edges[row]), row * ROW, scale * (stop - start), colour, title)
            start = stop


def _rectangle(x: float, y: float, width: float, colour: str, title: str) -> str:
    # A gap between blocks, if there is room for one.
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
