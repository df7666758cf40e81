"""What callers pass: checked, and refused in words that name it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gamwarm.errors import GamwarmError, InvalidInput, InvalidType
from gamwarm.identity import FitProblem

__all__ = ["check_choice", "malformed", "require", "this_problem", "wrong_type"]


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the allowed ones."""
    if value not in allowed:
        raise InvalidInput(f"{name} is {value!r}; use one of {', '.join(map(repr, allowed))}")


def wrong_type(what: str, value: object, expected: Any) -> InvalidType | None:
    """Return what to raise if ``value`` is not of the expected type."""
    if isinstance(value, expected):
        return None
    kinds = expected if isinstance(expected, tuple) else (expected,)
    names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
    return InvalidType(f"{what} is {type(value).__name__}; expected {names}")


def require(what: str, value: object, expected: Any) -> None:
    """Refuse a value of another type."""
    error = wrong_type(what, value, expected)
    if error is not None:
        raise error


def this_problem(problem: object) -> FitProblem:
    """Return the problem; None is for ranks without work."""
    if problem is None:
        raise InvalidInput("problem is None; only a rank without work in a round of each=True passes None")
    require("problem", problem, FitProblem)
    assert isinstance(problem, FitProblem)
    return problem


def malformed(check: Callable[[object], str], value: object) -> GamwarmError | None:
    """Return what ``check`` raises for ``value``, or None."""
    try:
        check(value)
    except GamwarmError as error:
        return error
    return None
