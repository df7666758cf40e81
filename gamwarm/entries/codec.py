"""Entries as stored: a JSON text and a few arrays, with two digests (docs/file-format.md, "Inside the HDF5 file").

The *entry id* names the content and leaves out times and seconds. The *seal* covers every stored byte, and the place
where it is stored; it is checked whenever an entry is decoded.
"""

from __future__ import annotations

import json
import math
import struct
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import accumulate, pairwise, zip_longest
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from gamwarm.checks import loose_number, truth
from gamwarm.entries.summary import EntrySummary, cost_fields, cost_of, lineage_of, producer_of, summarize
from gamwarm.formats import ARTIFACT_SCHEMA
from gamwarm.identity import Components, FitDescriptor, check_exact_key, check_nuisance, positive_zeros
from gamwarm.problem import BasisMeta
from gamwarm.records import (
    BlockRecord,
    Curvature,
    FitArtifact,
    GlobalFitSummary,
    GroupSeeds,
    InnerMode,
    Producer,
    RecordKind,
    TermArtifact,
    artifact_refusal,
    check_attributes,
    gate_record,
    normalize_active_sets,
)

__all__ = [
    "ARTIFACTS",
    "CURVATURE_PARTS",
    "RECORDS",
    "SECTIONS",
    "DamagedEntry",
    "Encoded",
    "Refused",
    "decode",
    "encode",
    "encode_artifact",
    "encode_record",
    "seal_of",
]

RECORDS: Final = "block_records"
ARTIFACTS: Final = "fit_artifacts"
SECTIONS: Final = (RECORDS, ARTIFACTS)
_ENTRY_ID_BYTES: Final = 16
# Left out of the content digest: times, and components, which follow from what the key names already.
_VOLATILE: Final = ("created", "entry_id", "penalties")
_DERIVED: Final = "components"

Array = npt.NDArray[Any]
Meta = dict[str, Any]
E = TypeVar("E", BlockRecord, FitArtifact)
_NOTHING: Final = np.frombuffer(b"", dtype=np.float64)


class DamagedEntry(Exception):
    """An entry whose bytes are not what was written. Never leaves the storage layer."""


class Encoded(NamedTuple):
    """One entry, ready to be stored or just read: what travels between ranks, waits in memory, moves between files.

    Attributes
    ----------
    section, key : str
        Where it belongs: ``block_records`` or ``fit_artifacts``, and the key in it.
    meta : dict
        Everything but the long vectors, as JSON holds it.
    arrays : dict of str to array
        ``rho``, ``beta``, and where present ``curvature``, ``inner``, ``active``, ``components``, ``seeds``; float64 or
        int64 vectors.
    segments : tuple of str
        JSON of the fields before, between and after those that the entry id leaves out, where it is known already.
    stored : bytes
        The text as it was read; empty if the entry was not.
    """

    section: str
    key: str
    meta: Meta
    arrays: dict[str, Array]
    segments: tuple[str, ...] = ()
    stored: bytes = b""

    @property
    def entry_id(self) -> str:
        return str(self.meta["entry_id"])

    @property
    def created(self) -> int:
        return int(self.meta["created"])

    def summary(self, path: str = "") -> EntrySummary:
        """What it says of itself; ``path``: where it lies, if not under its entry id."""
        return summarize(self.section, path or f"{self.key}/{self.entry_id}", self.meta)

    def text(self) -> bytes:
        """The JSON text as stored: sorted, without blanks, UTF-8."""
        if self.stored:
            return self.stored
        if not self.segments:
            return _write_json(self.meta).encode()
        parts = []
        for segment, name in zip_longest(self.segments, _VOLATILE):
            if segment:
                parts.append(segment)
            if name in self.meta:
                parts.append(f'"{name}":{_write_json(self.meta[name])}')
        return f"{{{','.join(parts)}}}".encode()

    @property
    def nbytes(self) -> int:
        """Payload bytes."""
        return len(self.text()) + sum(int(a.nbytes) for a in self.arrays.values())


_write_json: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _segments_of(meta: Meta) -> tuple[str, ...]:
    parts: tuple[Meta, ...] = ({}, {}, {}, {})
    for name, value in meta.items():
        if name not in _VOLATILE:
            parts[_segment_of(name)][name] = value
    return tuple([_write_json(part)[1:-1] for part in parts])


@lru_cache(maxsize=256)
def _segment_of(name: str) -> int:
    return bisect(_VOLATILE, name)


