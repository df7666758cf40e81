"""What keeps a file in shape: pins, eviction, absorbing other files, copying all of it anew; and the reports of that.

`UpkeepView` acts on an open HDF5 handle; `entries.EntryStore` puts transactions and locks around it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import h5py
from h5py import h5o

from gamwarm.display import visible
from gamwarm.interrupts import deliver
from gamwarm.storage import _index_lists, _values
from gamwarm.storage._values import UNREADABLE
from gamwarm.storage.codec import ARTIFACTS, RECORDS, SECTIONS, DamagedEntry, Encoded, check_content, decode
from gamwarm.storage.layout import FileView, Irreplaceable, create_file
from gamwarm.storage.texts import is_descriptor_key

__all__ = [
    "CompactReport",
    "EvictReport",
    "Evicted",
    "MergeReport",
    "Portion",
    "Problem",
    "SalvageReport",
    "UpkeepView",
    "Verdict",
    "VerifyReport",
    "copy_file",
    "order_of_eviction",
]

_PINNED: Final = b"pinned"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file."""

    place: str
    reason: str

    def __str__(self) -> str:
        return visible(f"{self.place}: {self.reason}")


class Verdict(StrEnum):
    """What `verify` makes of a file: nothing wrong, wrong and put right, or wrong."""

    SOUND = "sound"
    REPAIRED = "repaired"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    problems : tuple of Problem
        What is wrong and stays so.
    entries : int
        Entries looked at.
    nbytes : int
        Payload bytes read.
    repaired : tuple of Problem
        What was wrong and has been put right: a journal that had to be replayed on opening, running totals, the
        structural index.
    complete : bool
        False if the progress callback ended the walk; the verdict is then of the entries looked at.
    """

    problems: tuple[Problem, ...]
    entries: int
    nbytes: int
    repaired: tuple[Problem, ...] = ()
    complete: bool = True

    @property
    def ok(self) -> bool:
        """Whether every entry was looked at and nothing is wrong now."""
        return self.complete and not self.problems

    @property
    def verdict(self) -> Verdict:
        if self.problems:
            return Verdict.DAMAGED
        return Verdict.REPAIRED if self.repaired else Verdict.SOUND


@dataclass(frozen=True)
class Evicted:
    """One entry that eviction removed (or would remove)."""

    entry_id: str
    place: str
    nbytes: int


@dataclass(frozen=True)
class EvictReport:
    """What `evict` removed, in its order: oldest first.

    Attributes
    ----------
    evicted : tuple of Evicted
    bytes_before, bytes_after : int
        Live payload bytes.
    dry_run : bool
        Nothing was removed; this is what would be.
    reason : str
        Why nothing was done (the store is off, or read only); else empty.
    """

    evicted: tuple[Evicted, ...] = ()
    bytes_before: int = 0
    bytes_after: int = 0
    dry_run: bool = False
    reason: str = ""

    @property
    def entry_ids(self) -> tuple[str, ...]:
        return tuple(entry.entry_id for entry in self.evicted)


@dataclass(frozen=True)
class CompactReport:
    """What `compact` gave back.

    Attributes
    ----------
    bytes_before, bytes_after : int
        Size of the file.
    entries : int
        Entries copied, damaged ones that could be copied included.
    lost : tuple of Problem
        Entries so damaged that HDF5 could not copy them; they are not in the file any more.
    reason : str
        Why nothing was done; else empty.
    """

    bytes_before: int = 0
    bytes_after: int = 0
    entries: int = 0
    lost: tuple[Problem, ...] = ()
    reason: str = ""

    @property
    def given_back(self) -> int:
        return self.bytes_before - self.bytes_after


@dataclass(frozen=True)
class MergeReport:
    """What `merge` took over.

    Attributes
    ----------
    added : tuple of str
        Entry ids that this file did not hold before and holds now, sorted.
    seen : int
        Whole entries of the source.
    superseded : int
        Of these, records not kept because a newer final or a better checkpoint of their fit is.
    problems : tuple of Problem
        Damaged entries of the source (skipped), and keys of this file that damage keeps from being written.
    reason : str
        Why nothing was done; else empty.
    """

    added: tuple[str, ...] = ()
    seen: int = 0
    superseded: int = 0
    problems: tuple[Problem, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class SalvageReport:
    """What `salvage` brought to safety.

    Attributes
    ----------
    copied : tuple of str
        Entry ids in the new file, sorted.
    problems : tuple of Problem
        What could not be reached, or failed its digests.
    into : str
        Path of the new file; empty if none was made.
    reason : str
        Why nothing was done; else empty.
    """

    copied: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    into: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Portion:
    """The entries of one key of some file, on their way into another."""

    section: str
    key: str
    entries: list[Encoded]
    pinned: set[str] = field(default_factory=set)
    damaged: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Weighed:
    """What eviction needs to know of an entry."""

    section: str
    path: str
    entry_id: str
    created: int
    nbytes: int
    parent: str | None
    """Of a checkpoint: the entry that its fit started from."""


def order_of_eviction(
    weighed: Iterable[Weighed], *, size_budget: int | None, before: int | None, keep: Collection[str]
) -> list[Weighed]:
    """Choose what goes, oldest first (ties by entry id), until the rest is within ``size_budget`` and not too old.

    Parameters
    ----------
    weighed : iterable of Weighed
    size_budget : int or None
        Live bytes that may stay.
    before : int or None
        What was created before this time (UTC microseconds) goes.
    keep : collection of str
        Entry ids that stay whatever their age.
    """
    entries = sorted(weighed, key=lambda e: (e.created, e.entry_id))
    live = sum(e.nbytes for e in entries)
    chosen = []
    for entry in entries:
        too_old = before is not None and entry.created < before
        too_much = size_budget is not None and live > size_budget
        if (too_old or too_much) and entry.entry_id not in keep:
            chosen.append(entry)
            live -= entry.nbytes
    return chosen


class UpkeepView(FileView):
    """A file view that can also pin, remove, take over from other files, and put its index right."""

    # -- pins --------------------------------------------------------------------------------------------------

    def pins(self, section: str) -> set[str]:
        """Return the entry ids that are pinned in a section; none where `unread_pins` says that they cannot be read."""
        return set() if self.unread_pins(section) else set(self._pins(section))

    def _pins(self, section: str) -> list[str]:
        return _values.read_strings(self._section(section), _PINNED, self.size)

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
        """Find the section that holds an entry, whole or damaged in its vectors; None if neither does."""
        for _ in self.artifact_paths(entry_id):
            return ARTIFACTS
        for key in self.keys(RECORDS):
            for path in self.entry_paths(RECORDS, key):
                try:
                    if path.endswith("/" + entry_id) or self.read_meta(RECORDS, path).get("entry_id") == entry_id:
                        return RECORDS
                except DamagedEntry:
                    continue
        return None

    # -- eviction ----------------------------------------------------------------------------------------------

    def weigh(self) -> list[Weighed]:
        """Look at every whole entry. Damaged ones weigh nothing: `verify` lists them."""
        found = []
        for section, path in self.all_paths():
            try:
                entry = self.read(section, path)
                lineage = entry.meta.get("lineage") if entry.meta.get("kind") == "checkpoint" else None
                parent = None if lineage is None else lineage.get("entry")
                found.append(Weighed(section, path, entry.entry_id, entry.created, entry.nbytes, parent))
            except DamagedEntry:
                continue
        return found

    def remove(self, chosen: Sequence[Weighed]) -> set[str]:
        """Remove entries; return the entry ids of those that could be (damage may keep HDF5 from it)."""
        by_key: dict[tuple[str, str], set[str]] = {}
        for entry in chosen:
            by_key.setdefault((entry.section, entry.path.split("/", 1)[0]), set()).add(entry.entry_id)
        gone: set[str] = set()
        for (section, key), ids in by_key.items():
            if section == ARTIFACTS:
                gone |= self._remove_artifacts(key, ids)
                continue
            try:
                self.write_records(key, [e for e in self._whole(RECORDS, key) if e.entry_id not in ids])
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

    def _remove_artifacts(self, key: str, ids: set[str]) -> set[str]:
        gone: set[str] = set()
        structural = {e.meta["structural_key"] for e in self._whole(ARTIFACTS, key) if e.entry_id in ids}
        damaged = False
        for entry_id in sorted(ids):
            try:
                damaged |= self._remove(ARTIFACTS, f"{key}/{entry_id}")
            except Irreplaceable:
                continue
            gone.add(entry_id)
        left = self.entry_paths(ARTIFACTS, key)
        if not left:
            self._section(ARTIFACTS).unlink(key.encode())
        for name in structural - {None} - {e.meta["structural_key"] for e in self._whole(ARTIFACTS, key)}:
            self._unindex(name, key)
        if damaged:
            self.recount()
        return gone

    # -- the structural index ----------------------------------------------------------------------------------

    def index(self) -> dict[str, list[str]]:
        """Return the structural index as stored."""
        keys = {_index_lists.structural_key_of(_values.name_of(name)) for name in self._lists()}
        return {key: self.strict_keys(key) if is_descriptor_key(key) else [] for key in keys}

    def set_index(self, index: Mapping[str, Collection[str]]) -> None:
        """Make ``index`` the structural index."""
        wanted: dict[bytes, list[str]] = {}
        for name, keys in index.items():
            wanted |= _index_lists.lists_of(name, keys)
        for attribute in sorted({*self._lists(), *wanted}):
            self._set_strings(ARTIFACTS, attribute, wanted.get(attribute, []))

    def _unindex(self, structural_key: str, strict_key: str) -> None:
        name = _index_lists.first_list(structural_key)
        listed = self._listed(name)
        if strict_key not in listed:
            name = _index_lists.list_by_digits(structural_key, strict_key)
            listed = self._listed(name)
        elif len(listed) >= _index_lists.FULL:
            listed += self._take_one(structural_key)
        self._set_strings(ARTIFACTS, name, [key for key in listed if key != strict_key])

    def _take_one(self, structural_key: str) -> list[str]:
        """Take a key out of the lists by digits: the first list stays full while they hold any."""
        for name in _index_lists.lists_by_digits(structural_key):
            keys = self._listed(name)
            if keys:
                self._set_strings(ARTIFACTS, name, keys[1:])
                return keys[:1]
        return []

    def _lists(self) -> list[bytes]:
        names = _values.attribute_names(self._section(ARTIFACTS))
        return [name for name in names if name.startswith(_index_lists.PREFIX.encode())]

    def set_totals(self, **totals: int) -> None:
        """Write running totals."""
        for name, value in totals.items():
            self._set_total(name, value)

    # -- checking ----------------------------------------------------------------------------------------------

    def misstated(
        self, entries: int, nbytes: int, last_created: int, index: Mapping[str, set[str]]
    ) -> tuple[Problem, ...]:
        """Return where totals and structural index say other than what was counted: what `put_right` puts right."""
        counts = {"n_entries": entries, "live_bytes": nbytes, "last_created": last_created}
        wrong = []
        for name, counted in counts.items():
            stated = self.stated_total(name)
            # The latest entry ever written may be gone.
            if stated is None or (stated < counted if name == "last_created" else stated != counted):
                says = "is not a total" if stated is None else f"says {stated}"
                wrong.append(Problem("/", f"attribute {name} {says}, counted {counted}"))
        if {name: set(keys) for name, keys in self.index().items()} != index:
            wrong.append(Problem(f"/{ARTIFACTS}", "the structural index does not list what the artifacts say"))
        return tuple(wrong)

    def put_right(self) -> None:
        """Count and index anew."""
        self.recount()
        index: dict[str, list[str]] = {}
        for key in self.keys(ARTIFACTS):
            for name in {e.meta.get("structural_key") for e in self._whole(ARTIFACTS, key)} - {None}:
                index.setdefault(str(name), []).append(key)
        self.set_index(index)

    # -- other files -------------------------------------------------------------------------------------------

    def keys_and_pins(self, section: str) -> tuple[list[str], set[str]]:
        """Return the keys of a section, and its pinned entry ids."""
        return self.keys(section), self.pins(section)

    def portion(self, key: str, *, section: str, pins: set[str]) -> Portion:
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
        return Portion(section, key, whole, pins & {e.entry_id for e in whole}, damaged)

    def absorb(self, section: str, key: str, entries: Sequence[Encoded], keep_last: int) -> tuple[set[str], set[str]]:
        """Unite the entries of a key with others of the same key; return the ids there before and after.

        Raises
        ------
        Irreplaceable
            Damage keeps HDF5 from writing there.
        """
        if section == RECORDS:
            return self._absorb_records(key, entries, keep_last)
        before = {e.entry_id for e in entries if self._absorb_artifact(e)}
        return before, {e.entry_id for e in entries}

    def _absorb_records(self, key: str, entries: Sequence[Encoded], keep_last: int) -> tuple[set[str], set[str]]:
        """Unite records.

        What stays does not depend on the order in which files are merged: of one content the latest ``created``
        counts, and checkpoints are ranked without the tolerance that a put allows (it is not transitive).
        """
        there = self._whole(RECORDS, key)
        best = _latest([*there, *entries])
        finals = [e for e in best if e.meta.get("kind") == "final"]
        checkpoints = [e for e in best if e.meta.get("kind") != "final"]
        finals.sort(key=lambda e: (e.created, e.entry_id), reverse=True)
        kept = finals[:keep_last] + sorted(checkpoints, key=_checkpoint_rank)[:1]
        if {(e.entry_id, e.created) for e in kept} != {(e.entry_id, e.created) for e in there}:
            self.write_records(key, kept)
        return {e.entry_id for e in there}, {e.entry_id for e in kept}

    def _absorb_artifact(self, entry: Encoded) -> bool:
        """File an artifact of another file as it is, unless it is here as late or later; return whether it was."""
        known = False
        if self.has_artifact(entry.key, entry.entry_id):
            try:
                known = True
                if self.read(ARTIFACTS, f"{entry.key}/{entry.entry_id}").created >= entry.created:
                    return True
            except DamagedEntry:
                known = False
        self.write_artifact(entry)
        return known


def _latest(entries: Iterable[Encoded]) -> list[Encoded]:
    best: dict[str, Encoded] = {}
    for entry in entries:
        if entry.entry_id not in best or entry.created > best[entry.entry_id].created:
            best[entry.entry_id] = entry
    return list(best.values())


def _checkpoint_rank(entry: Encoded) -> tuple[bool, float, int, str]:
    objective: Any = entry.meta.get("objective")
    # Ties go to the newest, then to the larger entry id, as everywhere; the id is compared upside down.
    upside_down = "".join(f"{15 - int(digit, 16):x}" for digit in entry.entry_id)
    return objective is None, 0.0 if objective is None else float(objective), -entry.created, upside_down


def copy_file(old: h5py.File, new: h5py.File) -> tuple[int, list[Problem]]:
    """Copy every entry of ``old``, byte for byte with its seal, into the empty file ``new``; return how many.

    An entry that cannot be copied is listed. Keys go in ascending order, so equal contents make equal layouts.
    """
    create_file(new)
    source = UpkeepView(old)
    target = UpkeepView(new, size=2 * source.size)
    lost: list[Problem] = []
    index: dict[str, list[str]] = {}
    ids: dict[str, set[str]] = {RECORDS: set(), ARTIFACTS: set()}
    entries = nbytes = 0
    last = source.total("last_created")
    for section in SECTIONS:
        for key in source.keys(section):
            deliver()
            lost += _copy_key(source, target, section, key)
            for path in target.entry_paths(section, key):
                entries += 1
                try:
                    entry = target.read(section, path)
                except DamagedEntry:
                    continue
                nbytes += entry.nbytes
                last = max(last, entry.created)
                ids[section].add(entry.entry_id)
                structural = entry.meta.get("structural_key") if section == ARTIFACTS else None
                if structural is not None and key not in index.setdefault(structural, []):
                    index[structural].append(key)
        unread = source.unread_pins(section)
        lost += [unread] if unread else []
        target.set_pins(section, source.pins(section) & ids[section])
    target.set_index(index)
    target.set_totals(last_created=last, n_entries=entries, live_bytes=nbytes)
    return entries, lost


def _copy_key(source: UpkeepView, target: UpkeepView, section: str, key: str) -> list[Problem]:
    """Copy one key's group as it is; if HDF5 cannot or should not, what can be read of it."""
    parent, name = target._section(section), _values.encoded(key)
    try:
        source.check_forms(section, key)
        h5o.copy(source._section(section), name, parent, name)
    except (DamagedEntry, *UNREADABLE) as error:
        _values.pass_on_disk_error(error)
        if _values.has(parent, name):
            parent.unlink(name)
        reason = str(error)
    else:
        return []
    lost, whole = [], []
    for path in source.entry_paths(section, key):
        try:
            whole.append(source.read(section, path))
        except DamagedEntry as damage:
            lost.append(Problem(f"/{section}/{path}", f"could not be copied: {damage}"))
    if section == ARTIFACTS:
        for entry in whole:
            target.write_artifact(entry)
    elif whole:
        target.write_records(key, whole)
    return lost or [Problem(f"/{section}/{key}", f"could not be copied as a whole: {reason}")]


KEEP_ALL: Final = sys.maxsize
