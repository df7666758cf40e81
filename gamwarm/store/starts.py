"""Look-ups of complete fits: one agreement, one answer from rank 0, one start on every rank."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from gamwarm.entries import ParentSnapshot
from gamwarm.errors import CollectiveError, UnkeyableFit
from gamwarm.identity import FitProblem
from gamwarm.parallel import SERIAL, Communicator
from gamwarm.records import StartSource
from gamwarm.store.arguments import check_each, check_rows_and_ranks, this_problem
from gamwarm.store.collective import Ranks
from gamwarm.store.lookup import (
    Answer,
    Parent,
    Request,
    answer,
    cold_unkeyable,
    describe,
    start_from,
)
from gamwarm.store.savings import Session
from gamwarm.store.transactions import Writes
from gamwarm.transfer import StartReport

__all__ = ["Starts"]

log = logging.getLogger("gamwarm")
_OFF = Answer(reason="the store is off")


class Starts:
    """The look-ups of one store."""

    def __init__(self, ranks: Ranks, writes: Writes, session: Session) -> None:
        self._ranks, self._writes, self._session = ranks, writes, session

    def find(
        self, problem: FitProblem | None, parent: Parent, leave_out: Any, each: bool, parents: ParentSnapshot | None
    ) -> StartReport:
        """Return where a fit should begin. Collective.

        ``parents``: artifacts that may be chosen (on rank 0, which decides); None: all.
        """
        ranks = self._ranks
        ranks.check_open()
        if ranks.disabled_reason is not None:
            return StartReport(StartSource.COLD, reason=f"the store is off: {ranks.disabled_reason}")
        request, unkeyable = None, None
        error: BaseException | None
        each, error = check_each(each)
        if error is None and (problem is not None or not each):
            request, unkeyable, error = self.described(problem, parent, leave_out, each=each)

        def find_each(requests: list[Request | None]) -> list[Answer]:
            return [self._answer(wanted, parents) for wanted in requests]

        if each:
            ranks.agree_round("start_for", error)
            found = ranks.serve_each("start_for", request, find_each, _OFF, ranks.at_root)
            if problem is None:
                return StartReport(StartSource.COLD, reason="nothing to do on this rank")
        else:
            ranks.agree_equal("start_for", request, error)
            look = partial(self._answer, request, parents)
            found = _OFF if request is None else ranks.at_root("start_for", look, _OFF)
        if unkeyable is not None:
            if (each or ranks.is_root) and unkeyable.details.get("why") != "opt-out":
                log.warning("%s", unkeyable)
            return cold_unkeyable(unkeyable)
        assert problem is not None
        assert request is not None
        return self._report(problem, request.key, found, leave_out, SERIAL if each else ranks.comm)

    def described(
        self, problem: FitProblem | None, parent: Parent, leave_out: Any, *, each: bool = False
    ) -> tuple[Request | None, UnkeyableFit | None, BaseException | None]:
        """Return a fit's request, or why it has no key, or the error for every rank."""
        try:
            fit = this_problem(problem)
            check_rows_and_ranks(fit, self._ranks.comm, each=each)
            return describe(fit, fit.key if each else self._ranks.key_of(fit), parent, leave_out), None, None
        except UnkeyableFit as caught:
            return None, caught, None
        except BaseException as caught:  # every rank must reach the agreement that follows
            if isinstance(caught, CollectiveError) and not each:
                raise
            return None, None, caught

    def _answer(self, request: Request | None, parents: ParentSnapshot | None) -> Answer:
        if request is None:
            return Answer()
        found = answer(self._writes.at_file(), request, parents)
        if found.lost_parent:
            self._session.say_once(
                f"parent {request.parent}", f"{self._ranks.path}: {found.lost_parent}; these fits start cold"
            )
        return found

    def _report(self, problem: FitProblem, key: str, found: Answer, leave_out: Any, comm: Communicator) -> StartReport:
        disabled = self._ranks.disabled_reason
        if disabled is not None:
            return StartReport(StartSource.COLD, None, key, reason=f"the store is off: {disabled}")
        report = start_from(problem, key, found, leave_out, comm)
        if comm.rank == 0:  # one fit is one line, on however many ranks
            level = logging.DEBUG if report.source == StartSource.COLD else logging.INFO
            log.log(level, "%s… %s", key[:15], report)
            if report.terms and log.isEnabledFor(logging.DEBUG):
                log.debug("%s… %s", key[:15], report.summary())
        return report
