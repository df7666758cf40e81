"""From a result to stored entries, and back: the next fit gets what this one learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamwarm.errors import InvalidInput
from gamwarm.problem import BasisMeta, Gauge
from gamwarm.records import BlockRecord, Cost, Curvature, FitResult, GroupSeeds, Lineage
from gamwarm.transfer import (
    TransferPolicy,
    build_warm_start,
    capture_artifact,
    capture_record,
    check_result,
    restore,
    term_contexts,
)
from tests.support.entries import KEY, inner
from tests.support.problems import block, fit_problem, smooth


def result_of(problem, seed=0, **changes):
    rng = np.random.default_rng(seed)
    q = problem.layout.n_outer
    whole = {
        "rho": rng.uniform(-5, 5, q),
        "block_beta": [rng.normal(size=w) for w in problem.block_dims],
        "objective": 12.5,
        "converged": True,
        "curvature": Curvature(np.zeros(q), np.eye(q), np.ones(q), np.zeros(q, dtype=bool), np.ones(q, dtype=bool)),
        "cost": Cost(evaluations=3),
    }
    return FitResult(**whole | changes)


def problem_of(seed=0, coupled=False):
    """Two tied blocks under an affine gauge of random slabs."""
    rng = np.random.default_rng(seed)
    specs = [
        block("mean", 4, penalties=[smooth(4, "tie"), smooth(4)], basis=BasisMeta("bspline", degree=3)),
        block("scale", 3, penalties=[smooth(3, fixed=1.0), smooth(3), smooth(3, "tie")]),
    ]
    slabs = [np.linalg.qr(rng.normal(size=(w + 2, w)))[0] for w in (4, 3)]
    gauge = Gauge.from_blocks(slabs, rng.normal(size=11))
    if coupled:
        lift = np.array(gauge.lift)
        lift[0, 5] = lift[8, 1] = 0.5
        gauge = Gauge(lift, gauge.raw_starts, gauge.reduced_starts, gauge.shift)
    return fit_problem(specs, gauge)


def started(problem, artifact, **policy):
    return build_warm_start(
        problem.descriptor,
        term_contexts(problem),
        problem.layout.initial_rho,
        artifact,
        TransferPolicy(**policy),
        problem.gauge,
    )


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_fit_captured_and_built_again_starts_at_its_own_answer(seed, coupled):
    problem = problem_of(seed, coupled)
    result = result_of(problem, seed)
    artifact, reason = capture_artifact(problem, KEY, result)
    assert artifact is not None, reason

    start = started(problem, artifact)

    np.testing.assert_array_equal(start.rho, result.rho)
    for beta, theta in zip(start.block_beta, result.block_beta, strict=True):
        np.testing.assert_allclose(beta, theta, atol=1e-6)
    assert start.provenance == ("projected", "projected")
    np.testing.assert_array_equal(start.curvature.hessian, result.curvature.hessian)


def test_a_fit_without_a_gauge_is_captured_unchanged():
    problem = fit_problem([block("mean", 4), block("scale", 3)])
    result = result_of(problem)
    artifact, _ = capture_artifact(problem, KEY, result)

    start = started(problem, artifact)
    for term, beta, theta in zip(artifact.terms, start.block_beta, result.block_beta, strict=True):
        np.testing.assert_array_equal(term.raw_beta, theta)
        np.testing.assert_allclose(beta, theta, atol=1e-6)


def test_an_artifact_holds_every_term_in_raw_coordinates():
    problem = problem_of()
    flags = np.array([False, True, False])
    curvature = Curvature(np.array([0.0, -1.0, 0.0]), np.eye(3), np.ones(3), flags, np.ones(3, dtype=bool))
    result = result_of(problem, rho=[1.0, 8.0, 3.0], curvature=curvature)

    artifact, reason = capture_artifact(problem, KEY, result, Lineage("cold"))

    assert reason == ""
    assert artifact.is_usable
    assert artifact.descriptor == problem.descriptor
    assert artifact.structural_key == problem.structural_key
    assert artifact.fit_key == KEY
    assert artifact.summary.outer_objective == 12.5
    assert artifact.summary.n_rows == 20
    assert (artifact.producer.engine, artifact.cost.evaluations) == ("reference", 3)
    computed = np.array([True, False, True])  # whatever the engine claimed
    assert artifact.curvature == replace(curvature, settled=computed)
    assert [t.settled.tolist() for t in artifact.terms] == [[True, False], [True, True]]
    mean, scale = artifact.terms
    assert (mean.name, mean.role, mean.reduced_width, len(mean.raw_beta)) == ("mean", "mean", 4, 6)
    assert (scale.name, scale.role, scale.reduced_width, len(scale.raw_beta)) == ("scale", "log-slope", 3, 5)
    assert mean.basis_meta == BasisMeta("bspline", degree=3)
    assert (mean.rho_for_term.tolist(), mean.rho_slots) == ([1.0, 8.0], (0, 1))
    assert (scale.rho_for_term.tolist(), scale.rho_slots) == ([3.0, 1.0], (2, 0))
    assert mean.plateau.tolist() == [False, True]
    assert scale.plateau.tolist() == [False, False]
    for term, raw in zip(artifact.terms, problem.gauge.lift_blocks(result.block_beta), strict=True):
        np.testing.assert_array_equal(term.raw_beta, raw)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"converged": False}, "only converged fits"),
        ({"objective": None}, "objective is None"),
        ({"objective": np.nan}, "objective is nan"),
        ({"rho": [1.0, np.nan, 0.0]}, "rho"),
        ({"block_beta": [np.ones(4), [1.0, np.inf, 0.0]]}, "'scale' has a non-finite"),
        ({"curvature": Curvature(gradient=[0.0, np.nan, 0.0])}, "gradient holds a non-finite"),
    ],
)
def test_a_result_that_is_no_answer_or_not_finite_is_not_captured(changes, said):
    problem = problem_of()

    artifact, reason = capture_artifact(problem, KEY, result_of(problem, **changes))

    assert artifact is None
    assert said in reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rho": [1.0]}, "rho has 1 numbers; the fit has 3 outer coordinates"),
        ({"rho": []}, "rho has 0 numbers"),
        ({"block_beta": [np.ones(4)]}, "block_beta has 1 vectors; the fit has 2 blocks"),
        ({"block_beta": []}, "block_beta has 0 vectors"),
        ({"block_beta": [np.ones(4), np.ones(4)]}, "block_beta of 'scale' has 4 numbers; the block's width is 3"),
        ({"active_sets": [None]}, "active_sets has 1 entries; the fit has 2 blocks"),
        ({"curvature": Curvature(gradient=[0.0])}, "curvature gradient has length 1"),
        ({"curvature": Curvature(hessian=np.eye(2))}, "curvature hessian has length 2"),
        ({"curvature": Curvature(edf=np.ones(4))}, "curvature edf has length 4"),
        ({"curvature": Curvature(plateau=[True])}, "curvature plateau has length 1"),
        ({"seeds": GroupSeeds("g", ["a"], np.zeros((1, 2)), np.zeros((1, 7)))}, r"seeds rho has shape \(1, 2\)"),
        ({"seeds": GroupSeeds("g", ["a"], np.zeros((1, 3)), np.zeros((1, 8)))}, r"seeds beta has shape \(1, 8\)"),
    ],
)
@pytest.mark.parametrize("converged", [True, False])
def test_a_result_in_another_shape_than_its_fit_is_an_engines_bug(changes, said, converged):
    problem = problem_of()

    with pytest.raises(InvalidInput, match=said):
        check_result(problem, result_of(problem, **{"converged": converged, **changes}))


def test_a_lift_that_overflows_is_not_captured():
    problem = fit_problem([block("mean", 1)], Gauge.from_blocks([[[1e300]]]))

    with np.errstate(over="ignore"):
        artifact, reason = capture_artifact(problem, KEY, result_of(problem, block_beta=[[1e300]]))

    assert artifact is None
    assert "'mean': raw_beta holds a non-finite" in reason


def random_effect(levels, kept, seed=3):
    """A random-effect block whose fold keeps some of its levels."""
    lift = np.eye(levels)[:, kept]
    return fit_problem([block("re(subject)", len(kept)), block("mean", 3)], Gauge.from_blocks([lift, np.eye(3)]))


def test_a_parent_of_37_columns_starts_a_child_of_35_whose_strict_key_is_another():
    parent = random_effect(37, list(range(37)))
    kept = [level for level in range(37) if level not in (5, 20)]
    child = random_effect(37, kept)
    result = result_of(parent)
    artifact, _ = capture_artifact(parent, KEY, result)
    assert child.descriptor.key != parent.descriptor.key
    assert child.structural_key == parent.structural_key

    start = started(child, artifact)

    np.testing.assert_array_equal(start.rho, result.rho)
    np.testing.assert_allclose(start.block_beta[0], result.block_beta[0][kept], rtol=1e-6)
    np.testing.assert_allclose(start.block_beta[1], result.block_beta[1], rtol=1e-6)
    assert start.provenance == ("projected", "projected")
    assert start.terms[0].residual > 0.0


def test_a_child_that_lost_too_many_columns_keeps_rho_only():
    parent = random_effect(37, list(range(37)))
    child = random_effect(37, list(range(27)))
    artifact, _ = capture_artifact(parent, KEY, result_of(parent))

    start = started(child, artifact)

    assert start.provenance == ("rho-only", "projected")
    assert started(child, artifact, max_width_gap=0.3).provenance == ("projected", "projected")


def test_a_stated_raw_width_without_a_gauge_transfers_rho_only():
    parent, child = (fit_problem([block("f", w, raw_width=38)]) for w in (37, 35))
    artifact, _ = capture_artifact(parent, KEY, result_of(parent))

    assert started(child, artifact).provenance == ("rho-only",)


def test_terms_know_their_slots_and_slabs():
    problem = problem_of()
    mean, scale = term_contexts(problem)

    assert (mean.rho_slots, scale.rho_slots) == ((0, 1), (2, 0))
    assert (mean.reduced_width, scale.reduced_width) == (4, 3)
    np.testing.assert_array_equal(mean.gauge_block, problem.gauge.block(0))
    np.testing.assert_array_equal(scale.gauge_shift, problem.gauge.block_shift(1))
    assert (mean.identity, mean.structural_identity) == (
        problem.strict_identities[0],
        problem.structural_identities[0],
    )


def test_a_converged_result_becomes_a_final_and_another_a_checkpoint():
    problem = fit_problem([block("mean", 4)], rho_bound=12.0)
    result = result_of(problem, inner=inner(), active_sets=[[3, 1]], iteration=4)

    final = capture_record(problem, problem.key, result, Lineage("cold"))
    checkpoint = capture_record(problem, problem.key, result_of(problem, converged=False))

    assert (final.kind, final.converged, final.rho_bound, final.iteration) == ("final", True, 12.0, 4)
    assert (checkpoint.kind, checkpoint.converged) == ("checkpoint", False)
    assert final.active_sets == ((1, 3),)
    assert final.lineage == Lineage("cold")
    assert (final.n_rows, final.block_names, final.block_dims) == (20, ("mean",), (4,))


def test_every_field_of_a_result_reaches_the_record_or_is_known_to_go_elsewhere():
    problem = problem_of()
    given = result_of(problem, active_sets=[[0], [1]], inner=inner(), iteration=7, attributes={"fold": 3})
    elsewhere = {"converged", "start_used", "seeds"}  # the kind, the lineage, the artifact
    defaults = {name: field.default for name, field in FitResult.__dataclass_fields__.items()}

    record = capture_record(problem, KEY, given)

    for name in set(defaults) - elsewhere:
        assert repr(getattr(given, name)) != repr(defaults[name]), f"give {name} another value than its default"
        if name != "curvature":  # `keep` sets its settled flags
            np.testing.assert_equal(getattr(record, name), getattr(given, name), err_msg=name)
    assert record.curvature.hessian.tolist() == given.curvature.hessian.tolist()


def test_a_captured_record_is_the_one_that_the_constructor_makes():
    problem = problem_of()
    for result in (
        result_of(problem, active_sets=[[0], [1]], inner=inner(), iteration=7, attributes={"fold": 3}),
        result_of(problem, converged=False),
    ):
        record = capture_record(problem, KEY, result)
        made = BlockRecord(**vars(record))

        assert made == record
        assert {name: type(value) for name, value in vars(made).items()} == {
            name: type(value) for name, value in vars(record).items()
        }
        assert record.attributes is not result.attributes


def test_a_record_restores_the_answer_it_was_made_of_to_the_bit():
    problem = fit_problem([block("mean", 4), block("scale", 3)])
    result = result_of(problem, inner=inner())
    kept = capture_record(problem, problem.key, result)

    start = restore(kept)

    np.testing.assert_array_equal(start.rho, result.rho)
    for beta, theta in zip(start.block_beta, result.block_beta, strict=True):
        np.testing.assert_array_equal(beta, theta)
    assert start.cached_inner == result.inner
    assert start.curvature == result.curvature
