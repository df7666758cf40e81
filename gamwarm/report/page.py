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
from gamwarm.report.figures import bars, number, pairs, stacked
from gamwarm.report.summary import PROVENANCES, SHORT, FitGroup, Plot, Summary, Tree, label_of, summarize
from gamwarm.storage import refuse_existing, replace_text, status_of
from gamwarm.store import Savings, SourceSavings
from gamwarm.version import __version__

__all__ = ["write_report"]

NEWEST: Final = 20
MOST_GROUPS: Final = 12
MOST_TERMS: Final = 40
MOST_ROWS: Final = 160
DEEPEST: Final = 8
"""Steps of indentation; what lies deeper is drawn there."""


def write_report(
    store_path: str | os.PathLike[str],
    out_html: str | os.PathLike[str],
    *,
    title: str | None = None,
    overwrite: bool = True,
) -> Path:
    """Write one HTML page about a file; it loads nothing, and the same file gives the same page.

    Parameters
    ----------
    store_path : path
        A store or an archive; it is only read.
    out_html : path
    title : str, optional
        Default: the name of the file.
    overwrite : bool
        Whether to replace ``out_html`` if it is there.

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
    Summaries of entries are read without their seals; ``verify`` checks those. What starts saved is
    what `WarmStartStore.savings` says. Means by start are means over different fits.
    """
    path, target = file_path(store_path, "store_path"), file_path(out_html, "out_html")
    there, store_there = status_of(target), status_of(path)
    if there is not None and store_there is not None and os.path.samestat(there, store_there):
        raise StoreError(f"{target}: the report would overwrite the store; give another path")
    if not overwrite:
        refuse_existing(target)
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
        _glance(summary, unreadable),
        _fits(summary.plot),
        _terms(summary),
        _lineage(summary),
        _costs(summary),
        _contents(summary, nbytes, generation),
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
    """Return a table of HTML cells; from column ``numeric`` on they stand to the right.

    Every cell knows its heading: on a phone a row is drawn as a list of headings and cells.
    """

    def cell(n: int, html_text: str) -> str:
        right = ' class="num"' if numeric and n >= numeric else ""
        return f'<td{right} data-name="{html(heads[n])}">{html_text}</td>'

    body = "".join(f"<tr>{''.join(cell(n, each) for n, each in enumerate(row))}</tr>\n" for row in rows)
    right = ' class="num"'
    head = "".join(f"<th{right if numeric and n >= numeric else ''}>{html(name)}</th>" for n, name in enumerate(heads))
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _cards(facts: Iterable[tuple[str, str]]) -> str:
    cards = "".join(f"<div><b>{html(value)}</b><span>{html(name)}</span></div>" for value, name in facts)
    return f'<div class="cards">{cards}</div>'


# -- what the file saved ---------------------------------------------------------------------------


def _glance(summary: Summary, unreadable: Sequence[str]) -> str:
    savings, every = summary.savings, summary.savings.all
    parts = [f'<p class="headline">{html(_headline(savings))}</p>']
    if every.compared:
        parts += [_cards(_saved_facts(savings)), *map(_note, _how_known(summary))]
    elif sum(summary.counts.values()):
        parts.append(_note(_why_nothing(savings)))
    if unreadable:
        some = ", ".join(unreadable[:3])
        which = "1 entry cannot" if len(unreadable) == 1 else f"{len(unreadable):,} entries cannot"
        parts.append(f'<p class="warning">{which} be read ({html(some)}); run gamwarm verify.</p>')
    return f"<section>{''.join(parts)}</section>"


def _headline(savings: Savings) -> str:
    every = savings.all
    if not every.compared:
        return "No saving is known." if every.fits else "The file holds no fit that says how it began."
    name, cold, own = _work_of(every)
    gains = [(float(cold - own), name)] if name else []
    gains.append((savings.total.seconds, "s"))
    words = [
        " and ".join(f"{number(abs(gain))} {unit}" for gain, unit in gains if (gain >= 0) is saved) + what
        for saved, what in ((True, " saved"), (False, " more than cold"))
        if any((gain >= 0) is saved for gain, _ in gains)
    ]
    return f"{', '.join(words)} ({savings.basis})."


