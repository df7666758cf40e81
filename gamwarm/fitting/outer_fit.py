"""From a start to an answer: look-up, guard, search, certificate, checkpoints, record and
artifact.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from gamwarm.checks import FloatArray, as_bool, float_vector, real_array, require
from gamwarm.errors import FitFailed, GamwarmError, InvalidInput, InvalidType
from gamwarm.fitting.evaluation import Evaluation, Objective
from gamwarm.fitting.metric import complete_metric, usable_metric
from gamwarm.fitting.report import GuardReport, OuterFit
from gamwarm.fitting.search import End, Outcome, Search
from gamwarm.identity import FitProblem
from gamwarm.records import Cost, Curvature, FitResult, GroupSeeds, StartSource, normalize_active_sets, plateau_flags
from gamwarm.store import FitInProgress, FitStore, refuse_without_store
from gamwarm.transfer import START_MARGIN, StartGuard, StartReport, TransferredStart, is_same_objective, off_plateau

__all__ = ["fit"]

log = logging.getLogger("gamwarm")
T = TypeVar("T")

# Where an engine has no cold starts of its own: this much smoother and rougher than the initial
# rho.
_COLD_SHIFT = 4.0
# Answers that are each lower than the one before, and places where an engine expects the next.
_MOST_ALTERNATIVES = 3
# An engine may yield cold starts without end.
_MOST_COLD_STARTS = 64
# No fault of the point that an engine was asked to evaluate: a time limit or a disk, too little
# memory, a wish to stop. Everything else may be, whatever the engine calls it.
_NO_FAULT_OF_A_POINT = (OSError, MemoryError, StopIteration)


def fit(
    problem: FitProblem | None,
    objective: Objective | None,
    store: FitStore | None = None,
    *,
    parent: Any = None,
    leave_out: Any = None,
    each: bool = False,
    attributes: Mapping[str, str | int | float] | None = None,
    group_seeds: str | GroupSeeds | None = None,
    checkpoint: bool = True,
    start: Any = None,
    outer_hessian: bool | None = None,
) -> OuterFit:
    """Fit one problem with an engine that can evaluate its objective.

    The start is looked up and guarded, the outer search runs to the certificate, checkpoints are
    offered on the way, and record and artifact are stored.

    Parameters
    ----------
    problem : FitProblem or None
        None only with ``each=True``: this rank has nothing to do in this round.
    objective : Objective or None
        The engine: an object with ``evaluate(rho, theta, budget) -> Evaluation``; see `Objective`
        for what else it may have.
    store : FitStore, optional
        Without one nothing is looked up or stored; the procedure is the same.
    parent : str or KeepOutcome, optional
        The fit to start from.
    leave_out : optional
        The group that this fit leaves out: the parent's seeds for it move the start.
    each : bool
        One fit per rank of the store's communicator, in rounds.
    attributes : mapping of str to strings and numbers, optional
        Labels of your own, kept with record and artifact.
    group_seeds : str or GroupSeeds, optional
        What leaving each group out changes, for children; a column where ``objective.group_seeds``
        computes it.
    checkpoint : bool
        Offer the store a checkpoint after each outer iteration.
    start : optional
        Where to begin without a store: anything with ``rho`` and ``block_beta``, and maybe
        ``curvature``, in this fit's coordinates. It is guarded like a transfer.
    outer_hessian : bool, optional
        Whether the result must carry the exact outer Hessian, which children use as their metric.
        Default: yes for a fit that goes into a store and was not itself a transfer from a parent
        with the same terms.

    Raises
    ------
    InvalidInput, InvalidType
        Naming the argument and the next step.
    FitFailed
        The objective is not finite anywhere the search could go.
    """
    if problem is None and not (each and store is not None):
        raise InvalidInput("problem is None; only a rank without work in a round of each=True passes None")
    require("problem", problem, (FitProblem, type(None)))
    require("attributes", attributes, (Mapping, type(None)))
    each, checkpoint = as_bool(each, "each"), as_bool(checkpoint, "checkpoint")
    outer_hessian = None if outer_hessian is None else as_bool(outer_hessian, "outer_hessian")
    if problem is not None and not callable(getattr(objective, "evaluate", None)):
        raise InvalidType(
            f"objective is {type(objective).__name__}; give an object with evaluate(rho, theta, budget) -> Evaluation"
        )
    if isinstance(group_seeds, str) and problem is not None and not hasattr(objective, "group_seeds"):
        raise InvalidInput(
            f"group_seeds names the column {group_seeds!r}; that needs objective.group_seeds(evaluation, column), or "
            "pass a GroupSeeds"
        )
    if store is None:
        refuse_without_store(parent=parent, leave_out=leave_out, each=each)
        assert problem is not None
        assert objective is not None
        return _Fit(problem, objective, group_seeds, bool(outer_hessian), attributes).run(start, None, None)
    if not callable(getattr(store, "fit", None)):
        raise InvalidType(f"store is {type(store).__name__}; give what gamwarm.open(path) returned, or None")
    if start is not None:
        raise InvalidInput("pass either a store, which provides its own start, or a start")
    with store.fit(problem, parent=parent, leave_out=leave_out, attributes=attributes, each=each) as handle:
        if problem is None or objective is None:
            return OuterFit(None, handle.start, handle.keep(None), GuardReport(), "", (), Cost(), None)
        begun = handle.start
        # A model of its own, as a parent with other terms starts, is a parent in its turn.
        first = begun.source == StartSource.COLD or begun.is_checkpoint or getattr(begun.start, "is_partial", False)
        wanted = first if outer_hessian is None else outer_hessian
        one = _Fit(problem, objective, group_seeds, wanted, None, handle, checkpoint=checkpoint)
        return one.run(handle.start.start, handle.start, handle)


def _cannot_evaluate(error: Exception) -> bool:
    """Whether an engine may have raised this because of the point."""
    if isinstance(error, GamwarmError):  # else what the engine returned is wrong whatever the start
        return isinstance(error, FitFailed)
    return not isinstance(error, _NO_FAULT_OF_A_POINT)


class _Fit:
    """State of one fit."""

    def __init__(
        self,
        problem: FitProblem,
        objective: Objective,
        seeds: str | GroupSeeds | None,
        outer_hessian: bool,
        attributes: Mapping[str, str | int | float] | None,
        handle: FitInProgress | None = None,
        *,
        checkpoint: bool = True,
    ) -> None:
        self.began = time.perf_counter()
        self.problem, self.objective, self.seeds = problem, objective, seeds
        self.outer_hessian, self.attributes = outer_hessian, dict(attributes or {})
        self.handle, self.checkpoint = handle, checkpoint
        self.q, self.ends = problem.n_outer, np.cumsum(problem.block_dims)
        limit = problem.options.rho_bound
        initial = np.clip(problem.layout.initial_rho, -limit, limit)
        count = len(problem.nuisance)
        nuisance = getattr(objective, "nuisance", np.zeros(count))
        self.default_rho = np.concatenate([initial, float_vector(nuisance, "objective.nuisance", length=count)])
        self.off_plateau = off_plateau(self.default_rho, initial.size)
        self.null = self._null()
        self.guard = GuardReport()
        self.nothing_left = False
        self.notes: list[str] = []
        self.outcomes: list[tuple[str, Outcome]] = []
        self._colds = self._cold_starts()

    def _null(self) -> FloatArray:
        p = sum(self.problem.block_dims)
        given = getattr(self.objective, "null", None)
        if given is not None:
            return np.array(float_vector(given, "objective.null", length=p))
        specs = self.problem.specs
        parts = [np.zeros(s.width) if s.initial_beta is None else np.asarray(s.initial_beta) for s in specs]
        return np.concatenate([np.zeros(0), *parts])

    # -- the fit -----------------------------------------------------------------------------------

    def run(self, start: Any, report: StartReport | None, handle: FitInProgress | None) -> OuterFit:
        stop = None if handle is None else handle.should_stop
        cached = getattr(start, "cached_inner", None)
        self.search = Search(self.problem, self.objective, self.null, self.off_plateau, cached, self._step_done, stop)
        other = None if start is None else self._search_offered(start, report)
        if not self.outcomes and not self._search_cold():
            raise InvalidInput("objective.cold_starts() yields nothing; yield at least one start")
        self._search_further(other, start, report)
        self._search_alternatives(report)
        origin, outcome = self._best()
        self.guard.continued_from = origin
        if not np.isfinite(outcome.at.value):
            reasons = "; ".join(dict.fromkeys(each.reason for _, each in self.outcomes))
            raise FitFailed(f"no finite objective was found ({reasons}); simplify the model or check the data")
        return self._finish(outcome, start, report, handle)

    def _search_offered(self, start: Any, report: StartReport | None) -> Evaluation | None:
        """Search from the offered start; an engine that cannot evaluate there has not failed
        the fit.
        """
        failed: Exception
        try:
            return self._search_start(start, report)
        except Exception as error:
            if not _cannot_evaluate(error):
                raise
            failed = error
        self.guard.notes.append(f"the engine raised {type(failed).__name__} at the warm start ({failed})")
        self.outcomes.clear()
        return None

    def _search_start(self, start: Any, report: StartReport | None) -> Evaluation | None:
        """Search from an exact record or an offered start; return the evaluation that was not gone
        on from.
        """
        rho, theta = self._offered(start)
        self._offer_active_sets(start)
        metric = usable_metric(start, self.q)
        if report is not None and report.source == StartSource.EXACT:
            inside = np.clip(rho, -self.search.bound, self.search.bound)
            first = self.search.evaluate(inside, theta)
            if not self._contradicts(first, getattr(start, "objective", None)):
                self.outcomes.append(("start", self.search.run(first, metric)))
                return None
            metric = None  # of another objective, perhaps

        def metric_at(at: Evaluation) -> FloatArray | None:
            # What no parent's Hessian knows is not predicted, hence no reason for doubt.
            if metric is None:
                return self.search.hessian(at)
            return metric if partial else complete_metric(metric, at)

        partial = getattr(start, "is_partial", False)
        admitted = StartGuard(
            evaluate=self.search.evaluate_offer if partial else self.search.evaluate,
            evaluate_cold=self._cold_evaluation,
            null=self.null,
            default_rho=self.default_rho,
            penalised_nll=self.search.penalized_nll if self.search.has_nll else None,
            rho_bound=self.problem.options.rho_bound,
            nuisance=len(self.problem.nuisance),
            is_answer=self.search.is_answer,
            partial=partial,
        ).admit(rho, theta, metric_at)
        self.guard.take(admitted)
        # Every coordinate went back: the search begins where a cold one does.
        self.nothing_left = bool(admitted.resets) and np.array_equal(admitted.point.rho, self.off_plateau)
        # The metric is the start's own: of a cold start, of one that it does not fit, or of a
        # coordinate that went back it says nothing.
        own = None if admitted.continued_from == "cold" or admitted.cold_evaluated else metric
        if own is not None and admitted.resets:
            gone = [j for j, _ in admitted.resets]
            own = np.array(own)
            own[gone, :] = own[:, gone] = np.nan
        self.outcomes.append((admitted.continued_from, self.search.run(admitted.point, own)))
        return admitted.other

    def _contradicts(self, first: Evaluation, stored: float | None) -> bool:
        """Whether a stored objective differs from the evaluation at its point: then the record is
        only an offer.
        """
        if is_same_objective(stored, first.value):
            return False
        note = f"the stored objective {stored:.12g} is evaluated here as {first.value:.12g}"
        self.notes.append(f"{note}: the record was guarded like a transfer")
        log.warning("%s: %s; the evaluation counts", self.problem, note)
        return True

    def _search_further(self, other: Evaluation | None, start: Any, report: StartReport | None) -> None:
        """Search from the remaining starts, until there is an answer or a search is stopped."""
        if self._is_settled():
            if other is not None and other.is_finite and self.search.is_answer(other):
                met = "cold" if self.outcomes[-1][0] == "start" else "start"
                self.outcomes.append((met, self.search.run(other)))  # takes no step: it is an answer already
        elif self._has_ended_here_before(start, report):
            return
        elif other is not None and other.is_finite:
            origin = "cold" if self.outcomes[-1][0] == "start" else "start"
            why = self.outcomes[-1][1].reason
            which = "cold" if origin == "cold" else "offered"
            self.guard.notes.append(f"no answer ({why}): the {which} start was searched too")
            self.outcomes.append((origin, self.search.run(other)))
        while self._is_open() and self._search_cold():
            pass

    def _search_alternatives(self, report: StartReport | None) -> None:
        """Search from where the engine expects the objective to be lower than at the answer.

        Asked of each lower answer again, but not of an exact hit.
        """
        own = getattr(self.objective, "alternatives", None)
        stayed = report is not None and report.source == StartSource.EXACT and not self.search.cost.outer_iterations
        if own is None or stayed:
            return
        for _ in range(_MOST_ALTERNATIVES):
            origin, best = self._lowest()
            if not best.is_answer:
                return
            try:
                lower = self._search_lower(own(best.at), best.at.value)
            except Exception as error:
                if not _cannot_evaluate(error):
                    raise
                self.guard.notes.append(f"the search for another answer failed ({error})")
                return
            if lower is None:
                return
            self.outcomes.append((origin, lower))

    def _search_lower(self, starts: Any, value: float) -> Outcome | None:
        """Return the first search from these starts that ends in an answer lower than ``value``."""
        if not isinstance(starts, Iterable):
            raise InvalidType(f"objective.alternatives() returned {type(starts).__name__}; return or yield starts")
        for rho, theta in islice(starts, _MOST_ALTERNATIVES):
            rho = float_vector(rho, "an alternative's rho", length=self.q)
            theta = float_vector(theta, "an alternative's theta", length=self.null.size)
            at = self.search.evaluate_offer(np.clip(rho, -self.search.bound, self.search.bound), theta)
            if at.is_finite and at.value < value:
                found = self.search.run(at)
                if found.is_answer and found.at.value < value and not is_same_objective(value, found.at.value):
                    return found
        return None

    def _search_cold(self) -> bool:
        """Search from the next cold start; False if none is left, or if it fails although there is
        an answer.
        """
        try:
            at = self._next_cold()
            if at is None:
                return False
            if self.outcomes:
                last = self.outcomes[-1][1]
                why = "another branch of the objective was met" if last.is_answer else f"no answer ({last.reason})"
                self.guard.notes.append(f"{why}: the next cold start was searched")
            self.outcomes.append(("cold", self.search.run(at)))
        except Exception as error:
            if not (_cannot_evaluate(error) and any(each.is_answer for _, each in self.outcomes)):
                raise
            self.guard.notes.append(f"the search from another cold start failed ({error})")
            return False
        return True

    def _is_settled(self) -> bool:
        return any(each.end in (End.ANSWER, End.ITERATIONS, End.STOPPED) for _, each in self.outcomes)

    def _is_open(self) -> bool:
        """Whether another cold start may help: there is no answer, or only answers whose searches
        met another branch.
        """
        ends = [each for _, each in self.outcomes]
        cut_short = any(each.end in (End.ITERATIONS, End.STOPPED) for each in ends)
        return not cut_short and all(each.branch for each in ends if each.is_answer)

    def _has_ended_here_before(self, start: Any, report: StartReport | None) -> bool:
        """Whether a complete fit ended at this checkpoint (it has a gradient) and a search makes no
        progress from there.

        Where a coefficient runs away neither gradient nor objective settle, so a search may take
        some steps to the same end; the lack of a finite optimum is a property of the data, whatever
        the start.
        """
        if report is None or not report.is_checkpoint or self.guard.beta_used is not None:
            return False
        gradient = getattr(getattr(start, "curvature", None), "gradient", None)
        ended = self.outcomes[-1][1]
        if gradient is None or (ended.steps and ended.end is not End.RUNAWAY):
            return False
        self.notes.append(
            "an earlier fit ended at this checkpoint without an answer; no other start was searched again"
        )
        return True

    def _best(self) -> tuple[str, Outcome]:
        """Return the lowest answer, else the lowest point."""
        answers = [each for each in self.outcomes if each[1].is_answer]
        if len(answers) > 1:
            values = sorted(each.at.value for _, each in answers)
            if not is_same_objective(values[-1], values[0]):
                told = " and ".join(f"{value:.10g}" for value in values)
                self.notes.append(f"this objective has more than one answer ({told}); the lower counts")
        self.notes += dict.fromkeys(each.branch for _, each in answers if each.branch)
        return self._lowest()

    def _lowest(self) -> tuple[str, Outcome]:
        answers = [each for each in self.outcomes if each[1].is_answer]
        finite = [each for each in self.outcomes if np.isfinite(each[1].at.value)]
        return min(answers or finite or self.outcomes, key=lambda each: each[1].at.value)

    # -- starts ------------------------------------------------------------------------------------

    def _offered(self, start: Any) -> tuple[FloatArray, FloatArray]:
        if not (hasattr(start, "rho") and hasattr(start, "block_beta")):
            raise InvalidType(
                f"start is {type(start).__name__}; give an object with rho and block_beta, as a FitResult is"
            )
        rho = np.array(real_array(start.rho, "the start's rho", "real numbers"))
        beta = [float_vector(b, "the start's block_beta", finite=False) for b in start.block_beta]
        if rho.shape != (self.q,):
            raise InvalidInput(f"the start has rho of shape {rho.shape}; this fit has {self.q} outer coordinates")
        widths = tuple(b.shape[0] for b in beta)
        if widths != self.problem.block_dims:
            raise InvalidInput(
                f"the start's coefficients have widths {list(widths)}; "
                f"blocks {list(self.problem.block_names)} have {list(self.problem.block_dims)}"
            )
        return rho, np.concatenate([np.zeros(0), *beta])

    def _offer_active_sets(self, start: Any) -> None:
        sets = normalize_active_sets(getattr(start, "active_sets", None))
        offer = getattr(self.objective, "offer_active_sets", None)
        if sets is None or offer is None:
            return
        if len(sets) != len(self.ends):
            raise InvalidInput(f"the start has {len(sets)} active sets; this fit has {len(self.ends)} blocks")
        offer(sets)

    def _cold_starts(self) -> Iterator[Any]:
        own = getattr(self.objective, "cold_starts", None)
        if own is not None:
            given = own()
            if not isinstance(given, Iterable):
                raise InvalidType(f"objective.cold_starts() returned {type(given).__name__}; return or yield starts")
            yield from islice(given, _MOST_COLD_STARTS)
            return
        smoothing, limit = self.problem.layout.n_outer, self.problem.options.rho_bound - START_MARGIN
        yield self.default_rho
        for shift in (_COLD_SHIFT, -_COLD_SHIFT) if smoothing else ():
            moved = np.array(self.default_rho)
            moved[:smoothing] = np.clip(moved[:smoothing] + shift, -limit, limit)
            yield moved

    def _next_cold(self) -> Evaluation | None:
        offered = next(self._colds, None)
        if offered is None:
            return None
        if isinstance(offered, Evaluation):
            at = self.search.counted(offered)
            inside = np.clip(at.rho, -self.search.bound, self.search.bound)
            return at if np.array_equal(inside, at.rho) or not at.is_finite else self.search.move(at, inside)
        rho, theta = offered if isinstance(offered, tuple) else (offered, self.null)
        theta = float_vector(theta, "a cold start's theta", length=self.null.size)
        rho = float_vector(rho, "a cold start's rho", length=self.q)
        return self.search.evaluate(np.clip(rho, -self.search.bound, self.search.bound), theta)

    def _cold_evaluation(self) -> Evaluation:
        at = self._next_cold()
        if at is None:
            raise InvalidInput("objective.cold_starts() yields nothing; yield at least one start")
        return at

    # -- results -----------------------------------------------------------------------------------

    def _cost(self) -> Cost:
        own = getattr(self.objective, "cost", None)
        spent = self.search.cost if own is None else own()
        require("what objective.cost() returned", spent, Cost)
        seconds = time.perf_counter() - self.began
        return replace(spent, outer_iterations=self.search.cost.outer_iterations, seconds=seconds)

    def _blocks(self, theta: FloatArray) -> Sequence[FloatArray]:
        return np.split(theta, self.ends[:-1])

    def _step_done(self, at: Evaluation) -> None:
        if self.handle is None or not self.checkpoint:
            return
        cost = self._cost()
        self.handle.checkpoint(
            FitResult(
                at.rho,
                self._blocks(at.theta),
                at.value,
                False,
                active_sets=at.active_sets,
                iteration=cost.outer_iterations,
                cost=cost,
            )
        )

    def _finish(
        self, outcome: Outcome, start: Any, report: StartReport | None, handle: FitInProgress | None
    ) -> OuterFit:
        at, converged = outcome.at, outcome.is_answer
        for _, each in self.outcomes:
            self.guard.resets += each.resets
        before = self._cost()
        curvature = self._curvature(at, start, converged)
        seeds = self._extra("group seeds", lambda: self._group_seeds(at, report)) if converged else None
        cost = self._cost()
        for_children = cost.hessian_formations - before.hessian_formations
        inner = getattr(self.objective, "inner_mode", None)
        result = FitResult(
            at.rho,
            self._blocks(at.theta),
            at.value,
            converged,
            active_sets=at.active_sets,
            inner=None if inner is None else self._extra("the inner summary", lambda: inner(at)),
            curvature=curvature,
            iteration=cost.outer_iterations,
            cost=replace(
                cost,
                for_children=for_children,
                seconds_for_children=cost.seconds - before.seconds if for_children or seeds is not None else 0.0,
            ),
            start_used=None if start is None else self.guard.continued_from == "start" and not self.nothing_left,
            seeds=seeds,
            attributes={} if handle is not None else self.attributes,
        )
        certificate = self.search.certificate
        if converged:
            cuts = certificate.cuts(at)
            self.notes += cuts
            if cuts:
                log.warning("%s: %s", self.problem, "; ".join(cuts))
            if getattr(self.objective, "one_mode", None) is False:
                led = "the offered" if self.guard.continued_from == "start" else "a cold"
                self.notes.append(
                    f"the inner problem may have several modes: {led} start led to this answer, another start may "
                    "lead to another"
                )
            missing = certificate.unchecked(at)
            if missing:
                self.notes.append(f"the engine provides no means to check {', '.join(missing)}")
        else:
            level = logging.INFO if outcome.end is End.STOPPED else logging.WARNING
            log.log(level, "%s did not converge: %s", self.problem, outcome.reason)
        kept = None if handle is None else handle.keep(result)
        assert result.cost is not None
        reason = "" if converged else outcome.reason
        return OuterFit(result, report, kept, self.guard, reason, tuple(self.notes), result.cost, at)

    def _extra(self, what: str, make: Callable[[], T]) -> T | None:
        """Return what is kept beside an answer; None, and a note, if the engine cannot compute it:
        the answer counts.
        """
        try:
            return make()
        except Exception as error:
            if not _cannot_evaluate(error):
                raise
            note = f"{what} could not be computed: the engine raised {type(error).__name__} ({error})"
            self.notes.append(note)
            log.warning("%s: %s", self.problem, note)
            return None

    def _curvature(self, at: Evaluation, start: Any, converged: bool) -> Curvature:
        known = getattr(start, "curvature", None)
        hessian = None if callable(at.hessian) else at.outer_hessian
        if hessian is None and known is not None and known.hessian is not None:
            # A stored Hessian is kept on only where it was computed: at this point of this fit.
            theta = np.concatenate([np.zeros(0), *start.block_beta])
            stayed = np.array_equal(start.rho, at.rho) and np.array_equal(theta, at.theta)
            stayed &= not isinstance(start, TransferredStart)
            hessian = known.hessian if stayed else None
        if hessian is None and self.outer_hessian and converged:
            hessian = self._extra("the outer Hessian", lambda: self.search.hessian(at))
        if at.edf is None:
            return Curvature(at.gradient, hessian)
        q, smoothing = self.q, self.problem.layout.n_outer
        edf, flags = np.zeros(q), np.zeros(q, dtype=np.bool_)
        edf[:smoothing] = at.edf[:smoothing]
        if at.max_edf is not None:
            options = self.problem.options
            flags[:smoothing] = plateau_flags(
                at.rho[:smoothing],
                at.gradient[:smoothing],
                edf[:smoothing],
                at.max_edf[:smoothing],
                options.outer_tol,
                options.rho_bound,
            )
        return Curvature(at.gradient, hessian, edf, flags)

    def _group_seeds(self, at: Evaluation, report: StartReport | None) -> GroupSeeds | None:
        stayed = report is not None and report.source == StartSource.EXACT and not self.search.cost.outer_iterations
        if not isinstance(self.seeds, str):
            return self.seeds
        # An exact hit computes none.
        seeds: GroupSeeds | None = None if stayed else self.objective.group_seeds(at, self.seeds)  # type: ignore[attr-defined]
        return seeds
