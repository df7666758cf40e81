"""The neutrality check: a correct engine passes, and each broken one is caught for its fault."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from gamwarm import ConstrainedWarmStart, FitFailed, InvalidInput, InvalidType
from gamwarm.testing import NotNeutral, Tolerances, Verdict, assert_neutral, check_neutrality, corruptions_of
from gamwarm.testing.driver import problem_of
from tests.support import engines


def checks_found(driver, **options):
    return {finding.check for finding in check_neutrality(driver, **options).findings}


def test_an_honest_engine_passes_and_every_phase_was_run():
    report = assert_neutral(engines.Ridge())

    assert report.ok
    phases = {run.phase for run in report.runs}
    assert phases == {"cold", "prime", "warm", "exact", "wrong record", "corrupted", "frozen", "shuffled"}
    assert {run.source for run in report.runs if run.phase in ("warm", "corrupted", "frozen")} == {"transfer"}
    assert {run.source for run in report.runs if run.phase == "exact"} == {"exact"}
    assert len({run.label for run in report.runs if run.phase == "corrupted"}) >= 15
    assert report.formations("exact") == 1.0
    assert report.formations("warm") < report.formations("cold")
    assert "tests.ridge 1: neutral" in str(report)


@pytest.mark.parametrize(
    ("broken", "caught"),
    [
        (engines.TrustingObjective, {"stored-numbers"}),
        (engines.StartIsAnswer, {"answer"}),
        (engines.Blind, {"answer"}),
        (engines.LyingFlags, {"flags"}),
        (engines.Drifting, {"exact", "drift"}),
        (engines.RepeatingWork, {"exact"}),
        (engines.UsedNothing, {"used"}),
        (engines.Claiming, {"objective"}),
        (engines.Raising, {"raised"}),
        (engines.IgnoringStore, {"vacuous"}),
    ],
)
def test_a_broken_engine_is_caught(broken, caught):
    assert caught <= checks_found(broken())


def test_without_an_objective_to_evaluate_a_worse_answer_is_no_other_mode():
    report = check_neutrality(_Hidden(engines.StartIsAnswer()))

    assert any("no objective(case, rho)" in finding.message for finding in report.findings)
    assert report.modes == []


class _Hidden:
    """A driver that passes on all but ``objective``."""

    def __init__(self, inner):
        self.inner = inner
        self.cases = inner.cases

    def problem(self, case):
        return self.inner.problem(case)

    def fit(self, case, store):
        return self.inner.fit(case, store)


class _Undescribed:
    """A driver that lets its fit describe itself, and evaluates its objective at a whole answer."""

    def __init__(self, inner):
        self.inner = inner
        self.cases = inner.cases

    def fit(self, case, store):
        return self.inner.fit(case, store)

    def objective(self, case, result):
        assert [len(beta) for beta in result.block_beta] == list(self.inner.widths)
        return self.inner.objective(case, result.rho)


def test_the_kit_takes_the_problem_from_the_fit_and_an_objective_of_a_result_and_tells_of_its_progress():
    told = []

    report = check_neutrality(_Undescribed(engines.Claiming()), progress=told.append, corrupted_cases=0)

    assert problem_of(_Undescribed(engines.Ridge()), 1).key == engines.Ridge().problem(1).key
    assert {finding.check for finding in report.findings} == {"objective"}
    assert len(told) > len(report.runs) / 2
    assert told[0].startswith("tests.ridge 1: cold, ")
    assert all("findings so far" in line for line in told[1:])


def test_a_fit_that_asks_its_store_for_nothing_must_be_described():
    with pytest.raises(InvalidInput, match=r"has no problem\(case\), and its fit asked its store for no start"):
        check_neutrality(_Undescribed(engines.IgnoringStore()))


def test_progress_is_a_line_a_phase_on_standard_error(capsys):
    check_neutrality(engines.Ridge(), corrupted_cases=0)

    lines = capsys.readouterr().err.splitlines()
    phases = [line.partition(",")[0].partition(": ")[2] for line in lines]
    assert list(dict.fromkeys(phases)) == ["cold", "prime", "warm", "exact", "wrong record", "frozen", "shuffled"]


def test_a_cold_fit_that_opens_a_store_fails_the_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FitFailed, match="must not use one"):
        check_neutrality(engines.HiddenStore())


def test_the_error_is_an_assertion_that_lists_its_findings_and_survives_pickling():
    with pytest.raises(AssertionError) as caught:
        assert_neutral(engines.LyingFlags())

    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, NotNeutral)
    assert again.code == "not-neutral"
    assert again.details["findings"][0].startswith("[flags] cold, case 0: coordinate 0 is claimed to be on a plateau")


def test_tolerances_decide_what_has_moved():
    strict = check_neutrality(engines.Ridge(), tolerances=Tolerances(objective=0.0, fitted=0.0), corrupted_cases=0)

    assert {finding.check for finding in strict.findings} <= {"answer", "objective"}
    assert strict.findings


def test_a_driver_that_lacks_something_is_reported_what():
    with pytest.raises(InvalidType, match="has no 'cases'"):
        check_neutrality(object())
    with pytest.raises(InvalidInput, match="at least one relative"):
        check_neutrality(_OneCase(engines.Ridge()))


class _OneCase(_Hidden):
    def __init__(self, inner):
        self.inner, self.cases = inner, inner.cases[:1]


@pytest.mark.long
def test_the_same_seed_gives_the_same_report():
    first, second = (check_neutrality(engines.Ridge(), seed=3) for _ in range(2))

    assert [(run.phase, run.label, run.gap) for run in first.runs] == [
        (run.phase, run.label, run.gap) for run in second.runs
    ]


def test_the_objective_of_the_small_engine_has_the_derivatives_that_it_claims():
    engine, rho = engines.Ridge(), np.array([0.3, -0.4])
    _, gradient, hessian, _, _ = engine.solve(0, rho, np.zeros(9))
    h = 1e-5

    for j in range(2):
        step = h * np.eye(2)[j]
        above, below = engine.solve(0, rho + step, np.zeros(9)), engine.solve(0, rho - step, np.zeros(9))
        assert (above[0] - below[0]) / (2 * h) == pytest.approx(gradient[j], abs=1e-6)
        assert (above[1] - below[1]) / (2 * h) == pytest.approx(hessian[j], abs=1e-6)


def test_a_better_answer_is_reported_and_not_failed():
    report = check_neutrality(engines.Claiming(), corrupted_cases=0)

    assert {run.verdict for run in report.runs if run.phase == "warm"} == {Verdict.BETTER}
    assert "answer" not in {finding.check for finding in report.findings}


def test_swapped_ties_are_another_coordinates_value_and_each_others_coefficients():
    rng = np.random.default_rng(0)
    start = ConstrainedWarmStart(np.array([1.0, 5.0]), [np.zeros(1), np.ones(2), np.full(2, 2.0), np.full(3, 3.0)])

    named = {c.name: c for c in corruptions_of(2, 15.0, rng, slots=[(), (0,), (0,), (1,)])}
    swapped = named["ties swapped"].apply(start)

    assert swapped.rho.tolist() == [5.0, 5.0]
    assert [b.tolist() for b in swapped.block_beta] == [[0.0], [2.0, 2.0], [1.0, 1.0], [3.0, 3.0, 3.0]]
    assert "ties swapped" not in {c.name for c in corruptions_of(2, 15.0, rng, slots=[(), (0,), (1,)])}
