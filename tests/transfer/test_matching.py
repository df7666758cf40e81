"""Which parent may start which child, how terms find each other, and what the start says of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from gamwarm.errors import DescriptorMismatch, InvalidType, ParentUnusable
from gamwarm.identity import FitDescriptor
from gamwarm.problem import BasisMeta, DensePenalty
from gamwarm.records import Curvature, GlobalFitSummary
from gamwarm.transfer import StartReport, TermContext, TransferPolicy, build_warm_start
from tests.support.entries import artifact, hex_of, inner, record, term

SPLINE = BasisMeta("bspline")


def child(number, slots=(0,), structural=True, strict=None):
    return TermContext(
        hex_of(number if strict is None else strict),
        slots,
        4,
        np.eye(4),
        structural_identity=hex_of(1000 + number) if structural else None,
    )


def build(contexts, parent, rho=(0.0,), family="gaussian", **policy):
    descriptor = FitDescriptor(family, [c.identity for c in contexts])
    return build_warm_start(descriptor, contexts, list(rho), parent, TransferPolicy(**{"rho_bound": 10.0} | policy))


def test_the_default_policy_is_the_published_one():
    assert TransferPolicy() == TransferPolicy(require_converged=True, max_width_gap=0.25, rho_bound=15.0, partial=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "gamwarm-artifact-0"}, "schema"),
        ({"summary": GlobalFitSummary(np.nan, True, 20)}, "objective"),
        ({"summary": GlobalFitSummary(np.inf, True, 20)}, "objective"),
        ({"summary": GlobalFitSummary(1.0, False, 20)}, "did not converge"),
        ({"curvature": Curvature(hessian=[[np.nan]])}, "hessian"),
    ],
)
def test_an_unusable_parent_starts_nothing(changes, said):
    with pytest.raises(ParentUnusable, match=said):
        build([child(1)], artifact(**changes))


@pytest.mark.parametrize("changes", [{"raw_beta": [0.0, np.nan, 0.0, 0.0]}, {"rho_for_term": [np.nan]}])
def test_a_parent_with_a_non_finite_payload_starts_nothing(changes):
    with pytest.raises(ParentUnusable, match="non-finite"):
        build([child(1)], artifact(term(1, **changes)))


@pytest.mark.parametrize(
    ("position", "wrong", "said"),
    [
        (0, "gaussian", "descriptor is str; expected FitDescriptor"),
        (1, [3], "term 0 is int; expected TermContext"),
        (1, None, "terms must be a sequence"),
        (3, None, "parent is NoneType; expected FitArtifact"),
        (4, 0.25, "policy is float; expected TransferPolicy"),
        (5, np.eye(4), "gauge is ndarray; expected Gauge or None"),
    ],
)
def test_an_argument_of_another_type_is_refused_by_name(position, wrong, said):
    context = child(1)
    arguments = [FitDescriptor("gaussian", [context.identity]), [context], [0.0], artifact(), TransferPolicy(), None]
    arguments[position] = wrong

    with pytest.raises(InvalidType, match=said):
        build_warm_start(*arguments)


def test_a_parent_that_did_not_converge_may_be_allowed():
    stopped = artifact(summary=GlobalFitSummary(1.0, False, 20))

    assert build([child(1)], stopped, require_converged=False).provenance == ("projected",)


def test_strict_keys_are_enough():
    start = build([child(1, structural=False)], artifact(term(1, structural_identity=None)))

    assert start.provenance == ("projected",)


def test_structural_keys_are_enough_where_strict_ones_differ():
    start = build([child(1, strict=77)], artifact())

    assert start.rho.tolist() == [1.0]
    assert start.provenance == ("projected",)
    assert start.terms[0].identity == hex_of(77)


@pytest.mark.parametrize(
    ("contexts", "parent"),
    [
        ([child(2)], artifact()),
        ([child(1, strict=77, structural=False)], artifact()),
        ([child(1, strict=77)], artifact(term(1, structural_identity=None))),
        ([child(1), child(2)], artifact()),
        ([child(1)], artifact(term(1), term(2))),
        ([child(1, strict=77), child(2, structural=False)], artifact(term(1), term(2))),
    ],
)
def test_fits_of_other_terms_are_refused(contexts, parent):
    with pytest.raises(DescriptorMismatch, match="same family and terms"):
        build(contexts, parent, partial=False)


@pytest.mark.parametrize("partial", [True, False])
def test_fits_of_another_family_are_refused(partial):
    with pytest.raises(DescriptorMismatch, match=r"gaussian, 1 terms.*poisson, 1 terms"):
        build([child(1)], artifact(), family="poisson", partial=partial)


def smooth(number, slot, k, name="s(x)", role="mean", basis=SPLINE):
    """A child's smooth of ``k`` coefficients whose identities hold its width."""
    return TermContext(
        hex_of(100 * number + k), [slot], k, np.eye(k), None, hex_of(10_000 + 100 * number + k), name, role, basis
    )


