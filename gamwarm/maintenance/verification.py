"""Verification: every entry read and its digests checked, while other processes may write."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import chain

from gamwarm.entries import (
    ARTIFACTS,
    KINDS,
    Browser,
    EntryEditor,
    EntryStore,
    Index,
    Problem,
    Progress,
    report_progress,
)
from gamwarm.errors import StoreError
from gamwarm.interrupts import critical
from gamwarm.maintenance.reports import VerifyReport

__all__ = ["verify"]

log = logging.getLogger("gamwarm")


@critical
def verify(entries: EntryStore, progress: Progress | None = None) -> VerifyReport:
    """Read every entry, check its seal, its content digest and that it decodes; check totals and
    index.

    Entries are read in batches, so that writers do not wait for the full scan. In mode ``"a"``
    wrong totals and a wrong index are repaired. ``progress(done, total)`` ends the scan by
    returning False.
    """
    entries.flush()
    entries.container.drop_handles()
    path = entries.container.path
    report, wrong = _check_entries(entries, progress)
    repaired: tuple[Problem, ...] = ()
    if entries.container.recovered:
        what = "its last writer died or the machine crashed; the journal was replayed on opening"
        repaired = (Problem(str(path), what),)
    problems = report.problems + wrong
    if wrong and entries.container.mode == "a":
        try:
            with entries.editing() as editor:
                editor.rebuild()
            problems, repaired = report.problems, repaired + wrong
        except StoreError as error:
            log.warning("%s: the problems found by verify could not be repaired: %s", path, error)
    return replace(report, problems=problems, repaired=repaired)


def _check_entries(entries: EntryStore, progress: Progress | None) -> tuple[VerifyReport, tuple[Problem, ...]]:
    """Check seals, content digests and decoding; return the report, and apart from it what
    `rebuild` can repair.

    Totals and index are compared only if nothing was committed meanwhile: they are of one state,
    and the entries that were read would be of several.
    """
    browser = Browser(entries)
    before = entries.container.look()
    total = entries.read(lambda view: view.total("n_entries"))
    problems: list[Problem] = []
    index, misplaced = Index(), False
    done = nbytes = last = 0
    for seen in chain.from_iterable(browser.walk(section, content=True) for section in KINDS):
        if not report_progress(progress, done, max(total, done + 1)):
            return VerifyReport(_sorted(problems), done, nbytes, complete=False), ()
        done += 1
        nbytes += seen.nbytes
        last = max(last, seen.created)
        if seen.problem:
            problems.append(Problem(seen.place, seen.problem))
        elif seen.encoded is not None:
            misplaced |= not seen.indexed
            if seen.section == ARTIFACTS:
                index.add(seen.encoded, seen.summary)
    report_progress(progress, done, done)
    pins = entries.read(lambda view: [view.unread_pins(section) for section in KINDS])
    report = VerifyReport(_sorted([*problems, *filter(None, pins)]), done, nbytes)
    if problems:  # what damaged entries weigh, and belong to, is not known
        return report, ()

    def wrong(view: EntryEditor) -> tuple[Problem, ...]:
        return view.find_inconsistencies(done, nbytes, last, index, misplaced=misplaced)

    found = entries.read(wrong)
    return report, found if entries.container.look() == before else ()


def _sorted(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.place))
