"""The index as it lies in the file (docs/file-format.md, "The index"), read and kept up to date.

Everything is an attribute, so that the top level of a section has one child per key and nothing
else:

* of a section, named by an entry id: the key that the entry lies under;
* of the artifacts' section: ``fit:<digits>``, the newest artifact of a fit; ``widths:<structural
  key>``, ``structural:<structural key>:<width>`` and ``related:<relation>``, see `index`;
* of a strict key's group: ``candidates``.

What cannot be read counts as not there, until `verify` makes it anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from gamwarm.encoding import ARTIFACTS, KINDS, DamagedEntry, Encoded, is_entry_id
from gamwarm.entries import stored_values
from gamwarm.entries.index import RELATED_ROWS, TABLE_ROWS, Candidate, Index, Model, Place, with_model, with_row
from gamwarm.entries.stored_values import UNREADABLE, pass_on_others

__all__ = ["StoredIndex"]

log = logging.getLogger("gamwarm")
Row = TypeVar("Row", Candidate, Model)

KEPT_TABLES: Final = 64
_CANDIDATES: Final = b"candidates"
_WIDTHS: Final = "widths:"
_STRUCTURAL: Final = "structural:"
_RELATED: Final = "related:"
_FIT: Final = "fit:"
_FIT_DIGITS: Final = 32


def _fit_name(exact_key: str) -> bytes:
    return f"{_FIT}{exact_key.removeprefix('cf-')[:_FIT_DIGITS]}".encode()


def _width_name(structural_key: str, width: int) -> bytes:
    return f"{_STRUCTURAL}{structural_key}:{width}".encode()


class StoredIndex:
    """The index of an open file.

    Parameters
    ----------
    section_group : callable
        From the name of a section to its group; None if the file has none.
    size : callable
        Bytes of the file: no value reaches further.
    keeps_tables : bool
        Tables that were changed last are known without reading them: only this object changes them.
    """

    def __init__(self, section_group: Callable[[str], Any], size: Callable[[], int], *, keeps_tables: bool) -> None:
        self._section, self._size = section_group, size
        self._kept: dict[bytes, list[Any]] | None = {} if keeps_tables else None

    # -- reading -----------------------------------------------------------------------------------

    def key_of(self, section: str, entry_id: str) -> str | None:
        """Return the key that an entry is filed under; None if it is not in the section."""
        found = self._text(section, entry_id.encode())
        return found if found is not None and KINDS[section].is_key(found) else None

    def newest_of_fit(self, exact_key: str) -> tuple[int, str] | None:
        """Return time and entry id of a fit's newest artifact, which itself has to confirm it."""
        created, _, entry_id = (self._text(ARTIFACTS, _fit_name(exact_key)) or "").partition(" ")
        return (int(created), entry_id) if created.isascii() and created.isdigit() and is_entry_id(entry_id) else None

    def strict(self, key: str) -> list[Candidate]:
        """See `CandidateSource`."""
        try:
            gid = stored_values.open_group(self._section(ARTIFACTS), key.encode())
        except (DamagedEntry, *UNREADABLE) as error:
            pass_on_others(error)
            return []
        return [row for row in self._rows(gid, _CANDIDATES, Candidate.parse) if row.key == key]

    def widths(self, key: str) -> list[int]:
        """See `CandidateSource`."""
        name = f"{_WIDTHS}{key}".encode()
        found = self._tolerant(name, lambda: stored_values.read_vector(self._section(ARTIFACTS), name, self._size()))
        return [] if found is None else list(found.tolist())

    def structural(self, key: str, width: int) -> list[Candidate]:
        """See `CandidateSource`."""
        return self._rows(self._section(ARTIFACTS), _width_name(key, width), Candidate.parse)

    def related(self, name: str) -> list[Model]:
        """See `CandidateSource`."""
        return self._rows(self._section(ARTIFACTS), f"{_RELATED}{name}".encode(), Model.parse)

    def _text(self, section: str, name: bytes) -> str | None:
        gid = self._section(section)
        found = None if gid is None else self._tolerant(name, lambda: stored_values.read(gid, name, self._size()))
        return None if found is None else str(found.decode("ascii", "replace"))

    def _rows(self, gid: Any, name: bytes, parse: Callable[[str], Row | None]) -> list[Row]:
        texts = self._tolerant(name, lambda: stored_values.read_strings(gid, name, self._size()))
        return sorted((row for text in texts or () if (row := parse(text)) is not None), reverse=True)

    @staticmethod
    def _tolerant(name: bytes, read: Callable[[], Any]) -> Any:
        """Return a value; None, as if it were not there, if it cannot be read."""
        try:
            return read()
        except (DamagedEntry, *UNREADABLE) as error:
            pass_on_others(error)
            what = stored_values.name_of(name)
            log.warning("/%s: %s of the index cannot be read (%s); verify() makes it anew", ARTIFACTS, what, error)
            return None

    # -- keeping it up to date ---------------------------------------------------------------------

    def file(self, entry: Encoded) -> None:
        """Index an entry that is being filed."""
        section = self._section(entry.section)
        stored_values.set_text(section, entry.entry_id.encode(), entry.key.encode())
        if KINDS[entry.section].relations is None:
            return
        place = Place.of(entry)
        row = place.row
        if place.fit_key is not None:
            self._set_newest(
                place.fit_key, max((row.created, row.entry_id), self.newest_of_fit(place.fit_key) or (0, ""))
            )
        there = self._table(row.key.encode(), lambda: self.strict(row.key))
        self._set_candidates(row.key, there, with_row(there, row))
        known = bool(there)
        if place.structural_key is not None:
            widths = list(self.widths(place.structural_key))
            if place.width not in widths:
                self._set_widths(place.structural_key, [*widths, place.width])
                known = False
            name = _width_name(place.structural_key, place.width)
            there = self._table(name, lambda: self._rows(section, name, Candidate.parse))
            self._set_rows(section, name, there, with_row(there, row))
            known = known and bool(there)
        if not known:  # else the model is listed already
            for relation in place.related:
                models = self.related(relation)
                self._set_rows(section, f"{_RELATED}{relation}".encode(), models, with_model(models, place.model))

    def forget(self, section: str, entry_id: str) -> None:
        """Take a removed entry out of the ids; for an artifact call `drop` or `rebuild` too."""
        stored_values.remove_attribute(self._section(section), entry_id.encode())

    def drop(self, places: Collection[Place], newest: Mapping[str, tuple[int, str]]) -> bool:
        """Take artifacts that have been removed out of the lists; return False where others might
        have to move up, so that `rebuild` has to follow.

        ``newest``: time and entry id of the newest artifact that is left of a fit.
        """
        self._forget_tables()
        section, gone = self._section(ARTIFACTS), {place.row.entry_id for place in places}
        keys = {place.row.key for place in places if stored_values.has(section, place.row.key.encode())}
        tables = {(place.structural_key, place.width) for place in places if place.structural_key is not None}
        for gid, name in (
            *((stored_values.open_group(section, key.encode()), _CANDIDATES) for key in keys),
            *((section, _width_name(key, width)) for key, width in tables),
        ):
            rows = self._rows(gid, name, Candidate.parse)
            left = [row for row in rows if row.entry_id not in gone]
            if len(left) < len(rows) >= TABLE_ROWS:
                return False
            self._set_rows(gid, name, rows, left)
        for key in {key for key, _ in tables}:
            empty = {width for each, width in tables if each == key and not self.structural(key, width)}
            if empty:
                self._set_widths(key, set(self.widths(key)) - empty)
        for fit_key in {place.fit_key for place in places if place.fit_key is not None}:
            found = self.newest_of_fit(fit_key)
            if found is not None and found[1] in gone:
                if fit_key in newest:
                    self._set_newest(fit_key, newest[fit_key])
                else:
                    stored_values.remove_attribute(section, _fit_name(fit_key))
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
            self._set_rows(
                section,
                f"{_RELATED}{name}".encode(),
                listed,
                [each for each in listed if (each.is_structural, each.key) not in models],
            )
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
            self._set_newest(exact_key, newest)
        for key in stored_values.names_in(section):
            with suppress(DamagedEntry, *UNREADABLE):  # a group that cannot be written keeps what it has
                self._set_candidates(key, [], index.strict(key))
        for key, tables in index.by_width.items():
            self._set_widths(key, tables)
            for width, rows in tables.items():
                self._set_rows(section, _width_name(key, width), [], rows)
        for relation, models in index.models.items():
            self._set_rows(section, f"{_RELATED}{relation}".encode(), [], models)

    def rebuild_ids(self, section: str, keys: Mapping[str, str]) -> None:
        """Write anew where the entries of a section lie."""
        gid = self._section(section)
        for name in self.ids(section) - keys.keys():
            stored_values.remove_attribute(gid, name.encode())
        for entry_id, key in keys.items():
            stored_values.set_text(gid, entry_id.encode(), key.encode())

    def ids(self, section: str) -> set[str]:
        """Return the entry ids that are listed."""
        gid = self._section(section)
        names = [] if gid is None else map(stored_values.name_of, stored_values.attribute_names(gid))
        return {name for name in names if is_entry_id(name)}

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

    def _set_newest(self, exact_key: str, newest: tuple[int, str]) -> None:
        text = f"{newest[0]:019d} {newest[1]}"
        stored_values.set_text(self._section(ARTIFACTS), _fit_name(exact_key), text.encode())

    def _set_candidates(self, key: str, before: list[Candidate], rows: list[Candidate]) -> None:
        if rows != before:
            gid = stored_values.open_group(self._section(ARTIFACTS), key.encode())
            self._set_rows(gid, _CANDIDATES, before, rows, key.encode())

    def _set_widths(self, key: str, widths: Iterable[int]) -> None:
        section, name = self._section(ARTIFACTS), f"{_WIDTHS}{key}".encode()
        if widths := sorted(widths):
            stored_values.set_integers(section, name, widths)
        else:
            stored_values.remove_attribute(section, name)

    def _table(self, known_as: bytes, read: Callable[[], list[Row]]) -> list[Row]:
        found = None if self._kept is None else self._kept.get(known_as)
        return read() if found is None else found

    def _forget_tables(self) -> None:
        if self._kept is not None:
            self._kept.clear()

    def _set_rows(self, gid: Any, name: bytes, before: list[Row], rows: list[Row], known_as: bytes = b"") -> None:
        if rows == before:
            return
        stored_values.set_strings(gid, name, [row.text() for row in rows])
        if self._kept is not None:
            if len(self._kept) >= KEPT_TABLES:
                self._kept.clear()
            self._kept[known_as or name] = rows
