"""The numbers of a report, from the summaries of a file's entries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from gamwarm.entries import EntrySummary, entry_labels
from gamwarm.records import Cost, cold_objective_of
from gamwarm.store import Basis, ComparedFit, Savings, compare_costs, total_of

__all__ = ["PROVENANCES", "SOURCES", "Bar", "CostRow", "FitGroup", "FitNode", "Pair", "Plot", "Summary", "Tree"]
__all__ += ["summarize"]

SOURCES: Final = ("cold", "transfer", "exact")
PROVENANCES: Final = ("projected", "rho-only", "cold")
MOST_PAIRS: Final = 40
"""Up to so many fits are drawn one by one; else a distribution, and those that gained least."""
LEAST_GAINS: Final = 12
SHORT: Final = 12
"""Characters of a key."""
GAINS: Final = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Pair:
    """One fit in the plot: its label, and what it took and would have taken cold."""

    label: str
    source: str
    cold: float
    own: float
    measured: bool


@dataclass(frozen=True)
class Bar:
    """How many fits there are of a kind."""

    label: str
    count: int


@dataclass(frozen=True)
class Plot:
    """Cold against warm.

    Attributes
    ----------
    unit : str
        What is compared: Hessian formations where engines count them, else evaluations or seconds.
    pairs : tuple of Pair
        In the order of their creation; of many fits those that gained least.
    gains : tuple of Bar
        Of many fits, how many times less than cold they took.
    without_unit : int
        Fits that do not tell that unit.
    """

    unit: str
    pairs: tuple[Pair, ...]
    gains: tuple[Bar, ...] = ()
    without_unit: int = 0


@dataclass(frozen=True)
class CostRow:
    """Mean cost of the fits that began from one source."""

    source: str
    fits: int
    evaluations: float
    outer_iterations: float
    inner_iterations: float
    hessian_formations: float
    seconds: float


@dataclass(frozen=True)
class FitGroup:
    """Finals of the same engine and blocks, with their mean cost by source."""

    engine: str
    blocks: tuple[str, ...]
    rows: tuple[CostRow, ...]


@dataclass(frozen=True)
class FitNode:
    """One fit: its record and its artifact, or either."""

    name: str
    label: str
    facts: str
    source: str | None
    kind: str
    parent: str | None
    created: int


@dataclass(frozen=True)
class Tree:
    """A fit and what started from it, depth first: pairs of depth and fit."""

    rows: tuple[tuple[int, FitNode], ...]


@dataclass(frozen=True)
class Summary:
    """What a report shows."""

    counts: dict[str, int]
    families: dict[str, int]
    engines: dict[str, int]
    savings: Savings
    bases: dict[Basis, int]
    largest_difference: float | None
    plot: Plot | None
    costs: tuple[FitGroup, ...]
    without_lineage: int
    terms: dict[str, dict[str, int]]
    trees: tuple[Tree, ...]
    alone: int
    newest: tuple[EntrySummary, ...]


def summarize(summaries: Sequence[EntrySummary], newest: int) -> Summary:
    """Count, compare, average and order."""
    finals = [entry for entry in summaries if entry.kind == "final"]
    fits = compare_costs(summaries)
    trees, alone = _trees(summaries)
    return Summary(
        counts={kind: sum(entry.kind == kind for entry in summaries) for kind in entry_labels()},
        families=dict(Counter(entry.family for entry in summaries if entry.family is not None).most_common()),
        engines=dict(Counter(entry.producer.build or "unknown" for entry in summaries).most_common()),
        savings=total_of(summaries, fits),
        bases=dict(Counter(fit.basis for fit in fits if fit.basis is not None).most_common()),
        largest_difference=max(map(_difference, finals), default=None, key=lambda gap: -1.0 if gap is None else gap),
        plot=_plot([fit for fit in fits if fit.saved is not None]),
        costs=_costs(finals),
        without_lineage=sum(entry.cost is None or entry.source is None for entry in finals),
        terms=_terms(finals),
        trees=trees,
        alone=alone,
        newest=tuple(sorted(summaries, key=lambda h: (h.created, h.entry_id), reverse=True)[:newest]),
    )


def _difference(entry: EntrySummary) -> float | None:
    """Return how far a fit's objective lies from that of its own cold run, relative to 1 + |V|."""
    cold = cold_objective_of(entry.attributes)
    return None if cold is None or entry.objective is None else abs(entry.objective - cold) / (1.0 + abs(cold))


def label_of(entry: EntrySummary) -> str:
    """Return what names a fit: its label, else the beginning of its key."""
    return entry.label or (entry.fit_key or entry.entry_id)[:SHORT]


_UNITS: Final[dict[str, Callable[[Cost], float]]] = {
    "Hessian formations": lambda cost: cost.hessian_formations,
    "evaluations": lambda cost: cost.evaluations,
    "seconds": lambda cost: cost.seconds,
}


