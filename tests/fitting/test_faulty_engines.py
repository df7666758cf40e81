"""Invalid return values of an engine are refused by name; what it cannot evaluate where a start
lies fails no fit.
"""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest

import gamwarm
from gamwarm import InvalidInput, InvalidType
from tests.support.ridge_engine import Ridge, describe, terms_and_response

TERMS, Y = terms_and_response()
PROBLEM = describe(TERMS, Y)
RIGHT = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result.objective


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": None},
        {"value": np.zeros(1)},
        {"value": "low"},
        {"value": 1j},
        {"value": np.complex128(1j)},
        {"converged": "yes"},
        {"converged": 0},
        {"hessian": "steep"},
        {"hessian": 1j * np.eye(2)},
        {"kink": "bent"},
        {"edf": ["a", "b"]},
        {"max_edf": "all"},
        {"tangent": "flat"},
        {"last_step": "small", "hessian": None},
        {"cycles": None},
        {"cycles": 1.5},
        {"formations": "few"},
        {"failure": 3},
    ],
)
def test_a_part_of_another_type_is_refused_by_name(wrong):
    with pytest.raises(InvalidType, match=rf"an evaluation's {next(iter(wrong))}"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y, **wrong))


@pytest.mark.parametrize("kink", [[[1.0, 2.0, 3.0]], [1.0, 2.0], [[np.nan, 2.0]]])
def test_a_kink_of_another_shape_is_refused(kink):
    with pytest.raises(InvalidInput, match=r"kink has shape .*; expected \(k, 2\), all finite"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y, kink=kink))


@pytest.mark.parametrize("said", [False, np.False_])
def test_an_inner_solve_that_says_it_did_not_converge_is_believed_in_any_boolean(said):
    found = gamwarm.fit(PROBLEM, Ridge(TERMS, Y, converged=said))

    assert not found.converged
    assert "inner solve did not converge" in found.reason


@pytest.mark.parametrize("part", [{"theta": np.full(10, np.nan)}, {"rho": np.full(2, np.inf)}])
def test_coefficients_that_are_not_finite_are_no_point_to_continue_from(part):
    with pytest.raises(gamwarm.FitFailed, match="coefficients or outer coordinates that are not finite"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y, **part))


def test_a_tangent_that_is_not_finite_predicts_nothing():
    found = gamwarm.fit(PROBLEM, Ridge(TERMS, Y, tangent=np.full((10, 2), np.nan)))

    assert found.converged
    assert found.result.objective == pytest.approx(RIGHT, abs=1e-8)


def test_an_evaluation_of_another_point_is_refused():
    with pytest.raises(InvalidInput, match="was called at rho"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y, rho=lambda rho: rho + 1.0))


def test_an_engine_of_single_precision_ends_near_the_answer():
    def single(rho):
        return rho.astype(np.float32)

    found = gamwarm.fit(PROBLEM, Ridge(TERMS, Y, rho=single, edf=lambda rho: np.ones(2, dtype=np.float32)))

    assert found.converged, found.reason
    assert found.result.objective == pytest.approx(RIGHT, abs=1e-8)


def test_an_engine_of_single_precision_meets_a_bound_exactly():
    flat = describe(TERMS, np.zeros(120), rho_bound=3.3)
    found = gamwarm.fit(flat, Ridge(TERMS, np.zeros(120), rho=lambda rho: rho.astype(np.float32)))

    assert found.converged, found.reason
    assert found.result.rho.tolist() == [3.3, 3.3]


def test_a_flat_cold_evaluation_outside_the_box_is_no_answer_there():
    engine = Ridge(TERMS, np.zeros(120))
    engine.cold_starts = lambda: [engine.evaluate(np.full(2, 40.0), np.zeros(10), 9)]
    found = gamwarm.fit(describe(TERMS, np.zeros(120)), engine)

    assert found.converged, found.reason
    assert (found.result.rho <= 15.0).all()


def test_an_evaluation_that_is_used_again_is_refused():
    class Reused(Ridge):
        only = None

        def evaluate(self, rho, theta, budget):
            fresh = super().evaluate(rho, theta, budget)
            self.only = self.only or fresh
            vars(self.only).update(vars(fresh))
            return self.only

    with pytest.raises(InvalidInput, match="create a new one each time"):
        gamwarm.fit(PROBLEM, Reused(TERMS, Y))


class Choosy(Ridge):
    """Raises at its first so many points, and in its penalized likelihood if asked to."""

    def __init__(self, error, points=1, likelihood=False):
        super().__init__(TERMS, Y)
        self.error, self.points, self.likelihood = error, points, likelihood

    def evaluate(self, rho, theta, budget):
        if not self.likelihood and len(self.calls) < self.points:
            self.calls.append((np.array(rho), budget))
            raise self.error
        return super().evaluate(rho, theta, budget)

    def penalized_nll(self, rho, theta):
        if self.likelihood and theta[0] == START.block_beta[0][0]:
            raise self.error
        return super().penalized_nll(rho, theta)


class Diverged(Exception):
    """An engine's own exception."""


