"""How entries lie in the HDF5 file (docs/file-format.md, "Inside the HDF5 file").

```
/                                README, format_version, last_created, n_entries, live_bytes
/block_records                   README
/block_records/<exact key>       one entry; a second entry of the key is a child group named by its entry id
/fit_artifacts                   README, structural:<structural key> = strict keys,
                                 beyond 256 also structural:<structural key>:<first two digits of these>
/fit_artifacts/<strict key>/<entry id>
```

An entry is a group with the attributes ``meta`` (JSON), ``seal``, ``rho``, ``beta`` and, where present, ``curvature``,
``inner``, ``active``, ``components``, ``seeds``; a value too large for an attribute is a contiguous dataset of the
same name.
Low-level h5py and cached types, since the high-level calls cost several times the HDF5 work.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5g, h5l, h5o, h5p, h5s, h5t

from gamwarm.errors import NewerFormat, NotAStore, StoreReadOnly
from gamwarm.storage import _index_lists, _objects
from gamwarm.storage.codec import ARTIFACTS, RECORDS, SECTIONS, DamagedEntry, Encoded, parse_text, seal_of

__all__ = ["ARCHIVE", "ENTRY_FORMAT", "FileView", "Irreplaceable", "check_file", "create_file", "timeless"]

ENTRY_FORMAT: Final = 1
ARCHIVE: Final = "archive"
_ATTRIBUTE_LIMIT: Final = 60_000  # an object header message holds less than 64 KiB
_WORDS: Final = ("rho", "beta", "curvature", "inner", "active", "components", "seeds")
_VECTORS: Final = {name: name.encode() for name in _WORDS}
_NAMES: Final = {encoded: name for name, encoded in _VECTORS.items()}
_INTEGERS: Final = (b"active", b"components")
_FLOAT: Final = np.dtype("<f8")
_INTEGER: Final = np.dtype("<i8")
# What h5py raises when HDF5 cannot read its own structure: by the place of the damage, any of these.
_UNREADABLE: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)


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
_RECORDS_README: Final = (
    "One group per exact key. beta: reduced coefficients, blocks concatenated; meta.blocks and meta.widths cut it. "
    "rho: outer coordinates. active: row numbers of active inequality constraints. objective: what the outer search "
    "minimises. components: 8 bytes of digest of each thing that the key names."
)
_ARTIFACTS_README: Final = (
    "One group per strict descriptor key, one child per fit. beta: raw (gauge-free) coefficients, terms concatenated; "
    "meta.terms[].raw_width and n_rho cut beta and rho. seeds: per left-out group the first-order change of the outer "
    "coordinates, then of beta. Attributes structural:<key> list the strict keys of a "
    "structural key, structural:<key>:<two digits> further ones that begin so."
)


_string_type: Final = lru_cache(maxsize=1024)(_objects.string_type)


@lru_cache(maxsize=1024)
def _vector_space(length: int) -> Any:
    return h5s.create_simple((length,))


_SCALAR: Final = h5s.create(h5s.SCALAR)
_TYPES: Final = {"f": h5t.IEEE_F64LE, "i": h5t.STD_I64LE}
_SEAL_TYPE: Final = _string_type(32)


def _write_text(gid: Any, name: bytes, text: bytes) -> None:
    tid = _SEAL_TYPE if len(text) == 32 else _string_type(len(text))
    value = np.array(text)  # of as many bytes: JSON and hex digits do not end in NUL
    if len(text) > _ATTRIBUTE_LIMIT:
        h5d.create(gid, name, tid, _SCALAR, timeless(h5p.DATASET_CREATE)).write(h5s.ALL, h5s.ALL, value, tid)
    else:
        h5a.create(gid, name, tid, _SCALAR).write(value, tid)


def _read_text(gid: Any, name: bytes) -> bytes:
    try:
        aid = h5a.open(gid, name)
    except KeyError:
        did = h5d.open(gid, name)
        length = did.get_type().get_size()
        value = np.empty((), dtype=f"S{length}")
        did.read(h5s.ALL, h5s.ALL, value, _string_type(length))
    else:
        length = aid.get_storage_size()
        value = np.empty((), dtype=f"S{length}")
        aid.read(value, _string_type(length))
    return bytes(value.item())


def _write_vector(gid: Any, name: bytes, array: Any) -> None:
    tid = _TYPES[array.dtype.kind]
    space = _vector_space(len(array))
    if array.nbytes > _ATTRIBUTE_LIMIT:
        dcpl = timeless(h5p.DATASET_CREATE)
        dcpl.set_layout(h5d.CONTIGUOUS)
        h5d.create(gid, name, tid, space, dcpl).write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array), tid)
    else:
        h5a.create(gid, name, tid, space).write(np.ascontiguousarray(array), tid)


def _read_vector(gid: Any, name: bytes, *, links: bool = True) -> Any:
    """Read a vector; None if it is not there. ``links`` False: the group holds no datasets, so do not ask."""
    tid, dtype = (h5t.STD_I64LE, _INTEGER) if name in _INTEGERS else (h5t.IEEE_F64LE, _FLOAT)
    if h5a.exists(gid, name):
        aid = h5a.open(gid, name)
        array = np.empty(aid.get_storage_size() // 8, dtype=dtype)
        aid.read(array, tid)
    elif not links or not h5g_has(gid, name):
        return None
    else:
        did = h5d.open(gid, name)
        array = np.empty(did.shape, dtype=dtype)
        did.read(h5s.ALL, h5s.ALL, array, tid)
        if array.ndim != 1:
            return array
    # Over immutable bytes, nobody can make it writeable again.
    return np.frombuffer(array.tobytes(), dtype)


def _read_vectors(gid: Any) -> dict[str, Any]:
    """Read the vectors that are there; most entries have two, so one asks no further than there are attributes."""
    links = gid.get_num_objs() > 0
    besides_text = h5a.get_num_attrs(gid) - 2
    arrays: dict[str, Any] = {}
    for name, encoded in _VECTORS.items():
        if not links and len(arrays) == besides_text:
            break
        array = _read_vector(gid, encoded, links=links)
        if array is not None:
            arrays[name] = array
    return arrays


def h5g_has(gid: Any, name: bytes) -> bool:
    """Whether group ``gid`` links to ``name``."""
    return bool(gid.links.exists(name))


def _set_integer(gid: Any, name: bytes, value: int) -> None:
    if h5a.exists(gid, name):
        h5a.open(gid, name).write(np.array(value, dtype="<i8"), h5t.STD_I64LE)
    else:
        h5a.create(gid, name, h5t.STD_I64LE, _SCALAR).write(np.array(value, dtype="<i8"), h5t.STD_I64LE)


def _get_integer(gid: Any, name: bytes) -> int:
    value = np.zeros((), dtype="<i8")
    h5a.open(gid, name).read(value, h5t.STD_I64LE)
    return int(value)


def timeless(kind: Any) -> Any:
    """Return a creation property list without HDF5's own times: entries say when they were made."""
    properties = h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


