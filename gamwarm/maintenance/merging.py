"""Merging: the entries of another file, or of a damaged one, imported unchanged."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from gamwarm.checks import file_path
from gamwarm.entries import KINDS, Batch, EntryEditor, EntryStore, Irreplaceable, Problem, iter_batches
from gamwarm.errors import StoreError
from gamwarm.interrupts import critical
from gamwarm.maintenance.reports import MergeReport

__all__ = ["KEEP_ALL", "import_batches", "merge", "read_batches"]

KEEP_ALL: Final = sys.maxsize
"""Finals per key that an import keeps, where the file's own retention must not apply."""


@critical
def merge(entries: EntryStore, path: str | os.PathLike[str]) -> MergeReport:
    """Import the entries of another file, which is only read; one transaction.

    Raises
    ------
    StoreError
        With ``details["source"]`` if it is the other file that cannot be read.
    """
    try:
        if os.path.samefile(path := file_path(path), entries.container.path):
            return MergeReport(reason="it is this file")
    except OSError:
        pass
    try:
        source = EntryStore(path, mode="r")
    except StoreError as error:
        error.details["source"] = os.fspath(path)
        raise
    try:
        return import_batches(entries, read_batches(source), entries.keep_last)
    finally:
        source.close()


def read_batches(source: EntryStore) -> Iterator[Batch]:
    """Yield the entries of a file key by key, and the damaged ones."""
    try:
        for section in KINDS:
            keys, pins = source.read(partial(EntryEditor.keys_and_pins, section=section))
            yield from iter_batches(source, keys, partial(EntryEditor.read_batch, section=section, pins=pins))
    except StoreError as error:
        error.details["source"] = str(source.container.path)
        raise


@critical
def import_batches(entries: EntryStore, batches: Iterable[Batch], keep_last: int) -> MergeReport:
    """Write entries of other files unchanged; one transaction."""
    added: set[str] = set()
    pinned: dict[str, set[str]] = {}
    problems: list[Problem] = []
    seen = superseded = 0
    with entries.transaction():
        for batch in batches:  # reading them may fail: an error of the other file, not of this one
            problems += batch.damaged
            seen += len(batch.entries)
            if not batch.entries:
                continue
            with entries.editing() as editor:
                try:
                    before, after = editor.absorb(batch.section, batch.key, batch.entries, keep_last)
                except Irreplaceable as error:
                    problems.append(Problem(f"/{batch.section}/{batch.key}", str(error)))
                    continue
            pinned.setdefault(batch.section, set()).update(batch.pinned)
            added |= after - before
            superseded += len({e.entry_id for e in batch.entries} - after)
        for section, ids in pinned.items():
            if ids:
                with entries.editing() as editor:
                    editor.set_pins(section, editor.pins(section) | ids)
    return MergeReport(tuple(sorted(added)), seen, superseded, tuple(problems))
