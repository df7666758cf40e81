"""The reference engine under the neutrality check that is shipped for everybody's engine."""

from __future__ import annotations

import numpy as np
import pytest

import gamwarm.fitting.search
import gamwarm.transfer.guard
from gamwarm.engine import fit
from gamwarm.engine.arrays import Counters
from gamwarm.testing import Tolerances, assert_neutral, check_neutrality
from gamwarm.testing.judge import Judge
from tests.support import models
from tests.support.reference_driver import Motorcycle, ReferenceDriver, Seeded, Several, Shaped


@pytest.mark.parametrize("family", [*models.MODELS, "Gaussian"])
def test_no_start_moves_an_answer_of_the_reference_engine(family):
    report = assert_neutral(ReferenceDriver(models.MODELS.get(family, family)))

    assert report.evaluations("exact") == 1.0
    assert report.formations("exact") <= 1.0
    assert report.evaluations("frozen") + report.formations("frozen") < (
        report.evaluations("cold") + report.formations("cold")
    )
    assert report.modes == []


@pytest.mark.parametrize("name", ["interaction", "tied"])
def test_no_start_moves_an_answer_of_a_model_with_several_penalties(name):
    report = assert_neutral(Several(name))

    assert report.evaluations("exact") == 1.0
    assert report.modes == []


@pytest.mark.parametrize("family", ["Gaussian", "poisson"])
def test_no_start_moves_an_answer_with_active_constraints(family):
    report = assert_neutral(Shaped(family), corrupted_cases=1)

    assert any("active sets" in run.label for run in report.runs)
    assert report.evaluations("exact") == 1.0
    assert report.modes == []


@pytest.mark.parametrize("rho", [(0.0, 0.0, 0.0), (-14.0, 13.0, 0.5), (20.0, -20.0, 1.0)])
def test_the_judge_knows_how_many_degrees_of_freedom_overlapping_penalties_can_have(rho):
    driver = Several("surface")
    judge = Judge(driver, "", None, Tolerances())

    expected = driver.cut("").objective(Counters()).penalties.at(np.array(rho)).log_det_gradient

    np.testing.assert_allclose(judge.max_edf(rho), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("family", ["poisson", "Gaussian", "gaussian", "binomial"])
@pytest.mark.parametrize("name", models.PENALTIES)
def test_no_start_moves_an_answer_with_several_penalties_of_any_family(name, family):
    report = assert_neutral(Several(name, family))

    assert report.evaluations("exact") == 1.0


@pytest.mark.long
@pytest.mark.parametrize("family", ["binomial", "overdispersed", "skewed", "gaussian"])
def test_no_start_moves_an_answer_with_active_constraints_of_any_family(family):
    assert_neutral(Shaped(family))


def test_no_start_with_group_seeds_moves_an_answer():
    report = assert_neutral(Seeded("binomial"))

    assert report.formations("frozen") < report.formations("cold")


@pytest.mark.long
def test_no_start_moves_an_answer_on_the_motorcycle_data():
    report = assert_neutral(Motorcycle(), corrupted_cases=2)

    assert report.formations("exact") == 1.0
    assert report.formations("warm") < report.formations("cold") / 2


def test_a_fit_says_in_lines_what_it_began_with_and_what_that_saved(tmp_path):
    driver = ReferenceDriver("poisson")
    with gamwarm.open(tmp_path / "fits.h5") as store:
        full = fit(driver.cut(""), options=models.TIGHT, store=store).summary().splitlines()
        fold = fit(driver.cut("g03"), options=models.TIGHT, store=store).summary().splitlines()

    assert full[0].split()[0] == fold[0].split()[0] == "term"
    full, fold = (lines[lines.index("") + 1 :] for lines in (full, fold))
    assert full[0].startswith("cold start: no exact record")
    assert full[1].startswith("  this fit: ")
    assert fold[0].startswith("transfer start from ")
    assert [line for line in fold if line.startswith("  mean:s(x): rho copied; beta projected")]
    assert [line for line in fold if line.startswith("  guard: continued from the offered start")]
    assert [line for line in fold if line.startswith("  saved against the fit it started from: ")]
    assert fit(driver.cut(""), options=models.TIGHT).summary().splitlines()[-2] == "no store"


@pytest.mark.long
def test_without_its_guard_the_reference_engine_is_caught(monkeypatch):
    # The cold fits run in another process, with the guard.
    def never(rho, edf, gradient):
        return np.zeros(len(rho), dtype=bool)

    for module in (gamwarm.transfer.guard, gamwarm.fitting.search):
        monkeypatch.setattr(module, "false_plateaus", never)
    monkeypatch.setattr(gamwarm.transfer.guard, "predicted_step", lambda gradient, metric: 0.0)

    report = check_neutrality(Motorcycle())

    moved = [finding for finding in report.findings if finding.check == "answer"]
    assert any("rho at the upper bound" in finding.where for finding in moved)
