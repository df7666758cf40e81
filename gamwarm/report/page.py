"""The page: text and tables around the figures; all is escaped, nothing loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

from gamwarm.checks import file_path
from gamwarm.display import html
from gamwarm.entries import EntryStore, EntrySummary, list_entries
from gamwarm.errors import StoreError
from gamwarm.report.figures import bars_of_cost, growth, lineage, number, stacked
from gamwarm.report.summary import PROVENANCES, FitGroup, Summary, summarize
from gamwarm.storage import replace_text, status_of
from gamwarm.version import __version__

__all__ = ["write_report"]

NEWEST: Final = 40
MOST_GROUPS: Final = 12
MOST_TERMS: Final = 40
MOST_ROWS: Final = 160


def write_report(
    store_path: str | os.PathLike[str], out_html: str | os.PathLike[str], *, title: str | None = None
) -> Path:
    """Write one HTML page about a file; it loads nothing, and the same file gives the same page.

    Parameters
    ----------
    store_path : path
        A store or an archive; it is only read.
    out_html : path
        Replaced if it is there.
    title : str, optional
        Default: the name of the file.

    Returns
    -------
    pathlib.Path
        Where the page is.

    Raises
    ------
    StoreError
        The file cannot be read, or the page not be written.

    Notes
    -----
    Summaries of entries are read without their seals; ``verify`` checks those. Costs are means over
    different fits that began from each source: a comparison of jobs, not a paired one.
    """
    path, target = file_path(store_path, "store_path"), file_path(out_html, "out_html")
    there, store_there = status_of(target), status_of(path)
    if there is not None and store_there is not None and os.path.samestat(there, store_there):
        raise StoreError(f"{target}: the report would overwrite the store; give another path")
    store = EntryStore(path, mode="r")
    try:
        summaries, unreadable = list_entries(store)
        generation = store.generation
    finally:
        store.close()
    size = store_there.st_size if store_there is not None else 0
    page = _page(size, title or path.name, summarize(summaries, NEWEST), unreadable, generation)
    replace_text(target, page)
    return target


def _page(nbytes: int, title: str, summary: Summary, unreadable: Sequence[str], generation: int) -> str:
    style = files("gamwarm.report").joinpath("style.css").read_text(encoding="utf-8")
    sections = [
        _overview(summary, nbytes, generation, unreadable),
        _costs(summary),
        _terms(summary),
        _lineage(summary),
        _growth(summary),
        _newest(summary.newest),
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{html(title)}: gamwarm</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>",
            f'<header><h1>{html(title)}</h1><p class="quiet">Fits stored by gamwarm. Times are UTC.</p></header>',
            *sections,
            f'<footer class="quiet">Written by gamwarm {html(__version__)}.</footer>\n</main>\n</body>\n</html>\n',
        ]
    )


def _section(heading: str, *parts: str) -> str:
    return f"<section>\n<h2>{html(heading)}</h2>\n{''.join(parts)}\n</section>"


def _note(text: str) -> str:
    return f'<p class="quiet">{html(text)}</p>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: int = 0) -> str:
    """Return a table of HTML cells; from column ``numeric`` on they stand to the right."""

    def cells(tag: str, row: Sequence[str]) -> str:
        right = ' class="num"'
        return "".join(
            f"<{tag}{right if numeric and n >= numeric else ''}>{cell}</{tag}>" for n, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in rows)
    head = cells("th", [html(name) for name in heads])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _overview(summary: Summary, size: int, generation: int, unreadable: Sequence[str]) -> str:
    names = {"final": "final records", "checkpoint": "checkpoints", "artifact": "artifacts"}
    cards = [(number(count), names[kind]) for kind, count in summary.counts.items()]
    cards += [(_bytes(size), "file"), (number(generation), "transactions")]
    facts = "".join(f"<div><b>{html(value)}</b><span>{html(name)}</span></div>" for value, name in cards)
    lists = [("families", summary.families), ("engines", summary.engines)]
    lines = "".join(
        f"<p><b>{name}</b> {html(', '.join(f'{word} ({count:,})' for word, count in counts.items()))}</p>"
        for name, counts in lists
        if counts
    )
    warning = ""
    if unreadable:
        some = ", ".join(unreadable[:3])
        warning = f'<p class="warning">{len(unreadable)} entries cannot be read ({html(some)}); run verify.</p>'
    return _section("What is in the file", f'<div class="cards">{facts}</div>', lines, warning)


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{number(size)} {unit}"


def _costs(summary: Summary) -> str:
    heading = "Cost, cold against warm"
    if not summary.costs:
        return _section(heading, _note("No final record states both its cost and its start."))
    note = "Mean cost per fit by type of start, for fits with the same engine and blocks. These are different fits."
    if summary.without_lineage:
        note += f" {summary.without_lineage:,} final records without a cost or a start are not counted."
    shown = summary.costs[:MOST_GROUPS]
    parts = [_note(note), *map(_group, shown)]
    if len(summary.costs) > len(shown):
        parts.append(_note(f"{len(summary.costs) - len(shown):,} smaller groups are not shown."))
    return _section(heading, *parts)


def _group(group: FitGroup) -> str:
    rows = []
    for row in group.rows:
        costs = (row.evaluations, row.outer_iterations, row.inner_iterations, row.hessian_formations, row.seconds)
        rows.append([html(row.source), f"{row.fits:,}", *map(number, costs), group.gain(row)])
    heads = ["start", "fits", "evaluations", "outer", "inner", "Hessians", "seconds", "fewer Hessians"]
    words = f"{', '.join(group.blocks)}"
    engine = f' <span class="quiet">{html(group.engine)}</span>' if group.engine else ""
    figure = (
        ""
        if len(group.rows) == 1
        else f"<figure>{bars_of_cost(group)}<figcaption>Hessian formations</figcaption></figure>"
    )
    return f"<h3>{html(words)}{engine}</h3>{figure}{_table(heads, rows, 1)}"


def _terms(summary: Summary) -> str:
    heading = "Transfers by term"
    if not summary.terms:
        return _section(heading, _note("No final record started from another fit."))
    rows = [
        [html(name), stacked(counts), *(f"{counts[p]:,}" for p in PROVENANCES)]
        for name, counts in list(summary.terms.items())[:MOST_TERMS]
    ]
    key = "".join(f'<span class="key fill-{p}"></span>{p} ' for p in PROVENANCES)
    note = "projected: coefficients and smoothing parameters; rho-only: smoothing parameters; cold: neither."
    more = len(summary.terms) - len(rows)
    left_out = _note(f"{more:,} more terms are not shown.") if more > 0 else ""
    return _section(heading, _note(note), f"<p>{key}</p>", _table(["term", "", *PROVENANCES], rows, 2), left_out)


def _lineage(summary: Summary) -> str:
    heading = "Which fit started from which"
    if not summary.trees:
        return _section(heading, _note("No fit in the file started from another one in it."))
    figure, left_out = lineage(summary.trees, MOST_ROWS)
    key = "".join(f'<span class="key round fill-{s}"></span>{s} ' for s in ("cold", "transfer", "exact"))
    note = f"{summary.alone:,} fits stand alone." if summary.alone else ""
    if left_out:
        note += f" {left_out:,} more fits are not shown."
    return _section(heading, f"<p>{key}</p>", f'<div class="scroll">{figure}</div>', _note(note) if note else "")


def _growth(summary: Summary) -> str:
    heading = "Growth"
    if not summary.created:
        return _section(heading, _note("The file holds no entry."))
    return _section(
        heading, f"<figure>{growth(summary.created)}<figcaption>entries by time of creation</figcaption></figure>"
    )


def _few(names: Sequence[str]) -> str:
    """Return the first names as HTML; all of them show where a pointer rests."""
    rest = f" and {len(names) - 3} more" if len(names) > 4 else ""
    shown = names[:3] if rest else names
    everything = html(", ".join(names))
    return f'<span title="{everything}">{html(", ".join(shown))}{rest}</span>'


def _newest(newest: Sequence[EntrySummary]) -> str:
    heading = "Newest entries"
    if not newest:
        return _section(heading, _note("None."))
    heads = ["entry", "kind", "blocks", "rows", "objective", "start", "from", "made"]
    rows = [
        [
            f"<code>{html(entry.entry_id[:12])}</code>",
            html(entry.kind),
            _few(entry.blocks),
            f"{entry.n_rows:,}",
            "" if entry.objective is None else html(f"{entry.objective:.6g}"),
            html(entry.source or ""),
            f"<code>{html((entry.parent or '')[:12])}</code>",
            html(datetime.fromtimestamp(entry.created / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")),
        ]
        for entry in newest
    ]
    return _section(heading, _table(heads, rows))
