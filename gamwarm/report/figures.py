"""Figures of a report as inline SVG, in the page's colours, light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from gamwarm.display import html
from gamwarm.report.summary import FitGroup, Tree

__all__ = ["bars_of_cost", "growth", "lineage", "number", "stacked"]

_ROW: Final = 24
_BAR: Final = 14


def number(value: float) -> str:
    """Return a number as a person writes it: three significant digits, thousands apart."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _svg(width: float, height: float, title: str, body: Sequence[str], css: str = "") -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html(title)}" class="{css}" '
        f'preserveAspectRatio="xMinYMin meet" style="--width:{width:g}px">{"".join(body)}</svg>'
    )


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{css}" text-anchor="{anchor}">{html(text)}</text>'


def _rect(x: float, y: float, width: float, css: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{max(width, 1):g}" height="{_BAR}" rx="2" class="{css}"/>'


def bars_of_cost(group: FitGroup) -> str:
    """Draw the mean Hessian formations of a group of fits, one bar per source."""
    widest = max(row.hessian_formations for row in group.rows) or 1.0
    body: list[str] = []
    for n, row in enumerate(group.rows):
        y = n * _ROW
        gain = group.gain(row)
        length = 250 * row.hessian_formations / widest
        body += [
            _text(0, y + 12, row.source),
            _rect(66, y, length, f"fill-{html(row.source)}"),
            _text(72 + length, y + 12, number(row.hessian_formations) + (f"  ({gain} fewer)" if gain else "")),
        ]
    return _svg(360, len(group.rows) * _ROW, "mean Hessian formations by source of the start", body)


def stacked(counts: dict[str, int]) -> str:
    """Draw how a term's transfers ended as one bar of parts."""
    total = sum(counts.values()) or 1
    x, body = 0.0, []
    for name, count in counts.items():
        width = 240 * count / total
        if count:
            body.append(_rect(x, 2, width, f"fill-{html(name)}"))
        x += width
    return _svg(240, _BAR + 4, ", ".join(f"{count} {name}" for name, count in counts.items()), body, "inline")


def growth(created: Sequence[int]) -> str:
    """Draw the number of entries over time, which is that of the entries themselves (UTC)."""
    left, right, top, bottom = 40.0, 410.0, 10.0, 130.0
    first, last = created[0], created[-1]
    span = max(last - first, 1)
    shown = range(0, len(created), max(1, len(created) // 300))
    marks = [*((created[n], n + 1) for n in shown), (last, len(created))]
    path, before = [], 0
    for when, count in marks:
        x = left + (right - left) * (when - first) / span
        path += [f"{x:.1f},{bottom - (bottom - top) * height / len(created):.1f}" for height in (before, count)]
        before = count
    points = " ".join(path)
    body = [f'<polyline points="{points}" class="line"/>']
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - top) * share
        body.append(f'<line x1="{left:g}" x2="{right:g}" y1="{y:g}" y2="{y:g}" class="grid"/>')
        body.append(_text(left - 6, y + 4, number(round(len(created) * share)), "small", "end"))
    for share, anchor in ((0.0, "start"), (1.0, "end")):
        when = last if share else first
        body.append(_text(left + (right - left) * share, bottom + 18, _when(when), "small", anchor))
    return _svg(420, 156, "entries over time", body, "growth")


def _when(created: int) -> str:
    return datetime.fromtimestamp(created / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def lineage(trees: Sequence[Tree], most: int) -> tuple[str, int]:
    """Draw trees of fits, one row per fit; return the figure and how many rows were left out."""
    body: list[str] = []
    y, shown, width = 14, 0, 300.0
    for tree in trees:
        above: list[float] = []
        for depth, fit in tree.rows:
            if shown == most:
                break
            shown += 1
            x = 10 + 26 * min(depth, 12)
            del above[depth:]
            if above:
                px, py = 10 + 26 * min(depth - 1, 12), above[-1]
                body.append(f'<path d="M{px} {py + 5:g} V{y} H{x - 6}" class="edge"/>')
            above.append(y)
            ring = " hollow" if fit.kind == "checkpoint" else ""
            source = html(fit.source or "unknown")
            body.append(f'<circle cx="{x}" cy="{y}" r="5" class="fill-{source}{ring}"/>')
            label = f"{fit.label}  {fit.source or 'unknown start'}"
            body.append(_text(x + 12, y + 4, label))
            width = max(width, x + 20 + 6.7 * len(label))
            y += _ROW
        y += 8
    left_out = sum(len(tree.rows) for tree in trees) - shown
    return _svg(width, y, "which fit started from which", body, "lineage"), left_out
