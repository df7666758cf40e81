"""The job: parent on all rows, then every fold from it, in rounds of one fold per rank."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

from gamwarm.errors import CollectiveError, InvalidInput, InvalidType
from gamwarm.folds.outcome import FoldFit, FoldOutcome, FoldsReport, outcome_of, told, without_answer
from gamwarm.folds.progress import bar
from gamwarm.folds.rounds import Shown, in_rounds
from gamwarm.folds.splits import Fold, all_rows, digest_of, folds_of
from gamwarm.folds.view import FoldView
from gamwarm.identity import FitProblem
from gamwarm.parallel import agree, already_agreed, mark_agreed
from gamwarm.records import GROUP, FitResult
from gamwarm.store import FitInProgress, FrozenView, WarmStartStore

__all__ = ["FitFold", "leave_one_out", "of_engine"]

log = logging.getLogger("gamwarm")

PARENT_FLUSH_SECONDS = 2.0


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
    progress: bool | Shown = True,
) -> FoldsReport:
    """Fit all rows, then all but each group's, every fold from the first fit. Collective.

    Record and artifact of a fold have the attribute ``group``, its label (``gamwarm ls --attribute
    group=AA``). The fit on all rows is made by rank 0 and kept first, with checkpoints; then its
    artifact is named as the parent of every fold. Folds are assigned to ranks largest first, in
    rounds of one fold per rank; a round is one transaction.

    Interrupted (killed, or stopped by ``store.should_stop()``, which is called between rounds, and
    inside a fit by some engines) and run again, the job finds the stored fits: finished fits are
    exact hits that take one evaluation, a stopped fit continues from its checkpoint, and the parent
    is the same.

    Parameters
    ----------
    store : WarmStartStore or FrozenView
        Open in mode ``"a"``; its communicator's ranks share the work.
    groups : array_like of shape (n,)
        The group of every row, the same on every rank. Groups are known by the text of their label.
    fit : callable
        Fits one fold: ``fit(fold, store=…, parent=…, leave_out=…, each=True)``; see `FitFold`.
        `of_engine` makes one of two simpler functions.
    parent : str, optional
        Entry id of an artifact that serves as parent; then all rows are not fitted.
    value : callable, optional
        What to tell all ranks of a fit besides its outcome; called with what ``fit`` returned.
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
    """
    comm = store.comm
    folds, error = list[Fold](), None
    try:
        if not callable(fit):
            raise InvalidType(f"fit is {type(fit).__name__}; give a function of one fold")
        folds = folds_of(groups)
    except Exception as caught:  # every rank must reach the agreement below
        error = caught
    _agree_equal(store, (digest_of(folds), parent), error)
    root = comm.rank == 0
    with ExitStack() as stack:
        shown = None
        if progress is not False and root:
            shown = stack.enter_context(bar()) if progress is True else progress
        n_before = 0 if parent is not None else 1
        total = len(folds) + n_before
        base = None
        if parent is None:
            if store.should_stop():
                return FoldsReport(None, None, (), tuple(str(fold.group) for fold in folds))
            base = _parent(store, all_rows(groups), fit, value)
            parent = base.artifact
            if base.stopped:
                return FoldsReport(base, parent, (), tuple(str(fold.group) for fold in folds))
            if parent is None and store.disabled_reason is None and root:
                log.warning(
                    "the fit on all rows cannot be a parent (%s); folds start from entries that were in the file "
                    "when the job began",
                    base.not_kept or "it did not converge",
                )
            if shown is not None:
                shown(1, total)
        view = store.frozen()

        def one(fold: Fold | None) -> FoldOutcome | None:
            left_out = None if fold is None else fold.group
            own = FoldView(view if left_out is None else view.labelled({GROUP: left_out}))
            try:
                made = fit(fold, store=own, parent=parent, leave_out=left_out, each=True)
            except Exception as caught:
                if fold is None or own.refused or already_agreed(caught):
                    raise
                own.stay_in_step()
                log.warning("%r has no answer (%s); the others go on", fold, told(caught), exc_info=True)
                return without_answer(fold, comm.rank, caught)
            if fold is None:
                return None
            return outcome_of(fold, comm.rank, made, None if value is None else value(made))

        done = in_rounds(
            comm,
            folds,
            one,
            shown=None if shown is None else partial(_behind, shown, n_before),
            should_stop=store.should_stop,
        )
    fitted = tuple(outcome for outcome in done if not outcome.stopped)
    ended = {outcome.group for outcome in fitted}
    return FoldsReport(base, parent, fitted, tuple(str(fold.group) for fold in folds if fold.group not in ended))


def _parent(
    store: WarmStartStore | FrozenView, fold: Fold, fit: FitFold, value: Callable[[Any], Any] | None
) -> FoldOutcome:
    """Fit all rows on rank 0 alone: it can checkpoint, and no rank's bits are compared."""
    made = None
    with store.independent(flush_seconds=PARENT_FLUSH_SECONDS) as own:
        if store.comm.rank == 0:
            made = fit(fold, store=own, parent=None, leave_out=None, each=True)
    outcome, error = None, None
    if store.comm.rank == 0:
        try:
            outcome = outcome_of(fold, 0, made, None if value is None else value(made))
        except Exception as caught:
            error = caught
    told = agree(store.comm, "parent of the folds", outcome, error)[0]
    assert told is not None
    return told


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
