"""What a fit says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gamwarm.display import NotebookTable, wrapped
from gamwarm.fitting.evaluation import Evaluation
from gamwarm.records import Cost, FitResult
from gamwarm.store import KeepOutcome
from gamwarm.transfer import GuardOutcome, StartReport, guard_sentence

__all__ = ["GuardReport", "OuterFit", "fit_facts", "fit_repr"]


@dataclass
class GuardReport:
    """What the guard did with an offered start.

    Attributes
    ----------
    beta_used : bool or None
        Whether the offered coefficients passed the beta gate; None if none were offered.
    predicted_step : float or None
        max|metric^-1 gradient| at the start (log lambda); None if not computed.
    cold_evaluated : bool
        Whether the start was doubtful enough to evaluate a cold one too.
    continued_from : str
        "start" or "cold": where the answer's search began.
    resets : list of (coordinate, rho it had)
        False plateaus that went back to their default, of all searches.
    notes : list of str
    """

    beta_used: bool | None = None
    predicted_step: float | None = None
    cold_evaluated: bool = False
    continued_from: str = "cold"
    resets: list[tuple[int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, done: GuardOutcome[Any]) -> None:
        """Note what `StartGuard.admit` did."""
        self.beta_used, self.predicted_step = done.beta_used, done.predicted_step
        self.cold_evaluated, self.continued_from = done.cold_evaluated, done.continued_from
        self.resets += done.resets
        self.notes += done.notes

    def __str__(self) -> str:
        return guard_sentence(self)


@dataclass(frozen=True, eq=False)
class OuterFit(NotebookTable):
    """A fit, from its start to the stored entries.

    Attributes
    ----------
    result : FitResult or None
        What was passed to the store; None for a rank without work in a round
    of ``each=True``.
    start : StartReport or None
        What the store offered; None without a store.
    kept : KeepOutcome or None
        What was stored.
    guard : GuardReport
        What the guard did with the start.
    reason : str
        Why the fit did not converge, if it did not: the term, and what to do.
    notes : tuple of str
        What else there is to know: what the bound cut, a stored objective that was wrong, a second
        answer that was met, what of the certificate the engine provides nothing to check.
    cost : Cost
    evaluation : Evaluation or None
        At the answer.
    """

    result: FitResult | None
    start: StartReport | None
    kept: KeepOutcome | None
    guard: GuardReport
    reason: str
    notes: tuple[str, ...]
    cost: Cost
    evaluation: Evaluation | None

    @property
    def converged(self) -> bool:
        """Whether the certificate holds."""
        return self.result is not None and self.result.converged

    def __repr__(self) -> str:
        return fit_repr(self)

    def _facts(self) -> list[tuple[str, str]]:
        return fit_facts(self)

    def summary(self) -> str:
        """Describe in lines of 80 columns the start, the guard, the cost and the savings."""
        lines = ["no store"] if self.start is None else self.start.summary().splitlines()
        if self.guard.beta_used is not None or self.guard.notes or self.guard.resets:
            lines.append(f"  guard: {self.guard}")
        lines.append(f"  this fit: {self.cost}")
        if self.kept is not None and self.kept.saved is not None:
            lines.append(f"  saved against the fit it started from: {self.kept.saved}")
        lines += [f"  note: {note}" for note in self.notes]
        return wrapped(lines + ([f"  not converged: {self.reason}"] if self.reason else []))


def fit_repr(fit: Any) -> str:
    """Return one line about an `OuterFit`, or an engine's own fit with the same attributes."""
    if fit.result is None:
        return f"<{type(fit).__name__}: no work on this rank>"
    state = "converged" if fit.converged else "not converged"
    began = "" if fit.start is None else f", {fit.start.source} start"
    return f"<{type(fit).__name__} {state}: objective {fit.result.objective:.10g}{began}; {fit.cost}>"


def fit_facts(fit: Any) -> list[tuple[str, str]]:
    """Return what a notebook shows of such a fit."""
    if fit.result is None:
        return [("result", "no work on this rank")]
    return [
        ("converged", "yes" if fit.converged else f"no: {fit.reason}"),
        ("objective", f"{fit.result.objective:.10g}"),
        ("start", "no store" if fit.start is None else str(fit.start)),
        ("guard", "" if fit.start is None or fit.start.source == "cold" else str(fit.guard)),
        ("cost", str(fit.cost)),
        ("record", "" if fit.kept is None else str(fit.kept.record)),
        ("saved", "" if fit.kept is None or fit.kept.saved is None else str(fit.kept.saved)),
        *[("note", note) for note in fit.notes],
    ]
