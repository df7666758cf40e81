"""Scanning a file in batches: every scan of all entries goes through here.

A batch is one consistent read. So a scan never blocks a writer, and a busy writer restarts one
batch instead of the scan. Entries may be removed or added between two batches: removed ones are
left out, new ones may be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, TypeVar

from gamwarm.encoding import KINDS, key_of
from gamwarm.entries.editor import EntryEditor
from gamwarm.interrupts import allowed, deliver

if TYPE_CHECKING:
    from gamwarm.entries.store import EntryStore

__all__ = ["Progress", "each_entry", "entry_paths", "entry_paths_in_order", "iter_batches", "names", "report_progress"]

Progress = Callable[[int, int], object]
T = TypeVar("T")
R = TypeVar("R")

BATCH_SIZE: Final = 64
"""Items per read. A commit during the read restarts it."""
FIRST_NAMES: Final = 128
"""Names read without listing the section: a first page, even if a filter rejects some."""


def report_progress(progress: Progress | None, done: int, total: int) -> bool:
    """Call the user's progress function; whether the scan continues."""
    with allowed():
        return progress is None or progress(done, total) is not False


def iter_batches(store: EntryStore, items: Iterable[T], look: Callable[[EntryEditor, T], R]) -> Iterator[R]:
    """Yield what ``look`` makes of each item; it may be asked again of the same item."""
    remaining = iter(items)
    while some := list(islice(remaining, BATCH_SIZE)):
        deliver()
        yield from store.read(partial(_each, items=some, look=look))


def _each(view: EntryEditor, items: list[T], look: Callable[[EntryEditor, T], R]) -> list[R]:
    return [look(view, item) for item in items]


def each_entry(
    store: EntryStore, section: str, places: Iterable[str], look: Callable[[EntryEditor, str, str], R]
) -> Iterator[R]:
    """Yield what ``look(view, section, path)`` makes of each entry at places (paths, or keys).

    What went since the places were listed is left out; damaged ones are not, so ``look`` gets them.
    """

    def read_one(view: EntryEditor, place: str) -> list[R]:
        return [look(view, section, path) for path in _paths(view, section, place)]

    return chain.from_iterable(iter_batches(store, places, read_one))


def _paths(view: EntryEditor, section: str, place: str) -> list[str]:
    key = key_of(place)
    if not view.has(section, key):
        return []
    if place == key:
        return view.entry_paths(section, key)
    return [place] if view.may_have(section, place) else []


def names(store: EntryStore, section: str, key: str | None = None) -> Iterator[str]:
    """Yield the keys of a section, or the children of a key, in HDF5's order (of a hash).

    The first `FIRST_NAMES` are taken without a list of the others.
    """
    first = store.read(lambda view: view.some_names(section, key, FIRST_NAMES))
    if first is None:
        return
    yield from first
    if len(first) == FIRST_NAMES:
        known = set(first)
        everything = store.read(lambda view: view.some_names(section, key, None))
        yield from (name for name in everything or () if name not in known)


def entry_paths(store: EntryStore, section: str, keys: Iterable[str] | None = None) -> Iterator[str]:
    """Yield where the entries lie: keys of records, paths of artifacts."""
    for key in names(store, section) if keys is None else keys:
        if KINDS[section].competes:
            yield key
            continue
        empty = True
        for name in names(store, section, key):
            empty = False
            yield f"{key}/{name}"
        if empty:  # damaged, or gone since the keys were listed
            yield key


def entry_paths_in_order(store: EntryStore, section: str) -> Iterator[str]:
    """Yield where the entries lie in ascending order, which does not depend on the file.

    All keys are listed before the first.
    """
    keys = store.read(partial(EntryEditor.keys, section=section))
    if KINDS[section].competes:
        return iter(keys)
    return chain.from_iterable(iter_batches(store, keys, lambda view, key: view.entry_paths(section, key)))
