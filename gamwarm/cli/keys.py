"""Opening a subcommand's file, and resolving short keys in it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from gamwarm.cli.output import followed
from gamwarm.entries import BrowsedEntry, Browser, EntryStore, Target, resolve_key
from gamwarm.errors import NotAStore, StoreNotFound
from gamwarm.storage import status_of

__all__ = ["changing", "looking_into", "refuse_no_file", "resolve", "search", "short"]

SHORT: Final = 12
"""Characters of a key that listings show."""


@contextmanager
def looking_into(path: Path) -> Iterator[tuple[EntryStore, Browser]]:
    """Open a file for reading: no lock, no change; also beside a writer or on read-only media."""
    refuse_no_file(path)
    entries = EntryStore(path, mode="r")
    try:
        yield entries, Browser(entries)
    finally:
        entries.close()


@contextmanager
def changing(path: Path, wait: float) -> Iterator[EntryStore]:
    """Open a file that is there for writing; ``wait`` seconds for another writer."""
    refuse_no_file(path)
    with looking_into(path):  # a missing file is not made, a foreign one not touched
        pass
    entries = EntryStore(path, mode="a", lock_timeout=wait)
    try:
        yield entries
    finally:
        entries.close()


def refuse_no_file(path: Path) -> None:
    """Say that a path is a directory, or that nothing is there."""
    status = status_of(path)
    if status is None:
        raise StoreNotFound(f"{path}: no such file; check the path")
    if stat.S_ISDIR(status.st_mode):
        raise NotAStore(f"{path}: a directory; give the path of a file")


def short(seen: BrowsedEntry) -> str:
    """Return the name of an entry in a listing: its exact key, or of an artifact its entry id."""
    return seen.name[:SHORT]


def resolve(browser: Browser, text: str) -> Target:
    """Resolve a key or a prefix; a progress bar where that takes a while."""
    return resolve_key(browser, text, partial(search, browser))


def search(browser: Browser, records: Iterator[BrowsedEntry]) -> Iterator[BrowsedEntry]:
    """Show how far a search among the entry ids of all records is."""
    return followed(records, "searching entry ids of records", browser.totals().entries)
