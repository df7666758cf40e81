"""Entries buffered in memory and written together: one lock, one transaction for many puts."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from gamwarm.encoding import ARTIFACTS, KINDS, RECORDS, Encoded, Refused, decode, stamped_at
from gamwarm.entries import clock
from gamwarm.entries.editor import EntryEditor
from gamwarm.entries.index import BothIndexes, CandidateSource, Index, Wanted
from gamwarm.entries.outcome import Pending, PutOutcome
from gamwarm.entries.store import UNCHANGED, EntryStore
from gamwarm.entries.stored import ParentSnapshot, StoredArtifact, StoredRecord, record_meant
from gamwarm.errors import LockTimeout
from gamwarm.identity import check_exact_key
from gamwarm.interrupts import critical, quiet
from gamwarm.records import (
    FitArtifact,
    Producer,
    check_entry_id,
)
from gamwarm.storage import EXIT_PATIENCE, clean_up_all, in_use_here

__all__ = ["BufferedEntries"]

log = logging.getLogger("gamwarm")

END_PRIORITY: Final = -100
"""Of the finalizer in processes of `multiprocessing`: after those of all others."""

LEFT_BEHIND_PATIENCE: Final = 0.5
"""How long garbage collection waits for the writer lock; the rest is written later."""


class _Buffered(NamedTuple):
    """One entry, and the outcomes of all who put it."""

    encoded: Encoded
    pending: Pending


class BufferedEntries(EntryStore):
    """An `EntryStore` that buffers puts until `flush`; its look-ups see buffered entries.

    Inside `transaction` nothing is buffered: the buffer is written first, and puts go to the file.

    Parameters
    ----------
    flush_seconds : float
        A flush is due when the last one (or the opening) is so long ago. There is no background
        thread: `is_due` only says so.
    flush_entries : int
        A flush is due when this many entries are buffered.
    options
        Of `EntryStore`.
    """

    def __init__(self, path: Any, *, flush_seconds: float, flush_entries: int, **options: Any) -> None:
        super().__init__(path, **options)
        self._flush_seconds = flush_seconds
        self._flush_entries = flush_entries
        self._waits: dict[str, _Buffered] = {}
        self._flushed = time.monotonic()
        self._process = os.getpid()
        _alive.add(self)

    # -- waiting -----------------------------------------------------------------------------------

    @property
    def _waiting(self) -> dict[str, _Buffered]:
        """The buffered entries; those in a forked child's copy are its parent's to write."""
        if self._process != os.getpid():
            self._process, self._waits = os.getpid(), {}
        return self._waits

    @property
    def n_pending(self) -> int:
        """Number of buffered entries."""
        return len(self._waiting)

    def is_due(self, *, urgent: bool = False) -> bool:
        """Whether a flush is due by time or by number; ``urgent``: whether anything is buffered."""
        waiting = len(self._waiting)
        if not waiting:
            return False
        return urgent or waiting >= self._flush_entries or time.monotonic() - self._flushed >= self._flush_seconds

    @critical
    def flush(self, patience: float | None = None) -> int:
        """Write the buffer in one transaction, and settle its outcomes; return how many entries.

        If that fails, everything stays pending. ``patience``: seconds to wait for other writers.
        """
        with self.call_lock:
            if not self.container.opened_here and not self.in_transaction:
                self.open_again()
            waiting = list(self._waiting.values())
            if not waiting:
                return 0
            with super().transaction(patience):
                filed = [super(BufferedEntries, self).put_encoded(each.encoded) for each in waiting]
            self._waits = {}
            self._flushed = time.monotonic()
            for each, outcome in zip(waiting, filed, strict=True):
                each.pending.settle(written=outcome.written, reason=outcome.reason)
            return sum(outcome.written for outcome in filed)

    def discard_pending(self, reason: str) -> None:
        """Discard the buffer; its outcomes say why."""
        with self.call_lock:
            for each in self._waiting.values():
                each.pending.settle(written=False, reason=reason)
            self._waits = {}

    def _wait(self, encoded: Encoded) -> PutOutcome:
        outcome = PutOutcome(pending=True, entry_id=encoded.entry_id)
        waiting = self._waiting
        if not waiting:
            _watch_the_end()
            _flush_dropped()
        waiting.setdefault(encoded.entry_id, _Buffered(encoded, Pending())).pending.add(outcome)
        return outcome

    @contextmanager
    def transaction(self, patience: float | None = None) -> Iterator[None]:
        """Write the buffer, then begin a transaction whose puts go to the file."""
        with self.call_lock:
            if not self.in_transaction:
                self.flush(patience)
            with super().transaction(patience):
                yield

    # -- putting -----------------------------------------------------------------------------------

    def put_encoded(self, entry: Encoded | Refused) -> PutOutcome:
        """Buffer an entry. A checkpoint worse than the file's is refused at the flush."""
        with self.call_lock:
            if self.in_transaction or isinstance(entry, Refused):
                return super().put_encoded(entry)
            return self._wait(stamped_at(entry, clock.now()))

    def unchanged(self, entry_id: str) -> PutOutcome:
        """Return the outcome of putting an entry that is already stored or buffered."""
        with self.call_lock:
            if self.in_transaction:
                return super().unchanged(entry_id)
            again = self._waiting.get(entry_id)
            return PutOutcome(written=True, reason=UNCHANGED, entry_id=entry_id) if again is None else self._join(again)

    def _join(self, waiting: _Buffered) -> PutOutcome:
        outcome = PutOutcome(pending=True, reason=UNCHANGED, entry_id=waiting.encoded.entry_id)
        waiting.pending.add(outcome)
        return outcome

    # -- looking up --------------------------------------------------------------------------------

    def _of(self, section: str, pick: Callable[[Encoded], bool] = lambda _: True) -> list[Encoded]:
        return [w.encoded for w in tuple(self._waiting.values()) if w.encoded.section == section and pick(w.encoded)]

    def _waits_for(self, key: str) -> bool:
        return bool(self._of(RECORDS, lambda e: e.key == key))

    def _after_flush(self, section: str, key: str) -> tuple[set[str], list[Encoded]]:
        """Return the ids that the file has under a key, and its entries after a flush."""
        found = self._entries(section, lambda view: view.entry_paths(section, key))
        kept = {encoded.entry_id: encoded for encoded, _ in found}
        in_file = set(kept)
        latest = max((encoded.created for encoded in kept.values()), default=0)
        retain = KINDS[section].retain
        for new in self._of(section, lambda e: e.key == key):
            if new.entry_id in kept:
                continue
            latest = max(latest + 1, new.created)  # as if written now
            kept[new.entry_id] = stamped_at(new, latest)
            if retain is not None:
                chosen = retain([encoded.summary() for encoded in kept.values()], self.keep_last)
                kept = {summary.entry_id: kept[summary.entry_id] for summary in chosen}
        return in_file, list(kept.values())

    def find_record(self, key: str, producer: Producer | None) -> StoredRecord | None:
        """Return the record that ``producer`` means under an exact key, or None."""
        with self.call_lock:
            if self.in_transaction or not self._waits_for(check_exact_key(key)):
                return super().find_record(key, producer)
            kept = self._after_flush(RECORDS, key)[1]
            return record_meant([(encoded, decode(encoded)) for encoded in kept], producer)

    def find_artifact(self, entry_id: str) -> StoredArtifact | None:
        """Return one artifact by its entry id."""
        with self.call_lock:
            waiting = self._waiting.get(check_entry_id(entry_id))
            found = None if waiting is None else _stored(waiting.encoded)
            return super().find_artifact(entry_id) if found is None else found

    def waiting(self) -> list[Encoded]:
        """Return the buffered entries."""
        with self.call_lock:
            return [each.encoded for each in self._waiting.values()]

    def find_artifact_of_fit(self, exact_key: str) -> StoredArtifact | None:
        """Return the newest artifact of a fit."""
        with self.call_lock:
            waiting = self._of(ARTIFACTS, lambda encoded: encoded.summary().fit_key == exact_key)
            found = _stored(max(waiting, key=lambda encoded: encoded.created)) if waiting else None
            return super().find_artifact_of_fit(exact_key) if found is None else found

    def find_key_of_record(self, entry_id: str) -> str | None:
        """Return the exact key that a record of this entry id is, or will be, filed under."""
        with self.call_lock:
            waiting = self._waiting.get(check_entry_id(entry_id))
            if waiting is not None and waiting.encoded.section == RECORDS:
                return waiting.encoded.key
            return super().find_key_of_record(entry_id)

    @critical
    def snapshot_parents(self) -> ParentSnapshot:
        """Return the artifacts that are in the file now, and those that wait."""
        with self.call_lock:
            held = super().snapshot_parents()
            waiting = self._of(ARTIFACTS)
            if not waiting:
                return held
            both = ParentSnapshot(held.ids | {encoded.entry_id for encoded in waiting}, held.index)
            for encoded in waiting:
                both.index.add(encoded)
            self.held.add(both)
            return both

    def find_parent(
        self, wanted: Wanted, held: ParentSnapshot | None = None, *, usable: bool = True
    ) -> StoredArtifact | None:
        """Return the best parent that is intact, in the file or waiting for it."""
        with self.call_lock:
            return super().find_parent(wanted, held, usable=usable)

    def _candidates(self, source: CandidateSource, held: ParentSnapshot | None) -> CandidateSource:
        waiting = self._of(ARTIFACTS, lambda encoded: held is None or encoded.entry_id in held.ids)
        if not waiting:
            return source
        index = Index(None)
        for encoded in waiting:
            index.add(encoded)
        return BothIndexes(index, source)

    def _artifact_in(self, view: EntryEditor, path: str, damaged: list[tuple[str, str]]) -> StoredArtifact | None:
        waiting = self._waiting.get(path.rpartition("/")[2])
        return super()._artifact_in(view, path, damaged) if waiting is None else _stored(waiting.encoded)

    def keys(self) -> list[str]:
        """Return the exact keys that have a record, sorted."""
        with self.call_lock:
            return sorted({*super().keys(), *(e.key for e in self._of(RECORDS))})

    def descriptor_keys(self) -> list[str]:
        """Return the strict descriptor keys that have artifacts, sorted."""
        with self.call_lock:
            return sorted({*super().descriptor_keys(), *(e.key for e in self._of(ARTIFACTS))})

    def entry_ids(self) -> set[str]:
        """Return what `flush` would leave in the file: the entry ids of all intact entries."""
        with self.call_lock:
            ids = super().entry_ids()
            for section, key in {(e.section, e.key) for e in self.waiting()}:
                in_file, kept = self._after_flush(section, key)
                ids = ids - in_file | {encoded.entry_id for encoded in kept}
            return ids

    def __len__(self) -> int:
        with self.call_lock:
            new = 0
            for section, key in {(e.section, e.key) for e in self.waiting()}:
                in_file, kept = self._after_flush(section, key)
                new += len(kept) - len(in_file)
            return super().__len__() + new

    def close(self) -> None:
        """Close; the remaining buffer is discarded. Idempotent."""
        self.discard_pending("the store was closed before it could be written")
        super().close()


