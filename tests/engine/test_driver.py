"""Whole fits: where they begin never changes where they end, and a store makes them begin well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import BlockwiseFitOptions, ConstrainedWarmStart, InvalidInput, InvalidType
from gamwarm.engine import Binomial, Intercept, Poisson, RandomEffect, Smooth, bind, fit
from gamwarm.transfer import guard
from tests.support.models import FAMILIES, USUAL, columns, mcycle, model

COLD = ("heuristic", "zero", "fellner-schall", "best")


def same_bits(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.result.block_beta, b.result.block_beta, strict=True))


@pytest.fixture(scope="module")
def parent():
    return fit(mcycle().case(), options=USUAL, outer_hessian=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cold_start_ends_at_the_same_certified_optimum(family):
    case = model(family).case()
    fits = [fit(case, options=USUAL, cold_start=method) for method in COLD]

    assert all(f.converged for f in fits)
    assert max(f.result.objective for f in fits) - min(f.result.objective for f in fits) < 1e-3
    for f in fits:
        c = f.result.curvature
        inside = np.abs(f.result.rho) < USUAL.rho_bound
        assert np.abs(c.gradient[inside]).max() < 1e-3
        assert not guard.false_plateaus(f.result.rho, c.edf, c.gradient).any()


@pytest.mark.parametrize("constant", [-50.0, 14.0, 800.0])
@pytest.mark.parametrize("kind", [Poisson, Binomial])
def test_an_offset_that_is_the_same_for_all_rows_changes_nothing_but_the_intercept(kind, constant):
    rng = np.random.default_rng(2)
    x, g = rng.uniform(0, 1, 150), rng.integers(0, 6, 150)
    y = (rng.random(150) < 0.5 + 0.4 * np.sin(6 * x)).astype(float)
    terms = [Intercept(), Smooth("x", k=8), RandomEffect("g")]

    def fitted(offset):
        data = {"x": x, "g": g, "y": y, "o": np.full(150, offset)}
        return fit(bind(data, terms, kind("y", offset="o")).case())

    plain, moved = fitted(0.0), fitted(constant)

    assert plain.converged
    assert moved.converged
    assert moved.result.objective == pytest.approx(plain.result.objective, rel=1e-9)
    assert moved.result.rho == pytest.approx(plain.result.rho, abs=1e-3)
    for ours, theirs in zip(moved.result.block_beta[1:], plain.result.block_beta[1:], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_offsets_that_leave_no_information_are_refused():
    data = {"g": np.arange(60) % 6, "y": np.arange(60) % 2 * 1.0, "o": np.where(np.arange(60) < 30, -800.0, 800.0)}

    with pytest.raises(InvalidInput, match=r"information on predictor 'mean' is 0, .* huge offsets"):
        bind(data, [Intercept(), RandomEffect("g")], Binomial("y", offset="o"))


def test_an_option_changes_how_far_a_search_may_go():
    done = fit(mcycle().case(), options=BlockwiseFitOptions(outer_max_iter=0), cold_start="heuristic")

    assert not done.converged
    assert "outer_max_iter" in done.reason


def test_a_result_restores_itself_bit_for_bit_in_one_evaluation(parent):
    again = fit(mcycle().case(), options=USUAL, start=parent.result)

    assert again.cost.evaluations == 1
    assert again.cost.outer_iterations == 0
    assert again.cost.hessian_formations == 1
    assert same_bits(again, parent)
    assert again.result.objective == parent.result.objective
    assert np.array_equal(again.result.curvature.hessian, parent.result.curvature.hessian)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rho, beta: (np.full_like(rho, 14.0), beta),
        lambda rho, beta: (rho[::-1], beta),
        lambda rho, beta: (rho + np.array([6.0, 0.0]), beta),
        lambda rho, beta: (rho - np.array([6.0, 0.0]), beta),
        lambda rho, beta: (rho, [-b for b in beta]),
        lambda rho, beta: (rho, [5.0 * b for b in beta]),
        lambda rho, beta: (rho, [np.full_like(b, np.nan) for b in beta]),
        lambda rho, beta: (np.full_like(rho, np.nan), beta),
        lambda rho, beta: (np.full_like(rho, 14.0), [np.zeros_like(b) for b in beta]),
    ],
    ids=["all 14", "permuted", "+6", "-6", "negated", "x5", "nan beta", "nan rho", "all 14, zero beta"],
)
@pytest.mark.parametrize("metric", [True, False])
def test_a_corrupted_start_costs_time_and_not_the_answer(parent, spoil, metric):
    rho, beta = spoil(np.array(parent.result.rho), [np.array(b) for b in parent.result.block_beta])
    start = ConstrainedWarmStart(rho, beta, curvature=parent.result.curvature if metric else None)

    done = fit(mcycle().case(), options=USUAL, start=start)

    assert done.converged
    assert done.result.objective < parent.result.objective + 1e-3


def test_the_guard_says_what_it_did(parent):
    beta = [-b for b in parent.result.block_beta]
    flipped = fit(mcycle().case(), options=USUAL, start=ConstrainedWarmStart(parent.result.rho, beta))
    smooth = ConstrainedWarmStart(np.full(2, 14.0), parent.result.block_beta, curvature=parent.result.curvature)
    plateau = fit(mcycle().case(), options=USUAL, start=smooth)

    assert flipped.guard.beta_used is False
    assert plateau.guard.resets
    assert all(rho == 14.0 for _, rho in plateau.guard.resets)


def test_a_start_of_other_widths_is_refused(parent):
    with pytest.raises(InvalidInput, match="widths"):
        fit(mcycle().case(), options=USUAL, start=replace(parent.result, block_beta=parent.result.block_beta[:1]))


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_resume_through_a_file_takes_one_evaluation_and_no_iteration(family, tmp_path):
    case = model(family).case()
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        first = fit(case, options=USUAL, store=store)
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        second = fit(case, options=USUAL, store=store)
        entries = len(store)

    assert first.converged
    assert first.start.source == "cold"
    assert first.kept.record.written
    assert first.kept.artifact.written
    assert second.start.source == "exact"
    assert (second.cost.evaluations, second.cost.outer_iterations, second.cost.hessian_formations) == (1, 0, 1)
    assert same_bits(first, second)
    assert second.result.objective == first.result.objective
    assert second.kept.record.entry_id == first.kept.record.entry_id
    assert second.kept.artifact.entry_id == first.kept.artifact.entry_id
    assert entries == 2


def test_a_fold_two_levels_narrower_than_its_parent_still_transfers_and_needs_less_than_cold(tmp_path):
    data = columns(1500, groups=37)
    terms = [Intercept(), Smooth("x", 12), RandomEffect("group")]
    bound = model("poisson", data, terms)
    fold = bound.case(~np.isin(data["group"], ["g05", "g06"]))
    assert (bound.case().widths[-1], fold.widths[-1]) == (37, 35)
    cold = min(
        (fit(fold, options=USUAL, cold_start=method) for method in COLD), key=lambda f: f.cost.hessian_formations
    )
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        entry = fit(bound.case(), options=USUAL, store=store).kept.artifact.entry_id

        warm = fit(fold, options=USUAL, store=store, parent=entry)

    problem = fold.problem(USUAL)
    assert problem.descriptor.key != bound.case().problem(USUAL).descriptor.key
    assert problem.structural_key == bound.case().problem(USUAL).structural_key
    assert warm.start.source == "transfer"
    assert warm.start.parent == entry
    assert warm.result.start_used is True
    assert warm.cost.evaluations < cold.cost.evaluations
    assert 2.5 * warm.cost.hessian_formations <= cold.cost.hessian_formations
    assert abs(warm.result.objective - cold.result.objective) < 1e-3
    assert np.abs(warm.mu - cold.mu).max() < 1e-3 * np.std(cold.mu)


def test_a_parent_carries_its_exact_outer_hessian_and_a_child_starts_with_it(tmp_path):
    data = columns()
    bound = model("gaussian", data)
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        whole = fit(bound.case(), options=USUAL, store=store)
        fold = fit(bound.case(data["group"] != "g00"), options=USUAL, store=store)
        again = fit(bound.case(data["group"] != "g00"), options=USUAL, store=store)

    assert again.start.source == "exact"
    assert again.cost.hessian_formations == 1
    assert whole.result.curvature.hessian is not None
    assert np.array_equal(fold.start.curvature.hessian, whole.result.curvature.hessian)
    assert fold.cost.hessian_formations < whole.cost.hessian_formations / 2


def test_a_wrong_stored_objective_is_reported_and_changes_nothing(tmp_path):
    case = mcycle().case()
    honest = fit(case, options=USUAL)
    problem = case.problem(USUAL)
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        with store.fit(problem) as handle:
            handle.keep(replace(honest.result, objective=honest.result.objective + 1.0))

        again = fit(case, options=USUAL, store=store)

    assert again.start.source == "exact"
    assert again.result.objective == honest.result.objective
    assert any("stored objective" in note for note in again.notes)


def test_a_fit_without_a_store_keeps_nothing_and_a_parent_needs_a_store():
    done = fit(mcycle().case(), options=USUAL)
    assert done.start is None
    assert done.kept is None

    with pytest.raises(InvalidInput, match="store"):
        fit(mcycle().case(), options=USUAL, parent="0" * 32)
    with pytest.raises(InvalidInput, match="each=True"):
        fit(None, options=USUAL)
    with pytest.raises(InvalidType, match=r"store is str; give what gamwarm.open\(path\) returned"):
        fit(mcycle().case(), options=USUAL, store="fits.h5")


def test_an_answer_at_the_bound_is_flagged_as_a_plateau_and_kept(tmp_path):
    data = columns()
    data["gaussian"] = np.random.default_rng(3).normal(size=400) + data["exposure"]
    bound = model("gaussian", data, [Intercept(), Smooth("x", 10), RandomEffect("group")])
    with gamwarm.open(tmp_path / "s.gamwarm") as store:
        done = fit(bound.case(), store=store, options=BlockwiseFitOptions(outer_tol=1e-3))

    flagged = done.result.curvature.plateau
    assert done.converged
    assert done.kept.record.written, done.kept.record.reason
    assert flagged[np.abs(done.result.rho) >= 9.0].all()


def test_rows_in_another_order_give_the_same_answer():
    bound = model("binomial")
    order = np.random.default_rng(0).permutation(bound.n)
    straight, shuffled = (fit(bound.case(rows), options=USUAL) for rows in (None, order))

    assert straight.result.objective == pytest.approx(shuffled.result.objective, abs=1e-6)
    assert straight.mu[order] == pytest.approx(shuffled.mu, abs=1e-4)


def test_effective_degrees_of_freedom_add_up_to_the_trace_of_the_hat_matrix():
    done = fit(model("poisson").case(), options=USUAL)

    assert set(done.edf) == set(done.names)
    assert done.edf["mean:intercept"] == pytest.approx(1.0)
    assert sum(done.edf.values()) == pytest.approx(
        1 + 1 + 2 + (10 + 1) + 12 - (10 + 12) + done.result.curvature.edf.sum()
    )
