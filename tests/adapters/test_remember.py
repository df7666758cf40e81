"""`gamwarm.adapters.remember`: any solver begins where an earlier run ended, and no stored answer
is returned unevaluated.
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize

import gamwarm
from gamwarm import InvalidInput, InvalidType
from gamwarm.adapters import curve_fit, least_squares, minimize, remember, remember_problem
from gamwarm.testing import assert_neutral
from tests.support.solver_driver import LogitByNewton, RobustByEM
from tests.support.thread_ranks import on_ranks


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        yield opened


class Roots:
    """Newton on sum(x - target)**4 in its own buffer; counts steps, calls and evaluations."""

    def __init__(self, target):
        self.target = np.asarray(target, dtype=float)
        self.buffer = np.zeros(self.target.size)
        self.starts, self.evaluations = [], 0

    def objective(self, x):
        self.evaluations += 1
        return float(((x - self.target) ** 4).sum()) + 1.0

    def solve(self, start):
        self.starts.append(copy.copy(start))
        self.buffer[:] = 0.0 if start is None else start
        steps = 0
        while np.abs(self.buffer - self.target).max() > 1e-4:
            self.buffer -= (self.buffer - self.target) / 3.0
            steps += 1
        return {"x": self.buffer, "success": True, "nit": steps, "nfev": steps}


def run(store, target=(1.0, -2.0, 0.5), solver=None, **changes):
    roots = Roots(target)
    arguments = {
        "name": "roots", "data": {"target": roots.target}, "start": np.zeros(3), "objective": roots.objective,
        **changes,
    }  # fmt: skip
    return remember(solver or roots.solve, store=store, **arguments), roots


# -- neutrality ------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", [LogitByNewton(), RobustByEM()], ids=["Newton", "EM"])
def test_no_start_moves_an_answer_of_a_solver_that_nobody_prepared(driver):
    report = assert_neutral(driver)

    assert report.evaluations("exact") == 1.0


# -- where it begins and ends ----------------------------------------------------------------------


def test_without_a_store_it_is_the_solver_alone():
    found, roots = run(None)

    assert [roots.starts, found.start, found.kept] == [[None], None, None]
    assert (found.success, found.nit) == (True, found.solved["nit"])
    assert found.x == pytest.approx([1.0, -2.0, 0.5], abs=1e-4)


def test_the_same_fit_again_is_one_evaluation_and_the_same_bits_and_no_call(store):
    first, _ = run(store)
    assert first.kept.record.written, first.kept.record.reason

    again, roots = run(store)

    assert again.start.source == "exact"
    assert np.array_equal(again.x, first.x)
    assert (roots.starts, roots.evaluations, again.cost.evaluations, again.nit) == ([], 1, 1, 0)
    assert (again.fun, again.success, again.solved) == (first.fun, True, None)
    assert again.kept.record.reason.startswith("unchanged")
    assert store.savings().session.saved.evaluations == first.cost.evaluations - 1


def test_iterations_count_as_evaluations_of_a_solver_that_does_not_say_them(store):
    def solve(x):
        return {"x": [1.0, -2.0, 0.5], "success": True, "nit": 7}

    found, roots = run(store, solver=solve)

    assert (found.nit, found.nfev, found.cost.evaluations) == (7, 7, 7 + roots.evaluations)


@pytest.mark.parametrize("solved", [((1.0, -2.0, 0.5), True), {"x": [1.0, -2.0, 0.5], "success": True}])
def test_what_a_solver_does_not_say_of_its_cost_is_not_made_up(store, solved):
    found, _ = run(store, solver=lambda _: solved)
    again, _ = run(store, solver=lambda _: solved)

    assert (found.nit, found.nfev) == (None, None)
    assert (again.start.source, again.nit, again.nfev) == ("exact", 0, 0)


def test_evaluations_are_known_of_a_solver_that_says_only_those():
    found, _ = run(None, solver=lambda _: {"x": [1.0, -2.0, 0.5], "success": True, "nfev": 9})

    assert (found.nit, found.nfev) == (None, 9)


def test_a_related_fit_begins_at_the_other_answer(store):
    first, _ = run(store)

    near, roots = run(store, (1.01, -2.01, 0.5))
    cold, _ = run(None, (1.01, -2.01, 0.5))

    assert near.start.source == "transfer"
    assert near.start_used
    assert roots.starts[0] == pytest.approx(first.x)
    assert near.nit < cold.nit / 2
    assert near.x == pytest.approx(cold.x, abs=1e-3)


def test_what_is_offered_may_be_written_to_and_what_is_returned_is_copied(store):
    first, roots = run(store)
    kept = first.x.copy()
    roots.buffer[:] = 99.0

    def in_place(x):
        assert x.flags.writeable
        x[:] = (1.5, -2.5, 0.0)
        return x, True

    near, _ = run(store, (1.5, -2.5, 0.0), in_place)
    again, _ = run(store)

    assert np.array_equal(first.x, kept)
    assert near.x.tolist() == [1.5, -2.5, 0.0]
    assert np.array_equal(again.x, kept)


def test_a_start_worse_than_the_cold_one_is_not_offered(store):
    run(store, (50.0, 50.0, 50.0))

    far, roots = run(store, (-1.0, -1.0, -1.0))

    assert roots.starts == [None]
    assert not far.start_used
    assert "worse than the null model's" in far.notes[0]


def test_a_solver_that_raises_from_a_start_is_called_without_one(store):
    run(store)

    def picky(x):
        if x is not None:
            raise FloatingPointError("overflow")
        return Roots((1.1, -2.0, 0.5)).solve(None)

    found, _ = run(store, (1.1, -2.0, 0.5), picky)

    assert found.success
    assert not found.start_used
    assert "it raised FloatingPointError: overflow" in found.notes[-1]
    with pytest.raises(FloatingPointError, match="overflow"):
        run(None, solver=lambda _: (_ for _ in ()).throw(FloatingPointError("overflow")))


@pytest.mark.parametrize("bad", [([np.nan, 0.0, 0.0], True), ([0.0, 0.0, 0.0], False)], ids=["NaN", "gave up"])
def test_a_solver_without_an_answer_from_a_start_is_called_without_one(store, bad):
    run(store)
    calls = []

    def led_astray(x):
        calls.append(x)
        return bad if x is not None else Roots((1.1, -2.0, 0.5)).solve(None)

    found, _ = run(store, (1.1, -2.0, 0.5), led_astray)

    assert found.success
    assert found.x == pytest.approx([1.1, -2.0, 0.5], abs=1e-3)
    assert [x is None for x in calls] == [False, True]
    assert "the cold start was searched too" in found.notes[-1]


def test_a_fit_that_gave_up_is_a_checkpoint_and_is_gone_on_with(store):
    def one_step(x):
        begin = np.zeros(3) if x is None else x
        return {"x": begin + (np.array([1.0, -2.0, 0.5]) - begin) / 3.0, "success": False}

    stopped, _ = run(store, solver=one_step)
    further, _ = run(store, solver=one_step)
    done, roots = run(store)

    assert (stopped.kept.record.written, further.start.is_checkpoint) == (True, True)
    assert further.fun < stopped.fun
    assert (len(roots.starts), done.start.is_checkpoint, done.success) == (1, True, True)
    assert np.array_equal(roots.starts[0], further.x)


def test_an_answer_that_is_not_a_number_is_returned_unconverged_and_not_kept(store):
    found, _ = run(store, solver=lambda _: ([0.0, np.inf, 0.0], True))

    assert not found.success
    assert "inf in entry 1" in found.message
    assert not found.kept.record.written


def test_a_broken_store_fails_no_fit(tmp_path):
    path = tmp_path / "not-there" / "fits.h5"
    path.parent.mkdir()
    with gamwarm.open(path) as store:
        path.parent.chmod(0o500)
        found, _ = run(store)
        path.parent.chmod(0o700)

    assert found.success


# -- never believed --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-9], ids=["", "small"])
@pytest.mark.parametrize("through", ["remember", "minimize"])
def test_a_record_of_another_function_leads_nowhere_worse_whatever_its_scale(store, scale, through, caplog):
    def first(x):  # least at 10
        return scale * (float((x[0] - 10.0) ** 2) - 2.0)

    def second(x):  # a deep well at 0.5, a shallow one at 10
        return scale * float(-5.0 * np.exp(-((x[0] - 0.5) ** 2)) - np.exp(-((x[0] - 10.0) ** 2)))

    def fit(fun, store):
        def solve(x):
            return scipy.optimize.minimize(lambda x: fun(x) / scale, np.zeros(1) if x is None else x)

        if through == "remember":
            return remember(solve, store=store, name="wells", start=[0.0], objective=fun)
        return minimize(fun, [0.0], store=store, name="wells", options={"gtol": 1e-5 * scale})

    fit(first, store)
    cold = fit(second, None)
    warm = fit(second, store)

    assert warm.start.source == "exact"
    assert cold.success
    assert warm.fun <= cold.fun + 1e-6 * scale
    assert ("is evaluated here as" in caplog.text) == (scale == 1.0)


def test_a_stored_answer_on_a_false_plateau_is_no_answer(store, tmp_path):
    def well(x):
        return float(-2.0 * np.exp(-x[0]) / (1.0 + np.exp(-x[0])) ** 2)

    def solve(x):
        return scipy.optimize.minimize(well, [2.0] if x is None else x)

    def fit(store):
        return remember(solve, store=store, name="well", start=[2.0], objective=well, rho=slice(None), rho_bound=20.0)

    record = store.get_record(fit(store).start.key)
    with gamwarm.open(tmp_path / "wrong.h5") as wrong:
        assert wrong.put_record(replace(record, rho=[13.0], objective=well([13.0]))).written
        found = fit(wrong)

    assert found.start.source == "exact"
    assert found.x == pytest.approx([0.0], abs=1e-3)


def test_without_an_objective_the_solver_alone_decides(store):
    def fit(target):
        solver = Roots(target)

        def solve(x):
            return {**solver.solve(x), "fun": solver.objective(solver.buffer)}

        found = remember(solve, store=store, name="r", start=np.zeros(3), data={"target": solver.target})
        return found, solver

    first, _ = fit((1.0, 2.0, 3.0))
    again, asked = fit((1.0, 2.0, 3.0))
    near, _ = fit((1.0, 2.0, 3.1))

    assert (again.start.source, near.start.source) == ("exact", "transfer")
    assert np.array_equal(asked.starts[0], first.x)
    assert np.array_equal(again.x, first.x)
    assert near.x == pytest.approx([1.0, 2.0, 3.1], abs=1e-3)


@pytest.mark.parametrize("shift", [-100.0, 100.0])
def test_without_an_objective_a_record_of_another_model_leads_nowhere_worse(store, shift):
    def fit(function, where):
        def solve(x):
            return scipy.optimize.minimize(function, [0.0] if x is None else x, method="BFGS")

        return remember(solve, store=where, name="wells", start=[0.0], data={})

    def wells(x):  # a deep well at 0.5, a shallow one at 10
        return float(-5.0 * np.exp(-((x[0] - 0.5) ** 2)) - np.exp(-((x[0] - 10.0) ** 2)))

    fit(lambda x: float((x[0] - 10.0) ** 2) + shift, store)
    cold, warm = fit(wells, None), fit(wells, store)

    assert warm.fun == pytest.approx(cold.fun, abs=1e-6)
    assert "the cold start was searched too" in warm.notes[-1]


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"target": [1.0, -2.0, 0.25]}}, {"settings": {"penalizer": 0.1}}, {"name": "other"},
        {"version": "2"}, {"rho": [0]}, {"blocks": {"a": [0, 1], "b": [2]}}, {"bounds": [(-9, 9)] * 3},
    ],
)  # fmt: skip
def test_what_decides_the_answer_is_part_of_the_name(store, changes):
    first, _ = run(store)

    other, _ = run(store, **changes)

    assert other.start.key != first.start.key


def test_labels_and_the_problem_are_at_hand(store):
    found, _ = run(store, attributes={"fold": 7})
    roots = Roots((1.0, -2.0, 0.5))
    problem = remember_problem(name="roots", data={"target": roots.target}, start=np.zeros(3))

    assert store.get_record(found.start.key).attributes == {"fold": 7}
    assert problem.key == found.problem.key
    assert "target" not in str(store.explain(problem))


@pytest.mark.parametrize(
    ("solved", "error", "words"),
    [
        (np.zeros(3), InvalidType, r"solve returned ndarray; return \(x, converged\)"),
        ((1.0, 2.0, 3.0), InvalidType, "a tuple of 3"),
        (None, InvalidType, "solve returned NoneType"),
        ({"x": np.zeros(3)}, InvalidInput, "without 'success'"),
        ((np.zeros(2), True), InvalidInput, "start has 3 numbers, but solve returned 2 as x; give start the length"),
        ((0.0, True), InvalidInput, "start has 3 numbers, but solve returned 1 as x"),
        ((None, True), InvalidType, "vector of real numbers; it is NoneType"),
        (([1.0, [2.0, 3.0]], True), InvalidInput, "ragged"),
        ((True, np.zeros(3)), InvalidType, r"solve says array\(.*return True or False there: return \(x, converged\)"),
        ((np.zeros((3, 1)), True), InvalidInput, "expected"),
        (("abc", True), InvalidType, "x, which must be a number; it is 'abc'"),
        ((np.zeros(3), 1), InvalidType, "return True or False"),
        ({"x": np.zeros(3), "success": True, "nit": -1}, InvalidInput, "nit"),
    ],
)
def test_what_a_solver_returns_wrong_is_named(solved, error, words):
    with pytest.raises(error, match=words):
        run(None, solver=lambda _: solved)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"start": None}, InvalidType, "start is None"),
        ({"start": []}, InvalidInput, "start is empty"),
        ({"start": [0.0, np.nan, 0.0]}, InvalidInput, "non-finite number at position 1"),
        ({"name": ""}, InvalidInput, "name is empty"),
        ({"data": [1.0]}, InvalidType, "data is list"),
        ({"data": {"f": object()}}, InvalidType, r"data\['f'\] is object"),
        ({"settings": {"link": np.log}}, InvalidType, r"settings\['link'\] is ufunc"),
        ({"settings": 3}, InvalidType, "settings is int"),
        ({"objective": 3.0}, InvalidType, "objective is float; give a callable"),
        ({"objective": lambda _: "x"}, InvalidType, "objective returned str"),
        ({"objective": lambda x: x}, InvalidType, r"objective returned an array of shape \(3,\)"),
        ({"start": "abc"}, InvalidType, "start must be a number; it is 'abc'"),
        ({"start": [[0.0], [1.0, 2.0]]}, InvalidInput, "start is ragged"),
        ({"start": [0.0, 0.0]}, InvalidInput, "start has 2 numbers, but solve returned 3 as x"),
        ({"objective": None}, InvalidInput, "nothing says what the objective is"),
        ({"objective": None, "rho": [0]}, InvalidInput, "rho needs objective"),
        ({"bounds": [(0.0, 0.5)] * 3}, InvalidInput, "outside its bounds"),
    ],
)
def test_a_wrong_argument_is_named(changes, error, words):
    with pytest.raises(error, match=words):
        run(None, **changes)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"gradient": lambda x: x[:2]}, InvalidInput, "the gradient has 2 numbers, x has 3; check gradient"),
        ({"gradient": lambda x: None}, InvalidType, "the gradient is NoneType; let gradient return an array"),
        (
            {"edf": lambda x: 3.0},
            InvalidType,
            r"edf returned float; return \(edf, max_edf\), two arrays of shape \(1,\)",
        ),
        ({"edf": lambda x: ([1.0], [1.0, 2.0])}, InvalidType, r"edf returned tuple.*shapes \(1,\) and \(2,\)"),
        ({"edf": lambda x: (["a"], ["b"])}, InvalidType, "edf returned tuple.*vector of real numbers"),
    ],
)
def test_a_function_for_rho_that_returns_something_else_is_named(store, changes, error, words):
    with pytest.raises(error, match=words):
        run(store, rho=[0], **changes)


def test_fits_that_only_a_name_tells_apart_are_warned_of_once_and_only_with_a_store(store, caplog):
    for data in (None, None, {}):
        run(store, name="nameless", data=data)
    run(None, name="no store", data=None)
    minimize(lambda x: float(x @ x), np.ones(2), store=store, name="plain function")
    minimize(lambda x, a: float((x - a) @ (x - a)), np.ones(2), (0.5,), store=store, name="with arguments")
    least_squares(lambda x: x - 1.0, np.zeros(2), store=store, name="plain residuals")

    said = [each.getMessage() for each in caplog.records]
    assert [text.split(" have ")[0] for text in said] == [
        "the fits called 'nameless'",
        "the fits called 'plain function'",
        "the fits called 'plain residuals'",
    ]
    assert "data={}" in said[0]


def test_another_objective_of_the_same_name_is_said_to_need_a_name_of_its_own(store, caplog):
    run(store)
    found, _ = run(store, objective=lambda x: float(((x - np.array([1.0, -2.0, 0.5])) ** 2).sum()))

    assert found.success
    assert "give it another name" in caplog.text


@pytest.mark.parametrize("given", [{"parent": 32 * "0"}, {"each": True}])
def test_what_says_how_to_use_a_store_needs_one(given):
    (name,) = given
    with pytest.raises(InvalidInput, match=f"{name} needs a store; pass the store too, or omit {name}"):
        run(None, **given)
    with pytest.raises(InvalidInput, match=f"{name} needs a store"):
        minimize(lambda x: float(x @ x), np.ones(2), store=None, name="f", **given)
    with pytest.raises(InvalidInput, match=f"{name} needs a store"):
        least_squares(lambda x: x - 1.0, np.zeros(2), store=None, name="r", **given)
    with pytest.raises(InvalidInput, match=f"{name} needs a store"):
        curve_fit(lambda x, a: a * x, np.arange(3.0), np.arange(3.0), store=None, name="c", **given)


def test_without_a_store_attributes_are_on_the_result():
    found, _ = run(None, attributes={"fold": 7})

    assert found.result.attributes == {"fold": 7}
    with pytest.raises(InvalidType, match="attribute 'fold'"):
        run(None, attributes={"fold": [7]})


def test_a_solver_and_a_store_that_are_none_are_refused():
    with pytest.raises(InvalidType, match="only a rank without work"):
        remember(None, store=None)
    with pytest.raises(InvalidType, match="store is str"):
        run("fits.h5")


# -- threads and ranks -----------------------------------------------------------------------------


def test_threads_share_a_store(store):
    run(store)

    def fit(k):
        return run(store, (1.0, -2.0, 0.5 + 0.01 * k))[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fit, range(12)))

    assert all(each.success and each.kept.record.written for each in found)
    assert [each.x[2] for each in found] == pytest.approx([0.5 + 0.01 * k for k in range(12)], abs=1e-3)
    assert len(store.keys()) == 12


def test_ranks_fit_one_each_and_one_may_have_nothing_to_do(tmp_path):
    def rank(comm):
        with gamwarm.open(tmp_path / "fits.h5", comm=comm) as store:
            if comm.rank == 1:
                return remember(None, store=store, each=True)
            return run(store, each=True)[0].kept.record.written

    assert on_ranks(2, rank) == [True, None]


def test_a_wrong_argument_on_one_rank_reaches_the_others(tmp_path):
    def rank(comm):
        with gamwarm.open(tmp_path / "fits.h5", comm=comm) as store:
            try:
                run(store, each=True, name="roots" if comm.rank else "")
            except gamwarm.GamwarmError as error:
                return type(error).__name__
        return None

    assert on_ranks(2, rank) == ["InvalidInput", "CollectiveError"]
