"""The kind ``artifact``: what a related fit can reuse, under its strict descriptor key."""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern
from typing import Any, Final

import numpy as np

from gamwarm.encoding.codec import (
    ARTIFACTS,
    CURVATURE_PARTS,
    Array,
    DamagedEntry,
    Encoded,
    Meta,
    common_fields,
    common_meta,
    concatenate,
    decode_curvature,
    encode_curvature,
    encoded,
    flags_over_bytes,
    over_bytes,
    split,
)
from gamwarm.encoding.entry_kind import Check, EntryKind, register
from gamwarm.encoding.record_kind import RECORD
from gamwarm.encoding.summary import shared
from gamwarm.encoding.texts import (
    is_bool,
    is_count,
    is_hex64,
    is_number,
    is_string,
    list_of,
    matching,
    object_of,
    one_of,
    or_none,
)
from gamwarm.formats import ARTIFACT_SCHEMA
from gamwarm.identity import FitDescriptor, relation_keys
from gamwarm.problem import BasisMeta, Role
from gamwarm.records import Curvature, FitArtifact, GlobalFitSummary, GroupSeeds, TermArtifact, artifact_refusal

__all__ = ["ARTIFACT", "encode_artifact"]


def encode_artifact(artifact: FitArtifact) -> Encoded:
    """Encode a gated artifact whose ``created`` is stamped."""
    arrays: dict[str, Array] = {
        "rho": concatenate([*(t.rho_for_term for t in artifact.terms), list(artifact.nuisance.values())]),
        "beta": concatenate([t.raw_beta for t in artifact.terms]),
    }
    present = encode_curvature(artifact.curvature, arrays)
    terms = [
        {
            "name": t.name,
            "identity": t.identity,
            "structural_identity": t.structural_identity,
            "role": str(t.role),
            "basis": None if t.basis_meta is None else dict(vars(t.basis_meta)),
            "raw_width": len(t.raw_beta),
            "reduced_width": t.reduced_width,
            "n_rho": len(t.rho_for_term),
            "rho_slots": None if t.rho_slots is None else list(t.rho_slots),
            "plateau": None if t.plateau is None else [bool(f) for f in t.plateau],
            **({} if t.settled is None else {"settled": [bool(f) for f in t.settled]}),
        }
        for t in artifact.terms
    ]
    meta = {
        **common_meta(artifact),
        "entry": "artifact",
        "schema": artifact.schema,
        "descriptor": {
            "family_kind": artifact.descriptor.family_kind,
            "term_identities": list(artifact.descriptor.term_identities),
            "response_signature": artifact.descriptor.response_signature,
            "row_population": artifact.descriptor.row_population,
        },
        "structural_key": artifact.structural_key,
        "terms": terms,
        "objective": artifact.summary.outer_objective,
        "converged": artifact.summary.converged,
        "n_rows": artifact.summary.n_rows,
        "n_outer": _n_outer(artifact.curvature),
        "curvature": present,
        "fit_key": artifact.fit_key,
    }
    if artifact.nuisance:
        meta["nuisance"] = list(artifact.nuisance)
    seeds = artifact.seeds
    if seeds is not None:
        q = seeds.rho.shape[1]
        meta["seeds"] = {"column": seeds.column, "labels": list(seeds.labels), "n_outer": q}
        parts = [seeds.rho, seeds.beta]
        if seeds.hessian is not None:
            meta["seeds"]["has_hessian"] = True
            parts.append(seeds.hessian[:, *np.tril_indices(q)])
        arrays["seeds"] = np.hstack(parts).ravel()
    return encoded(ARTIFACTS, artifact.descriptor.key, meta, arrays)


def _n_outer(curvature: Curvature | None) -> int:
    parts = [] if curvature is None else [getattr(curvature, name) for name in CURVATURE_PARTS]
    return next((len(p) for p in parts if p is not None), 0)


def _decode_artifact(entry: Encoded) -> FitArtifact:
    meta, arrays = entry.meta, entry.arrays
    names = meta.get("nuisance", ())
    *rhos, nuisance = split(arrays.get("rho"), [*(t["n_rho"] for t in meta["terms"]), len(names)])
    betas = split(arrays.get("beta"), [t["raw_width"] for t in meta["terms"]])
    terms = [
        TermArtifact.of_checked(  # by the check of the text; the numbers lie over the bytes that were read
            identity=t["identity"],
            role=Role.of(t["role"], "term role"),
            basis_meta=None if t["basis"] is None else BasisMeta(**t["basis"]),
            raw_beta=beta,
            rho_for_term=rho,
            structural_identity=t["structural_identity"],
            reduced_width=t["reduced_width"],
            plateau=None if t["plateau"] is None else flags_over_bytes(t["plateau"]),
            rho_slots=None if t["rho_slots"] is None else tuple(t["rho_slots"]),
            name=t["name"],
            settled=None if t.get("settled") is None else flags_over_bytes(t["settled"]),
        )
        for t, rho, beta in zip(meta["terms"], rhos, betas, strict=True)
    ]
    stored = meta["descriptor"]
    artifact = FitArtifact(
        descriptor=FitDescriptor(**{**stored, "term_identities": tuple(stored["term_identities"])}),
        terms=terms,
        summary=GlobalFitSummary(meta["objective"], meta["converged"], meta["n_rows"]),
        curvature=decode_curvature(meta, arrays),
        fit_key=meta["fit_key"],
        schema=meta["schema"],
        seeds=_decode_seeds(meta, arrays),
        nuisance=dict(zip(names, nuisance.tolist(), strict=True)),
        **common_fields(meta),
    )
    if artifact.descriptor.key != entry.key:
        raise DamagedEntry(f"it is stored under {entry.key}, its descriptor key is {artifact.descriptor.key}")
    refusal = artifact_refusal(artifact) if artifact.schema == ARTIFACT_SCHEMA else None
    if refusal is not None:
        raise DamagedEntry(refusal)
    return artifact


