"""Kinds of entries: each is declared once, by an `EntryKind`, which all that depends on it asks.

A new kind is a module beside `record_kind` and `artifact_kind` that registers one, an import of it
in ``entries/__init__``, and a table in docs/file-format.md. Its group appears in a file with its
first entry, and the file's entry format rises to `EntryKind.since` then, so that a version that
does not know the kind refuses the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

from gamwarm.encoding.summary import EntrySummary, key_of, summary_of_all
from gamwarm.formats import ENTRY

__all__ = ["KINDS", "EntryKind", "entry_labels", "kind_of", "register"]

Check = Callable[[Any], bool]
Retain = Callable[[Sequence[EntrySummary], int], Sequence[EntrySummary]]


@dataclass(frozen=True, kw_only=True, eq=False)
class EntryKind:
    """What the file, the lists and the maintenance need to know of one kind of entry.

    Attributes
    ----------
    name : str
        Field ``entry`` of its text.
    section : str
        Its group in the file.
    since : int
        The first entry format that has it.
    readme : str
        Of the group.
    value : type
        The class that is put and returned; has ``created``, ``producer``, ``lineage``,
    ``cost``, ``attributes``, ``rho_bound``.
    labels : tuple of str
        What lists call its entries.
    key_prefix, key_digits : str, int
        A key is the prefix and so many hex digits.
    key_of : callable
        ``key_of(value)`` returns the key that a value is put under.
    fields : dict of str to Check
        What its text holds besides the fields that all have, and what each may be.
    optional : set of str
        Those of them that may be absent.
    refusal : callable
        ``refusal(value)`` returns the value as it may be written, and why it may not (or None).
    encode, decode : callable
        ``encode(value)`` gives an `Encoded`, ``decode(entry)`` the value again.
    describe : callable
        ``describe(key, text)`` returns the fields of an `EntrySummary` that not all kinds have
        alike.
    retain, unite : callable, optional
        ``retain(entries, keep_last)`` returns the entries that remain after a put, best first;
        ``unite`` the same when files are merged, whatever the order of merging. None: entries of a
        key do not compete, each is a child of its group.
    relations : callable, optional
        ``relations(text)`` returns what an entry has in common with models of other terms
        (`relation_keys`). None: entries of this kind are no parents, and the tables of candidates
        do not list them.
    key_in_text : callable, optional
        ``key_in_text(text)`` returns the key, where the text tells it.
    """

    name: str
    section: str
    value: type
    labels: tuple[str, ...]
    key_digits: int
    key_of: Callable[[Any], str]
    readme: str
    fields: Mapping[str, Check]
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    describe: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
    refusal: Callable[[Any], tuple[Any, str | None]]
    key_prefix: str = ""
    optional: frozenset[str] = frozenset()
    retain: Retain | None = None
    unite: Retain | None = None
    key_in_text: Callable[[Mapping[str, Any]], str] | None = None
    relations: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    since: int = ENTRY.oldest

    @property
    def competes(self) -> bool:
        """Whether entries of a key compete: the best is the key's group, others lie below it."""
        return self.retain is not None

    @cached_property
    def key_pattern(self) -> str:
        """Regular expression of a key, also inside other bytes and names."""
        return ("" if self.key_prefix else "(?<![0-9a-f-])") + f"{self.key_prefix}[0-9a-f]{{{self.key_digits}}}"

    @cached_property
    def is_key(self) -> Callable[[str], bool]:
        """Whether a name is that of a key."""
        fits = re.compile(self.key_pattern).fullmatch
        return lambda name: fits(name) is not None

    def summarize(self, path: str, meta: Mapping[str, Any]) -> EntrySummary:
        """Return the summary of the entry at a path from its checked text."""
        return EntrySummary(self.section, path, **summary_of_all(meta), **self.describe(key_of(path), meta))

    def place_in_text(self, meta: Mapping[str, Any]) -> str | None:
        """Return the path in its section that an entry's text gives; None if it gives no key."""
        return None if self.key_in_text is None else f"{self.key_in_text(meta)}/{meta['entry_id']}"


KINDS: Final[dict[str, EntryKind]] = {}
"""The kinds by the name of their group, in the order in which files and lists have them."""


def register(kind: EntryKind) -> EntryKind:
    """Declare a kind.

    Raises
    ------
    TypeError
        Something is missing or contradicts itself, or is another kind's.
    """
    for other in KINDS.values():
        shared = {kind.section, kind.name, kind.value, *kind.labels} & {
            other.section, other.name, other.value, *other.labels,
        }  # fmt: skip
        if shared:
            raise TypeError(f"entry kind {kind.name!r}: {shared} is declared by kind {other.name!r}")
    wrong = [
        field.name
        for field in fields(kind)
        if field.name != "key_prefix" and getattr(kind, field.name) in ("", (), {}, 0)
    ]
    if (kind.retain is None) != (kind.unite is None):
        wrong.append("retain and unite go together")
    if not kind.optional <= kind.fields.keys():
        wrong.append("optional fields must be in fields")
    if missing := {"created", "producer", "lineage", "cost", "attributes", "rho_bound"} - _names_of(kind.value):
        wrong.append(f"value has no {', '.join(sorted(missing))}")
    if wrong:
        raise TypeError(f"entry kind {kind.name!r} is not declared: {'; '.join(wrong)}")
    KINDS[kind.section] = kind
    return kind


def _names_of(value: type) -> set[str]:
    """Return the names of the fields of a class."""
    return {name for each in value.__mro__ for name in getattr(each, "__annotations__", {})} | set(dir(value))


def kind_of(value: object) -> EntryKind:
    """Return the kind that a value is put as."""
    for kind in KINDS.values():
        if isinstance(value, kind.value):
            return kind
    raise TypeError(
        f"{type(value).__name__} is no kind of entry; put {' or '.join(k.value.__name__ for k in KINDS.values())}"
    )


def entry_labels() -> tuple[str, ...]:
    """Return what lists call entries, of all kinds."""
    return tuple(label for kind in KINDS.values() for label in kind.labels)
