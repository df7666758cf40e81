"""Entries as stored: a JSON text and a few arrays, with two digests (docs/file-format.md).

The *entry id* names the content and leaves out times and seconds. The *seal* covers every stored
byte, and the place where it is stored; it is checked whenever an entry is decoded.
"""

from __future__ import annotations

import json
import math
import struct
from bisect import bisect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise, zip_longest
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from gamwarm.encoding.entry_kind import KINDS, kind_of
from gamwarm.encoding.summary import EntrySummary, cost_fields, cost_of, lineage_of, producer_of
from gamwarm.formats import ENTRY_ID
from gamwarm.identity import positive_zeros
from gamwarm.records import (
    Curvature,
    Producer,
    check_attributes,
)

__all__ = [
    "ARTIFACTS",
    "CURVATURE_PARTS",
    "RECORDS",
    "DamagedEntry",
    "Encoded",
    "Refused",
    "decode",
    "encode",
    "seal_of",
]

RECORDS: Final = "block_records"
ARTIFACTS: Final = "fit_artifacts"
_ENTRY_ID_BYTES: Final = 16
# Left out of the content digest: times, and components, which follow from the key; of two fields
# a part.
_VOLATILE: Final = ("created", "entry_id", "penalties", "penalty_forms")
_APART: Final = ("attributes", "cost", *_VOLATILE)
DERIVED: Final = "components"

Array = npt.NDArray[Any]
Meta = dict[str, Any]
E = TypeVar("E")
_NOTHING: Final = np.frombuffer(b"", dtype=np.float64)


class DamagedEntry(Exception):
    """An entry whose bytes differ from those that were written. Never leaves the storage layer."""


class Encoded(NamedTuple):
    """One entry, to be stored or just read: what is sent, buffered and copied.

    Attributes
    ----------
    section, key : str
        Where it belongs: ``block_records`` or ``fit_artifacts``, and the key in it.
    meta : dict
        Everything but the long vectors, as JSON holds it.
    arrays : dict of str to array
        ``rho``, ``beta``, and where present ``curvature``, ``inner``, ``active``, ``components``,
        ``seeds``; float64 or int64 vectors.
    segments : tuple of str
        JSON of the fields before, between and after those that the entry id leaves out or changes,
        where it is known already.
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
        """What it says of itself; ``path``: its path, if not under its entry id."""
        return KINDS[self.section].summarize(path or f"{self.key}/{self.entry_id}", self.meta)

    def relations(self) -> tuple[str, ...]:
        """What it has in common with models of other terms."""
        relations = KINDS[self.section].relations
        return () if relations is None else relations(self.meta)

    def text(self) -> bytes:
        """The JSON text as stored: sorted, without blanks, UTF-8."""
        if self.stored:
            return self.stored
        if not self.segments:
            return _write_json(self.meta).encode()
        return _joined(self.segments, {name: self.meta[name] for name in _APART if name in self.meta})

    @property
    def nbytes(self) -> int:
        """Payload bytes."""
        return len(self.text()) + sum(int(a.nbytes) for a in self.arrays.values())


_write_json: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _short_json(value: Any) -> str:
    if value is None or value == {}:
        return "null" if value is None else "{}"
    return str(value) if type(value) is int else _write_json(value)


def _segments_of(meta: Meta) -> tuple[str, ...]:
    parts: list[Meta] = [{} for _ in range(len(_APART) + 1)]
    for name, value in meta.items():
        if name not in _APART:
            parts[_segment_of(name)][name] = value
    return tuple([_write_json(part)[1:-1] if part else "" for part in parts])


@lru_cache(maxsize=256)
def _segment_of(name: str) -> int:
    return bisect(_APART, name)


def _joined(segments: Sequence[str], apart: Meta) -> bytes:
    """Return the JSON of an entry from that of its segments and the fields between them."""
    parts = []
    for segment, name in zip_longest(segments, _APART):
        if segment:
            parts.append(segment)
        if name in apart:
            parts.append(f'"{name}":{_short_json(apart[name])}')
    return f"{{{','.join(parts)}}}".encode()


def seal_of(section: str, key: str, text: bytes, arrays: Mapping[str, Array | bytes]) -> str:
    """Return the seal of stored bytes: BLAKE3 over place, text and vectors, each after its length.

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
    """Hash buffers one after another; long ones in place, without a copy."""
    if sum(map(len, parts)) < _LONG:
        return str(blake3(b"".join(parts)).hexdigest(length=_ENTRY_ID_BYTES))
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return str(hasher.hexdigest(length=_ENTRY_ID_BYTES))


Buffer = bytes | memoryview
_LONG: Final = 1 << 16