def _decode_seeds(meta: Meta, arrays: dict[str, Array]) -> GroupSeeds | None:
    stored = meta.get("seeds")
    if stored is None:
        return None
    groups, q = len(stored["labels"]), int(stored["n_outer"])
    width = q + sum(t["raw_width"] for t in meta["terms"])
    metric = q * (q + 1) // 2 if stored.get("has_hessian", False) else 0
    # The length of the vector is checked before anything as large as n_outer says is made.
    rows = split(arrays.get("seeds"), [groups * (width + metric)])[0].reshape(groups, width + metric)
    hessian = None
    if rows.size and metric:
        lower = np.tril_indices(q)
        hessian = np.empty((groups, q, q))
        hessian[:, *lower] = hessian[:, *lower[::-1]] = rows[:, width:]
    parts = rows[:, :q], rows[:, q:width], hessian
    seeds: GroupSeeds = over_bytes(GroupSeeds(stored["column"], stored["labels"], *parts))
    return seeds


def _describe(_key: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    terms = meta["terms"]
    return {
        "kind": "artifact",
        "blocks": shared(tuple([term["name"] for term in terms])),
        "width": sum([term["raw_width"] for term in terms]),
        "reduced_width": sum([term["reduced_width"] or 0 for term in terms]),
        "family": intern(meta["descriptor"]["family_kind"]),
        "fit_key": meta["fit_key"],
        "structural_key": meta["structural_key"],
    }


def _relations(meta: Mapping[str, Any]) -> tuple[str, ...]:
    terms = [(t["role"], t["name"], (t["basis"] or {}).get("kind"), t["n_rho"]) for t in meta["terms"]]
    return tuple(relation_keys(meta["descriptor"]["family_kind"], terms, meta.get("nuisance") or ()))


def _key_in_text(meta: Mapping[str, Any]) -> str:
    descriptor = meta["descriptor"]
    return FitDescriptor(descriptor["family_kind"], tuple(descriptor["term_identities"])).key


def _gate(artifact: FitArtifact) -> tuple[FitArtifact, str | None]:
    return artifact, artifact_refusal(artifact)


_FIELDS: Final[dict[str, Check]] = {
    "schema": is_string,
    "descriptor": object_of(
        family_kind=is_string,
        term_identities=list_of(is_hex64),
        response_signature=or_none(is_string),
        row_population=or_none(is_string),
    ),
    "structural_key": or_none(is_hex64),
    "fit_key": or_none(matching(RECORD.key_pattern)),
    "terms": list_of(
        object_of(
            {"settled": or_none(list_of(is_bool))},
            name=is_string,
            identity=is_hex64,
            structural_identity=or_none(is_hex64),
            role=one_of("mean", "log-slope", "generic"),
            basis=or_none(
                object_of(
                    kind=is_string,
                    degree=or_none(is_count),
                    num_knots=or_none(is_count),
                    n_centers=or_none(is_count),
                    nullspace_order=or_none(is_count),
                    matern_nu=or_none(is_number),
                    periodic=or_none(is_bool),
                )
            ),
            raw_width=is_count,
            reduced_width=or_none(is_count),
            n_rho=is_count,
            rho_slots=or_none(list_of(is_count)),
            plateau=or_none(list_of(is_bool)),
        )
    ),
    "seeds": object_of({"has_hessian": is_bool}, column=is_string, labels=list_of(is_string), n_outer=is_count),
}

ARTIFACT: Final = register(
    EntryKind(
        name="artifact",
        section=ARTIFACTS,
        value=FitArtifact,
        labels=("artifact",),
        key_digits=64,
        key_of=lambda artifact: str(artifact.descriptor.key),
        readme=(
            "One group per strict descriptor key, one child per fit. beta: raw (gauge-free) coefficients, terms "
            "concatenated; meta.terms[].raw_width and n_rho cut beta and rho. seeds: per left-out group the "
            "change of the outer coordinates, then of beta; with meta.seeds.has_hessian then the lower "
            "triangle of its outer Hessian, row by row. Attributes are an index: "
            "under each entry id its strict key; structural:, widths:, related: and candidates the best parents of a "
            "kind of model, fit: the artifact of a fit."
        ),
        fields=_FIELDS,
        optional=frozenset({"seeds"}),
        refusal=_gate,
        encode=encode_artifact,
        decode=_decode_artifact,
        describe=_describe,
        key_in_text=_key_in_text,
        relations=_relations,
    )
)
