"""`gamwarm.adapters.mgcv`: mgcv's own answer, begun where a relative ended."""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm import FitFailed, InvalidInput, InvalidType, MissingDependency, UnsupportedOption
from gamwarm.folds import leave_one_out
from gamwarm.testing import assert_neutral
from tests.support.command import Runner
from tests.support.mgcv_driver import HAS_MGCV, Folds, frame, plain_gam

if not HAS_MGCV:
    pytest.skip("mgcv: needs R with mgcv and rpy2", allow_module_level=True)

from gamwarm.adapters.mgcv import fold_fit, gam, running, session

SMOOTH = "y ~ s(x, bs='cr', k=8)"


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        yield opened


def without(data, rows):
    return {name: np.asarray(column)[~rows] for name, column in data.items()}


def a_fold(data, k=3):
    return without(data, np.arange(len(data["x"])) % 10 == k)


# -- the answer is mgcv's --------------------------------------------------------------------------

MODELS = {
    "gaussian": ("y ~ s(x, bs='cr') + te(x, z, k=4) + s(f, bs='re')", "gaussian"),
    "two smooths of one variable": ("y ~ s(x, bs='ps', k=8) + s(x, by=z, bs='bs', k=7)", "gaussian"),
    "a smooth per level": ("y ~ f + s(x, bs='cr', k=5, by=f)", "gaussian"),
    "one smoothing parameter for all levels": ("y ~ s(x, bs='cr', k=5, by=f, id=1)", "gaussian"),
    "a fixed smoothing parameter": ("y ~ s(x, bs='cr', sp=0.01) + s(z, bs='cs', k=5)", "gaussian"),
    "functions": ("y ~ s(x, bs='cc', k=8) + poly(z, 2) + I(x^2) + log(w) + offset(o)", "gaussian"),
    "poisson": ("count ~ s(x, bs='ps') + s(z, bs='cp')", "poisson"),
    "binomial": ("cbind(event, 1 - event) ~ s(x, bs='cr') + s(f, bs='re')", "binomial"),
    "gamma": ("positive ~ ti(x) + ti(z) + ti(x, z, k=4)", "Gamma(link=log)"),
    "theta": ("overdispersed ~ s(x, bs='cr') + f", "nb()"),
    "several thetas and a scale": ("y ~ s(x, bs='cr', by=z)", "scat()"),
    "a theta and a scale": ("positive ~ s(x, bs='cr')", "tw()"),
    "location and scale": (["y ~ s(x, bs='cr')", "~ s(x, bs='cr', k=5) + z"], "gaulss()"),
    "survival": ("time ~ s(x, bs='cr') + z", "cox.ph()"),
    "no smoothing parameter": ("y ~ x + z", "gaussian"),
    "no outer coordinate": ("event ~ x + z", "binomial"),
}


@pytest.mark.parametrize(("formula", "family"), MODELS.values(), ids=MODELS)
def test_a_cold_fit_is_mgcvs_own_an_exact_one_is_evaluated_once_and_a_fold_ends_where_a_cold_one_does(
    store, formula, family
):
    data = frame()
    plain = plain_gam(formula, data, family)

    cold = gam(formula, data, family, store=store)
    again = gam(formula, data, family, store=store)
    fold = gam(formula, a_fold(data), family, store=store, like=cold)
    cold_fold = gam(formula, a_fold(data), family, like=cold)

    assert cold.converged
    assert cold.kept.artifact.written
    assert cold.objective == plain["objective"][0]
    assert np.array_equal(cold.fitted, plain["fitted"])
    assert np.array_equal(cold.coefficients, plain["coefficients"])
    assert np.allclose(list(cold.sp.values()), plain["sp"] if cold.sp else [], rtol=1e-12)
    if plain["iterations"] is not None:
        assert cold.iterations == plain["iterations"][0]
    assert (again.start.source, again.evaluations, again.iterations) == ("exact", 1, 0)
    assert np.array_equal(again.coefficients, cold.coefficients)
    assert again.sp == cold.sp
    assert fold.start.source == "transfer"
    assert {str(term.beta) for term in fold.start.terms} == {"projected"}
    assert fold.converged
    assert fold.iterations <= cold_fold.iterations
    assert abs(fold.objective - cold_fold.objective) < 1e-3
    assert np.abs(fold.fitted - cold_fold.fitted).max() < 0.01 * np.std(cold_fold.fitted)


