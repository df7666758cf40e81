"""Changes to the entries of an open file: pins, removal, entries of other files, the index, totals.

`EntryEditor` acts on an open HDF5 handle; `entries.EntryStore` puts transactions and locks around
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Final

from gamwarm.encoding import ARTIFACTS, KINDS, DamagedEntry, Encoded, EntrySummary, check_content, decode
from gamwarm.entries import stored_values
from gamwarm.entries.batch import Batch, Problem
from gamwarm.entries.index import Index, Place
from gamwarm.entries.layout import FileView, Irreplaceable

__all__ = ["EntryEditor"]

_PINNED: Final = b"pinned"


class EntryEditor(FileView):
    """A file view that can also pin, remove and import entries, and rebuild the index."""

    # -- pins --------------------------------------------------------------------------------------

    def pins(self, section: str) -> set[str]:
        """Return the entry ids pinned in a section; none where `unread_pins` says why."""
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
            stored_values.set_strings(self.section_group(section), _PINNED, sorted(ids))

    def section_of(self, entry_id: str) -> str | None:
        """Return the section that holds an entry, intact or not; None if none does."""
        return next((section for section in KINDS if self.path_of(section, entry_id) is not None), None)

    # -- removal -----------------------------------------------------------------------------------

    @contextmanager
    def scanning(self) -> Iterator[None]:
        """Read entries as quickly as outside of a transaction; nothing is changed meanwhile."""
        if self._peek is not None or self._flushed is None:
            yield
            return
        self._peek = self._flushed()
        try:
            yield
        finally:
            self._peek = None

    def remove(self, chosen: Iterable[tuple[str, str, str]], newest: Mapping[str, tuple[int, str]]) -> set[str]:
        """Remove entries, each given as (section, path, entry id); return the ids removed (damage
        can prevent it).

        ``newest``: time and entry id of the newest artifact that is then left of a fit.
        """
        by_key: dict[tuple[str, str], dict[str, str]] = {}
        for section, path, entry_id in chosen:
            by_key.setdefault((section, path.split("/", 1)[0]), {})[path] = entry_id
        with self.scanning():
            intact = {(section, path): seen for section, path, seen in self._weighed(by_key)}
        gone: set[str] = set()
        places: list[Place] = []
        damaged = False
        for (section, key), ids in by_key.items():
            known = {path: intact[section, path] for path in ids if (section, path) in intact}
            if KINDS[section].competes and known.keys() != set(self.entry_paths(section, key)):
                try:
                    self.write_key(
                        section, key, [e for e in self._whole(section, key) if e.entry_id not in ids.values()]
                    )
                except Irreplaceable:
                    continue
                gone |= set(ids.values())
                continue
            removed = {entry_id for entry_id, _, _ in known.values()}
            for path in sorted(ids.keys() - known.keys()):
                try:
                    damaged |= self._remove(section, path)
                except Irreplaceable:
                    continue
                removed.add(ids[path])
            if removed:
                self._unlink(section, key, known)
            gone |= removed
            places += [place for _, _, place in known.values() if place is not None]
        if damaged:
            self.recount()
        if damaged or not self.index.drop(places, newest):  # the next best candidates move up
            self.rebuild_tables()
        return gone

    def _weighed(
        self, paths: Mapping[tuple[str, str], Iterable[str]]
    ) -> Iterator[tuple[str, str, tuple[str, int, Place | None]]]:
        """Yield entry id, bytes and place in the index of the intact entries."""
        for (section, _), some in paths.items():
            listed = KINDS[section].relations is not None
            for path in some:
                with suppress(DamagedEntry):
                    entry = self.read(section, path)
                    yield section, path, (entry.entry_id, entry.nbytes, Place.of(entry) if listed else None)

    def _unlink(self, section: str, key: str, known: Mapping[str, tuple[str, int, Place | None]]) -> None:
        """Remove intact entries: all of a key, or some of those below it.

        A key without any is removed too.
        """
        for entry_id, nbytes, _ in known.values():
            self._account(-1, -nbytes)
            self.index.forget(section, entry_id)
        if not KINDS[section].competes:
            gid = self._group(section, key)
            for path in known:
                gid.unlink(path.rpartition("/")[2].encode())
            if gid.get_num_objs():
                return
        self.section_group(section).unlink(key.encode())

    def _whole(self, section: str, key: str) -> list[Encoded]:
        found = []
        for path in self.entry_paths(section, key):
            try:
                found.append(self.read(section, path))
            except DamagedEntry:
                continue
        return found

    # -- totals and index --------------------------------------------------------------------------

    def read_index(self, ids: Collection[str] | None = None) -> Index:
        """Return the index of intact artifacts (of these ids), with all of them in every table."""
        index = Index(None)
        for key in self.keys(ARTIFACTS):
            for entry in self._whole(ARTIFACTS, key):
                if ids is None or entry.entry_id in ids:
                    index.add(entry)
        return index

    def rebuild_tables(self) -> None:
        """Write the tables of the index anew, from all artifacts."""
        self.index.rebuild(self._artifacts())

    def _artifacts(self) -> Iterator[Encoded]:
        with self.scanning():
            for key in self.keys(ARTIFACTS):
                yield from self._whole(ARTIFACTS, key)

    def set_totals(self, **totals: int) -> None:
        """Write running totals."""
        for name, value in totals.items():
            self._set_total(name, value)

    # -- checking ----------------------------------------------------------------------------------

    def find_inconsistencies(
        self, entries: int, nbytes: int, last_created: int, index: Index, *, misplaced: bool
    ) -> tuple[Problem, ...]:
        """Return where totals and index say other than what was counted: what `rebuild` repairs.

        ``misplaced``: whether an entry was not found by its id (`is_indexed`).
        """
        counts = {"n_entries": entries, "live_bytes": nbytes, "last_created": last_created}
        wrong = []
        for name, counted in counts.items():
            stated = self.stated_total(name)
            # The latest entry ever written may be gone.
            if stated is None or (stated < counted if name == "last_created" else stated != counted):
                says = "is not a total" if stated is None else f"says {stated}"
                wrong.append(Problem("/", f"attribute {name} {says}, but {counted} were counted"))
        if misplaced or sum(len(self.index.ids(section)) for section in KINDS) != entries:
            wrong.append(Problem("/", "the index does not say where entries lie"))
        if not self.index.says(index):
            wrong.append(Problem(f"/{ARTIFACTS}", "the index does not list the artifacts that are best to start from"))
        return tuple(wrong)

    def is_indexed(self, entry: Encoded, said: EntrySummary) -> bool:
        """Whether the index says where an entry lies, and that an artifact's fit has one as new."""
        if self.index.key_of(entry.section, said.entry_id) != entry.key:
            return False
        if KINDS[entry.section].relations is None or said.fit_key is None:
            return True
        newest = self.index.newest_of_fit(said.fit_key)
        return newest is not None and newest >= (said.created, said.entry_id)

    def rebuild(self) -> None:
        """Recount the totals and rebuild the index."""
        self.recount()
        self.rebuild_tables()

    def rebuild_index(self) -> None:
        """Write the index anew, from all entries."""
        for section in KINDS:
            entries = chain.from_iterable(self._whole(section, key) for key in self.keys(section))
            self.index.rebuild_ids(section, {entry.entry_id: entry.key for entry in entries})
        self.rebuild_tables()

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
        """Unite the entries of a key with others of it; return the ids before and after.

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
        """Write another file's entry unless the same is here, no older; return whether it was."""
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
