"""Changes to the entries of an open file: pins, removal, entries of other files, the structural
index, totals.

`EntryEditor` acts on an open HDF5 handle; `entries.EntryStore` puts transactions and locks around
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from gamwarm.entries import stored_values, structural_index
from gamwarm.entries.batch import Batch, Problem
from gamwarm.entries.codec import ARTIFACTS, DamagedEntry, Encoded, check_content, decode
from gamwarm.entries.entry_kind import KINDS
from gamwarm.entries.layout import FileView, Irreplaceable
from gamwarm.entries.texts import is_descriptor_key

__all__ = ["EntryEditor"]

_PINNED: Final = b"pinned"


class EntryEditor(FileView):
    """A file view that can also pin and remove entries, import those of other files, and rebuild
    the index.
    """

    # -- pins --------------------------------------------------------------------------------------

    def pins(self, section: str) -> set[str]:
        """Return the entry ids that are pinned in a section; none where `unread_pins` says that
        they cannot be read.
        """
        return set() if self.unread_pins(section) else set(self._pins(section))

    def all_pins(self) -> set[str]:
        """Return the entry ids that are pinned."""
        return set().union(*map(self.pins, KINDS))

    def _pins(self, section: str) -> list[str]:
        there = self.has_section(section)
        return stored_values.read_strings(self.section_group(section), _PINNED, self.size) if there else []

    def unread_pins(self, section: str) -> Problem | None:
        """Return why the list of pinned entries of a section cannot be read, if so."""
        try:
            self._pins(section)
        except DamagedEntry as error:
            return Problem(f"/{section}", f"which entries are pinned cannot be read ({error}); pin them again")
        return None

    def set_pins(self, section: str, ids: Collection[str]) -> None:
        """Make ``ids`` the pinned entries of a section."""
        if self.unread_pins(section) or ids != self.pins(section):
            self._set_strings(section, _PINNED, ids)

    def section_of(self, entry_id: str) -> str | None:
        """Find the section that holds an entry, intact or with damaged vectors; None if neither
        does.
        """
        for section, kind in sorted(KINDS.items(), key=lambda item: item[1].competes):  # names first, then texts
            if kind.competes:
                found = any(self._is_at(section, path, entry_id) for path in self._paths_in(section))
            else:
                found = next(self.child_paths(section, entry_id), None) is not None
            if found:
                return section
        return None

    def _paths_in(self, section: str) -> Iterator[str]:
        for key in self.keys(section):
            yield from self.entry_paths(section, key)

    def _is_at(self, section: str, path: str, entry_id: str) -> bool:
        try:
            return path.endswith("/" + entry_id) or self.read_summary(section, path).entry_id == entry_id
        except DamagedEntry:
            return False

    # -- removal -----------------------------------------------------------------------------------

    def remove(self, chosen: Iterable[tuple[str, str, str]]) -> set[str]:
        """Remove entries, each given as (section, path, entry id); return the ids removed (damage
        can prevent it).
        """
        by_key: dict[tuple[str, str], set[str]] = {}
        for section, path, entry_id in chosen:
            by_key.setdefault((section, path.split("/", 1)[0]), set()).add(entry_id)
        gone: set[str] = set()
        for (section, key), ids in by_key.items():
            if not KINDS[section].competes:
                gone |= self._remove_children(section, key, ids)
                continue
            try:
                self.write_key(section, key, [e for e in self._whole(section, key) if e.entry_id not in ids])
            except Irreplaceable:
                continue
            gone |= ids
        return gone

    def _whole(self, section: str, key: str) -> list[Encoded]:
        found = []
        for path in self.entry_paths(section, key):
            try:
                found.append(self.read(section, path))
            except DamagedEntry:
                continue
        return found

    def _remove_children(self, section: str, key: str, ids: set[str]) -> set[str]:
        gone: set[str] = set()
        structural = self._structural_keys(section, key, ids)
        damaged = False
        for entry_id in sorted(ids):
            try:
                damaged |= self._remove(section, f"{key}/{entry_id}")
            except Irreplaceable:
                continue
            gone.add(entry_id)
        if not self.entry_paths(section, key):
            self.section_group(section).unlink(key.encode())
        for name in structural - self._structural_keys(section, key):
            self._unindex(name, key)
        if damaged:
            self.recount()
        return gone

    def _structural_keys(self, section: str, key: str, ids: Collection[str] | None = None) -> set[str]:
        """Return the structural keys of the intact entries of a strict key (of these ids)."""
        summaries = [entry.summary() for entry in self._whole(section, key)]
        return {s.structural_key for s in summaries if s.structural_key and (ids is None or s.entry_id in ids)}

    # -- the structural index ----------------------------------------------------------------------

    def index(self) -> dict[str, list[str]]:
        """Return the structural index as stored."""
        keys = {structural_index.structural_key_of(stored_values.name_of(name)) for name in self._lists()}
        return {key: self.strict_keys(key) if is_descriptor_key(key) else [] for key in keys}

    def set_index(self, index: Mapping[str, Collection[str]]) -> None:
        """Make ``index`` the structural index."""
        wanted: dict[bytes, list[str]] = {}
        for name, keys in index.items():
            wanted |= structural_index.lists_of(name, keys)
        for attribute in sorted({*self._lists(), *wanted}):
            self._set_strings(ARTIFACTS, attribute, wanted.get(attribute, []))

    def _unindex(self, structural_key: str, strict_key: str) -> None:
        name = structural_index.first_list(structural_key)
        listed = self._listed(name)
        if strict_key not in listed:
            name = structural_index.list_by_digits(structural_key, strict_key)
            listed = self._listed(name)
        elif len(listed) >= structural_index.FULL:
            listed += self._take_one(structural_key)
        self._set_strings(ARTIFACTS, name, [key for key in listed if key != strict_key])

    def _take_one(self, structural_key: str) -> list[str]:
        """Take a key out of the lists by digits: the first list stays full while they hold any."""
        for name in structural_index.lists_by_digits(structural_key):
            keys = self._listed(name)
            if keys:
                self._set_strings(ARTIFACTS, name, keys[1:])
                return keys[:1]
        return []

    def _lists(self) -> list[bytes]:
        names = stored_values.attribute_names(self.section_group(ARTIFACTS))
        return [name for name in names if name.startswith(structural_index.PREFIX.encode())]

    def set_totals(self, **totals: int) -> None:
        """Write running totals."""
        for name, value in totals.items():
            self._set_total(name, value)

    # -- checking ----------------------------------------------------------------------------------

    def find_inconsistencies(
        self, entries: int, nbytes: int, last_created: int, index: Mapping[str, set[str]]
    ) -> tuple[Problem, ...]:
        """Return differences between counts and the stored totals and structural index: what
        `rebuild` repairs.
        """
        counts = {"n_entries": entries, "live_bytes": nbytes, "last_created": last_created}
        wrong = []
        for name, counted in counts.items():
            stated = self.stated_total(name)
            # The latest entry ever written may be gone.
            if stated is None or (stated < counted if name == "last_created" else stated != counted):
                says = "is not a total" if stated is None else f"says {stated}"
                wrong.append(Problem("/", f"attribute {name} {says}, but {counted} were counted"))
        if {name: set(keys) for name, keys in self.index().items()} != index:
            wrong.append(Problem(f"/{ARTIFACTS}", "the structural index does not match the artifacts"))
        return tuple(wrong)

    def rebuild(self) -> None:
        """Recount the totals and rebuild the structural index."""
        self.recount()
        index: dict[str, list[str]] = {}
        for key in self.keys(ARTIFACTS):
            for name in self._structural_keys(ARTIFACTS, key):
                index.setdefault(name, []).append(key)
        self.set_index(index)

    # -- other files -------------------------------------------------------------------------------

    def keys_and_pins(self, section: str) -> tuple[list[str], set[str]]:
        """Return the keys of a section, and its pinned entry ids."""
        return self.keys(section), self.pins(section)

    def read_batch(self, key: str, *, section: str, pins: set[str]) -> Batch:
        """Read the entries of a key for another file: seal and content digest must confirm each."""
        whole, damaged = [], []
        for path in self.entry_paths(section, key):
            try:
                entry = self.read(section, path)
                check_content(entry)
                decode(entry)
                whole.append(entry)
            except DamagedEntry as error:
                damaged.append(Problem(f"/{section}/{path}", str(error)))
        return Batch(section, key, whole, pins & {e.entry_id for e in whole}, damaged)

    def absorb(self, section: str, key: str, entries: Sequence[Encoded], keep_last: int) -> tuple[set[str], set[str]]:
        """Unite the entries of a key with others of the same key; return the ids there before and
        after.

        Raises
        ------
        Irreplaceable
            Damage keeps HDF5 from writing there.
        """
        kind = KINDS[section]
        if kind.unite is None:
            before = {e.entry_id for e in entries if self._absorb_child(e)}
            return before, {e.entry_id for e in entries}
        there = self._whole(section, key)
        # Of one content the latest time counts.
        latest = {e.entry_id: e for e in sorted([*there, *entries], key=lambda e: e.created)}
        kept = [latest[s.entry_id] for s in kind.unite([e.summary() for e in latest.values()], keep_last)]
        if {(e.entry_id, e.created) for e in kept} != {(e.entry_id, e.created) for e in there}:
            self.write_key(section, key, kept)
        return {e.entry_id for e in there}, {e.entry_id for e in kept}

    def _absorb_child(self, entry: Encoded) -> bool:
        """Write an entry of another file unchanged, unless this file has it with the same or a
        later time; return whether it was.
        """
        known = False
        if self.has_child(entry.section, entry.key, entry.entry_id):
            try:
                known = True
                if self.read(entry.section, f"{entry.key}/{entry.entry_id}").created >= entry.created:
                    return True
            except DamagedEntry:
                known = False
        self.write_child(entry)
        return known
