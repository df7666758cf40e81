"""Keeping the file in shape, collectively: verify, pin, evict, compact, merge, salvage."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any, TypeVar

from gamwarm.checks import as_bool, as_finite_float, as_int, file_path
from gamwarm.entries import EntryStore, EvictReport, Problem, list_sealed
from gamwarm.errors import GamwarmError, StoreError, StoreReadOnly
from gamwarm.interrupts import critical
from gamwarm.maintenance import (
    CompactReport,
    MergeReport,
    SalvageReport,
    VerifyReport,
    compact,
    evict,
    merge,
    salvage_file,
    verify,
)
from gamwarm.parallel import mark_agreed
from gamwarm.records import check_entry_id
from gamwarm.store.arguments import malformed, wrong_type
from gamwarm.store.collective import Ranks
from gamwarm.store.savings import Savings, Session, add_up
from gamwarm.store.transactions import Writes

__all__ = ["Upkeep", "salvage"]

T = TypeVar("T")


class Upkeep:
    """The part of `WarmStartStore` that looks after the file. Collective."""

    path: Path
    mode: str
    _ranks: Ranks
    _session: Session
    _writes: Writes

    @property
    def _file(self) -> EntryStore:
        raise NotImplementedError

    @critical
    def verify(self, progress: Callable[[int, int], object] | None = None) -> VerifyReport:
        """Read and check every entry. Collective.

        Parameters
        ----------
        progress : callable, optional
            Called on rank 0 with the number of entries read and their total; returning False ends
            the walk.

        Returns
        -------
        VerifyReport
            With ``ok``, ``problems`` and ``verdict``: ``"sound"``; ``"repaired"`` (a journal had to
            be replayed on opening, or in mode ``"a"`` running totals or the index were
            wrong and are right now); ``"damaged"``.
        """
        self._ranks.agree("verify", None, wrong_type("progress", progress, (Callable, type(None))))
        report = self._ranks.at_root("verify", lambda: verify(self._file, progress), None)
        if report is not None:
            return report
        return VerifyReport((Problem(str(self.path), f"not checked: {self._writes.reason_not_written()}"),), 0, 0)

    @critical
    def savings(self) -> Savings:
        """Add up the savings of the file's converged fits and this session. Collective.

        A fit is compared with its own cold run where one is known, else with the nearest cold fit
        of the same model: see `Savings`. Every fit counts once. Reads every entry, a batch at a
        time.
        """
        self._ranks.agree("savings", None)
        seen = self._session
        found = self._ranks.at_root(
            "savings", lambda: add_up(list_sealed(self._file), seen.so_far(), seen.refused), None
        )
        return Savings(reason=f"not read: {self._writes.reason_not_written()}") if found is None else found

    @critical
    def pin(self, entry_id: str, pinned: bool = True) -> bool:
        """Keep an entry from eviction (``pinned=False``: no longer). Collective.

        A pin is not part of the entry's content, and does not stop a newer record of the same fit
        from replacing it. Returns whether the entry is in the file.
        """
        error = malformed(check_entry_id, entry_id) or _refusal(as_bool, pinned, "pinned")
        self._ranks.agree_equal("pin", (entry_id, pinned), error)
        return self._writes.run("pin", lambda: self._file.pin(entry_id, pinned=pinned), False)

    @critical
    def pins(self) -> set[str]:
        """Return the entry ids that are pinned. Collective."""
        self._ranks.agree("pins", None)
        return self._ranks.at_root("pins", lambda: self._file.read(lambda view: view.all_pins()), set())

    @critical
    def evict(
        self,
        size_budget: int | None = None,
        max_age: float | timedelta | None = None,
        dry_run: bool = False,
    ) -> EvictReport:
        """Remove the oldest entries, in a fixed order (``created``, then entry id). Collective.

        What stays whatever its age: pinned entries, parents of unfinished fits (checkpoints),
        damaged entries, and entries of the open transaction.

        Parameters
        ----------
        size_budget : int, optional
            Live payload bytes that may stay.
        max_age : float or datetime.timedelta, optional
            Older entries go, whatever the size; seconds.
        dry_run : bool
            Only say what would go.
        """
        seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
        error = _budget_error(size_budget) or _age_error(seconds) or _refusal(as_bool, dry_run, "dry_run")
        self._ranks.agree_equal("evict", (size_budget, seconds, dry_run), error)

        def act() -> EvictReport:
            return evict(self._file, size_budget, None if seconds is None else float(seconds), dry_run=dry_run)

        report = self._ranks.at_root("evict", act, None) if dry_run else self._writes.run("evict", act, None)
        return EvictReport(dry_run=dry_run, reason=self._writes.reason_not_written()) if report is None else report

    @critical
    def compact(self) -> CompactReport:
        """Rewrite the file without freed space. Collective, not in `transaction`.

        Entries are copied unchanged, with their seals. A kill leaves the old file or the new one,
        complete; other processes that have it open continue with the new one.
        """
        error = None
        if self._writes.in_transaction:
            error = StoreError(f"{self.path}: compact() inside transaction(); leave the block first")
        self._ranks.agree("compact", None, error)

        def act() -> CompactReport:
            if self.mode == "r":
                raise StoreReadOnly(f"{self.path}: opened with mode 'r'; open it with mode 'a' to compact it")
            return compact(self._file)

        report = self._ranks.at_root("compact", act, None)
        return CompactReport(reason=self._writes.reason_not_written()) if report is None else report

    @critical
    def merge(self, path: str | os.PathLike[str]) -> MergeReport:
        """Copy another file's entries into this one, in one transaction. Collective.

        The result is the union of the entry ids, less what retention (one checkpoint and
        ``keep_last`` finals per exact key) does not keep; it depends neither on the order of merges
        nor on how often they are done. Of one content in both files the later ``created`` stays.
        The other file is only read.

        Raises
        ------
        StoreError
            `NotAStore`, `NewerFormat`, `OlderFormat`, `StoreNotFound`, … about the *other* file, on
            every rank, whatever ``on_error`` says; this file is as before.
        """
        source, error = _checked(path, "path")
        self._ranks.agree_equal("merge", str(source), error)

        def act() -> MergeReport | StoreError:
            if self.mode == "r":
                raise StoreReadOnly(f"{self.path}: opened with mode 'r'; open it with mode 'a' to merge into it")
            return _about_source(lambda: merge(self._file, source))

        with self._writes.lock:
            report = self._ranks.at_root("merge", act, None)
        return MergeReport(reason=self._writes.reason_not_written()) if report is None else _raised(report)

    @critical
    def salvage(self, into: str | os.PathLike[str], time_limit: float = 60.0) -> SalvageReport:
        """Copy every entry that its digests confirm into a new file. Collective.

        Also of a store that is off because its file is damaged; `gamwarm.salvage` does the same
        without opening one.

        Parameters
        ----------
        into : path
            Must not exist.
        time_limit : float
            Seconds without progress after which an entry is skipped: HDF5 can hang or crash on
            damage, so the file is read in a child process.
        """
        target, error = _checked(into, "into")
        error = error or _refusal(as_finite_float, time_limit, "time_limit", minimum=0.0, infinite=True)
        self._ranks.agree_equal("salvage", (str(target), time_limit), error)

        def act() -> SalvageReport | StoreError:
            try:
                return salvage_file(self.path, target, _patience(time_limit))
            except StoreError as error:
                return error

        report = self._ranks.at_root("salvage", act, None, even_off=True)
        return SalvageReport(reason=self._writes.reason_not_written()) if report is None else _raised(report)


@critical
def salvage(path: str | os.PathLike[str], into: str | os.PathLike[str], time_limit: float = 60.0) -> SalvageReport:
    """Copy what can be read of a damaged gamwarm file into a new one. Local.

    Every entry whose seal and content digest confirm it is copied; the report lists what could not
    be reached. The damaged file is only read, in a child process that is given up when it hangs or
    crashes.

    Parameters
    ----------
    path : path
        The damaged file; its journal is used if it belongs to it.
    into : path
        Must not exist.
    time_limit : float
        Seconds without progress after which an entry is skipped.

    Raises
    ------
    StoreNotFound, StoreError
        There is no such file, or ``into`` exists already.
    """
    return salvage_file(file_path(path), file_path(into, "into"), _patience(time_limit))


def _patience(time_limit: object) -> float:
    return min(as_finite_float(time_limit, "time_limit", minimum=0.0, infinite=True), TIMEOUT_MAX)


def _budget_error(size_budget: object) -> GamwarmError | None:
    """Return the error of a size budget: bytes, or None."""
    return None if size_budget is None else _refusal(as_int, size_budget, "size_budget (bytes)")


def _age_error(seconds: object) -> GamwarmError | None:
    return None if seconds is None else _refusal(as_finite_float, seconds, "max_age (seconds)", minimum=0.0)


def _refusal(check: Callable[..., object], value: object, what: str, **limits: Any) -> GamwarmError | None:
    try:
        check(value, what, **limits)
    except GamwarmError as error:
        return error
    return None


def _checked(path: object, what: str) -> tuple[Path, GamwarmError | None]:
    try:
        return file_path(path, what), None
    except GamwarmError as error:
        return Path(), error


def _about_source(act: Callable[[], T]) -> T | StoreError:
    """Return an error about another file as a value: it must not switch this store off."""
    try:
        return act()
    except StoreError as error:
        if "source" not in error.details:
            raise
        return error


def _raised(report: T | StoreError) -> T:
    """Raise, on every rank alike, what came as a value."""
    if isinstance(report, StoreError):
        mark_agreed(report)
        raise report
    return report
