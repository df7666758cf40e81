"""The job: parent on all rows, then every fold from it, in rounds of one fold per rank."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from gamwarm.display import counted, error_line
from gamwarm.entries import PutOutcome
from gamwarm.errors import CollectiveError, GamwarmError, InvalidInput, InvalidType
from gamwarm.folds.audit import AuditedFold, ColdStore, audited_folds, check_share
from gamwarm.folds.outcome import FoldFit, FoldOutcome, outcome_of, without_answer
from gamwarm.folds.output import FoldsReport
from gamwarm.folds.progress import bar
from gamwarm.folds.rounds import Shown, in_rounds
from gamwarm.folds.splits import Fold, all_rows, digest_of, folds_of
from gamwarm.folds.terms import Curves, TermState, changes_between, curves_of, states_of
from gamwarm.folds.view import FoldView
from gamwarm.identity import FitProblem
from gamwarm.parallel import agree, already_agreed, mark_agreed
from gamwarm.records import Cost, FitResult, StartSource
from gamwarm.store import FitInProgress, FrozenView, WarmStartStore

__all__ = ["FitFold", "leave_one_out", "of_engine"]

log = logging.getLogger("gamwarm")

PARENT_FLUSH_SECONDS = 2.0
Score = Callable[[Fold, Any], float]


class FitFold(Protocol):
    """Fits one fold through the store; called on every rank in every round."""

    def __call__(
        self, fold: Fold | None, /, *, store: Any, parent: str | None, leave_out: str | None, each: bool
    ) -> Any:
        """Fit the rows of ``fold`` (None: nothing to do on this rank) and keep the result.

        ``store.fit(problem, parent, leave_out, each=each)`` must be entered once, with ``problem``
        None where ``fold`` is, and ``keep`` called once in it. ``leave_out`` is ``fold.group``:
        where the parent has group seeds, they move the start. Returns something with ``result``,
        ``start`` and ``kept``: what `gamwarm.engine.fit` returns, or a `FoldFit`.
        """
        ...


def leave_one_out(
    store: WarmStartStore | FrozenView,
    groups: Any,
    fit: FitFold,
    *,
    parent: str | None = None,
    value: Callable[[Any], Any] | None = None,
    score: Score | None = None,
    audit: float = 0.0,
    progress: bool | Shown = True,
) -> FoldsReport:
    """Fit all rows, then all but each group's, every fold from the first fit. Collective.

    Record and artifact of a fold have the attribute ``group``, its label (``gamwarm ls --attribute
    group=AA``). The fit on all rows is made by rank 0 and kept first, with checkpoints; then its
    artifact is named as the parent of every fold. Folds are assigned to ranks largest first, in
    rounds of one fold per rank; a round is one transaction.

    The parent is pinned, so that it stays in the file, until no fold remains.

    Interrupted (killed, or stopped by ``store.should_stop()``, which is called between rounds, and
    inside a fit by some engines) and run again, the job finds the stored fits: finished fits are
    exact hits that take one evaluation, a stopped fit continues from its checkpoint, and the parent
    is the same.

    Parameters
    ----------
    store : WarmStartStore or FrozenView
        Open in mode ``"a"``; its communicator's ranks share the work.
    groups : array_like of shape (n,), or several such columns
        The group of every row, the same on every rank. Groups are known by the text of their label.
        Of several columns (a mapping, a data frame) each combination that occurs is a group, its
        label is theirs joined by ", ".
    fit : callable
        Fits one fold: ``fit(fold, store=…, parent=…, leave_out=…, each=True)``; see `FitFold`.
        `of_engine` makes one of two simpler functions.
    parent : str, optional
        Entry id of an artifact that serves as parent; then all rows are not fitted.
    value : callable, optional
        What to tell all ranks of a fit besides its outcome; called with what ``fit`` returned.
    score : callable, optional
        ``score(fold, fitted)`` returns how well a fit, what ``fit`` returned, foretells the rows
        that the fold leaves out, higher for better; default the total of ``fitted.held_out``, the
        log-likelihood, where the fit has it (`gamwarm.engine` does).
    audit : float
        Share of the folds that are fitted cold as well, to compare answers and cost; at least one
        unless it is 0. Which they are depends on the labels alone.
    progress : bool or callable
        True: a bar on rank 0, see `bar`. Or a function that is called there with the number of fits
        done and of all.

    Returns
    -------
    FoldsReport
        The same on every rank. A fold whose ``fit`` raised is listed with the reason
        (`FoldsReport.unanswered`) and the others go on.

    Raises
    ------
    CollectiveError
        A rank failed in something else than a fold's fit: the fit on all rows, ``value``, the
        store; a note names its fold. The folds of earlier rounds are kept.

    Whatever ends the job, Ctrl-C too, has a note that says how many folds are stored.
    """
    folds, share, error = list[Fold](), 0.0, None
    if not callable(getattr(store, "fit", None)):
        raise InvalidType(f"store is {type(store).__name__}; give what gamwarm.open(path) returned")
    try:
        given: tuple[tuple[str, object], ...] = (("fit", fit), ("value", value), ("score", score))
        for name, function in given:
            if not callable(function) and (function is not None or name == "fit"):
                raise InvalidType(f"{name} is {type(function).__name__}; give a function of one fold")
        if not (isinstance(progress, bool) or callable(progress)):
            raise InvalidType(f"progress is {type(progress).__name__}; give True, False or a function of two numbers")
        folds, share = folds_of(groups), check_share(audit)
    except Exception as caught:  # every rank must reach the agreement below
        error = caught
    _agree_equal(store, (digest_of(folds), parent, share), error)
    labels = [str(fold.group) for fold in folds]
    campaign = _Campaign(store, fit, value, score, audited_folds(labels, share))
    with _saying_what_is_stored(campaign, len(folds)), ExitStack() as stack:
        shown = None
        if progress is not False and store.comm.rank == 0:
            shown = stack.enter_context(bar()) if progress is True else progress
        n_before = 0 if parent is not None else 1
        base, pins = None, [parent]
        if parent is None:
            if store.should_stop():
                return FoldsReport(None, None, (), tuple(labels))
            base = campaign.fit_all(all_rows(groups))
            parent, pins = base.artifact, [base.artifact, base.record]
            if base.stopped:
                return FoldsReport(base, parent, (), tuple(labels))
            if shown is not None:
                shown(1, len(folds) + 1)
        release = _pinned(store, [entry for entry in pins if entry is not None])
        outcomes = campaign.fit_folds(folds, parent, None if shown is None else partial(_behind, shown, n_before))
        ended = {outcome.group for outcome in outcomes}
        remaining = tuple(label for label in labels if label not in ended)
        if not remaining:
            for entry in release:
                store.pin(entry, False)
    return FoldsReport(base, parent, outcomes, remaining)


@contextmanager
def _saying_what_is_stored(campaign: _Campaign, count: int) -> Iterator[None]:
    """Add a note to what ends a job early; of an exit, which shows no notes, to the log."""
    try:
        yield
    except BaseException as error:
        stored = campaign.stored()
        if not stored and isinstance(error, Exception):  # a wrong argument, as a rule
            raise
        whole = "the fit on all rows and " * (None in stored)
        least = "at least " * (campaign.store.comm.size > 1)
        verb = "is" if count == 1 and not whole else "are"
        done = f"{whole}{least}{len(stored - {None})} of {counted(count, 'fold')} {verb} stored"
        text = f"{done}; run the same call again to go on"
        error.add_note(text)
        if isinstance(error, SystemExit):
            log.warning("the job was ended: %s", text)
        raise


def _pinned(store: WarmStartStore | FrozenView, entries: list[str]) -> list[str]:
    """Pin the parent's entries until the campaign is finished; return which to release then.

    A job that was killed has left both pinned; of a user's own pin there is one.
    """
    if not entries or store.mode == "r":
        return []
    before = store.pins()
    if len(entries) > 1 and before.issuperset(entries):
        return entries
    return [entry for entry in entries if entry not in before and store.pin(entry)]


class _Campaign:
    """The fits of one job."""

    def __init__(
        self,
        store: WarmStartStore | FrozenView,
        fit: FitFold,
        value: Callable[[Any], Any] | None,
        score: Score | None,
        audited: frozenset[str],
    ) -> None:
        self.store, self.fit, self.value, self.score, self.audited = store, fit, value, score, audited
        self.whole: dict[str, TermState] = {}
        self.curves: Curves = {}
        self._parent: list[FoldOutcome] = []
        self._ended: list[FoldOutcome] = []
        self._records: dict[str | None, PutOutcome] = {}

    def stored(self) -> set[str | None]:
        """Return the fits known to be on disk: this rank's, and all of whole rounds."""
        known = self._parent + self._ended
        ended = {outcome.group for outcome in known if outcome.record is not None and outcome.converged}
        return ended | {group for group, record in self._records.items() if record.written}

    def fit_all(self, fold: Fold) -> FoldOutcome:
        """Fit all rows on rank 0 alone: it can checkpoint, and no rank's bits are compared."""
        comm = self.store.comm
        made, view = None, None
        with self.store.independent(flush_seconds=PARENT_FLUSH_SECONDS) as own:
            if comm.rank == 0:
                view = FoldView(own, partial(self._records.__setitem__, None))
                made = self.fit(fold, store=view, parent=None, leave_out=None, each=True)
        found, error = None, None
        if view is not None:
            try:
                curves = curves_of(made)
                found = self._outcome(fold, made, view), curves
            except Exception as caught:
                error = caught
        answer = agree(comm, "parent of the folds", found, error)[0]
        assert answer is not None
        outcome, self.curves = answer
        self.whole, self._parent = outcome.terms, [outcome]
        if outcome.artifact is None and not outcome.stopped and self.store.disabled_reason is None and comm.rank == 0:
            log.warning(
                "the fit on all rows cannot be a parent (%s); folds start from entries that were in the file "
                "when the job began",
                outcome.not_kept or "it did not converge",
            )
        return outcome

    def fit_folds(self, folds: list[Fold], parent: str | None, shown: Shown | None) -> tuple[FoldOutcome, ...]:
        """Fit the folds in rounds, then the audits that are missing; those stopped are left out."""
        comm, view = self.store.comm, self.store.frozen()
        one = partial(self._fit_fold, view, parent)
        done = in_rounds(comm, folds, one, shown=shown, should_stop=self.store.should_stop, done=self._ended)
        ended = {outcome.group: outcome for outcome in done if not outcome.stopped}
        found_again = [
            fold
            for fold in folds
            if fold.group in self.audited and fold.group in ended and ended[fold.group].source == StartSource.EXACT
        ]
        missing = []
        for fold in found_again:
            outcome = ended[fold.group]
            record = None if outcome.key is None else self.store.get_record(outcome.key)
            filed = AuditedFold.filed(record)
            if filed is None and not outcome.failure:
                missing.append((fold, None if record is None else record.cost))
            ended[fold.group] = replace(outcome, audit=filed)
        audits = in_rounds(comm, missing, self._audit_again, should_stop=self.store.should_stop)
        for (fold, _), audit in zip(missing, audits, strict=False):
            ended[fold.group] = replace(ended[fold.group], audit=audit)
        return tuple(ended.values())

    def _fit_fold(self, view: FrozenView, parent: str | None, fold: Fold | None) -> FoldOutcome | None:
        left_out = None if fold is None else fold.group
        audit = partial(self._audit, fold) if fold is not None and left_out in self.audited else None
        answered = partial(self._records.__setitem__, left_out)
        own = FoldView(view if fold is None else view.labelled(fold.attributes), answered, audit)
        try:
            made = self.fit(fold, store=own, parent=parent, leave_out=left_out, each=True)
        except Exception as caught:
            if fold is None or own.refused or already_agreed(caught):
                raise
            own.stay_in_step()
            is_unforeseen = not isinstance(caught, GamwarmError)  # such messages say all; of others the place helps
            log.warning("%r has no answer (%s); the others go on", fold, error_line(caught), exc_info=is_unforeseen)
            return without_answer(fold, self.store.comm.rank, caught)
        return None if fold is None else self._outcome(fold, made, own)

    def _audit(self, fold: Fold, warm: Cost | None) -> AuditedFold:
        """Fit a fold cold, on this rank alone."""
        began = time.monotonic()
        try:
            made = self.fit(fold, store=ColdStore(self.store), parent=None, leave_out=None, each=True)
        except Exception as caught:
            return AuditedFold(None, warm=(warm or Cost()).own, failure=error_line(caught))
        return AuditedFold.of(made.result, time.monotonic() - began, warm)

    def _audit_again(self, missing: tuple[Fold, Cost | None] | None) -> AuditedFold | None:
        return None if missing is None else self._audit(*missing)

    def _outcome(self, fold: Fold, made: Any, view: FoldView) -> FoldOutcome:
        outcome = outcome_of(fold, self.store.comm.rank, made, None if self.value is None else self.value(made))
        terms = states_of(view.problem, made, made.result)
        held_out, not_scored = (None, "") if fold.group is None or outcome.failure else self._scored(fold, made)
        changes = {} if fold.group is None else changes_between(self.whole, terms, self.curves, curves_of(made))
        return replace(
            outcome,
            key=view.key,
            terms=terms,
            changes=changes,
            held_out=held_out,
            not_scored=not_scored,
            audit=view.audited,
        )

    def _scored(self, fold: Fold, made: Any) -> tuple[float | None, str]:
        """Return the score of the rows left out, or why there is none."""
        try:
            if self.score is not None:
                return float(self.score(fold, made)), ""
            own = getattr(made, "held_out", None)
            return (float(own(fold.left_out).total), "") if callable(own) else (None, "")
        except Exception as caught:
            return None, error_line(caught)