_GROUP: Final = timeless(h5p.GROUP_CREATE)


def create_file(h5: h5py.File) -> None:
    """Lay out a new file."""
    root = h5["/"].id
    _write_text(root, b"README", _ROOT_README.format(version=ENTRY_FORMAT).encode())
    _set_integer(root, b"format_version", ENTRY_FORMAT)
    for total in (b"last_created", b"n_entries", b"live_bytes"):
        _set_integer(root, total, 0)
    for name, readme in ((RECORDS, _RECORDS_README), (ARTIFACTS, _ARTIFACTS_README)):
        gcpl = timeless(h5p.GROUP_CREATE)
        # Attributes outside the object header have no limit in number or size: there may be any number of lists.
        gcpl.set_attr_phase_change(0, 0)
        _write_text(h5g.create(root, name.encode(), gcpl=gcpl), b"README", readme.encode())


def check_file(h5: h5py.File, path: Path, *, writing: bool = False) -> None:
    """Refuse contents that are not ours or of a newer format, and to write to an archive; ``path`` is for messages."""
    root = h5g.open(h5.id, b"/")
    if not (
        h5a.exists(root, b"format_version") and h5g_has(root, RECORDS.encode()) and h5g_has(root, ARTIFACTS.encode())
    ):
        raise NotAStore(f"{path}: an HDF5 file without gamwarm's groups; give another path (it was not changed)")
    version = _get_integer(root, b"format_version")
    if version > ENTRY_FORMAT:
        raise NewerFormat(
            f"{path}: written in entry format {version}, this gamwarm reads up to {ENTRY_FORMAT}; "
            "upgrade gamwarm (the file was not changed)"
        )
    if writing and h5g_has(root, ARCHIVE.encode()):
        raise StoreReadOnly(
            f"{path}: an archive, which stays as it was exported; read it with mode 'r', or import it into a store"
        )


