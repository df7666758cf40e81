"""A store around another: every call is the other's own, passed on by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from gamwarm.errors import InvalidType
from gamwarm.identity import FitProblem
from gamwarm.parallel import Communicator
from gamwarm.store.contents import Contents
from gamwarm.store.explain import Explanation
from gamwarm.store.fit import FitStore
from gamwarm.store.maintenance import Upkeep
from gamwarm.walltime import Walltime

__all__ = ["StoreWrapper"]

P = ParamSpec("P")
T = TypeVar("T")


def _passed_on(call: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Return a method of the same name and parameters that calls the wrapped store's."""

    @wraps(call)
    def pass_on(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return cast(T, getattr(self.store, call.__name__)(*args, **kwargs))

    return pass_on


class StoreWrapper(FitStore):
    """A `FitStore` around another, for classes that change some of its calls.

    A subclass overrides what it changes; `fit` comes back to the subclass's own ``start_for`` and
    ``keep``.

    Parameters
    ----------
    store : FitStore
        Its other public calls are passed on unchanged; one that it does not have is an
        `AttributeError`.
    """

    def __init__(self, store: FitStore) -> None:
        if not callable(getattr(store, "start_for", None)):
            raise InvalidType(f"store is {type(store).__name__}; give what gamwarm.open(path) returned")
        self.store: Any = store

    start_for = _passed_on(FitStore.start_for)
    keep = _passed_on(FitStore.keep)
    check_open = _passed_on(FitStore.check_open)
    should_stop_fits = _passed_on(FitStore.should_stop_fits)

    put_record = _passed_on(Contents.put_record)
    put_artifact = _passed_on(Contents.put_artifact)
    get_record = _passed_on(Contents.get_record)
    get_artifact = _passed_on(Contents.get_artifact)
    keys = _passed_on(Contents.keys)
    entry_ids = _passed_on(Contents.entry_ids)

    verify = _passed_on(Upkeep.verify)
    savings = _passed_on(Upkeep.savings)
    pin = _passed_on(Upkeep.pin)
    pins = _passed_on(Upkeep.pins)
    evict = _passed_on(Upkeep.evict)
    compact = _passed_on(Upkeep.compact)
    merge = _passed_on(Upkeep.merge)
    salvage = _passed_on(Upkeep.salvage)

    @_passed_on
    def explain(self, problem: FitProblem) -> Explanation:
        """See `WarmStartStore.explain`. Collective."""
        raise NotImplementedError

    @_passed_on
    def transaction(self) -> AbstractContextManager[None]:
        """See `WarmStartStore.transaction`. Collective."""
        raise NotImplementedError

    @_passed_on
    def frozen(self) -> Any:
        """See `WarmStartStore.frozen`. Collective."""
        raise NotImplementedError

    @_passed_on
    def independent(self, flush_seconds: float = 30.0, flush_entries: int = 64) -> Any:
        """See `WarmStartStore.independent`. Collective at both ends."""
        raise NotImplementedError

    @_passed_on
    def walltime(self, margin: float = 60.0, deadline: float | datetime | None = None) -> Walltime:
        """See `WarmStartStore.walltime`. Local."""
        raise NotImplementedError

    @_passed_on
    def should_stop(self) -> bool:
        """See `WarmStartStore.should_stop`. Collective."""
        raise NotImplementedError

    @_passed_on
    def time_left(self) -> float:
        """See `WarmStartStore.time_left`. Local."""
        raise NotImplementedError

    @_passed_on
    def flush(self) -> int:
        """See `IndependentStore.flush`; other stores do not have it. Local."""
        raise NotImplementedError

    @_passed_on
    def close(self) -> None:
        """See `WarmStartStore.close`. Collective."""
        raise NotImplementedError

    @property
    def path(self) -> Path:
        """Path of the file. Local."""
        return cast(Path, self.store.path)

    @property
    def mode(self) -> str:
        """``"a"`` or ``"r"``. Local."""
        return cast(str, self.store.mode)

    @property
    def comm(self) -> Communicator:
        """The store's own communicator. Local."""
        return cast(Communicator, self.store.comm)

    @property
    def disabled_reason(self) -> str | None:
        """Why the store is off for this run, or None. Local."""
        return cast("str | None", self.store.disabled_reason)

    @property
    def generation(self) -> int:
        """Number of committed transactions. Collective."""
        return cast(int, self.store.generation)

    @property
    def pending(self) -> int:
        """See `IndependentStore.pending`; other stores do not have it. Local."""
        return cast(int, self.store.pending)

    def __len__(self) -> int:
        return len(self.store)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r})"

    def _repr_html_(self) -> str:
        return cast(str, self.store._repr_html_())
