"""The fits of the adapters' benchmark: a model, data and folds for each tool, and the same call
without and with a store.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.integrate
import scipy.optimize

from benchmarks.loso_data import table
from gamwarm import adapters

__all__ = ["TOOLS", "Answer", "Tool"]


@dataclass(frozen=True)
class Answer:
    """What a fit ended with, and what it took as the tool counts it.

    Attributes
    ----------
    objective : float
    iterations, evaluations : int
    converged : bool
    """

    objective: float
    iterations: int
    evaluations: int
    converged: bool


@dataclass(frozen=True)
class Tool:
    """A tool, a model and its folds.

    Attributes
    ----------
    name, what : str
    lines : int
        That the adapter adds to or changes in the user's code, imports and the file among them.
    make : callable
        Loads the data and returns the folds (row masks; the first has all rows) and
        ``fit(rows, store)``; without a store it is the tool itself, not the adapter.
    """

    name: str
    what: str
    lines: int
    make: Callable[[], tuple[list[Any], Callable[[Any, Any], Answer]]]


def leave_out(group: Any) -> list[Any]:
    """Return the mask of all rows, and one for each group that is left out."""
    labels = np.asarray(group)
    return [np.ones(labels.size, dtype=bool), *(labels != each for each in np.unique(labels))]


def tenths(n: int) -> list[Any]:
    """Return all rows, and ten times all but a tenth of them, by a fixed permutation."""
    return leave_out(np.random.default_rng(1).permutation(n) % 10)


def _gaussian_process(method: str, load: Callable[[], tuple[Any, Any, Any]]) -> Any:
    def make() -> Any:
        from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: PLC0415

        kernel, X, y = load()

        def fit(rows: Any, store: Any) -> Answer:
            # Without a store it searches as scikit-learn does, and counts.
            optimizer = adapters.GaussianProcessOptimizer(store, method=method)
            GaussianProcessRegressor(kernel, optimizer=optimizer).fit(X[rows], y[rows])
            end = optimizer.found
            return Answer(float(end.fun), end.nit, end.nfev, bool(end.success))

        return tenths(len(y)), fit

    return make


def _mcycle() -> tuple[Any, Any, Any]:
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel  # noqa: PLC0415

    data = table("MASS", "mcycle")
    y = data["accel"] / data["accel"].std()
    return ConstantKernel() * RBF() + WhiteKernel(), data["times"][:, None] / 10.0, y - y.mean()


def _auto() -> tuple[Any, Any, Any]:
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel  # noqa: PLC0415

    data = table("ISLR", "Auto")
    names = ("cylinders", "displacement", "horsepower", "weight", "acceleration", "year")
    X = np.column_stack([data[name] for name in names]).astype(float)
    X, y = (X - X.mean(0)) / X.std(0), data["mpg"].astype(float)
    y = (y - y.mean()) / y.std()
    return ConstantKernel() * RBF(np.ones(X.shape[1])) + WhiteKernel(), X, y


def _indometh() -> Any:
    data = table("datasets", "Indometh")
    t, y = data["time"].astype(float), data["conc"].astype(float)

    def residuals(p: Any, t: Any, y: Any) -> Any:
        return np.exp(p[0] - np.exp(p[1]) * t) + np.exp(p[2] - np.exp(p[3]) * t) - y

    return leave_out(data["Subject"]), _squares(residuals, [0.0, 1.0, 0.0, -1.0], (t, y), "indometh")


def _michaelis() -> Any:
    """Saturated elimination: an equation that is integrated at each evaluation."""
    data = table("datasets", "Theoph")
    subject, t = data["Subject"].astype(int), data["Time"].astype(float)
    dose, y = data["Dose"].astype(float), data["conc"].astype(float)

    def residuals(p: Any, subject: Any, t: Any, dose: Any, y: Any) -> Any:
        absorbed, most, half, volume = np.exp(p)
        expected = np.empty(t.size)
        for each in np.unique(subject):
            rows = np.flatnonzero(subject == each)
            given = dose[rows[0]]

            def change(s: float, c: Any, given: float = given) -> Any:
                return absorbed * given / volume * np.exp(-absorbed * s) - most * c / (half + c)

            solved = scipy.integrate.solve_ivp(
                change, (0.0, 25.0), [0.0], t_eval=np.unique(t[rows]), rtol=1e-9, atol=1e-11
            )
            expected[rows] = np.interp(t[rows], solved.t, solved.y[0])
        return expected - y

    # Steps far above the error of the integration.
    return leave_out(subject), _squares(
        residuals, [0.5, 0.5, 1.0, -0.7], (subject, t, dose, y), "michaelis", jac="3-point", diff_step=1e-3
    )


def _squares(
    residuals: Any, begin: Any, columns: tuple[Any, ...], name: str, **options: Any
) -> Callable[[Any, Any], Answer]:
    def fit(rows: Any, store: Any) -> Answer:
        args = tuple(column[rows] for column in columns)
        if store is None:
            found = scipy.optimize.least_squares(residuals, begin, args=args, **options)
        else:
            found = adapters.least_squares(residuals, begin, args=args, store=store, name=name, **options)
        iterations = found.njev - 1 if store is None else found.result.cost.outer_iterations
        return Answer(float(found.cost), iterations, found.nfev, bool(found.success))

    return fit


def _curve() -> Any:
    data = table("datasets", "Theoph")
    t, y = np.column_stack([data["Time"], data["Dose"]]).T.astype(float), data["conc"].astype(float)

    def curve(x: Any, elimination: float, absorption: float, clearance: float) -> Any:
        ke, ka, cl = np.exp([elimination, absorption, clearance])
        return x[1] * ke * ka / (cl * (ka - ke)) * (np.exp(-ke * x[0]) - np.exp(-ka * x[0]))

    def fit(rows: Any, store: Any) -> Answer:
        arguments = {"p0": [-1.0, 0.0, -2.0], "full_output": True}
        if store is None:
            end = scipy.optimize.curve_fit(curve, t[:, rows], y[rows], **arguments)
            evaluations = end[2]["nfev"]
        else:
            end = adapters.curve_fit(curve, t[:, rows], y[rows], store=store, name="theoph", **arguments)
            evaluations = end[2]["fit"].nfev
        return Answer(0.5 * float(end[2]["fvec"] @ end[2]["fvec"]), 0, evaluations, converged=True)

    return leave_out(data["Subject"]), fit


class _Restricted:
    """Restricted likelihood of a random intercept and slope, in three log precisions."""

    def __init__(self, rows: Any) -> None:
        data = table("lme4", "sleepstudy")
        days, y = data["Days"].astype(float)[rows], data["Reaction"].astype(float)[rows] / 100.0
        same = np.equal.outer(data["Subject"][rows], data["Subject"][rows]).astype(float)
        self.calls = 0
        self.X, self.y = np.column_stack([np.ones(y.size), days]), y
        self.parts = [same, same * np.outer(days, days), np.eye(y.size)]

    def __call__(self, rho: Any) -> tuple[float, Any]:
        self.calls += 1
        weights = np.exp(-np.asarray(rho))
        V = sum(w * part for w, part in zip(weights, self.parts, strict=True))
        W = np.linalg.inv(V)
        WX = W @ self.X
        P = W - WX @ np.linalg.solve(self.X.T @ WX, WX.T)
        Py = P @ self.y
        value = 0.5 * (np.linalg.slogdet(V)[1] + np.linalg.slogdet(self.X.T @ WX)[1] + self.y @ Py)
        slopes = [-0.5 * w * ((P * part).sum() - Py @ part @ Py) for w, part in zip(weights, self.parts, strict=True)]
        return float(value), np.array(slopes)


def _minimize(method: str) -> Any:
    def make() -> Any:
        data = table("lme4", "sleepstudy")

        def fit(rows: Any, store: Any) -> Answer:
            likelihood = _Restricted(rows)
            if store is None:
                found: Any = scipy.optimize.minimize(likelihood, np.zeros(3), jac=True, method=method)
            else:
                known = {"X": likelihood.X, "y": likelihood.y, "same": likelihood.parts[0]}
                found = adapters.minimize(
                    likelihood, np.zeros(3), jac=True, method=method, store=store, name="sleepstudy", data=known,
                    rho=slice(None),
                )  # fmt: skip
            return Answer(float(found.fun), found.nit, likelihood.calls, bool(found.success))

        return leave_out(data["Subject"]), fit

    return make


def _negative_binomial() -> Any:
    import statsmodels.api as sm  # noqa: PLC0415
    from scipy.special import gammaln  # noqa: PLC0415

    data = table("AER", "DoctorVisits")
    names = ("age", "income", "illness", "reduced", "health")
    X = np.column_stack([np.ones(len(data["age"])), *(data[name].astype(float) for name in names)])
    y = data["visits"].astype(float)

    def fit(rows: Any, store: Any) -> Answer:
        model = sm.NegativeBinomial(y[rows], X[rows])

        def objective(x: Any) -> float:  # the model's own depends on what was fitted last
            size, mean = 1.0 / x[-1], np.exp(X[rows] @ x[:-1])
            terms = gammaln(size + y[rows]) - gammaln(size) - gammaln(y[rows] + 1.0)
            terms += size * np.log(size / (size + mean)) + y[rows] * np.log(mean / (size + mean))
            return -float(terms.sum())

        def solve(start: Any) -> Any:
            end = model.fit(start, method="lbfgs", maxiter=200, disp=0)
            said = end.mle_retvals
            return {"x": end.params, "success": said["converged"], "nit": said["iterations"], "nfev": said["fcalls"]}

        if store is None:
            end = solve(None)
            return Answer(objective(end["x"]), end["nit"], end["nfev"], end["success"])
        found = adapters.remember(
            solve, store=store, name="negative binomial", data={"X": X[rows], "y": y[rows]}, start=np.eye(7)[-1],
            objective=objective,
        )  # fmt: skip
        return Answer(found.fun, found.nit, found.cost.evaluations, found.success)

    return tenths(y.size), fit


TOOLS = (
    Tool("gp-mcycle", "scikit-learn GP, L-BFGS-B: mcycle, 133 rows", 4, _gaussian_process("L-BFGS-B", _mcycle)),
    Tool(
        "gp-auto",
        "scikit-learn GP, L-BFGS-B: Auto, 392 rows, 8 hyperparameters",
        4,
        _gaussian_process("L-BFGS-B", _auto),
    ),
    Tool("gp-auto-bfgs", "the same, BFGS", 4, _gaussian_process("BFGS", _auto)),
    Tool("squares-indometh", "least_squares: Indometh, two exponentials, 66 rows", 3, _indometh),
    Tool("squares-theoph", "least_squares: Theoph, saturated elimination by solve_ivp, 132 rows", 3, _michaelis),
    Tool("curve-theoph", "curve_fit: Theoph, one compartment, 132 rows", 3, _curve),
    Tool("minimize-bfgs", "minimize, BFGS: sleepstudy, REML in 3 log precisions", 5, _minimize("BFGS")),
    Tool("minimize-lbfgsb", "minimize, L-BFGS-B: the same", 5, _minimize("L-BFGS-B")),
    Tool("minimize-cg", "minimize, CG: the same", 5, _minimize("CG")),
    Tool("minimize-newton", "minimize, Newton-CG: the same", 5, _minimize("Newton-CG")),
    Tool("remember-nb", "remember: statsmodels NegativeBinomial, DoctorVisits, 5,190 rows", 10, _negative_binomial),
)


def chosen(names: str) -> Iterator[Tool]:
    """Yield the tools of these names, by commas; all if there are none."""
    wanted = [name for name in names.split(",") if name]
    known = {tool.name: tool for tool in TOOLS}
    for name in wanted or known:
        if name not in known:
            raise SystemExit(f"there is no tool {name!r}; known are {', '.join(known)}")
        yield known[name]


warnings.filterwarnings("ignore", message="The optimal value found", module="sklearn")
