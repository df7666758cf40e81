"""The JSON text of an entry: read strictly, and checked against the format page's fields.

A text may be malicious even under a valid seal. Whoever takes a field of a text that went through
`parse_text` may rely on its type and range; `codec.decode` checks what the fields say of each
other.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from typing import Any, Final

from gamwarm.encoding.codec import CURVATURE_PARTS, DamagedEntry
from gamwarm.encoding.entry_kind import KINDS, Check, EntryKind
from gamwarm.records import LATEST, Provenance, StartSource

__all__ = ["LATEST", "is_descriptor_key", "is_entry_id", "is_time", "parse_text"]

_MOST: Final = 2**63
_DEPTH: Final = 8
"""Levels below a field that this version does not know."""

_DEEPEST: Final = _DEPTH + 4
"""Levels that no text of any version passes."""
_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _finite(token: str) -> float:
    value = float(token)
    if value - value != 0.0:
        raise ValueError(f"{token} is no binary64 number")
    return value


def _no_number(token: str) -> float:
    raise ValueError(f"{token} is no JSON")


_decoder: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_finite, parse_constant=_no_number)


def parse_text(section: str, text: bytes) -> dict[str, Any]:
    """Read the JSON text of an entry of a section.

    Raises
    ------
    DamagedEntry
        It is not a JSON object in UTF-8, or a field is missing or invalid.
    """
    try:
        string = text.decode("utf-8")
        meta, end = _decoder.raw_decode(string)
    except RecursionError:
        if _depth(string) <= _DEEPEST:  # the caller had used the stack up
            raise
        raise DamagedEntry("its text is nested too deeply") from None
    except ValueError as error:
        raise DamagedEntry(f"its text is not JSON ({type(error).__name__}: {error})") from None
    if end != len(string) or type(meta) is not dict:
        raise DamagedEntry("its text is not one JSON object")
    _check(meta, KINDS[section])
    if b"\\" in text and b"\\ud" in text.lower() and _has_lone_surrogate(meta):
        raise DamagedEntry("its text cannot be written as UTF-8")
    return meta


def _depth(string: str) -> int:
    """Return how many levels deep a JSON text is nested."""
    depth = deepest = 0
    for match in _BRACKETS.finditer(string):
        bracket = match[0]
        depth += (bracket in "[{") - (bracket in "]}")
        deepest = max(deepest, depth)
    return deepest


def _has_lone_surrogate(meta: dict[str, Any]) -> bool:
    try:
        json.dumps(meta, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _check(meta: dict[str, Any], kind: EntryKind) -> None:
    fields, optional = _fields_of(kind)
    for name, (types, fits) in fields.items():
        try:
            value = meta[name]
        except KeyError:
            if name not in optional:
                raise DamagedEntry(f"its text has no field {name}") from None
            continue
        if type(value) not in types and not fits(value):
            raise DamagedEntry(f"field {name} of its text is invalid")
    if len(meta) > len(fields) - len(optional):
        for name in meta.keys() - fields.keys():
            if not _shallow(meta[name], _DEPTH):
                raise DamagedEntry(f"field {name!r} of its text is nested too deeply")


# -- what a value may be ---------------------------------------------------------------------------


def is_time(value: Any) -> bool:
    """Whether a value is a time of an entry: UTC microseconds."""
    return type(value) is int and 0 <= value <= LATEST


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and -_MOST <= value < _MOST)


def is_string(value: Any) -> bool:
    return type(value) is str


def is_bool(value: Any) -> bool:
    return type(value) is bool


def matching(pattern: str) -> Check:
    fits = re.compile(pattern).fullmatch
    return lambda value: type(value) is str and fits(value) is not None


def one_of(*words: str) -> Check:
    return lambda value: type(value) is str and value in words


def or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def list_of(check: Check) -> Check:
    def fits(value: Any) -> bool:
        if type(value) is not list:
            return False
        for each in value:  # noqa: SIM110 - every look-up goes through here; a generator costs twice as much
            if not check(each):
                return False
        return True

    return fits


def object_of(optional: dict[str, Check] | None = None, **needed: Check) -> Check:
    """An object of these fields and no others."""
    known = needed | (optional or {})

    def fits(value: Any) -> bool:
        if type(value) is not dict:
            return False
        if not (value.keys() == known.keys() or needed.keys() <= value.keys() <= known.keys()):
            return False
        for name, each in value.items():  # noqa: SIM110 - as above
            if not known[name](each):
                return False
        return True

    return fits


def _labels(value: Any) -> bool:
    if type(value) is not dict or "" in value:
        return False
    for each in value.values():
        if type(each) not in (str, int, float) or (type(each) is int and abs(each) > sys.float_info.max):
            return False
    return True


def _seconds(value: Any) -> bool:
    return is_number(value) and value >= 0


def _started(value: Any) -> bool:
    """A pair of block name and provenance."""
    return (
        type(value) is list and len(value) == 2 and type(value[0]) is str and value[0] != "" and _provenance(value[1])
    )


def _curvature(value: Any) -> bool:
    return type(value) is list and len(set(map(str, value))) == len(value) and all(p in CURVATURE_PARTS for p in value)


_provenance: Final = one_of(*Provenance)


def _shallow(value: Any, depth: int) -> bool:
    if type(value) is dict:
        value = list(value.values())
    if type(value) is not list:
        return True
    return depth > 0 and all(_shallow(each, depth - 1) for each in value)


is_hex64: Final = matching("[0-9a-f]{64}")
_ENTRY_ID: Final = matching("[0-9a-f]{32}")
is_exact_key: Final = matching("cf-[0-9a-f]{64}")
is_descriptor_key: Final = is_hex64
is_entry_id: Final = _ENTRY_ID


_COMMON: Final[dict[str, Check]] = {
    "entry_id": _ENTRY_ID,
    "created": is_time,
    "producer": object_of(engine=is_string, engine_version=is_string, gamwarm_version=is_string),
    "lineage": or_none(
        object_of(
            source=one_of(*StartSource),
            entry=or_none(_ENTRY_ID),
            terms=list_of(_started),
            consumed=or_none(is_bool),
        )
    ),
    "cost": or_none(
        object_of(
            {"for_children": is_count, "seconds_for_children": _seconds},
            evaluations=is_count,
            outer_iterations=is_count,
            inner_iterations=is_count,
            hessian_formations=is_count,
            seconds=_seconds,
        )
    ),
    "attributes": _labels,
    "rho_bound": or_none(is_number),
    "objective": or_none(is_number),
    "converged": is_bool,
    "n_rows": is_count,
    "n_outer": is_count,
    "curvature": or_none(_curvature),
    "nuisance": list_of(is_string),
}
_OPTIONAL: Final = frozenset({"nuisance"})


# -- the fields of a kind --------------------------------------------------------------------------

Field = tuple[frozenset[type], Check]
"""Types whose values all pass, for which nothing is called; and the check of the others."""
_ANY_OF: Final[dict[Check, type]] = {is_string: str, is_bool: bool, is_number: float}


@cache
def _fields_of(kind: EntryKind) -> tuple[dict[str, Field], frozenset[str]]:
    """Return the contents of a text with the types that each check takes, and what is optional."""
    checks = {"entry": one_of(kind.name), **_COMMON, **kind.fields}
    none = {name: {type(None)} if check(None) else set[type]() for name, check in checks.items()}
    fields = {
        name: (frozenset(none[name] | ({_ANY_OF[check]} if check in _ANY_OF else set())), check)
        for name, check in checks.items()
    }
    return fields, _OPTIONAL | kind.optional
