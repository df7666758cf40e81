"""The index as it lies in the file (docs/file-format.md, "The index"), read and kept up to date.

Everything is an attribute, so that the top level of a section has one child per key and nothing
else:

* of a section, named by an entry id: the key that the entry lies under;
* of the artifacts' section: ``fit:<digits>``, the newest artifact of a fit; ``widths:<structural
  key>``, ``structural:<structural key>:<width>`` and ``related:<relation>``, see `index`;
* of a strict key's group: ``candidates``;
* of the root: ``recent``, where the entries filed last lie, until there are `RECENT_ROWS` of them
  and they become attributes of their sections together. An attribute more in a large section
  changes pages of a heap and a tree, a row of this list none but the root's.

What cannot be read counts as not there, until `verify` makes it anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

from gamwarm.encoding import ARTIFACTS, KINDS, DamagedEntry, Encoded, is_entry_id
from gamwarm.entries import stored_values
from gamwarm.entries.index import (
    RECENT_BYTES,
    RECENT_ROWS,
    RELATED_ROWS,
    TABLE_ROWS,
    Candidate,
    Index,
    Model,
    Place,
    with_model,
    with_row,
)
from gamwarm.entries.stored_values import UNREADABLE, pass_on_others

__all__ = ["StoredIndex"]

log = logging.getLogger("gamwarm")
Row = TypeVar("Row", Candidate, Model)

KEPT_TABLES: Final = 64
_RECENT: Final = b"recent"
_CANDIDATES: Final = b"candidates"
_WIDTHS: Final = "widths:"
_STRUCTURAL: Final = "structural:"
_RELATED: Final = "related:"
_FIT: Final = "fit:"
_FIT_DIGITS: Final = 32


def _fit_of(exact_key: str) -> str:
    return exact_key.removeprefix("cf-")[:_FIT_DIGITS]


class Recent(NamedTuple):
    """A row of the list of entries filed last; of an artifact with its time and the fit, if any."""

    entry_id: str
    section: str
    key: str
    created: int = 0
    fit: str = ""

    def text(self) -> str:
        """Return the row as stored."""
        newest = f" {self.created:019d} {self.fit}" if self.fit else ""
        return f"{self.entry_id} {self.section}/{self.key}{newest}"

    @classmethod
    @lru_cache(maxsize=1024)  # one look-up after another reads the same rows
    def parse(cls, text: str) -> Recent | None:
        """Return the row of a text; None if it is none."""
        entry_id, place, *newest = [*text.split(" "), ""][:5]
        section, _, key = place.partition("/")
        row = None
        if newest == [""]:
            row = cls(entry_id, section, key)
        elif len(newest) == 3 and newest[0].isascii() and newest[0].isdigit():
            row = cls(entry_id, section, key, int(newest[0]), newest[1])
        if row is None or row.text() != text or not is_entry_id(entry_id):
            return None
        return row if section in KINDS and KINDS[section].is_key(key) else None

    @property
    def fits(self) -> bool:
        """Whether it can be in the list; else the entry is named by an attribute at once."""
        return len(self.text()) <= RECENT_BYTES and Recent.parse(self.text()) == self


def _width_name(structural_key: str, width: int) -> bytes:
    return f"{_STRUCTURAL}{structural_key}:{width}".encode()


class StoredIndex:
    """The index of an open file.

    Parameters
    ----------
    root : h5py GroupID
    section_group : callable
        From the name of a section to its group; None if the file has none.
    size : callable
        Bytes of the file: no value reaches further.
    keeps_tables : bool
        Tables that were changed last are known without reading them, since only this object changes
        them, and change in memory until `write`; new entries go to the recent ones.
    is_unchanging : bool
        The file does not change under this object.
    """

    def __init__(
        self,
        root: Any,
        section_group: Callable[[str], Any],
        size: Callable[[], int],
        *,
        keeps_tables: bool,
        is_unchanging: bool = False,
    ) -> None:
        self._root, self._section, self._size = root, section_group, size
        self._keeps, self._is_unchanging = keeps_tables, is_unchanging
        self._kept: dict[tuple[str, bytes], list[Any]] = {}
        self._counts: dict[tuple[str, bytes], int] = {}  # rows of attributes, by who wrote them last
        self._unwritten: set[tuple[str, bytes]] = set()
        self._unreadable: dict[str, str] = {}
        self._kept_recent: list[Recent] | None = None
        self._recent_is_written = True

    # -- reading -----------------------------------------------------------------------------------

    def key_of(self, section: str, entry_id: str) -> str | None:
        """Return the key that an entry is filed under; None if it is not in the section."""
        found = self._text(section, entry_id.encode())
        if found is not None:
            return found if KINDS[section].is_key(found) else None
        row = self._recent_entry(entry_id)
        return row.key if row is not None and row.section == section else None

    def newest_of_fit(self, exact_key: str) -> tuple[int, str] | None:
        """Return time and entry id of a fit's newest artifact, which itself has to confirm it."""
        fit = _fit_of(exact_key)
        rows = [(row.created, row.entry_id) for row in self._recent() if row.fit == fit]
        if (stored := self._newest(fit)) is not None:
            rows.append(stored)
        return max(rows, default=None)

    def _newest(self, fit: str) -> tuple[int, str] | None:
        created, _, entry_id = (self._text(ARTIFACTS, f"{_FIT}{fit}".encode()) or "").partition(" ")
        return (int(created), entry_id) if created.isascii() and created.isdigit() and is_entry_id(entry_id) else None

    def strict(self, key: str) -> list[Candidate]:
        """See `CandidateSource`."""
        return [row for row in self._table(key, _CANDIDATES, Candidate.parse) if row.key == key]

    def widths(self, key: str) -> list[int]:
        """See `CandidateSource`."""
        name = f"{_WIDTHS}{key}".encode()
        found = self._tolerant(name, lambda: stored_values.read_vector(self._section(ARTIFACTS), name, self._size()))
        return [] if found is None else list(found.tolist())

    def structural(self, key: str, width: int) -> list[Candidate]:
        """See `CandidateSource`."""
        return self._table("", _width_name(key, width), Candidate.parse)

    def related(self, name: str) -> list[Model]:
        """See `CandidateSource`."""
        return self._table("", f"{_RELATED}{name}".encode(), Model.parse)

    def _table(self, key: str, name: bytes, parse: Callable[[str], Row | None]) -> list[Row]:
        """Return a table of the section or, with a strict key, of that key."""
        kept = self._kept.get((key, name))
        if kept is not None:
            return kept
        gid = self._section(ARTIFACTS)
        if key:
            try:
                gid = stored_values.open_group(gid, key.encode())
            except (DamagedEntry, *UNREADABLE) as error:
                pass_on_others(error)
                return []
        texts = self._tolerant(name, lambda: stored_values.read_strings(gid, name, self._size()))
        return sorted((row for text in texts or () if (row := parse(text)) is not None), reverse=True)

    def _recent_entry(self, entry_id: str) -> Recent | None:
        """Return the row of an entry; the others need not be read."""
        if self._kept_recent is not None:
            return next((row for row in self._kept_recent if row.entry_id == entry_id), None)
        data = self._tolerant(_RECENT, lambda: stored_values.read(self._root, _RECENT, self._size())) or b""
        at = data.find(entry_id.encode())
        row = data[at : at + RECENT_BYTES] if at >= 0 and at % RECENT_BYTES == 0 else b""
        return Recent.parse(row.rstrip(b"\0").decode("ascii", "replace"))

    def _recent(self) -> list[Recent]:
        if self._kept_recent is not None:
            return self._kept_recent
        texts = self._tolerant(_RECENT, lambda: stored_values.read_strings(self._root, _RECENT, self._size()))
        rows = [row for text in texts or () if (row := Recent.parse(text.rstrip("\0"))) is not None]
        if self._keeps or self._is_unchanging:
            self._kept_recent = rows
        return rows

    def _text(self, section: str, name: bytes) -> str | None:
        gid = self._section(section)
        found = None if gid is None else self._tolerant(name, lambda: stored_values.read(gid, name, self._size()))
        return None if found is None else str(found.decode("ascii", "replace"))

    def _tolerant(self, name: bytes, read: Callable[[], Any]) -> Any:
        """Return a value; None, as if it were not there, if it cannot be read."""
        try:
            return read()
        except (DamagedEntry, *UNREADABLE) as error:
            pass_on_others(error)
            self._unreadable[stored_values.name_of(name)] = str(error)
            return None

    def forget_unreadable(self) -> None:
        """Begin a look: what an earlier one could not read may have been a writer's doing."""
        self._unreadable.clear()

    def warn_of_unreadable(self) -> None:
        """Warn of what could not be read, once it is known that no writer came between."""
        for what, error in self._unreadable.items():
            log.warning("/%s: %s of the index cannot be read (%s); verify() makes it anew", ARTIFACTS, what, error)
        self._unreadable.clear()

    # -- keeping it up to date ---------------------------------------------------------------------

    def file(self, entry: Encoded) -> None:
        """Index an entry that is being filed."""
        row = Recent(entry.entry_id, entry.section, entry.key)
        if KINDS[entry.section].relations is None:
            self._file_id(row)
            return
        place = Place.of(entry)
        if place.fit_key is not None:
            row = row._replace(created=place.row.created, fit=_fit_of(place.fit_key))
        self._file_id(row)
        there = self.strict(entry.key)
        self._change(entry.key, _CANDIDATES, there, with_row(there, place.row))
        known = bool(there)
        if place.structural_key is not None:
            there = self.structural(place.structural_key, place.width)
            name = _width_name(place.structural_key, place.width)
            if not there and place.width not in (widths := self.widths(place.structural_key)):
                self._set_widths(place.structural_key, [*widths, place.width])
            self._change("", name, there, with_row(there, place.row))
            known = known and bool(there)
        if not known:  # else the model is listed already
            for relation in place.related:
                models = self.related(relation)
                self._change("", f"{_RELATED}{relation}".encode(), models, with_model(models, place.model))

    def _file_id(self, row: Recent) -> None:
        if not (self._keeps and row.fits):
            self._set_id(row)
            return
        rows = self._recent()
        if len(rows) >= RECENT_ROWS:
            for each in rows:
                self._set_id(each)
            rows.clear()
        rows[:] = [*(each for each in rows if each.entry_id != row.entry_id), row]
        self._recent_is_written = False

    def _set_id(self, row: Recent) -> None:
        """Name an entry by an attribute, and a fit's newest artifact."""
        stored_values.set_text(self._section(row.section), row.entry_id.encode(), row.key.encode())
        if row.fit:
            self._set_newest(row.fit, max((row.created, row.entry_id), self._newest(row.fit) or (0, "")))

    def write(self) -> None:
        """Write what has changed in memory."""
        if not self._recent_is_written:
            self._set_rows("", _RECENT, self._root, self._recent(), RECENT_ROWS)
            self._recent_is_written = True
        while self._unwritten:
            key, name = self._unwritten.pop()
            group = self._table_group(key)
            if group is not None:
                rows = self._kept[key, name]
                # A full or emptied row changes in place, another number of rows costs the space of
                # the attribute.
                self._set_rows(key, name, group, rows, 1 << (len(rows) - 1).bit_length() if rows else 0)

    def _set_rows(self, key: str, name: bytes, group: Any, rows: Sequence[Any], count: int) -> None:
        """Write an attribute of so many rows, those that are left empty."""
        texts = [row.text() for row in rows] + [""] * (count - len(rows))
        in_place = self._counts.get((key, name)) == count
        self._counts[key, name] = count
        stored_values.set_strings(group, name, texts, in_place=in_place)

    def _table_group(self, key: str) -> Any:
        section = self._section(ARTIFACTS)
        if not key:
            return section
        try:
            return stored_values.open_group(section, key.encode())
        except (DamagedEntry, *UNREADABLE):
            if stored_values.has(section, key.encode()):
                raise
            return None  # removed since

    def forget(self, section: str, entry_id: str) -> None:
        """Take a removed entry out of the ids; for an artifact call `drop` or `rebuild` too."""
        stored_values.remove_attribute(self._section(section), entry_id.encode())
        self._forget_recent(lambda row: (row.section, row.entry_id) == (section, entry_id))

    def _forget_recent(self, is_gone: Callable[[Recent], bool]) -> None:
        rows = self._recent()
        left = [row for row in rows if not is_gone(row)]
        if len(left) < len(rows):
            self._kept_recent, self._recent_is_written = left, False
            if not self._keeps:
                self.write()
                self._kept_recent = None

    def drop(self, places: Collection[Place], newest: Mapping[str, tuple[int, str]]) -> bool:
        """Take artifacts that have been removed out of the lists; return False where others might
        have to move up, so that `rebuild` has to follow.

        ``newest``: time and entry id of the newest artifact that is left of a fit.
        """
        self._forget_tables()
        section, gone = self._section(ARTIFACTS), {place.row.entry_id for place in places}
        keys = {place.row.key for place in places if stored_values.has(section, place.row.key.encode())}
        widths = {(place.structural_key, place.width) for place in places if place.structural_key is not None}
        for key, name in (
            *((key, _CANDIDATES) for key in keys),
            *(("", _width_name(key, width)) for key, width in widths),
        ):
            rows = self._table(key, name, Candidate.parse)
            left = [row for row in rows if row.entry_id not in gone]
            if len(left) < len(rows) >= TABLE_ROWS:
                return False
            self._change(key, name, rows, left)
        for key in {key for key, _ in widths}:
            empty = {width for each, width in widths if each == key and not self.structural(key, width)}
            if empty:
                self._set_widths(key, set(self.widths(key)) - empty)
        for fit_key in {place.fit_key for place in places if place.fit_key is not None}:
            found = self._newest(_fit_of(fit_key))
            if found is not None and found[1] in gone:
                if fit_key in newest:
                    self._set_newest(_fit_of(fit_key), newest[fit_key])
                else:
                    stored_values.remove_attribute(section, f"{_FIT}{_fit_of(fit_key)}".encode())
        return self._drop_models(places)

    def _drop_models(self, places: Collection[Place]) -> bool:
        """Take models of which no artifact is left out of the lists; False as `drop`."""
        section = self._section(ARTIFACTS)
        lost: dict[str, set[tuple[bool, str]]] = {}
        left: dict[tuple[bool, str], bool] = {}
        for place in places:
            model = place.model.is_structural, place.model.key
            if model not in left:
                left[model] = bool(self.widths(model[1])) if model[0] else stored_values.has(section, model[1].encode())
            for name in () if left[model] else place.related:
                lost.setdefault(name, set()).add(model)
        for name, models in lost.items():
            listed = self.related(name)
            if len(listed) >= RELATED_ROWS:
                return False
            rest = [each for each in listed if (each.is_structural, each.key) not in models]
            self._change("", f"{_RELATED}{name}".encode(), listed, rest)
        return True

    def rebuild(self, artifacts: Iterable[Encoded]) -> None:
        """Write anew what is known of artifacts but where they lie, from all of them."""
        index, fits = Index(), dict[str, tuple[int, str]]()
        for entry in artifacts:
            place = index.add(entry)
            if place.fit_key is not None:
                newest = place.row.created, place.row.entry_id
                fits[place.fit_key] = max(newest, fits.get(place.fit_key, newest))
        self._forget_tables()
        section = self._section(ARTIFACTS)
        for name in stored_values.attribute_names(section):
            if b":" in name:
                stored_values.remove_attribute(section, name)
        for exact_key, newest in fits.items():
            self._set_newest(_fit_of(exact_key), newest)
        for key in stored_values.names_in(section):
            with suppress(DamagedEntry, *UNREADABLE):  # a group that cannot be written keeps what it has
                self._change(key, _CANDIDATES, self.strict(key), index.strict(key))
        for key, tables in index.by_width.items():
            self._set_widths(key, tables)
            for width, rows in tables.items():
                self._change("", _width_name(key, width), [], rows)
        for relation, models in index.models.items():
            self._change("", f"{_RELATED}{relation}".encode(), [], models)

    def rebuild_ids(self, section: str, keys: Mapping[str, str]) -> None:
        """Write anew where the entries of a section lie."""
        self._forget_recent(lambda row: row.section == section)
        gid = self._section(section)
        for name in self.ids(section) - keys.keys():
            stored_values.remove_attribute(gid, name.encode())
        for entry_id, key in keys.items():
            stored_values.set_text(gid, entry_id.encode(), key.encode())

    def ids(self, section: str) -> set[str]:
        """Return the entry ids that are listed."""
        gid = self._section(section)
        names = [] if gid is None else map(stored_values.name_of, stored_values.attribute_names(gid))
        recent = {row.entry_id for row in self._recent() if row.section == section}
        return recent.union(name for name in names if is_entry_id(name))

    # -- as a whole --------------------------------------------------------------------------------

    def snapshot(self) -> Index:
        """Return all tables as they are now."""
        section, index = self._section(ARTIFACTS), Index()
        for name in map(stored_values.name_of, stored_values.attribute_names(section)):
            what, _, key = name.partition(":")
            if f"{what}:" == _WIDTHS:
                index.by_width[key] = {width: self.structural(key, width) for width in self.widths(key)}
            elif f"{what}:" == _RELATED:
                index.models[key] = self.related(key)
        index.tables = {
            key: self.strict(key) for key in stored_values.names_in(section) if KINDS[ARTIFACTS].is_key(key)
        }
        return index

    def says(self, index: Index) -> bool:
        """Whether the tables are those of ``index``; lists of models as far as they are not full.

        When a model came is not compared: a merge gives artifacts other times.
        """
        mine = self.snapshot()
        if mine.tables != index.tables or mine.by_width != index.by_width or mine.models.keys() != index.models.keys():
            return False
        return all(
            len(models) >= RELATED_ROWS or {m[1:] for m in models} == {m[1:] for m in index.models[name]}
            for name, models in mine.models.items()
        )

    def _set_newest(self, fit: str, newest: tuple[int, str]) -> None:
        text = f"{newest[0]:019d} {newest[1]}"
        stored_values.set_text(self._section(ARTIFACTS), f"{_FIT}{fit}".encode(), text.encode())

    def _set_widths(self, key: str, widths: Iterable[int]) -> None:
        section, name = self._section(ARTIFACTS), f"{_WIDTHS}{key}".encode()
        if widths := sorted(widths):
            stored_values.set_integers(section, name, widths)
        else:
            stored_values.remove_attribute(section, name)

    def _change(self, key: str, name: bytes, before: list[Row], rows: list[Row]) -> None:
        """Make ``rows`` those of a table of the section or, with a strict key, of that key."""
        if rows == before:
            return
        if len(self._kept) >= KEPT_TABLES:
            self._forget_tables()
        self._kept[key, name] = rows
        self._unwritten.add((key, name))
        if not self._keeps:
            self._forget_tables()

    def _forget_tables(self) -> None:
        self.write()
        self._kept.clear()