def fitted(number, k, name="s(x)", role="mean", basis=SPLINE, **changes):
    """The parent's side of `smooth`."""
    whole = {
        "identity": hex_of(100 * number + k),
        "structural_identity": hex_of(10_000 + 100 * number + k),
        "raw_beta": np.arange(float(k)),
        "reduced_width": k,
        "name": name,
        "role": role,
        "basis_meta": basis,
        "rho_slots": [number],
    }
    return term(number, **whole | changes)


def open_spline(k, degree=3):
    return BasisMeta("bspline", degree=degree, num_knots=k + degree + 1, periodic=False)


def values_at(points, basis):
    knots = np.linspace(0.0, 1.0, basis.num_knots - 2 * basis.degree)
    step = knots[1]
    outside = step * np.arange(1, basis.degree + 1)
    return BSpline.design_matrix(points, np.concatenate([-outside[::-1], knots, 1.0 + outside]), basis.degree).toarray()


class TestAParentWithOtherTerms:
    """One of the same family gives what the terms that match have learned."""

    def test_gives_a_fit_with_one_term_more_all_but_that_term(self):
        parent = artifact(fitted(0, 4, rho_for_term=[3.0]))

        start = build([smooth(0, 0, 4), smooth(1, 1, 5, "s(z)")], parent, [0.0, -2.0])

        assert start.rho.tolist() == [3.0, -2.0]
        np.testing.assert_allclose(start.block_beta[0], np.arange(4.0), rtol=1e-6)
        assert start.block_beta[1].tolist() == [0.0] * 5
        assert start.provenance == ("projected", "cold")
        assert [t.matched_by for t in start.terms] == ["strict", None]
        assert start.unmatched == ()
        assert "no term of the parent matches" in start.terms[1].beta_reason

    def test_gives_a_fit_with_one_term_fewer_what_is_left(self):
        parent = artifact(fitted(0, 4, rho_for_term=[3.0]), fitted(1, 5, "s(z)", rho_for_term=[4.0]))

        start = build([smooth(1, 0, 5, "s(z)")], parent)

        assert start.rho.tolist() == [4.0]
        assert start.provenance == ("projected",)
        assert start.unmatched == ("s(x)",)

    def test_gives_the_same_smooth_of_another_width_its_smoothing_parameters_alone(self):
        start = build([smooth(0, 0, 8)], artifact(fitted(0, 5, rho_for_term=[3.0])))

        assert start.rho.tolist() == [3.0]
        assert start.block_beta[0].tolist() == [0.0] * 8
        assert start.provenance == ("rho-only",)
        assert start.terms[0].matched_by == "name"
        assert "only its smoothing parameters" in start.terms[0].beta_reason

    def test_never_gives_coefficients_by_name_even_where_the_widths_agree(self):
        parent = artifact(fitted(3, 4, rho_for_term=[3.0], structural_identity=None))

        assert build([smooth(0, 0, 4)], parent).block_beta[0].tolist() == [0.0] * 4

    @pytest.mark.parametrize("degree", [0, 1, 3])
    def test_gives_the_same_spline_of_another_width_its_function(self, degree):
        """Knots of the wider one hold those of the narrower: nothing of the function is lost."""
        narrow, wide = (open_spline(degree + intervals, degree) for intervals in (5, 10))
        beta = np.sin(np.arange(degree + 5.0))
        parent = artifact(fitted(0, degree + 5, basis=narrow, raw_beta=beta))

        start = build([smooth(0, 0, degree + 10, basis=wide)], parent)

        points = np.linspace(0.0, 1.0, 71)
        there = values_at(points, narrow) @ beta
        np.testing.assert_allclose(values_at(points, wide) @ start.block_beta[0], there, atol=1e-6)
        assert start.terms[0].beta == "approximate"
        assert "raw width" in start.terms[0].beta_reason
        assert start.provenance == ("projected",)

    @pytest.mark.parametrize(
        "basis",
        [
            BasisMeta("bspline", degree=3, num_knots=9, periodic=True),
            BasisMeta("bspline", degree=3),
            BasisMeta("bspline", degree=3, num_knots=11),  # of a basis of width 7
            BasisMeta("bspline", degree=3, num_knots=5),
        ],
    )
    def test_gives_no_coefficients_of_a_spline_that_does_not_say_what_it_is(self, basis):
        parent = artifact(fitted(0, 5, basis=basis, rho_for_term=[3.0]))

        start = build([smooth(0, 0, 8, basis=open_spline(8))], parent)

        assert start.provenance == ("rho-only",)
        assert start.rho.tolist() == [3.0]

    @pytest.mark.parametrize(("scale", "moved"), [(0.5, True), (2.0, True), (1e-3, False), (1e3, False)])
    def test_moves_rho_of_a_resampled_spline_to_where_its_function_is_as_free(self, scale, moved):
        parent = artifact(
            fitted(0, 5, basis=open_spline(5), raw_beta=np.ones(5), rho_for_term=[3.0], rho_slots=[0]),
            curvature=Curvature(gradient=[0.0], edf=[2.5]),
        )
        # lambda beta' S beta is the edf where beta' S beta is 2.5 exp(-3).
        context = replace(
            smooth(0, 0, 8, basis=open_spline(8)),
            penalties=[DensePenalty(scale * 2.5 * np.exp(-3.0) / 8.0 * np.eye(8))],
        )

        start = build([context], parent)

        assert start.rho[0] == pytest.approx(3.0 - np.log(scale) if moved else 3.0)
        assert start.terms[0].slots[0].value == start.rho[0]

    @pytest.mark.parametrize(
        "other",
        [
            {"name": "s(z)"},
            {"role": "log-slope"},
            {"basis": BasisMeta("tensor")},
            {"basis": None},
        ],
    )
    def test_does_not_take_a_term_of_another_name_role_or_basis_for_the_same(self, other):
        with pytest.raises(DescriptorMismatch, match="no term of the parent matches"):
            build([smooth(0, 0, 8)], artifact(fitted(0, 5, **other)))

    def test_does_not_match_by_name_where_the_penalties_are_of_another_number(self):
        with pytest.raises(DescriptorMismatch, match="no term of the parent matches"):
            build([smooth(0, 0, 8)], artifact(fitted(0, 5, rho_for_term=[1.0, 2.0], rho_slots=[0, 1])))

    def test_is_matched_by_the_closest_there_is(self):
        """A term that matches strictly is not lost to a namesake."""
        parent = artifact(fitted(7, 4, rho_for_term=[9.0]), fitted(0, 4, rho_for_term=[3.0]))

        start = build([smooth(0, 0, 4)], parent)

        assert start.rho.tolist() == [3.0]
        assert start.terms[0].matched_by == "strict"

    def test_gives_its_outer_hessian_where_it_has_one(self):
        hessian = np.array([[2.0, 0.5], [0.5, 3.0]])
        parent = artifact(fitted(0, 4), fitted(1, 5, "s(z)"), curvature=Curvature(gradient=[0.0, 0.0], hessian=hessian))

        start = build([smooth(1, 0, 5, "s(z)"), smooth(2, 1, 6, "s(w)"), smooth(0, 2, 4)], parent, np.zeros(3))

        assert start.curvature is None
        known = start.partial_hessian[np.ix_([0, 2], [0, 2])]
        assert known.tolist() == [[3.0, 0.5], [0.5, 2.0]]
        assert np.isnan(start.partial_hessian[1]).all()
        assert np.isnan(start.partial_hessian[:, 1]).all()

    def test_gives_a_intact_hessian_as_before_where_every_coordinate_came_over(self):
        hessian = np.array([[2.0, 0.5], [0.5, 3.0]])
        parent = artifact(fitted(0, 4), fitted(1, 5, "s(z)"), curvature=Curvature(gradient=[0.0, 0.0], hessian=hessian))

        start = build([smooth(1, 0, 5, "s(z)")], parent)

        assert start.curvature.hessian.tolist() == [[3.0]]
        assert start.partial_hessian is None


