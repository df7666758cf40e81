"""``ls``, ``show``, ``stats``: what is in a file."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.text import Text

from gamwarm.cli.exit_codes import BadUsage, Exit
from gamwarm.cli.filters import selecting
from gamwarm.cli.keys import SHORT, looking_into, resolve, search, short
from gamwarm.cli.options import File, Json, Key, command
from gamwarm.cli.output import (
    WIDE,
    columns,
    facts,
    fitting,
    followed,
    human_bytes,
    human_number,
    moment,
    page_width,
    say,
    show,
    table,
    write_json,
)
from gamwarm.display import shortened
from gamwarm.entries import ARTIFACTS, RECORDS, BrowsedEntry, Families, Selection, Selector, list_sealed
from gamwarm.records import COLD_RUN, BlockRecord, Cost, Curvature, FitArtifact, Lineage, cold_objective_of, cold_run_of
from gamwarm.store import Savings, SourceSavings, add_up

__all__ = ["ls", "show_entry", "stats"]

SORTED_BY_ITSELF: Final = 1000
"""Up to so many entries a listing is sorted without being asked."""
SAMPLE: Final = 500
"""Entries per section that `stats` reads for starts and costs in a larger file."""
SHOWN_NUMBERS: Final = 8


@command("ls", "list entries")
@selecting
def ls(
    file: File,
    selection: Selection,
    damaged: Annotated[bool, typer.Option("--damaged", help="only entries whose digests do not match")] = False,
    limit: Annotated[int, typer.Option(metavar="N", help="entries to show; 0: all")] = 50,
    sort: Annotated[
        str,
        typer.Option(
            metavar="ORDER", help="newest, oldest, file (as stored, at once); auto: newest of few, file of many"
        ),
    ] = "auto",
    full: Annotated[bool, typer.Option("--full", help="full keys, all columns")] = False,
    as_json: Json = False,
) -> Exit:
    """List entries: exact records (final, checkpoint) and artifacts.

    KEY is the beginning of an exact key (records) or of an entry id (artifacts); every subcommand
    takes it. Options that select may be repeated, their names may hold * and ?, and all options
    given are met. VALID says whether a look-up would use the entry. With --json, one object
    per line.
    """
    if sort not in ("auto", "newest", "oldest", "file"):
        raise BadUsage(f"--sort {sort!r}; use newest, oldest, file or auto")
    if limit < 0:
        raise BadUsage(f"--limit {limit}; give 0 (all) or more")
    with looking_into(file) as (_, browser):
        entries = browser.totals().entries
        selector = Selector(browser, selection, partial(search, browser))
        families = selector.families
        order = sort if sort != "auto" else ("newest" if entries <= SORTED_BY_ITSELF else "file")
        found = followed(selector.scan(), "looking", entries)
        seen = (each for each in found if each.problem) if damaged else found
        page, more = _page(seen, order, limit)
        if as_json:
            for each in page:
                write_json(_row_json(each, families))
        elif page:
            show(_listing(page, families, full=full), width=WIDE if full else None)
        _footer(page, more, entries, order, selects=damaged or not selection.is_all)
    return Exit.OK


def _page(seen: Iterator[BrowsedEntry], order: str, limit: int) -> tuple[list[BrowsedEntry], bool]:
    """Return the entries to show, and whether there are more; few are in memory at once."""
    if order == "file":
        page = list(islice(seen, limit or None))
        return page, bool(limit) and next(seen, None) is not None

    def age(each: BrowsedEntry) -> tuple[int, str]:
        return each.created, each.path

    if not limit:
        return sorted(seen, key=age, reverse=order == "newest"), False
    pick = heapq.nlargest if order == "newest" else heapq.nsmallest
    page = pick(limit + 1, seen, key=age)
    return page[:limit], len(page) > limit


def _footer(page: Sequence[BrowsedEntry], more: bool, entries: int, order: str, *, selects: bool) -> None:
    how = {"file": "as stored", "newest": "newest first", "oldest": "oldest first"}[order]
    if not page:
        say("no entries match" if entries else "the file holds no entries yet")
    elif more:
        which = f"{len(page):,} of {entries:,} entries" if not selects else f"the first {len(page):,} that match"
        say(f"{which}, {how}; --limit 0 shows all, --limit N more")
    elif selects:
        say(f"{len(page):,} of {entries:,} entries match, {how}")


_COLUMNS: Final = columns(
    *("KEY", "KIND", "VALID", "CREATED (UTC)", "ROWS>", "OBJECTIVE>", "START", "FAMILY", "ENGINE", "HESSIANS>"),
    *("SECONDS>", "BLOCKS"),
)
"""What matters most on the left: a narrow terminal gets as many as fit."""
_LABEL: Final = 2
_LABEL_WIDTH: Final = 12
"""Where the labels are, if any entry shown has one, and how much of each without --full."""


def _listing(page: Sequence[BrowsedEntry], families: Families, *, full: bool) -> Any:
    width = WIDE if full else page_width()
    rows = [list(_cells(seen, families, full=width >= WIDE, whole_keys=full)) for seen in page]
    heads = list(_COLUMNS)
    labels = ["" if seen.summary is None else seen.summary.label for seen in page]
    if any(labels):
        heads[_LABEL:_LABEL] = columns("LABEL")
        for row, label in zip(rows, labels, strict=True):
            row.insert(_LABEL, label if full else shortened(label, _LABEL_WIDTH))
    count = fitting(heads, rows, width)
    return table(heads[:count], [row[:count] for row in rows])


def _cells(seen: BrowsedEntry, families: Families, *, full: bool, whole_keys: bool) -> Iterator[str | Text]:
    said = seen.summary
    cost = None if said is None else said.cost
    key = seen.name if whole_keys else short(seen)
    yield Text(key, style="cyan")
    yield seen.kind
    yield _valid(seen)
    yield moment(seen.created)
    yield "-" if seen.n_rows is None else f"{seen.n_rows:,}"
    yield human_number(None if said is None else said.objective)
    yield "-" if said is None else said.source or "-"
    family = _family(seen, families) or "-"
    yield family if full else family.rpartition(".")[2]
    yield "-" if said is None else said.producer.build or "-"
    yield "-" if cost is None or not cost.own.hessian_formations else f"{cost.own.hessian_formations:,}"
    yield "-" if cost is None else f"{cost.own.seconds:.3g}"
    yield ", ".join(seen.blocks) or "-"


def _family(seen: BrowsedEntry, families: Families) -> str:
    record = seen.entry if isinstance(seen.entry, BlockRecord) else None
    return "" if seen.summary is None or seen.problem else families.name(seen.summary, record)


def _is_valid(seen: BrowsedEntry) -> bool:
    """Whether a look-up would use this entry: sound, and an artifact that may be a parent."""
    if seen.problem or seen.entry is None:
        return False
    return not isinstance(seen.entry, FitArtifact) or seen.entry.is_usable


def _valid(seen: BrowsedEntry) -> Text:
    if _is_valid(seen):
        return Text("yes", style="green")
    return Text("no" if seen.problem else "unfit", style="bold red")


def _row_json(seen: BrowsedEntry, families: Families) -> dict[str, Any]:
    said = _UNKNOWN if seen.summary is None else seen.summary.as_json()
    return {
        **said,
        "key": seen.key,
        "kind": seen.kind,
        "valid": _is_valid(seen),
        "problem": seen.problem or None,
        "created": seen.created or None,
        "n_rows": seen.n_rows,
        "family": _family(seen, families) or None,
        "blocks": seen.blocks,
        "nbytes": seen.nbytes,
    }


_NOT_TOLD: Final = ("entry_id", "objective", "converged", "producer", "lineage", "cost")
_UNKNOWN: Final[dict[str, Any]] = {**dict.fromkeys(_NOT_TOLD), "attributes": {}}
"""For a damaged entry only the other cells of the row are known."""


# -- show ------------------------------------------------------------------------------------------


@command("show", "one entry, or all entries of a key")
def show_entry(
    file: File,
    key: Key,
    values: Annotated[bool, typer.Option("--values", help="all numbers, including coefficients")] = False,
    as_json: Json = False,
) -> Exit:
    """Show one entry, or all entries of an exact or descriptor key."""
    with looking_into(file) as (_, browser):
        target = resolve(browser, key)
        found = target.entries(browser)
        families, pins = Families(browser), browser.pins()
    if as_json:
        write_json([_entry_json(seen, families, pins, values=values) for seen in found])
        return Exit.OK if not any(seen.problem for seen in found) else Exit.NO
    for number, seen in enumerate(found):
        if number:
            show("")
        _show(seen, families, pins, values=values)
    return Exit.OK if not any(seen.problem for seen in found) else Exit.NO


def _show(seen: BrowsedEntry, families: Families, pins: set[str], *, values: bool) -> None:
    show(Text(f"{seen.kind} {seen.name}", style="bold"))
    show(facts(_facts(seen, families, pins)))
    if isinstance(seen.entry, BlockRecord):
        show("", _record_blocks(seen.entry))
        if len(seen.entry.rho):
            show("", _outer(seen.entry))
    elif isinstance(seen.entry, FitArtifact):
        show("", _terms(seen.entry))
    if values and seen.encoded is not None:
        for name, array in seen.encoded.arrays.items():
            show("", Text(name, style="bold"), np.array2string(array, threshold=10**9, max_line_width=page_width()))


def _facts(seen: BrowsedEntry, families: Families, pins: set[str]) -> Iterator[tuple[str, str | Text]]:
    said = seen.summary
    if seen.section == ARTIFACTS:
        yield "descriptor key", seen.key
        yield "of the fit", (said and said.fit_key) or "-"
    if seen.entry_id:
        yield "entry id", seen.entry_id + (" (pinned)" if seen.entry_id in pins else "")
    yield "valid", Text(seen.problem, style="bold red") if seen.problem else _valid(seen)
    if seen.created:
        yield "created", f"{moment(seen.created)} UTC"
    if said is None:
        if seen.n_rows is not None:
            yield "rows", f"{seen.n_rows:,}"
        return
    yield "family", _family(seen, families) or "- (no artifact of this file names it)"
    producer = said.producer
    yield "producer", f"{producer.build or 'unknown engine'}, gamwarm {producer.gamwarm_version or 'unknown'}"
    yield "rows", f"{said.n_rows:,}"
    converged = "converged" if said.converged else "not converged"
    after = f" after {said.iteration} iterations" if said.iteration else ""
    yield "objective", f"{human_number(said.objective)}, {converged}{after}"
    if isinstance(seen.entry, BlockRecord):
        for cut in seen.entry.cuts:
            yield "cut", cut
    yield "started", _start_text(said.lineage)
    if said.cost is not None:
        yield "cost", _cost_text(said.cost)
    cold, objective = cold_run_of(said.attributes), cold_objective_of(said.attributes)
    if cold is not None:
        yield "its cold run", f"{cold}" + ("" if objective is None else f", objective {human_number(objective)}")
    for name, value in said.attributes.items():
        if cold is None or not name.startswith(COLD_RUN):
            yield name, str(value)
    yield "size", human_bytes(seen.nbytes)


def _cost_text(cost: Cost) -> str:
    return f"{cost}, {cost.outer_iterations:,} outer and {cost.inner_iterations:,} inner iterations"


def _start_text(lineage: Lineage | None) -> str:
    if lineage is None:
        return "- (the start was not looked up)"
    text = str(lineage.source)
    if lineage.entry:
        text += f" from {lineage.entry}"
    terms = Counter(provenance for _, provenance in lineage.terms)
    if terms:
        text += " (" + ", ".join(f"{count} {name}" for name, count in terms.items()) + ")"
    return text + {True: ", used by the engine", False: ", NOT used by the engine", None: ""}[lineage.consumed]


def _record_blocks(record: BlockRecord) -> Any:
    rows = []
    for name, width, beta, active in zip(
        record.block_names, record.block_dims, record.block_beta, record.active_sets, strict=True
    ):
        largest = f"{np.abs(beta).max():.4g}" if len(beta) else "-"
        rows.append([name, f"{width:,}", largest, "-" if active is None else f"{len(active):,}"])
    return table(columns("BLOCK", "WIDTH>", "MAX |BETA|>", "ACTIVE>"), rows)


def _outer(record: BlockRecord) -> Any:
    rows = []
    for i, at in enumerate(_coordinates(record)):
        plateau, settled = at["plateau"], at["settled"]
        rows.append(
            [
                str(i),
                at["name"] or "-",
                f"{at['value']:.5g}",
                "-" if at["gradient"] is None else f"{at['gradient']:.2e}",
                "-" if at["edf"] is None else f"{at['edf']:.4g}",
                "-" if plateau is None else ("plateau" if plateau else "no"),
                "-" if settled is None else ("settled" if settled else "no"),
            ]
        )
    return table(columns("OUTER>", "OF", "RHO>", "GRADIENT>", "EDF>", "PLATEAU", "SETTLED"), rows)


def _coordinates(record: BlockRecord) -> list[dict[str, Any]]:
    """Return what is known of each outer coordinate; a nuisance one has no edf and plateau."""
    known = record.curvature or Curvature()
    smoothing = len(record.rho) - len(record.nuisance)

    def part(values: Any, i: int, *, of_penalties: bool = False) -> Any:
        return None if values is None or (of_penalties and i >= smoothing) else values[i].item()

    return [
        {
            "name": name,
            "is_nuisance": i >= smoothing,
            "value": value,
            "gradient": part(known.gradient, i),
            "edf": part(known.edf, i, of_penalties=True),
            "plateau": part(known.plateau, i, of_penalties=True),
            "settled": part(known.settled, i),
        }
        for i, (name, value) in enumerate(zip(record.outer_names, record.rho.tolist(), strict=True))
    ]


def _terms(artifact: FitArtifact) -> Any:
    rows = []
    for term in artifact.terms:
        rho = ", ".join(f"{value:.5g}" for value in term.rho_for_term[:SHOWN_NUMBERS])
        rho += ", …" if len(term.rho_for_term) > SHOWN_NUMBERS else ""
        rows.append(
            [
                term.name or term.identity[:SHORT],
                str(term.role),
                "-" if term.basis_meta is None else term.basis_meta.kind,
                f"{len(term.raw_beta):,}",
                "-" if term.reduced_width is None else f"{term.reduced_width:,}",
                rho or "-",
            ]
        )
    rows += [[name, "nuisance", "-", "-", "-", f"{value:.5g}"] for name, value in artifact.nuisance.items()]
    return table(columns("TERM", "ROLE", "BASIS", "RAW>", "REDUCED>", "RHO"), rows)


def _entry_json(seen: BrowsedEntry, families: Families, pins: set[str], *, values: bool) -> dict[str, Any]:
    whole = _row_json(seen, families) | {"pinned": seen.entry_id in pins, "path": seen.place}
    arrays = {} if seen.encoded is None else seen.encoded.arrays
    whole["rho"] = arrays["rho"].tolist() if "rho" in arrays else []
    if isinstance(seen.entry, BlockRecord):
        whole["outer"] = _coordinates(seen.entry)
    whole["meta"] = {} if seen.encoded is None else json.loads(seen.encoded.text())
    if values:
        whole["values"] = {name: array.tolist() for name, array in arrays.items()}
    return whole


# -- stats -----------------------------------------------------------------------------------------


@command("stats", "entries, bytes, starts by source, savings from warm starts")
def stats(
    file: File,
    whole: Annotated[bool, typer.Option("--all", help="read every entry of a large file, not a sample")] = False,
    as_json: Json = False,
) -> Exit:
    """Entries, bytes, starts by source, and savings.

    Counts come from running totals. Starts and costs are read from the records: of more than 500 a
    sample of 500 (keys are digests, and lie in the order of a hash, so the first ones are as good
    as any), unless --all is given. What starts saved is added up where every entry is read.
    """
    with looking_into(file) as (entries, browser):
        totals = browser.totals()
        sample = not whole and totals.exact_keys > SAMPLE
        keys = browser.some_keys(RECORDS, SAMPLE) if sample else None
        seen = browser.walk(RECORDS, keys, decoded=False)
        costs = _Costs()
        for each in followed(seen, "reading records", SAMPLE if sample else totals.exact_keys):
            costs.add(each)
        ledger = followed(list_sealed(entries), "adding up", totals.entries)
        savings = None if sample else add_up(ledger)
    if as_json:
        told = None if savings is None else _savings_json(savings)
        write_json({"file": str(file), **vars(totals), "sampled": sample, **costs.as_json(), "savings": told})
        return Exit.OK
    spare = max(totals.file_bytes - totals.live_bytes, 0)
    show(Text(str(file), style="bold"))
    show(
        facts(
            [
                ["entries", f"{totals.entries:,}"],
                ["fits with a record", f"{totals.exact_keys:,}"],
                ["models with artifacts", f"{totals.descriptor_keys:,}"],
                ["pinned", f"{totals.pinned:,}"],
                ["payload", human_bytes(totals.live_bytes)],
                ["file", f"{human_bytes(totals.file_bytes)}, of which structure and free space {human_bytes(spare)}"],
                ["last entry", f"{moment(totals.last_created)} UTC" if totals.last_created else "-"],
                ["transactions", f"{totals.generation:,}"],
            ]
        )
    )
    if costs.records:
        show("", costs.table(), Text(costs.remark(sample, totals.exact_keys), style="dim"))
    if savings is not None:
        rows = list(_saved_rows(savings))
        if rows:
            show("", _saved_table(rows), Text(_HOW_SAVED[savings.basis], style="dim"))
    return Exit.OK


_HOW_SAVED: Final = {
    "measured": "saved: each of these fits was also run cold",
    "in part measured": "saved: measured where a fit was also run cold, else estimated",
    "estimated": "saved: an estimate, against the nearest cold fit of the same model",
}


def _saved_rows(savings: Savings) -> Iterator[list[str]]:
    for source, part in savings.by_source.items():
        if part.compared:
            saved = part.saved
            costs = [f"{saved.evaluations:,}", f"{saved.hessian_formations:,}", f"{saved.seconds:.3g}"]
            yield [source, f"{part.compared:,}", f"{part.measured:,}", f"{part.refused:,}", *costs]


def _saved_table(rows: Sequence[Sequence[str]]) -> Any:
    return table(columns("SAVED BY", "FITS>", "MEASURED>", "NOT USED>", *_MEANS.values()), rows)


def _savings_json(savings: Savings) -> dict[str, Any]:
    parts = {name: _jsonable(part) for name, part in savings.by_source.items()}
    return {
        "by_source": parts,
        "total": vars(savings.total),
        "basis": savings.basis or None,
        "unfinished": savings.unfinished,
        "without_lineage": savings.without_lineage,
        "damaged": savings.damaged,
    }


def _jsonable(part: SourceSavings) -> dict[str, Any]:
    told = {name: vars(value) if hasattr(value, "__dict__") else value for name, value in vars(part).items()}
    return told | {"saved": vars(part.saved)}


class _Costs:
    """Costs of fits by type of start."""

    def __init__(self) -> None:
        self.records = 0
        self._finals: dict[str, list[Cost]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, seen: BrowsedEntry) -> None:
        said = seen.summary
        if said is None:
            return
        self.records += 1
        source = said.source or "not told"
        self._counts[source] += 1
        if said.cost is not None and said.kind == "final":
            self._finals.setdefault(source, []).append(said.cost)

    def _mean(self, source: str, what: str) -> float | None:
        costs = self._finals.get(source)
        return None if not costs else sum(float(getattr(cost.own, what)) for cost in costs) / len(costs)

    def as_json(self) -> dict[str, Any]:
        means = {source: {what: self._mean(source, what) for what in _MEANS} for source in self._counts}
        return {"records_read": self.records, "starts": dict(self._counts), "mean_cost_of_finals": means}

    def table(self) -> Any:
        rows = []
        for source, count in self._counts.most_common():
            means = [self._mean(source, what) for what in _MEANS]
            rows.append([source, f"{count:,}", *("-" if mean is None else f"{mean:.3g}" for mean in means)])
        return table(columns("STARTED", "RECORDS>", *_MEANS.values()), rows)

    def remark(self, sample: bool, fits: int) -> str:
        if not sample:
            return "costs are means of finals"
        return f"costs are means of finals; {self.records:,} records sampled of {fits:,} fits, --all reads every one"


_MEANS: Final = {"evaluations": "EVALUATIONS>", "hessian_formations": "HESSIANS>", "seconds": "SECONDS>"}
