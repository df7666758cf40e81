"""Outer coordinates other than smoothing parameters: key, record, file, artifact, transfer by name,
guard.
"""

from __future__ import annotations

import numpy as np
import pytest

import gamwarm
from gamwarm import Curvature, DensePenalty, FitProblem, FitResult, InnerMode, InvalidInput, InvalidType
from tests.support.problems import NamedFamily, small_problem, wave


def problem(nuisance=("log scale", "log theta"), n=30, **options):
    spec = gamwarm.ParameterBlockSpec("mean", wave(n, 4, 1), penalties=[DensePenalty(np.eye(4))])
    chosen = gamwarm.BlockwiseFitOptions(**options)
    return FitProblem(NamedFamily(), [spec], chosen, engine="tests", nuisance=nuisance)


def result(rho, **changes):
    q = len(rho)
    parts = {
        "curvature": Curvature(
            np.zeros(q), np.arange(1.0, q * q + 1).reshape(q, q), np.ones(q), np.zeros(q, dtype=bool)
        ),
        "inner": InnerMode(-1.0, 0.5, 3, True, 2.5, [0.25]),
    }
    return FitResult(rho, [np.arange(4.0)], 1.0, True, **parts | changes)


def test_nuisance_names_enter_the_key_and_their_absence_is_the_key_of_before():
    family, specs, options = small_problem(1)
    plain = gamwarm.exact_key(family, specs, options, engine="reference")

    assert gamwarm.exact_key(family, specs, options, engine="reference", nuisance=()) == plain
    keys = {problem(names).key for names in ((), ("a",), ("b",), ("a", "b"), ("b", "a"))}
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("names", "error"), [("log scale", InvalidType), (("a", "a"), InvalidInput), (("",), InvalidInput)]
)
def test_names_that_are_none_are_refused(names, error):
    with pytest.raises(error):
        problem(names)


def test_a_record_with_nuisance_coordinates_comes_back_intact(tmp_path):
    here = problem()
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        assert store.keep(here, result([0.5, 40.0, -99.0])).record.written
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        record, start = store.get_record(here.key), store.start_for(here)
        assert store.verify().ok

    assert record.nuisance == ("log scale", "log theta")
    assert start.source == "exact"
    assert start.start.rho.tolist() == [0.5, 40.0, -99.0]
    assert record.inner.block_logdet_h == 2.5
    assert record.inner.block_logdet_s.tolist() == [0.25]
    assert record.curvature.settled.tolist() == [True, True, True]


def test_only_smoothing_parameters_saturate(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        kept = store.keep(problem(), result([0.5, 40.0, 0.0], curvature=None))
        refused = store.keep(problem(), result([40.0, 0.5, 0.0], curvature=None))

    assert kept.record.written
    assert "rho[0] = 40 is saturated" in refused.record.reason


def test_a_related_fit_gets_nuisance_coordinates_by_name_and_the_curvature_with_them(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        store.keep(problem(), result([0.5, 40.0, -99.0]))
        turned = store.start_for(problem(("log theta", "log scale"), n=31)).start
        fewer = store.start_for(problem(("log theta",), n=31)).start
        other = store.start_for(problem(("other",), n=31)).start

    assert turned.rho.tolist() == [0.5, -99.0, 40.0]
    assert turned.curvature.hessian.tolist() == [[1.0, 3.0, 2.0], [7.0, 9.0, 8.0], [4.0, 6.0, 5.0]]
    assert fewer.rho.tolist() == [0.5, -99.0]
    assert other.rho.tolist() == [0.5, 0.0]
    assert other.curvature is None


class Scale:
    """V = (rho - 1)^2 + (log scale - 30)^2: the second coordinate ends far beyond any bound."""

    def evaluate(self, rho, theta, budget):
        gradient = 2.0 * (rho - np.array([1.0, 30.0]))
        return gamwarm.Evaluation(
            rho, theta, float(gradient @ gradient) / 4.0, gradient, 2.0 * np.eye(2), edf=[2.0], max_edf=[4.0],
            converged=True, last_step=0.0,
        )  # fmt: skip


def test_the_fit_searches_nuisance_coordinates_without_a_bound(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        full = gamwarm.fit(problem(("log scale",)), Scale(), store)
        fold = gamwarm.fit(problem(("log scale",), n=31), Scale(), store)
        again = gamwarm.fit(problem(("log scale",)), Scale(), store)

    for each in (full, fold, again):
        assert each.converged
        np.testing.assert_allclose(each.result.rho, [1.0, 30.0], atol=1e-5)
    assert fold.start.source == "transfer"
    assert fold.cost.evaluations == 1
    assert (again.start.source, again.cost.evaluations) == ("exact", 1)