def seal_of(section: str, key: str, text: bytes, arrays: Mapping[str, Array | bytes]) -> str:
    """Return the seal of stored bytes: 32 hex digits of BLAKE3 over place, text and vectors, each after its length.

    Vectors are arrays, or their elements as stored.
    """
    return _digest(_sealed(section, key, text, arrays))


def sealed_parts(section: str, key: str, text: bytes, arrays: Mapping[str, Array | bytes]) -> bytes:
    """Return the bytes that a seal is of."""
    return b"".join(_sealed(section, key, text, arrays))


def _sealed(section: str, key: str, text: bytes, arrays: Mapping[str, Array | bytes]) -> list[Buffer]:
    place = f"{section}/{key}".encode()
    parts: list[Buffer] = [b"place:%d:" % len(place), place, b"meta:%d:" % len(text), text]
    for name in sorted(arrays):
        vector = arrays[name]
        data = vector if isinstance(vector, bytes) else _little_endian(vector)
        parts += [b"%s:%d:" % (name.encode(), len(data)), data]
    return parts


def _digest(parts: list[Buffer]) -> str:
    """Hash buffers one after another; long ones where they lie, as a copy of each would cost as much as the hash."""
    if sum(map(len, parts)) < _LONG:
        return str(blake3(b"".join(parts)).hexdigest(length=_ENTRY_ID_BYTES))
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return str(hasher.hexdigest(length=_ENTRY_ID_BYTES))


Buffer = bytes | memoryview
_LONG: Final = 1 << 16


