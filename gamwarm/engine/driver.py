"""One fit from start to keeping: exact record, else artifact, else cold; guard, search, certificate, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gamwarm.engine._types import Counters, FloatArray
from gamwarm.engine.cold import ColdStart, cold_evaluation, cold_start_of, refined
from gamwarm.engine.gaussian import GaussianReml
from gamwarm.engine.laml import Laml
from gamwarm.engine.model import Case
from gamwarm.engine.objective import Evaluation, Objective, log_determinant
from gamwarm.engine.options import check_options
from gamwarm.engine.outer import Outcome, Search, usable_metric
from gamwarm.engine.report import ColdTrial, EngineFit, GuardReport, SeedCost
from gamwarm.engine.seeds import GroupChanges, downdated_changes, group_changes
from gamwarm.errors import FitFailed, InvalidInput, InvalidType
from gamwarm.problem import BlockwiseFitOptions
from gamwarm.records import Cost, Curvature, FitResult, GroupSeeds, InnerMode, StartSource, plateau_flags
from gamwarm.transfer import StartGuard, StartReport

__all__ = ["fit"]

log = logging.getLogger("gamwarm")
_SAME_OBJECTIVE = 1e-6


def fit(
    case: Case | None,
    *,
    options: BlockwiseFitOptions | None = None,
    store: Any = None,
    parent: str | None = None,
    start: Any = None,
    cold_start: ColdStart | str = ColdStart.BEST,
    each: bool = False,
    checkpoint: bool = True,
    outer_hessian: bool | None = None,
    group_seeds: str | None = None,
    leave_out: Any = None,
) -> EngineFit:
    """Fit one case.

    Parameters
    ----------
    case : Case or None
        None only with ``each=True``: this rank has nothing to do in this round.
    options : BlockwiseFitOptions, optional
        ``outer_tol`` bounds max|dV/drho|, ``inner_tol`` the Newton decrement ``sqrt(g' H^-1 g)``; both absolute.
    store : WarmStartStore, optional
        Without one nothing is looked up and nothing is kept.
    parent : str, optional
        Entry id of the artifact to start from.
    start : optional
        Where to begin without a store: anything with ``rho`` and ``block_beta`` (a `FitResult`, a
        `ConstrainedWarmStart`), and maybe ``curvature``, in this case's coordinates. It is guarded like a transfer.
    cold_start : {"best", "fellner-schall", "zero", "heuristic"}
        How to begin without any start. "best" is the one that was cheapest most often: "fellner-schall".
    each : bool
        One fit per rank of the store's communicator, in rounds.
    checkpoint : bool
        Offer the store where the search stands after each outer iteration.
    outer_hessian : bool, optional
        Whether the result must carry the exact outer Hessian, which children use as their metric. Default: yes for a
        fit that goes into a store and was not itself a transfer.
    group_seeds : str, optional
        Column of the data whose values folds will leave out, one at a time: the result then carries what leaving
        each of them out changes, to first order, and so does the artifact. An exact hit computes none.
    leave_out : optional
        The value of that column that this case leaves out: the parent's seeds for it move the start.

    Raises
    ------
    UnsupportedOption, InvalidInput
    FitFailed
        The model is not identifiable, or its objective is not finite anywhere the search could go.
    """
    options = check_options(options)
    method = cold_start_of(cold_start)
    if case is not None and not isinstance(case, Case):
        raise InvalidType(f"case is {type(case).__name__}; make one with bind(...).case(rows)")
    if case is None and not (each and store is not None):
        raise InvalidInput("case is None; only a rank without work in a round of each=True passes None")
    if store is None:
        if parent is not None:
            raise InvalidInput("parent names an entry of a store; pass the store too")
        if leave_out is not None:
            raise InvalidInput("leave_out picks the seeds of a store's parent; pass the store too")
        assert case is not None
        return _Run(case, options, method, outer_hessian, seeds=group_seeds).fit(start, None, None)
    if not callable(getattr(store, "fit", None)):
        raise InvalidType(f"store is {type(store).__name__}; give what gamwarm.open(path) returned, or None")
    if start is not None:
        raise InvalidInput("pass either a store, which offers its own start, or a start")
    problem = None if case is None else case.problem(options)
    if leave_out is None and case is not None and case.left_out is not None:
        leave_out = case.left_out[1]
    with store.fit(problem, parent=parent, leave_out=leave_out, each=each) as handle:
        if case is None:
            kept = handle.keep(None)
            return EngineFit(None, handle.start, kept, {}, (), GuardReport(), Cost(), 0, ())
        wanted = outer_hessian
        if wanted is None:
            wanted = handle.start.source == StartSource.COLD
        run = _Run(case, options, method, wanted, handle if checkpoint else None, group_seeds, handle.should_stop)
        return run.fit(handle.start.start, handle.start, handle)


class _Run:
    """State of one fit."""

    def __init__(
        self,
        case: Case,
        options: BlockwiseFitOptions,
        method: ColdStart,
        outer_hessian: bool | None,
        checkpoints: Any = None,
        seeds: str | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.began = time.perf_counter()
        self.case, self.options, self.method = case, options, method
        self.outer_hessian = bool(outer_hessian)
        self.checkpoints = checkpoints
        self.seeds = seeds
        self.should_stop = should_stop
        self.counters = Counters()
        self.laml: Objective = case.objective(self.counters)
        self.guard = GuardReport()
        self.cold: list[ColdTrial] = []

    # -- the road ----------------------------------------------------------------------------------------------

    def fit(self, start: Any, report: StartReport | None, handle: Any) -> EngineFit:
        is_exact = report is not None and report.source == StartSource.EXACT
        cached = getattr(start, "cached_inner", None)
        default = np.zeros(self.laml.q)
        self.search = Search(self.laml, self.options, default, cached, self._step_done, self.should_stop)
        if start is None:
            outcome = self.search.run(self._cold())
        else:
            rho, theta = self._offered(start)
            metric = usable_metric(getattr(getattr(start, "curvature", None), "hessian", None), self.laml.q)
            outcome = self._from_exact(rho, theta, metric, start) if is_exact else self._from_offer(rho, theta, metric)
        self.guard.resets += outcome.resets
        if not outcome.converged and not outcome.stopped and self.guard.continued_from == "start":
            self.guard.notes.append(f"from the start: {outcome.reason}; a cold start was tried")
            again = self.search.run(self._cold())
            if again.converged or again.at.value < outcome.at.value:
                outcome, self.guard.continued_from = again, "cold"
        if not np.isfinite(outcome.at.value):
            raise FitFailed(f"no finite objective was found ({outcome.reason}); simplify the model or look at the data")
        return self._finish(outcome, start, report, handle)

    def _cold(self) -> Evaluation:
        at = cold_evaluation(self.search, ColdStart.FELLNER_SCHALL if self.method is ColdStart.BEST else self.method)
        if not at.is_finite and self.method is not ColdStart.ZERO:
            at = cold_evaluation(self.search, ColdStart.ZERO)
        self.cold.append(ColdTrial(str(self.method), at.rho, at.value))
        return at

    def _offered(self, start: Any) -> tuple[FloatArray, FloatArray]:
        rho = np.array(start.rho, dtype=np.float64)
        beta = [np.asarray(b, dtype=np.float64) for b in start.block_beta]
        if rho.shape != (self.laml.q,):
            raise InvalidInput(f"the start has rho of shape {rho.shape}; this fit has {self.laml.q} outer coordinates")
        widths = tuple(b.shape[0] for b in beta)
        if widths != self.case.widths:
            raise InvalidInput(
                f"the start's coefficients have widths {list(widths)}; "
                f"blocks {list(self.case.names)} have {list(self.case.widths)}"
            )
        return rho, np.concatenate(beta)

    def _from_exact(self, rho: FloatArray, theta: FloatArray, metric: FloatArray | None, start: Any) -> Outcome:
        self.guard.continued_from = "start"
        first = self.search.evaluate(np.clip(rho, -self.options.rho_bound, self.options.rho_bound), theta)
        stored = getattr(start, "objective", None)
        if stored is not None and abs(first.value - stored) > _SAME_OBJECTIVE * (1.0 + abs(first.value)):
            note = f"the stored objective {stored:.12g} is evaluated here as {first.value:.12g}"
            self.guard.notes.append(note)
            log.warning("%s: %s; the evaluation counts", self.case, note)
        return self.search.run(first, metric)

    def _from_offer(self, rho: FloatArray, theta: FloatArray, metric: FloatArray | None) -> Outcome:
        search, laml = self.search, self.laml
        done = StartGuard(
            evaluate=search.evaluate,
            evaluate_cold=self._cold_at_zero,
            null=laml.null,
            default_rho=np.zeros(laml.q),
            penalised_nll=laml.penalised_nll,
            rho_bound=self.options.rho_bound,
            is_answer=search.certified,
        ).admit(rho, theta, laml.hessian if metric is None else metric)
        guard = self.guard
        guard.beta_used, guard.predicted_step = done.beta_used, done.predicted_step
        guard.cold_evaluated, guard.continued_from = done.cold_evaluated, done.continued_from
        guard.notes += done.notes
        guard.resets += done.resets
        if done.continued_from == "cold":
            return search.run(refined(search, done.point))
        # The metric is the start's own: of a coordinate that went back it says nothing.
        return search.run(done.point, None if done.resets else metric)

    def _cold_at_zero(self) -> Evaluation:
        # One plain cold evaluation settles the doubt; the updates that make a good cold start wait until it is needed.
        cold = cold_evaluation(self.search, ColdStart.ZERO)
        self.cold.append(ColdTrial(str(ColdStart.ZERO), cold.rho, cold.value))
        return cold

    # -- results -----------------------------------------------------------------------------------------------

    def _cost(self) -> Cost:
        c = self.counters
        seconds = time.perf_counter() - self.began
        return Cost(c.evaluations, c.outer_iterations, c.inner_iterations, c.hessian_formations, seconds)

    def _blocks(self, theta: FloatArray) -> tuple[FloatArray, ...]:
        return tuple(theta[columns] for columns in self.case.slices)

    def _step_done(self, at: Evaluation) -> None:
        if self.checkpoints is None:
            return
        self.checkpoints.checkpoint(
            FitResult(
                at.rho,
                self._blocks(at.theta),
                at.value,
                False,
                iteration=self.counters.outer_iterations,
                cost=self._cost(),
            )
        )

    def _finish(self, outcome: Outcome, start: Any, report: StartReport | None, handle: Any) -> EngineFit:
        at = outcome.at
        before = self.counters.hessian_formations
        curvature = self._curvature(at, start, outcome.converged)
        extra = self.counters.hessian_formations - before
        seeds, seed_cost = self._seeds(at, report, outcome.converged)
        result = FitResult(
            at.rho,
            self._blocks(at.theta),
            at.value,
            outcome.converged,
            inner=self._inner(at),
            curvature=curvature,
            iteration=self.counters.outer_iterations,
            cost=replace(self._cost(), for_children=extra + seed_cost.hessian_formations),
            start_used=None if start is None else self.guard.continued_from == "start",
            seeds=seeds,
        )
        kept = None if handle is None else handle.keep(result)
        assert result.cost is not None
        if not outcome.converged:
            level = logging.INFO if outcome.stopped else logging.WARNING
            log.log(level, "%s did not converge: %s", self.case, outcome.reason)
        return EngineFit(
            result,
            report,
            kept,
            self._edf(at),
            tuple(self.cold),
            self.guard,
            result.cost,
            extra,
            self.case.names,
            outcome.reason,
            seed_cost,
            self._fitted_by(at),
        )

    def _fitted_by(self, at: Evaluation) -> Callable[[], dict[str, FloatArray]]:
        # Not a method of this object, which holds the products with the design.
        family, case, etas, theta = self.laml.family, self.case, at.etas, at.theta

        def make() -> dict[str, FloatArray]:
            values = etas or case.predictors_at(theta)
            return {**dict(zip(family.predictors, values, strict=True)), "response": family.mean(values)}

        return make

    def _seeds(self, at: Evaluation, report: StartReport | None, converged: bool) -> tuple[GroupSeeds | None, SeedCost]:
        stayed = report is not None and report.source == StartSource.EXACT and self.counters.outer_iterations == 0
        if self.seeds is None or not converged or stayed:
            return None, SeedCost()
        began, before = time.perf_counter(), self.counters.hessian_formations
        labels, changes = self._changes(at, self.seeds)
        seeds = GroupSeeds(self.seeds, labels, changes.rho, changes.theta)
        return seeds, SeedCost(self.counters.hessian_formations - before, time.perf_counter() - began)

    def _changes(self, at: Evaluation, column: str) -> tuple[list[str], GroupChanges]:
        if isinstance(self.laml, Laml):
            index, labels, gone = self.case.grouped(column)
            return labels, group_changes(self.laml, at, index, len(labels), gone)
        assert isinstance(self.laml, GaussianReml)
        labels, folds = self.case.folds(column)
        return labels, downdated_changes(self.laml, at, folds, self.options.inner_tol)

    def _curvature(self, at: Evaluation, start: Any, converged: bool) -> Curvature:
        hessian = at.hessian
        known = getattr(start, "curvature", None)
        if hessian is None and known is not None and known.hessian is not None:
            # A stored Hessian is kept on only where it was computed: at this very point.
            stayed = np.array_equal(start.rho, at.rho) and np.array_equal(np.concatenate(start.block_beta), at.theta)
            hessian = known.hessian if stayed else None
        if hessian is None and self.outer_hessian and converged:
            hessian = self.laml.hessian(at)
        flags = plateau_flags(
            at.rho, at.gradient, at.edf, self.laml.rank, self.options.outer_tol, self.options.rho_bound
        )
        return Curvature(at.gradient, hessian, at.edf, flags)

    def _inner(self, at: Evaluation) -> InnerMode:
        laml = self.laml
        assert at.gram is not None
        s = laml.diagonal(at.rho)
        logs = np.log(np.where(s > 0.0, s, 1.0))
        logdet_h, logdet_s = [], []
        for columns in self.case.slices:
            logdet_h.append(log_determinant(at.gram[columns, columns], s[columns]))
            logdet_s.append(float(logs[columns].sum()))
        return InnerMode(
            laml.log_likelihood(at),
            at.penalty,
            at.cycles,
            at.converged,
            logdet_h,
            logdet_s,
            self.options.inner_tol,
            at.rho,
        )

    def _edf(self, at: Evaluation) -> dict[str, float]:
        assert at.inverse is not None
        shrunk = self.laml.diagonal(at.rho) * np.diagonal(at.inverse)
        return {
            name: float(columns.stop - columns.start - shrunk[columns].sum())
            for name, columns in zip(self.case.names, self.case.slices, strict=True)
        }
