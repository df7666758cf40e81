"""What an engine returns, and what it receives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from gamwarm.checks import as_bool, as_float, as_int, as_tuple, require
from gamwarm.display import NotebookTable, few
from gamwarm.records.block import InnerMode, check_attributes, normalize_active_sets
from gamwarm.records.curvature import Curvature, loose_vector
from gamwarm.records.equality import ContentEquality
from gamwarm.records.provenance import Cost
from gamwarm.records.seeds import GroupSeeds

__all__ = ["ConstrainedWarmStart", "FitResult"]


@dataclass(frozen=True, eq=False)
class FitResult(ContentEquality, NotebookTable):
    """The outcome of a fit, or its current state.

    Parameters
    ----------
    rho : array of shape (n_outer,)
    block_beta : sequence of arrays
        Reduced coefficients per block.
    objective : float
        What the outer search minimises.
    converged : bool
        True: `keep` files a final record and an artifact; False: a checkpoint.
    active_sets, inner, curvature, iteration, cost : optional
        As in `BlockRecord`.
    start_used : bool, optional
        Whether the offered start was consumed; None if the engine does not say.
    seeds : GroupSeeds, optional
        In reduced coefficients. They go into the artifact, in raw ones.
    attributes : mapping of str to strings and numbers
        Labels, stored with record and artifact and not part of key, content or entry id: a job, a
        fold.
    """

    rho: Any
    block_beta: Sequence[Any]
    objective: float | None
    converged: bool
    active_sets: Any = None
    inner: InnerMode | None = None
    curvature: Curvature | None = None
    iteration: int | None = None
    cost: Cost | None = None
    start_used: bool | None = None
    seeds: GroupSeeds | None = None
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", loose_vector(self.rho, "result rho"))
        blocks = as_tuple(self.block_beta, "result block_beta")
        beta = tuple(loose_vector(b, f"result block_beta[{i}]") for i, b in enumerate(blocks))
        object.__setattr__(self, "block_beta", beta)
        if self.objective is not None:
            object.__setattr__(self, "objective", as_float(self.objective, "result objective"))
        object.__setattr__(self, "converged", as_bool(self.converged, "result converged"))
        object.__setattr__(self, "active_sets", normalize_active_sets(self.active_sets))
        for name, kind in (("inner", InnerMode), ("curvature", Curvature), ("cost", Cost), ("seeds", GroupSeeds)):
            require(f"result {name}", getattr(self, name), (kind, type(None)))
        if self.iteration is not None:
            object.__setattr__(self, "iteration", as_int(self.iteration, "result iteration"))
        if self.start_used is not None:
            object.__setattr__(self, "start_used", as_bool(self.start_used, "result start_used"))
        require("result attributes", self.attributes, (Mapping,))
        object.__setattr__(self, "attributes", check_attributes(self.attributes))

    def __repr__(self) -> str:
        state = "converged" if self.converged else "not converged"
        return f"<FitResult {state}: objective {self._value}, {self._sizes}>"

    @property
    def _value(self) -> str:
        return "unknown" if self.objective is None else f"{self.objective:.10g}"

    @property
    def _sizes(self) -> str:
        width = sum(beta.size for beta in self.block_beta)
        return f"{len(self.block_beta)} blocks, {width} coefficients, rho ({len(self.rho)},)"

    def _facts(self) -> list[tuple[str, str]]:
        used = "" if self.start_used is None else "yes" if self.start_used else "no"
        return [
            ("converged", "yes" if self.converged else "no"),
            ("objective", self._value),
            ("sizes", self._sizes),
            ("rho", few((f"{value:.4g}" for value in self.rho), 8)),
            ("iteration", "" if self.iteration is None else str(self.iteration)),
            ("start used", used),
            ("cost", "" if self.cost is None else str(self.cost)),
            ("attributes", ", ".join(f"{name} = {value}" for name, value in self.attributes.items())),
        ]


@dataclass(frozen=True, eq=False)
class ConstrainedWarmStart(ContentEquality):
    """Where a fit is offered to begin.

    Its arrays are copies of its own and may be written to: an engine that updates them in place
    changes nothing else.

    Parameters
    ----------
    rho : array of shape (n_outer,)
        Replaces the fit's default rho.
    block_beta : sequence of arrays
        Reduced coefficients per block.
    active_sets : sequence of (None or row numbers)
    cached_inner : InnerMode, optional
        Budgets intermediate evaluations (`inner_cap`); never replaces one.
    curvature : Curvature, optional
        Of the entry the start came from, in this fit's outer coordinates: a metric for the search,
        never evidence.
    objective : float, optional
        Stored objective, to compare with the first evaluation; never replaces it.
    """

    rho: Any
    block_beta: Sequence[Any]
    active_sets: Any = None
    cached_inner: InnerMode | None = None
    curvature: Curvature | None = None
    objective: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", loose_vector(self.rho, "start rho"))
        for name, kind in (("cached_inner", InnerMode), ("curvature", Curvature)):
            require(f"start {name}", getattr(self, name), (kind, type(None)))
            if getattr(self, name) is not None:
                object.__setattr__(self, name, replace(getattr(self, name)))  # copies its arrays
        if self.objective is not None:
            object.__setattr__(self, "objective", as_float(self.objective, "start objective"))
        blocks = as_tuple(self.block_beta, "start block_beta")
        beta = tuple(loose_vector(b, f"start block_beta[{i}]") for i, b in enumerate(blocks))
        object.__setattr__(self, "block_beta", beta)
        parts = [beta, *(vars(part).values() for part in (self, self.cached_inner, self.curvature) if part is not None)]
        for array in chain.from_iterable(parts):
            if isinstance(array, np.ndarray):
                array.flags.writeable = True
        object.__setattr__(self, "active_sets", normalize_active_sets(self.active_sets))
