"""A case in gamwarm's terms: what a fold shares with the full data, and errors for bad data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from gamwarm import (
    BlockwiseFitOptions,
    DistributedRows,
    FitFailed,
    IndexedDesign,
    InvalidInput,
    InvalidType,
    UnsupportedOption,
)
from gamwarm.engine import (
    Binomial,
    Factor,
    GaussianLocationScale,
    Intercept,
    Linear,
    Poisson,
    RandomEffect,
    Smooth,
    bind,
    fit,
)
from tests.support.models import columns, model


def test_a_fold_loses_the_held_out_levels_columns_and_keeps_raw_width_and_scale():
    data = columns()
    bound = model("poisson", data)
    full, fold = bound.case().problem(), bound.case(data["group"] != "g03").problem()
    block = full.block_names.index("mean:re(group)")

    assert full.block_dims[block] == 12
    assert fold.block_dims[block] == 11
    assert full.raw_widths == fold.raw_widths
    assert full.key != fold.key
    assert full.descriptor.key != fold.descriptor.key
    assert full.structural_key == fold.structural_key
    lifted = fold.gauge.lift_blocks([np.ones(w) for w in fold.block_dims])[block]
    assert lifted.tolist() == [float(i != 3) for i in range(12)]
    smooth = full.block_names.index("mean:s(x)")
    one, other = (p.specs[smooth].penalties[0].to_dense() for p in (full, fold))
    assert np.array_equal(one, other)


def test_a_fold_without_the_reference_level_takes_another_so_that_it_stays_identifiable():
    data = columns()
    bound = model("binomial", data)
    fold = bound.case(data["kind"] != "a")

    done = fit(fold, options=BlockwiseFitOptions(outer_tol=1e-3, rho_bound=15.0))

    assert done.converged
    assert dict(zip(fold.names, fold.widths, strict=True))["mean:kind"] == 1


def test_the_same_rows_asked_for_in_different_ways_are_the_same_fit():
    bound = model("gaussian")
    ways = [None, np.ones(bound.n, dtype=bool), np.arange(bound.n)]

    assert len({bound.case(rows).problem().key for rows in ways}) == 1


def test_designs_are_described_unchanged_held_and_folds_share_what_does_not_differ():
    data = columns()
    bound = model("poisson", data)
    folds = [bound.case(data["group"] != group).problem() for group in ("g03", "g05")]
    full = bound.case().problem()

    designs = [spec.design for spec in full.specs]
    assert {type(design) for design in designs} == {IndexedDesign}
    for i, name in enumerate(full.block_names):
        design, one, other = (problem.specs[i].design for problem in (full, *folds))
        penalties = [problem.specs[i].penalties for problem in folds]
        assert penalties[0] == penalties[1]
        if name == "mean:re(group)":
            assert sparse.issparse(design.rows)
            levels = np.unique(data["group"], return_inverse=True)[1]
            assert np.array_equal(design.to_dense(), np.eye(12)[levels])
        else:
            assert one.rows is other.rows is design.rows


def test_a_design_is_not_read_row_by_row_to_be_named(monkeypatch):
    def refuse(*_):
        raise AssertionError("expanded")

    monkeypatch.setattr(IndexedDesign, "row_chunk", refuse)
    monkeypatch.setattr(IndexedDesign, "to_dense", refuse)

    assert model("poisson").case().problem().key.startswith("cf-")


@pytest.mark.parametrize("what", ["weights", "offset"])
def test_weights_and_offsets_of_one_number_are_reported_apart_by_it_and_not_by_who_gave_them(what):
    usual = {"weights": 1.0, "offset": 0.0}[what]

    def fingerprint(value, n=400):
        data = {name: values[:n] for name, values in columns().items()} | {"poisson": np.ones(n)}
        given = {}
        if value is not None:
            data["given"] = np.full(n, value) if np.ndim(value) == 0 else value
            given = {what: "given"}
        family = Poisson("poisson", **given)
        problem = bind(data, [Intercept()], family).case().problem()
        return problem.family.persistent_warm_start_fingerprint(problem.specs, problem.options)

    mixed = np.append(np.full(399, usual), usual + 0.5)
    assert fingerprint(None) == fingerprint(usual)
    assert len({fingerprint(v) for v in (usual, usual + 0.5, usual + 1.0)} | {fingerprint(None, 399)}) == 4
    assert fingerprint(mixed) not in {fingerprint(usual), fingerprint(usual + 0.5)}


@pytest.mark.parametrize("change", ["response", "weights", "offset", "predictor"])
def test_everything_the_answer_depends_on_is_in_the_key(change):
    data = columns()
    terms = [Intercept(), Smooth("x", 8), Intercept("scale"), Linear("z")]
    family = GaussianLocationScale("gaussian", weights="trials", offset="exposure")
    before = bind(data, terms, family).case().problem().key
    if change == "predictor":
        terms[3] = Linear("z", predictor="scale")
    else:
        name = {"response": "gaussian", "weights": "trials", "offset": "exposure"}[change]
        data[name] = data[name].copy()
        data[name][7] += 0.25

    assert bind(data, terms, family).case().problem().key != before


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda d: d.update(x=np.where(np.arange(400) == 4, np.nan, d["x"])), "'x' has no value at row 4"),
        (lambda d: d.update(x=d["x"][:-1]), "'x' has 399 rows"),
        (lambda d: d.pop("x"), "needs column 'x'"),
        (lambda d: (d.pop("x"), d.update({f"c{i}": np.ones(400) for i in range(30)})), " more"),
        (lambda d: d.update(x=np.ones(400)), "'x' spans"),
        (lambda d: d.update(x=d["kind"]), "'x' holds <U1 values"),
        (lambda d: d.update(x=d["x"].reshape(20, 20)), "'x' has shape (20, 20)"),
        (lambda d: d.update(poisson=d["poisson"] - 1.0), "'poisson' holds -1 at row"),
        (lambda d: d.update(exposure=np.where(np.arange(400) == 2, np.inf, 0.0)), "'exposure' holds inf at row 2"),
        (lambda d: d.update(group=np.where(np.arange(400) == 9, None, d["group"])), "'group' has no value at row 9"),
        (lambda d: d.update(group=np.full(400, "one")), "'group' has one level"),
        (lambda d: d.update(x=DistributedRows(d["x"], None)), "'x' is distributed over 1 ranks"),
    ],
)
def test_a_bad_column_is_refused_by_name(spoil, word):
    data = columns()
    spoil(data)

    with pytest.raises((InvalidInput, InvalidType)) as caught:
        model("poisson", data)

    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("terms", "family", "word"),
    [
        ([Smooth("x")], GaussianLocationScale("gaussian"), "add Intercept(predictor='scale')"),
        ([Intercept(), Intercept("scale")], Poisson("poisson"), "has ['mean']"),
        ([Intercept(), Smooth("x"), Smooth("x", 5)], Poisson("poisson"), "given 2 times"),
        ([Intercept(), Smooth("x", lower=2.0)], Poisson("poisson"), "widen lower and upper"),
        ([Intercept()], Poisson("poisson", weights="exposure"), "negative weight"),
        ([Intercept()], Binomial("poisson"), "give 0/1"),
        ([Intercept(), Smooth("x", lower=2.0, upper=1.0)], Poisson("poisson"), "lower must be below upper"),
        ([Intercept(), "x"], Poisson("poisson"), "is not a term"),
        (Smooth("x"), Poisson("poisson"), "give a list"),
    ],
)
def test_a_bad_model_is_refused_with_the_next_step(terms, family, word):
    with pytest.raises((InvalidInput, InvalidType)) as caught:
        bind(columns(), terms, family)

    assert word in str(caught.value)


@pytest.mark.parametrize("end", ["lower", "upper"])
@pytest.mark.parametrize("value", ["wide", float("nan"), float("inf")])
def test_ends_of_knots_that_are_no_finite_numbers_are_refused_by_name(end, value):
    with pytest.raises((InvalidInput, InvalidType), match=rf"s\(x\)', {end} "):
        Smooth("x", **{end: value})


def test_a_level_that_is_not_there_is_refused_and_the_list_of_levels_says_that_it_is_cut():
    data = columns()
    data["group"] = np.arange(400) % 10
    bound = bind(data, [Intercept(), RandomEffect("group")], Poisson("poisson"))
    with pytest.raises(InvalidInput, match="it has 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"):
        bound.without("group", 99)


@pytest.mark.parametrize("rows", [np.zeros(400, dtype=bool), np.ones(399, dtype=bool), [400], [0.5]])
def test_rows_that_are_not_there_are_refused(rows):
    with pytest.raises((InvalidInput, InvalidType)):
        model("poisson").case(rows)


def test_a_term_that_repeats_another_is_named():
    data = columns()
    data["x2"] = 2.0 * data["z"]

    with pytest.raises(FitFailed, match=r"mean:(z|x2)"):
        fit(bind(data, [Intercept(), Linear("z"), Linear("x2")], Poisson("poisson")).case())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("outer_rel_cost_tol", 1e-3),
        ("min_weight", 1e-6),
        ("ridge_floor", 1e-6),
        ("ridge_policy", "none"),
        ("use_reml_objective", False),
        ("use_outer_hessian", False),
        ("compute_covariance", True),
        ("early_exit_threshold", 1.0),
        ("outer_score_subsample", [1.0]),
        ("auto_outer_subsample", False),
    ],
)
def test_an_option_that_is_not_implemented_is_refused_by_name(option, value):
    with pytest.raises(UnsupportedOption, match=option):
        fit(model("poisson").case(), options=BlockwiseFitOptions(**{option: value}))


def test_terms_without_penalties_are_fitted_without_an_outer_search():
    done = fit(bind(columns(), [Intercept(), Factor("kind")], Poisson("poisson")).case())

    assert done.converged
    assert done.cost.evaluations == 1
    assert done.cost.outer_iterations == 0


def test_a_random_effect_alone_is_a_fit():
    assert fit(bind(columns(), [Intercept(), RandomEffect("group")], Poisson("poisson")).case()).converged