def test_weights_and_offset_are_columns_or_arrays(store):
    data = frame()
    plain = plain_gam(SMOOTH, data, weights=True, offset=True)

    named = gam(SMOOTH, data, store=store, weights="w", offset="o")
    given = gam(SMOOTH, data, store=store, weights=data["w"], offset=data["o"])

    assert named.objective == plain["objective"][0]
    assert given.start.source == "exact"
    assert gam(SMOOTH, data, store=store, weights="w").start.source == "transfer"


def test_rows_with_missing_values_are_left_out_as_mgcv_does(store):
    pandas = pytest.importorskip("pandas")
    data = pandas.DataFrame(frame())
    data.loc[5, "x"] = np.nan
    data.loc[7, "f"] = None

    fit = gam("y ~ s(x, bs='cr') + s(f, bs='re')", data, store=store)
    plain = plain_gam("y ~ s(x, bs='cr') + s(f, bs='re')", data)

    assert fit.objective == plain["objective"][0]
    assert len(fit.fitted) == len(data) - 2
    assert fit.problem.n_rows == len(data) - 2


def test_tight_tolerances_of_mgcv_are_kept_to_and_are_part_of_the_key(store):
    data = frame()
    loose = gam(SMOOTH, data, store=store)

    tight = gam(SMOOTH, data, store=store, control={"newton": {"conv.tol": 1e-10}})

    assert tight.start.source == "transfer"
    assert gam(SMOOTH, data, store=store, control={"epsilon": 1e-9}).start.source == "transfer"
    assert np.abs(tight.result.curvature.gradient).max() < np.abs(loose.result.curvature.gradient).max()


def test_the_adapter_is_neutral():
    report = assert_neutral(Folds())

    assert report.evaluations("exact") == 1.0


# -- what can be carried ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "smooth",
    [
        "s(x, bs='cr')", "s(x, bs='cs')", "s(x, bs='cc')", "s(x, bs='ps')", "s(x, bs='cp')", "s(x, bs='bs')",
        "te(x, z, k=4)", "te(x, z, k=4, bs='ps')", "ti(x, z, k=4)", "s(f, bs='re')", "s(x, f, bs='re')",
        "s(x, bs='cr', by=z)",
    ],
)  # fmt: skip
def test_a_fold_is_offered_the_parents_function_up_to_its_centring(store, smooth):
    data = frame()
    full = gam(f"y ~ {smooth}", data, store=store)
    some = np.arange(len(data["x"])) < 150
    fold = gam(f"y ~ {smooth}", without(data, ~some), store=store, like=full)
    block = full.problem.block_names.index(next(name for name in full.problem.block_names if name != "parametric"))

    offered = fold.problem.specs[block].design @ fold.start.start.block_beta[block]
    parents = full.problem.specs[block].design[some] @ full.result.block_beta[block]

    apart = offered - parents
    # The margins of te() are rescaled, which costs the projection digits; those of ti() are centred
    # too.
    limit = {"ti": 0.1, "te": 1e-2}.get(smooth[:2], 1e-6)
    assert np.ptp(apart) < limit * np.ptp(parents)


def test_without_like_other_knots_are_noticed_and_only_smoothing_parameters_are_carried(store):
    data = frame()
    gam(SMOOTH, data, store=store)

    fold = gam(SMOOTH, a_fold(without(data, data["x"] > 0.95)), store=store)

    smooth = fold.start.terms[1]
    assert (smooth.matched_by, smooth.beta, smooth.rho) == ("name", "cold", "copied")


def test_knots_that_are_given_do_what_like_does(store):
    data, knots = frame(), {"x": np.linspace(0.0, 1.0, 8)}
    gam(SMOOTH, data, store=store, knots=knots)

    fold = gam(SMOOTH, a_fold(data), store=store, knots=knots)

    assert [str(term.beta) for term in fold.start.terms] == ["projected", "projected"]


@pytest.mark.parametrize("as_categories", [False, True])
def test_a_level_that_a_fold_leaves_out_keeps_its_random_effect_and_loses_its_fixed_one(store, as_categories):
    pandas = pytest.importorskip("pandas")
    data = pandas.DataFrame(frame())
    if as_categories:
        data["f"] = data["f"].astype("category")
    random, fixed = "y ~ s(x, bs='cr') + s(f, bs='re')", "y ~ f + s(x, bs='cr')"
    rest = data[data["f"] != "c"]

    for formula, width in ((random, 8), (fixed, 7)):
        full = gam(formula, data, store=store)
        fold = gam(formula, rest, store=store, like=full)

        assert [str(term.beta) for term in fold.start.terms] == ["projected"] * len(fold.start.terms)
        block = fold.problem.block_names.index("s(f)" if formula == random else "parametric")
        assert fold.problem.block_dims[block] == width
        assert fold.iterations < gam(formula, rest, like=full).iterations

    assert np.isfinite(gam(random, rest, like=gam(random, data)).predict(data)).all()


