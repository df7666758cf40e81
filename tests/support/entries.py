"""Records and artifacts for tests, complete by default."""

from __future__ import annotations

from typing import Any

import numpy as np

from gamwarm.entries import EntrySummary
from gamwarm.identity import FitDescriptor
from gamwarm.records import (
    BlockRecord,
    Cost,
    FitArtifact,
    GlobalFitSummary,
    InnerMode,
    Lineage,
    Producer,
    TermArtifact,
)

__all__ = ["KEY", "artifact", "hex_of", "inner", "line_of", "record", "term"]

KEY = "cf-" + 64 * "0"


def hex_of(number: int) -> str:
    """Return a well-formed term identity."""
    return f"{number:064x}"


def inner(**changes: Any) -> InnerMode:
    """Return a converged summary over two blocks and three penalties."""
    whole: dict[str, Any] = {
        "log_likelihood": -10.0,
        "penalty_value": 1.0,
        "cycles": 7,
        "converged": True,
        "block_logdet_h": [1.0, 2.0],
        "block_logdet_s": [0.5, 0.25],
        "inner_tol": 1e-6,
        "log_lambdas": [0.0, 1.0, 1.0],
    }
    return InnerMode(**whole | changes)


def record(**changes: Any) -> BlockRecord:
    """Return a final record of blocks ``mean`` (3) and ``scale`` (2) with two outer coordinates."""
    whole: dict[str, Any] = {
        "key": KEY,
        "n_rows": 20,
        "block_names": ("mean", "scale"),
        "block_dims": (3, 2),
        "rho": [0.5, -1.0],
        "block_beta": [np.ones(3), np.zeros(2)],
        "objective": 12.5,
        "rho_bound": 10.0,
    }
    return BlockRecord(**whole | changes)


def term(number: int, **changes: Any) -> TermArtifact:
    """Return a term of raw width 4 with one smoothing parameter and a structural identity."""
    whole: dict[str, Any] = {
        "identity": hex_of(number),
        "role": "mean",
        "basis_meta": None,
        "raw_beta": np.arange(4.0),
        "rho_for_term": [1.0],
        "structural_identity": hex_of(1000 + number),
        "reduced_width": 4,
    }
    return TermArtifact(**whole | changes)


def artifact(*terms: TermArtifact, **changes: Any) -> FitArtifact:
    """Return a converged artifact of these terms (one default term if none is given)."""
    chosen = terms or (term(1),)
    whole: dict[str, Any] = {
        "descriptor": FitDescriptor("gaussian", tuple(t.identity for t in chosen)),
        "terms": chosen,
        "summary": GlobalFitSummary(12.5, True, 20),
        "rho_bound": 10.0,
    }
    return FitArtifact(**whole | changes)


def line_of(n: int, source: str, cost: Cost | None, rows: int) -> EntrySummary:
    """An artifact as `add_up` sees it; those of one ``n`` have one key, all are of one model."""
    return EntrySummary(
        section="fit_artifacts",
        path=f"model/{n:032x}",
        entry_id=f"{n:032x}",
        kind="artifact",
        created=n,
        producer=Producer("tests", source),
        lineage=Lineage(source),
        cost=cost,
        attributes={},
        n_rows=rows,
        n_outer=1,
        width=1,
        reduced_width=1,
        objective=1.0,
        converged=True,
        blocks=("x",),
        fit_key=f"cf-{n:064x}",
        structural_key="model",
    )
