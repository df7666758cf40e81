"""What a campaign gave: one outcome per fold, the same on every rank."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gamwarm.display import visible
from gamwarm.errors import InvalidType
from gamwarm.folds.audit import SAME_ANSWER, Audit, AuditedFold
from gamwarm.folds.splits import Fold, label_of
from gamwarm.folds.terms import TermChange, TermState
from gamwarm.records import Cost, FitResult
from gamwarm.store import KeepOutcome
from gamwarm.transfer import StartReport

__all__ = ["FoldFit", "FoldOutcome", "FoldsReport"]


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


def told(error: Exception) -> str:
    """Return an exception in one line."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


def without_answer(fold: Fold, rank: int, error: Exception) -> FoldOutcome:
    """Return the report of a fit that raised."""
    why = told(error)
    return FoldOutcome(
        fold.group, fold.n_rows, rank, "", "", None, None, False, Cost(), None, None, "no answer", failure=why
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
        failure="" if result.converged else f"did not converge{_because(getattr(fit, 'reason', ''))}",
    )


def _because(reason: object) -> str:
    return f": {reason}" if reason else ""


@dataclass(frozen=True, eq=False)
class FoldsReport:
    """A campaign so far; equal on every rank.

    Attributes
    ----------
    parent : FoldOutcome or None
        The fit on all rows; None if the parent was named by the caller, or the job stopped before
        it.
    parent_id : str or None
        Entry id of the artifact that every fold was offered. The job run again names the same.
    folds : tuple of FoldOutcome
        In the order of assignment: largest fold first.
    remaining : tuple of str
        Groups whose folds are not fitted yet, those included that were stopped inside their fit.
        Run the job again.
    """

    parent: FoldOutcome | None
    parent_id: str | None
    folds: tuple[FoldOutcome, ...]
    remaining: tuple[str, ...] = ()

    @property
    def stopped(self) -> bool:
        """Whether the job ended early: folds remain."""
        return bool(self.remaining)

    @property
    def unanswered(self) -> tuple[FoldOutcome, ...]:
        """The folds whose fit raised or did not converge; `FoldOutcome.failure` says why."""
        return tuple(fold for fold in self.folds if fold.failure)

    @property
    def sources(self) -> dict[str, int]:
        """How many folds started how."""
        return dict(Counter(fold.source for fold in self.folds if fold.source))

    @property
    def held_out(self) -> float | None:
        """Sum of the folds' scores; None if no fold has one."""
        scores = [fold.held_out for fold in self.folds if fold.held_out is not None]
        return sum(scores) if scores else None

    @property
    def influential(self) -> tuple[FoldOutcome, ...]:
        """The folds by the largest change of any term's curve, largest first."""
        moved = [fold for fold in self.folds if fold.largest_change is not None]
        return tuple(sorted(moved, key=lambda fold: -fold.largest_change[1]))  # type: ignore[index]

    @property
    def audit(self) -> Audit | None:
        """What the audited folds say together; None if none was."""
        pairs = [
            (fold, fold.audit, fold.objective - fold.audit.objective)
            for fold in self.folds
            if fold.audit is not None and fold.audit.objective is not None and fold.objective is not None
        ]
        if not any(fold.audit is not None for fold in self.folds):
            return None
        relative = [difference / (1.0 + abs(audit.objective or 0.0)) for _, audit, difference in pairs]
        return Audit(
            len(pairs),
            sum(abs(each) <= SAME_ANSWER for each in relative),
            max(map(abs, relative), default=0.0),
            tuple(str(fold.group) for (fold, _, _), each in zip(pairs, relative, strict=True) if each > SAME_ANSWER),
            sum(audit.hessian_formations for _, audit, _ in pairs),
            sum(audit.warm.hessian_formations for _, audit, _ in pairs),
            sum(audit.seconds for _, audit, _ in pairs),
            sum(audit.warm.seconds for _, audit, _ in pairs),
        )

    @property
    def cost(self) -> Cost:
        """Cost of all folds together, without the parent."""
        return sum((fold.cost for fold in self.folds), Cost())

    def __getitem__(self, group: object) -> FoldOutcome:
        """Return the outcome of the fold that leaves ``group`` out."""
        for fold in self.folds:
            if fold.group == label_of(group):
                return fold
        raise KeyError(group)

    def __len__(self) -> int:
        return len(self.folds)

    def __bool__(self) -> bool:
        return True

    def table(self) -> str:
        """Return a table of the folds, one per line, in plain text."""
        head = ("left out", "rows", "start", "evals", "outer", "Hessians", "seconds", "objective", "entry")
        lines = [head, *(_row(fold) for fold in (self.parent, *self.folds) if fold is not None)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
        left = {0, 2, 8}
        text = [
            "  ".join(
                c.ljust(w) if k in left else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        text += [f"no answer without {fold.group}: {fold.failure}" for fold in self.unanswered]
        if self.remaining:
            text.append(f"stopped; {len(self.remaining)} folds remain: {', '.join(self.remaining)}")
        return "\n".join(visible(line.rstrip()) for line in text)

    def __str__(self) -> str:
        return self.table()


def _row(fold: FoldOutcome) -> tuple[str, ...]:
    note = "" if fold.converged or fold.objective is None else " (not converged)"
    stored = (
        fold.record[:12] if fold.record else "no answer" if fold.objective is None else f"not stored: {fold.not_kept}"
    )
    return (
        "(none)" if fold.group is None else fold.group,
        f"{fold.n_rows:,}",
        fold.source,
        str(fold.cost.evaluations),
        str(fold.cost.outer_iterations),
        str(fold.cost.own.hessian_formations),
        f"{fold.cost.own.seconds:.2f}",
        "" if fold.objective is None else f"{fold.objective:.6g}",
        stored + note,
    )