def test_without_the_reference_level_contrasts_mean_something_else_and_are_not_carried(store):
    data = frame()
    full = gam("y ~ f + s(x, bs='cr')", data, store=store)

    fold = gam("y ~ f + s(x, bs='cr')", without(data, data["f"] == "a"), store=store, like=full)

    assert fold.start.terms[0].beta == "cold"


@pytest.mark.parametrize("given", [{"like": 32 * "0"}, {"leave_out": "g1"}, {"each": True}])
def test_what_says_how_to_use_a_store_needs_one(given):
    (name,) = given
    with pytest.raises(InvalidInput, match=f"{name} needs a store; pass the store too, or omit {name}"):
        gam("y ~ s(x, bs='cr')", frame(), **given)


def test_without_a_store_attributes_are_on_the_result():
    assert gam("y ~ x", frame(), attributes={"fold": 7}).result.attributes == {"fold": 7}


def test_an_entry_id_names_the_parent(store):
    data = frame()
    first = gam(SMOOTH, data, store=store)
    gam(SMOOTH, a_fold(data, 5), store=store, like=first)

    fold = gam(SMOOTH, a_fold(data), store=store, like=first.kept.artifact.entry_id)

    assert fold.start.parent == first.kept.artifact.entry_id


def test_leave_one_out_fits_every_fold_from_all_rows_with_their_knots(store):
    data = frame()
    fit = fold_fit("y ~ s(x, bs='cr') + s(f, bs='re')", data, weights="w")

    report = leave_one_out(store, data["f"], fit, progress=False)
    again = leave_one_out(store, data["f"], fit, progress=False)
    alone = gam("y ~ s(x, bs='cr') + s(f, bs='re')", without(data, data["f"] == "c"), weights="w")

    assert report.parent is not None
    assert len(report.folds) == 8
    assert {fold.source for fold in report.folds} == {"transfer"}
    assert {fold.source for fold in again.folds} == {"exact"}
    objective = next(fold.objective for fold in report.folds if fold.group == "c")
    assert objective == pytest.approx(alone.objective, abs=0.5)  # alone it has knots of its own
    with pytest.raises(InvalidType, match="'like'"):
        fold_fit(SMOOTH, data, like="0" * 32)
    with pytest.raises(InvalidType, match="column's name"):
        fold_fit(SMOOTH, data, weights=data["w"])


# -- a start never decides -------------------------------------------------------------------------


def test_a_stored_answer_that_is_none_is_searched_on(store):
    data = frame()
    first = gam(SMOOTH, data, store=store)
    record = store.get_record(first.problem.key)
    assert store.put_record(replace(record, rho=[record.rho[0] + 3.0, record.rho[1]])).written

    again = gam(SMOOTH, data, store=store)

    assert again.start.source == "exact"
    assert again.notes
    assert again.iterations > 0
    assert again.objective == pytest.approx(first.objective, abs=1e-4)


def test_a_parent_on_a_false_plateau_does_not_keep_a_fold_there(store):
    data, knots = frame(), {"x": np.linspace(0.0, 1.0, 8)}
    full = gam(SMOOTH, data, store=store, knots=knots)
    rho, beta = [25.0, full.result.rho[1]], [full.result.block_beta[0], 0.0 * full.result.block_beta[1]]
    curvature = replace(full.result.curvature, plateau=[True, False])
    kept = store.keep(full.problem, replace(full.result, rho=rho, block_beta=beta, curvature=curvature))

    fold = gam(SMOOTH, a_fold(data), store=store, like=kept, knots=knots)
    cold = gam(SMOOTH, a_fold(data), knots=knots)

    assert fold.start.start.rho[0] == 25.0
    assert any("false plateau" in note for note in fold.notes)
    assert fold.objective == pytest.approx(cold.objective, abs=1e-3)


