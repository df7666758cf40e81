"""How entries lie in the HDF5 file (docs/file-format.md, "Inside the HDF5 file").

```
/                                README, format_version, last_created, n_entries, live_bytes
/block_records                   README
/block_records/<exact key>       one entry; a second one is a child group named by its entry id
/fit_artifacts                   README
/fit_artifacts/<strict key>/<entry id>
```

Beside these attributes the sections and the strict keys' groups have those of the index
(`stored_index`).

An entry is a group with the attributes ``meta`` (JSON), ``seal``, ``rho``, ``beta`` and, where
present, ``curvature``, ``inner``, ``active``, ``components``, ``seeds``; a value too large for an
attribute is a contiguous dataset of the same name. `stored_values` says what each may be, and reads
and writes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5, h5a, h5g, h5l, h5p

from gamwarm.encoding import KINDS, RECORDS, DamagedEntry, Encoded, EntryKind, EntrySummary, key_of, seal_of, texts
from gamwarm.entries import object_header, stored_values
from gamwarm.entries.stored_index import StoredIndex
from gamwarm.entries.stored_values import UNREADABLE, Kind, encoded, pass_on_others
from gamwarm.errors import NotAStore, StoreDamaged, StoreReadOnly
from gamwarm.formats import ENTRY
from gamwarm.storage import Peek

__all__ = ["ARCHIVE", "FileView", "Irreplaceable", "check_file", "create_file"]

log = logging.getLogger("gamwarm")

ARCHIVE: Final = "archive"
_WORDS: Final = ("rho", "beta", "curvature", "inner", "active", "components", "seeds")
_VECTORS: Final = {name: name.encode() for name in _WORDS}
_IN_HEADERS: Final = {
    name: (word, object_header.INTEGERS, "<i8")
    if stored_values.FORMS[name].kind is Kind.INTEGERS
    else (word, object_header.FLOATS, "<f8")
    for word, name in _VECTORS.items()
}
"""What the vectors are in an object header: our name, kind of the elements, type of the array."""
_VALUES: Final = frozenset({"meta", "seal", *_WORDS})
_TOTALS: Final = ("last_created", "n_entries", "live_bytes")


_MOST_TOTAL: Final = 2**62
_OVERHEAD: Final = 1 << 16
"""Bytes of HDF5's own that come with an entry, amply."""


class Irreplaceable(Exception):
    """HDF5 cannot remove an object whose header is damaged. Never leaves the storage layer."""


_ROOT_README: Final = (
    "gamwarm store, entry format {version}. Results of penalized-likelihood fits. "
    "/block_records/<exact key>: state of one fit. /fit_artifacts/<descriptor key>/<entry id>: what one fit gives a "
    "related one. Each entry is a group: attribute 'meta' is JSON (names, widths, kinds, producer, cost in counts and "
    "seconds, created in microseconds UTC), 'rho' holds log smoothing parameters (log lambda, dimensionless), 'beta' "
    "coefficients block by block in the units of response per unit of covariate on the linear-predictor scale, "
    "'curvature' the parts that meta names (gradient and hessian of the objective with respect to rho, edf, plateau "
    "and settled 0/1), 'seal' a BLAKE3 digest of all of it. "
    "Written and checked by the Python package gamwarm; docs/file-format.md there has the details."
)


_GROUP: Final = stored_values.timeless(h5p.GROUP_CREATE)


def create_file(h5: h5py.File) -> None:
    """Lay out a new file."""
    root = h5["/"].id
    stored_values.write_text(root, b"README", _ROOT_README.format(version=ENTRY.current).encode())
    stored_values.set_integer(root, b"format_version", ENTRY.current)
    for total in _TOTALS:
        stored_values.set_integer(root, total.encode(), 0)
    for kind in KINDS.values():
        if kind.since <= ENTRY.current:
            _create_section(root, kind)


def _create_section(root: Any, kind: EntryKind) -> Any:
    gcpl = stored_values.timeless(h5p.GROUP_CREATE)
    # Attributes outside the object header are unlimited: there may be any number of lists.
    gcpl.set_attr_phase_change(0, 0)
    gid = h5g.create(root, kind.section.encode(), gcpl=gcpl)
    stored_values.write_text(gid, b"README", kind.readme.encode())
    return gid


