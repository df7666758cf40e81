"""`GaussianProcessOptimizer`: scikit-learn's hyperparameters, begun where an earlier fit ended."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import gamwarm
from gamwarm import InvalidInput, InvalidType
from gamwarm.adapters import GaussianProcessOptimizer
from gamwarm.testing import assert_neutral
from tests.support.gp_driver import GaussianProcess

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import cross_val_score

KERNEL = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1)
X, Y = GaussianProcess().data(0)


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        yield opened


def fit(store, X=X, y=Y, kernel=KERNEL, method="L-BFGS-B", **parameters):
    optimizer = GaussianProcessOptimizer(store, method=method)
    model = GaussianProcessRegressor(kernel, optimizer=optimizer, **parameters).fit(X, y)
    return model, optimizer.found


def test_no_start_moves_the_hyperparameters():
    report = assert_neutral(GaussianProcess())

    assert report.evaluations("exact") == 1.0
    assert report.evaluations("warm") < report.evaluations("cold")


@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS"])
def test_it_is_scikit_learns_answer_and_a_repeat_evaluates_once(store, method):
    own = GaussianProcessRegressor(KERNEL).fit(X, Y)
    first, _ = fit(store, method=method)
    again, found = fit(store, method=method)
    _, near = fit(store, X[3:], Y[3:], method=method)
    _, cold = fit(None, X[3:], Y[3:], method=method)

    assert first.kernel_.theta == pytest.approx(own.kernel_.theta, abs=1e-4)
    assert method == "BFGS" or np.array_equal(first.kernel_.theta, own.kernel_.theta)
    assert np.array_equal(again.kernel_.theta, first.kernel_.theta)
    assert (found.start.source, found.nfev, found.nit) == ("exact", 1, 0)
    assert (near.start.source, near.nit < cold.nit) == ("transfer", True)


@pytest.mark.filterwarnings("ignore:The optimal value found:sklearn.exceptions.ConvergenceWarning")
def test_bounds_hold_for_a_method_that_knows_none(store):
    kernel = ConstantKernel(1.0) * RBF(1.0, (0.1, 0.5)) + WhiteKernel(0.1)
    own = GaussianProcessRegressor(kernel).fit(X, Y)

    bounded, found = fit(store, kernel=kernel, method="BFGS")

    assert found.success
    assert bounded.kernel_.theta == pytest.approx(own.kernel_.theta, abs=1e-4)


def test_restarts_begin_where_scikit_learn_says_and_are_kept_if_they_can_be_told_apart(store):
    own = GaussianProcessRegressor(KERNEL, n_restarts_optimizer=2, random_state=5).fit(X, Y)
    first, _ = fit(store, n_restarts_optimizer=2, random_state=5)
    kept = len(store.keys())
    again, found = fit(store, n_restarts_optimizer=2, random_state=5)
    _, at_random = fit(store, n_restarts_optimizer=2, random_state=np.random.RandomState(5))

    assert kept == 3
    assert (found.start.source, found.nfev) == ("exact", 1)
    assert at_random.start is None
    assert len(store.keys()) == kept
    assert np.array_equal(first.kernel_.theta, own.kernel_.theta)
    assert np.array_equal(again.kernel_.theta, first.kernel_.theta)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 1e-6}, {"normalize_y": True}, {"X": X + 1.0}, {"y": 2 * Y},
        {"kernel": ConstantKernel(1.0) * Matern(1.0) + WhiteKernel(0.1)},
        {"kernel": ConstantKernel(1.0) * RBF(1.0, (1e-3, 1e3)) + WhiteKernel(0.1)},
        {"kernel": ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1, "fixed")},
    ],
)  # fmt: skip
def test_what_decides_the_answer_is_part_of_the_name(store, changes):
    _, first = fit(store)

    _, other = fit(store, **changes)

    assert other.start.key != first.start.key


def test_fixed_hyperparameters_count_and_where_free_ones_begin_does_not(store):
    def key(noise, bounds, length=1.0):
        return fit(store, kernel=ConstantKernel(1.0) * RBF(length) + WhiteKernel(noise, bounds))[1].start.key

    assert key(0.1, "fixed") != key(0.2, "fixed")
    assert key(0.1, (1e-5, 1e5)) == key(0.1, (1e-5, 1e5), 2.0)


def test_it_goes_through_cross_validation_clones_classifiers_and_pickle(store, tmp_path):
    optimizer = GaussianProcessOptimizer(store)
    model = GaussianProcessRegressor(KERNEL, optimizer=optimizer)
    own = cross_val_score(GaussianProcessRegressor(KERNEL), X, Y, cv=3)

    assert cross_val_score(model, X, Y, cv=3) == pytest.approx(own, abs=1e-4)
    assert clone(model).optimizer is optimizer
    GaussianProcessClassifier(1.0 * RBF(1.0), optimizer=optimizer).fit(X, np.digitize(Y, [-0.5, 0.5]))
    assert optimizer.found.problem.family.family_kind.endswith("BinaryGaussianProcessClassifierLaplace")
    copied = pickle.loads(pickle.dumps(model.fit(X, Y)))
    assert copied.optimizer.store is None
    assert np.array_equal(copied.predict(X), model.predict(X))
    path = GaussianProcessOptimizer(tmp_path / "own.h5")
    fit_again = pickle.loads(pickle.dumps(GaussianProcessRegressor(KERNEL, optimizer=path)))
    assert fit_again.fit(X, Y).kernel_.theta == pytest.approx(model.kernel_.theta, abs=1e-5)
    assert (tmp_path / "own.h5").exists()


def test_a_wrong_argument_is_named(store):
    with pytest.raises(InvalidType, match="store is int"):
        GaussianProcessOptimizer(3)
    with pytest.raises(InvalidInput, match="method is 'annealing'"):
        GaussianProcessOptimizer(store, method="annealing")
    with pytest.raises(InvalidInput, match="parent needs a store"):
        GaussianProcessOptimizer(None, parent=32 * "0")
    with pytest.raises(InvalidInput, match="does not belong to a Gaussian process"):
        GaussianProcessOptimizer(store)(lambda theta: 0.0, np.zeros(1), [[0.0, 1.0]])
