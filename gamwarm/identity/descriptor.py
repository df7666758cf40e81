"""Identities of terms, and the descriptor under which related fits find each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from gamwarm.checks import as_int, as_str, as_tuple
from gamwarm.display import brief_repr
from gamwarm.errors import InvalidKey
from gamwarm.identity.fingerprint import Fingerprinter
from gamwarm.problem import ParameterBlockSpec, Role

__all__ = [
    "FitDescriptor",
    "check_descriptor_key",
    "descriptor_key",
    "relation_keys",
    "strict_identity",
    "structural_identity",
    "term_identity",
]

_ROLE_CODES = {Role.MEAN: 0, Role.LOG_SLOPE: 1, Role.GENERIC: 2}
_HEX64 = re.compile(r"[0-9a-f]{64}")


def term_identity(
    role: Role | str, name: str, labels: Sequence[str | None], nullspace_dims: Sequence[int], width: int
) -> str:
    """Return the identity of a term, 64 hex digits.

    Parameters
    ----------
    role : {"mean", "log-slope", "generic"}
    name : str
        Block name.
    labels : sequence of (str or None)
        Precision label per penalty.
    nullspace_dims : sequence of int
        Null-space dimension per penalty (empty for a structural identity).
    width : int
        Reduced width (strict) or raw width (structural).
    """
    what = f"term {name!r}"
    code = _ROLE_CODES[Role.of(role, f"{what}: role")]
    as_str(name, "term name", empty=True)
    label_list, dims = as_tuple(labels, f"{what}: labels"), as_tuple(nullspace_dims, f"{what}: nullspace_dims")
    return _identity(
        code,
        name,
        tuple(None if label is None else as_str(label, f"{what}: label", empty=True) for label in label_list),
        tuple(as_int(dim, f"{what}: null-space dimension") for dim in dims),
        as_int(width, f"{what}: width"),
    )


@lru_cache(maxsize=1024)  # the folds of a campaign ask for the same few
def _identity(code: int, name: str, labels: tuple[str | None, ...], nullspace_dims: tuple[int, ...], width: int) -> str:
    fp = Fingerprinter()
    fp.write_str("gamwarm-term-identity")
    fp.write_u64(code)
    fp.write_str(name)
    fp.write_u64(len(labels))
    for label in labels:
        fp.write_bool(label is not None)
        if label is not None:
            fp.write_str(label)
    fp.write_u64(len(nullspace_dims))
    for dim in nullspace_dims:
        fp.write_u64(dim)
    fp.write_u64(width)
    return fp.hexdigest()


def _labels(spec: ParameterBlockSpec) -> tuple[str | None, ...]:
    return tuple([penalty.precision_label for penalty in spec.penalties])


def _role_code(spec: ParameterBlockSpec) -> int:
    return _ROLE_CODES[Role.of(spec.role or Role.GENERIC, "role")]


def strict_identity(spec: ParameterBlockSpec) -> str:
    """Return a block's strict identity: reduced width and null-space dimensions enter."""
    return _identity(_role_code(spec), spec.name, _labels(spec), tuple(spec.nullspace_dims), spec.width)


def structural_identity(spec: ParameterBlockSpec, raw_width: int) -> str:
    """Return a block's structural identity: raw width, no null spaces."""
    return _identity(_role_code(spec), spec.name, _labels(spec), (), raw_width)


def relation_keys(
    family_kind: str, terms: Iterable[tuple[str, str, str | None, int]], nuisance: Iterable[str]
) -> dict[str, int]:
    """Return what a model has in common with those of its family that have the same smooth, of
    whatever width.

    Parameters
    ----------
    family_kind : str
    terms : iterable of (role, name, basis kind or None, number of outer coordinates)
        Those without a name or an outer coordinate have nothing in common.
    nuisance : iterable of str
        Names of nuisance coordinates.

    Returns
    -------
    dict
        Outer coordinates by key, of 32 hex digits.
    """
    named = [term for term in terms if term[1] and term[3]]
    return {_relation_key(family_kind, *term): term[3] for term in (*named, *(_nuisance(name) for name in nuisance))}


def _nuisance(name: str) -> tuple[str, str, None, int]:
    return "nuisance", name, None, 1


@lru_cache(maxsize=4096)
def _relation_key(family_kind: str, role: str, name: str, basis_kind: str | None, n_outer: int) -> str:
    fp = Fingerprinter()
    for text in ("gamwarm-term-relation", family_kind, role, name):
        fp.write_str(text)
    fp.write_bool(basis_kind is not None)
    fp.write_str(basis_kind or "")
    fp.write_u64(n_outer)
    return fp.hexdigest()[:32]


def check_descriptor_key(key: object) -> str:
    """Return ``key`` if a well-formed descriptor key or term identity, else raise `InvalidKey`."""
    if not isinstance(key, str) or not _HEX64.fullmatch(key):
        raise InvalidKey(
            f"{brief_repr(key)} is not a descriptor key; expected 64 lower-case hex digits, as FitProblem.descriptor "
            "and `gamwarm show` have it"
        )
    return key


@dataclass(frozen=True)
class FitDescriptor:
    """What makes two fits relatives: family and terms, in any order; not rows or response.

    Parameters
    ----------
    family_kind : str
    term_identities : sequence of str
        64 hex digits each.
    response_signature, row_population : str, optional
        For readers; not part of the key.
    """

    family_kind: str
    term_identities: tuple[str, ...]
    response_signature: str | None = None
    row_population: str | None = None

    def __post_init__(self) -> None:
        as_str(self.family_kind, "descriptor family_kind")
        object.__setattr__(
            self,
            "term_identities",
            tuple(check_descriptor_key(t) for t in as_tuple(self.term_identities, "descriptor term_identities")),
        )
        for name in ("response_signature", "row_population"):
            if getattr(self, name) is not None:
                as_str(getattr(self, name), f"descriptor {name}", empty=True)

    @cached_property
    def key(self) -> str:
        """Descriptor key, 64 hex digits; the order of the terms does not matter."""
        return descriptor_key(self.family_kind, self.term_identities)


@lru_cache(maxsize=256)  # the folds of a campaign share their structural key, and many their strict one
def descriptor_key(family_kind: str, term_identities: tuple[str, ...]) -> str:
    """Return the key of a descriptor, 64 hex digits, from identities that are well-formed."""
    fp = Fingerprinter()
    fp.write_str("gamwarm-descriptor")
    fp.write_str(family_kind)
    fp.write_u64(len(term_identities))
    for identity in sorted(bytes.fromhex(t) for t in term_identities):
        fp.write_bytes(identity)
    return fp.hexdigest()
