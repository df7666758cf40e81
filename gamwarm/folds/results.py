"""All folds of a campaign, and the numbers that they add up to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gamwarm.folds.audit import SAME_ANSWER, Audit
from gamwarm.folds.outcome import FoldOutcome
from gamwarm.folds.splits import label_of
from gamwarm.records import Cost

__all__ = ["FoldResults"]


@dataclass(frozen=True, eq=False)
class FoldResults:
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
            sum(audit.cost.hessian_formations for _, audit, _ in pairs),
            sum(audit.warm.hessian_formations for _, audit, _ in pairs),
            sum(audit.cost.seconds for _, audit, _ in pairs),
            sum(audit.warm.seconds for _, audit, _ in pairs),
        )

    @property
    def cost(self) -> Cost:
        """Cost of all folds together, without the parent and without work for later fits."""
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
