"""A campaign's report: its numbers as a table, rows, a data frame, JSON and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from gamwarm.display import NotebookTable, counted, few, json_text, visible, wrapped
from gamwarm.errors import MissingDependency
from gamwarm.folds.outcome import FoldOutcome
from gamwarm.folds.results import FoldResults

__all__ = ["FoldsReport"]

_MOST_NAMED: Final = 3
_MOST_REMAINING: Final = 8
_MOST_DRAWN: Final = 40


class FoldsReport(FoldResults, NotebookTable):
    """A campaign so far; equal on every rank. See `FoldResults` for its attributes and numbers."""

    def table(self) -> str:
        """Return a table of the folds, one per line, in plain text.

        "change" is the largest change of any term's curve, in standard errors of the fit on all
        rows.
        """
        shown, cells = self._shown()
        left = {k for k, column in enumerate(shown) if column.flush_left}
        return "\n".join(map(visible, _aligned([[column.head for column in shown], *cells], left)))

    def _shown(self) -> tuple[list[_Column], list[list[str]]]:
        """Return the columns that some fold has, and the cells of every fold."""
        every = [fold for fold in (self.parent, *self.folds) if fold is not None]
        shown = [column for column in _COLUMNS if any(column.cell(fold) for fold in every)]
        return shown, [[column.cell(fold) for column in shown] for fold in every]

    def _facts(self) -> list[tuple[str, str]]:
        return [("" if k else "in all", line) for k, line in enumerate(_told(self))]

    def _detail(self) -> tuple[list[str], list[list[str]]]:
        shown, cells = self._shown()
        return [column.head for column in shown], cells

    def summary(self) -> str:
        """Return in lines of 80 columns the totals, the largest changes, audits and failures."""
        return wrapped(_told(self))

    def __repr__(self) -> str:
        return f"<FoldsReport: {visible(next(_told(self), 'no folds'))}>"

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.table(), self.summary())))

    def records(self) -> list[dict[str, Any]]:
        """Return a flat dictionary per fold: plain numbers and text."""
        return [_fold_row(fold) for fold in self.folds]

    def term_records(self) -> list[dict[str, Any]]:
        """Return a flat dictionary per fold and term: edf, log lambda, and their changes."""
        return _term_rows(self)

    def to_frame(self, *, terms: bool = False) -> Any:
        """Return a pandas data frame with a row per fold (``terms=True``: per fold and term).

        Raises
        ------
        MissingDependency
            pandas cannot be imported.
        """
        pandas = _optional("pandas", "to_frame", "records()")
        return pandas.DataFrame(self.term_records() if terms else self.records())

    def to_json(self) -> str:
        """Return all of it but ``value`` as one JSON object; what is no finite number is null."""
        return _as_json(self)

    def plot(self, path: Any = None) -> Any:
        """Draw the folds by what they change, and their scores; return a matplotlib figure.

        Parameters
        ----------
        path : path-like, optional
            Where to save the figure as well; the ending says in which form.

        Raises
        ------
        MissingDependency
            matplotlib cannot be imported.
        """
        return _drawn(self, path)


@dataclass(frozen=True)
class _Column:
    head: str
    cell: Callable[[FoldOutcome], str]
    flush_left: bool = False


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _stored(fold: FoldOutcome) -> str:
    if fold.objective is None:
        return "no answer"
    return (fold.record[:12] if fold.record else "not stored") + " (not converged)" * (not fold.converged)


_COLUMNS: Final = (
    _Column("left out", lambda fold: "(none)" if fold.group is None else fold.group or " ", flush_left=True),
    _Column("rows", lambda fold: f"{fold.n_rows:,}"),
    _Column("start", lambda fold: fold.source, flush_left=True),
    _Column("evals", lambda fold: _count(fold.cost.evaluations)),
    _Column("Hessians", lambda fold: _count(fold.cost.own.hessian_formations)),
    _Column("objective", lambda fold: _number(fold.objective, ".6g")),
    _Column("held out", lambda fold: _number(fold.held_out, ".5g")),
    _Column("change", lambda fold: "" if fold.largest_change is None else f"{fold.largest_change[1]:.2f}"),
    _Column("entry", _stored, flush_left=True),
)
"""Columns that are empty for all folds are left out."""


def _fold_row(fold: FoldOutcome) -> dict[str, Any]:
    cost, audit, change = fold.cost.own, fold.audit, fold.largest_change
    return {
        "group": fold.group,
        "n_rows": fold.n_rows,
        "source": fold.source,
        "converged": fold.converged,
        "failure": fold.failure,
        "objective": fold.objective,
        "held_out": fold.held_out,
        "not_scored": fold.not_scored,
        "changed_term": None if change is None else change[0],
        "change": None if change is None else change[1],
        "evaluations": cost.evaluations,
        "outer_iterations": cost.outer_iterations,
        "hessian_formations": cost.hessian_formations,
        "seconds": cost.seconds,
        "cold_objective": None if audit is None else audit.objective,
        "cold_hessian_formations": None if audit is None else audit.cost.hessian_formations,
        "cold_seconds": None if audit is None else audit.cost.seconds,
        "key": fold.key,
        "record": fold.record,
        "artifact": fold.artifact,
        "parent": fold.entry if fold.source == "transfer" else None,
        "rank": fold.rank,
    }


def _term_rows(report: FoldResults) -> list[dict[str, Any]]:
    """Return a flat dictionary per fold and term."""
    return [
        {
            "group": fold.group,
            "term": name,
            "edf": state.edf,
            "edf_change": None if change is None else change.edf,
            "log_lambda": list(state.log_lambda),
            "log_lambda_change": None if change is None else list(change.log_lambda),
            "curve_change": None if change is None else change.curve,
        }
        for fold in report.folds
        for name, state in fold.terms.items()
        for change in [fold.changes.get(name)]
    ]


def _as_json(report: FoldsReport) -> str:
    """Return the report as one JSON object; what is not a finite number is null."""
    terms: dict[str | None, list[dict[str, Any]]] = {}
    for row in _term_rows(report):
        terms.setdefault(row.pop("group"), []).append(row)
    audit = report.audit
    told = {
        "parent_id": report.parent_id,
        "parent": None if report.parent is None else _fold_row(report.parent),
        "folds": [{**row, "terms": terms.get(row["group"], [])} for row in report.records()],
        "remaining": list(report.remaining),
        "unanswered": [fold.group for fold in report.unanswered],
        "influential": [fold.group for fold in report.influential],
        "held_out": report.held_out,
        "audit": None if audit is None else vars(audit),
    }
    return json_text(_finite(told), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- text ------------------------------------------------------------------------------------------


def _told(report: FoldResults) -> Iterator[str]:
    """Yield what a report says below its table."""
    if report.folds:
        yield _totals(report)
        named = [
            f"{fold.group} ({change[0]} by {change[1]:.2g})"
            for fold in report.influential[:_MOST_NAMED]
            for change in [fold.largest_change]
            if change is not None
        ]
        if named:
            yield f"largest changes, in standard errors of the fit on all rows: {'; '.join(named)}"
    if report.audit is not None:
        yield str(report.audit)
    for fold in report.unanswered:
        yield f"no answer without {fold.group}: {fold.failure}"
    for fold in report.folds:
        if fold.objective is not None and fold.not_kept:
            yield f"not stored without {fold.group}: {fold.not_kept}"
        if fold.not_scored:
            yield f"no score without {fold.group}: {fold.not_scored}"
    if report.remaining:
        left = counted(len(report.remaining), "fold") + (" remains" if len(report.remaining) == 1 else " remain")
        yield f"stopped; {left} ({few(report.remaining, _MOST_REMAINING)}); run the same call again to go on"


def _totals(report: FoldResults) -> str:
    cost = report.cost
    text = f"{counted(len(report.folds), 'fold')}: {cost.work}, {cost.own.seconds:.3g} s"
    scored = sum(fold.held_out is not None for fold in report.folds)
    if scored:
        text += f"; held out {report.held_out:.8g}" + f" ({scored} of them)" * (scored < len(report.folds))
    return text


# -- picture ---------------------------------------------------------------------------------------


def _drawn(report: FoldResults, path: Any) -> Any:
    """Return a figure of the folds by what they change, and save it if there is a path."""
    figure_module = _optional("matplotlib.figure", "plot", "to_json() and a tool of your own")
    name, values = _to_draw(report)
    order = sorted(values, key=lambda group: -values[group])[:_MOST_DRAWN]
    scores = {str(fold.group): fold.held_out for fold in report.folds if fold.held_out is not None}
    panels: list[tuple[str, dict[str, float]]] = [(name, values)]
    if scores:
        panels.append(("held-out score per row", _per_row(report, scores)))
    figure = figure_module.Figure(figsize=(4.2 * len(panels) + 1.0, 1.2 + 0.24 * max(len(order), 4)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = range(len(order))
    for axis, (title, numbers) in zip(axes, panels, strict=True):
        heights = [numbers.get(group, math.nan) for group in order]
        axis.barh(places, [each if math.isfinite(each) else math.nan for each in heights], color="tab:blue")
        axis.set_xlabel(title)
    axes[0].set_yticks(places, [_literal(group) for group in order])
    axes[0].invert_yaxis()
    more = f", the first {len(order)} of {len(values)}" if len(order) < len(values) else ""
    axes[0].set_title(f"Leave one group out{more}", loc="left")
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def _to_draw(report: FoldResults) -> tuple[str, dict[str, float]]:
    """Return the best measure of influence that the folds have, and its value per group."""
    curves = {str(fold.group): fold.largest_change[1] for fold in report.folds if fold.largest_change is not None}
    if curves:
        return "largest change of a curve (standard errors)", curves
    edf = {
        str(fold.group): max(abs(change.edf) for change in fold.changes.values() if change.edf is not None)
        for fold in report.folds
        if any(change.edf is not None for change in fold.changes.values())
    }
    if edf:
        return "largest change of degrees of freedom", edf
    costs = {str(fold.group): fold.cost.own for fold in report.folds}
    if any(cost.hessian_formations for cost in costs.values()):
        return "Hessian formations", {group: float(cost.hessian_formations) for group, cost in costs.items()}
    return "evaluations", {group: float(cost.evaluations) for group, cost in costs.items()}


def _per_row(report: FoldResults, scores: dict[str, float]) -> dict[str, float]:
    return {
        str(fold.group): scores[str(fold.group)] / max(fold.n_left_out, 1)
        for fold in report.folds
        if str(fold.group) in scores
    }


def _literal(label: str) -> str:
    """Return a label without what matplotlib would take for mathematics."""
    return visible(label).replace("$", r"\$")


def _optional(module: str, call: str, instead: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependency(
            f"{call} needs {package}, which cannot be imported here ({error}); install it, or use {instead}"
        ) from None


def _aligned(lines: Sequence[Sequence[str]], left: set[int]) -> Iterator[str]:
    """Yield lines of a table; the columns in ``left`` are flush left, the others flush right."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    for line in lines:
        cells = (c.ljust(w) if k in left else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True)))
        yield "  ".join(cells).rstrip()
