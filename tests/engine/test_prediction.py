"""What a fit says of new rows, and of itself."""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gamwarm
from gamwarm import InvalidInput, InvalidType
from gamwarm.engine import (
    EngineFit,
    Factor,
    Gaussian,
    GaussianLocationScale,
    Intercept,
    Monotone,
    Poisson,
    RandomEffect,
    Smooth,
    Tensor,
    bind,
    fit,
)
from gamwarm.engine.source import Source
from tests.support import models

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reference" / "prediction.py"
FAMILIES = (*models.FAMILIES, "normal")


def bound(family: str) -> Any:
    if family == "normal":
        return bind(models.columns(), models.mean_terms(), Gaussian("gaussian", weights="trials", offset="exposure"))
    return models.model(family)


def rows_of(data: dict[str, Any], picked: Any) -> dict[str, Any]:
    return {name: values[picked] for name, values in data.items()}


@pytest.fixture(scope="module")
def fits() -> dict[str, EngineFit]:
    """Per family a fit without the group g03."""
    data = models.columns()
    return {name: fit(bound(name).case(data["group"] != "g03"), options=models.USUAL) for name in FAMILIES}


# -- against mgcv ----------------------------------------------------------------------------------

# Of mgcv 1.8-41: predictors, then the response, each with its standard errors, for five new rows.
MGCV = {
    "sleepstudy": [
        (
            [180.526764, 287.433621, 250.776419, 307.03744, 327.378074],
            [9.98214318, 9.63388374, 9.49585886, 9.57716215, 9.87237651],
        ),
    ]
    * 2,
    "epil": [
        (
            [0.768793029, 1.40343494, 1.56196641, 2.62776703, 4.22199612],
            [0.285192679, 0.193990661, 0.288960482, 0.16562366, 0.26816897],
        ),
        (
            [2.15716105, 4.06915328, 4.76818822, 13.8428247, 68.1694226],
            [0.615206539, 0.789377735, 1.37781797, 2.2926993, 18.2809238],
        ),
    ],
    "bacteria": [
        (
            [2.36410536, 0.256168578, 0.435138148, 0.157565619, 2.57532271],
            [1.21491378, 1.14363646, 0.832383084, 1.00798465, 1.10228253],
        ),
        (
            [0.914048886, 0.563694211, 0.607099941, 0.539310109, 0.929256406],
            [0.0954479035, 0.281269437, 0.198548006, 0.250438539, 0.0724628835],
        ),
    ],
    "mcycle": [
        (
            [-2.90742033, -71.5979787, 8.12339572, 4.13876065, -7.39311462],
            [1.0315405, 3.41558724, 8.70151047, 7.38685536, 4.7084967],
        ),
        (
            [0.73025045, 2.97379136, 3.59688568, 3.08428695, 2.31756233],
            [0.185340396, 0.085890342, 0.104130246, 0.125561018, 0.18277857],
        ),
        (
            [-2.90742033, -71.5979787, 8.12339572, 4.13876065, -7.39311462],
            [1.0315405, 3.41558724, 8.70151047, 7.38685536, 4.7084967],
        ),
    ],
}
# For an unseen level: its prior variance; predictors, and their standard errors without it.
NEW_LEVEL = {
    "sleepstudy": (
        "Subject",
        1378.17851,
        [258.376318, 277.217432, 296.058546, 314.899661, 333.740777],
        [9.56078485, 9.19658308, 9.05189262, 9.13714723, 9.44612315],
    ),
    "epil": (
        "subject",
        0.279517409,
        [0.846339827, 1.30372146, 1.89077727, 2.31096081, 3.11515442],
        [0.187810344, 0.128416656, 0.131005282, 0.133737907, 0.215134529],
    ),
    "bacteria": (
        "ID",
        1.7469622,
        [1.79471535, 1.16509406, 1.13602218, 1.59166371, 1.52596335],
        [0.547704432, 0.498135764, 0.523244587, 0.496078232, 0.500533602],
    ),
}


