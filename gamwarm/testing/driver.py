"""What the check needs to know about an engine and an answer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from gamwarm.checks import as_finite_float, real_array
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.identity import FitProblem
from gamwarm.records import FitResult
from gamwarm.store import FitStore

__all__ = ["Driver", "Fitted", "Tolerances", "check_driver", "objective_at", "problem_of"]


class Driver(Protocol):
    """An engine and some fits of it.

    It is pickled into a process of its own for the cold fits: define its class in a module, and
    build large data when first asked for.

    Attributes
    ----------
    cases : sequence
        What to fit, in the driver's own terms. The first is the parent; the others (two or more are
        best) are its relatives, such as folds. Small ones: the check runs dozens of fits.

    Notes
    -----
    It may also have ``objective(case, rho) -> float``: the outer objective at ``rho`` (shape (q,)),
    evaluated from scratch; or ``objective(case, result)`` (the second parameter has this name), at
    the `FitResult` of an answer, for engines whose objective depends on coefficients too. With it
    the check verifies the objective of an answer, and can distinguish another local optimum from a
    wrong answer.

    And ``problem(case) -> FitProblem``, the description of a case. Without it the check takes the
    problem that ``fit`` looks up.
    """

    @property
    def cases(self) -> Sequence[Any]: ...

    def fit(self, case: Any, store: FitStore | None) -> Fitted:
        """Fit a case with all around a fit: look up, guard, search, certify, store.

        ``store`` is None or a `FitStore`; do not ask for its class.
        """
        ...


@dataclass(frozen=True, eq=False)
class Fitted:
    """An answer.

    Parameters
    ----------
    result : FitResult
        ``curvature`` with gradient and edf, ``cost`` and ``start_used`` are checked if given.
    fitted : array
        Fitted values (or predictors) of the case's rows, of any shape.
    """

    result: FitResult
    fitted: Any

    def __post_init__(self) -> None:
        if not isinstance(self.result, FitResult):
            raise InvalidType(f"result is {type(self.result).__name__}; expected FitResult")
        object.__setattr__(self, "fitted", real_array(self.fitted, "fitted", "an array of real numbers"))

    def same_bits(self, other: Fitted) -> bool:
        """Whether rho and coefficients are the same numbers."""
        mine, theirs = (self.result.rho, *self.result.block_beta), (other.result.rho, *other.result.block_beta)
        return len(mine) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


@dataclass(frozen=True)
class Tolerances:
    """How far two certified answers of one fit may lie apart.

    Parameters
    ----------
    objective : float
        Absolute: the objective is on the log-likelihood's scale.
    fitted : float
        As a share of the standard deviation of the cold fit's fitted values.
    edf : float
        Effective degrees of freedom, of coordinates that are on no plateau.
    """

    objective: float = 1e-3
    fitted: float = 0.01
    edf: float = 0.05

    def __post_init__(self) -> None:
        for name in ("objective", "fitted", "edf"):
            as_finite_float(getattr(self, name), f"tolerance {name}", minimum=0.0)


def check_driver(driver: Any) -> list[Any]:
    """Return the driver's cases, or refuse it."""
    for name in ("cases", "fit"):
        if not hasattr(driver, name):
            raise InvalidType(f"driver {type(driver).__name__} has no {name!r}; see gamwarm.testing.Driver")
    if type(driver).__module__ == "__main__":
        raise InvalidInput(
            f"driver {type(driver).__name__} is defined in __main__, where the process of the cold fits cannot find "
            "it; move it into a module"
        )
    cases = list(driver.cases)
    if len(cases) < 2:
        raise InvalidInput(f"driver has {len(cases)} cases; give a parent and at least one relative")
    return cases


class _Asked(Exception):
    """Carries a problem out of a fit that has only been asked for it."""

    def __init__(self, problem: FitProblem) -> None:
        super().__init__("the check has recorded the problem")
        self.problem = problem


class _Asking:
    """A store that only wants to know which fit it is asked for."""

    disabled_reason = None

    def fit(self, problem: FitProblem, *args: Any, **kwargs: Any) -> Any:
        raise _Asked(problem)

    start_for = fit


def problem_of(driver: Any, case: Any) -> FitProblem:
    """Return the description of a case, from the driver or from what its fit asks a store for."""
    if hasattr(driver, "problem"):
        problem: FitProblem = driver.problem(case)
        return problem
    try:
        driver.fit(case, _Asking())
    except _Asked as asked:
        return asked.problem
    raise InvalidInput(
        f"driver {type(driver).__name__} has no problem(case), and its fit asked its store for no start: "
        "give it a problem(case) -> FitProblem"
    )


def objective_at(driver: Any, case: Any, result: FitResult, rho: Any = None) -> float:
    """Return the driver's objective at an answer, or at another rho with its coefficients."""
    point = result if rho is None else replace(result, rho=rho)
    second = list(inspect.signature(driver.objective).parameters)[1:2]
    return float(driver.objective(case, point if second == ["result"] else np.array(point.rho)))
