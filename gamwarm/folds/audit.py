"""A share of a campaign's folds fitted cold as well: agreement and savings measured, not estimated.

What a cold fit took and found is filed with the fold's own entries, as attributes, so that a
campaign that is run again does not fit it again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gamwarm.checks import as_finite_float
from gamwarm.entries import PutOutcome
from gamwarm.errors import InvalidInput
from gamwarm.identity import FitProblem
from gamwarm.parallel import SERIAL, Communicator
from gamwarm.records import (
    BlockRecord,
    Cost,
    FitResult,
    StartSource,
    attributes_of_cold_run,
    cold_objective_of,
    cold_run_of,
)
from gamwarm.store import FitStore, KeepOutcome
from gamwarm.transfer import StartReport

__all__ = ["Audit", "AuditedFold", "ColdStore", "audited_folds", "check_share"]

SAME_ANSWER = 1e-6
"""Two fits have the same answer if their objectives V differ by at most this times 1 + |V|."""
_WHY = "fitted cold, to be compared"


@dataclass(frozen=True)
class AuditedFold:
    """The cold fit of a fold, and what its warm fit took when it was made.

    Attributes
    ----------
    objective : float or None
        None if the cold fit has no answer.
    cost : Cost
        Of the cold fit.
    warm : Cost
        Of the fold's own fit, in this run or, if it was in the file, in an earlier one.
    failure : str
        Why the cold fit has no answer.
    """

    objective: float | None
    cost: Cost = field(default_factory=Cost)
    warm: Cost = field(default_factory=Cost)
    failure: str = ""

    @classmethod
    def of(cls, result: FitResult, seconds: float, warm: Cost | None) -> AuditedFold:
        """Return what a cold fit took and found."""
        cost = (result.cost or Cost()).own
        if not cost.seconds:
            cost = replace(cost, seconds=seconds)
        answer = result.objective if result.converged else None
        failure = "" if answer is not None else "the cold fit did not converge"
        return cls(answer, cost, (warm or Cost()).own, failure)

    @classmethod
    def filed(cls, record: BlockRecord | None) -> AuditedFold | None:
        """Return the audit that is filed with a record, None if there is none."""
        if record is None:
            return None
        cost, objective = cold_run_of(record.attributes), cold_objective_of(record.attributes)
        if cost is None or objective is None:
            return None
        return cls(objective, cost, (record.cost or Cost()).own)

    @property
    def attributes(self) -> dict[str, int | float]:
        """What is filed with the fold's entries; nothing of a fit without an answer."""
        if self.objective is None:
            return {}
        return attributes_of_cold_run(self.cost, self.objective)


@dataclass(frozen=True)
class Audit:
    """What the audited folds say together.

    Attributes
    ----------
    folds : int
        Folds with two answers.
    agree : int
        Those whose objectives V agree to ``1e-6 (1 + |V|)``.
    largest_difference : float
        Of the objectives, relative to ``1 + |V|``.
    worse : tuple of str
        Folds whose answer lies higher than that of their cold fit.
    cold_formations, warm_formations : int
    cold_seconds, warm_seconds : float
    """

    folds: int
    agree: int
    largest_difference: float
    worse: tuple[str, ...]
    cold_formations: int
    warm_formations: int
    cold_seconds: float
    warm_seconds: float

    def __str__(self) -> str:
        text = f"{self.agree} of {self.folds} audited folds agree with their cold fits"
        if self.folds:
            text += f" (largest relative difference {self.largest_difference:.1e})"
        if self.warm_formations:
            ratio = self.cold_formations / self.warm_formations
            text += f"; {self.cold_formations} Hessian formations cold, {self.warm_formations} warm: {ratio:.1f} times"
        if self.worse:
            text += f"; higher than cold: {', '.join(self.worse)}"
        return text


def check_share(audit: object) -> float:
    """Return a share of the folds, 0 to 1."""
    share = as_finite_float(audit, "audit", minimum=0.0)
    if share > 1.0:
        raise InvalidInput(f"audit is {share:g}; give the share of the folds to fit cold as well, 0 to 1")
    return share


def audited_folds(groups: Sequence[str], share: float) -> frozenset[str]:
    """Return the groups to audit: those whose labels have the lowest digests, on any machine."""
    lowest = sorted(groups, key=lambda group: hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest())
    return frozenset(lowest[: math.ceil(share * len(groups))])


class ColdStore(FitStore):
    """A store that offers nothing and keeps nothing, on one rank."""

    def __init__(self, store: FitStore) -> None:
        self._store = store

    @property
    def comm(self) -> Communicator:
        """A single process. Local."""
        return SERIAL

    @property
    def disabled_reason(self) -> str | None:
        """Never off. Local."""
        return None

    def check_open(self) -> None:
        """Raise what the campaign's store raises. Local."""
        self._store.check_open()

    def start_for(
        self, problem: FitProblem | None, parent: Any = None, leave_out: Any = None, *, each: bool = False
    ) -> StartReport:
        """Offer nothing."""
        return StartReport(StartSource.COLD, reason=_WHY)

    def keep(
        self,
        problem: FitProblem | None,
        result: FitResult | None,
        start: StartReport | None = None,
        *,
        each: bool = False,
    ) -> KeepOutcome:
        """Keep nothing."""
        return KeepOutcome(PutOutcome(reason=_WHY), PutOutcome(reason=_WHY))

    def should_stop_fits(self) -> bool:
        """As the campaign's store says. Local."""
        return self._store.should_stop_fits()