START = gamwarm.ConstrainedWarmStart([1.0, 1.0], [np.ones(6), np.ones(4)])
ERRORS = [
    ValueError, np.linalg.LinAlgError, ZeroDivisionError, FloatingPointError, RuntimeError, KeyError,
    RuntimeWarning, Diverged, gamwarm.FitFailed,
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("where", [{}, {"points": 2}, {"likelihood": True}])
def test_an_engine_that_raises_where_a_start_was_offered_continues_cold(error, where):
    engine = Choosy(error("singular"), **where)
    if where.get("points") == 2:
        engine.calls.append((np.zeros(2), 0))  # the first point is let through
    found = gamwarm.fit(PROBLEM, engine, start=START)

    assert found.converged
    assert found.result.objective == pytest.approx(RIGHT, abs=1e-8)
    assert f"raised {error.__name__}" in " ".join(found.summary().split())


@pytest.mark.parametrize("what", ["the outer Hessian", "group seeds", "the inner summary"])
def test_what_is_kept_beside_an_answer_and_cannot_be_computed_is_noted(tmp_path, caplog, what):
    class Half(Ridge):
        """Cannot compute one of the extras at its answer."""

        def evaluate(self, rho, theta, budget):
            at = super().evaluate(rho, theta, budget)
            if what == "the outer Hessian" and np.abs(at.gradient).max() < 1e-5:
                at.hessian = self.refuse
            return at

        def refuse(self, *_):
            raise Diverged("singular")

    engine = Half(TERMS, Y)
    if what == "group seeds":
        engine.group_seeds = engine.refuse
    if what == "the inner summary":
        engine.inner_mode = engine.refuse
    with gamwarm.open(tmp_path / "fits.h5") as store:
        found = gamwarm.fit(PROBLEM, engine, store, group_seeds="g" if what == "group seeds" else None)

    assert found.converged
    assert found.kept.record.written
    assert found.kept.artifact.written
    assert found.result.objective == pytest.approx(RIGHT, abs=1e-8)
    assert f"{what} could not be computed: the engine raised Diverged" in " ".join(found.notes)
    assert "could not be computed" in caplog.text


def test_a_gradient_that_the_values_contradict_is_named():
    class Uphill(Ridge):
        def evaluate(self, rho, theta, budget):
            at = super().evaluate(rho, theta, budget)
            at.gradient = -at.gradient
            return at

    found = gamwarm.fit(PROBLEM, Uphill(TERMS, Y))

    assert not found.converged
    assert "where its gradient says -" in found.reason
    assert "check the gradient" in found.reason


def test_what_an_engine_raises_says_where():
    with pytest.raises(KeyError) as raised:
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y, value=lambda rho: {}["mu"]))

    assert any("objective.evaluate at rho = [0. 0.]" in note for note in raised.value.__notes__)


def test_an_engine_that_raises_wherever_it_begins_is_heard():
    with pytest.raises(ZeroDivisionError):
        gamwarm.fit(PROBLEM, Choosy(ZeroDivisionError("none"), points=99), start=START)
    # A limit of the user's own is no fault of the start.
    for error in (TimeoutError("late"), MemoryError(), StopIteration(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            gamwarm.fit(PROBLEM, Choosy(error), start=START)


@pytest.mark.parametrize(("starts", "error"), [([], InvalidInput), (None, InvalidType), (3, InvalidType)])
def test_cold_starts_that_are_none_are_refused(starts, error):
    engine = Ridge(TERMS, Y)
    engine.cold_starts = lambda: starts

    with pytest.raises(error, match=r"objective\.cold_starts\(\)"):
        gamwarm.fit(PROBLEM, engine)


@pytest.mark.parametrize("part", [{"last_step": 1.0}, {"value": np.inf}])
def test_cold_starts_without_end_end(part):
    engine = Ridge(TERMS, Y, **part)
    engine.cold_starts = lambda: itertools.repeat(np.zeros(2))

    with contextlib.suppress(gamwarm.FitFailed):
        assert not gamwarm.fit(PROBLEM, engine).converged
    assert len(engine.calls) < 1000


@pytest.mark.parametrize("rho", [40.0, -40.0, 15.0])
@pytest.mark.parametrize("how", ["rho", "evaluation", "initial"])
def test_a_cold_start_outside_the_box_ends_where_the_others_do(how, rho):
    far, engine, problem = np.full(2, rho), Ridge(TERMS, Y), PROBLEM
    if how == "initial":
        specs = [
            gamwarm.ParameterBlockSpec(s.name, s.design, penalties=s.penalties, initial_log_lambdas=[rho])
            for s in PROBLEM.specs
        ]
        problem = gamwarm.FitProblem(PROBLEM.family, specs, engine="tests.ridge")
    elif how == "rho":
        engine.cold_starts = lambda: [far]
    else:
        engine.cold_starts = lambda: [engine.evaluate(far, np.zeros(10), 9)]
    found = gamwarm.fit(problem, engine)

    assert found.converged, found.reason
    assert found.result.objective == pytest.approx(RIGHT, abs=1e-8)


def test_what_is_no_start_and_no_cost_is_refused():
    with pytest.raises(InvalidType, match="start is int"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y), start=3)
    engine = Ridge(TERMS, Y)
    engine.cost = lambda: 3
    with pytest.raises(InvalidType, match=r"objective\.cost\(\) returned is int"):
        gamwarm.fit(PROBLEM, engine)