@pytest.mark.parametrize("bad", [np.nan, 1e300, -1e3])
def test_coefficients_of_no_use_fail_no_fit(store, bad):
    data = frame()
    full = gam("count ~ s(x, bs='cr')", data, "poisson", store=store)
    beta = [np.full(len(block), bad) for block in full.result.block_beta]
    record = store.get_record(full.problem.key)
    assert store.put_record(replace(record, block_beta=beta, objective=1.0)).written or not np.isfinite(bad)

    again = gam("count ~ s(x, bs='cr')", data, "poisson", store=store)

    assert again.converged
    assert again.objective == pytest.approx(full.objective, abs=1e-3)


def test_what_mgcv_does_not_call_converged_is_a_checkpoint_with_the_reason(store):
    control = {"newton": {"maxHalf": 0}}
    fit = gam("count ~ s(x, bs='cr')", frame(), "poisson", store=store, control=control)

    assert not fit.converged
    assert fit.message == "step failed"
    assert fit.kept.record.written
    assert not fit.kept.artifact.written
    assert "converged" in fit.kept.artifact.reason
    assert any("step failure" in words for words in fit.warnings)


def test_mgcvs_error_from_a_warm_start_is_a_note_and_the_fit_begins_cold(store, monkeypatch):
    data = frame()
    full = gam(SMOOTH, data, store=store)
    evaluate = running._Steering.evaluate

    def fails(self, lsp, coef):
        if coef is not None:
            raise running._Failed("inner loop 1; can't correct step size")
        return evaluate(self, lsp, coef)

    monkeypatch.setattr(running._Steering, "evaluate", fails)
    fold = gam(SMOOTH, a_fold(data), store=store, like=full)

    assert fold.converged
    assert fold.result.start_used is False
    assert "can't correct step size" in fold.notes[0]


# -- interrupts ------------------------------------------------------------------------------------


def test_ctrl_c_inside_r_ends_the_fit_and_leaves_store_and_r_usable(store, monkeypatch, caplog):
    data, seen, calls = frame(), running.Run._seen, []

    def struck(self, *told):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return seen(self, *told)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(running.Run, "_seen", struck)
        gam(SMOOTH, data, store=store)

    assert len(calls) == 3
    assert not caplog.records
    assert store.verify().ok
    assert gam(SMOOTH, data, store=store).kept.record.written


def test_a_fit_that_is_to_stop_is_kept_as_a_checkpoint_and_goes_on_from_there(store, monkeypatch):
    data, calls = frame(), []
    formula = "count ~ s(x, bs='cr') + s(z, bs='cr')"
    whole = gam(formula, data, "poisson")

    def stops(self):
        calls.append(1)
        return len(calls) > 2

    with monkeypatch.context() as patched:
        patched.setattr(gamwarm.store.FitInProgress, "should_stop", stops)
        stopped = gam(formula, data, "poisson", store=store)

    assert not stopped.converged
    assert stopped.kept.record.written
    with pytest.raises(FitFailed, match="checkpoint"):
        stopped.predict()
    resumed = gam(formula, data, "poisson", store=store)
    assert resumed.start.is_checkpoint
    assert resumed.converged
    assert resumed.iterations < whole.iterations
    assert resumed.objective == pytest.approx(whole.objective, abs=1e-3)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("y ~ s(x)", "'tp' (mgcv's default)"),
        ("y ~ s(x, z)", "te() or ti()"),
        ("y ~ s(x, bs='ts')", "'ts'"),
        ("y ~ s(x, bs='gp')", "bs='cr'"),
        ("y ~ s(x, bs='ad')", "'ad'"),
        ("y ~ te(x, z, bs=c('cr', 'tp'))", "te(x,z)"),
        ("y ~ t2(x, z)", "te() or ti()"),
        ("y ~ s(x, f, bs='fs', xt=list(bs='cr'))", "by=group"),
        ("y ~ s(x, z, bs='ds')", "'ds'"),
    ],
)
def test_a_basis_that_depends_on_the_data_is_refused_by_name_with_another(formula, words):
    with pytest.raises(UnsupportedOption) as refusal:
        gam(formula, frame())

    assert words in str(refusal.value)


