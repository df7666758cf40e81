"""`gamwarm.adapters.minimize`: SciPy's answer, begun where an earlier run ended, and never a stored
one unevaluated.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

import gamwarm
from gamwarm import InvalidInput, InvalidType
from gamwarm.adapters import minimize
from gamwarm.testing import assert_neutral, check_neutrality
from tests.support.scipy_driver import Logit, RidgeByScipy


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        yield opened


class Bowl:
    """A convex function of k entries around a centre; counts its calls."""

    def __init__(self, centre):
        self.centre = np.asarray(centre, dtype=float)
        k = self.centre.size
        self.matrix = np.diag(np.geomspace(1.0, 300.0, k)) + 0.5
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        d = x - self.centre
        return 0.5 * d @ self.matrix @ d + 0.1 * (d**4).sum()

    def gradient(self, x):
        d = x - self.centre
        return self.matrix @ d + 0.4 * d**3


def run(store, centre=(1.0, -2.0, 0.5), **changes):
    bowl = Bowl(centre)
    options = {"name": "bowl", "data": {"centre": bowl.centre}, "jac": bowl.gradient, **changes}
    return minimize(bowl, np.zeros(bowl.centre.size), store=store, **options), bowl


# -- neutrality ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "driver",
    [RidgeByScipy(), RidgeByScipy("L-BFGS-B"), pytest.param(RidgeByScipy("CG"), marks=pytest.mark.long), Logit()],
    ids=["rho, BFGS", "rho, L-BFGS-B", "rho, CG", "coefficients"],
)
def test_no_start_moves_an_answer_of_scipys(driver):
    report = assert_neutral(driver)

    assert report.evaluations("exact") == 1.0
    assert report.evaluations("warm") < report.evaluations("cold")


def test_no_start_moves_an_answer_of_newton_cg_which_takes_a_step_before_it_stops():
    report = check_neutrality(RidgeByScipy("Newton-CG"))

    # Where SciPy ends without convergence, which its last bits decide, there is no answer to move.
    moved = [each for each in report.findings if each.check != "exact" and "did not converge" not in each.message]
    assert {each.check for each in moved} <= {"vacuous"}, str(report)
    assert report.evaluations("exact") <= 2.0


# -- where it begins and ends ----------------------------------------------------------------------


@pytest.mark.parametrize("rho", [None, slice(None), [0]], ids=["coefficients", "rho", "both"])
def test_without_a_store_it_is_scipys_own_answer(rho):
    found, bowl = run(None, rho=rho)
    own = scipy.optimize.minimize(bowl, np.zeros(3), jac=bowl.gradient, method="BFGS")

    assert np.array_equal(found.x, own.x)
    assert (found.fun, found.success, found.nit) == (own.fun, True, own.nit)
    assert (found.start, found.kept, found.start_used) == (None, None, None)


@pytest.mark.parametrize("rho", [None, slice(None), [0]], ids=["coefficients", "rho", "both"])
def test_the_same_run_again_is_one_call_and_the_same_bits(store, rho):
    first, _ = run(store, rho=rho)
    assert first.kept.record.written, first.kept.record.reason

    again, bowl = run(store, rho=rho)

    assert again.start.source == "exact"
    assert np.array_equal(again.x, first.x)
    assert (bowl.calls, again.nfev, again.nit, again.cost.evaluations) == (1, 1, 0, 1)
    assert again.fun == bowl(first.x)
    assert again.kept.record.reason.startswith("unchanged")
    assert store.savings().session.saved.evaluations == first.cost.evaluations - 1


def test_forward_differences_take_as_many_calls_as_entries_more_and_no_more(store):
    run(store, jac=None)

    again, bowl = run(store, jac=None)

    assert (again.start.source, again.cost.evaluations, bowl.calls) == ("exact", 1, 4)


def test_a_function_that_returns_its_gradient_too_is_taken_with_jac_true(store):
    bowl = Bowl([1.0, 2.0])
    arguments = {"store": store, "name": "b", "jac": True}
    first = minimize(lambda x: (bowl(x), bowl.gradient(x)), [0.0, 0.0], **arguments)
    again = minimize(lambda x: (bowl(x), bowl.gradient(x)), [0.0, 0.0], **arguments)

    assert first.x == pytest.approx([1.0, 2.0], abs=1e-4)
    assert again.nfev == 1


@pytest.mark.parametrize("rho", [None, slice(None), [2, 0]], ids=["coefficients", "rho", "both"])
def test_a_related_run_begins_near_with_the_inverse_hessian(store, rho):
    run(store, rho=rho)
    cold, _ = run(None, (1.05, -2.1, 0.45), rho=rho)

    near, _ = run(store, (1.05, -2.1, 0.45), rho=rho)

    assert near.start.source == "transfer"
    assert near.start_used
    assert near.nit < cold.nit / 2
    assert near.x == pytest.approx(cold.x, abs=1e-4)


def test_entries_go_back_to_their_places_whatever_the_blocks_and_their_order(store):
    blocks = {"b": [2, 0], "a": [3, 1]}
    first, _ = run(store, (1.0, 2.0, 3.0, 4.0), rho=[3, 2], blocks=blocks)

    again, _ = run(store, (1.0, 2.0, 3.0, 4.0), rho=[3, 2], blocks=blocks)

    assert np.array_equal(again.x, first.x)
    record = store.get_record(again.start.key)
    assert record.block_names[:2] == ("b", "a")
    assert record.rho == pytest.approx([3.0, 4.0], abs=1e-4)
    assert record.block_beta[0] == pytest.approx([1.0], abs=1e-4)


def test_a_run_that_scipy_gave_up_is_a_checkpoint_and_is_gone_on_with(store):
    stopped, _ = run(store, options={"maxiter": 2})
    assert not stopped.success
    assert store.get_record(stopped.start.key).kind == "checkpoint"

    again, _ = run(store, options={"maxiter": 2})

    assert again.start.is_checkpoint
    assert again.fun < stopped.fun


def test_an_answer_from_which_noise_defeats_a_search_stands(store):
    def noisy(x):
        smooth = np.log(np.cosh(x[0] - 3.0)) + 0.3 * np.log(np.cosh(2.0 * x[1] + x[0] - 5.0))
        return float(smooth + 1e-10 * np.sin(1e9 * x[0] + 3e9 * x[1]))

    def again():
        return minimize(noisy, [0.0, 0.0], store=store, name="noisy", method="L-BFGS-B")

    first = again()
    repeats = [again() for _ in range(3)]

    assert first.success
    for found in repeats:
        assert found.success
        assert (found.fun, list(found.x)) == (first.fun, list(first.x))
        assert "the stored answer stands" in found.message
        assert found.nfev < 1.5 * first.nfev  # no cold search besides


def test_bounds_are_kept_to_and_are_part_of_the_name(store):
    bounded, _ = run(store, method="L-BFGS-B", bounds=[(None, 0.5), (-1.0, None), (0, 1)])
    other, _ = run(store, method="L-BFGS-B", bounds=scipy.optimize.Bounds([-9, -1, 0], [0.5, 9, 1]))

    assert bounded.x[:2] == pytest.approx([0.5, -1.0])
    assert bounded.start.key != other.start.key


# -- never believed --------------------------------------------------------------------------------


def test_a_function_that_changed_behind_its_name_is_noticed_and_minimised_again(store, caplog):
    run(store)
    changed = Bowl([3.0, 3.0, 3.0])
    with caplog.at_level(logging.WARNING, "gamwarm"):
        found = minimize(
            changed, np.zeros(3), store=store, name="bowl", data={"centre": np.array([1.0, -2.0, 0.5])},
            jac=changed.gradient,
        )  # fmt: skip

    assert found.start.source == "exact"
    assert found.x == pytest.approx([3.0, 3.0, 3.0], abs=1e-4)
    assert "the stored objective" in found.notes[0]
    assert "the evaluation counts" in caplog.text


def plateau(x):
    """Two smoothing parameters: one with a minimum at 1, one whose objective falls to a plateau for
    good.
    """
    return float((x[0] - 1.0) ** 2 + 5.0 * np.exp(-x[1]))


def plateau_gradient(x):
    return np.array([2.0 * (x[0] - 1.0), -5.0 * np.exp(-x[1])])


def plateau_edf(x):
    return np.array([2.0, 8.0 * np.exp(-x[1])]), np.array([5.0, 5.0])


def test_a_smoothing_parameter_that_ran_away_is_kept_with_evidence_only(store):
    arguments = {"store": store, "jac": plateau_gradient, "rho": slice(None), "rho_bound": 10.0}
    blind = minimize(plateau, [0.0, 0.0], name="blind", **arguments)
    seeing = minimize(plateau, [0.0, 0.0], name="seeing", edf=plateau_edf, **arguments)
    coarse = minimize(plateau, [0.0, 9.5], name="coarse", tol=1e-1, **arguments | {"jac": None, "method": "Powell"})

    assert blind.x[1] > 9.0
    assert store.get_record(blind.start.key).curvature.settled.all(), "its gradient passed SciPy's test"
    assert store.get_record(blind.start.key).curvature.plateau is None
    assert store.get_record(seeing.start.key).curvature.plateau.tolist() == [False, True]
    assert coarse.success
    assert coarse.kept.record.written == bool(coarse.result.curvature.gradient[1] >= -1e-1)


def well(x):
    """Flat far out, where the objective falls only towards less smoothing; the minimum is at 0."""
    return float(-2.0 * np.exp(-x[0]) / (1.0 + np.exp(-x[0])) ** 2)


@pytest.mark.parametrize("edf", [None, lambda x: (np.array([0.0]), np.array([5.0]))], ids=["probed", "by edf"])
def test_a_false_plateau_is_no_answer_wherever_it_came_from(store, tmp_path, edf):
    def again(x0, store=None):
        return minimize(well, [x0], store=store, name="well", rho=slice(None), edf=edf, rho_bound=20.0)

    honest = again(2.0, store)
    record = store.get_record(honest.start.key)
    with gamwarm.open(tmp_path / "wrong.h5") as wrong:
        assert wrong.put_record(replace(record, rho=[13.0], objective=well([13.0]))).written
        found = again(2.0, wrong)
    stuck = again(13.0)

    assert found.start.source == "exact"
    assert found.x == pytest.approx([0.0], abs=1e-3)
    assert "had stopped on a false plateau" in found.notes[0]
    assert not stuck.success
    assert "stop on a false plateau" in stuck.message


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"centre": [1.0, -2.0, 0.25]}},
        {"data": {"centre": [1.0, -2.0, 0.5], "more": scipy.sparse.csr_array([[1.0, 0.0]])}},
        {"data": {"centre": [1.0, -2.0, 0.5], "words": np.array(["a", "b"])}},
        {"name": "another"},
        {"version": "2"},
        {"options": {"gtol": 1e-6}},
        {"method": "CG"},
        {"rho": [0]},
        {"blocks": {"a": [0, 1], "b": [2]}},
    ],
)
def test_what_decides_the_answer_is_part_of_the_name(store, changes):
    first, _ = run(store)

    other, _ = run(store, **changes)

    assert other.start.key != first.start.key


def test_what_does_not_decide_the_answer_is_not(store):
    first, _ = run(store)
    bowl = Bowl([1.0, -2.0, 0.5])

    again = minimize(
        bowl, np.ones(3), store=store, name="bowl", data={"centre": bowl.centre}, jac=bowl.gradient,
        options={"disp": False},
    )  # fmt: skip

    assert again.start.key == first.start.key


def test_arguments_reach_the_function_and_the_name(store):
    def shifted(x, by, word):
        assert word == "w"
        return float(((x - by) ** 2).sum())

    first = minimize(shifted, [0.0, 0.0], (np.array([1.0, 2.0]), "w"), store=store, name="s")
    other = minimize(shifted, [0.0, 0.0], (np.array([1.0, 3.0]), "w"), store=store, name="s")

    assert other.x == pytest.approx([1.0, 3.0], abs=1e-4)
    assert first.start.key != other.start.key


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"method": "annealing"}, InvalidInput, "use one of Nelder-Mead, Powell"),
        ({"jac": "4-point"}, InvalidInput, "give a callable, True"),
        ({"data": {"f": object()}}, InvalidType, r"data\['f'\] is object"),
        ({"data": [1.0]}, InvalidType, "data is list"),
        ({"blocks": {"a": [0, 1]}}, InvalidInput, "entry 2 of x belongs to no block"),
        ({"blocks": {"a": [0, 1], "b": [1, 2]}}, InvalidInput, "entry 1 of x is given twice"),
        ({"blocks": {}}, InvalidType, "at least one block"),
        ({"rho": [3]}, InvalidInput, "rho: entries run from 3 to 3"),
        ({"rho": [True]}, InvalidInput, r"a mask of shape \(1,\)"),
        ({"rho": [0.5]}, InvalidType, "slice, a mask or integers"),
        ({"options": {"hess_inv0": np.eye(3)}}, InvalidInput, "the store gives it"),
        ({"name": ""}, InvalidInput, "name is empty"),
    ],
)
def test_a_wrong_argument_is_named(changes, error, words):
    with pytest.raises(error, match=words):
        run(None, **changes)
