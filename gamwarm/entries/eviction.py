"""Eviction: which entries go, oldest first, and what stays whatever its age."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from gamwarm.encoding import KINDS, DamagedEntry
from gamwarm.entries.editor import EntryEditor

__all__ = ["EvictReport", "Evicted", "choose_evictions", "evict_entries"]

log = logging.getLogger("gamwarm")


@dataclass(frozen=True)
class EvictionCandidate:
    """What eviction needs to know of an entry."""

    section: str
    path: str
    entry_id: str
    created: int
    nbytes: int
    parent: str | None
    """Of a checkpoint: the entry that its fit started from."""
    fit_key: str | None = None
    """Of an artifact: the exact key of its fit."""


def choose_evictions(
    candidates: Iterable[EvictionCandidate], *, size_budget: int | None, before: int | None, keep: Collection[str]
) -> list[EvictionCandidate]:
    """Choose what goes, oldest first, until the rest is within budget and not too old.

    Parameters
    ----------
    candidates : iterable of EvictionCandidate
    size_budget : int or None
        Live bytes that may stay.
    before : int or None
        What was created before this time (UTC microseconds) goes.
    keep : collection of str
        Entry ids that stay whatever their age.
    """
    entries = sorted(candidates, key=lambda e: (e.created, e.entry_id))
    live = sum(e.nbytes for e in entries)
    chosen = []
    for entry in entries:
        too_old = before is not None and entry.created < before
        too_much = size_budget is not None and live > size_budget
        if (too_old or too_much) and entry.entry_id not in keep:
            chosen.append(entry)
            live -= entry.nbytes
    return chosen


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


def evict_entries(
    editor: EntryEditor,
    *,
    size_budget: int | None,
    before: int | None,
    protected: Collection[str],
    dry_run: bool = False,
) -> EvictReport:
    """Remove what `choose_evictions` chooses from an open file.

    Pinned entries, ``protected`` ones and the parents of checkpoints stay; if the pins cannot be
    read, everything does.
    """
    unread = [problem for problem in map(editor.unread_pins, KINDS) if problem]
    if unread:
        log.warning("nothing is evicted: %s", unread[0])
        return EvictReport(dry_run=dry_run, reason=str(unread[0]))
    candidates = _candidates(editor)
    live = sum(e.nbytes for e in candidates)
    keep = editor.all_pins() | set(protected)
    keep |= {e.parent for e in candidates if e.parent is not None}
    gone: list[Evicted] = []
    while True:
        chosen = choose_evictions(candidates, size_budget=size_budget, before=before, keep=keep)
        ids = {e.entry_id for e in chosen}
        removed = (
            ids
            if dry_run
            else editor.remove(((e.section, e.path, e.entry_id) for e in chosen), _newest(candidates, ids))
        )
        gone += [Evicted(e.entry_id, f"/{e.section}/{e.path}", e.nbytes) for e in chosen if e.entry_id in removed]
        if len(removed) == len(chosen):
            break
        keep |= ids - removed
        candidates = [e for e in candidates if e.entry_id not in removed]
    return EvictReport(tuple(gone), live, live - sum(e.nbytes for e in gone), dry_run)


def _newest(candidates: Iterable[EvictionCandidate], gone: Collection[str]) -> dict[str, tuple[int, str]]:
    """Return time and entry id of the newest artifact of each fit that is left."""
    newest: dict[str, tuple[int, str]] = {}
    for each in candidates:
        if each.fit_key is not None and each.entry_id not in gone:
            this = each.created, each.entry_id
            newest[each.fit_key] = max(this, newest.get(each.fit_key, this))
    return newest


def _candidates(editor: EntryEditor) -> list[EvictionCandidate]:
    """Read every intact entry. Damaged ones weigh nothing: `verify` lists them."""
    found = []
    with editor.scanning():
        for section, path in editor.all_paths():
            with suppress(DamagedEntry):
                entry = editor.read(section, path)
                said = entry.summary(path)
                parent = said.parent if said.kind == "checkpoint" else None
                fit_key = None if KINDS[section].relations is None else said.fit_key
                found.append(
                    EvictionCandidate(section, path, said.entry_id, said.created, entry.nbytes, parent, fit_key)
                )
    return found