def _plot(fits: Sequence[ComparedFit]) -> Plot | None:
    for unit, told in _UNITS.items():
        shown = [_pair(fit, fit.own, fit.cold, told) for fit in _in_order(fits) if fit.own and fit.cold]
        shown = [pair for pair in shown if pair.cold > 0]
        if not shown:
            continue
        left = len(fits) - len(shown)
        if len(shown) <= MOST_PAIRS:
            return Plot(unit, tuple(shown), without_unit=left)
        shown.sort(key=lambda pair: pair.cold / max(pair.own, 1e-300))
        return Plot(unit, tuple(shown[:LEAST_GAINS]), _gains(shown), left)
    return None


def _in_order(fits: Sequence[ComparedFit]) -> list[ComparedFit]:
    return sorted(fits, key=lambda fit: (fit.summary.created, fit.summary.entry_id))


def _pair(fit: ComparedFit, own: Cost, cold: Cost, told: Callable[[Cost], float]) -> Pair:
    measured = fit.basis is not None and fit.basis.is_measured
    return Pair(label_of(fit.summary), str(fit.summary.source), told(cold), told(own), measured)


def _gains(shown: Sequence[Pair]) -> tuple[Bar, ...]:
    edges = [0.0, *map(float, GAINS), float("inf")]
    names = ["more than cold", *(f"{a} to {b}×" for a, b in pairwise(GAINS))]
    names.append(f"over {GAINS[-1]}×")
    gains = [pair.cold / pair.own if pair.own else float("inf") for pair in shown]
    return tuple(
        Bar(name, sum(low <= gain < high or (high == gain == float("inf")) for gain in gains))
        for name, low, high in zip(names, edges, edges[1:], strict=False)
    )


def _costs(finals: Sequence[EntrySummary]) -> tuple[FitGroup, ...]:
    groups: dict[tuple[str, tuple[str, ...]], dict[str, list[EntrySummary]]] = defaultdict(lambda: defaultdict(list))
    for entry in finals:
        if entry.cost is not None and entry.source is not None:
            groups[entry.producer.build, entry.blocks][entry.source].append(entry)
    ordered = sorted(groups.items(), key=lambda item: (-sum(map(len, item[1].values())), item[0]))
    return tuple(
        FitGroup(engine, blocks, tuple(_mean_cost(s, by_source[s]) for s in SOURCES if by_source.get(s)))
        for (engine, blocks), by_source in ordered
    )


def _mean_cost(source: str, summaries: Sequence[EntrySummary]) -> CostRow:
    costs = [entry.cost.own for entry in summaries if entry.cost is not None]
    total = sum(costs, Cost())
    counted = (total.evaluations, total.outer_iterations, total.inner_iterations, total.hessian_formations)
    return CostRow(source, len(costs), *(each / len(costs) for each in (*counted, total.seconds)))


def _terms(finals: Sequence[EntrySummary]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in finals:
        for name, provenance in () if entry.lineage is None else entry.lineage.terms:
            counts[name][provenance] += 1
    return {name: {p: counter[p] for p in PROVENANCES} for name, counter in counts.items()}


def _trees(summaries: Sequence[EntrySummary]) -> tuple[tuple[Tree, ...], int]:
    """Return fits as trees by parent, largest first, and the number of fits without relatives."""
    fits, fit_of_entry = _fits(summaries)
    children: dict[str, list[FitNode]] = defaultdict(list)
    roots: list[FitNode] = []
    for fit in fits.values():
        above = None if fit.parent is None else fit_of_entry.get(fit.parent)
        (roots if above is None or above == fit.name else children[above]).append(fit)
    trees = []
    for root in roots:
        rows: list[tuple[int, FitNode]] = []
        waiting, seen = [(0, root)], set()
        while waiting:
            depth, fit = waiting.pop()
            if fit.name in seen:
                continue
            seen.add(fit.name)
            rows.append((depth, fit))
            below = sorted(children[fit.name], key=lambda f: (f.created, f.name), reverse=True)
            waiting += [(depth + 1, child) for child in below]
        if len(rows) > 1:
            trees.append(Tree(tuple(rows)))
    trees.sort(key=lambda tree: (-len(tree.rows), tree.rows[0][1].created, tree.rows[0][1].name))
    return tuple(trees), sum(not children[root.name] for root in roots)


def _fits(summaries: Sequence[EntrySummary]) -> tuple[dict[str, FitNode], dict[str, str]]:
    """Join records and artifacts to fits by exact key; return them, and each entry's fit."""
    parts: dict[str, list[EntrySummary]] = defaultdict(list)
    for entry in summaries:
        parts[entry.fit_key or entry.entry_id].append(entry)
    fits, fit_of_entry = {}, {}
    for name, entries in parts.items():
        for entry in entries:
            fit_of_entry[entry.entry_id] = name
        # The first one says what the fit started from; a repeat starts from its own answer.
        first = min(entries, key=lambda h: (h.created, h.entry_id))
        record = next((entry for entry in entries if entry.kind == "final"), first)
        work = "" if record.cost is None else f"{record.cost.work}, "
        facts = f"{first.source or 'unknown start'}, {work}{record.n_rows:,} rows"
        label = label_of(record)
        if record.label:
            facts += f", {name[:SHORT]}"
        fits[name] = FitNode(name, label, facts, first.source, record.kind, first.parent, first.created)
    return fits, fit_of_entry