def _work_of(every: SourceSavings) -> tuple[str, int, int]:
    """Return what counts as work, and how much of it cold and warm fits took."""
    for name, what in (("Hessian formations", "hessian_formations"), ("evaluations", "evaluations")):
        if getattr(every.cold, what):
            return name, getattr(every.cold, what), getattr(every.own, what)
    return "", 0, 0


def _saved_facts(savings: Savings) -> list[tuple[str, str]]:
    every = savings.all
    name, cold, own = _work_of(every)
    facts = [(f"{every.compared:,}", "fits that started from this file")]
    if name:
        facts.append((number(own), f"{name}, instead of {number(cold)}"))
        if own:
            facts.append((f"{number(cold / own)}×", f"{name}, cold to warm"))
    facts.append((f"{number(every.own.seconds)} s", f"instead of {number(every.cold.seconds)} s"))
    return facts


def _how_known(summary: Summary) -> Iterable[str]:
    every = summary.savings.all
    estimated = every.compared - every.measured
    if every.measured:
        which = "each of these fits was" if not estimated else f"{every.measured:,} of these fits were"
        same = summary.largest_difference
        agree = "" if same is None else f"; the objectives differ by at most {same:.1e} (relative)"
        yield f"Measured: {which} also run cold{agree}."
    if estimated:
        against = [f"{basis} ({n:,})" for basis, n in summary.bases.items() if not basis.is_measured]
        which = "The others are estimated" if every.measured else "Estimated"
        yield f"{which}, against {' and '.join(against)}."
    later = every.cost.for_children
    left_out = "Left out: the start-up time of a process (imports, caches)"
    if later:
        left_out += f", and {later:,} Hessian formations that served later fits only"
    yield left_out + ". Repeats that were answered from the file write nothing, so they are not counted."
    if every.refused:
        yield f"{every.refused:,} starts were offered and not used; what they cost counts."


def _why_nothing(savings: Savings) -> str:
    started = {name: part.fits for name, part in savings.by_source.items() if part.fits}
    if not started:
        return "Records that were put directly, not by keep, do not say how the fit began."
    if set(started) == {"cold"}:
        return "All fits were cold: none started from another one."
    return "The file no longer tells what the fits would have taken cold, or they state no cost."


def _fits(plot: Plot | None) -> str:
    if plot is None:
        return ""
    heading = f"Cold and warm, fit by fit ({plot.unit})"
    parts = []
    key = '<span class="key fill-transfer"></span>warm '
    if any(pair.source == "exact" for pair in plot.pairs):
        key += '<span class="key fill-exact"></span>continued '
    if any(pair.measured for pair in plot.pairs):
        key += '<span class="key fill-cold"></span>cold, measured '
    if any(not pair.measured for pair in plot.pairs):
        key += '<span class="key estimate"></span>cold, estimated '
    if plot.gains:
        total = sum(bar.count for bar in plot.gains)
        parts.append(_note(f"How many times less than cold {total:,} fits took:"))
        parts.append(f"<figure>{bars(plot.gains, 'fits by gain')}</figure>")
        parts.append(_note(f"The {len(plot.pairs)} that gained least:"))
    parts.append(f"<p>{key}</p><figure>{pairs(plot.pairs, heading)}</figure>")
    if plot.without_unit:
        parts.append(_note(f"{plot.without_unit:,} more fits do not count {plot.unit}."))
    return _section(heading, *parts)


# -- what is in the file ---------------------------------------------------------------------------


def _contents(summary: Summary, size: int, generation: int) -> str:
    names = {"final": "final records", "checkpoint": "checkpoints", "artifact": "artifacts"}
    cards = [(number(count), names[kind]) for kind, count in summary.counts.items()]
    cards += [(_bytes(size), "file"), (number(generation), "transactions")]
    lists = [("Families", summary.families), ("Engines", summary.engines)]
    lines = "".join(
        f"<p><b>{name}</b> {html(', '.join(f'{word} ({count:,})' for word, count in counts.items()))}</p>"
        for name, counts in lists
        if counts
    )
    return _section("What is in the file", _cards(cards), lines)


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{number(size)} {unit}"


