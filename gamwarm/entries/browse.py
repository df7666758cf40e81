"""Looking through a file entry by entry: for people, reports and sums, and for `verify`.

`Browser` shows damaged entries too, and the first ones before all keys are listed; lists of
summaries come in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gamwarm.encoding import (
    ARTIFACTS,
    KINDS,
    RECORDS,
    DamagedEntry,
    Encoded,
    EntrySummary,
    check_content,
    decode,
    key_of,
)
from gamwarm.entries.editor import EntryEditor
from gamwarm.entries.scan import each_entry, entry_paths, entry_paths_in_order, names
from gamwarm.storage import status_of

if TYPE_CHECKING:
    from gamwarm.entries.store import EntryStore

__all__ = [
    "ARTIFACTS",
    "RECORDS",
    "BrowsedEntry",
    "Browser",
    "Totals",
    "list_entries",
    "list_sealed",
]


@dataclass(frozen=True)
class BrowsedEntry:
    """One entry as it was found.

    Attributes
    ----------
    section, path : str
        ``block_records`` or ``fit_artifacts``, and the place in it; the path begins with the key.
    encoded : Encoded or None
        None if it cannot be read or its seal fails.
    summary : EntrySummary or None
        What it says of itself; likewise.
    entry : BlockRecord, FitArtifact, what else its kind decodes to, or None
        None if it does not decode, or was not asked for.
    problem : str
        Why it is damaged; else empty.
    stated : EntrySummary or None
        Of a damaged entry: what its text says, not verified by a seal; None if even that cannot be
        read.
    indexed : bool
        Whether it is found by its id; asked for with the content digest.
    """

    section: str
    path: str
    encoded: Encoded | None
    summary: EntrySummary | None
    entry: Any = None
    problem: str = ""
    stated: EntrySummary | None = None
    indexed: bool = True

    @property
    def key(self) -> str:
        return key_of(self.path)

    @property
    def place(self) -> str:
        """Its path in the file."""
        return f"/{self.section}/{self.path}"

    @property
    def name(self) -> str:
        """What a listing calls it: its key where entries compete for one, else its entry id."""
        return self.key if KINDS[self.section].competes else self.path.rpartition("/")[2]

    @property
    def entry_id(self) -> str:
        """Empty if unknown."""
        return "" if self.summary is None else self.summary.entry_id

    @property
    def created(self) -> int:
        """UTC microseconds; 0 if unknown."""
        said = self.summary or self.stated
        return 0 if said is None else said.created

    @property
    def n_rows(self) -> int | None:
        said = self.summary or self.stated
        return None if said is None else said.n_rows

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of its blocks or terms; none if unknown."""
        said = self.summary or self.stated
        return () if said is None else said.blocks

    @property
    def nbytes(self) -> int:
        return 0 if self.encoded is None else self.encoded.nbytes

    @property
    def kind(self) -> str:
        """``final``, ``checkpoint`` or ``artifact``; ``?`` where that cannot be read."""
        said = self.summary or self.stated
        if said is not None:
            return said.kind
        labels = KINDS[self.section].labels
        return labels[0] if len(labels) == 1 else "?"


@dataclass(frozen=True)
class Totals:
    """What a file holds, from its running totals: the cost does not grow with the file.

    Attributes
    ----------
    entries, live_bytes : int
        Entries, and the bytes of their payload.
    exact_keys, descriptor_keys : int
        Fits with a record; models with artifacts.
    file_bytes, generation : int
        Size of the file; committed transactions.
    last_created : int
        UTC microseconds of the youngest entry ever written; 0 if there was none.
    pinned : int
        Entries kept from eviction.
    """

    entries: int
    live_bytes: int
    exact_keys: int
    descriptor_keys: int
    file_bytes: int
    generation: int
    last_created: int
    pinned: int


