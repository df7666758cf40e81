"""What callers pass: checked, and refused in words that name it."""

from __future__ import annotations

from collections.abc import Callable

from gamwarm.checks import require, wrong_type
from gamwarm.display import told
from gamwarm.errors import GamwarmError, InvalidInput
from gamwarm.identity import FitProblem
from gamwarm.parallel import Communicator
from gamwarm.problem import check_same_ranks, distributed_of

__all__ = ["check_choice", "check_held_together", "malformed", "require", "this_problem", "wrong_type"]


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the allowed ones."""
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInput(f"{name} is {told(value)}; use one of {', '.join(map(repr, allowed))}")


def this_problem(problem: object) -> FitProblem:
    """Return the problem; None is for ranks without work."""
    if problem is None:
        raise InvalidInput("problem is None; only a rank without work in a round of each=True passes None")
    require("problem", problem, FitProblem)
    assert isinstance(problem, FitProblem)
    return problem


def check_held_together(problem: FitProblem, comm: Communicator, *, each: bool) -> None:
    """Refuse a fit whose rows lie on several ranks where the store's ranks cannot act as one on it."""
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