def check_file(h5: h5py.File, path: Path, *, writing: bool = False) -> None:
    """Refuse contents of another program or format, and to write to an archive."""
    root = h5g.open(h5.id, b"/")
    sections = [kind.section.encode() for kind in KINDS.values() if kind.since <= ENTRY.current]
    if not (h5a.exists(root, b"format_version") and all(stored_values.has(root, name) for name in sections)):
        raise NotAStore(f"{path}: an HDF5 file without gamwarm's groups; give another path (it was not changed)")
    try:
        version = stored_values.read_integer(root, b"format_version", h5.id.get_filesize())
        for name in sections:
            stored_values.open_group(root, name)
    except DamagedEntry as error:
        raise StoreDamaged(
            f"{path}: its top level violates the format ({error}); recover the readable entries with "
            "gamwarm.salvage(path, into), or restore a backup",
            path=str(path),
        ) from error
    newest = max(kind.since for kind in KINDS.values())
    replace(ENTRY, current=max(ENTRY.current, newest)).check(version, path)
    if writing and stored_values.has(root, ARCHIVE.encode()):
        raise StoreReadOnly(
            f"{path}: an archive, which is never changed; read it with mode 'r', or import it into a store"
        )


class FileView:
    """Entries of one open HDF5 file. Write methods need the handle of a write transaction.

    Parameters
    ----------
    h5 : h5py.File
    keeps_groups : bool
        The file does not change under this handle: a group that is listed and then read is opened
        once.
    keeps_totals : bool
        Totals change in memory, and `write_totals` writes them; tables of the index are read once:
        nothing else writes through this handle.
    size : int, optional
        Bytes of the file, where HDF5 does not know.

    Attributes
    ----------
    damage_met : int
        Damaged entries read so far.
    """

    def __init__(
        self, h5: h5py.File, *, keeps_groups: bool = False, keeps_totals: bool = False, size: int | None = None
    ) -> None:
        self.damage_met = 0
        self._kept_totals: dict[str, int] | None = {} if keeps_totals else None
        self._total_attributes: dict[str, Any] = {}
        self._unwritten: set[str] = set()
        self._keeps_groups = keeps_groups
        self._last: dict[bool, tuple[str, str, Any]] = {}  # the last key's group, and the last group within a key
        self._left_to_hdf5: str | None = None  # key whose header has been tried: this handle's file does not change
        self._peek: Peek | None = getattr(h5, "peek", None)
        self._flushed: Callable[[], Peek] | None = getattr(h5, "flushed", None)
        self._file = h5.id
        self._stated_size = size
        self._filed = 0
        self._sections: dict[str, Any] = {}

    @cached_property
    def _root(self) -> Any:
        return h5g.open(self._file, b"/")

    @property
    def size(self) -> int:
        """Bytes of the file, about: no value reaches further."""
        known = int(self._file.get_filesize()) if self._stated_size is None else self._stated_size
        return known + self._filed  # HDF5 counts only what it has flushed

    def section_group(self, section: str) -> Any:
        gid = self._sections.get(section)
        if gid is None:
            gid = self._sections[section] = stored_values.open_group(self._root, section.encode())
        return gid

    def has_section(self, section: str) -> bool:
        """Whether the file has the group of a kind; a later kind's comes with its first entry."""
        return section in self._sections or stored_values.has(self._root, section.encode())

    def section_to_write(self, section: str) -> Any:
        """Return the group of a kind, made (with the format version it needs) if it is missing."""
        if not self.has_section(section):
            kind = KINDS[section]
            self._sections[section] = _create_section(self._root, kind)
            if stored_values.read_integer(self._root, b"format_version", self.size) < kind.since:
                stored_values.set_integer(self._root, b"format_version", kind.since)
        return self.section_group(section)

    def _group(self, section: str, path: str) -> Any:
        parent, _, name = path.rpartition("/")
        depth = bool(parent)
        last = self._last.get(depth)
        if last is not None and last[1] == path and last[0] == section:
            return last[2]
        within = self._group(section, parent) if parent else self.section_group(section)
        gid = stored_values.open_group(within, encoded(name))
        if self._keeps_groups:
            self._last[depth] = section, path, gid
        return gid

    # -- totals ------------------------------------------------------------------------------------

    def total(self, name: str) -> int:
        """Return ``last_created``, ``n_entries`` or ``live_bytes``; counted if misstated."""
        kept = self._kept_totals
        if kept is not None and name in kept:
            return kept[name]
        value = self.stated_total(name)
        if value is None:
            value = self._counted()[name]
        if kept is not None:
            kept[name] = value
        return value

    def stated_total(self, name: str) -> int | None:
        """Return what the file states; None if that is no total."""
        try:
            value = stored_values.read_integer(self._root, name.encode(), self.size)
        except DamagedEntry:
            return None
        return value if 0 <= value <= (texts.LATEST if name == "last_created" else _MOST_TOTAL) else None

    def _counted(self, keys: dict[str, dict[str, str]] | None = None) -> dict[str, int]:
        entries = nbytes = last = 0
        for section, path in self.all_paths():
            entries += 1
            try:
                entry = self.read(section, path)
            except DamagedEntry:
                continue
            nbytes += entry.nbytes
            last = max(last, entry.created)
            if keys is not None:
                keys[section][entry.entry_id] = entry.key
        return {"last_created": last, "n_entries": entries, "live_bytes": nbytes}

    def _set_total(self, name: str, value: int) -> None:
        if self._kept_totals is None:
            self._write_total(name, value)
        else:
            self._kept_totals[name] = value
            self._unwritten.add(name)

    def _write_total(self, name: str, value: int) -> None:
        stored = self._total_attributes.get(name)
        if stored is not None:
            stored_values.rewrite_integer(stored, value)
            return
        stored = stored_values.set_integer(self._root, name.encode(), value)
        if self._kept_totals is not None:  # this handle is written through by its owner alone
            self._total_attributes[name] = stored

    def write_totals(self) -> None:
        """Write the totals and the index where they have changed in memory."""
        self.index.write()
        while self._unwritten:
            name = self._unwritten.pop()
            self._write_total(name, self.total(name))

    def next_created(self, now: int) -> int:
        """Return UTC microseconds later than any entry ever written, if time leaves any."""
        later = max(now, self.total("last_created") + 1)
        return later if later <= texts.LATEST else now

    def recount(self) -> None:
        """Recount entries, bytes and ids: what a damaged entry was is unknown."""
        keys: dict[str, dict[str, str]] = {section: {} for section in KINDS}
        for name, value in self._counted(keys).items():
            self._set_total(name, max(value, self.total(name)) if name == "last_created" else value)
        for section in KINDS:
            self.index.rebuild_ids(section, keys[section])

    def _account(self, entries: int, nbytes: int) -> None:
        self._set_total("n_entries", self.total("n_entries") + entries)
        self._set_total("live_bytes", self.total("live_bytes") + nbytes)

    # -- reading -----------------------------------------------------------------------------------

    def keys(self, section: str) -> list[str]:
        """Return the keys of a section, sorted."""
        return stored_values.names_in(self.section_group(section)) if self.has_section(section) else []

    def may_have(self, section: str, path: str) -> bool:
        """Whether something exists at a path, or is too damaged to tell."""
        try:
            return self.has(section, path)
        except UNREADABLE as error:
            pass_on_others(error)
            return True

    def is_archive(self) -> bool:
        """Whether the file is an archive, which is never changed."""
        return stored_values.has(self._root, ARCHIVE.encode())

    def count(self, section: str) -> int:
        """Return the number of keys of a section, without listing them."""
        return int(self.section_group(section).get_num_objs()) if self.has_section(section) else 0

    def some_names(self, section: str, key: str | None, count: int | None) -> list[str] | None:
        """Return the first ``count`` keys, or children of a key, in HDF5's own order.

        That is the order of a hash of the names: nothing is sorted, so a few cost the same in a
        file of any size. ``count`` None: all. None if the key's group cannot be read.
        """
        names: list[str] = []
        if not self.has_section(section):
            return names

        def take(name: bytes) -> bool:
            names.append(stored_values.name_of(name))
            return len(names) == count

        try:
            gid = self.section_group(section) if key is None else self._group(section, key)
            gid.links.iterate(take, order=h5.ITER_NATIVE)
        except (DamagedEntry, *UNREADABLE) as error:
            if key is None:
                raise
            pass_on_others(error)
            return None
        return names

    def has(self, section: str, path: str) -> bool:
        """Whether there is something at a path; what cannot be looked into has nothing."""
        parent, _, name = path.rpartition("/")
        if not self.has_section(section):
            return False
        try:
            gid = self._group(section, parent) if parent else self.section_group(section)
        except DamagedEntry:
            return False
        return stored_values.has(gid, encoded(name))

    def entry_paths(self, section: str, key: str) -> list[str]:
        """Return where the entries of a key lie in the section: the key itself, its children.

        A key whose group is damaged is a path like any other: reading it says so, and its
        neighbours stay readable.
        """
        if not self._keeps_groups and not self.has(section, key):
            return []
        competes = KINDS[section].competes
        try:
            gid = self._group(section, key)
            children: list[str] = []
            if gid.get_num_objs():
                values = _VALUES if competes else frozenset()
                children = [f"{key}/{name}" for name in stored_values.names_in(gid) if name not in values]
        except (DamagedEntry, *UNREADABLE) as error:
            pass_on_others(error)
            return [key] if self.has(section, key) else []
        return [key, *children] if competes else children

    def all_paths(self) -> Iterator[tuple[str, str]]:
        """Yield section and path of every entry, in order."""
        for section in KINDS:
            for key in self.keys(section):
                for path in self.entry_paths(section, key):
                    yield section, path

    def read(self, section: str, path: str) -> Encoded:
        """Read and check one entry.

        Raises
        ------
        DamagedEntry
            Its bytes do not match the seal.
        """
        try:
            return self._read(section, path)
        except DamagedEntry:
            self.damage_met += 1
            raise

    def _read(self, section: str, path: str) -> Encoded:
        key, _, name = path.partition("/")
        found = None if path == self._left_to_hdf5 else self._quickly(section, path)
        if found is not None:
            return _in_its_place(found, name)
        try:
            gid = self._group(section, path)
            text, seal = (stored_values.read(gid, value, self.size) for value in (b"meta", b"seal"))
            arrays = self._vectors(gid)
        except UNREADABLE as error:
            pass_on_others(error)
            raise DamagedEntry(f"it cannot be read ({type(error).__name__}: {error})") from error
        if text is None or seal is None:
            raise DamagedEntry("it has no text or no seal")
        if seal_of(section, key, text, arrays).encode() != seal:
            raise DamagedEntry("its digest does not match its bytes")
        return _in_its_place(Encoded(section, key, texts.parse_text(section, text), arrays, stored=text), name)

    def _quickly(self, section: str, path: str) -> Encoded | None:
        """Read an entry from its header, without an HDF5 object for it and each of its values."""
        try:
            address = self._address_of(section, path)
            return None if address is None else self._from_header(section, key_of(path), address)
        except (DamagedEntry, *UNREADABLE):  # `read` finds out why
            return None

    def _address_of(self, section: str, path: str) -> int | None:
        """Return where the header of an entry is, for `_peek`; None where HDF5 has to be asked."""
        if self._peek is None:
            return None
        parent, name = self._parent(section, path)
        link = parent.links.get_info(name)
        return int(link.u) if link.type == h5l.TYPE_HARD else None

    def has_seal(self, section: str, path: str, seal: bytes) -> bool:
        """Whether the entry at a path has this seal, as one read of its header tells; False says
        nothing.
        """
        try:
            address = self._address_of(section, path)
            if address is None or self._peek is None:
                return False
            return object_header.has_text(self._peek, address, b"seal", seal)
        except (DamagedEntry, *UNREADABLE):  # `stored_seal` finds out why
            return False

    def _vectors(self, gid: Any) -> dict[str, Any]:
        """Read the vectors, asking no further than there are attributes: most entries have two."""
        links = gid.get_num_objs() > 0
        besides_text = h5a.get_num_attrs(gid) - 2
        arrays: dict[str, Any] = {}
        for name, stored in _VECTORS.items():
            if not links and len(arrays) == besides_text:
                break
            array = stored_values.read_vector(gid, stored, self.size)
            if array is not None:
                arrays[name] = array
        return arrays

    def check_forms(self, section: str, key: str) -> None:
        """Raise `DamagedEntry` if anything at a key is not of its form, values aside."""
        stored_values.check_forms(self._group(section, key), self.size)

    def read_lone_record(self, key: str) -> Encoded | None:
        """Read the only entry of an exact key past HDF5's object cache; None if impossible.

        None says nothing: the key may be missing, damaged, of several entries, or stored in
        datasets. What is returned is what `read` would return, by the same seal.
        """
        self._left_to_hdf5 = key
        return self._quickly(RECORDS, key)

    def _from_header(self, section: str, key: str, address: int) -> Encoded | None:
        """Read an entry from the bytes of its object header; None where HDF5 has to be asked.

        May raise `DamagedEntry` or one of `UNREADABLE` too, which say no more than None.
        """
        assert self._peek is not None
        found = object_header.attributes(self._peek, address)
        if found is None:
            return None
        text, seal = found.pop(b"meta"), found.pop(b"seal")
        if not text[0] == seal[0] == object_header.TEXT:
            return None
        vectors: dict[str, bytes] = {}
        arrays: dict[str, Any] = {}
        for name, (elements, data) in found.items():
            known, expected, dtype = _IN_HEADERS[name]
            if elements != expected:
                return None
            vectors[known] = data
            arrays[known] = np.frombuffer(data, dtype)
        if seal_of(section, key, text[1], vectors).encode() != seal[1]:
            return None
        return Encoded(section, key, texts.parse_text(section, text[1]), arrays, stored=text[1])

    def stored_seal(self, section: str, path: str) -> bytes | None:
        """Return the stored seal, by which an entry is recognised; None if it cannot be read."""
        try:
            return stored_values.read(self._group(section, path), b"seal", self.size)
        except (DamagedEntry, *UNREADABLE) as error:
            pass_on_others(error)
            return None

    def read_summary(self, section: str, path: str) -> EntrySummary:
        """Read what an entry says of itself, unsealed; raises `DamagedEntry` without a text."""
        return KINDS[section].summarize(path, self._read_meta(section, path))

    def place_in_text(self, section: str, path: str) -> str | None:
        """Return where its own text says that an entry belongs; None if it does not."""
        return KINDS[section].place_in_text(self._read_meta(section, path))

    def _read_meta(self, section: str, path: str) -> dict[str, Any]:
        try:
            text = stored_values.read(self._group(section, path), b"meta", self.size)
        except UNREADABLE as error:
            pass_on_others(error)
            raise DamagedEntry(f"it cannot be read ({type(error).__name__}: {error})") from error
        if text is None:
            raise DamagedEntry("it has no text")
        return texts.parse_text(section, text)

    @cached_property
    def index(self) -> StoredIndex:
        """The index, as it lies in this file."""
        return StoredIndex(
            self._root,
            lambda section: self.section_group(section) if self.has_section(section) else None,
            lambda: self.size,
            keeps_tables=self._kept_totals is not None,
            is_unchanging=self._keeps_groups,
        )

    def path_of(self, section: str, entry_id: str) -> str | None:
        """Return where the entry of an id lies in a section, intact or not; None if nowhere."""
        key = self.index.key_of(section, entry_id)
        if key is None:
            return None
        path = f"{key}/{entry_id}"
        return path if not KINDS[section].competes or self.has(section, path) else key

    def has_child(self, section: str, key: str, entry_id: str) -> bool:
        """Whether an entry of that id is stored under a key, intact or not."""
        if not self.has(section, key):
            return False
        try:
            return _may_link_to(self._group(section, key), entry_id.encode())
        except (DamagedEntry, *UNREADABLE) as error:
            pass_on_others(error)
            return False

    # -- writing -----------------------------------------------------------------------------------

    def write_key(
        self, section: str, key: str, entries: list[Encoded], *, replaced: Sequence[Encoded] | None = None
    ) -> None:
        """Make ``entries`` those of a key for which they compete, the first in its own group.

        ``replaced``: all current entries of the key, read in this transaction and intact; so it is
        not read again.

        Raises
        ------
        Irreplaceable
            The object there is so damaged that HDF5 cannot remove it; nothing was changed.
        """
        parent = self.section_to_write(section)
        damaged = False
        if replaced:
            self._account(-len(replaced), -sum(entry.nbytes for entry in replaced))
            for entry in replaced:
                self.index.forget(section, entry.entry_id)
            parent.unlink(key.encode())
        elif replaced is None and stored_values.has(parent, key.encode()):
            damaged = self._remove(section, key)
        if entries:
            gid = h5g.create(parent, key.encode(), gcpl=_GROUP)
            self._write_entry(gid, entries[0])
            for entry in entries[1:]:
                self._write_entry(h5g.create(gid, entry.entry_id.encode(), gcpl=_GROUP), entry)
        if damaged:
            self.recount()

    def write_new_child(self, entry: Encoded) -> bool:
        """File an entry below its key if there is none of its id; return whether that was so.

        Raises
        ------
        Irreplaceable
            HDF5 cannot open what is there.
        """
        gid = self._group_to_write(entry.section, entry.key)
        child = entry.entry_id.encode()
        if _may_link_to(gid, child):
            return False
        self._write_entry(h5g.create(gid, child, gcpl=_GROUP), entry)
        return True

    def _group_to_write(self, section: str, key: str) -> Any:
        """Return the group of a key, made if it is missing."""
        parent, name = self.section_to_write(section), key.encode()
        try:
            there = stored_values.has(parent, name)
            return stored_values.open_group(parent, name) if there else h5g.create(parent, name, gcpl=_GROUP)
        except (DamagedEntry, *UNREADABLE) as error:
            pass_on_others(error)
            raise _irreplaceable(section, key) from error

    def write_child(self, entry: Encoded) -> None:
        """File one entry below its key, in place of a damaged one.

        Raises
        ------
        Irreplaceable
            The object there is so damaged that HDF5 cannot open or remove it; nothing was changed.
        """
        gid = self._group_to_write(entry.section, entry.key)
        child = entry.entry_id.encode()
        damaged = _may_link_to(gid, child) and self._remove(entry.section, f"{entry.key}/{entry.entry_id}")
        self._write_entry(h5g.create(gid, child, gcpl=_GROUP), entry)
        if damaged:
            self.recount()

    def _write_entry(self, gid: Any, entry: Encoded) -> None:
        text = entry.text()
        self._filed += 2 * (len(text) + sum(array.nbytes for array in entry.arrays.values())) + _OVERHEAD
        stored_values.write_text(gid, b"meta", text)
        stored_values.write_text(gid, b"seal", seal_of(entry.section, entry.key, text, entry.arrays).encode())
        for name, stored in _VECTORS.items():
            if name in entry.arrays:
                stored_values.write_vector(gid, stored, entry.arrays[name])
        self._account(1, len(text) + sum(array.nbytes for array in entry.arrays.values()))
        self.index.file(entry)
        if entry.created > self.total("last_created"):
            self._set_total("last_created", entry.created)

    def _remove(self, section: str, path: str) -> bool:
        """Remove the entries at ``path`` and below; return whether a damaged one spoils totals."""
        paths = self.entry_paths(section, path) if "/" not in path else [path]
        for each in paths:
            try:
                # Removing a group makes HDF5 rewrite the headers of all that it holds.
                parent, name = self._parent(section, each)
                if stored_values.is_hard(parent, name):
                    stored_values.open_object(parent, name)
            except (DamagedEntry, *UNREADABLE) as error:
                pass_on_others(error)
                raise _irreplaceable(section, each) from error
        damaged = False
        for each in paths:
            try:
                entry = self.read(section, each)
                self._account(-1, -entry.nbytes)
                self.index.forget(section, entry.entry_id)
            except DamagedEntry:
                damaged = True
                self.index.forget(section, each.rpartition("/")[2])
        parent, name = self._parent(section, path)
        parent.unlink(name)
        return damaged

    def _parent(self, section: str, path: str) -> tuple[Any, bytes]:
        key, _, name = path.partition("/")
        return (self._group(section, key), encoded(name)) if name else (self.section_group(section), encoded(key))


def _may_link_to(gid: Any, name: bytes) -> bool:
    try:
        return stored_values.has(gid, name)
    except UNREADABLE as error:
        pass_on_others(error)
        return False


def _in_its_place(entry: Encoded, name: str) -> Encoded:
    """Return an entry that is in a key's own group (no name), or under its entry id."""
    if not KINDS[entry.section].is_key(entry.key):
        raise DamagedEntry("it is stored under an invalid key")
    if name and name != entry.entry_id:
        raise DamagedEntry(f"it is stored under {name}, its entry id is {entry.entry_id}")
    return entry


def _irreplaceable(section: str, path: str) -> Irreplaceable:
    return Irreplaceable(
        f"what is stored at /{section}/{path} is damaged in HDF5's own structure and cannot be replaced there; "
        "store this fit in a new file (the other entries stay readable)"
    )