def _costs(summary: Summary) -> str:
    heading = "Mean cost by start"
    if not summary.costs:
        return _section(heading, _note("No final record states both its cost and its start."))
    note = "Per fit, without work for later fits; fits with the same engine and blocks. These are different fits."
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
        rows.append([html(row.source), f"{row.fits:,}", *map(number, costs)])
    heads = ["start", "fits", "evaluations", "outer", "inner", "Hessians", "seconds"]
    engine = f' <span class="quiet">{html(group.engine)}</span>' if group.engine else ""
    return f"<h3>{_few(group.blocks)}{engine}</h3>{_table(heads, rows, 1)}"


def _terms(summary: Summary) -> str:
    heading = "Terms: what starts took over"
    if not summary.terms:
        return _section(heading, _note("No final record started from another fit."))
    rows = [
        [f'<span class="name">{html(name)}</span>', stacked(counts), *(f"{counts[p]:,}" for p in PROVENANCES)]
        for name, counts in list(summary.terms.items())[:MOST_TERMS]
    ]
    key = "".join(f'<span class="key fill-{p}"></span>{p} ' for p in PROVENANCES)
    note = "projected: coefficients and smoothing parameters; rho-only: smoothing parameters; cold: neither."
    more = len(summary.terms) - len(rows)
    left_out = _note(f"{more:,} more terms are not shown.") if more > 0 else ""
    return _section(heading, _note(note), f"<p>{key}</p>", _table(["term", "", *PROVENANCES], rows, 2), left_out)


def _lineage(summary: Summary) -> str:
    heading = "Lineage: which fit started from which"
    if not summary.trees:
        return _section(heading, _note("No fit in the file started from another one in it."))
    drawn, left_out = _drawn(summary.trees)
    key = "".join(f'<span class="key round fill-{s}"></span>{s} ' for s in ("cold", "transfer", "exact"))
    note = _stand_alone(summary.alone)
    if left_out:
        note += f" {left_out:,} more fits are not shown."
    return _section(heading, f"<p>{key}</p>", drawn, _note(note.strip()) if note else "")


def _stand_alone(count: int) -> str:
    return "" if not count else "1 fit stands alone." if count == 1 else f"{count:,} fits stand alone."


def _drawn(trees: Sequence[Tree]) -> tuple[str, int]:
    """Return trees of fits as lists, one row per fit, and how many rows were left out."""
    rows = [row for tree in trees for row in tree.rows]
    body = []
    for depth, fit in rows[:MOST_ROWS]:
        ring = " hollow" if fit.kind == "checkpoint" else ""
        body.append(
            f'<li style="--depth:{min(depth, DEEPEST)}"><span class="dot fill-{html(fit.source or "unknown")}{ring}">'
            f'</span><b>{html(fit.label)}</b> <span class="quiet">{html(fit.facts)}</span></li>'
        )
    return f'<ul class="tree">{"".join(body)}</ul>', max(len(rows) - MOST_ROWS, 0)


def _few(names: Sequence[str]) -> str:
    """Return the first names as HTML; all of them show where a pointer rests."""
    rest = f" and {len(names) - 3} more" if len(names) > 4 else ""
    shown = names[:3] if rest else names
    everything = html(", ".join(names))
    return f'<span class="name" title="{everything}">{html(", ".join(shown))}{rest}</span>'


def _newest(newest: Sequence[EntrySummary]) -> str:
    heading = "Newest entries"
    if not newest:
        return _section(heading, _note("None."))
    heads = ["fit", "kind", "blocks", "rows", "objective", "start", "made", "entry"]
    rows = [
        [
            f'<span class="name">{html(label_of(entry))}</span>',
            html(entry.kind),
            _few(entry.blocks),
            f"{entry.n_rows:,}",
            "" if entry.objective is None else html(f"{entry.objective:.6g}"),
            html(entry.source or ""),
            html(datetime.fromtimestamp(entry.created / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")),
            f"<code>{html(entry.entry_id[:SHORT])}</code>",
        ]
        for entry in newest
    ]
    return _section(heading, f"<details><summary>{len(rows)} entries</summary>{_table(heads, rows)}</details>")
