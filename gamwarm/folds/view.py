"""The store as one fold sees it: labelled, and a fit that raises leaves the other ranks in step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from gamwarm.entries import PutOutcome
from gamwarm.folds.audit import AuditedFold
from gamwarm.identity import FitProblem
from gamwarm.interrupts import allowed, critical
from gamwarm.parallel import already_agreed
from gamwarm.records import Cost, FitResult, StartSource
from gamwarm.store import FitInProgress, FitStore, KeepOutcome, StoreWrapper
from gamwarm.transfer import StartReport

__all__ = ["FoldView"]


class FoldView(StoreWrapper):
    """The view of a campaign that is handed to the fit of one fold, on every rank of a round.

    A round is two calls that all ranks make together, the look-up and the keeping, in one ``with
    store.fit(...)``. A fit that raises in between would end the other ranks' fits; here it keeps
    nothing instead, and the exception is its own rank's alone.

    Attributes
    ----------
    begun : bool
        Whether the fit has made its look-up.
    refused : bool
        Whether one of the two calls itself raised: a wrong argument, a failing store.
    problem : FitProblem or None
        What the fit kept a result of.
    key : str or None
        Its exact key.
    audited : AuditedFold or None
    """

    def __init__(
        self,
        store: FitStore,
        answered: Callable[[PutOutcome], object] | None = None,
        audit: Callable[[Cost | None], AuditedFold] | None = None,
    ) -> None:
        """Show ``store``; ``answered`` is told what became of the record of an answer."""
        super().__init__(store)
        self.begun = False
        self.refused = False
        self.problem: FitProblem | None = None
        self.key: str | None = None
        self.audited: AuditedFold | None = None
        self._answered = answered
        self._audit = audit

    def fit(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        attributes: Mapping[str, str | int | float] | None = None,
        *,
        each: bool = False,
    ) -> FitInProgress:
        """Begin a fit, one per rank whatever ``each`` says; see `WarmStartStore.fit`."""
        return _FoldInProgress(self, problem, parent, leave_out, attributes, each=True)

    @critical
    def start_for(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        *,
        each: bool = False,
    ) -> StartReport:
        """Look the fold up. Collective."""
        self.begun = True
        try:
            found: StartReport = self.store.start_for(problem, parent, leave_out, each=each)
        except BaseException:
            self.refused = True
            raise
        return found

    @critical
    def keep(
        self,
        problem: FitProblem | None,
        result: FitResult | None,
        start: StartReport | None = None,
        *,
        each: bool = False,
    ) -> KeepOutcome:
        """File the fold's result and, if it is audited, its cold fit's cost. Collective."""
        self.problem, self.key = problem, None if start is None else start.key
        new = start is None or start.source != StartSource.EXACT or start.is_checkpoint
        if self._audit is not None and result is not None and result.converged and new:
            with allowed():  # the caller's fit: an interrupt need not wait for its end
                self.audited = self._audit(result.cost)
            result = replace(result, attributes={**self.audited.attributes, **result.attributes})
        try:
            kept: KeepOutcome = self.store.keep(problem, result, start, each=each)
        except BaseException:
            self.refused = True
            raise
        if self._answered is not None and result is not None and result.converged:
            self._answered(kept.record)
        return kept

    def stay_in_step(self) -> None:
        """Take part in the round's calls if the fit raised before it made any. Collective."""
        if not self.begun:
            with self.fit(None, each=True) as nothing:
                nothing.keep(None)


class _FoldInProgress(FitInProgress):
    kept = False

    @critical
    def keep(self, result: FitResult | None) -> KeepOutcome:
        self.kept = True
        return super().keep(result)

    @critical
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not already_agreed(error):
            if not self.kept:
                super().keep(None)
            kind, error, trace = None, None, None  # the block's exception goes on, on this rank alone
        super().__exit__(kind, error, trace)
