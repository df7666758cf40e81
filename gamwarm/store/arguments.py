"""What callers pass: checked, and refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gamwarm.checks import as_int, as_str, require, wrong_type
from gamwarm.display import brief_repr
from gamwarm.errors import GamwarmError, InvalidInput, InvalidType
from gamwarm.identity import FitProblem
from gamwarm.parallel import Communicator
from gamwarm.problem import check_same_ranks, distributed_of
from gamwarm.records import Producer
from gamwarm.storage import LOCK_CHOICES, LockChoice

__all__ = [
    "Options",
    "check_choice",
    "check_each",
    "check_rows_and_ranks",
    "malformed",
    "refuse_without_store",
    "require",
    "this_problem",
    "wrong_type",
]


@dataclass(frozen=True)
class Options:
    """How a store is opened; see `gamwarm.open`."""

    mode: Literal["r", "a"]
    lock: LockChoice
    engine: str | None
    engine_version: str | None
    on_error: Literal["warn", "raise"]
    size_budget: int | None
    keep_last: int

    def checked_producer(self) -> Producer | None:
        """Return the engine that look-ups are for, if named; refuse what cannot be an option."""
        check_choice("mode", self.mode, ("r", "a"))
        check_choice("lock", self.lock, LOCK_CHOICES)
        check_choice("on_error", self.on_error, ("warn", "raise"))
        if self.size_budget is not None:
            as_int(self.size_budget, "size_budget (bytes)")
        as_int(self.keep_last, "keep_last", minimum=1)
        version = "" if self.engine_version is None else as_str(self.engine_version, "engine_version", empty=True)
        return None if self.engine is None else Producer(self.engine, version)


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the allowed ones."""
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInput(f"{name} is {brief_repr(value)}; use one of {', '.join(map(repr, allowed))}")


def check_each(value: object) -> tuple[bool, InvalidType | None]:
    """Return ``each`` as a bool, and what is wrong with it; False then, so that ranks stay in step
    with the others' agreement.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value), None
    return False, wrong_type("each", value, bool)


def refuse_without_store(**arguments: object) -> None:
    """Refuse arguments that say what to do with a store, where there is none.

    Raises
    ------
    InvalidInput
        Naming the first one that is neither None nor False.
    """
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise InvalidInput(f"{name} needs a store; pass the store too, or omit {name}")


def this_problem(problem: object) -> FitProblem:
    """Return the problem; None is for ranks without work."""
    if problem is None:
        raise InvalidInput("problem is None; only a rank without work in a round of each=True passes None")
    require("problem", problem, FitProblem)
    assert isinstance(problem, FitProblem)
    return problem


def check_rows_and_ranks(problem: FitProblem, comm: Communicator, *, each: bool) -> None:
    """Refuse a fit distributed over ranks that the store's ranks cannot serve as one."""
    for rows in distributed_of(problem.specs):
        if rows.comm.size == 1:
            continue
        if each:
            raise InvalidInput(
                f"a fit with rows distributed over {rows.comm.size} ranks is one fit of all of them; no each=True"
            )
        check_same_ranks(rows, comm, "open the store with comm=: the fit")


def malformed(check: Callable[[object], str], value: object) -> GamwarmError | None:
    """Return what ``check`` raises for ``value``, or None."""
    try:
        check(value)
    except GamwarmError as error:
        return error
    return None
