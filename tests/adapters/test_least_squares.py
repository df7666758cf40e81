"""`least_squares` and `curve_fit`: SciPy's answers, begun where an earlier fit ended."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import gamwarm
from gamwarm import InvalidInput, InvalidType
from gamwarm.adapters import curve_fit, least_squares
from gamwarm.testing import assert_neutral
from tests.support.solver_driver import Decay

T, Y = Decay().data(0)
NEAR, NEAR_Y = Decay().data(1)
BEGIN = [1.0, 1.0, 1.0, 4.0]
BOUNDS = ([0.0, 0.0, 0.0, 0.0], [2.8, 5.0, 5.0, 10.0])  # one is active


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        yield opened


def residuals(p, t, y):
    return Decay.curve(t, *p) - y


def jacobian(p, t, y):
    a, b, c, d = p
    first, second = np.exp(-t / b), np.exp(-t / d)
    return np.column_stack([first, a * t / b**2 * first, second, c * t / d**2 * second])


def own_loss(z):
    return np.array([np.log1p(z), 1.0 / (1.0 + z), -1.0 / (1.0 + z) ** 2])


def squares(store, t=T, y=Y, **options):
    return least_squares(residuals, BEGIN, args=(t, y), store=store, name="decay", **options)


def curve(store, t=T, y=Y, f=Decay.curve, **options):
    answer = curve_fit(f, t, y, store=store, name="decay", full_output=True, **{"p0": BEGIN, **options})
    return answer[0], answer[1], answer[2]["fit"]


OPTIONS = [
    {}, {"method": "dogbox"}, {"method": "lm"}, {"jac": jacobian}, {"bounds": BOUNDS}, {"loss": "soft_l1"},
    {"loss": "huber", "f_scale": 0.03}, {"loss": "cauchy", "f_scale": 0.1}, {"loss": "arctan"}, {"loss": own_loss},
    {"x_scale": [1.0, 2.0, 1.0, 5.0], "diff_step": 1e-6}, {"bounds": BOUNDS, "method": "dogbox"},
]  # fmt: skip
CURVES = [
    {}, {"sigma": np.full(60, 0.05)}, {"sigma": np.diag(np.full(60, 0.0025)), "absolute_sigma": True},
    {"sigma": 0.05}, {"bounds": BOUNDS}, {"method": "dogbox"}, {"jac": lambda t, *p: jacobian(p, t, t)},
    {"jac": lambda t, *p: jacobian(p, t, t), "sigma": np.linspace(0.01, 0.1, 60)},
    {"method": "trf", "loss": "soft_l1", "f_scale": 0.1}, {"bounds": (0.0, 8.0), "p0": None}, {"maxfev": 500},
]  # fmt: skip


@pytest.mark.parametrize(
    "driver",
    [
        Decay(),
        pytest.param(Decay(method="lm"), marks=pytest.mark.long),
        pytest.param(Decay("curve_fit"), marks=pytest.mark.long),
        Decay("curve_fit", bounds=(0.0, [5.0, 5.0, 1.2, 20.0])),
        Decay(loss="soft_l1", f_scale=0.1),
    ],
    ids=["trf", "lm", "curve_fit", "curve_fit, bounds", "soft_l1"],
)  # fmt: skip
def test_no_start_moves_an_answer(driver):
    report = assert_neutral(driver)

    assert report.evaluations("exact") == 1.0
    assert report.evaluations("warm") < report.evaluations("cold") / 2


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(map(str, options)) or "trf")
def test_least_squares_is_scipys_and_a_repeat_evaluates_once(store, options):
    own = scipy.optimize.least_squares(residuals, BEGIN, args=(T, Y), **options)
    alone = squares(None, **options)
    first = squares(store, **options)
    again = squares(store, **options)
    near = squares(store, NEAR, NEAR_Y, **options)
    cold = scipy.optimize.least_squares(residuals, BEGIN, args=(NEAR, NEAR_Y), **options)

    for found in (alone, first):
        assert np.array_equal(found.x, own.x)
        assert (found.cost, found.nfev, found.status) == (own.cost, own.nfev, own.status)
        assert np.array_equal(found.jac, own.jac)
        assert np.array_equal(found.fun, own.fun)
    assert first.kept.record.written, first.kept.record.reason
    assert (again.start.source, near.start.source) == ("exact", "transfer")
    assert np.array_equal(again.x, first.x)
    assert (again.nfev, again.result.cost.outer_iterations, again.success) == (1, 0, True)
    assert again.cost == pytest.approx(first.cost, rel=1e-12)
    assert again.fun == pytest.approx(first.fun)
    assert near.nfev < cold.nfev
    assert near.x == pytest.approx(cold.x, rel=1e-3)
    assert near.cost <= cold.cost * (1 + 1e-6)


@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")
@pytest.mark.parametrize("options", CURVES, ids=lambda options: " ".join(options) or "lm")
def test_curve_fit_is_scipys_and_a_repeat_evaluates_once(store, options):
    given = {"p0": BEGIN, **options}
    popt, pcov = scipy.optimize.curve_fit(Decay.curve, T, Y, **given)

    for found in (curve_fit(Decay.curve, T, Y, store=None, name="decay", **given), curve(store, **options)):
        assert np.array_equal(found[0], popt)
        assert np.array_equal(found[1], pcov)
    again = curve(store, **options)
    assert (again[2].start.source, again[2].nfev) == ("exact", 1)
    assert np.array_equal(again[0], popt)
    assert again[1] == pytest.approx(pcov, rel=1e-3)


@pytest.mark.parametrize(("upper", "xtol"), [(2.8, 1e-8), (2.8 * (1.0 + 1e-5), 1e-4)], ids=["at", "beside"])
def test_a_start_at_a_bound_or_beside_it_ends_where_the_cold_fit_ends(store, upper, xtol):
    def fit(store, t=T, y=Y, upper=upper, **options):
        options |= {"bounds": ([0.0, 0.0, 0.0, 0.0], [upper, 5.0, 5.0, 10.0]), "method": "dogbox", "xtol": xtol}
        return least_squares(residuals, BEGIN, args=(t, y), store=store, name="decay", **options)

    parent = fit(store, upper=2.8)
    near = fit(store, NEAR, NEAR_Y, parent=parent.kept)
    cold = fit(None, NEAR, NEAR_Y)

    assert parent.active_mask[0] == 1
    assert near.start.source == "transfer"
    assert near.start_used == (xtol == 1e-8)
    assert near.success
    assert near.cost == pytest.approx(cold.cost, rel=1e-5)


def test_a_curve_of_other_points_begins_at_the_answer(store):
    curve(store)
    near = curve(store, NEAR, NEAR_Y)
    cold = curve(None, NEAR, NEAR_Y)

    assert near[2].start.source == "transfer"
    assert near[2].nfev < cold[2].nfev
    assert near[0] == pytest.approx(cold[0], rel=1e-5)
    assert near[1] == pytest.approx(cold[1], rel=1e-3)


def test_missing_points_are_left_out_as_scipy_leaves_them_out(store):
    y = np.where(np.arange(60) == 7, np.nan, Y)
    sigma = np.linspace(0.02, 0.1, 60)
    popt, pcov = scipy.optimize.curve_fit(Decay.curve, T, y, BEGIN, sigma, nan_policy="omit")
    found = curve(store, y=y, sigma=sigma, nan_policy="omit")
    again = curve(store, y=y, sigma=sigma, nan_policy="omit")

    assert np.array_equal(found[0], popt)
    assert np.array_equal(found[1], pcov)
    assert again[2].start.source == "exact"
    with pytest.raises(ValueError, match="infs or NaNs"):
        curve(store, y=y)


def test_a_model_that_changed_behind_its_name_is_fitted_again(store, caplog):
    squares(store)
    found = least_squares(
        lambda p, t, y: 2.0 * residuals(p, t, y) + 1e-3, BEGIN, args=(T, Y), store=store, name="decay"
    )
    own = scipy.optimize.least_squares(lambda p, t, y: 2.0 * residuals(p, t, y) + 1e-3, BEGIN, args=(T, Y))

    assert found.start.source == "exact"
    assert "the evaluation counts" in caplog.text
    assert found.x == pytest.approx(own.x, rel=1e-4)


def test_units_in_which_every_sum_of_squares_is_tiny_change_nothing(store):
    def other(p, t, y):
        return 1e-6 * (Decay.curve(t, *p) - 2.0 * y)

    least_squares(lambda p, t, y: 1e-6 * residuals(p, t, y), BEGIN, args=(T, Y), store=store, name="tiny", gtol=1e-15)
    found = least_squares(other, BEGIN, args=(T, Y), store=store, name="tiny", gtol=1e-15)
    own = scipy.optimize.least_squares(other, BEGIN, args=(T, Y), gtol=1e-15)

    assert found.start.source == "exact"
    assert found.cost == pytest.approx(own.cost, rel=1e-6)


def test_what_decides_the_answer_is_part_of_the_name_and_where_it_begins_is_not(store):
    keys = [
        squares(store, **changes).start.key
        for changes in (
            {},
            {"loss": "huber"},
            {"ftol": 1e-6},
            {"bounds": (0.0, 20.0)},
            {"data": {"a": 1}},
            {"method": "lm"},
        )
    ]
    same = [
        squares(store, **changes).start.key
        for changes in ({"ftol": 1e-8}, {"verbose": 0}, {"bounds": (-np.inf, np.inf)}, {"method": "trf"})
    ]
    elsewhere = least_squares(residuals, [2.0, 1.0, 1.0, 4.0], args=(T, Y), store=store, name="decay")

    assert len(set(keys)) == len(keys)
    assert set(same) == {keys[0]} == {elsewhere.start.key}
    assert curve(store)[2].start.key != curve(store, sigma=np.full(60, 0.1))[2].start.key


def test_a_fit_that_ran_out_is_a_checkpoint_and_is_gone_on_with(store):
    stopped = squares(store, max_nfev=3)
    again = squares(store, max_nfev=3)

    assert (stopped.success, stopped.status, stopped.kept.record.written) == (False, 0, True)
    assert again.start.is_checkpoint
    assert again.cost < stopped.cost


def test_a_curve_that_does_not_converge_raises_scipys_error(store):
    with pytest.raises(RuntimeError, match="Optimal parameters not found"):
        curve(store, maxfev=2)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: squares(s, tolerance=1), InvalidType, "unexpected keyword argument 'tolerance'"),
        (lambda s: squares(s, data=3), InvalidType, "data is int"),
        (lambda s: squares(s, bounds=3), InvalidType, "give .lower, upper. or"),
        (lambda s: squares(s, bounds=(1.0, 0.0)), InvalidInput, "lower must be below upper"),
        (lambda s: least_squares(residuals, [], store=s, name="d"), InvalidInput, "x0 is empty"),
        (lambda s: least_squares(residuals, BEGIN, args=(T, object()), store=s, name="d"), InvalidType, "is object"),
        (lambda s: least_squares(residuals, BEGIN, args=(T, Y), store=s, name=""), InvalidInput, "name is empty"),
        (lambda s: curve(s, f=lambda *p: p, p0=None), InvalidInput, "pass p0"),
        (lambda s: curve(s, p0=[1.0, np.nan]), InvalidInput, "p0 holds a non-finite number"),
    ],
)
def test_a_wrong_argument_is_named(store, call, error, words):
    with pytest.raises(error, match=words):
        call(store)
