"""The reference engine as the neutrality check sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import gamwarm.engine
from gamwarm import FitProblem
from gamwarm.engine import Convex, Gaussian, Intercept, Monotone, RandomEffect, fit
from gamwarm.engine.arrays import Counters
from gamwarm.testing import Fitted
from tests.support import models

__all__ = ["Motorcycle", "ReferenceDriver", "Seeded", "Several", "Shaped"]


class ReferenceDriver:
    """One family on the shared data: all rows, then two groups left out, one at a time.

    ``family``: one of the shared models, or the name of an engine family with one predictor and a
    real response.
    """

    options = models.TIGHT

    def __init__(self, family: str, n: int = 200) -> None:
        self.family, self.n = family, n
        self._cut: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cut": {}}

    @property
    def cases(self) -> list[str]:
        return ["", "g03", "g07"]

    def bind(self) -> tuple[Any, Any]:
        """Return the model on all rows, and the group of each row."""
        data = models.columns(self.n)
        if self.family in models.FAMILIES:
            return models.model(self.family, data), data["group"]
        family = vars(gamwarm.engine)[self.family]("gaussian", weights="trials", offset="exposure")
        return gamwarm.engine.bind(data, models.mean_terms(), family), data["group"]

    def cut(self, left_out: str) -> Any:
        """Return the case without a group."""
        if not self._cut:
            self._cut[None] = self.bind()
        bound, group = self._cut[None]
        if left_out not in self._cut:
            self._cut[left_out] = bound.case(group != left_out if left_out else None)
        return self._cut[left_out]

    def problem(self, case: str) -> FitProblem:
        problem: FitProblem = self.cut(case).problem(self.options)
        return problem

    def fit(self, case: str, store: Any) -> Fitted:
        done = fit(self.cut(case), options=self.options, store=store)
        return Fitted(done.result, done.mu)

    def objective(self, case: str, rho: Any) -> float:
        laml = self.cut(case).objective(Counters())
        return float(laml.evaluate(np.array(rho), laml.null, self.options.inner_tol, 200).value)


class Shaped(ReferenceDriver):
    """A monotone curve of x, which the data contradict in part, and a concave one of z."""

    def bind(self) -> tuple[Any, Any]:
        data = models.columns(self.n)
        terms: list[Any] = [
            Intercept(),
            Monotone("x", k=10),
            Convex("z", k=6, direction="concave"),
            RandomEffect("group"),
        ]
        if self.family == "Gaussian":
            return gamwarm.engine.bind(data, terms, Gaussian("gaussian", weights="trials")), data["group"]
        return models.model(self.family, data, terms), data["group"]


class Motorcycle(ReferenceDriver):
    """MASS/mcycle, location-scale: all rows, then two times left out, at everyday tolerances.

    The bound is so far out that the gradient there is within tolerance whatever the fit should be.
    """

    options = replace(models.USUAL, rho_bound=25.0)

    def __init__(self) -> None:
        super().__init__("mcycle")

    @property
    def cases(self) -> list[str]:
        return ["", "14.6", "26.4"]

    def bind(self) -> tuple[Any, Any]:
        bound = models.mcycle()
        return bound, np.array([str(time) for time in bound.source.columns["times"]])


class Several(ReferenceDriver):
    """Models with several, tied and fixed penalties."""

    def __init__(self, name: str, family: str = "poisson") -> None:
        super().__init__(family)
        self.name = name

    def bind(self) -> tuple[Any, Any]:
        data = models.columns(self.n)
        return models.several(self.name, self.family, data, RandomEffect("group")), data["group"]


class Seeded(ReferenceDriver):
    """The parent leaves group seeds, and every fold names the group that it leaves out."""

    def fit(self, case: str, store: Any) -> Fitted:
        more: dict[str, Any] = {}
        if store is not None:
            more = {"leave_out": case} if case else {"group_seeds": "group"}
        done = fit(self.cut(case), options=self.options, store=store, **more)
        return Fitted(done.result, done.mu)