def _little_endian(array: Array) -> memoryview:
    """Return the bytes of a vector as stored, without a copy where it lies in memory so."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view(np.uint8).data


_U64: Final = struct.Struct("<Q")
_MINUS_ZERO: Final = np.uint64(1 << 63)


def _fingerprinted(array: Array) -> Buffer:
    """Return a vector as `Fingerprinter.write_f64_array` hashes it, after its length."""
    if array.dtype == np.float64 and not (array.view(np.uint64) == _MINUS_ZERO).any():
        return _little_endian(array)
    return positive_zeros(array, "entry vector").tobytes()


def _content_id(
    section: str, key: str, meta: Meta, arrays: dict[str, Array], segments: tuple[str, ...], *, labels: bool = False
) -> str:
    """Hash what `Fingerprinter` would, in one call: strings and vectors after their lengths.

    ``segments`` are those of ``meta``. A user's attributes are labels, no content; ``labels`` hashes them all the same.
    """
    changed: Meta = {}
    if isinstance(meta.get("cost"), dict):
        changed["cost"] = {name: value for name, value in meta["cost"].items() if name != "seconds"}
    if meta.get("attributes") and not labels:
        changed["attributes"] = {}
    if changed:
        first = {name: value for name, value in meta.items() if not _segment_of(name) and name not in _VOLATILE}
        segments = (_write_json(first | changed)[1:-1], *segments[1:])
    content = f"{{{','.join(filter(None, segments))}}}".encode()
    parts: list[Buffer] = []
    for text in (b"gamwarm-entry-1", section.encode(), key.encode(), content):
        parts += [_U64.pack(len(text)), text]
    for name in sorted(arrays.keys() - {_DERIVED}):
        array = arrays[name]
        parts += [_U64.pack(len(name)), name.encode(), _U64.pack(len(array)), _fingerprinted(array)]
    return _digest(parts)


def stamped_at(encoded: Encoded, created: int) -> Encoded:
    """Return an entry with another time; its id does not change."""
    return encoded._replace(meta={**encoded.meta, "created": created}, stored=b"")


def _encoded(section: str, key: str, meta: Meta, arrays: dict[str, Array]) -> Encoded:
    arrays = {name: array for name, array in arrays.items() if array.size}
    segments = _segments_of(meta)
    meta["entry_id"] = _content_id(section, key, meta, arrays, segments)
    return Encoded(section, key, meta, arrays, segments)


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bound(value: Any) -> float:
    return math.inf if value is None else float(value)


def _concatenate(parts: Sequence[Any]) -> Array:
    return np.concatenate([np.asarray(p, dtype=np.float64).ravel() for p in parts]) if parts else np.zeros(0)


def _common_meta(entry: BlockRecord | FitArtifact) -> Meta:
    producer = entry.producer or Producer("", "", "")
    return {
        "created": entry.created,
        "producer": dict(vars(producer)),
        "lineage": None if entry.lineage is None else dict(vars(entry.lineage)),
        "cost": None if entry.cost is None else cost_fields(entry.cost),
        "attributes": dict(entry.attributes),
        "rho_bound": _finite_or_none(entry.rho_bound),
    }


def _common_fields(meta: Meta) -> dict[str, Any]:
    return {
        "created": _count(meta["created"]),
        "producer": producer_of(**meta["producer"]),
        "lineage": lineage_of(meta["lineage"]),
        "cost": cost_of(meta["cost"]),
        "attributes": check_attributes(meta["attributes"]) if meta["attributes"] != {} else {},
        "rho_bound": _bound(meta["rho_bound"]),
    }


CURVATURE_PARTS: Final = ("gradient", "hessian", "edf", "plateau", "settled")


def _encode_curvature(curvature: Curvature | None, arrays: dict[str, Array]) -> list[str] | None:
    if curvature is None:
        return None
    present = [name for name in CURVATURE_PARTS if getattr(curvature, name) is not None]
    arrays["curvature"] = _concatenate([getattr(curvature, name) for name in present])
    return present


def _decode_curvature(meta: Meta, arrays: dict[str, Array]) -> Curvature | None:
    present = meta["curvature"]
    if present is None:
        return None
    q = int(meta["n_outer"])
    sizes = [q * q if name == "hessian" else q for name in present]
    parts = dict(zip(present, _split(arrays.get("curvature"), sizes), strict=True))
    if "hessian" in parts:
        parts["hessian"] = parts["hessian"].reshape(q, q)
    for flags in {"plateau", "settled"} & parts.keys():
        parts[flags] = parts[flags].astype(np.bool_)
    curvature: Curvature = _over_bytes(Curvature(**parts))
    return curvature


def _whole(array: Array | None, size: Any) -> Array:
    if array is not None and type(size) is int and len(array) == size:
        return array
    return _split(array, [size])[0]


def _split(array: Array | None, sizes: Sequence[int]) -> list[Array]:
    whole = _NOTHING if array is None else array
    edges = [0, *accumulate(sizes)]
    if edges[-1] != len(whole) or min(sizes, default=0) < 0:
        raise DamagedEntry(f"a vector has {len(whole)} numbers, its description {edges[-1]}")
    return [whole[a:b] for a, b in pairwise(edges)]


class Refused(NamedTuple):
    """An entry that a gate keeps out of the file, and why."""

    key: str
    reason: str


def encode(entry: BlockRecord | FitArtifact, producer: Producer, created: int = 0) -> Encoded | Refused:
    """Encode an entry for its way to a file, once, or return why a gate refuses it.

    ``producer`` counts where the entry names none; who files it says when (`stamped_at`).
    """
    key = entry.descriptor.key if isinstance(entry, FitArtifact) else entry.key
    try:
        if isinstance(entry, FitArtifact):
            refusal = artifact_refusal(entry)
            return encode_artifact(stamped(entry, created, producer)) if refusal is None else Refused(key, refusal)
        record, refusal = gate_record(entry)
        return encode_record(stamped(record, created, producer)) if refusal is None else Refused(key, refusal)
    except MemoryError:  # a fit goes on without the file
        return Refused(key, "too little memory is left to encode it")


def encode_record(record: BlockRecord) -> Encoded:
    """Encode a gated record whose ``created`` is stamped."""
    arrays: dict[str, Array] = {"rho": _concatenate([record.rho]), "beta": _concatenate(record.block_beta)}
    active = [None if s is None else len(s) for s in record.active_sets]
    arrays["active"] = np.array([row for s in record.active_sets if s is not None for row in s], dtype=np.int64)
    inner: Meta | None = None
    if record.inner is not None:
        mode = record.inner
        joint = isinstance(mode.block_logdet_h, float), isinstance(mode.block_logdet_s, float)
        vectors = (mode.block_logdet_h, mode.block_logdet_s, () if mode.log_lambdas is None else mode.log_lambdas)
        arrays["inner"] = _concatenate(vectors)
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
        **_common_meta(record),
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
        "curvature": _encode_curvature(record.curvature, arrays),
    }
    if record.nuisance:
        meta["nuisance"] = list(record.nuisance)
    if record.components is not None:
        meta["penalties"] = list(record.components.penalties)
        arrays[_DERIVED] = np.array(record.components.digests, dtype=np.int64)
    return _encoded(RECORDS, record.key, meta, arrays)


def _decode_record(entry: Encoded) -> BlockRecord:
    meta, arrays = entry.meta, entry.arrays
    blocks = len(meta["blocks"])
    active: Any = None
    if meta["active"] is not None:
        parts = iter(_split(arrays.get("active"), [n for n in meta["active"] if n is not None]))
        active = [None if n is None else [int(row) for row in next(parts)] for n in meta["active"]]
    inner = None
    if meta["inner"] is not None:
        stored = dict(meta["inner"])
        h, s, lam = stored.pop("logdet_h"), stored.pop("logdet_s"), stored.pop("log_lambdas")
        sizes = [1 if h is None else h, 1 if s is None else s, lam or 0]
        logdet_h, logdet_s, lambdas = _split(arrays.get("inner"), sizes)
        inner = _over_bytes(
            InnerMode(
                **stored,
                block_logdet_h=float(logdet_h[0]) if h is None else logdet_h,
                block_logdet_s=float(logdet_s[0]) if s is None else logdet_s,
                log_lambdas=None if lam is None else lambdas,
            )
        )
    components = None
    if "penalties" in meta:
        components = Components(meta["penalties"], arrays.get(_DERIVED, np.zeros(0, dtype=np.int64)).tolist())
    if len(meta["widths"]) != blocks or (active is not None and len(active) != blocks):
        raise DamagedEntry(f"it has {len(meta['widths'])} widths and {len(active or ())} active sets, {blocks} blocks")
    # Not by the constructor, which would copy and check what the seal vouches for; only types are looked at.
    record = object.__new__(BlockRecord)
    objective, iteration = meta["objective"], meta["iteration"]
    vars(record).update(
        key=check_exact_key(entry.key),
        n_rows=_count(meta["n_rows"]),
        block_names=tuple([_string(name) for name in meta["blocks"]]),
        block_dims=tuple([_count(width) for width in meta["widths"]]),
        rho=_whole(arrays.get("rho"), meta["n_outer"]),
        block_beta=tuple(_split(arrays.get("beta"), meta["widths"])),
        active_sets=(None,) * blocks if active is None else normalize_active_sets(active),
        inner=inner,
        objective=objective if objective is None or type(objective) is float else loose_number(objective, "objective"),
        kind=_KINDS.get(meta["kind"]) or RecordKind(meta["kind"]),
        converged=truth(meta["converged"], "converged"),
        iteration=None if iteration is None else _count(iteration),
        curvature=_decode_curvature(meta, arrays),
        components=components,
        nuisance=check_nuisance(meta["nuisance"]) if "nuisance" in meta else (),
        **_common_fields(meta),
    )
    return record


_KINDS: Final = {str(kind): kind for kind in RecordKind}


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise DamagedEntry(f"{value!r} stands where a count should")
    return value


def _string(value: Any) -> str:
    if type(value) is not str or not value:
        raise DamagedEntry(f"{value!r} stands where a name should")
    return value


def encode_artifact(artifact: FitArtifact) -> Encoded:
    """Encode a gated artifact whose ``created`` is stamped."""
    arrays: dict[str, Array] = {
        "rho": _concatenate([*(t.rho_for_term for t in artifact.terms), list(artifact.nuisance.values())]),
        "beta": _concatenate([t.raw_beta for t in artifact.terms]),
    }
    present = _encode_curvature(artifact.curvature, arrays)
    terms = [
        {
            "name": t.name,
            "identity": t.identity,
            "structural_identity": t.structural_identity,
            "role": str(t.role),
            "basis": None if t.basis_meta is None else asdict(t.basis_meta),
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
        **_common_meta(artifact),
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
        meta["seeds"] = {"column": seeds.column, "labels": list(seeds.labels), "n_outer": seeds.rho.shape[1]}
        arrays["seeds"] = np.hstack([seeds.rho, seeds.beta]).ravel()
    return _encoded(ARTIFACTS, artifact.descriptor.key, meta, arrays)


def _n_outer(curvature: Curvature | None) -> int:
    parts = [] if curvature is None else [getattr(curvature, name) for name in CURVATURE_PARTS]
    return next((len(p) for p in parts if p is not None), 0)


def _decode_artifact(entry: Encoded) -> FitArtifact:
    meta, arrays = entry.meta, entry.arrays
    names = meta.get("nuisance", ())
    *rhos, nuisance = _split(arrays.get("rho"), [*(t["n_rho"] for t in meta["terms"]), len(names)])
    betas = _split(arrays.get("beta"), [t["raw_width"] for t in meta["terms"]])
    terms = [
        _over_bytes(
            TermArtifact(
                identity=t["identity"],
                role=t["role"],
                basis_meta=None if t["basis"] is None else BasisMeta(**t["basis"]),
                raw_beta=beta,
                rho_for_term=rho,
                structural_identity=t["structural_identity"],
                reduced_width=t["reduced_width"],
                plateau=None if t["plateau"] is None else np.array(t["plateau"], dtype=np.bool_),
                rho_slots=t["rho_slots"],
                name=t["name"],
                settled=None if t.get("settled") is None else np.array(t["settled"], dtype=np.bool_),
            )
        )
        for t, rho, beta in zip(meta["terms"], rhos, betas, strict=True)
    ]
    stored = meta["descriptor"]
    artifact = FitArtifact(
        descriptor=FitDescriptor(**{**stored, "term_identities": tuple(stored["term_identities"])}),
        terms=terms,
        summary=GlobalFitSummary(meta["objective"], meta["converged"], meta["n_rows"]),
        curvature=_decode_curvature(meta, arrays),
        fit_key=meta["fit_key"],
        schema=meta["schema"],
        seeds=_decode_seeds(meta, arrays),
        nuisance=dict(zip(names, nuisance.tolist(), strict=True)),
        **_common_fields(meta),
    )
    if artifact.descriptor.key != entry.key:
        raise DamagedEntry(f"it is filed under {entry.key}, its descriptor key is {artifact.descriptor.key}")
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
    rows = _split(arrays.get("seeds"), [groups * width])[0].reshape(groups, width)
    seeds: GroupSeeds = _over_bytes(GroupSeeds(stored["column"], stored["labels"], rows[:, :q], rows[:, q:]))
    return seeds


def decode(entry: Encoded) -> BlockRecord | FitArtifact:
    """Return the record or artifact of an entry whose seal has been checked.

    Raises
    ------
    DamagedEntry
        Its text and arrays do not belong together.
    """
    try:
        for name, array in entry.arrays.items():
            if array.dtype.kind == "f" and b"\0" in np.isfinite(array).tobytes():
                raise DamagedEntry(f"{name} holds a non-finite number")
        return _decode_record(entry) if entry.section == RECORDS else _decode_artifact(entry)
    except _UNFIT as error:
        raise DamagedEntry(f"its text does not describe an entry ({type(error).__name__}: {error})") from error


_UNFIT: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def check_content(entry: Encoded) -> None:
    """Raise `DamagedEntry` unless the entry id is the digest of the content, encoded anew."""
    try:
        content = (entry.section, entry.key, entry.meta, entry.arrays, _segments_of(entry.meta))
        again = _content_id(*content)
        # The first files of format 1 have ids that cover the attributes.
        if again != entry.entry_id and _content_id(*content, labels=True) != entry.entry_id:
            raise DamagedEntry(f"its entry id is {entry.entry_id}, its content digest {again}")
    except _UNFIT as error:
        raise DamagedEntry(f"its content has no digest ({type(error).__name__}: {error})") from error


def stamped(value: Any, created: int, producer: Producer) -> Any:
    """Return a record or artifact with its time, and the store's producer where it has none."""
    return _with(value, created=created, producer=value.producer or producer)


def _with(value: Any, **changes: Any) -> Any:
    """`dataclasses.replace` for fields that need no check, without checking all the others again."""
    again = object.__new__(type(value))
    vars(again).update(vars(value), **changes)
    return again


def private_copy(entry: E) -> E:
    """Return a decoded record or artifact that shares nothing with `entry` that its holder could change.

    The vectors of a decoded entry lie over immutable bytes, and its other parts but the mappings are frozen.
    """
    copy: E = object.__new__(type(entry))
    fields = vars(copy)
    fields.update(vars(entry))
    fields["attributes"] = dict(entry.attributes)
    if isinstance(entry, FitArtifact):
        fields["nuisance"] = dict(entry.nuisance)
    return copy


def _over_bytes(part: Any) -> Any:
    """Lay the arrays of a decoded part over immutable bytes."""
    for name, value in vars(part).items():
        if isinstance(value, np.ndarray):
            vars(part)[name] = np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape)
    return part
