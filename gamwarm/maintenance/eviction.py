"""Eviction on request."""

from __future__ import annotations

from gamwarm.entries import EntryEditor, EntryStore, EvictReport, clock, evict_entries
from gamwarm.interrupts import critical
from gamwarm.records import LATEST

__all__ = ["evict"]


@critical
def evict(
    entries: EntryStore, size_budget: int | None = None, max_age: float | None = None, *, dry_run: bool = False
) -> EvictReport:
    """Remove the oldest entries until the live bytes are within ``size_budget`` and none is older
    than ``max_age``.

    Parameters
    ----------
    entries : EntryStore
    size_budget : int, optional
        Live payload bytes that may stay.
    max_age : float, optional
        Seconds.
    dry_run : bool
        Only report what would be removed.
    """
    before = None if max_age is None else clock.now() - round(min(max_age * 1e6, LATEST))

    def remove(editor: EntryEditor) -> EvictReport:
        return evict_entries(
            editor, size_budget=size_budget, before=before, protected=entries.protected_ids(), dry_run=dry_run
        )

    if dry_run:
        return entries.read(remove)
    with entries.editing() as editor:
        return remove(editor)
