"""Opening the file that a subcommand is about, and finding what a short key means in it."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gamwarm.cli.exit_codes import BadUsage, NoSuchKey
from gamwarm.cli.output import followed
from gamwarm.entries import ARTIFACTS, RECORDS, Browser, EntryStore, Seen
from gamwarm.errors import NotAStore, StoreNotFound
from gamwarm.storage import status_of

__all__ = ["Target", "changing", "looking_into", "refuse_no_file", "resolve", "short"]

SHORT: Final = 12
"""Characters of a key that listings show."""
LEAST: Final = 4
MOST_CANDIDATES: Final = 8
_KEY: Final = re.compile(r"(cf-)?([0-9a-f]*)")


@contextmanager
def looking_into(path: Path) -> Iterator[tuple[EntryStore, Browser]]:
    """Open a file for reading: no lock, no change, also beside a writer or on read-only media."""
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


@dataclass(frozen=True)
class Target:
    """What a key on the command line means.

    Attributes
    ----------
    section, key : str
    entry_id : str
        Of one entry; empty: all entries of the key.
    """

    section: str
    key: str
    entry_id: str = ""

    def entries(self, browser: Browser) -> list[Seen]:
        """Return the entries meant; damaged ones too, where the key itself was given."""
        found = list(browser.walk(self.section, [self.key]))
        return [seen for seen in found if seen.entry_id == self.entry_id] if self.entry_id else found

    def __str__(self) -> str:
        return self.entry_id or self.key


def short(seen: Seen) -> str:
    """Return what a listing calls an entry: its exact key, or of an artifact its entry id."""
    return seen.key[:SHORT] if seen.section == RECORDS else seen.path.rpartition("/")[2][:SHORT]


def resolve(browser: Browser, text: str) -> Target:
    """Find what a key or the beginning of one means.

    Exact keys, descriptor keys and entry ids of artifacts are found by names alone. Entry ids of records stand inside
    the records: they are sought, by reading every record, only where nothing else begins so.

    Raises
    ------
    NoSuchKey
        Nothing in the file begins so, or several things do.
    """
    wanted = text.strip().rstrip("….").lower()
    match = _KEY.fullmatch(wanted)
    if match is None or len(match[2]) < LEAST:
        raise BadUsage(
            f"{text!r} is no key: give at least {LEAST} hex digits of an exact key (cf-…), a descriptor key or an "
            "entry id"
        )
    prefix, digits = match[1] or "", match[2]
    found: dict[str, Target] = {}
    if len(digits) <= 64:
        found |= {key: Target(RECORDS, key) for key in browser.starting_with(RECORDS, f"cf-{digits}")}
    if not prefix:
        found |= {key: Target(ARTIFACTS, key) for key in browser.starting_with(ARTIFACTS, digits)}
        if len(digits) <= 32:
            found |= {t.entry_id: t for t in _artifacts(browser, digits)}
            if not found:
                found |= {t.entry_id: t for t in _records(browser, digits)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise NoSuchKey(f"{text}: no entry of this file has a key or entry id that begins so; `gamwarm ls` lists them")
    names = sorted(found)
    more = f" and {len(names) - MOST_CANDIDATES} more" if len(names) > MOST_CANDIDATES else ""
    raise NoSuchKey(
        f"{text}: {len(names)} keys begin so: {', '.join(names[:MOST_CANDIDATES])}{more}; give more digits",
        candidates=names,
    )


def _artifacts(browser: Browser, digits: str) -> Iterator[Target]:
    for path in browser.artifact_paths():
        key, _, entry_id = path.partition("/")
        if entry_id.startswith(digits):
            yield Target(ARTIFACTS, key, entry_id)


def _records(browser: Browser, digits: str) -> Iterator[Target]:
    records = browser.walk(RECORDS, decoded=False)
    for seen in followed(records, "seeking among entry ids of records", browser.totals().entries):
        if seen.entry_id.startswith(digits):
            yield Target(RECORDS, seen.key, seen.entry_id)
