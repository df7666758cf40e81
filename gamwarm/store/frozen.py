"""A campaign's view: parents as of one moment, so the order of the folds does not matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from gamwarm.entries import ParentSnapshot
from gamwarm.identity import FitProblem
from gamwarm.interrupts import critical
from gamwarm.parallel import broadcast_failure
from gamwarm.records import FitResult, check_attributes
from gamwarm.store.fit import FitStore
from gamwarm.store.keep import KeepOutcome
from gamwarm.store.starts import Starts
from gamwarm.store.wrapper import StoreWrapper
from gamwarm.transfer import StartReport

__all__ = ["FrozenView"]


class FrozenView(StoreWrapper):
    """Parents as of one moment, all else as of now; made by `WarmStartStore.frozen`.

    `fit` and `start_for` choose parents among those that were in the file when the view was made,
    whatever is committed or merged in meanwhile; a fit's own record is found as soon as it is
    stored. A ``parent`` named by the caller is taken wherever it is from. While the view lives, its
    store evicts none of its parents. Every other call is the store's own. The view needs no
    closing.

    Attributes
    ----------
    store : WarmStartStore
    """

    def __init__(
        self,
        store: FitStore,
        starts: Starts,
        parents: ParentSnapshot | None,
        reopen: Callable[[ParentSnapshot | None, float, int], FrozenView],
        *,
        owns_store: bool = False,
    ) -> None:
        super().__init__(store)
        self._starts, self._reopen = starts, reopen
        self._parents = parents  # on rank 0, which decides; None elsewhere
        self._owns_store = owns_store  # opened for this view: leaving the `with` closes it
        self._labels: dict[str, str | int | float] = {}

    @critical
    def start_for(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        *,
        each: bool = False,
    ) -> StartReport:
        """Look one fit up. Collective. See `WarmStartStore.start_for`."""
        return self._starts.find(problem, parent, leave_out, each, self._parents)

    @critical
    def independent(self, flush_seconds: float = 30.0, flush_entries: int = 64) -> FrozenView:
        """Open the file for this rank alone, same parents; see `WarmStartStore.independent`."""
        return self._reopen(self._parents, flush_seconds, flush_entries)

    def frozen(self) -> Self:
        """Return this view: its moment stays."""
        return self

    def labelled(self, attributes: Mapping[str, str | int | float]) -> FrozenView:
        """Return a view of the same moment that also labels every fit with these. Local."""
        view = FrozenView(self.store, self._starts, self._parents, self._reopen)
        view._labels = {**self._labels, **check_attributes(attributes)}
        return view

    def keep(
        self,
        problem: FitProblem | None,
        result: FitResult | None,
        start: StartReport | None = None,
        *,
        each: bool = False,
    ) -> KeepOutcome:
        """File a result, with this view's labels; see `WarmStartStore.keep`."""
        if self._labels and result is not None:
            result = replace(result, attributes={**self._labels, **result.attributes})
        kept: KeepOutcome = self.store.keep(problem, result, start, each=each)
        return kept

    def __enter__(self) -> Self:
        self.check_open()
        return self

    @critical
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_store:
            self.store.__exit__(kind, error, trace)
        elif error is not None:
            broadcast_failure(self.comm, "frozen campaign", error)
