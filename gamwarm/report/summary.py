"""The numbers of a report, from the summaries of a file's entries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gamwarm.entries import EntrySummary, entry_labels
from gamwarm.records import Cost

__all__ = ["SOURCES", "CostRow", "FitGroup", "FitNode", "Summary", "Tree", "summarize"]

SOURCES: Final = ("cold", "transfer", "exact")
PROVENANCES: Final = ("projected", "rho-only", "cold")


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

    def gain(self, row: CostRow) -> str:
        """Return how many times fewer Hessian formations than cold; empty without meaning."""
        cold = next((each for each in self.rows if each.source == "cold"), row)
        if cold is row or not row.hessian_formations:
            return ""
        return f"{cold.hessian_formations / row.hessian_formations:.1f}×"


@dataclass(frozen=True)
class FitNode:
    """One fit: its record and its artifact, or either."""

    name: str
    label: str
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
    costs: tuple[FitGroup, ...]
    without_lineage: int
    terms: dict[str, dict[str, int]]
    trees: tuple[Tree, ...]
    alone: int
    created: tuple[int, ...]
    newest: tuple[EntrySummary, ...]


def summarize(summaries: Sequence[EntrySummary], newest: int) -> Summary:
    """Count, average and order."""
    finals = [entry for entry in summaries if entry.kind == "final"]
    trees, alone = _trees(summaries)
    return Summary(
        counts={kind: sum(entry.kind == kind for entry in summaries) for kind in entry_labels()},
        families=dict(Counter(entry.family for entry in summaries if entry.family is not None).most_common()),
        engines=dict(Counter(entry.producer.build or "unknown" for entry in summaries).most_common()),
        costs=_costs(finals),
        without_lineage=sum(entry.cost is None or entry.source is None for entry in finals),
        terms=_terms(finals),
        trees=trees,
        alone=alone,
        created=tuple(sorted(entry.created for entry in summaries)),
        newest=tuple(sorted(summaries, key=lambda h: (h.created, h.entry_id), reverse=True)[:newest]),
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
    costs = [entry.cost for entry in summaries if entry.cost is not None]
    return CostRow(source, len(costs), *(sum(each) / len(costs) for each in zip(*map(_counted, costs), strict=True)))


def _counted(cost: Cost) -> tuple[float, ...]:
    """Work for the fit itself, not for its children."""
    formations = cost.hessian_formations - cost.for_children
    return cost.evaluations, cost.outer_iterations, cost.inner_iterations, formations, cost.seconds


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
        short = name.removeprefix("cf-")[:10]
        width = f"{record.n_rows:,} rows, {record.width:,} coefficients"
        fits[name] = FitNode(name, f"{short}  {width}", first.source, record.kind, first.parent, first.created)
    return fits, fit_of_entry