def _little_endian(array: Array) -> memoryview:
    """Return the bytes of a vector as stored, without a copy if it is in memory in that form."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view(np.uint8).data


_U64: Final = struct.Struct("<Q")
_MINUS_ZERO: Final = np.uint64(1 << 63)


def _fingerprinted(array: Array) -> Buffer:
    """Return a vector as `Fingerprinter.write_f64_array` hashes it, after its length."""
    if array.dtype == np.float64 and not (array.view(np.uint64) == _MINUS_ZERO).any():
        return _little_endian(array)
    return positive_zeros(array, "entry vector").tobytes()


def _content_id(section: str, key: str, meta: Meta, arrays: dict[str, Array], segments: tuple[str, ...]) -> str:
    """Hash what `Fingerprinter` would, in one call: strings and vectors after their lengths.

    ``segments`` are those of ``meta``. A user's attributes are labels, no content.
    """
    apart: Meta = {}
    if "attributes" in meta:
        apart["attributes"] = {} if meta["attributes"] else meta["attributes"]
    if "cost" in meta:
        cost = meta["cost"]
        counts = {n: v for n, v in cost.items() if not n.startswith("seconds")} if isinstance(cost, dict) else cost
        apart["cost"] = counts
    return _id_of_content(section, key, _joined(segments, apart), arrays)


def _id_of_stored(entry: Encoded) -> str:
    """Return `_content_id` of a text as it was read, with what is no content cut out; something
    else where that is not found as it is expected.
    """
    text, meta = entry.text(), entry.meta
    for name in _VOLATILE:
        if name in meta:
            field = f'"{name}":{_short_json(meta[name])}'.encode()
            text = text.replace(field + b",", b"", 1) if field + b"," in text else text.replace(b"," + field, b"", 1)
    if isinstance(meta.get("cost"), dict):
        for name in meta["cost"]:
            if name.startswith("seconds"):
                text = text.replace(f',"{name}":{_short_json(meta["cost"][name])}'.encode(), b"", 1)
    if meta.get("attributes"):
        text = text.replace(f'"attributes":{_write_json(meta["attributes"])}'.encode(), b'"attributes":{}', 1)
    return _id_of_content(entry.section, entry.key, text, entry.arrays)


def _id_of_content(section: str, key: str, content: bytes, arrays: dict[str, Array]) -> str:
    parts: list[Buffer] = []
    for text in (ENTRY_ID, section.encode(), key.encode(), content):
        parts += [_U64.pack(len(text)), text]
    for name in sorted(arrays.keys() - {DERIVED}):
        array = arrays[name]
        parts += [_U64.pack(len(name)), name.encode(), _U64.pack(len(array)), _fingerprinted(array)]
    return _digest(parts)


def stamped_at(encoded: Encoded, created: int) -> Encoded:
    """Return an entry with another time; its id does not change."""
    return encoded._replace(meta={**encoded.meta, "created": created}, stored=b"")


def encoded(section: str, key: str, meta: Meta, arrays: dict[str, Array]) -> Encoded:
    arrays = {name: array for name, array in arrays.items() if array.size}
    segments = _segments_of(meta)
    meta["entry_id"] = _content_id(section, key, meta, arrays, segments)
    return Encoded(section, key, meta, arrays, segments)


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bound(value: Any) -> float:
    return math.inf if value is None else float(value)


def concatenate(parts: Sequence[Any]) -> Array:
    return np.concatenate([np.asarray(p, dtype=np.float64).ravel() for p in parts]) if parts else np.zeros(0)


def common_meta(entry: Any) -> Meta:
    producer = entry.producer or Producer("", "", "")
    return {
        "created": entry.created,
        "producer": dict(vars(producer)),
        "lineage": None if entry.lineage is None else dict(vars(entry.lineage)),
        "cost": None if entry.cost is None else cost_fields(entry.cost),
        "attributes": dict(entry.attributes),
        "rho_bound": _finite_or_none(entry.rho_bound),
    }


def common_fields(meta: Meta) -> dict[str, Any]:
    return {
        "created": count_of(meta["created"]),
        "producer": producer_of(**meta["producer"]),
        "lineage": lineage_of(meta["lineage"]),
        "cost": cost_of(meta["cost"]),
        "attributes": check_attributes(meta["attributes"]) if meta["attributes"] != {} else {},
        "rho_bound": _bound(meta["rho_bound"]),
    }


CURVATURE_PARTS: Final = ("gradient", "hessian", "edf", "plateau", "settled")


def encode_curvature(curvature: Curvature | None, arrays: dict[str, Array]) -> list[str] | None:
    if curvature is None:
        return None
    present = [name for name in CURVATURE_PARTS if getattr(curvature, name) is not None]
    arrays["curvature"] = concatenate([getattr(curvature, name) for name in present])
    return present


def decode_curvature(meta: Meta, arrays: dict[str, Array]) -> Curvature | None:
    present = meta["curvature"]
    if present is None:
        return None
    q = int(meta["n_outer"])
    sizes = [q * q if name == "hessian" else q for name in present]
    parts = dict(zip(present, split(arrays.get("curvature"), sizes), strict=True))
    if "hessian" in parts:
        parts["hessian"] = parts["hessian"].reshape(q, q)
    for flags in {"plateau", "settled"} & parts.keys():
        parts[flags] = flags_over_bytes(parts[flags] != 0.0)
    return Curvature.of_checked(**parts)


def flags_over_bytes(flags: Any) -> Array:
    """Return booleans that nothing can write to."""
    return np.frombuffer(np.asarray(flags, dtype=np.bool_).tobytes(), dtype=np.bool_)


def vector_of(array: Array | None, size: Any) -> Array:
    if array is not None and type(size) is int and len(array) == size:
        return array
    return split(array, [size])[0]


def split(array: Array | None, sizes: Sequence[int]) -> list[Array]:
    whole = _NOTHING if array is None else array
    edges = [0, *accumulate(sizes)]
    if edges[-1] != len(whole) or min(sizes, default=0) < 0:
        raise DamagedEntry(f"a vector has {len(whole)} numbers, its description {edges[-1]}")
    return [whole[a:b] for a, b in pairwise(edges)]


class Refused(NamedTuple):
    """An entry that a gate keeps out of the file, and why."""

    key: str
    reason: str


def count_of(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise DamagedEntry(f"{value!r} is not a count")
    return value


def name_of(value: Any) -> str:
    if type(value) is not str or not value:
        raise DamagedEntry(f"{value!r} is not a name")
    return value


def encode(entry: Any, producer: Producer, created: int = 0) -> Encoded | Refused:
    """Encode an entry for its way to a file, once, or return why a gate refuses it.

    ``producer`` counts where the entry names none; who files it says when (`stamped_at`).
    """
    kind = kind_of(entry)
    try:
        value, refusal = kind.refusal(entry)
        found: Encoded | Refused = (
            kind.encode(stamped(value, created, producer)) if refusal is None else Refused(kind.key_of(value), refusal)
        )
        return found
    except MemoryError:  # a fit continues without the file
        return Refused(kind.key_of(entry), "too little memory is left to encode it")


def decode(entry: Encoded) -> Any:
    """Return the record or artifact (or other kind) of an entry whose seal has been checked.

    Raises
    ------
    DamagedEntry
        Its text and arrays do not belong together.
    """
    try:
        for name, array in entry.arrays.items():
            if array.dtype.kind == "f" and b"\0" in np.isfinite(array).tobytes():
                raise DamagedEntry(f"{name} holds a non-finite number")
        return KINDS[entry.section].decode(entry)
    except _UNFIT as error:
        raise DamagedEntry(f"its text does not describe an entry ({type(error).__name__}: {error})") from error


_UNFIT: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def check_content(entry: Encoded) -> None:
    """Raise `DamagedEntry` unless the entry id is the digest of the content, encoded again."""
    try:
        again = _id_of_stored(entry)
        if again != entry.entry_id:  # not by cutting the text: by encoding what it says
            again = _content_id(entry.section, entry.key, entry.meta, entry.arrays, _segments_of(entry.meta))
        if again != entry.entry_id:
            raise DamagedEntry(f"its entry id is {entry.entry_id}, its content digest {again}")
    except _UNFIT as error:
        raise DamagedEntry(f"its content has no digest ({type(error).__name__}: {error})") from error


def stamped(value: Any, created: int, producer: Producer) -> Any:
    """Return a record or artifact with its time, and the store's producer where it has none."""
    return _with(value, created=created, producer=value.producer or producer)


def _with(value: Any, **changes: Any) -> Any:
    """`dataclasses.replace` for fields that need no check, without checking the others again."""
    again = object.__new__(type(value))
    vars(again).update(vars(value), **changes)
    return again


def private_copy(entry: E) -> E:
    """Return a decoded entry that shares nothing with `entry` that its holder could change.

    The vectors of a decoded entry lie over immutable bytes, and its other parts but the mappings
    are frozen.
    """
    copy: E = object.__new__(type(entry))
    fields = vars(copy)
    fields.update(vars(entry))
    for name, value in vars(entry).items():
        if type(value) is dict:
            fields[name] = dict(value)
    return copy


def over_bytes(part: Any) -> Any:
    """Lay the arrays of a decoded part over immutable bytes."""
    for name, value in vars(part).items():
        if isinstance(value, np.ndarray):
            vars(part)[name] = np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape)
    return part
