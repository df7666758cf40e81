"""A store that lets the check see, and change, its starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from gamwarm.identity import FitProblem
from gamwarm.records import ConstrainedWarmStart
from gamwarm.store import FitStore, KeepOutcome, StoreWrapper
from gamwarm.transfer import StartReport

__all__ = ["InterceptingStore"]

Change = Callable[[ConstrainedWarmStart], ConstrainedWarmStart]


class InterceptingStore(StoreWrapper):
    """Every call is the store's own, but starts go through ``change``.

    Attributes
    ----------
    offered : StartReport or None
        What the engine was offered last; None if it never asked.
    """

    def __init__(self, store: FitStore, change: Change | None = None) -> None:
        super().__init__(store)
        self._change = change
        self.offered: StartReport | None = None

    def start_for(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        *,
        each: bool = False,
    ) -> StartReport:
        """See `WarmStartStore.start_for`."""
        report = super().start_for(problem, parent, leave_out, each=each)
        if self._change is not None and report.start is not None:
            report = _with_start(report, self._change(report.start))
        self.offered = report
        return report

    def frozen(self) -> Self:
        """Return this object: the check decides what is frozen."""
        return self


def _with_start(report: StartReport, start: ConstrainedWarmStart) -> StartReport:
    changed = object.__new__(StartReport)
    vars(changed).update(vars(report), start=start)
    return changed
