"""Looking through a file entry by entry, damaged ones too: for people, and for `verify`.

Kept apart from the heads, which come in order: a listing shows its first entries before all keys are listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gamwarm.entries.codec import ARTIFACTS, RECORDS, SECTIONS, DamagedEntry, Encoded, check_content, decode
from gamwarm.entries.editor import EntryEditor
from gamwarm.entries.scan import each_entry, key_of, names, places
from gamwarm.records import BlockRecord, FitArtifact
from gamwarm.storage import status_of

if TYPE_CHECKING:
    from gamwarm.entries.store import EntryStore

__all__ = ["ARTIFACTS", "RECORDS", "Browser", "Seen", "Totals"]


@dataclass(frozen=True)
class Seen:
    """One entry as it was found.

    Attributes
    ----------
    section, path : str
        ``block_records`` or ``fit_artifacts``, and the place in it; the path begins with the key.
    encoded : Encoded or None
        None if it cannot be read or its seal fails.
    entry : BlockRecord, FitArtifact or None
        None if it does not decode, or was not asked for.
    problem : str
        Why it is damaged; else empty.
    """

    section: str
    path: str
    encoded: Encoded | None
    entry: BlockRecord | FitArtifact | None = None
    problem: str = ""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """Of a damaged entry: what its text, which no seal vouches for, says of kind, time, rows and blocks."""

    @property
    def key(self) -> str:
        return key_of(self.path)

    @property
    def meta(self) -> dict[str, Any]:
        """What the entry's text says; of a damaged one, as much of `stated` as is of the right type."""
        return dict(self.stated) if self.encoded is None else self.encoded.meta

    @property
    def entry_id(self) -> str:
        return str(self.meta.get("entry_id", ""))

    @property
    def created(self) -> int:
        """UTC microseconds; 0 if unknown."""
        return int(self.meta.get("created") or 0)

    @property
    def nbytes(self) -> int:
        return 0 if self.encoded is None else self.encoded.nbytes

    @property
    def kind(self) -> str:
        """``final``, ``checkpoint`` or ``artifact``; ``?`` of a record that cannot be read."""
        return "artifact" if self.section == ARTIFACTS else str(self.meta.get("kind", "?"))


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
            counts = tuple(view.count(section) for section in SECTIONS)
            return (*totals, *counts, len(view.pins(RECORDS) | view.pins(ARTIFACTS)))

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
        """Whether the file is an export, which stays as it is."""
        return self._entries.read(lambda view: view.is_archive())

    def pins(self) -> set[str]:
        """Return the entry ids that are pinned."""
        return self._entries.read(lambda view: view.pins(RECORDS) | view.pins(ARTIFACTS))

    def keys(self, section: str) -> Iterator[str]:
        """Yield the keys of a section, the first of them before all are listed (`walking.names`)."""
        return names(self._entries, section)

    def some_keys(self, section: str, count: int) -> list[str]:
        """Return the first ``count`` keys in that order: a sample, as keys are digests. Lists no more than these."""
        return self._entries.read(lambda view: view.some_names(section, None, count)) or []

    def walk(
        self, section: str, keys: Iterable[str] | None = None, *, decoded: bool = True, content: bool = False
    ) -> Iterator[Seen]:
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
        there = places(self._entries, section, keys)
        return each_entry(self._entries, section, there, partial(_look, decoded=decoded, content=content))

    def artifact_paths(self) -> Iterator[str]:
        """Yield ``<descriptor key>/<entry id>`` of every artifact, without reading any."""
        return (path for path in places(self._entries, ARTIFACTS) if "/" in path)

    def has(self, section: str, key: str) -> bool:
        """Whether a key is there."""
        return self._entries.read(lambda view: view.has(section, key))

    def starting_with(self, section: str, prefix: str) -> list[str]:
        """Return the keys of a section that start so, sorted. Lists the section unless the key is whole."""
        if len(prefix) == KEY_LENGTH[section]:
            return [prefix] if self.has(section, prefix) else []
        return sorted(key for key in self.keys(section) if key.startswith(prefix))


KEY_LENGTH: Final = {RECORDS: 67, ARTIFACTS: 64}


def _look(view: EntryEditor, section: str, path: str, *, decoded: bool, content: bool) -> Seen:
    encoded: Encoded | None = None
    try:
        encoded = view.read(section, path)
        if content:
            check_content(encoded)
        return Seen(section, path, encoded, decode(encoded) if decoded else None)
    except DamagedEntry as error:
        stated = _stated(view, section, path) if encoded is None else {}
        return Seen(section, path, encoded, None, str(error), stated)


def _stated(view: EntryEditor, section: str, path: str) -> dict[str, Any]:
    """Return what the text of a damaged entry says, if that at least is one."""
    with suppress(DamagedEntry):
        meta = view.read_meta(section, path)
        return {name: meta[name] for name in ("created", "n_rows", "kind", "blocks") if name in meta}
    return {}
