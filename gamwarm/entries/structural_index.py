"""Names of the lists that hold the strict keys of a structural key (docs/file-format.md, "Inside
the HDF5 file").

HDF5 rewrites a whole attribute when one string is added to it, and the space of the old one is lost
until `compact`. So a list stays short: the first holds `FULL` keys, and every further key is in one
of 256 lists by its first two digits. These lists hold keys only while the first is full, so if it
is shorter, they need not be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["FULL", "PREFIX", "first_list", "list_by_digits", "lists_by_digits", "lists_of", "structural_key_of"]

PREFIX: Final = "structural:"
FULL: Final = 256
_DIGITS: Final = tuple(f"{number:02x}" for number in range(256))


def first_list(structural_key: str) -> bytes:
    """Return the name of the list that the first `FULL` strict keys are in."""
    return f"{PREFIX}{structural_key}".encode()


def list_by_digits(structural_key: str, strict_key: str) -> bytes:
    """Return the name of the list that a strict key is in if the first list is full without it."""
    return f"{PREFIX}{structural_key}:{strict_key[:2]}".encode()


def lists_by_digits(structural_key: str) -> list[bytes]:
    """Return the names of all lists besides the first."""
    return [list_by_digits(structural_key, digits) for digits in _DIGITS]


def structural_key_of(name: str) -> str:
    """Return the structural key that a list is of."""
    return name.removeprefix(PREFIX).split(":")[0]


def lists_of(structural_key: str, strict_keys: Iterable[str]) -> dict[bytes, list[str]]:
    """Return the lists if the keys are added in ascending order."""
    keys = sorted(strict_keys)
    lists = {first_list(structural_key): keys[:FULL]}
    for key in keys[FULL:]:
        lists.setdefault(list_by_digits(structural_key, key), []).append(key)
    return lists