def of_engine(describe: Callable[[Fold], FitProblem], solve: Callable[[Fold, FitInProgress], FitResult]) -> FitFold:
    """Return the ``fit`` of `leave_one_out` for any engine.

    Parameters
    ----------
    describe : callable
        Returns the `FitProblem` of a fold.
    solve : callable
        Called with the fold and the fit in progress (``fit.problem``, ``fit.start``,
        ``fit.checkpoint``); returns the `FitResult`.
    """

    def fit(fold: Fold | None, /, *, store: Any, parent: str | None, leave_out: str | None, each: bool) -> FoldFit:
        problem = None if fold is None else describe(fold)
        with store.fit(problem, parent, leave_out, each=each) as going:
            result = None if fold is None else solve(fold, going)
            kept = going.keep(result)
        return FoldFit(result, going.start, kept)

    return fit


def _behind(shown: Shown, before: int, done: int, total: int) -> None:
    shown(done + before, total + before)


def _agree_equal(store: WarmStartStore | FrozenView, value: object, error: Exception | None) -> None:
    values = agree(store.comm, "leave_one_out", value, error)
    for rank, other in enumerate(values):
        if other != values[0]:
            wrong = InvalidInput(f"rank {rank} passed different groups or another parent than rank 0")
            different = CollectiveError(
                f"leave_one_out: {wrong}; pass the same on every rank", rank=rank, cause=str(wrong)
            )
            mark_agreed(different)
            raise different
