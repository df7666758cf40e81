"""Which entries are meant: one selection, one way to read a key, for command, export and lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from itertools import chain, islice
from typing import Any, Final

from gamwarm.checks import as_bool, as_int, as_str, as_tuple
from gamwarm.display import brief_repr
from gamwarm.encoding import KINDS, EntrySummary, entry_labels
from gamwarm.entries.browse import ARTIFACTS, RECORDS, BrowsedEntry, Browser
from gamwarm.errors import InvalidInput, InvalidKey, NoSuchKey
from gamwarm.identity import Fingerprinter, Label, component_labels
from gamwarm.records import GROUP, BlockRecord

__all__ = ["Families", "Selection", "Selector", "Target", "resolve_key"]

LEAST_DIGITS: Final = 4
SAMPLED_ARTIFACTS: Final = 32
"""Artifacts that are read for the names of families, if these are only displayed."""
MOST_CANDIDATES: Final = 8
ID_DIGITS: Final = 32

Follow = Callable[[Iterator[BrowsedEntry]], Iterator[BrowsedEntry]]


@dataclass(frozen=True)
class Selection:
    """Which entries to take: those that meet every criterion given, in any of its values.

    Names are matched as a shell does: ``*`` any text, ``?`` any character, ``[ab]`` one of these.
    What an entry does not tell matches nothing.

    Parameters
    ----------
    keys : sequence of str
        Exact keys, descriptor keys or entry ids; a beginning of four digits that means one of them
        is enough.
    families : sequence of str
        Family kinds. A record is of the family that its components name, or the artifact of the
        same fit.
    blocks : sequence of str
        Names of blocks or terms.
    kinds : sequence of {"final", "checkpoint", "artifact"}
    producers : sequence of str
        An engine, an engine and its version (``"gamwarm-reference 1"``), or ``"gamwarm
        <version>"``.
    lineage : bool
        For exports: take also the parents of the selected entries, and what that started from.
    jobs : sequence of str
        The attribute ``job``.
    attributes : sequence of (name, value)
        Attributes of the user's own; every one that is named.
    since, until : int, optional
        UTC microseconds: not created before, and created before.
    """

    keys: Sequence[str] = ()
    families: Sequence[str] = ()
    blocks: Sequence[str] = ()
    kinds: Sequence[str] = ()
    producers: Sequence[str] = ()
    lineage: bool = True
    jobs: Sequence[str] = ()
    attributes: Sequence[tuple[str, str]] = ()
    since: int | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        for name in ("keys", "families", "blocks", "kinds", "producers", "jobs"):
            object.__setattr__(self, name, _words(getattr(self, name), f"selection {name}"))
        pairs = tuple(_words(pair, "selection attribute") for pair in as_tuple(self.attributes, "selection attributes"))
        if any(len(pair) != 2 for pair in pairs):
            raise InvalidInput(f"selection attributes are {brief_repr(pairs)}; give pairs of a name and a value")
        object.__setattr__(self, "attributes", pairs)
        object.__setattr__(self, "lineage", as_bool(self.lineage, "selection lineage"))
        for name in ("since", "until"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_int(getattr(self, name), f"selection {name}"))
        for kind in self.kinds:
            if kind not in entry_labels():
                raise InvalidInput(f"selection kind {brief_repr(kind)}; use one of {', '.join(entry_labels())}")

    @property
    def is_all(self) -> bool:
        """Whether every entry is meant."""
        return all(getattr(self, each.name) in ((), None) for each in fields(self) if each.name != "lineage")


def _words(value: Any, what: str) -> tuple[str, ...]:
    if isinstance(value, str):
        raise InvalidInput(f"{what} is the string {brief_repr(value)}; give a list of strings")
    return tuple(as_str(word, what) for word in as_tuple(value, what))


class Selector:
    """A selection in one file, with its keys resolved and, where they matter, the families known.

    Parameters
    ----------
    browser : Browser
    selection : Selection
    follow : callable, optional
        Wraps a scan of all records, for a progress bar.

    Raises
    ------
    InvalidKey, NoSuchKey
        As `resolve_key`.
    """

    def __init__(self, browser: Browser, selection: Selection, follow: Follow = iter) -> None:
        self._browser = browser
        self._wanted = selection
        self._targets = [resolve_key(browser, key, follow) for key in selection.keys]
        self.families = Families(browser, selection.families, most=None) if selection.families else Families(browser)

    def scan(self) -> Iterator[BrowsedEntry]:
        """Yield the entries that are meant, records first; damaged ones as far as readable."""
        wanted = set(self._wanted.kinds)
        sections = [name for name, kind in KINDS.items() if not wanted or wanted & set(kind.labels)]

        def keys(section: str) -> list[str] | None:
            found = dict.fromkeys(target.key for target in self._targets if target.section == section)
            return list(found) if self._targets else None

        return filter(self._meant, chain.from_iterable(self._browser.walk(each, keys(each)) for each in sections))

    def _meant(self, seen: BrowsedEntry) -> bool:
        said = seen.summary or seen.stated
        if said is not None:
            return self.takes(said, seen.entry if isinstance(seen.entry, BlockRecord) else None)
        # Of one whose text cannot be read either, nothing but its key and its section is known.
        named = not self._targets or Target(seen.section, seen.key) in self._targets
        kinds = self._wanted.kinds or (seen.kind,)
        return named and seen.kind in kinds and replace(self._wanted, keys=(), kinds=()).is_all

    def takes(self, entry: EntrySummary, record: BlockRecord | None = None) -> bool:
        """Whether an entry is meant; ``record`` is the entry itself if available."""
        wanted = self._wanted
        if self._targets and not any(target.means(entry) for target in self._targets):
            return False
        if wanted.kinds and entry.kind not in wanted.kinds:
            return False
        if wanted.since is not None and entry.created < wanted.since:
            return False
        if wanted.until is not None and entry.created >= wanted.until:
            return False
        told_of = {name: str(value) for name, value in entry.attributes.items()}
        producer = entry.producer
        builds = [producer.engine, producer.build, f"gamwarm {producer.gamwarm_version}"]
        return (
            _any(wanted.blocks, entry.blocks)
            and _any(wanted.producers, builds)
            and _any(wanted.jobs, [told_of[name] for name in ("job",) if name in told_of])
            and all(name in told_of and fnmatchcase(told_of[name], value) for name, value in wanted.attributes)
            and (not wanted.families or _any(wanted.families, [self.families.name(entry, record)]))
        )


def _any(patterns: Sequence[str], values: Iterable[str]) -> bool:
    return not patterns or any(value and fnmatchcase(value, pattern) for value in values for pattern in patterns)


class Families:
    """The family of an entry: artifacts name theirs, records keep a digest of it.

    Parameters
    ----------
    browser : Browser
    names : sequence of str
        Families that the file may hold; patterns are not names.
    most : int or None
        Artifacts to read; None: all.
    """

    def __init__(self, browser: Browser, names: Iterable[str] = (), most: int | None = SAMPLED_ARTIFACTS) -> None:
        self._browser = browser
        self._of_digest = {_family_digest(name): name for name in names if not set(name) & set("*?[")}
        self._of_fit: dict[str, str] = {}
        for seen in islice(browser.walk(ARTIFACTS, decoded=False), most):
            if seen.summary is not None:
                self.name(seen.summary)

    def name(self, entry: EntrySummary, record: BlockRecord | None = None) -> str:
        """Return the family kind of an entry; empty if unknown."""
        if entry.family is not None:
            if entry.family not in self._of_digest.values():
                self._of_digest[_family_digest(entry.family)] = entry.family
            if entry.fit_key is not None:
                self._of_fit[entry.fit_key] = entry.family
            return entry.family
        known = self._of_fit.get(entry.key)
        return known if known is not None else self._by_components(record or self._record_of(entry))

    def _record_of(self, entry: EntrySummary) -> BlockRecord | None:
        if entry.section != RECORDS:
            return None
        found = (seen.entry for seen in self._browser.walk(entry.section, [entry.key]) if seen.path == entry.path)
        return next((each for each in found if isinstance(each, BlockRecord)), None)

    def _by_components(self, record: BlockRecord | None) -> str:
        if record is None or record.components is None:
            return ""
        try:
            digest = component_labels(record.components, record.block_names)[Label("family kind")]
        except InvalidInput:
            return ""
        return self._of_digest.get(digest, "")


def _family_digest(kind: str) -> int:
    """Return what records keep of their family kind."""
    fingerprint = Fingerprinter()
    fingerprint.write_str(kind)
    return int.from_bytes(bytes.fromhex(fingerprint.hexdigest())[:8], "little", signed=True)


@dataclass(frozen=True)
class Target:
    """What a key means.

    Attributes
    ----------
    section, key : str
    entry_id : str
        Of one entry; empty: all entries of the key.
    """

    section: str
    key: str
    entry_id: str = ""

    def means(self, entry: EntrySummary | BrowsedEntry) -> bool:
        """Whether an entry is meant."""
        same_key = (entry.section, entry.key) == (self.section, self.key)
        return same_key and self.entry_id in ("", entry.entry_id)

    def entries(self, browser: Browser) -> list[BrowsedEntry]:
        """Return the entries meant; damaged ones too, where the key itself was given."""
        return [seen for seen in browser.walk(self.section, [self.key]) if self.means(seen)]

    def __str__(self) -> str:
        return self.entry_id or self.key


def resolve_key(browser: Browser, text: str, follow: Follow = iter) -> Target:
    """Resolve a key or a prefix.

    Exact keys, descriptor keys and entry ids of artifacts are found by names alone. Entry ids of
    records stand inside the records: they are searched for, by reading every record, only where
    nothing else begins so.

    Raises
    ------
    InvalidKey
        It is not a prefix of a key, or has fewer than four digits.
    NoSuchKey
        Nothing in the file begins so, or several things do (``details["candidates"]``).
    """
    wanted = text.strip().rstrip("….").lower()
    prefixes = "|".join(kind.key_prefix for kind in KINDS.values() if kind.key_prefix)
    match = re.fullmatch(f"({prefixes})?([0-9a-f]*)", wanted)
    if match is None or len(match[2]) < LEAST_DIGITS:
        raise InvalidKey(
            f"{brief_repr(text)} is not a key: give at least {LEAST_DIGITS} hex digits of an exact key (cf-…), a "
            f"descriptor key or an entry id. `gamwarm ls FILE --attribute {GROUP}=LABEL` finds a fold by its label"
        )
    prefix, digits = match[1] or "", match[2]
    found: dict[str, Target] = {}
    for section, kind in KINDS.items():
        if prefix in ("", kind.key_prefix) and len(digits) <= kind.key_digits:
            keys = browser.starting_with(section, kind.key_prefix + digits)
            found |= {key: Target(section, key) for key in keys}
    if not prefix and len(digits) <= ID_DIGITS:
        for section in (name for name, kind in KINDS.items() if not kind.competes):
            found |= {t.entry_id: t for t in _by_name(browser, section, digits)}
        for section in (name for name, kind in KINDS.items() if kind.competes and not found):
            found |= {t.entry_id: t for t in _by_text(follow(browser.walk(section, decoded=False)), digits)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise NoSuchKey(
            f"{text}: no entry of this file has a key or entry id with this prefix; `gamwarm ls` lists them"
        )
    names = sorted(found)
    more = f" and {len(names) - MOST_CANDIDATES} more" if len(names) > MOST_CANDIDATES else ""
    raise NoSuchKey(
        f"{text}: {len(names)} keys have this prefix: {', '.join(names[:MOST_CANDIDATES])}{more}; give more digits",
        candidates=names,
    )


def _by_name(browser: Browser, section: str, digits: str) -> Iterator[Target]:
    for path in browser.child_paths(section):
        key, _, entry_id = path.partition("/")
        if entry_id.startswith(digits):
            yield Target(section, key, entry_id)


def _by_text(entries: Iterable[BrowsedEntry], digits: str) -> Iterator[Target]:
    for seen in entries:
        if seen.entry_id.startswith(digits):
            yield Target(seen.section, seen.key, seen.entry_id)