def test_a_strict_match_is_preferred_to_a_structural_one():
    terms = (
        term(1, structural_identity=hex_of(1002), rho_for_term=[1.0]),
        term(2, structural_identity=hex_of(1001), rho_for_term=[2.0]),
    )

    assert build([child(1, [0]), child(2, [1])], artifact(*terms), [0.0, 0.0]).rho.tolist() == [1.0, 2.0]


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_the_order_of_terms_never_changes_what_a_term_gets(parents, children):
    parent = artifact(*(term(n, raw_beta=np.full(4, float(n)), rho_for_term=[float(n)]) for n in parents))
    start = build([child(n, [slot]) for slot, n in enumerate(children)], parent, np.full(4, -1.0))

    assert start.rho.tolist() == [float(n) for n in children]
    for n, beta in zip(children, start.block_beta, strict=True):
        np.testing.assert_allclose(beta, float(n), rtol=1e-7)


def test_provenance_says_how_much_came_over():
    contexts = [child(1, [0]), child(2, [1]), child(3, [2])]
    terms = (term(1), term(2, raw_beta=np.ones(5)), term(3, raw_beta=np.ones(5), rho_for_term=[9.5]))

    start = build(contexts, artifact(*terms), np.zeros(3))

    assert start.provenance == ("projected", "rho-only", "cold")
    assert tuple(t.provenance for t in start.terms) == start.provenance


