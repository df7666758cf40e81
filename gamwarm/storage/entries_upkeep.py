"""The part of `EntryStore` that keeps a file in shape: verify, pin, evict, compact, merge."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakSet

from gamwarm.checks import file_path
from gamwarm.errors import StoreError
from gamwarm.interrupts import critical
from gamwarm.records import check_entry_id
from gamwarm.storage import clock
from gamwarm.storage.checking import check_entries
from gamwarm.storage.codec import ARTIFACTS, RECORDS, SECTIONS
from gamwarm.storage.container import Container
from gamwarm.storage.layout import Irreplaceable
from gamwarm.storage.ledger import LedgerLine, read_ledger
from gamwarm.storage.outcome import PutOutcome
from gamwarm.storage.stored import Held
from gamwarm.storage.turns import Turn
from gamwarm.storage.upkeep import (
    CompactReport,
    Evicted,
    EvictReport,
    MergeReport,
    Portion,
    Problem,
    UpkeepView,
    VerifyReport,
    copy_file,
    order_of_eviction,
)
from gamwarm.storage.walking import Progress, in_portions

__all__ = ["EntryUpkeep"]

log = logging.getLogger("gamwarm")
T = TypeVar("T")
MANY_ENTRIES: Final = 1000
_LONGEST_AGE: Final = 1e12
"""Seconds; older than any time stamp."""
SLACK: Final = 16


class EntryUpkeep:
    """What `EntryStore` is built on to look after a file; transactions and reads are its own."""

    container: Container
    held: WeakSet[Held]
    _path: Path
    _keep_last: int
    _size_budget: int | None
    _grew: bool
    _pending: list[PutOutcome]
    _turn: Turn
    _view: UpkeepView | None

    def transaction(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def _read(self, look: Callable[[UpkeepView], T]) -> T:
        raise NotImplementedError

    def _hdf5_errors(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def _open_source(self, path: str | os.PathLike[str]) -> EntryUpkeep:
        """Open another file for reading."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    @critical
    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Read every entry, check its seal, its content digest and that it decodes; check totals and index.

        Entries are read a portion at a time, so that a writer beside is not waited for. In mode ``"a"`` wrong totals
        and a wrong index are put right. ``progress(done, total)`` ends the walk by returning False.
        """
        report, wrong = check_entries(self, progress)
        repaired: tuple[Problem, ...] = ()
        if self.container.recovered:
            what = "its last writer died or the machine went down; the journal was replayed on opening"
            repaired = (Problem(str(self._path), what),)
        problems = report.problems + wrong
        if wrong and self.container.mode == "a":
            try:
                with self.transaction(), self._hdf5_errors():
                    assert self._view is not None
                    self._view.put_right()
                problems, repaired = report.problems, repaired + wrong
            except StoreError as error:
                log.warning("%s: what verify found could not be put right: %s", self._path, error)
        return replace(report, problems=problems, repaired=repaired)

    # -- upkeep ------------------------------------------------------------------------------------------------

    @critical
    def pin(self, entry_id: str, *, pinned: bool = True) -> bool:
        """Keep an entry from eviction (or no longer); return whether it is there."""
        check_entry_id(entry_id)
        with self.transaction(), self._hdf5_errors():
            view = self._view
            assert view is not None
            section = view.section_of(entry_id)
            for each in SECTIONS:
                ids = view.pins(each)
                view.set_pins(each, ids | {entry_id} if pinned and each == section else ids - {entry_id})
        return section is not None

    @critical
    def evict(
        self, size_budget: int | None = None, max_age: float | None = None, *, dry_run: bool = False
    ) -> EvictReport:
        """Remove the oldest entries until the live bytes are within ``size_budget`` and none is older than ``max_age``.

        Parameters
        ----------
        size_budget : int, optional
            Live payload bytes that may stay.
        max_age : float, optional
            Seconds.
        dry_run : bool
            Only say what would go.
        """
        before = None if max_age is None else clock.now() - round(min(max_age, _LONGEST_AGE) * 1e6)
        if dry_run:
            return self._read(lambda view: self._evict(view, size_budget, before, dry_run=True))
        with self.transaction(), self._hdf5_errors():
            assert self._view is not None
            return self._evict(self._view, size_budget, before)

    def _evict(
        self, view: UpkeepView, size_budget: int | None, before: int | None, *, dry_run: bool = False
    ) -> EvictReport:
        unread = [problem for problem in map(view.unread_pins, SECTIONS) if problem]
        if unread:
            log.warning("%s: nothing is evicted: %s", self._path, unread[0])
            return EvictReport(dry_run=dry_run, reason=str(unread[0]))
        weighed = view.weigh()
        live = sum(e.nbytes for e in weighed)
        keep = view.pins(RECORDS) | view.pins(ARTIFACTS) | {e.parent for e in weighed if e.parent is not None}
        keep |= {entry_id for held in self.held for entry_id in held.created}  # parents of campaigns under way
        # What this very transaction files is about to be acknowledged.
        keep |= {outcome.entry_id for outcome in self._pending if outcome.entry_id is not None}
        gone: list[Evicted] = []
        while True:
            chosen = order_of_eviction(weighed, size_budget=size_budget, before=before, keep=keep)
            removed = {e.entry_id for e in chosen} if dry_run else view.remove(chosen)
            gone += [Evicted(e.entry_id, f"/{e.section}/{e.path}", e.nbytes) for e in chosen if e.entry_id in removed]
            if len(removed) == len(chosen):
                break
            keep |= {e.entry_id for e in chosen} - removed
            weighed = [e for e in weighed if e.entry_id not in removed]
        return EvictReport(tuple(gone), live, live - sum(e.nbytes for e in gone), dry_run)

    def _stay_within_budget(self, view: UpkeepView) -> None:
        budget = self._size_budget
        if budget is None or not (self._pending or self._grew):
            return
        with self._hdf5_errors():
            if view.total("live_bytes") <= budget:
                return
            if view.total("n_entries") > MANY_ENTRIES:
                budget -= budget // SLACK  # so that not every commit has to look at every entry
            report = self._evict(view, budget, None)
        log.info(
            "%s: %d oldest entries evicted, %d live bytes left", self._path, len(report.evicted), report.bytes_after
        )

    @critical
    def compact(self) -> CompactReport:
        """Write the file anew without the space that removed entries left, and say what that gave back."""
        with self._turn:
            with self._hdf5_errors():
                (entries, lost), before, after = self.container.rewrite(copy_file)
            for problem in lost:
                log.warning("%s: %s", self._path, problem)
            return CompactReport(before, after, entries, tuple(lost))

    @critical
    def merge(self, path: str | os.PathLike[str]) -> MergeReport:
        """Take over the entries of another file, which is only read; one transaction.

        Raises
        ------
        StoreError
            With ``details["source"]`` if it is the other file that cannot be read.
        """
        try:
            if os.path.samefile(path := file_path(path), self.container.path):
                return MergeReport(reason="it is this file")
        except OSError:
            pass
        try:
            source = self._open_source(path)
        except StoreError as error:
            error.details["source"] = os.fspath(path)
            raise
        try:
            return self.absorb(source.portions(), self._keep_last)
        finally:
            source.close()

    def portions(self) -> Iterator[Portion]:
        """Yield the entries key by key, and what is damaged."""
        try:
            for section in SECTIONS:
                keys, pins = self._read(partial(UpkeepView.keys_and_pins, section=section))
                yield from in_portions(self, keys, partial(UpkeepView.portion, section=section, pins=pins))
        except StoreError as error:
            error.details["source"] = str(self._path)
            raise

    def ledger(self) -> Iterator[LedgerLine | None]:
        """Yield what every entry says of its fit; None for a damaged one."""
        return read_ledger(self)

    @critical
    def absorb(self, portions: Iterable[Portion], keep_last: int) -> MergeReport:
        """File entries of other files as they are; one transaction."""
        added: set[str] = set()
        problems: list[Problem] = []
        seen = superseded = 0
        with self.transaction():
            view = self._view
            assert view is not None
            for portion in portions:
                problems += portion.damaged
                seen += len(portion.entries)
                if not portion.entries:
                    continue
                with self._hdf5_errors():
                    try:
                        before, after = view.absorb(portion.section, portion.key, portion.entries, keep_last)
                    except Irreplaceable as error:
                        problems.append(Problem(f"/{portion.section}/{portion.key}", str(error)))
                        continue
                    if portion.pinned:
                        view.set_pins(portion.section, view.pins(portion.section) | portion.pinned)
                self._grew |= bool(after - before)
                added |= after - before
                superseded += len({e.entry_id for e in portion.entries} - after)
        return MergeReport(tuple(sorted(added)), seen, superseded, tuple(problems))
