"""What a fit says of its terms: degrees of freedom, smoothing parameters, constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gamwarm.identity import FitProblem
from gamwarm.records import AT_BOUND, FitResult, cut_coordinates

__all__ = ["PenaltyRow", "TermRow", "term_rows", "term_table"]

_NAME_WIDTH = 28
_HEAD = ("term", "columns", "edf", "log lambda")


@dataclass(frozen=True)
class PenaltyRow:
    """One penalty of a term.

    Attributes
    ----------
    log_lambda : float
    state : str
        Empty, or "plateau" (the objective is flat beyond it), "at bound", "plateau, at bound", "cut
        by the bound" (the objective still falls there), "tied" (one with that of other terms),
        "fixed".
    """

    log_lambda: float
    state: str = ""


@dataclass(frozen=True)
class TermRow:
    """One term of a fit.

    Attributes
    ----------
    name : str
    columns : int
        Coefficients.
    edf : float
        Effective degrees of freedom, unpenalised directions included.
    penalties : tuple of PenaltyRow
    active : int
        Inequality constraints that hold with equality at the answer.
    """

    name: str
    columns: int
    edf: float
    penalties: tuple[PenaltyRow, ...] = ()
    active: int = 0


def term_rows(problem: FitProblem, result: FitResult, edf: Mapping[str, float]) -> tuple[TermRow, ...]:
    """Return a row per block of a fit."""
    layout, options = problem.layout, problem.options
    rho = np.asarray(result.rho, dtype=np.float64)[: layout.n_outer]
    curvature = result.curvature
    gradient = np.zeros(rho.size) if curvature is None else np.asarray(curvature.gradient)[: rho.size]
    flat = np.zeros(rho.size, dtype=np.bool_)
    if curvature is not None and curvature.plateau is not None:
        flat = np.asarray(curvature.plateau)[: rho.size]
    cut = set(cut_coordinates(rho, gradient, options.outer_tol, options.rho_bound))

    def state(coordinate: int | None) -> str:
        if coordinate is None:
            return "fixed"
        at_bound = bool(abs(rho[coordinate]) >= options.rho_bound - AT_BOUND)
        if flat[coordinate]:
            return "plateau, at bound" if at_bound else "plateau"
        if coordinate in cut:
            return "cut by the bound"
        return "at bound" if at_bound else "tied" * (layout.physical_to_outer.count(coordinate) > 1)

    penalties = [
        PenaltyRow(float(value), state(coordinate))
        for value, coordinate in zip(layout.expand(rho), layout.physical_to_outer, strict=True)
    ]
    rows, begin = [], 0
    for k, spec in enumerate(problem.specs):
        end = begin + len(spec.penalties)
        active = None if result.active_sets is None else result.active_sets[k]
        rows.append(
            TermRow(
                spec.name,
                result.block_beta[k].size,
                edf[spec.name],
                tuple(penalties[begin:end]),
                0 if active is None else len(active),
            )
        )
        begin = end
    return tuple(rows)


def term_table(rows: Sequence[TermRow], nuisance: Mapping[str, float]) -> list[str]:
    """Return lines of at most 80 columns: a head, then a line per penalty of each term."""
    width = min(_NAME_WIDTH, max(len(_HEAD[0]), *(len(row.name) for row in rows)))

    def line(name: str, columns: str, edf: str, value: str, note: str) -> str:
        return f"  {name:<{width}} {columns:>8} {edf:>8} {value:>11}  {note}".rstrip()

    lines = [line(*_HEAD, "")]
    for row in rows:
        notes = [penalty.state for penalty in row.penalties] or [""]
        values = [f"{penalty.log_lambda:.2f}" for penalty in row.penalties] or [""]
        name = row.name
        if len(name) > width:
            lines += [f"  {name[start : start + 78]}" for start in range(0, len(name), 78)]
            name = ""
        lines.append(line(name, str(row.columns), f"{row.edf:.2f}", values[0], notes[0]))
        lines += [line("", "", "", value, note) for value, note in zip(values[1:], notes[1:], strict=True)]
        if row.active:
            lines.append(line("", "", "", "", f"{row.active} constraint{'s' * (row.active > 1)} active"))
    lines += [f"  {name} = {value:.6g}" for name, value in nuisance.items()]
    return lines