@pytest.mark.parametrize("method", ["ML", "GCV.Cp", "P-REML", "NCV", "fREML"])
def test_another_criterion_is_refused_with_the_next_step(method):
    with pytest.raises(UnsupportedOption, match=r"Use method='REML'"):
        gam(SMOOTH, frame(), method=method)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"formula": "y ~ s(q, bs='cr')"}, InvalidInput, "'q', which is no column"),
        ({"formula": "y ~ s(x, bs='cr'"}, InvalidInput, "end of input 1: y ~ s(x"),
        ({"formula": 3}, InvalidType, "formula"),
        ({"formula": ["y ~ s(x, bs='cr')", "~ 1"]}, InvalidInput, "number of linear predictors"),
        ({"formula": "y ~ s(x, bs='cr', k=500)"}, InvalidInput, "set this model up"),
        ({"family": "normal"}, InvalidInput, "normal"),
        ({"family": None}, InvalidType, "family"),
        ({"data": [1, 2]}, InvalidType, "data frame"),
        ({"data": {**frame(), "x": frame()["x"][:-1]}}, InvalidInput, "'x' has 239 rows"),
        ({"data": {**frame(), "x": np.where(frame()["x"] > 0.9, np.inf, 0.5)}}, InvalidInput, "holds inf at row"),
        ({"data": {**frame(), "x": np.datetime64("2020-01-01") + np.arange(240)}}, InvalidType, "dates"),
        ({"weights": "nobody"}, InvalidInput, "weights"),
        ({"weights": [1.0, 2.0]}, InvalidInput, "rows"),
        ({"knots": {"q": [0.0, 1.0]}}, InvalidInput, "knots names 'q'"),
        ({"knots": [0.0, 1.0]}, InvalidType, "mapping"),
        ({"control": {"scalePenalty": True}}, UnsupportedOption, "scalePenalty"),
        ({"control": {"no.such": True}}, InvalidInput, "set this model up"),
        ({"like": 3}, InvalidType, "like"),
        ({"store": "fits.h5"}, InvalidType, "gamwarm.open"),
        ({"formula": ["y ~ s(x, bs='cr')", "count ~ s(x, bs='cr')"], "family": "mvn(d=2)"}, UnsupportedOption, "own"),
    ],
)
def test_a_wrong_argument_is_named(changes, error, words):
    arguments = {"formula": SMOOTH, "data": frame(), **changes}

    with pytest.raises(error) as refusal:
        gam(**arguments)

    assert words in str(refusal.value)


def test_without_rpy2_the_message_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rpy2", None)

    with pytest.raises(MissingDependency, match=r"pip install 'gamwarm\[mgcv\]'"):
        session.Session()


# -- what a user has of it -------------------------------------------------------------------------


def test_the_fit_has_what_r_has(store):
    data = frame()
    fit = gam("y ~ s(x, bs='cr') + s(f, bs='re')", data, store=store)
    new = {name: column[:3] for name, column in data.items()}

    assert fit.names[:2] == ("(Intercept)", "s(x).1")
    assert set(fit.edf) == set(fit.sp) == {"s(x)", "s(f)"}
    assert fit.predict(new) == pytest.approx(fit.fitted[:3])
    mean, error = fit.predict(new, "response", se=True)
    assert (mean.shape, error.shape) == ((3,), (3,))
    assert fit.predict(new, "terms").shape == (3, 2)
    assert fit.predict(new, "lpmatrix") @ fit.coefficients == pytest.approx(mean)
    assert np.isnan(fit.predict({**new, "x": [0.5, np.nan, 0.5]})[1])
    assert "Approximate significance" in fit.summary()
    assert fit.scale == pytest.approx(np.exp(fit.nuisance["log scale"]))
    assert "full convergence" in repr(fit)
    assert "s(f)" in fit._repr_html_()
    with pytest.raises(InvalidInput, match="'x'"):
        fit.predict({"f": ["a"]})
    with pytest.raises(InvalidInput, match="lpmatrix"):
        fit.predict(new, "link2")


def test_a_store_reads_well_without_the_adapter(tmp_path, capsys, monkeypatch):
    gamwarm_command = Runner(capsys, monkeypatch)
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        fit = gam("overdispersed ~ s(x, bs='cr')", frame(), "nb()", store=store, attributes={"site": "here"})

    with h5py.File(path, "r") as plain:
        assert set(plain) >= {"block_records", "fit_artifacts"}
    listed = gamwarm_command("ls", str(path), "--attribute", "site=here").out
    shown = gamwarm_command("show", str(path), fit.kept.record.entry_id[:12]).out
    assert fit.kept.artifact.entry_id[:12] in listed
    assert "s(x)" in shown
    assert "mgcv.negative binomial(log)" in shown


def test_the_log_says_where_it_began(store, caplog):
    caplog.set_level(logging.INFO, "gamwarm")
    gam(SMOOTH, frame(), store=store)
    gam(SMOOTH, frame(), store=store)

    assert "exact" in caplog.text