@pytest.fixture(scope="module")
def reference() -> Any:
    spec = importlib.util.spec_from_file_location("reference_prediction", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MGCV)
def test_predictions_and_standard_errors_are_those_of_mgcv(reference, name):
    tight = gamwarm.BlockwiseFitOptions(inner_tol=1e-9, outer_tol=1e-7, rho_bound=25.0)
    found = fit(reference.bound(name).case(), options=tight)
    new = reference.new_rows(name)

    said = found.predict(new, standard_errors=True)

    for key, (values, errors) in zip(said.fitted, MGCV[name], strict=True):
        np.testing.assert_allclose(said.fitted[key], values, rtol=2e-5, err_msg=key)
        np.testing.assert_allclose(said.standard_errors[key], errors, rtol=2e-5, err_msg=key)
    if name in NEW_LEVEL:
        column, variance, values, errors = NEW_LEVEL[name]
        said = found.predict({**new, column: ["never seen"] * 5}, standard_errors=True)
        np.testing.assert_allclose(said.fitted["mean"], values, rtol=2e-5)
        np.testing.assert_allclose(said.standard_errors["mean"], np.sqrt(np.square(errors) + variance), rtol=2e-5)


# -- laws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fitted_rows_are_predicted_as_they_were_fitted(fits, family):
    data = models.columns()
    kept = data["group"] != "g03"

    said = fits[family].predict(rows_of(data, kept))

    assert said.fitted.keys() == fits[family].fitted.keys()
    for name, values in fits[family].fitted.items():
        np.testing.assert_allclose(said.fitted[name], values, rtol=1e-12, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    rows=st.lists(st.integers(0, 399), min_size=1, max_size=30),
)
def test_a_rows_prediction_does_not_depend_on_the_other_rows(fits, family, rows):
    data = models.columns()
    every = fits[family].predict(data, standard_errors=True)

    some = fits[family].predict(rows_of(data, rows), standard_errors=True)

    for name in every.fitted:
        np.testing.assert_allclose(some.fitted[name], every.fitted[name][rows], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(some.standard_errors[name], every.standard_errors[name][rows], rtol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_standard_errors_are_those_of_the_dense_formula(fits, family):
    found, data = fits[family], models.columns()
    said = found.predict(data, standard_errors=True)
    case = bound(family).case()
    inverse, theta = found.model.inverse, found.model.theta

    for name in found.model.family.predictors:
        x = np.zeros((400, theta.size))
        prior = np.zeros(400)
        for spec, term in zip(case.problem().specs, found.model.terms, strict=True):
            if term.predictor == name:
                x[:, term.columns] = spec.design.row_chunk(0, 400)[:, term.kept]
                if "re(" in term.name:
                    prior += term.prior_variance * (data["group"] == "g03")
        expected = np.sqrt(found.model.scale * np.einsum("ij,jk,ik->i", x, inverse, x) + prior)
        np.testing.assert_allclose(said.standard_errors[name], expected, rtol=1e-9)
        assert said.standard_errors[name].min() >= 0.0


KINDS: dict[str, list[Any]] = {
    "monotone": [Monotone("x", k=8), RandomEffect("group")],
    "surface": [Tensor("x", "z", k=(5, 5))],
    "surface beside main effects": [Smooth("x", k=6), Smooth("z", k=6), Tensor("x", "z", k=(6, 6))],
    "by level, tied": [Smooth("x", k=8, by="kind", tied=True), Factor("kind")],
    "two penalties, a fixed one": [Smooth("x", k=8, select=True), Smooth("z", k=6, log_lambda=2.0)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [Poisson("poisson"), Gaussian("gaussian")], ids=lambda family: type(family).__name__)
def test_every_kind_of_term_predicts_its_own_rows_scores_them_and_is_summarised(kind, family):
    data = models.columns()
    data["z"] = data["u"]
    kept = data["group"] != "g03"
    found = fit(bind(data, [Intercept(), *KINDS[kind]], family).case(kept), options=models.USUAL)

    said = found.predict(data, standard_errors=True)
    carried = pickle.loads(pickle.dumps(found))

    np.testing.assert_allclose(said.fitted["mean"][kept], found.fitted["mean"], rtol=1e-10, atol=1e-10)
    assert np.isfinite(said.standard_errors["mean"]).all()
    assert said.standard_errors["mean"].min() > 0.0
    assert found.held_out(kept).total == pytest.approx(found.result.inner.log_likelihood, rel=1e-8)
    np.testing.assert_array_equal(carried.predict(data).mu, said.mu)
    assert max(map(len, found.summary().splitlines())) <= 80
    states = {penalty.state for row in found.terms for penalty in row.penalties}
    assert ("tied" in states) == ("tied" in kind)
    assert set(found.curves()) == set(found.names)


def test_a_mean_that_is_infinite_has_an_infinite_standard_error():
    found = fit(models.model("loglogistic").case(), options=models.USUAL)
    shift = next(term for term in found.model.terms if term.name == "scale:intercept").columns.start
    theta = found.model.theta.copy()
    theta[shift] += 5.0

    said = replace(found.model, theta=theta).predict(models.columns(), standard_errors=True)

    assert np.isinf(said.mu).all()
    assert np.isinf(said.standard_errors["response"]).all()
    assert np.isfinite(said.standard_errors["mean"]).all()


def test_the_prior_variance_of_an_unseen_level_is_the_spread_of_the_levels(fits):
    found = fits["normal"]
    effect = next(term for term in found.model.terms if "re(" in term.name)

    beta = found.beta("mean:re(group)")

    # An estimate of the variance is the mean square of effects plus their mean posterior variance.
    posterior = found.model.scale * np.diagonal(found.model.inverse)[effect.columns]
    assert effect.prior_variance == pytest.approx(float(np.mean(beta**2 + posterior)), rel=1e-3)


@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith("log")])
def test_the_response_error_is_carried_over_from_the_predictors(fits, family):
    found = fits[family]
    said = found.predict(models.columns(), standard_errors=True)
    mean, errors = said.mu, said.standard_errors
    ones = np.ones(400)
    slope = {"binomial": mean * (1.0 - mean), "gaussian": ones, "normal": ones}.get(family, mean)

    np.testing.assert_allclose(errors["response"], slope * errors["mean"], rtol=1e-6)


class TwoPredictorMean(GaussianLocationScale):
    """A response whose mean depends on both predictors, as a log-normal's does."""

    def mean(self, etas):
        return etas[0] * np.exp(etas[1])


def test_the_response_error_counts_the_covariance_of_two_predictors(fits):
    found = fits["gaussian"]
    model = replace(found.model, family=TwoPredictorMean("gaussian", offset="exposure"))
    data = rows_of(models.columns(), slice(0, 40))
    both = model.predict(data, standard_errors=True)
    eta, scale = both.fitted["mean"], both.fitted["scale"]
    x = np.zeros((2, 40, model.theta.size))
    for term in model.terms:
        new = Source(data)
        new.numbers("x", "the test")
        group, table = term.new_rows.table(new)
        x[model.family.predictors.index(term.predictor), :, term.columns] = table[:, term.kept][new.groups[group].index]
    jacobian = np.exp(scale)[:, None] * (x[0] + eta[:, None] * x[1])

    expected = np.sqrt(np.einsum("ij,jk,ik->i", jacobian, model.inverse, jacobian))

    seen = data["group"] != "g03"
    np.testing.assert_allclose(both.standard_errors["response"][seen], expected[seen], rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_fits_pickle_predict_without_the_data_and_an_exact_hit_predicts_the_same(tmp_path, family):
    data, case = models.columns(), bound(family).case()
    with gamwarm.open(tmp_path / "fits.h5") as store:
        made = fit(case, options=models.USUAL, store=store)
        again = fit(case, options=models.USUAL, store=store)
    assert again.start.source == "exact"
    packed = pickle.dumps(made)

    carried = pickle.loads(packed)

    said = made.predict(data, standard_errors=True)
    for other in (carried, again):
        found = other.predict(data, standard_errors=True)
        for name in said.fitted:
            np.testing.assert_allclose(found.fitted[name], said.fitted[name], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(found.standard_errors[name], said.standard_errors[name], rtol=1e-8)
    assert carried.case is None
    assert carried.summary() == made.summary()


# -- rows left out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_log_likelihood_of_the_fitted_rows_is_the_fits_own(fits, family):
    data = models.columns()
    kept = data["group"] != "g03"
    found = fits[family]

    said = found.held_out(kept)

    assert said.total == pytest.approx(found.result.inner.log_likelihood, rel=1e-8)
    assert said.per_row.shape == (kept.sum(),)
    assert found.held_out(np.flatnonzero(kept)).total == said.total


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_left_out_are_scored_by_scipys_densities_at_the_predictions(fits, family):
    stats = pytest.importorskip("scipy.stats")
    data = models.columns()
    left = rows_of(data, data["group"] == "g03")
    found = fits[family]
    at = found.predict(left)

    said = found.held_out()

    w = left["trials"]
    if family == "poisson":
        expected = stats.poisson.logpmf(left["poisson"], at.mu)
    elif family == "binomial":
        successes = np.round(left["binomial"] * w)
        expected = stats.binom.logpmf(successes, w, at.mu)
    elif family == "overdispersed":
        theta = np.exp(found.result.rho[-1])
        expected = stats.nbinom.logpmf(left["overdispersed"], theta, theta / (theta + at.mu))
    elif family == "skewed":
        phi = np.exp(found.result.rho[-1])
        expected = w * stats.gamma.logpdf(left["skewed"], 1.0 / phi, scale=at.mu * phi)
    elif family.startswith("log"):
        shape, scale = np.exp(at.fitted["scale"]), np.exp(at.fitted["mean"])
        law = stats.lognorm(shape, scale=scale) if family == "lognormal" else stats.fisk(1.0 / shape, scale=scale)
        times = left[family]
        expected = np.where(left[f"{family} seen"], law.logpdf(times), law.logsf(times))
    else:
        sd = np.exp(at.fitted["scale"]) if family == "gaussian" else np.sqrt(found.model.scale)
        expected = w * stats.norm.logpdf(left["gaussian"], at.mu, sd)
    np.testing.assert_allclose(said.per_row, expected, rtol=1e-9)
    assert said.total == pytest.approx(float(expected.sum()))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).held_out(columns=left).per_row, said.per_row)


def test_a_row_of_weight_zero_scores_nothing(fits):
    data = rows_of(models.columns(), slice(0, 3)) | {"trials": np.array([1.0, 0.0, 2.0])}
    data["gaussian"][1] = 1e200  # its density is zero

    assert fits["gaussian"].held_out(columns=data).per_row[1] == 0.0


# -- wrong input -----------------------------------------------------------------------------------

WRONG = {
    "a missing column": (lambda d: {k: v for k, v in d.items() if k != "z"}, r"term 'mean:z' needs column 'z'"),
    "no offset": (lambda d: {k: v for k, v in d.items() if k != "exposure"}, r"the offset needs column 'exposure'"),
    "a missing value": (lambda d: d | {"z": [1.0, None, 2.0, 3.0, 4.0]}, r"column 'z' has no value at row 1"),
    "outside the knots": (lambda d: d | {"x": np.array([1.0, 2, 3, 4, 99])}, r"'x' holds 99 at row 4.*\[0, 10\]"),
    "an unseen level": (lambda d: d | {"kind": ["a", "b", "z", "a", "a"]}, r"'kind' has the level 'z' at row 2"),
    "another length": (lambda d: d | {"z": np.zeros(4)}, r"has 4 rows, column .* has 5"),
    "text for numbers": (lambda d: d | {"x": list("abcde")}, r"column 'x' holds .*numbers"),
    "no rows": (lambda d: rows_of(d, slice(0, 0)), r"is empty"),
    "no table": (lambda d: 3, r"columns is int; give a data frame"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_predicted_is_refused_by_column_and_row(fits, wrong):
    change, said = WRONG[wrong]
    new = rows_of(models.columns(), slice(0, 5))
    fits["poisson"].predict(new)

    with pytest.raises((InvalidInput, InvalidType), match=said):
        fits["poisson"].predict(change(new))


def test_what_cannot_be_scored_is_refused_with_the_next_step(fits, tmp_path):
    data, found = models.columns(), fits["poisson"]
    with pytest.raises(InvalidInput, match="counts cannot be negative"):
        found.held_out(columns=data | {"poisson": data["poisson"] - 5.0})
    with pytest.raises(InvalidInput, match="the response needs column 'poisson'"):
        found.held_out(columns={name: values for name, values in data.items() if name != "poisson"})
    with pytest.raises(InvalidInput, match="rows and columns; give one"):
        found.held_out([1], columns=data)
    with pytest.raises(InvalidInput, match="row mask has shape"):
        found.held_out(np.ones(3, dtype=bool))
    with pytest.raises(InvalidInput, match=r"held_out\(columns="):
        pickle.loads(pickle.dumps(found)).held_out()
    with pytest.raises(InvalidInput, match="left no row out"):
        fit(bound("poisson").case(), options=models.USUAL).held_out()
    with gamwarm.open(tmp_path / "fits.h5") as store:
        idle = fit(None, store=store, each=True)
    with pytest.raises(InvalidInput, match="no case to fit"):
        idle.predict(data)


def test_a_model_of_an_intercept_alone_predicts_as_many_rows_as_the_columns_have():
    found = fit(bind({"y": [1.0, 2.0, 4.0]}, [Intercept()], Gaussian("y")).case())

    said = found.predict({"y": np.zeros(5)}, standard_errors=True)

    assert said.mu == pytest.approx([7 / 3] * 5)
    assert said.standard_errors["mean"] == pytest.approx([np.std([1, 2, 4], ddof=1) / np.sqrt(3)] * 5)


def test_data_frames_of_any_index_are_predicted_in_their_own_order(fits):
    pandas = pytest.importorskip("pandas")
    data = models.columns()
    new = pandas.DataFrame(rows_of(data, slice(0, 20))).sort_values("z")

    said = fits["poisson"].predict(new)

    expected = fits["poisson"].predict(data).mu[new.index.to_numpy()]
    np.testing.assert_allclose(said.mu, expected, rtol=1e-12)


# -- the summary -----------------------------------------------------------------------------------


def test_the_summary_begins_with_a_line_per_term_within_80_columns():
    data = models.columns()
    flat = {**data, "noise": np.round(np.random.default_rng(1).uniform(0, 1, 400), 2)}
    long = "a column whose name alone takes up more than half of the line"
    terms = [Intercept(), Smooth("x", 12), Smooth("noise", 8), RandomEffect(long)]
    found = fit(bind({**flat, long: data["group"]}, terms, Gaussian("gaussian")).case())

    lines = found.summary().splitlines()

    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["term", "columns", "edf", "log", "lambda"]
    edf = found.edf["mean:s(x)"]
    assert f"mean:s(x)  11  {edf:.2f}  {found.result.rho[0]:.2f}".split() in [line.split() for line in lines]
    assert any(line.split()[:1] == ["mean:s(noise)"] and line.endswith("plateau, at bound") for line in lines)
    assert f"  mean:re({long})" in lines
    assert "no store" in lines
    assert [row.name for row in found.terms] == list(found.names)


def test_the_summary_says_what_the_bound_cut_and_at_which_coordinate():
    data = models.columns()
    data["noise"] = np.round(np.random.default_rng(0).uniform(0, 1, 400), 2)  # unbounded it ends at 5.45
    case = bind(data, [Intercept(), Smooth("x", 12), Smooth("noise", 8)], Gaussian("gaussian")).case()

    found = fit(case, options=gamwarm.BlockwiseFitOptions(rho_bound=2.5))

    assert [row.penalties[0].state for row in found.terms[1:]] == ["", "cut by the bound"]
    assert "cut by the bound" in " ".join(found.summary().split())
