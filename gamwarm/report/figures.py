"""Figures of a report as inline SVG, in the page's colours, light and dark.

Positions are shares of the width and text has a fixed size, so a figure fills a desktop window and
a phone, and its words can be read on both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from gamwarm.display import html, shortened, visible
from gamwarm.report.summary import Bar, Pair

__all__ = ["bars", "number", "pairs", "stacked"]

LABEL: Final = 30.0
"""Percent of the width for labels."""
LONGEST: Final = 40.0
"""Percent of the width of the longest bar; what follows is for its number."""
LETTERS: Final = 14
"""Letters of a label that fit a phone; all of it shows where a pointer rests."""


def number(value: float) -> str:
    """Return a number as a person writes it: three significant digits, thousands apart."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def pairs(rows: Sequence[Pair], title: str) -> str:
    """Draw two bars a row: what a fit would have taken cold, and what it took."""
    longest = max((max(row.cold, row.own) for row in rows), default=0.0) or 1.0
    body: list[str] = []
    for n, row in enumerate(rows):
        y = 34 * n
        cold, own = LONGEST * row.cold / longest, LONGEST * row.own / longest
        gain = f" ({number(row.cold / row.own)}×)" if row.own else ""
        body += [
            _label(y + 20, row.label),
            _rect(y + 3, cold, 11, "fill-cold" if row.measured else "estimate"),
            _number(y + 13, cold, number(row.cold), "small"),
            _rect(y + 17, own, 11, f"fill-{html(row.source)}"),
            _number(y + 27, own, number(row.own) + gain),
        ]
    return _svg(34 * len(rows), title, body)


def bars(rows: Sequence[Bar], title: str) -> str:
    """Draw one bar a row."""
    longest = max((row.count for row in rows), default=0) or 1
    body: list[str] = []
    for n, row in enumerate(rows):
        length = LONGEST * row.count / longest
        body += [_label(24 * n + 14, row.label), _number(24 * n + 14, length, f"{row.count:,}")]
        if row.count:
            body.append(_rect(24 * n + 3, length, 14, "fill-transfer"))
    return _svg(24 * len(rows), title, body)


def stacked(counts: dict[str, int]) -> str:
    """Draw how a term's transfers ended as one bar of parts."""
    total = sum(counts.values()) or 1
    x, body = 0.0, []
    for name, count in counts.items():
        width = 100 * count / total
        if count:
            body.append(f'<rect x="{x:.4g}%" y="3" width="{width:.4g}%" height="12" class="fill-{html(name)}"/>')
        x += width
    return _svg(18, ", ".join(f"{count} {name}" for name, count in counts.items()), body, "inline")


def _svg(height: float, title: str, body: Sequence[str], css: str = "") -> str:
    return (
        f'<svg width="100%" height="{height:g}" role="img" aria-label="{html(title)}" class="{css}">'
        f"{''.join(body)}</svg>"
    )


def _label(y: float, text: str) -> str:
    shown = shortened(text, LETTERS)
    rest = f"<title>{html(text)}</title>" if shown != visible(text) else ""
    return f'<text x="0" y="{y:g}">{rest}{html(shown)}</text>'


def _number(y: float, length: float, text: str, css: str = "") -> str:
    return f'<text x="{LABEL + length:.4g}%" dx="6" y="{y:g}" class="{css}">{html(text)}</text>'


def _rect(y: float, length: float, height: float, css: str) -> str:
    width = max(length, 0.4)
    return f'<rect x="{LABEL:g}%" y="{y:g}" width="{width:.4g}%" height="{height:g}" rx="2" class="{css}"/>'
