"""The kind ``record``: the state of one fit, under its exact key."""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern
from typing import Any, Final

import numpy as np

from gamwarm.checks import as_bool, as_float
from gamwarm.encoding import ranking
from gamwarm.encoding.codec import (
    DERIVED,
    RECORDS,
    Array,
    DamagedEntry,
    Encoded,
    Meta,
    common_fields,
    common_meta,
    concatenate,
    count_of,
    decode_curvature,
    encode_curvature,
    encoded,
    name_of,
    over_bytes,
    split,
    vector_of,
)
from gamwarm.encoding.entry_kind import Check, EntryKind, register
from gamwarm.encoding.summary import shared
from gamwarm.encoding.texts import is_bool, is_count, is_number, is_string, list_of, object_of, one_of, or_none
from gamwarm.identity import Components, check_exact_key, check_nuisance
from gamwarm.records import BlockRecord, InnerMode, RecordKind, gate_record, normalize_active_sets

__all__ = ["RECORD", "encode_record"]


def encode_record(record: BlockRecord) -> Encoded:
    """Encode a gated record whose ``created`` is stamped."""
    arrays: dict[str, Array] = {"rho": concatenate([record.rho]), "beta": concatenate(record.block_beta)}
    active = [None if s is None else len(s) for s in record.active_sets]
    arrays["active"] = np.array([row for s in record.active_sets if s is not None for row in s], dtype=np.int64)
    inner: Meta | None = None
    if record.inner is not None:
        mode = record.inner
        joint = isinstance(mode.block_logdet_h, float), isinstance(mode.block_logdet_s, float)
        vectors = (mode.block_logdet_h, mode.block_logdet_s, () if mode.log_lambdas is None else mode.log_lambdas)
        arrays["inner"] = concatenate(vectors)
        inner = {
            "log_likelihood": mode.log_likelihood,
            "penalty_value": mode.penalty_value,
            "cycles": mode.cycles,
            "converged": mode.converged,
            "inner_tol": mode.inner_tol,
            "logdet_h": None if joint[0] else len(mode.block_logdet_h),
            "logdet_s": None if joint[1] else len(mode.block_logdet_s),
            "log_lambdas": None if mode.log_lambdas is None else len(mode.log_lambdas),
        }
    meta = {
        **common_meta(record),
        "entry": "record",
        "kind": str(record.kind),
        "converged": record.converged,
        "n_rows": record.n_rows,
        "n_outer": len(record.rho),
        "blocks": list(record.block_names),
        "widths": list(record.block_dims),
        "active": active if any(a is not None for a in active) else None,
        "inner": inner,
        "objective": record.objective,
        "iteration": record.iteration,
        "curvature": encode_curvature(record.curvature, arrays),
    }
    if record.nuisance:
        meta["nuisance"] = list(record.nuisance)
    if record.components is not None:
        meta["penalties"] = list(record.components.penalties)
        if record.components.forms:
            meta["penalty_forms"] = [list(each) for each in record.components.forms]
        arrays[DERIVED] = np.array(record.components.digests, dtype=np.int64)
    return encoded(RECORDS, record.key, meta, arrays)


def _decode_record(entry: Encoded) -> BlockRecord:
    meta, arrays = entry.meta, entry.arrays
    blocks = len(meta["blocks"])
    active: Any = None
    if meta["active"] is not None:
        parts = iter(split(arrays.get("active"), [n for n in meta["active"] if n is not None]))
        active = [None if n is None else [int(row) for row in next(parts)] for n in meta["active"]]
    inner = None
    if meta["inner"] is not None:
        stored = dict(meta["inner"])
        h, s, lam = stored.pop("logdet_h"), stored.pop("logdet_s"), stored.pop("log_lambdas")
        sizes = [1 if h is None else h, 1 if s is None else s, lam or 0]
        logdet_h, logdet_s, lambdas = split(arrays.get("inner"), sizes)
        inner = over_bytes(
            InnerMode(
                **stored,
                block_logdet_h=float(logdet_h[0]) if h is None else logdet_h,
                block_logdet_s=float(logdet_s[0]) if s is None else logdet_s,
                log_lambdas=None if lam is None else lambdas,
            )
        )
    components = None
    if "penalties" in meta:
        digests = arrays.get(DERIVED, np.zeros(0, dtype=np.int64)).tolist()
        components = Components.of_checked(meta["penalties"], digests, meta.get("penalty_forms", ()))
    if len(meta["widths"]) != blocks or (active is not None and len(active) != blocks):
        raise DamagedEntry(f"it has {len(meta['widths'])} widths and {len(active or ())} active sets, {blocks} blocks")
    # Not by the constructor, which would copy and check what the seal covers; types are checked.
    record = object.__new__(BlockRecord)
    objective, iteration = meta["objective"], meta["iteration"]
    vars(record).update(
        key=check_exact_key(entry.key),
        n_rows=count_of(meta["n_rows"]),
        block_names=tuple([name_of(name) for name in meta["blocks"]]),
        block_dims=tuple([count_of(width) for width in meta["widths"]]),
        rho=vector_of(arrays.get("rho"), meta["n_outer"]),
        block_beta=tuple(split(arrays.get("beta"), meta["widths"])),
        active_sets=(None,) * blocks if active is None else normalize_active_sets(active),
        inner=inner,
        objective=objective if objective is None or type(objective) is float else as_float(objective, "objective"),
        kind=_KINDS.get(meta["kind"]) or RecordKind(meta["kind"]),
        converged=as_bool(meta["converged"], "converged"),
        iteration=None if iteration is None else count_of(iteration),
        curvature=decode_curvature(meta, arrays),
        components=components,
        nuisance=check_nuisance(meta["nuisance"]) if "nuisance" in meta else (),
        **common_fields(meta),
    )
    return record


_KINDS: Final = {str(kind): kind for kind in RecordKind}


def _describe(key: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    width = sum(meta["widths"])
    return {
        "kind": intern(meta["kind"]),
        "blocks": shared(tuple(meta["blocks"])),
        "width": width,
        "reduced_width": width,
        "fit_key": key,
        "iteration": meta["iteration"],
    }


_FIELDS: Final[dict[str, Check]] = {
    "kind": one_of("final", "checkpoint"),
    "blocks": list_of(is_string),
    "widths": list_of(is_count),
    "active": or_none(list_of(or_none(is_count))),
    "penalties": list_of(is_count),
    "penalty_forms": list_of(list_of(is_string)),
    "iteration": or_none(is_count),
    "inner": or_none(
        object_of(
            log_likelihood=is_number,
            penalty_value=is_number,
            cycles=is_count,
            converged=is_bool,
            inner_tol=or_none(is_number),
            logdet_h=or_none(is_count),
            logdet_s=or_none(is_count),
            log_lambdas=or_none(is_count),
        )
    ),
}

RECORD: Final = register(
    EntryKind(
        name="record",
        section=RECORDS,
        value=BlockRecord,
        labels=("final", "checkpoint"),
        key_prefix="cf-",
        key_digits=64,
        key_of=lambda record: str(record.key),
        readme=(
            "One group per exact key. beta: reduced coefficients, blocks concatenated; meta.blocks and meta.widths cut "
            "it. rho: outer coordinates. active: row numbers of active inequality constraints. objective: what the "
            "outer search minimises. components: 8 bytes of digest of each thing that the key names."
        ),
        fields=_FIELDS,
        optional=frozenset({"penalties", "penalty_forms"}),
        refusal=gate_record,
        encode=encode_record,
        decode=_decode_record,
        describe=_describe,
        retain=ranking.retained,
        unite=ranking.united,
    )
)
