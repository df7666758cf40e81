"""A small engine on `gamwarm.fit`: Gaussian terms with known noise, one ridge penalty each. Every
answer is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import gamwarm

__all__ = ["Ridge", "describe", "terms_and_response"]


class Response:
    """The family: everything that the answer depends on beside blocks and options."""

    family_kind = "tests.ridge"

    def __init__(self, y: np.ndarray) -> None:
        self.y = y

    def persistent_warm_start_fingerprint(self, specs: Any, options: Any) -> str:
        fingerprint = gamwarm.Fingerprinter()
        fingerprint.write_f64_array(self.y)
        return fingerprint.hexdigest()


def terms_and_response(seed: int = 1, n: int = 120) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return two terms' designs and a response."""
    rng = np.random.default_rng(seed)
    terms = {"s(time)": 0.25 * rng.normal(size=(n, 6)), "s(age)": 0.25 * rng.normal(size=(n, 4))}
    return terms, sum(X @ rng.normal(size=X.shape[1]) for X in terms.values()) + rng.normal(size=n)


def describe(terms: dict[str, np.ndarray], y: np.ndarray, **options: Any) -> gamwarm.FitProblem:
    """Return the problem."""
    specs = [
        gamwarm.ParameterBlockSpec(name, X, penalties=[gamwarm.DensePenalty(np.eye(X.shape[1]))])
        for name, X in terms.items()
    ]
    return gamwarm.FitProblem(Response(y), specs, gamwarm.BlockwiseFitOptions(**options), engine="tests.ridge")


class Ridge:
    """The objective. ``changes`` of every evaluation make it lie; ``without`` leaves optional parts
    out.
    """

    def __init__(
        self, terms: dict[str, np.ndarray], y: np.ndarray, without: tuple[str, ...] = (), **changes: Any
    ) -> None:
        self.blocks, self.y, self.without, self.changes = list(terms.values()), y, without, changes
        self.widths = [X.shape[1] for X in self.blocks]
        self.X, self.owner = np.hstack(self.blocks), np.repeat(np.arange(len(self.widths)), self.widths)
        self.calls: list[tuple[np.ndarray, int]] = []

    def penalized_nll(self, rho: np.ndarray, theta: np.ndarray) -> float:
        residual = self.y - self.X @ theta
        return 0.5 * float(residual @ residual + np.exp(rho)[self.owner] @ theta**2)

    def evaluate(self, rho: np.ndarray, theta: np.ndarray, budget: int) -> gamwarm.Evaluation:
        self.calls.append((np.array(rho), budget))
        penalty, q = np.exp(rho)[self.owner], len(self.widths)
        H = self.X.T @ self.X + np.diag(penalty)
        inverse = np.linalg.inv(H)
        slope = self.X.T @ (self.X @ theta - self.y) + penalty * theta
        if slope @ inverse @ slope > 1e-18:  # at its own answer it takes no step
            theta = theta - inverse @ slope
        value = self.penalized_nll(rho, theta) + 0.5 * np.linalg.slogdet(H)[1] - 0.5 * float(np.dot(self.widths, rho))
        own = [self.owner == j for j in range(q)]
        trace = np.array([np.exp(rho[j]) * np.trace(inverse[np.ix_(a, a)]) for j, a in enumerate(own)])
        square = np.array([np.exp(rho[j]) * theta[a] @ theta[a] for j, a in enumerate(own)])
        tangent = np.column_stack([-inverse[:, a] @ (np.exp(rho[j]) * theta[a]) for j, a in enumerate(own)])

        def hessian() -> np.ndarray:
            out = np.diag(0.5 * (square + trace))
            for j, a in enumerate(own):
                for k, b in enumerate(own):
                    cross = np.exp(rho[j] + rho[k]) * (inverse[np.ix_(a, b)] ** 2).sum()
                    out[j, k] += np.exp(rho[j]) * theta[a] @ tangent[a, k] - 0.5 * cross
            return out

        found = {
            "hessian": hessian,
            "edf": np.array(self.widths) - trace,
            "max_edf": np.array(self.widths, dtype=float),
            "tangent": tangent,
            "converged": True,
            "cycles": 1,
            "last_step": 0.0,
            "formations": 1,
        }
        found = {name: part for name, part in found.items() if name not in self.without}
        gradient = 0.5 * (square + trace - self.widths)
        found |= {name: change(rho) if callable(change) else change for name, change in self.changes.items()}
        return gamwarm.Evaluation(**{"rho": rho, "theta": theta, "value": value, "gradient": gradient} | found)
