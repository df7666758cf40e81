"""The reference engine, driven by `gamwarm.fit`: it only evaluates its objective."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import gamwarm
from gamwarm.checks import column_name, require
from gamwarm.engine.alternatives import alternatives
from gamwarm.engine.arrays import Counters, FloatArray, IntArray
from gamwarm.engine.cholesky import log_determinant
from gamwarm.engine.cold import ColdStart, cold_evaluations, cold_start_of
from gamwarm.engine.constrained import ConstrainedGaussian, ConstrainedLaml
from gamwarm.engine.gaussian import GaussianReml
from gamwarm.engine.laml import Laml
from gamwarm.engine.model import Case
from gamwarm.engine.objective import Evaluation, Objective
from gamwarm.engine.options import check_options
from gamwarm.engine.prediction import fitted_model
from gamwarm.engine.report import ColdTrial, EngineFit, SeedCost
from gamwarm.engine.seeds import GroupChanges, downdated_changes, group_changes
from gamwarm.engine.term_table import term_rows
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem import BlockwiseFitOptions
from gamwarm.records import GROUP, Cost, GroupSeeds, InnerMode
from gamwarm.store import FitStore

__all__ = ["CaseObjective", "fit"]


def fit(
    case: Case | None,
    *,
    options: BlockwiseFitOptions | None = None,
    store: FitStore | None = None,
    parent: str | None = None,
    start: Any = None,
    cold_start: ColdStart | str = ColdStart.BEST,
    each: bool = False,
    checkpoint: bool = True,
    attributes: Mapping[str, str | int | float] | None = None,
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
        ``outer_tol`` bounds max|dV/drho|, ``inner_tol`` the Newton decrement ``sqrt(g' H^-1 g)``;
        both absolute.
    store : FitStore, optional
        Without one nothing is looked up or stored.
    parent : str, optional
        Entry id of the artifact to start from.
    start : optional
        Where to begin without a store: anything with ``rho`` and ``block_beta`` (a `FitResult`, a
        `ConstrainedWarmStart`), and maybe ``curvature``, in this case's coordinates. It is guarded
        like a transfer.
    cold_start : {"best", "fellner-schall", "zero", "heuristic"}
        How to begin without any start. "best" is the one that was cheapest most often:
        "fellner-schall".
    each : bool
        One fit per rank of the store's communicator, in rounds.
    checkpoint : bool
        Offer the store a checkpoint after each outer iteration.
    attributes : mapping of str to strings and numbers, optional
        Labels of your own, kept with record and artifact. A case made with ``bound.without`` has
        the label ``group``, the value that it leaves out.
    outer_hessian : bool, optional
        Whether the result must carry the exact outer Hessian, which children use as their metric.
        Default: yes for a fit that goes into a store and was not itself a transfer from a parent
        with the same terms.
    group_seeds : str, optional
        Column of the data whose values folds will leave out, one at a time: the result then carries
        what leaving each of them out changes, and so does the artifact. An exact
        hit computes none.
    leave_out : optional
        The value of that column that this case leaves out: the parent's seeds for it move the
        start.

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
    require("attributes", attributes, (Mapping, type(None)))
    if group_seeds is not None:
        column_name(group_seeds, "group_seeds")
    if store is not None and leave_out is None and case is not None and case.left_out is not None:
        leave_out = case.left_out[1]
    if case is not None and case.left_out is not None:
        attributes = {GROUP: case.left_out[1], **({} if attributes is None else attributes)}
    objective = None if case is None else CaseObjective(case, options, method)
    done = gamwarm.fit(
        None if case is None else case.problem(options),
        objective,
        store,
        parent=parent,
        leave_out=leave_out,
        each=each,
        attributes=attributes,
        group_seeds=group_seeds,
        checkpoint=checkpoint,
        start=start,
        outer_hessian=outer_hessian,
    )
    if case is None or objective is None or done.evaluation is None:
        return EngineFit(done.result, done.start, done.kept, {}, (), done.guard, done.cost, 0, ())
    at = done.evaluation.state
    assert done.result is not None
    problem = case.problem(options)
    edf = objective.edf(at)
    return EngineFit(
        done.result,
        done.start,
        done.kept,
        edf,
        tuple(objective.cold),
        done.guard,
        done.cost,
        done.cost.for_children - objective.seed_cost.hessian_formations,
        case.names,
        done.reason,
        objective.seed_cost,
        objective.fitted_by(at),
        done.notes,
        term_rows(problem, done.result, edf),
        dict(zip(problem.nuisance, np.asarray(done.result.rho)[problem.layout.n_outer :], strict=True)),
        fitted_model(case, problem, objective.laml.family, at),
        case,
    )


class CaseObjective:
    """The objective of one case, as `gamwarm.fit` takes it.

    Attributes
    ----------
    laml : Objective
    counters : Counters
    cold : list of ColdTrial
        Cold starts that were evaluated.
    seed_cost : SeedCost
    """

    def __init__(self, case: Case, options: BlockwiseFitOptions, method: ColdStart = ColdStart.BEST) -> None:
        self.case, self.options, self.method = case, options, method
        self.counters = Counters()
        self.laml: Objective = case.objective(self.counters)
        self.null = self.laml.null
        self.nuisance = self.laml.origin[self.laml.smoothing :]
        self.one_mode = self.laml.family.log_concave
        self.cold: list[ColdTrial] = []
        self.seed_cost = SeedCost()
        self._gram: FloatArray | None = None

    def evaluate(self, rho: FloatArray, theta: FloatArray, budget: int) -> gamwarm.Evaluation:
        """Return the objective at ``rho``, the inner solve begun at ``theta``."""
        # X'WX of the previous evaluation is near, unless the inner solve restarts.
        cold = np.array_equal(theta, self.null)
        at = self.laml.evaluate(rho, theta, self.options.inner_tol, budget, None if cold else self._gram)
        if at.gram is not None:
            self._gram = at.gram
        return gamwarm.Evaluation(
            at.rho,
            at.theta,
            at.value,
            at.gradient,
            hessian=partial(self.laml.hessian, at),
            edf=at.edf,
            max_edf=at.penalties.log_det_gradient,
            tangent=at.tangent,
            converged=at.converged,
            cycles=at.cycles,
            last_step=partial(self._last_step, at),
            last_block=partial(self._last_block, at),
            objection=partial(self.laml.objection, at),
            active_sets=self._active_sets(at),
            kink=at.kink,
            failure=at.failure,
            state=at,
        )

    def _active_sets(self, at: Evaluation) -> list[IntArray | None] | None:
        """Return per block the rows of its inequalities that are 0 at the mode."""
        constraints = self.case.constraints
        if constraints is None or at.face is None:
            return None
        return constraints.sets_of(at.face.active, self.case.slices)

    def offer_active_sets(self, active_sets: Sequence[Sequence[int] | None]) -> None:
        """Take rows to be active where the next inner solve begins; unknown ones are left out."""
        if isinstance(self.laml, (ConstrainedGaussian, ConstrainedLaml)):
            self.laml.offered = self.laml.constraints.mask_of(active_sets, self.case.slices)

    def penalized_nll(self, rho: FloatArray, theta: FloatArray) -> float:
        """Return the inner objective."""
        return self.laml.penalised_nll(rho, self.null if np.array_equal(theta, self.null) else theta)

    def cold_starts(self) -> Iterator[gamwarm.Evaluation]:
        """Yield evaluations at cold starts, the chosen one first."""

        def evaluate(rho: FloatArray, theta: FloatArray) -> gamwarm.Evaluation:
            return self.evaluate(rho, theta, max(1, self.options.inner_max_cycles))

        for method, at in cold_evaluations(self.laml, evaluate, self.method, self.options.rho_bound):
            name = self.method if not self.cold else method
            self.cold.append(ColdTrial(str(name), np.array(at.rho), at.value))
            yield at

    def alternatives(self, evaluation: gamwarm.Evaluation) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield starts where the objective should be lower than at an answer."""
        return alternatives(self.laml, evaluation.state, self.case.slices, self.options.rho_bound)

    def cost(self) -> Cost:
        """Return the counts so far."""
        c = self.counters
        return Cost(c.evaluations, 0, c.inner_iterations, c.hessian_formations)

    def _last_step(self, at: Evaluation) -> float:
        return self.laml.newton_changes(at, slice(0, at.theta.size))

    def _last_block(self, at: Evaluation) -> str:
        if at.step is None:
            return ""
        blocks = dict(zip(self.case.names, self.case.slices, strict=True))
        return max(blocks, key=lambda name: self.laml.newton_changes(at, blocks[name]))

    # -- results -----------------------------------------------------------------------------------

    def fitted_by(self, at: Evaluation) -> Callable[[], dict[str, FloatArray]]:
        """Return what makes the fitted values, without holding the products with the design."""
        family, case, etas, theta = self.laml.family, self.case, at.etas, at.theta

        def make() -> dict[str, FloatArray]:
            values = etas or case.predictors_at(theta)
            return {**dict(zip(family.predictors, values, strict=False)), "response": family.mean(values)}

        return make

    def group_seeds(self, at: gamwarm.Evaluation, column: str) -> GroupSeeds:
        """Return what leaving each value of ``column`` out changes."""
        began, before = time.perf_counter(), self.counters.hessian_formations
        labels, changes = self._changes(at.state, column)
        seeds = GroupSeeds(column, labels, changes.rho, changes.theta, changes.hessian)
        self.seed_cost = SeedCost(self.counters.hessian_formations - before, time.perf_counter() - began)
        return seeds

    def _changes(self, at: Evaluation, column: str) -> tuple[list[str], GroupChanges]:
        if isinstance(self.laml, Laml):
            index, labels, gone = self.case.grouped(column)
            return labels, group_changes(self.laml, at, index, len(labels), gone)
        assert isinstance(self.laml, GaussianReml)
        labels, folds = self.case.folds(column)
        return labels, downdated_changes(self.laml, at, folds, self.options.inner_tol)

    def inner_mode(self, evaluation: gamwarm.Evaluation) -> InnerMode:
        """Return the summary of the inner solve at an evaluation."""
        laml, at = self.laml, evaluation.state
        assert at.gram is not None
        s = at.penalties.diagonal
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
            self.case.problem(self.options).layout.expand(at.rho[: laml.smoothing]),
        )

    def edf(self, at: Evaluation) -> dict[str, float]:
        """Return effective degrees of freedom per block, unpenalised directions included: of a
        block with active constraints those that are left.
        """
        blocks = zip(self.case.names, self.case.slices, strict=True)
        if at.face is not None and at.face.active.any():
            assert at.gram is not None
            own = np.einsum("ij,ji->i", at.mode_inverse, at.gram)
            return {name: float(own[columns].sum()) for name, columns in blocks}
        shrunk = at.penalties.diagonal * np.diagonal(at.mode_inverse)
        return {name: float(columns.stop - columns.start - shrunk[columns].sum()) for name, columns in blocks}
