"""Options of a blockwise fit: everything about the solver that its answer may depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gamwarm.checks import as_bool, as_finite_float, as_int, as_str, float_vector
from gamwarm.errors import InvalidInput

__all__ = ["BlockwiseFitOptions"]


@dataclass(frozen=True, eq=False)
class BlockwiseFitOptions:
    """Solver options; all of them enter the exact key.

    Parameters
    ----------
    inner_max_cycles, outer_max_iter : int
    inner_tol, outer_tol : float
    outer_rel_cost_tol : float, optional
    min_weight, ridge_floor : float
        Floors of working weights and of the stabilising ridge.
    ridge_policy : str
    use_reml_objective, use_outer_hessian, compute_covariance : bool
    early_exit_threshold : float, optional
    outer_score_subsample : array, optional
        Row numbers of a subsample for the outer score.
    auto_outer_subsample : bool
    rho_bound : float
        Outer coordinates stay within ±rho_bound; above 2, or inf.
    """

    inner_max_cycles: int = 1200
    inner_tol: float = 1e-6
    outer_max_iter: int = 60
    outer_tol: float = 1e-5
    outer_rel_cost_tol: float | None = None
    min_weight: float = 1e-12
    ridge_floor: float = 1e-12
    ridge_policy: str = "explicit-stabilization-pospart"
    use_reml_objective: bool = True
    use_outer_hessian: bool = True
    compute_covariance: bool = False
    early_exit_threshold: float | None = None
    outer_score_subsample: Any = None
    auto_outer_subsample: bool = True
    rho_bound: float = 15.0

    def __post_init__(self) -> None:
        settled: dict[str, Any] = {}
        for name in ("inner_max_cycles", "outer_max_iter"):
            settled[name] = as_int(getattr(self, name), f"option {name}")
        for name in ("inner_tol", "outer_tol", "min_weight", "ridge_floor"):
            settled[name] = as_finite_float(getattr(self, name), f"option {name}", minimum=0.0)
        if self.outer_rel_cost_tol is not None:
            settled["outer_rel_cost_tol"] = as_finite_float(
                self.outer_rel_cost_tol, "option outer_rel_cost_tol", minimum=0.0
            )
        if self.early_exit_threshold is not None:
            settled["early_exit_threshold"] = as_finite_float(self.early_exit_threshold, "option early_exit_threshold")
        settled["ridge_policy"] = as_str(self.ridge_policy, "option ridge_policy")
        for name in ("use_reml_objective", "use_outer_hessian", "compute_covariance", "auto_outer_subsample"):
            settled[name] = as_bool(getattr(self, name), f"option {name}")
        if self.outer_score_subsample is not None:
            settled["outer_score_subsample"] = float_vector(self.outer_score_subsample, "option outer_score_subsample")
        settled["rho_bound"] = as_finite_float(self.rho_bound, "option rho_bound", infinite=True)
        if settled["rho_bound"] <= 2.0:
            raise InvalidInput(f"option rho_bound is {settled['rho_bound']}; it must be above 2 (or inf)")
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BlockwiseFitOptions):
            return NotImplemented
        return all(np.array_equal(getattr(self, f), getattr(other, f)) for f in self.__dataclass_fields__)

    __hash__ = None  # type: ignore[assignment]
