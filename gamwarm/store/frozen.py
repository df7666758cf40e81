"""A campaign's view of the store: its parents are those of one moment, so the order of the folds does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gamwarm.entries import Held
from gamwarm.identity import FitProblem
from gamwarm.interrupts import critical
from gamwarm.records import FitResult, check_attributes
from gamwarm.store.fit import FitInProgress
from gamwarm.store.keep import KeepOutcome
from gamwarm.transfer import StartReport

if TYPE_CHECKING:
    from gamwarm.store.store import WarmStartStore

__all__ = ["FrozenView"]


class FrozenView:
    """The store as it was for parents, as it is for everything else; made by `WarmStartStore.frozen`.

    `fit` and `start_for` choose parents among those that were in the file when the view was made, whatever is committed
    or merged in meanwhile; a fit's own record is found as soon as it is there. A ``parent`` named by the caller is
    taken wherever it is from. While the view lives, its store evicts none of
    its parents. Every other call is the store's own. The view needs no closing.

    Attributes
    ----------
    store : WarmStartStore
    """

    def __init__(self, store: WarmStartStore, parents: Held | None) -> None:
        self.store = store
        self._parents = parents  # on rank 0, which decides; None elsewhere
        self._labels: dict[str, str | int | float] = {}

    def fit(
        self,
        problem: FitProblem | None,
        parent: str | KeepOutcome | None = None,
        leave_out: Any = None,
        attributes: Mapping[str, str | int | float] | None = None,
        *,
        each: bool = False,
    ) -> FitInProgress:
        """Begin a fit; see `WarmStartStore.fit`."""
        labels = {**self._labels, **check_attributes({} if attributes is None else attributes)}
        return FitInProgress(self, problem, parent, leave_out, labels, each=each)

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
        return self.store._start(problem, parent, leave_out, each, self._parents)

    @critical
    def independent(self, flush_seconds: float = 30.0, flush_entries: int = 64) -> FrozenView:
        """Open the file for this rank by itself, with this view's parents. See `WarmStartStore.independent`."""
        own = self.store.independent(flush_seconds, flush_entries)
        return _FrozenIndependent(own, own._hold(self.store.comm.bcast(self._parents)))

    def frozen(self) -> Self:
        """Return this view: its moment stays."""
        return self

    def labelled(self, attributes: Mapping[str, str | int | float]) -> FrozenView:
        """Return a view of the same moment that labels every fit with these attributes too. Local."""
        view = FrozenView(self.store, self._parents)
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
        return self.store.keep(problem, result, start, each=each)

    def __getattr__(self, name: str) -> Any:
        if name == "store":  # not yet set: a copy or a pickle is being made
            raise AttributeError(name)
        return getattr(self.store, name)

    def __len__(self) -> int:
        return len(self.store)

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Self:
        self.store._ranks.check_open()
        return self

    @critical
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.store._ranks.tell("frozen campaign", error)

    def __repr__(self) -> str:
        return f"FrozenView({self.store!r})"


class _FrozenIndependent(FrozenView):
    """The view of a store that was opened for it: leaving the ``with`` closes it."""

    @critical
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.__exit__(kind, error, trace)