def _stored(encoded: Encoded) -> StoredArtifact | None:
    artifact = decode(encoded)
    return StoredArtifact(artifact, encoded.entry_id) if isinstance(artifact, FitArtifact) else None


# -- the end of a process, and stores that were never closed ---------------------------------------

_alive: WeakSet[BufferedEntries] = WeakSet()
_left: list[BufferedEntries] = []
_finalizer: Any = None


def _watch_the_end() -> None:
    """Write the buffer at the end even of a `multiprocessing` process, which skips atexit."""
    global _finalizer
    util = sys.modules.get("multiprocessing.util")
    if util is None or (_finalizer is not None and _finalizer.still_active()):
        return
    if _finalizer is None:
        # A worker begins by forgetting the finalizers that it was forked with, or that importing
        # has registered in it.
        util.register_after_fork(_end_of_worker, lambda _: _watch_the_end())
    _finalizer = util.Finalize(None, _end_of_worker, exitpriority=END_PRIORITY)


@quiet
def leave(entries: BufferedEntries) -> None:
    """Write the buffer of a store that was collected unclosed, now or later."""
    if entries.n_pending:
        _left.append(entries)
        _flush_dropped()


def _flush_dropped() -> None:
    if not _left or in_use_here():
        return
    for entries in list(_left):
        n = entries.n_pending
        try:
            entries.flush(LEFT_BEHIND_PATIENCE)
            entries.close()
        except LockTimeout:
            continue  # the next put of any store tries again, and so does the end of the process
        except Exception as error:  # a finalizer cannot raise
            entries.discard_pending(str(error))
            warnings.warn(
                f"{entries.container.path}: {n} entries of an independent store that was never closed could not be "
                f"written: {error}",
                ResourceWarning,
                stacklevel=2,
            )
        _left.remove(entries)


@critical
def _file_all() -> None:
    """Write all buffers of this process; one warning counts what could not be written."""
    lost, reasons = 0, list[str]()
    for entries in [*_left, *_alive]:
        n = entries.n_pending
        if n == 0:
            continue
        if not entries.call_lock.lock.acquire(timeout=EXIT_PATIENCE):
            lost += n
            reasons.append(f"{entries.container.path}: another thread was still in a call")
            continue
        try:
            entries.flush()
        except Exception as error:  # the other stores are still flushed
            lost += n
            reasons.append(str(error))
            entries.discard_pending(str(error))
        finally:
            entries.call_lock.lock.release()
    _left.clear()
    if lost:
        log.warning("%d pending entries could not be written at exit: %s", lost, "; ".join(reasons))


def _end_of_worker() -> None:
    _file_all()
    clean_up_all()


# Registered after the container's own, so run before it: the containers are still open.
atexit.register(_file_all)
