"""Checking every entry of a file, beside writers too."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from gamwarm.storage.browse import Browser
from gamwarm.storage.codec import ARTIFACTS, SECTIONS
from gamwarm.storage.upkeep import Problem, UpkeepView, VerifyReport
from gamwarm.storage.walking import Progress, tell

if TYPE_CHECKING:
    from gamwarm.storage.entries_upkeep import EntryUpkeep

__all__ = ["check_entries"]


def check_entries(entries: EntryUpkeep, progress: Progress | None) -> tuple[VerifyReport, tuple[Problem, ...]]:
    """Check seals, content digests and decoding; return the report, and apart from it what can be put right.

    Totals and index are compared only if nothing was committed meanwhile: they are of one state, and the entries that
    were read would be of several.
    """
    browser = Browser(entries)
    before = entries.container.look()
    total = entries._read(lambda view: view.total("n_entries"))
    problems: list[Problem] = []
    index: dict[str, set[str]] = {}
    done = nbytes = last = 0
    for seen in chain.from_iterable(browser.walk(section, content=True) for section in SECTIONS):
        if not tell(progress, done, max(total, done + 1)):
            return VerifyReport(_sorted(problems), done, nbytes, complete=False), ()
        done += 1
        nbytes += seen.nbytes
        last = max(last, seen.created)
        if seen.problem:
            problems.append(Problem(f"/{seen.section}/{seen.path}", seen.problem))
            continue
        structural = seen.meta.get("structural_key") if seen.section == ARTIFACTS else None
        if structural is not None:
            index.setdefault(structural, set()).add(seen.key)
    tell(progress, done, done)
    pins = entries._read(lambda view: [view.unread_pins(section) for section in SECTIONS])
    report = VerifyReport(_sorted([*problems, *filter(None, pins)]), done, nbytes)
    if problems:  # what damaged entries weigh, and belong to, is not known
        return report, ()

    def wrong(view: UpkeepView) -> tuple[Problem, ...]:
        return view.misstated(done, nbytes, last, index)

    found = entries._read(wrong)
    return report, found if entries.container.look() == before else ()


def _sorted(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.place))
