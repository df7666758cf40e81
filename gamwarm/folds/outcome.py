"""What one fold of a campaign gave, in plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gamwarm.display import error_line
from gamwarm.errors import InvalidType
from gamwarm.folds.audit import AuditedFold
from gamwarm.folds.splits import Fold
from gamwarm.folds.terms import TermChange, TermState
from gamwarm.records import Cost, FitResult
from gamwarm.store import KeepOutcome
from gamwarm.transfer import StartReport

__all__ = ["FoldFit", "FoldOutcome", "outcome_of", "without_answer"]


@dataclass(frozen=True, eq=False)
class FoldFit:
    """What a fit of one fold returns, at least; any object with these three attributes will do.

    Attributes
    ----------
    result : FitResult or None
        None on a rank without work.
    start : StartReport or None
    kept : KeepOutcome or None
    """

    result: FitResult | None
    start: StartReport | None
    kept: KeepOutcome | None


@dataclass(frozen=True, eq=False)
class FoldOutcome:
    """One fold, in plain values.

    Attributes
    ----------
    group : str or None
        The group left out; None: the fit on all rows.
    n_rows : int
        Rows fitted.
    rank : int
        Which rank fitted it.
    source : str
        How it started: ``"exact"`` (it was in the file), ``"transfer"`` or ``"cold"``.
    reason : str
        Why so.
    entry : str or None
        Entry id of its parent.
    objective : float or None
    converged : bool
    cost : Cost
    record, artifact : str or None
        Entry ids of the stored record and artifact.
    not_kept : str
        Why nothing was, if nothing was.
    value : object
        What ``value=`` made of the fit.
    stopped : bool
        Whether the search was ended early by `FitInProgress.should_stop`; its checkpoint is kept.
    failure : str
        Why there is no answer: what the fit raised, or that it did not converge; else empty.
    n_left_out : int
        Rows left out.
    key : str or None
        Exact key of the fit.
    held_out : float or None
        Score of the rows left out, higher for better: their log-likelihood, or what ``score=``
        returned.
    not_scored : str
        Why there is no score, if computing it raised.
    terms : dict of str to TermState
        Per block: effective degrees of freedom and log lambda.
    changes : dict of str to TermChange
        What differs from the fit on all rows.
    audit : AuditedFold or None
        The cold fit of the same rows, if this fold is audited.
    """

    group: str | None
    n_rows: int
    rank: int
    source: str
    reason: str
    entry: str | None
    objective: float | None
    converged: bool
    cost: Cost
    record: str | None
    artifact: str | None
    not_kept: str
    value: Any = None
    stopped: bool = False
    failure: str = ""
    n_left_out: int = 0
    key: str | None = None
    held_out: float | None = None
    not_scored: str = ""
    terms: dict[str, TermState] = field(default_factory=dict)
    changes: dict[str, TermChange] = field(default_factory=dict)
    audit: AuditedFold | None = None

    @property
    def largest_change(self) -> tuple[str, float] | None:
        """The term whose curve changes most, and by how many standard errors, if known."""
        moves = {name: change.curve for name, change in self.changes.items() if change.curve is not None}
        return max(moves.items(), key=lambda item: item[1]) if moves else None


def without_answer(fold: Fold, rank: int, error: Exception) -> FoldOutcome:
    """Return the report of a fit that raised."""
    why = error_line(error)
    return FoldOutcome(
        fold.group,
        fold.n_rows,
        rank,
        "",
        "",
        None,
        None,
        False,
        Cost(),
        None,
        None,
        "no answer",
        failure=why,
        n_left_out=fold.n_left_out,
    )


def outcome_of(fold: Fold, rank: int, fit: Any, value: Any) -> FoldOutcome:
    """Return the report of a fit."""
    try:
        result, start, kept = fit.result, fit.start, fit.kept
    except AttributeError:
        raise InvalidType(
            f"fit() returned {type(fit).__name__} for {fold!r}; return what engine.fit does, or a FoldFit with result, "
            "start and kept"
        ) from None
    if not isinstance(result, FitResult):
        raise InvalidType(f"the result of {fold!r} is {type(result).__name__}; expected FitResult")
    record, artifact = (None, None) if kept is None else (kept.record, kept.artifact)
    return FoldOutcome(
        group=fold.group,
        n_rows=fold.n_rows,
        rank=rank,
        source="cold" if start is None else str(start.source),
        reason="" if start is None else start.reason,
        entry=None if start is None else start.entry,
        objective=result.objective,
        converged=result.converged,
        cost=result.cost or Cost(),
        record=record.entry_id if record is not None and record.written else None,
        artifact=artifact.entry_id if artifact is not None and artifact.written else None,
        not_kept="" if record is None or record.written else record.reason,
        value=value,
        stopped=kept is not None and getattr(kept, "stopped", False),
        n_left_out=fold.n_left_out,
        failure="" if result.converged else f"did not converge{_because(getattr(fit, 'reason', ''))}",
    )


def _because(reason: object) -> str:
    return f": {reason}" if reason else ""