class FileView:
    """Entries of one open HDF5 file. Write methods need the handle of a write transaction.

    Parameters
    ----------
    h5 : h5py.File
    keeps_groups : bool
        The file does not change under this handle: a group that is listed and then read is opened once.
    keeps_totals : bool
        Totals change in memory, and `settle` writes them: nobody else looks at this handle meanwhile.
    """

    def __init__(self, h5: h5py.File, *, keeps_groups: bool = False, keeps_totals: bool = False) -> None:
        self._kept_totals: dict[str, int] | None = {} if keeps_totals else None
        self._unwritten: set[str] = set()
        self._keeps_groups = keeps_groups
        self._last: tuple[str, str, Any] = ("", "", None)
        self._peek: _objects.Peek | None = getattr(h5, "peek", None)
        self._file = h5.id
        self._sections: dict[str, Any] = {}
        self._link_tables: dict[str, Any] = {}
        self._totals: dict[str, Any] = {}

    @cached_property
    def _root(self) -> Any:
        return h5g.open(self._file, b"/")

    def _section(self, section: str) -> Any:
        gid = self._sections.get(section)
        if gid is None:
            gid = self._sections[section] = h5g.open(self._root, section.encode())
        return gid

    def _links(self, section: str) -> Any:
        links = self._link_tables.get(section)
        if links is None:
            links = self._link_tables[section] = self._section(section).links
        return links

    def _group(self, section: str, path: str) -> Any:
        last = self._last
        if last[1] == path and last[0] == section:
            return last[2]
        gid = h5g.open(self._section(section), path.encode())
        if self._keeps_groups:
            self._last = section, path, gid
        return gid

    def _total(self, name: str) -> Any:
        aid = self._totals.get(name)
        if aid is None:
            aid = self._totals[name] = h5a.open(self._root, name.encode())
        return aid

    # -- totals ------------------------------------------------------------------------------------------------

    def total(self, name: str) -> int:
        """Return the running total ``last_created``, ``n_entries`` or ``live_bytes``."""
        kept = self._kept_totals
        if kept is not None and name in kept:
            return kept[name]
        stored = np.zeros((), dtype="<i8")
        self._total(name).read(stored, h5t.STD_I64LE)
        value = int(stored)
        if kept is not None:
            kept[name] = value
        return value

    def _set_total(self, name: str, value: int) -> None:
        if self._kept_totals is None:
            self._write_total(name, value)
        else:
            self._kept_totals[name] = value
            self._unwritten.add(name)

    def _write_total(self, name: str, value: int) -> None:
        self._total(name).write(np.array(value, dtype="<i8"), h5t.STD_I64LE)

    def settle(self) -> None:
        """Write the totals that have changed in memory."""
        while self._unwritten:
            name = self._unwritten.pop()
            self._write_total(name, self.total(name))

    def next_created(self, now: int) -> int:
        """Return a time stamp (UTC microseconds) later than that of any entry ever written."""
        return max(now, self.total("last_created") + 1)

    def recount(self) -> None:
        """Count entries and live bytes anew: what a damaged entry weighed is not known when it is replaced."""
        entries, nbytes = 0, 0
        for section, path in self.all_paths():
            entries += 1
            try:
                nbytes += self.read(section, path).nbytes
            except DamagedEntry:
                continue
        self._set_total("n_entries", entries)
        self._set_total("live_bytes", nbytes)

    def _account(self, entries: int, nbytes: int) -> None:
        self._set_total("n_entries", self.total("n_entries") + entries)
        self._set_total("live_bytes", self.total("live_bytes") + nbytes)

    # -- reading -----------------------------------------------------------------------------------------------

    def keys(self, section: str) -> list[str]:
        """Return the keys of a section, sorted."""
        return sorted(name.decode("utf-8", "replace") for name in self._section(section))

    def may_have(self, section: str, path: str) -> bool:
        """Whether there is something at a path, or so damaged that nobody can tell."""
        try:
            return self.has(section, path)
        except _UNREADABLE as error:
            _pass_on_disk_error(error)
            return True

    def is_archive(self) -> bool:
        """Whether the file is an export, which stays as it is."""
        return h5g_has(self._root, ARCHIVE.encode())

    def count(self, section: str) -> int:
        """Return the number of keys of a section, without listing them."""
        return int(self._section(section).get_num_objs())

    def some_names(self, section: str, key: str | None, count: int | None) -> list[str] | None:
        """Return the first ``count`` keys of a section, or children of a key, in the order of HDF5's own index.

        That is the order of a hash of the names: nothing is sorted, so a few cost the same in a file of any size.
        ``count`` None: all. None if the key's group cannot be read.
        """
        names: list[str] = []

        def take(name: bytes) -> bool:
            names.append(name.decode("utf-8", "replace"))
            return len(names) == count

        try:
            gid = self._section(section) if key is None else h5g.open(self._section(section), key.encode())
            gid.links.iterate(take, order=h5.ITER_NATIVE)
        except _UNREADABLE as error:
            if key is None:
                raise
            _pass_on_disk_error(error)
            return None
        return names

    def has(self, section: str, key: str) -> bool:
        return h5g_has(self._section(section), key.encode())

    def entry_paths(self, section: str, key: str) -> list[str]:
        """Return where the entries of a key lie, relative to the section: the key itself, then its children.

        A key whose group is damaged is a path like any other: reading it says so, and its neighbours stay readable.
        """
        if not self._keeps_groups and not h5g_has(self._section(section), key.encode()):
            return []
        try:
            gid = self._group(section, key)
            children: list[str] = []
            if gid.get_num_objs():
                children = sorted(
                    f"{key}/{name.decode('utf-8', 'replace')}" for name in gid if _may_be_group(gid, name)
                )
        except _UNREADABLE:
            return [key] if h5g_has(self._section(section), key.encode()) else []
        return [key, *children] if section == RECORDS else children

    def all_paths(self) -> Iterator[tuple[str, str]]:
        """Yield section and path of every entry, in order."""
        for section in SECTIONS:
            for key in self.keys(section):
                for path in self.entry_paths(section, key):
                    yield section, path

    def read(self, section: str, path: str) -> Encoded:
        """Read and check one entry.

        Raises
        ------
        DamagedEntry
            Its bytes are not what was sealed.
        """
        key = path.split("/", 1)[0]
        try:
            gid = self._group(section, path)
            text = _read_text(gid, b"meta")
            seal = _read_text(gid, b"seal").decode("ascii")
            arrays = _read_vectors(gid)
        except _UNREADABLE as error:
            _pass_on_disk_error(error)
            raise DamagedEntry(f"it cannot be read ({type(error).__name__}: {error})") from error
        if seal_of(section, key, text, arrays) != seal:
            raise DamagedEntry("its digest does not match its bytes")
        return Encoded(section, key, parse_text(text), arrays)

    def read_lone_record(self, key: str) -> Encoded | None:
        """Read the only entry of an exact key past HDF5's object cache; None where that cannot be done.

        None says nothing: the key may be missing, damaged, of several entries, or stored in datasets. What is returned
        is what `read` would return, by the same seal.
        """
        if self._peek is None:
            return None
        try:
            link = self._links(RECORDS).get_info(key.encode())
            if link.type != h5l.TYPE_HARD:
                return None
            found = _objects.attributes(self._peek, link.u)
            if found is None:
                return None
            text, seal = found.pop(b"meta")[1], found.pop(b"seal")[1]
            vectors: dict[str, bytes] = {}
            arrays: dict[str, Any] = {}
            for name, (elements, data) in found.items():
                if elements != (_objects.INTEGERS if name in _INTEGERS else _objects.FLOATS):
                    return None
                known = _NAMES[name]
                vectors[known] = data
                arrays[known] = np.frombuffer(data, _INTEGER if elements else _FLOAT)
            if seal_of(RECORDS, key, text, vectors).encode() != seal:
                return None
            return Encoded(RECORDS, key, parse_text(text), arrays)
        except _UNREADABLE as error:
            _pass_on_disk_error(error)
            return None

    def read_meta(self, section: str, path: str) -> dict[str, Any]:
        """Read the JSON text of an entry alone, unchecked; raises `DamagedEntry` if it cannot be read."""
        try:
            meta: dict[str, Any] = json.loads(_read_text(self._group(section, path), b"meta"))
        except _UNREADABLE as error:
            _pass_on_disk_error(error)
            raise DamagedEntry(f"it cannot be read ({type(error).__name__}: {error})") from error
        return meta

    def artifact_paths(self, entry_id: str) -> Iterator[str]:
        """Find an artifact by its entry id, whatever its descriptor."""
        for key in self.keys(ARTIFACTS):
            if self.has_artifact(key, entry_id):
                yield f"{key}/{entry_id}"

    def has_artifact(self, key: str, entry_id: str) -> bool:
        """Whether an artifact of that entry id is filed under a strict key, whole or not."""
        if not self.has(ARTIFACTS, key):
            return False
        try:
            return self.has(ARTIFACTS, f"{key}/{entry_id}")
        except _UNREADABLE:
            return False

    def strict_keys(self, structural_key: str) -> list[str]:
        """Return the strict descriptor keys filed under a structural key."""
        listed = self._strings(ARTIFACTS, _index_lists.first_list(structural_key), 64)
        if len(listed) < _index_lists.FULL:
            return listed
        further = (self._strings(ARTIFACTS, name, 64) for name in _index_lists.lists_by_digits(structural_key))
        return sorted({*listed, *chain.from_iterable(further)})

    def _strings(self, section: str, name: bytes, width: int) -> list[str]:
        """Read an attribute that is a list of strings; an absent one is empty."""
        gid = self._section(section)
        if not h5a.exists(gid, name):
            return []
        aid = h5a.open(gid, name)
        values = np.empty(aid.shape, dtype=f"S{width}")
        aid.read(values, _string_type(width))
        return [value.decode("ascii", "replace") for value in values.tolist()]

    # -- writing -----------------------------------------------------------------------------------------------

    def write_records(self, key: str, entries: list[Encoded], *, missing: bool = False) -> None:
        """Make ``entries`` the entries of an exact key, the first in the key's own group.

        ``missing`` says that the key is known to have none, not even damaged ones.

        Raises
        ------
        Irreplaceable
            What lies there is damaged so that HDF5 cannot remove it; nothing was changed.
        """
        parent = self._section(RECORDS)
        damaged = False
        if not missing and h5g_has(parent, key.encode()):
            damaged = self._remove(RECORDS, key)
        if entries:
            gid = h5g.create(parent, key.encode(), gcpl=_GROUP)
            self._write_entry(gid, entries[0])
            for entry in entries[1:]:
                self._write_entry(h5g.create(gid, entry.entry_id.encode(), gcpl=_GROUP), entry)
        if damaged:
            self.recount()

    def write_artifact(self, entry: Encoded) -> None:
        """File one artifact under its strict key, in place of a damaged one, and index it by its structural key.

        Raises
        ------
        Irreplaceable
            What lies there is damaged so that HDF5 cannot open or remove it; nothing was changed.
        """
        parent = self._section(ARTIFACTS)
        name = entry.key.encode()
        try:
            gid = h5g.open(parent, name) if h5g_has(parent, name) else h5g.create(parent, name, gcpl=_GROUP)
        except _UNREADABLE as error:
            raise _irreplaceable(ARTIFACTS, entry.key) from error
        there = self.has_artifact(entry.key, entry.entry_id)
        damaged = there and self._remove(ARTIFACTS, f"{entry.key}/{entry.entry_id}")
        self._write_entry(h5g.create(gid, entry.entry_id.encode(), gcpl=_GROUP), entry)
        if damaged:
            self.recount()
        structural = entry.meta["structural_key"]
        if structural is not None:
            self._index(structural, entry.key)

    def _index(self, structural_key: str, strict_key: str) -> None:
        name = _index_lists.first_list(structural_key)
        listed = self._strings(ARTIFACTS, name, 64)
        if len(listed) >= _index_lists.FULL and strict_key not in listed:
            name = _index_lists.list_by_digits(structural_key, strict_key)
            listed = self._strings(ARTIFACTS, name, 64)
        if strict_key not in listed:
            self._set_strings(ARTIFACTS, name, [*listed, strict_key])

    def _set_strings(self, section: str, name: bytes, values: Collection[str]) -> None:
        """Make an attribute the ascending list of some strings; of none, remove it."""
        gid = self._section(section)
        if h5a.exists(gid, name):
            h5a.delete(gid, name)
        if values:
            array = np.array(sorted(values), dtype="S")
            tid = _string_type(array.dtype.itemsize)
            h5a.create(gid, name, tid, h5s.create_simple(array.shape)).write(array, tid)

    def _write_entry(self, gid: Any, entry: Encoded) -> None:
        text = entry.text()
        _write_text(gid, b"meta", text)
        _write_text(gid, b"seal", seal_of(entry.section, entry.key, text, entry.arrays).encode())
        for name, encoded in _VECTORS.items():
            if name in entry.arrays:
                _write_vector(gid, encoded, entry.arrays[name])
        self._account(1, len(text) + sum(array.nbytes for array in entry.arrays.values()))
        if entry.created > self.total("last_created"):
            self._set_total("last_created", entry.created)

    def _remove(self, section: str, path: str) -> bool:
        """Remove the entries at ``path`` and below; return whether one was damaged, so that the totals are unknown."""
        paths = self.entry_paths(section, path) if "/" not in path else [path]
        parent = self._section(section)
        for each in paths:
            try:
                # Removing a group makes HDF5 rewrite the headers of all that it holds.
                h5g.open(parent, each.encode())
            except _UNREADABLE as error:
                raise _irreplaceable(section, each) from error
        damaged = False
        for each in paths:
            try:
                self._account(-1, -self.read(section, each).nbytes)
            except DamagedEntry:
                damaged = True
        parent.unlink(path.encode())
        return damaged


def _may_be_group(gid: Any, name: bytes) -> bool:
    """Whether ``name`` is a group, or so damaged that nobody can tell."""
    try:
        return bool(h5o.get_info(gid, name).type == h5o.TYPE_GROUP)
    except _UNREADABLE:
        return True


def _pass_on_disk_error(error: BaseException) -> None:
    """Raise again what the disk said (it has an error number): that is no damage of an entry."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _irreplaceable(section: str, path: str) -> Irreplaceable:
    return Irreplaceable(
        f"what is stored at /{section}/{path} is damaged in HDF5's own structure and cannot be replaced there; "
        "keep this fit in a new file (the other entries of this one stay readable)"
    )
