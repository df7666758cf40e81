"""The artifact of one converged fit: gauge-free coefficients, rho and curvature per term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gamwarm.checks import FloatArray, as_bool, as_finite_float, as_float, as_int, as_str, as_tuple, require
from gamwarm.display import NotebookTable, few, short, visible
from gamwarm.formats import ARTIFACT_SCHEMA
from gamwarm.identity import FitDescriptor, check_descriptor_key, check_exact_key, check_nuisance, descriptor_key
from gamwarm.problem import BasisMeta, Role
from gamwarm.records.block import check_attributes
from gamwarm.records.curvature import Curvature, are_finite, flag_vector, loose_vector
from gamwarm.records.equality import ContentEquality
from gamwarm.records.provenance import LATEST, Cost, Lineage, Producer, facts_of_making
from gamwarm.records.seeds import GroupSeeds

__all__ = ["FitArtifact", "GlobalFitSummary", "TermArtifact"]


@dataclass(frozen=True, eq=False)
class TermArtifact(ContentEquality):
    """What one term learned, in raw coordinates.

    Parameters
    ----------
    identity : str
        Strict term identity.
    role : {"mean", "log-slope", "generic"}
    basis_meta : BasisMeta
    raw_beta : array of shape (raw width,)
        ``T theta + a`` of the term's block.
    rho_for_term : array
        Its outer coordinates' values, in the block's order.
    structural_identity : str, optional
    reduced_width : int, optional
        Width in the fit it was captured from.
    plateau, settled : arrays of bool, optional
        Flags of ``rho_for_term``.
    rho_slots : sequence of int, optional
        Which outer coordinates of the fit (rows of its curvature) ``rho_for_term`` are.
    name : str
        Block name, for readers.
    """

    identity: str
    role: Role | str
    basis_meta: BasisMeta | None
    raw_beta: Any
    rho_for_term: Any
    structural_identity: str | None = None
    reduced_width: int | None = None
    plateau: Any = None
    settled: Any = None
    rho_slots: Sequence[int] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        check_descriptor_key(self.identity)
        if self.structural_identity is not None:
            check_descriptor_key(self.structural_identity)
        require("term basis_meta", self.basis_meta, (BasisMeta, type(None)))
        object.__setattr__(self, "role", Role.of(self.role, "term role"))
        object.__setattr__(self, "raw_beta", loose_vector(self.raw_beta, "term raw_beta"))
        object.__setattr__(self, "rho_for_term", loose_vector(self.rho_for_term, "term rho_for_term"))
        if self.reduced_width is not None:
            object.__setattr__(self, "reduced_width", as_int(self.reduced_width, "term reduced_width"))
        for flags in ("plateau", "settled"):
            if getattr(self, flags) is not None:
                object.__setattr__(self, flags, flag_vector(getattr(self, flags), f"term {flags}"))
        if self.rho_slots is not None:
            slots = tuple(as_int(s, "term rho_slots") for s in as_tuple(self.rho_slots, "term rho_slots"))
            object.__setattr__(self, "rho_slots", slots)
        as_str(self.name, "term name", empty=True)

    @classmethod
    def of_checked(cls, **values: Any) -> TermArtifact:
        """Return a term of all its fields, which are as the constructor would make them; arrays are
        not copied.
        """
        term = object.__new__(cls)
        vars(term).update(values)
        for value in (term.raw_beta, term.rho_for_term, term.plateau, term.settled):
            if value is not None:
                value.flags.writeable = False
        return term

    def with_raw_beta(self, raw_beta: FloatArray) -> TermArtifact:
        """Return this term with other coefficients, a vector of the same length."""
        moved = object.__new__(TermArtifact)
        vars(moved).update(vars(self), raw_beta=raw_beta)
        return moved

    def invalid_reason(self) -> str | None:
        """Return why counts disagree or a number is not finite, else None."""
        return self._non_finite() or self._miscounted()

    @property
    def _label(self) -> str:
        return f"term {self.name or self.identity[:12]!r}"

    def _non_finite(self) -> str | None:
        for name in ("raw_beta", "rho_for_term"):
            if not np.isfinite(getattr(self, name)).all():
                return f"{self._label}: {name} holds a non-finite number"
        return None

    def _miscounted(self) -> str | None:
        for name in ("plateau", "settled"):
            flags = getattr(self, name)
            if flags is not None and len(flags) != len(self.rho_for_term):
                return f"{self._label}: {len(flags)} {name} flags for {len(self.rho_for_term)} rho"
        if self.rho_slots is not None and len(self.rho_slots) != len(self.rho_for_term):
            return f"{self._label}: {len(self.rho_slots)} rho_slots for {len(self.rho_for_term)} rho"
        return None


@dataclass(frozen=True)
class GlobalFitSummary:
    """Objective, convergence and rows of the fit an artifact was captured from.

    Parameters
    ----------
    outer_objective : float
        What the outer search minimised, at its end.
    converged : bool
    n_rows : int
    """

    outer_objective: float
    converged: bool
    n_rows: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "outer_objective", as_float(self.outer_objective, "summary outer_objective"))
        object.__setattr__(self, "converged", as_bool(self.converged, "summary converged"))
        object.__setattr__(self, "n_rows", as_int(self.n_rows, "summary n_rows"))


@dataclass(frozen=True, eq=False)
class FitArtifact(ContentEquality, NotebookTable):
    """What one fit gives another.

    Parameters
    ----------
    descriptor : FitDescriptor
        Strict descriptor of the fit.
    terms : sequence of TermArtifact
    summary : GlobalFitSummary
    curvature : Curvature, optional
        In the fit's outer coordinates.
    rho_bound : float
    producer, created, lineage, cost, attributes
        As in `BlockRecord`.
    fit_key : str, optional
        Exact key of the fit.
    schema : str
    seeds : GroupSeeds, optional
        What leaving a group out changes: per group all outer coordinates, and the raw coefficients
        of all terms.
    nuisance : mapping of str to float
        Values of the nuisance coordinates, which follow the terms' among the outer ones, in this
        order.
    """

    descriptor: FitDescriptor
    terms: Sequence[TermArtifact]
    summary: GlobalFitSummary
    curvature: Curvature | None = None
    rho_bound: float = 15.0
    producer: Producer | None = None
    created: int | None = field(default=None, compare=False)
    lineage: Lineage | None = None
    cost: Cost | None = None
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    fit_key: str | None = None
    schema: str = ARTIFACT_SCHEMA
    seeds: GroupSeeds | None = None
    nuisance: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in (("descriptor", FitDescriptor), ("summary", GlobalFitSummary)):
            require(f"artifact {name}", getattr(self, name), kind)
        for name, optional in (
            ("curvature", Curvature),
            ("producer", Producer),
            ("lineage", Lineage),
            ("cost", Cost),
            ("seeds", GroupSeeds),
        ):
            require(f"artifact {name}", getattr(self, name), (optional, type(None)))
        if self.created is not None:
            object.__setattr__(self, "created", as_int(self.created, "artifact created", maximum=LATEST))
        terms = as_tuple(self.terms, "artifact terms")
        for term in terms:
            require("item of artifact terms", term, TermArtifact)
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "rho_bound", as_finite_float(self.rho_bound, "artifact rho_bound", infinite=True))
        object.__setattr__(self, "attributes", check_attributes(self.attributes))
        require("artifact nuisance", self.nuisance, Mapping)
        values = {name: as_float(self.nuisance[name], f"nuisance {name!r}") for name in self.nuisance}
        object.__setattr__(self, "nuisance", dict(zip(check_nuisance(tuple(values)), values.values(), strict=True)))
        if self.fit_key is not None:
            check_exact_key(self.fit_key)

    def __repr__(self) -> str:
        names = few(term.name or short(term.identity) for term in self.terms)
        return visible(
            f"<FitArtifact of {self.descriptor.family_kind}: {len(self.terms)} terms ({names}), "
            f"objective {self.summary.outer_objective:.6g}, {self.summary.n_rows} rows>"
        )

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("family", self.descriptor.family_kind),
            ("descriptor key", short(self.descriptor.key)),
            ("of the fit", "" if self.fit_key is None else short(self.fit_key)),
            ("objective", f"{self.summary.outer_objective:.10g}"),
            ("converged", "yes" if self.summary.converged else "no"),
            ("rows", f"{self.summary.n_rows:,}"),
            *((name, f"{value:.4g}") for name, value in self.nuisance.items()),
            *facts_of_making(self.producer, self.lineage, self.cost, self.created),
        ]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = [
            (
                term.name or short(term.identity),
                str(len(term.raw_beta)),
                "" if term.reduced_width is None else str(term.reduced_width),
                few(f"{value:.4g}" for value in term.rho_for_term),
            )
            for term in self.terms
        ]
        return ("term", "raw coefficients", "reduced", "rho"), rows

    @property
    def structural_key(self) -> str | None:
        """Descriptor key over structural identities; None if a term lacks one."""
        identities = tuple(t.structural_identity for t in self.terms if t.structural_identity is not None)
        if len(identities) < len(self.terms):
            return None
        return descriptor_key(self.descriptor.family_kind, identities)

    @property
    def reduced_width(self) -> int:
        """Total reduced width of the fit (0 for terms that do not tell)."""
        return sum(t.reduced_width or 0 for t in self.terms)

    def invalid_reason(self) -> str | None:
        """Return why this artifact must not be used (schema, non-finite values), else None."""
        if self.schema != ARTIFACT_SCHEMA:
            return f"its schema is {self.schema!r}, this gamwarm reads {ARTIFACT_SCHEMA!r}"
        if not np.isfinite(self.summary.outer_objective):
            return f"its objective is {self.summary.outer_objective}"
        finite = are_finite([values for term in self.terms for values in (term.raw_beta, term.rho_for_term)])
        for term in self.terms:
            reason = term._miscounted() if finite else term.invalid_reason()
            if reason is not None:
                return reason
        for name, value in self.nuisance.items():
            if not np.isfinite(value):
                return f"nuisance coordinate {name!r} is {value}"
        n_outer = None if self.curvature is None else self._n_outer(self.curvature)
        if self.curvature is not None and n_outer is not None:
            reason = self.curvature.invalid_reason(n_outer)
            if reason is not None:
                return reason
        return (
            None if self.seeds is None else self.seeds.invalid_reason(n_outer, sum(len(t.raw_beta) for t in self.terms))
        )

    def _n_outer(self, curvature: Curvature) -> int:
        """Outer coordinates of the fit, by the terms' slots, else by the curvature's parts."""
        known = [t.rho_slots for t in self.terms if t.rho_slots is not None]
        stated = max((slot + 1 for slots in known for slot in slots), default=0) + len(self.nuisance)
        if len(known) == len(self.terms):
            return stated
        parts = (curvature.gradient, curvature.hessian, curvature.edf, curvature.plateau, curvature.settled)
        return max(stated, *(0 if part is None else len(part) for part in parts))

    @property
    def is_usable(self) -> bool:
        """Whether a fit may start from this by default: known schema, finite, converged."""
        return self.invalid_reason() is None and self.summary.converged
