"""Engines that the neutrality check is tried on: a small honest one, and ones that are broken in
one way each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm import (
    BlockwiseFitOptions,
    Cost,
    Curvature,
    DensePenalty,
    Fingerprinter,
    FitProblem,
    FitResult,
    ParameterBlockSpec,
    plateau_flags,
)
from gamwarm.testing import Fitted

__all__ = [
    "Blind",
    "Claiming",
    "Drifting",
    "HiddenStore",
    "IgnoringStore",
    "LyingFlags",
    "Raising",
    "RepeatingWork",
    "Ridge",
    "StartIsAnswer",
    "TrustingObjective",
    "UsedNothing",
]

FloatArray = npt.NDArray[np.float64]
Rho = FloatArray
Beta = FloatArray


class _Response:
    """A Gaussian response of known variance."""

    family_kind = "tests.ridge"

    def __init__(self, y: FloatArray) -> None:
        self.y = y

    def persistent_warm_start_fingerprint(self, specs: Any, options: Any) -> str | None:
        fp = Fingerprinter()
        fp.write_f64_array(self.y)
        return fp.hexdigest()


class Ridge:
    """Two ridge blocks, unit noise; rho by Newton on the marginal likelihood, beta by Newton from
    where it stands.

    Cases are the seeds of the rows that are left out; 0 leaves out none.
    """

    engine = "tests.ridge"
    widths = (5, 4)
    options = BlockwiseFitOptions(inner_tol=1e-9, outer_tol=1e-5, rho_bound=12.0)

    def __init__(self, n: int = 80, signal: float = 1.0) -> None:
        self.n, self.signal = n, signal
        self.evaluations = self.formations = 0

    @property
    def cases(self) -> list[int]:
        return [0, 1, 2]

    def data(self, case: int) -> tuple[FloatArray, FloatArray]:
        rng = np.random.default_rng(7)
        X = 0.25 * rng.normal(size=(self.n, sum(self.widths)))  # weak: no coordinate is near a plateau
        beta = rng.normal(size=sum(self.widths)) * np.repeat([1.0, self.signal], self.widths)
        y = X @ beta + rng.normal(size=self.n)
        if case:
            kept = np.random.default_rng(case).permutation(self.n)[: self.n - 8]
            return X[kept], y[kept]
        return X, y

    def problem(self, case: int) -> FitProblem:
        X, y = self.data(case)
        parts = np.split(X, np.cumsum(self.widths)[:-1], axis=1)
        specs = [
            ParameterBlockSpec(f"block {b}", part, penalties=[DensePenalty(np.eye(part.shape[1]))])
            for b, part in enumerate(parts)
        ]
        return FitProblem(_Response(y), specs, self.options, engine=self.engine, engine_version="1")

    # -- the objective -----------------------------------------------------------------------------

    def solve(self, case: int, rho: Rho, beta: Beta) -> tuple[float, FloatArray, FloatArray, FloatArray, Beta]:
        """Return objective, gradient, Hessian, edf and coefficients at ``rho``."""
        X, y = self.data(case)
        self.evaluations += 1
        owner = np.repeat(np.arange(len(self.widths)), self.widths)
        penalty = np.exp(rho)[owner]
        H = X.T @ X + np.diag(penalty)
        self.formations += 1
        inverse = np.linalg.inv(H)
        for _ in range(20):
            slope = X.T @ (X @ beta - y) + penalty * beta
            step = inverse @ slope
            if not slope @ step > self.options.inner_tol**2:
                break
            beta = beta - step
        residual = y - X @ beta
        value = 0.5 * residual @ residual + 0.5 * penalty @ beta**2 + 0.5 * np.linalg.slogdet(H)[1]
        value -= 0.5 * float(np.dot(self.widths, rho))
        q = len(self.widths)
        gradient, hessian, edf = np.zeros(q), np.zeros((q, q)), np.zeros(q)
        for j in range(q):
            own = owner == j
            trace = np.exp(rho[j]) * np.trace(inverse[np.ix_(own, own)])
            quadratic = np.exp(rho[j]) * beta[own] @ beta[own]
            edf[j] = self.widths[j] - trace
            gradient[j] = 0.5 * (quadratic + trace - self.widths[j])
            hessian[j, j] += 0.5 * (quadratic + trace)
            for k in range(q):
                other = owner == k
                slope_of_beta = -inverse[:, other] @ (np.exp(rho[k]) * beta[other])
                hessian[j, k] += np.exp(rho[j]) * beta[own] @ slope_of_beta[own]
                hessian[j, k] -= 0.5 * np.exp(rho[j] + rho[k]) * (inverse[np.ix_(own, other)] ** 2).sum()
        return float(value), gradient, 0.5 * (hessian + hessian.T), edf, beta

    def objective(self, case: int, rho: Rho) -> float:
        return self.solve(case, rho, np.zeros(sum(self.widths)))[0]

    # -- the fit -----------------------------------------------------------------------------------

    def begin(self, start: Any) -> tuple[Rho, Beta, bool]:
        """Return where to begin, and whether that is the start; what cannot be used is not."""
        cold = np.zeros(len(self.widths)), np.zeros(sum(self.widths))
        if start is None:
            return *cold, False
        rho, beta = np.array(start.rho), np.concatenate(start.block_beta)
        # The objective is convex enough within this range, and the coefficients are found in one
        # step from anywhere.
        usable = np.isfinite(rho).all() and np.isfinite(beta).all() and (np.abs(rho) < 5.0).all()
        return (rho, beta, True) if usable else (*cold, False)

    def search(self, case: int, rho: Rho, beta: Beta) -> tuple[Any, Rho, int]:
        at = self.solve(case, rho, beta)
        steps = 0
        while np.abs(at[1]).max() > self.options.outer_tol and steps < 100:
            values, vectors = np.linalg.eigh(at[2])
            step = -vectors @ ((vectors.T @ at[1]) / np.maximum(np.abs(values), 1e-3))
            step *= min(1.0, 2.0 / np.abs(step).max())
            while True:
                trial = self.solve(case, rho + step, at[4])
                if trial[0] <= at[0] + 1e-10:
                    break
                step = step / 2.0
            rho, at, steps = rho + step, trial, steps + 1
        return at, rho, steps

    def fit(self, case: int, store: Any) -> Fitted:
        self.evaluations = self.formations = 0
        if store is None:
            return self.run(case, None)
        with store.fit(self.problem(case)) as handle:
            fitted = self.run(case, handle.start.start)
            handle.keep(fitted.result)
        return fitted

    def run(self, case: int, start: Any) -> Fitted:
        rho, beta, used = self.begin(start)
        at, rho, steps = self.search(case, rho, beta)
        return self.answer(case, at, rho, steps, None if start is None else used)

    def answer(self, case: int, at: Any, rho: Rho, steps: int, used: bool | None) -> Fitted:
        value, gradient, hessian, edf, beta = at
        flags = plateau_flags(rho, gradient, edf, self.widths, self.options.outer_tol, self.options.rho_bound)
        result = FitResult(
            rho,
            np.split(beta, np.cumsum(self.widths)[:-1]),
            value,
            converged=bool(np.abs(gradient).max() <= self.options.outer_tol),
            curvature=Curvature(gradient, hessian, edf, flags),
            cost=Cost(self.evaluations, steps, self.formations, self.formations),
            start_used=used,
        )
        return Fitted(result, self.data(case)[0] @ beta)


class TrustingObjective(Ridge):
    """Hands the stored objective on in place of its own."""

    def run(self, case: int, start: Any) -> Fitted:
        fitted = super().run(case, start)
        stored = getattr(start, "objective", None)
        return fitted if stored is None else Fitted(replace(fitted.result, objective=stored), fitted.fitted)


class StartIsAnswer(Ridge):
    """Takes whatever it is offered for the answer."""

    def run(self, case: int, start: Any) -> Fitted:
        if start is None:
            return super().run(case, None)
        rho, beta, _ = super().begin(start)
        at = self.solve(case, rho, beta)
        at = (at[0], np.zeros_like(rho), at[2], at[3], beta)
        return self.answer(case, at, rho, 0, True)


class Blind(Ridge):
    """Believes every start: no range, no test of anything; stops where the gradient is small,
    plateau or not.
    """

    def begin(self, start: Any) -> tuple[Rho, Beta, bool]:
        if start is None:
            return super().begin(None)
        return np.array(start.rho), np.concatenate(start.block_beta), True


class LyingFlags(Ridge):
    """Says of every coordinate that it is on a plateau."""

    def answer(self, case: int, at: Any, rho: Rho, steps: int, used: bool | None) -> Fitted:
        fitted = super().answer(case, at, rho, steps, used)
        told = fitted.result.curvature
        assert told is not None
        curvature = replace(told, plateau=np.ones(len(rho), dtype=bool))
        return Fitted(replace(fitted.result, curvature=curvature), fitted.fitted)


class Drifting(Ridge):
    """Takes one more step from every answer that it is given."""

    def search(self, case: int, rho: Rho, beta: Beta) -> tuple[Any, Rho, int]:
        at, rho, steps = super().search(case, rho, beta)
        rho = rho + 1e-9
        return self.solve(case, rho, at[4]), rho, steps


class RepeatingWork(Ridge):
    """Evaluates every answer once more to be sure."""

    def search(self, case: int, rho: Rho, beta: Beta) -> tuple[Any, Rho, int]:
        at, rho, steps = super().search(case, rho, beta)
        self.solve(case, rho, at[4])
        return at, rho, steps


class UsedNothing(Ridge):
    """Says that it used the start, and begins cold."""

    def run(self, case: int, start: Any) -> Fitted:
        fitted = super().run(case, None)
        return fitted if start is None else Fitted(replace(fitted.result, start_used=True), fitted.fitted)


class Claiming(Ridge):
    """Subtracts a little from every objective that came from a start."""

    def run(self, case: int, start: Any) -> Fitted:
        fitted = super().run(case, start)
        if start is None:
            return fitted
        assert fitted.result.objective is not None
        return Fitted(replace(fitted.result, objective=fitted.result.objective - 1.0), fitted.fitted)


class Raising(Ridge):
    """Falls over starts that are not finite."""

    def begin(self, start: Any) -> tuple[Rho, Beta, bool]:
        if start is not None and not np.isfinite(start.rho).all():
            raise ZeroDivisionError("rho is not finite")
        return super().begin(start)


class IgnoringStore(Ridge):
    """Never asks."""

    def fit(self, case: int, store: Any) -> Fitted:
        return super().fit(case, None)


class HiddenStore(Ridge):
    """Opens a store of its own when it is given none."""

    def fit(self, case: int, store: Any) -> Fitted:
        import gamwarm

        with gamwarm.open("hidden.h5") as own:
            return super().fit(case, own)
