"""What an answer is: each part of the certificate by itself, and what a search makes of a point
that fails it.
"""

from __future__ import annotations

import numpy as np
import pytest

import gamwarm
from gamwarm.fitting import Certificate, Evaluation, Refusal
from tests.support.ridge_engine import Ridge, describe, terms_and_response

TERMS, Y = terms_and_response()
PROBLEM = describe(TERMS, Y)


def judged(probe=None, **changes):
    """The verdict on a point that is an answer, but for ``changes``."""
    parts = {
        "rho": np.array([1.0, 2.0]),
        "theta": np.zeros(10),
        "value": 5.0,
        "gradient": np.zeros(2),
        "edf": np.array([3.0, 2.0]),
        "max_edf": np.array([6.0, 4.0]),
        "converged": True,
        "last_step": 0.0,
    }
    return Certificate(PROBLEM, probe or (lambda rho, near: pytest.fail("no probe"))).verdict(
        Evaluation(**parts | changes)
    )


def test_a_flat_finite_proper_minimum_is_an_answer():
    assert judged().holds


@pytest.mark.parametrize(
    ("changes", "refusal", "words"),
    [
        ({"converged": False, "cycles": 7}, Refusal.INNER, "within 7 cycles"),
        ({"gradient": np.array([0.0, 1.1e-5])}, Refusal.GRADIENT, "'s(age)'"),
        ({"rho": np.array([7.0, 0.0]), "edf": np.array([0.9, 2.0]), "gradient": np.array([2e-9, 0.0])},
         Refusal.PLATEAU, "s(time)"),
        ({"value": np.inf, "failure": "singular in s(age)"}, Refusal.MINIMUM, "singular in s(age)"),
        ({"last_step": 0.11, "last_block": "s(age)"}, Refusal.INFINITE, "in term 's(age)'"),
        ({"last_step": lambda: np.nan, "last_block": lambda: "s(age)"}, Refusal.INFINITE, "in term 's(age)'"),
        ({"last_step": 1.0, "theta": np.r_[np.zeros(6), 30.0, np.zeros(3)]}, Refusal.INFINITE, "in term 's(age)'"),
    ],
)  # fmt: skip
def test_a_point_that_fails_one_part_is_no_answer_and_the_reason_names_the_term(changes, refusal, words):
    verdict = judged(**changes)

    assert verdict.refusal is refusal
    assert words in verdict.reason


@pytest.mark.parametrize("last_step", [0.1, 0.0999, 1e-9, None])
def test_a_last_step_of_a_tenth_is_finite_enough(last_step):
    assert judged(last_step=last_step).holds


@pytest.mark.parametrize(("rho", "gradient", "holds"), [(15.0, -1.0, True), (15.0, 1.0, False), (-15.0, 1.0, True)])
def test_a_gradient_that_pushes_against_the_bound_does_not_count(rho, gradient, holds):
    assert judged(rho=np.array([rho, 0.0]), gradient=np.array([gradient, 0.0])).holds is holds


@pytest.mark.parametrize(("slope", "holds"), [(1e-3, False), (-1e-3, True)])
def test_where_the_sign_of_the_gradient_is_lost_a_probe_decides(slope, holds):
    problem = describe(TERMS, Y, rho_bound=60.0)
    asked = []

    def probe(rho, near):
        asked.append(rho.tolist())
        return Evaluation(rho, near.theta, 1.0, np.array([slope, 0.0]))

    at = Evaluation(np.array([40.0, 0.0]), np.zeros(10), 1.0, np.zeros(2), edf=np.zeros(2), converged=True)

    assert Certificate(problem, probe).verdict(at).holds is holds
    assert asked == [[12.0, 0.0]]


@pytest.mark.parametrize("edf", [[-0.2, 2.0], [3.0, 4.2], [np.nan, 2.0]])
def test_an_evaluation_with_edf_out_of_range_is_not_finite_so_that_no_search_follows_it(edf):
    """The objective falls without end where rho[0] is below 0, with edf that no proper
    minimum has.
    """
    objective = Ridge(
        TERMS, Y, edf=lambda rho: np.array(edf) if rho[0] < 0.0 else np.array([3.0, 2.0]),
        value=lambda rho: 100.0 * rho[0] if rho[0] < 0.0 else rho @ rho,
        gradient=lambda rho: np.array([100.0, 0.0]) if rho[0] < 0.0 else 2.0 * rho + np.array([0.1, 0.0]),
    )  # fmt: skip

    found = gamwarm.fit(PROBLEM, objective)

    assert not found.converged
    assert found.result.rho[0] >= 0.0


def test_without_an_answer_anywhere_the_fit_fails_with_the_reason():
    with pytest.raises(gamwarm.FitFailed, match="effective degrees of freedom of 's"):
        gamwarm.fit(PROBLEM, Ridge(TERMS, Y, edf=np.array([-1.0, 2.0])))


@pytest.mark.parametrize(
    "lie",
    [{"converged": False}, {"last_step": 0.5}, {"gradient": np.array([1.0, 1.0])}],
    ids=["the inner solve", "a finite optimum", "the gradient"],
)
def test_no_start_converges_where_the_certificate_cannot_hold(tmp_path, lie):
    true = gamwarm.fit(PROBLEM, Ridge(TERMS, Y)).result
    starts = {"cold": None, "its own answer": true}

    for start in starts.values():
        assert not gamwarm.fit(PROBLEM, Ridge(TERMS, Y, **lie), start=start).converged
    with gamwarm.open(tmp_path / "fits.h5") as store:
        store.keep(PROBLEM, true)
        again = gamwarm.fit(PROBLEM, Ridge(TERMS, Y, **lie), store)
    assert again.start.source == "exact"
    assert not again.converged
