"""A store that lets the kit see, and change, what it offers."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from gamwarm.records import ConstrainedWarmStart, FitResult
from gamwarm.transfer import StartReport

__all__ = ["Offering"]

Change = Callable[[ConstrainedWarmStart], ConstrainedWarmStart]


class Offering:
    """Every call is the store's own, but starts go through ``change``.

    Attributes
    ----------
    offered : StartReport or None
        What the engine was offered last; None if it never asked.
    """

    def __init__(self, store: Any, change: Change | None = None) -> None:
        self._store, self._change = store, change
        self.offered: StartReport | None = None

    def _offer(self, report: StartReport) -> StartReport:
        if self._change is not None and report.start is not None:
            report = _with_start(report, self._change(report.start))
        self.offered = report
        return report

    def start_for(self, *args: Any, **kwargs: Any) -> StartReport:
        """See `WarmStartStore.start_for`."""
        return self._offer(self._store.start_for(*args, **kwargs))

    def fit(self, *args: Any, **kwargs: Any) -> _Handle:
        """See `WarmStartStore.fit`."""
        return _Handle(self, self._store.fit(*args, **kwargs))

    def frozen(self) -> Self:
        """Return this object: the kit decides what is frozen."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._store, name)


class _Handle:
    """A fit in progress whose start went through the kit."""

    def __init__(self, offering: Offering, handle: Any) -> None:
        self._offering, self._handle = offering, handle
        self.problem = handle.problem

    def __enter__(self) -> Self:
        self._handle.__enter__()
        self.start = self._offering._offer(self._handle.start)
        return self

    def checkpoint(self, result: FitResult) -> Any:
        return self._handle.checkpoint(result)

    def should_stop(self) -> bool:
        return bool(self._handle.should_stop())

    def keep(self, result: FitResult | None) -> Any:
        return self._handle.keep(result)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.__exit__(kind, error, trace)


def _with_start(report: StartReport, start: ConstrainedWarmStart) -> StartReport:
    changed = object.__new__(StartReport)
    vars(changed).update(vars(report), start=start)
    return changed