def test_a_transferred_start_has_no_active_sets_and_no_cached_inner():
    start = build([child(1)], artifact())

    assert start.active_sets is None
    assert start.cached_inner is None
    assert start.objective is None


def curved(*slots, n=3):
    rng = np.random.default_rng(1)
    hessian = rng.normal(size=(n, n))
    return Curvature(rng.normal(size=n), hessian + hessian.T, np.arange(1.0, n + 1), np.arange(n) == 1)


def test_curvature_is_mapped_into_the_childs_coordinates():
    curvature = curved()
    parent = artifact(
        term(1, rho_for_term=[1.0, 2.0], rho_slots=[2, 0]),
        term(2, rho_for_term=[3.0], rho_slots=[1]),
        curvature=curvature,
    )

    start = build([child(2, [2]), child(1, [0, 1])], parent, np.zeros(3))

    order = [2, 0, 1]
    assert start.rho.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(start.curvature.gradient, curvature.gradient[order])
    np.testing.assert_array_equal(start.curvature.hessian, curvature.hessian[np.ix_(order, order)])
    np.testing.assert_array_equal(start.curvature.edf, curvature.edf[order])
    np.testing.assert_array_equal(start.curvature.plateau, curvature.plateau[order])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"curvature": None}, "nothing to map"),
        ({"terms": {"rho_slots": None}}, "no slots known"),
        ({"terms": {"rho_for_term": [1.0, 9.5]}}, "a coordinate starts at its default"),
    ],
)
def test_curvature_stays_behind_unless_every_coordinate_has_a_source(changes, why):
    first = term(1, **{"rho_for_term": [1.0, 2.0], "rho_slots": [0, 1]} | changes.get("terms", {}))
    parent = artifact(first, curvature=changes.get("curvature", curved(n=2)))

    assert build([child(1, [0, 1])], parent, np.zeros(2)).curvature is None, why


def test_curvature_stays_behind_where_the_child_unties_coordinates():
    parent = artifact(term(1, rho_slots=[0]), term(2, rho_slots=[0]), curvature=Curvature([0.0], [[1.0]]))

    assert build([child(1, [0]), child(2, [1])], parent, np.zeros(2)).curvature is None


def test_a_start_report_reads_as_a_sentence():
    start = build([child(1)], artifact(curvature=None))
    report = StartReport("transfer", start, "cf", 32 * "a", "1 of 1 terms", start.terms, 32 * "a")

    assert str(report) == "transfer start from aaaaaaaaaaaa: 1 of 1 terms"
    assert report.curvature is None
    assert str(StartReport("cold")) == "cold start"


def test_an_exact_record_and_a_transfer_share_their_form():
    from gamwarm.transfer import restore

    exact = restore(record(inner=inner(), active_sets=[[2, 1, 2], []]))

    assert exact.rho.tolist() == [0.5, -1.0]
    assert [b.tolist() for b in exact.block_beta] == [[1.0, 1.0, 1.0], [0.0, 0.0]]
    assert exact.active_sets == ((1, 2), None)
    assert exact.cached_inner == inner()
    assert exact.objective == 12.5
