"""The JSON text of an entry: read strictly, and compared with what the format page says of every field.

A text may come from anybody, under a right seal too. Whoever takes a field of a text that went through `parse_text`
may rely on its type and range; `codec.decode` checks what the fields say of each other.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from gamwarm.entries.codec import CURVATURE_PARTS, RECORDS, DamagedEntry
from gamwarm.records import LATEST, Provenance, StartSource

__all__ = ["LATEST", "is_descriptor_key", "is_key", "is_time", "parse_text"]

_MOST: Final = 2**63
_DEPTH: Final = 8
"""Levels below a field that this version does not know."""

_DEEPEST: Final = _DEPTH + 4
"""Levels that no text of any version passes."""
_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)

Check = Callable[[Any], bool]
Field = tuple[frozenset[type], Check]
"""Types whose values all pass, for which nothing is called; and the check of the others."""


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
        It is no JSON object in UTF-8, or a field is missing or not what the format says.
    """
    try:
        string = text.decode("utf-8")
        meta, end = _decoder.raw_decode(string)
    except RecursionError:
        if _depth(string) <= _DEEPEST:  # the caller had used the stack up
            raise
        raise DamagedEntry("its text is nested too deeply") from None
    except ValueError as error:
        raise DamagedEntry(f"its text is no JSON ({type(error).__name__}: {error})") from None
    if end != len(string) or type(meta) is not dict:
        raise DamagedEntry("its text is not one JSON object")
    _check(meta, section == RECORDS)
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


def _check(meta: dict[str, Any], is_record: bool) -> None:
    fields = _RECORD if is_record else _ARTIFACT
    for name, (types, fits) in fields.items():
        try:
            value = meta[name]
        except KeyError:
            if name not in _OPTIONAL:
                raise DamagedEntry(f"its text has no field {name}") from None
            continue
        if type(value) not in types and not fits(value):
            raise DamagedEntry(f"field {name} of its text is not what it should be")
    if len(meta) > len(fields) - len(_OPTIONAL):
        for name in meta.keys() - fields.keys():
            if not _shallow(meta[name], _DEPTH):
                raise DamagedEntry(f"field {name!r} of its text is nested too deeply")


# -- what a value may be ---------------------------------------------------------------------------------------


def is_time(value: Any) -> bool:
    """Whether a value is a time of an entry: UTC microseconds."""
    return type(value) is int and 0 <= value <= LATEST


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and -_MOST <= value < _MOST)


def _string(value: Any) -> bool:
    return type(value) is str


def _truth(value: Any) -> bool:
    return type(value) is bool


def _matching(pattern: str) -> Check:
    fits = re.compile(pattern).fullmatch
    return lambda value: type(value) is str and fits(value) is not None


def _one_of(*words: str) -> Check:
    return lambda value: type(value) is str and value in words


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list(check: Check) -> Check:
    def fits(value: Any) -> bool:
        if type(value) is not list:
            return False
        for each in value:  # noqa: SIM110 - every look-up goes through here; a generator costs twice as much
            if not check(each):
                return False
        return True

    return fits


def _fields(optional: dict[str, Check] | None = None, **needed: Check) -> Check:
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
    return _number(value) and value >= 0


def _started(value: Any) -> bool:
    """A pair of block name and provenance."""
    return (
        type(value) is list and len(value) == 2 and type(value[0]) is str and value[0] != "" and _provenance(value[1])
    )


def _curvature(value: Any) -> bool:
    return type(value) is list and len(set(map(str, value))) == len(value) and all(p in CURVATURE_PARTS for p in value)


_provenance: Final = _one_of(*Provenance)


def _shallow(value: Any, depth: int) -> bool:
    if type(value) is dict:
        value = list(value.values())
    if type(value) is not list:
        return True
    return depth > 0 and all(_shallow(each, depth - 1) for each in value)


_HEX64: Final = _matching("[0-9a-f]{64}")
_ENTRY_ID: Final = _matching("[0-9a-f]{32}")
_EXACT_KEY: Final = _matching("cf-[0-9a-f]{64}")
is_descriptor_key: Final = _HEX64


def is_key(section: str, name: str) -> bool:
    """Whether a name is that of a key of a section."""
    return (_EXACT_KEY if section == RECORDS else _HEX64)(name)


_ANY_OF: Final[dict[Check, type]] = {_string: str, _truth: bool, _number: float}


def _with_types(checks: dict[str, Check]) -> dict[str, Field]:
    """Put before each check the types of which it takes every value."""
    none = {name: {type(None)} if check(None) else set[type]() for name, check in checks.items()}
    return {
        name: (frozenset(none[name] | ({_ANY_OF[check]} if check in _ANY_OF else set())), check)
        for name, check in checks.items()
    }


_COMMON: Final[dict[str, Check]] = {
    "entry_id": _ENTRY_ID,
    "created": is_time,
    "producer": _fields(engine=_string, engine_version=_string, gamwarm_version=_string),
    "lineage": _or_none(
        _fields(
            source=_one_of(*StartSource),
            entry=_or_none(_ENTRY_ID),
            terms=_list(_started),
            consumed=_or_none(_truth),
        )
    ),
    "cost": _or_none(
        _fields(
            {"for_children": _count},
            evaluations=_count,
            outer_iterations=_count,
            inner_iterations=_count,
            hessian_formations=_count,
            seconds=_seconds,
        )
    ),
    "attributes": _labels,
    "rho_bound": _or_none(_number),
    "objective": _or_none(_number),
    "converged": _truth,
    "n_rows": _count,
    "n_outer": _count,
    "curvature": _or_none(_curvature),
    "nuisance": _list(_string),
}
_OPTIONAL: Final = frozenset({"nuisance", "penalties", "seeds"})
_RECORD: Final = _with_types(
    _COMMON
    | {
        "entry": _one_of("record"),
        "kind": _one_of("final", "checkpoint"),
        "blocks": _list(_string),
        "widths": _list(_count),
        "active": _or_none(_list(_or_none(_count))),
        "penalties": _list(_count),
        "iteration": _or_none(_count),
        "inner": _or_none(
            _fields(
                log_likelihood=_number,
                penalty_value=_number,
                cycles=_count,
                converged=_truth,
                inner_tol=_or_none(_number),
                logdet_h=_or_none(_count),
                logdet_s=_or_none(_count),
                log_lambdas=_or_none(_count),
            )
        ),
    }
)
_ARTIFACT: Final = _with_types(
    _COMMON
    | {
        "entry": _one_of("artifact"),
        "schema": _string,
        "descriptor": _fields(
            family_kind=_string,
            term_identities=_list(_HEX64),
            response_signature=_or_none(_string),
            row_population=_or_none(_string),
        ),
        "structural_key": _or_none(_HEX64),
        "fit_key": _or_none(_EXACT_KEY),
        "terms": _list(
            _fields(
                {"settled": _or_none(_list(_truth))},
                name=_string,
                identity=_HEX64,
                structural_identity=_or_none(_HEX64),
                role=_one_of("mean", "log-slope", "generic"),
                basis=_or_none(
                    _fields(
                        kind=_string,
                        degree=_or_none(_count),
                        num_knots=_or_none(_count),
                        n_centers=_or_none(_count),
                        nullspace_order=_or_none(_count),
                        matern_nu=_or_none(_number),
                        periodic=_or_none(_truth),
                    )
                ),
                raw_width=_count,
                reduced_width=_or_none(_count),
                n_rho=_count,
                rho_slots=_or_none(_list(_count)),
                plateau=_or_none(_list(_truth)),
            )
        ),
        "seeds": _fields(column=_string, labels=_list(_string), n_outer=_count),
    }
)