class Browser:
    """Reads an open file for people.

    Parameters
    ----------
    entries : EntryStore
    """

    def __init__(self, entries: EntryStore) -> None:
        self._entries = entries

    def totals(self) -> Totals:
        """Return the running totals; reads no entry."""

        def look(view: EntryEditor) -> tuple[int, ...]:
            totals = tuple(view.total(name) for name in ("n_entries", "live_bytes", "last_created"))
            counts = (view.count(RECORDS), view.count(ARTIFACTS))
            return (*totals, *counts, len(view.all_pins()))

        entries, live, last, exact, descriptors, pinned = self._entries.read(look)
        status = status_of(self._entries.container.path)
        return Totals(
            entries=entries,
            live_bytes=live,
            exact_keys=exact,
            descriptor_keys=descriptors,
            file_bytes=0 if status is None else status.st_size,
            generation=self._entries.container.generation,
            last_created=last,
            pinned=pinned,
        )

    def is_archive(self) -> bool:
        """Whether the file is an archive, which is never changed."""
        return self._entries.read(lambda view: view.is_archive())

    def pins(self) -> set[str]:
        """Return the entry ids that are pinned."""
        return self._entries.read(EntryEditor.all_pins)

    def keys(self, section: str) -> Iterator[str]:
        """Yield the keys of a section, the first of them before all are listed."""
        return names(self._entries, section)

    def some_keys(self, section: str, count: int) -> list[str]:
        """Return the first ``count`` keys in that order: a sample, as keys are digests."""
        return self._entries.read(lambda view: view.some_names(section, None, count)) or []

    def walk(
        self, section: str, keys: Iterable[str] | None = None, *, decoded: bool = True, content: bool = False
    ) -> Iterator[BrowsedEntry]:
        """Yield the entries of a section, seals checked.

        Parameters
        ----------
        section : str
        keys : iterable of str, optional
            Of these keys alone.
        decoded : bool
            Decode each entry too.
        content : bool
            Check its content digest too.
        """
        there = entry_paths(self._entries, section, keys)
        return each_entry(self._entries, section, there, partial(_look, decoded=decoded, content=content))

    def child_paths(self, section: str) -> Iterator[str]:
        """Yield ``<key>/<entry id>`` of every entry of a kind that does not compete."""
        return (path for path in entry_paths(self._entries, section) if "/" in path)

    def has(self, section: str, key: str) -> bool:
        """Whether a key is there."""
        return self._entries.read(lambda view: view.has(section, key))

    def starting_with(self, section: str, prefix: str) -> list[str]:
        """Return the keys of a section that start so, sorted; a complete key lists nothing."""
        if KINDS[section].is_key(prefix):
            return [prefix] if self.has(section, prefix) else []
        return sorted(key for key in self.keys(section) if key.startswith(prefix))


def _look(view: EntryEditor, section: str, path: str, *, decoded: bool, content: bool) -> BrowsedEntry:
    encoded: Encoded | None = None
    summary: EntrySummary | None = None
    try:
        encoded = view.read(section, path)
        summary = encoded.summary(path)
        if content:
            check_content(encoded)
        entry = decode(encoded) if decoded else None
        return BrowsedEntry(
            section, path, encoded, summary, entry, indexed=not content or view.is_indexed(encoded, summary)
        )
    except DamagedEntry as error:
        stated = _summary_if_readable(view, section, path) if encoded is None else None
        return BrowsedEntry(section, path, encoded, summary, None, str(error), stated)


def _summary_if_readable(view: EntryEditor, section: str, path: str) -> EntrySummary | None:
    with suppress(DamagedEntry):
        return view.read_summary(section, path)
    return None


def list_entries(store: EntryStore) -> tuple[list[EntrySummary], list[str]]:
    """Return the summaries of all entries in order, and the places of those that have none.

    Seals are not checked.
    """
    summaries: list[EntrySummary] = []
    unreadable: list[str] = []
    for section in KINDS:
        for found in each_entry(store, section, entry_paths_in_order(store, section), _summary_or_place):
            if isinstance(found, str):
                unreadable.append(found)
            else:
                summaries.append(found)
    return summaries, unreadable


def _summary_or_place(view: EntryEditor, section: str, path: str) -> EntrySummary | str:
    return _summary_if_readable(view, section, path) or f"/{section}/{path}"


def list_sealed(store: EntryStore) -> Iterator[EntrySummary | None]:
    """Yield the summary of every entry, records first; None for one whose seal does not hold.

    For sums, which are made of intact entries alone.
    """
    store.flush()
    for section in KINDS:
        yield from each_entry(store, section, entry_paths_in_order(store, section), _summary_if_sealed)


def _summary_if_sealed(view: EntryEditor, section: str, path: str) -> EntrySummary | None:
    with suppress(DamagedEntry):
        return view.read(section, path).summary(path)
    return None
