"""The exact record: the state of one fit under its exact key."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from gamwarm.checks import as_bool, as_finite_float, as_float, as_int, as_str, as_tuple, plain_array, require
from gamwarm.display import NotebookTable, brief_repr, few, short
from gamwarm.errors import InvalidInput
from gamwarm.identity import Components, check_exact_key, check_nuisance
from gamwarm.problem import BlockwiseFitOptions
from gamwarm.records.curvature import Curvature, are_finite, cut_coordinates, loose_vector
from gamwarm.records.equality import ContentEquality
from gamwarm.records.provenance import LATEST, Cost, Lineage, Producer, facts_of_making

__all__ = ["BlockRecord", "InnerMode", "RecordKind", "check_attributes", "normalize_active_sets"]


class RecordKind(StrEnum):
    """Whether a record is an answer or a stop on the way."""

    CHECKPOINT = "checkpoint"
    FINAL = "final"


_CUT_SLOPE = BlockwiseFitOptions().outer_tol  # a record does not know its fit's tolerance
ActiveSet = tuple[int, ...] | None


def normalize_active_sets(sets: Iterable[Iterable[int] | None] | None) -> tuple[ActiveSet, ...] | None:
    """Return active sets in one form: None stays, rows sorted and unique, empty becomes None."""
    if sets is None:
        return None
    normal: list[ActiveSet] = []
    for b, rows in enumerate(as_tuple(sets, "active_sets")):
        what = f"active set of block {b}"
        numbers = () if rows is None else sorted({as_int(r, what) for r in as_tuple(rows, what)})
        normal.append(tuple(numbers) or None)
    return tuple(normal)


@dataclass(frozen=True, eq=False)
class InnerMode(ContentEquality):
    """Summary of the inner solve at one rho, for `inner_cap`; never used as an evaluation.

    Parameters
    ----------
    log_likelihood, penalty_value : float
    cycles : int
        Inner cycles it took.
    converged : bool
    block_logdet_h, block_logdet_s : float, or arrays of shape (blocks,)
        Log determinants of penalized Hessian and penalty: one number for the joint ones, or one per
        block.
    inner_tol : float, optional
    log_lambdas : array, optional
        Physical log lambdas, one per penalty.
    """

    log_likelihood: float
    penalty_value: float
    cycles: int
    converged: bool
    block_logdet_h: Any
    block_logdet_s: Any
    inner_tol: float | None = None
    log_lambdas: Any = None

    def __post_init__(self) -> None:
        for name in ("log_likelihood", "penalty_value", "inner_tol"):
            if getattr(self, name) is not None or name != "inner_tol":
                object.__setattr__(self, name, as_float(getattr(self, name), f"inner {name}"))
        object.__setattr__(self, "cycles", as_int(self.cycles, "inner cycles"))
        object.__setattr__(self, "converged", as_bool(self.converged, "inner converged"))
        for name in ("block_logdet_h", "block_logdet_s", "log_lambdas"):
            value = getattr(self, name)
            if name != "log_lambdas" and plain_array(value, f"inner {name}", "numbers").ndim == 0:
                object.__setattr__(self, name, as_float(value, f"inner {name}"))
            elif value is not None:
                object.__setattr__(self, name, loose_vector(value, f"inner {name}"))

    @property
    def is_finite(self) -> bool:
        """Whether every number that is present is finite."""
        scalars = [self.log_likelihood, self.penalty_value, 0.0 if self.inner_tol is None else self.inner_tol]
        arrays = [v for v in (self.block_logdet_h, self.block_logdet_s, self.log_lambdas) if v is not None]
        return bool(np.isfinite(scalars).all()) and all(bool(np.isfinite(a).all()) for a in arrays)


def check_attributes(attributes: Mapping[str, str | int | float]) -> dict[str, str | int | float]:
    """Return a copy of user attributes: string names, values strings or finite numbers."""
    require("attributes", attributes, Mapping)
    checked: dict[str, str | int | float] = {}
    for name, value in attributes.items():
        what = f"attribute {as_str(name, 'attribute name')!r}"
        if isinstance(value, str):
            checked[name] = as_str(value, what, empty=True)
        elif isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
            if abs(int(value)) > sys.float_info.max:
                raise InvalidInput(f"{what} is an integer of more than 308 digits; keep it as a string")
            checked[name] = int(value)
        else:
            checked[name] = as_finite_float(value, what)
    return checked


@dataclass(frozen=True, eq=False)
class BlockRecord(ContentEquality, NotebookTable):
    """State of one fit. Numbers may be non-finite or of the wrong width until a gate
    (`rejection_reason`) sees them.

    Parameters
    ----------
    key : str
        Exact key.
    n_rows : int
    block_names : sequence of str
    block_dims : sequence of int
        Reduced widths.
    rho : array of shape (n_outer,)
        Outer coordinates.
    block_beta : sequence of arrays
        Reduced coefficients per block.
    active_sets : sequence of (None or row numbers), optional
        One per block; default None for each.
    inner : InnerMode, optional
    objective : float, optional
        What the outer search minimises.
    kind : {"checkpoint", "final"}
    converged : bool, optional
        Default: True for a final, False for a checkpoint.
    iteration : int, optional
    curvature : Curvature, optional
    rho_bound : float
        The fit's bound on outer coordinates.
    producer : Producer, optional
        Stamped by the store if None.
    created : int, optional
        UTC microseconds; stamped by the store.
    lineage, cost : optional
    attributes : mapping of str to strings and numbers
    components : Components, optional
        Digests of the parts of the key, for `explain`; not part of the content, which the key
        names already.
    nuisance : sequence of str
        Names of the last outer coordinates, which are not log smoothing parameters: without bound
        or saturation rule.
    """

    key: str
    n_rows: int
    block_names: Sequence[str]
    block_dims: Sequence[int]
    rho: Any
    block_beta: Sequence[Any]
    active_sets: Any = None
    inner: InnerMode | None = None
    objective: float | None = None
    kind: RecordKind | str = RecordKind.FINAL
    converged: bool | None = None
    iteration: int | None = None
    curvature: Curvature | None = None
    rho_bound: float = 15.0
    producer: Producer | None = None
    created: int | None = field(default=None, compare=False)
    lineage: Lineage | None = None
    cost: Cost | None = None
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    components: Components | None = field(default=None, compare=False)
    nuisance: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_exact_key(self.key)
        names = tuple(as_str(n, "record block name") for n in as_tuple(self.block_names, "record block_names"))
        try:
            kind = RecordKind(self.kind)
        except ValueError:
            raise InvalidInput(f"record kind {brief_repr(self.kind)}; use 'final' or 'checkpoint'") from None
        for name, expected in (
            ("inner", InnerMode),
            ("curvature", Curvature),
            ("producer", Producer),
            ("lineage", Lineage),
            ("cost", Cost),
            ("components", Components),
        ):
            require(f"record {name}", getattr(self, name), (expected, type(None)))
        converged = kind is RecordKind.FINAL if self.converged is None else as_bool(self.converged, "record converged")
        sets = (None,) * len(names) if self.active_sets is None else normalize_active_sets(self.active_sets)
        settled = {
            "n_rows": as_int(self.n_rows, "record n_rows"),
            "block_names": names,
            "block_dims": tuple(as_int(d, "record block_dims") for d in as_tuple(self.block_dims, "record block_dims")),
            "rho": loose_vector(self.rho, "record rho"),
            "block_beta": tuple(
                loose_vector(b, f"record block_beta[{i}]")
                for i, b in enumerate(as_tuple(self.block_beta, "record block_beta"))
            ),
            "active_sets": sets,
            "objective": None if self.objective is None else as_float(self.objective, "record objective"),
            "kind": kind,
            "converged": converged,
            "iteration": None if self.iteration is None else as_int(self.iteration, "record iteration"),
            "created": None if self.created is None else as_int(self.created, "record created", maximum=LATEST),
            "rho_bound": as_finite_float(self.rho_bound, "record rho_bound", infinite=True),
            "attributes": check_attributes(self.attributes),
            "nuisance": check_nuisance(self.nuisance),
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of_checked(cls, **values: Any) -> BlockRecord:
        """Return a record of all its fields, which are as the constructor would make them; arrays
        are not copied.
        """
        record = object.__new__(cls)
        vars(record).update(values)
        return record

    def __repr__(self) -> str:
        objective = "no objective" if self.objective is None else f"objective {self.objective:.6g}"
        return (
            f"<BlockRecord {self.kind} {short(self.key)}: {objective}, {len(self.block_names)} blocks, "
            f"{sum(self.block_dims)} coefficients, rho ({len(self.rho)},), {self.n_rows} rows>"
        )

    def _title(self) -> str:
        return f"BlockRecord, {self.kind}"

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("exact key", short(self.key)),
            ("objective", "" if self.objective is None else f"{self.objective:.10g}"),
            ("converged", "yes" if self.converged else "no"),
            ("rows", f"{self.n_rows:,}"),
            ("rho", few(f"{value:.4g}" for value in self.rho[: len(self.rho) - len(self.nuisance)])),
            *((name, f"{value:.4g}") for name, value in self._nuisance_values()),
            ("cut by the bound", few(self.cuts)),
            *facts_of_making(self.producer, self.lineage, self.cost, self.created),
        ]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        sizes = zip(self.block_names, self.block_dims, strict=False)
        return ("block", "coefficients"), [(name, str(width)) for name, width in sizes]

    def _nuisance_values(self) -> zip[tuple[str, float]]:
        return zip(self.nuisance, self.rho[len(self.rho) - len(self.nuisance) :].tolist(), strict=False)

    @property
    def outer_names(self) -> tuple[str, ...]:
        """A name per outer coordinate: the blocks that use it, or the nuisance coordinate's own.

        Empty where the record does not say: it was put directly, not by ``keep``.
        """
        smoothing = len(self.rho) - len(self.nuisance)
        names = [""] * smoothing
        if self.components is not None and len(self.components.penalties) == len(self.block_names):
            users = self.components.smoothed_blocks()
            if len(users) == smoothing:
                names = [", ".join(self.block_names[block] for block in blocks) for blocks in users]
        return (*names, *self.nuisance)

    @property
    def cuts(self) -> tuple[str, ...]:
        """What the bound cut: coordinates at ±rho_bound whose objective still falls outwards."""
        gradient = None if self.curvature is None else self.curvature.gradient
        if gradient is None or not self.converged or len(gradient) != len(self.rho):
            return ()
        smoothing = len(self.rho) - len(self.nuisance)
        cut = cut_coordinates(self.rho[:smoothing], gradient[:smoothing], _CUT_SLOPE, self.rho_bound)
        if not cut:
            return ()
        of = [f" of {name!r}" if name else "" for name in self.outer_names]
        where = f"lies at its bound ±{self.rho_bound:g} with slope"
        return tuple(f"rho[{j}]{of[j]} = {self.rho[j]:.4g} {where} {gradient[j]:.3g}" for j in cut)

    def invalid_reason(self) -> str | None:
        """Return why counts and widths disagree or a number is not finite, else None.

        The inner summary is not checked.
        """
        blocks = len(self.block_names)
        for what, count in (
            ("block_dims", len(self.block_dims)),
            ("block_beta", len(self.block_beta)),
            ("active_sets", len(self.active_sets)),
        ):
            if count != blocks:
                return f"{what} has {count} entries for {blocks} blocks"
        finite = are_finite(self.block_beta)
        for name, dim, beta in zip(self.block_names, self.block_dims, self.block_beta, strict=True):
            if len(beta) != dim:
                return f"block {name!r}: block_beta has {len(beta)} numbers, its width is {dim}"
            if not (finite or np.isfinite(beta).all()):
                return f"block {name!r}: block_beta holds a non-finite number"
        if len(self.nuisance) > len(self.rho):
            return f"nuisance names {len(self.nuisance)} coordinates; rho has {len(self.rho)}"
        if not np.isfinite(self.rho).all():
            return f"rho holds a non-finite number at coordinate {int(np.flatnonzero(~np.isfinite(self.rho))[0])}"
        if self.objective is not None and not np.isfinite(self.objective):
            return f"objective is {self.objective}"
        return None if self.curvature is None else self.curvature.invalid_reason(len(self.rho))

    def mismatch_reason(
        self, key: str, n_rows: int, block_names: Sequence[str], block_dims: Sequence[int], rho_len: int
    ) -> str | None:
        """Return why this record cannot restart the fit so described, else None."""
        for what, mine, theirs in (
            ("key", self.key, key),
            ("n_rows", self.n_rows, n_rows),
            ("block_names", self.block_names, tuple(block_names)),
            ("block_dims", self.block_dims, tuple(block_dims)),
            ("number of outer coordinates", len(self.rho), rho_len),
        ):
            if mine != theirs:
                return f"{what} is {mine!r} in the record, {theirs!r} in the fit"
        if self.inner is not None and not self.inner.is_finite:
            return "inner summary holds a non-finite number"
        return self.invalid_reason()

    def is_compatible(
        self, key: str, n_rows: int, block_names: Sequence[str], block_dims: Sequence[int], rho_len: int
    ) -> bool:
        """Whether this record can restart the fit so described; `mismatch_reason` says why not."""
        return self.mismatch_reason(key, n_rows, block_names, block_dims, rho_len) is None
