"""Compaction: every entry copied to a new file, which then takes the old one's place."""

from __future__ import annotations

import logging

import h5py
from h5py import h5o

from gamwarm.entries import (
    KINDS,
    UNREADABLE,
    DamagedEntry,
    EntryEditor,
    EntryStore,
    Problem,
    create_file,
    stored_values,
)
from gamwarm.interrupts import critical, deliver
from gamwarm.maintenance.reports import CompactReport

__all__ = ["compact"]

log = logging.getLogger("gamwarm")


@critical
def compact(entries: EntryStore) -> CompactReport:
    """Write the file again without the space that removed entries left, and say what that freed."""
    entries.flush()
    (count, lost), before, after = entries.rewrite(copy_file)
    for problem in lost:
        log.warning("%s: %s", entries.container.path, problem)
    return CompactReport(before, after, count, tuple(lost))


def copy_file(old: h5py.File, new: h5py.File) -> tuple[int, list[Problem]]:
    """Copy every entry of ``old``, byte for byte with its seal, into the empty file ``new``; return
    how many.

    An entry that cannot be copied is listed. Keys go in ascending order, so equal contents make
    equal layouts.
    """
    create_file(new)
    source = EntryEditor(old)
    target = EntryEditor(new, size=2 * source.size)
    lost: list[Problem] = []
    ids: dict[str, dict[str, str]] = {section: {} for section in KINDS}
    entries = nbytes = 0
    last = source.total("last_created")
    for section in KINDS:
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
                ids[section][entry.entry_id] = key
        unread = source.unread_pins(section)
        lost += [unread] if unread else []
        target.set_pins(section, source.pins(section) & ids[section].keys())
        target.index.rebuild_ids(section, ids[section])
    target.rebuild_tables()
    target.set_totals(last_created=last, n_entries=entries, live_bytes=nbytes)
    return entries, lost


def _copy_key(source: EntryEditor, target: EntryEditor, section: str, key: str) -> list[Problem]:
    """Copy one key's group unchanged; if HDF5 cannot or should not, what can be read of it."""
    parent, name = target.section_to_write(section), stored_values.encoded(key)
    try:
        source.check_forms(section, key)
        h5o.copy(source.section_group(section), name, parent, name)
    except (DamagedEntry, *UNREADABLE) as error:
        stored_values.pass_on_others(error)
        if stored_values.has(parent, name):
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
    if not KINDS[section].competes:
        for entry in whole:
            target.write_child(entry)
    elif whole:
        target.write_key(section, key, whole)
    return lost or [Problem(f"/{section}/{key}", f"could not be copied unchanged: {reason}")]
