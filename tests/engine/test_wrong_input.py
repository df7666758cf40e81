"""Wrong terms, columns, families and new data: each is refused by a typed error that names the
culprit, and a store that was open at the time is left as it was.
"""

from __future__ import annotations

import datetime
import decimal
import re
from functools import cache

import numpy as np
import pytest

import gamwarm
from gamwarm import FitFailed, InvalidInput, InvalidType
from gamwarm.engine import (
    Binomial,
    Convex,
    Factor,
    Gamma,
    Gaussian,
    GaussianLocationScale,
    Intercept,
    Linear,
    LogLogistic,
    LogNormal,
    Monotone,
    NegativeBinomial,
    Poisson,
    RandomEffect,
    Smooth,
    Tensor,
    bind,
    fit,
)
from gamwarm.families import Family

pd = pytest.importorskip("pandas")

N = 48
NAN, INF = float("nan"), float("inf")
SCALE = Intercept("scale")


def columns(**changed):
    """Columns of every kind; None takes one away."""
    rng = np.random.default_rng(7)
    data = {
        "x": rng.normal(size=N),
        "z": rng.uniform(size=N),
        "g": np.array(list("abcd") * (N // 4)),
        "y": rng.normal(size=N),
        "count": rng.poisson(4.0, size=N).astype(float),
        "flag": np.arange(N) % 2.0,
        "time": rng.exponential(size=N) + 0.01,
        "event": (np.arange(N) % 3 > 0) * 1.0,
    }
    return {name: values for name, values in (data | changed).items() if values is not None}


def put(name, row, value):
    """Return a column with one value changed."""
    values = columns()[name]
    values[row] = value
    return values


# -- terms and families, where they are made -------------------------------------------------------

NOT_A_NAME = "is not the name of a column"
TERMS = {
    "a number for a column": (lambda: Smooth(5), f"Smooth: 5 (int) {NOT_A_NAME}"),
    "None for a column": (lambda: Smooth(None), f"Smooth: None (NoneType) {NOT_A_NAME}"),
    "values for a column": (lambda: Smooth(np.ones(3)), "values belong in a column"),
    "a list for columns": (lambda: Linear(["x", "z"]), "give names one by one"),
    "no column": (lambda: Linear(), "give one or more different column names"),
    "one column twice": (lambda: Linear("x", "x"), "give one or more different column names"),
    "a list for a factor": (lambda: Factor(["g"]), f"Factor: ['g'] (list) {NOT_A_NAME}"),
    "a dict for a random effect": (lambda: RandomEffect({}), f"RandomEffect: {{}} (dict) {NOT_A_NAME}"),
    "one margin": (lambda: Tensor("x"), "give two different column names; for one column use Smooth"),
    "one margin twice": (lambda: Tensor("x", "x"), "give two different column names; for one column use Smooth"),
    "margins in a list": (lambda: Tensor(["x", "z"]), "give names one by one"),
    "numbers for margins": (lambda: Tensor(1, 2), f"Tensor: 1 (int) {NOT_A_NAME}"),
    "one k for two margins": (lambda: Tensor("x", "z", k=5), "give a value per margin"),
    "a surface of 40,000 coefficients": (lambda: Tensor("x", "z", k=(200, 200)), "has 40000 coefficients"),
    "text for k": (lambda: Smooth("x", k="8"), "Smooth('x'): k must be an integer; it is '8'"),
    "a fraction for k": (lambda: Smooth("x", k=8.5), "k must be an integer"),
    "a boolean for k": (lambda: Smooth("x", k=True), "k must be an integer"),
    "k = 2": (lambda: Smooth("x", k=2), "k = 2 is too small; use k >= 4"),
    "k = 1,000,000": (lambda: Smooth("x", k=10**6), "k = 1000000 is too large; use k <= 2000"),
    "a monotone k = 1,000,000": (lambda: Monotone("x", k=10**6), "use k <= 2000"),
    "text for a degree": (lambda: Smooth("x", degree="3"), "degree must be an integer"),
    "no order": (lambda: Smooth("x", penalty_order=0), "penalty_order is 0; it cannot be below 1"),
    "a number for a predictor": (lambda: Smooth("x", predictor=5), "Smooth('x'): predictor must be a string"),
    "a list for a predictor": (lambda: Intercept(["mean"]), "Intercept: predictor must be a string"),
    "None for a predictor": (lambda: Linear("x", predictor=None), "predictor must be a string"),
    "a factor of no predictor": (lambda: Factor("g", predictor=""), "predictor is empty"),
    "a random effect of 3": (lambda: RandomEffect("g", predictor=3), "predictor must be a string"),
    "a surface of 3": (lambda: Tensor("x", "z", predictor=3), "predictor must be a string"),
    "text for a log lambda": (lambda: Smooth("x", log_lambda="2"), "log_lambda must be a number; it is '2'"),
    "a log lambda of nan": (lambda: Smooth("x", log_lambda=NAN), "log_lambda is nan; it must be finite"),
    "a log lambda of inf": (lambda: Smooth("x", log_lambda=INF), "log_lambda is inf; it must be finite"),
    "a log lambda of 1e9": (lambda: Smooth("x", log_lambda=1e9), "it is a natural logarithm"),
    "a number for by": (lambda: Smooth("x", by=5), f"Smooth('x'): by: 5 (int) {NOT_A_NAME}"),
    "a list for by": (lambda: Smooth("x", by=["g"]), "give names one by one"),
    "by the column itself": (lambda: Smooth("x", by="x"), "by is the smooth's own column"),
    "tied without by": (lambda: Smooth("x", tied=True), "name that column"),
    "a word for tied": (lambda: Smooth("x", by="g", tied="yes"), "tied must be True or False"),
    "sideways": (lambda: Monotone("x", direction="sideways"), "use one of ['increasing', 'decreasing']"),
    "no direction": (lambda: Monotone("x", direction=None), "use one of ['increasing', 'decreasing']"),
    "increasing for convex": (lambda: Convex("x", direction="increasing"), "use one of ['convex', 'concave']"),
    "a number for a response": (lambda: Gaussian(5), f"Gaussian: response: 5 (int) {NOT_A_NAME}"),
    "None for a response": (lambda: Poisson(None), f"Poisson: response: None (NoneType) {NOT_A_NAME}"),
    "values for weights": (
        lambda: Gaussian("y", weights=np.ones(3)),
        f"Gaussian: weights: this (ndarray) {NOT_A_NAME}",
    ),
    "a number for an offset": (lambda: Poisson("count", offset=3.0), f"Poisson: offset: 3.0 (float) {NOT_A_NAME}"),
    "True for an event": (lambda: LogNormal("time", event=True), f"LogNormal: event: True (bool) {NOT_A_NAME}"),
}


@pytest.mark.parametrize("wrong", TERMS)
def test_a_wrong_term_or_family_is_refused_where_it_is_made(wrong):
    make, said = TERMS[wrong]
    with pytest.raises((InvalidInput, InvalidType), match=re.escape(said)):
        make()


# -- columns ---------------------------------------------------------------------------------------

TIMES = [datetime.timedelta(days=i) for i in range(N)]
NUMBERS = {
    "NaN": (lambda: put("x", 3, NAN), "column 'x' has no value at row 3"),
    "infinity": (lambda: put("x", 3, INF), "column 'x' holds inf at row 3"),
    "a huge number": (lambda: put("x", 3, 1e200), "column 'x' holds 1e+200 at row 3, too large to square"),
    "an integer beyond any float": (lambda: [10**400, *range(N - 1)], "holds an integer of more than 308 digits"),
    "a tiny range": (lambda: columns()["x"] * 1e-200, "column 'x'"),
    "complex numbers": (lambda: columns()["x"] + 0j, "column 'x' holds complex128 values"),
    "text": (lambda: columns()["x"].astype(str), "column 'x' holds <U32 values ("),
    "text in an object array": (lambda: columns()["x"].astype(str).astype(object), "column 'x' holds object values ("),
    "pandas text": (lambda: pd.array(columns()["x"].astype(str), dtype="string"), "and term 'mean"),
    "bytes": (lambda: columns()["x"].astype("S"), "column 'x' holds |S32 values"),
    "one word": (lambda: [*range(N - 1), "many"], f"('many' at row {N - 1})"),
    "categories": (lambda: pd.Categorical(list("ab") * (N // 2)), "use Factor or RandomEffect for groups"),
    "a missing nullable": (lambda: pd.array([None, *range(N - 1)], dtype="Int64"), "has no value at row 0"),
    "a mask": (lambda: np.ma.masked_less(columns()["x"], 0.0), "has no value at row"),
    "dates": (lambda: pd.date_range("2020", periods=N), "holds dates or durations"),
    "dates with a zone": (lambda: pd.date_range("2020", periods=N, tz="UTC"), "holds dates or durations"),
    "dates in a list": (lambda: [datetime.date(2020, 1, 1)] * N, "holds dates or durations"),
    "durations in a list": (lambda: TIMES, "holds dates or durations"),
    "a matrix": (lambda: np.ones((N, 2)), f"column 'x' has shape ({N}, 2)"),
    "a scalar": (lambda: 3.0, "column 'x' has shape ()"),
    "a generator": (lambda: (i for i in range(N)), "column 'x' has shape ()"),
    "another length": (lambda: np.ones(N - 1), f"column 'x' has {N - 1} rows, column 'y' has {N}"),
    "no rows": (lambda: np.ones(0), f"column 'x' has 0 rows, column 'y' has {N}"),
    "one value": (lambda: np.ones(N), "column 'x'"),
    "no column": (lambda: None, "needs column 'x'"),
}


@pytest.mark.parametrize("term", [Smooth("x", 6), Linear("x"), Tensor("x", "z", k=(4, 4)), Monotone("x", 6)], ids=str)
@pytest.mark.parametrize("wrong", NUMBERS)
def test_a_wrong_covariate_is_refused_by_its_column_and_row(wrong, term):
    make, said = NUMBERS[wrong]
    with pytest.raises((InvalidInput, InvalidType), match=re.escape(said)):
        bind(columns(x=make()), [Intercept(), term], Gaussian("y"))


LEVELS = {
    "NaN": (lambda: np.where(np.arange(N) == 3, NAN, 1.0), "column 'g' has no value at row 3"),
    "infinity": (lambda: np.where(np.arange(N) == 3, INF, 1.0), "column 'g' has no level at row 3"),
    "complex numbers": (lambda: np.arange(N) % 2 + 0j, "column 'g' holds complex128 values"),
    "types that do not sort": (lambda: np.array([1, "a"] * (N // 2), dtype=object), "column 'g' mixes types"),
    "one level": (lambda: ["a"] * N, "'g' has one level"),
    "a matrix": (lambda: np.ones((N, 2)), "column 'g' has shape"),
    "no column": (lambda: None, "needs column 'g'"),
}


@pytest.mark.parametrize("term", [Factor("g"), RandomEffect("g"), Smooth("x", 6, by="g")], ids=str)
@pytest.mark.parametrize("wrong", LEVELS)
def test_a_wrong_column_of_levels_is_refused_by_its_name(wrong, term):
    make, said = LEVELS[wrong]
    with pytest.raises((InvalidInput, InvalidType), match=re.escape(said)):
        bind(columns(g=make()), [Intercept(), term], Gaussian("y"))


def test_a_curve_per_value_of_a_numeric_column_is_refused_with_the_next_step():
    with pytest.raises(InvalidType, match=re.escape("by='z' is a numeric column")):
        bind(columns(), [Intercept(), Smooth("x", 6, by="z")], Gaussian("y"))


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([RandomEffect("g")], "term 'mean:re(g)' has 10001 coefficients; this engine takes 10000"),
        ([Smooth("x", 6, by="g")], "term 'mean:s(x):g' has 60006 coefficients"),
        ([Factor("z"), RandomEffect("half")], "the model has 10001 coefficients"),
    ],
    ids=["levels", "curves", "both"],
)
def test_more_coefficients_than_a_dense_hessian_can_have_are_refused_before_memory_is_taken(terms, said, monkeypatch):
    n = 10_001
    eye = np.eye
    monkeypatch.setattr(np, "eye", lambda rows: eye(rows) if rows < 1000 else np.zeros((1, rows)))  # else 0.8 GB
    monkeypatch.setattr("gamwarm.engine.terms.penalty_scale", lambda *_: 1.0)
    levels = np.array([f"level {i}" for i in range(n)])
    data = {"x": np.arange(n) * 1.0, "y": np.arange(n) % 7.0, "g": levels, "z": levels[: n // 2].repeat(2)}
    data |= {"z": levels[np.arange(n) // 2], "half": levels[np.arange(n) % 5001]}

    with pytest.raises(InvalidInput, match=re.escape(said)):
        bind(data, terms, Gaussian("y"))


NUMBERS_IN_DISGUISE = {
    "objects": lambda x: x.astype(object),
    "decimals": lambda x: [decimal.Decimal(repr(float(value))) for value in x],
    "nullable": lambda x: pd.array(x, dtype="Float64"),
    "a mask of nothing": np.ma.array,
    "a longer type": lambda x: x.astype(np.longdouble),
}


@pytest.mark.parametrize("disguise", NUMBERS_IN_DISGUISE)
def test_numbers_of_any_type_are_the_same_fit(disguise):
    model = [Intercept(), Smooth("x", 6)], Gaussian("y")
    same = NUMBERS_IN_DISGUISE[disguise](columns()["x"])

    assert bind(columns(x=same), *model).case().problem().key == bind(columns(), *model).case().problem().key


@pytest.mark.parametrize("names", [("x", "z"), ("a", "b', 'c"), ("a', 'b", "c")])
def test_a_column_whose_name_reads_like_two_is_not_taken_for_them(names):
    data = columns()
    data = {"y": data["y"], names[0]: data["x"], names[1]: data["z"], ", ".join(names): data["flag"]}

    alone = fit(bind(data, [Intercept(), Linear(", ".join(names))], Gaussian("y")).case())
    both = fit(bind(data, [Intercept(), Linear(*names), Linear(", ".join(names))], Gaussian("y")).case())

    assert [len(part) for part in both.result.block_beta] == [1, 2, 1]
    assert alone.converged
    assert both.converged


# -- responses, weights, offsets, through a store --------------------------------------------------

RESPONSES = {
    "a constant": (Gaussian("y"), {"y": np.ones(N)}, "column 'y' is constant"),
    "a constant, scale": (GaussianLocationScale("y"), {"y": np.ones(N)}, "column 'y' is constant"),
    "text": (Gaussian("y"), {"y": columns()["y"].astype(str)}, "column 'y' holds"),
    "complex": (Gaussian("y"), {"y": columns()["y"] * 1j}, "column 'y' holds complex128"),
    "missing": (Gaussian("y"), {"y": put("y", 2, NAN)}, "column 'y' has no value at row 2"),
    "no response": (Gaussian("y"), {"y": None}, "the response needs column 'y'"),
    "a negative count": (Poisson("count"), {"count": put("count", 2, -1.0)}, "counts cannot be negative"),
    "no counts": (Poisson("count"), {"count": np.zeros(N)}, "is zero in all of these rows"),
    "half a count": (NegativeBinomial("count"), {"count": put("count", 2, 0.5)}, "counts must be whole numbers"),
    "huge counts": (NegativeBinomial("count"), {"count": put("count", 2, 1e9)}, "use Gamma or Gaussian"),
    "two of one": (Binomial("flag"), {"flag": put("flag", 2, 2.0)}, "'flag' holds 2 at row 2; give 0/1"),
    "yes and no": (Binomial("flag"), {"flag": ["yes", "no"] * (N // 2)}, "column 'flag' holds <U3 values ('yes'"),
    "zero": (Gamma("time"), {"time": put("time", 2, 0.0)}, "must be positive"),
    "a time of zero": (LogNormal("time"), {"time": put("time", 2, 0.0)}, "times must be positive"),
    "a negative time": (LogLogistic("time"), {"time": put("time", 2, -1.0)}, "times must be positive"),
    "no event": (LogNormal("time", event="event"), {"event": np.zeros(N)}, "'event' is 0 in all"),
    "an event of 2": (LogLogistic("time", event="event"), {"event": put("event", 2, 2.0)}, "give 1 where the event"),
    "words for events": (LogNormal("time", event="event"), {"event": ["dead", "alive"] * (N // 2)}, "'dead' at row 0"),
    "no such weights": (Gaussian("y", weights="w"), {}, "column 'w'"),
    "a negative weight": (Gaussian("y", weights="w"), {"w": put("y", 2, -9.0)}, "column 'w' holds"),
    "no weight": (Gaussian("y", weights="w"), {"w": np.zeros(N)}, "column 'w': all weights are zero"),
    "a tiny weight": (Poisson("count", weights="w"), {"w": np.full(N, 1e-300)}, "'w' holds 1e-300 at row 0; too small"),
    "a huge weight": (Poisson("count", weights="w"), {"w": np.full(N, 1e300)}, "'w' holds 1e+300 at row 0, too large"),
    "weights of another length": (Poisson("count", weights="w"), {"w": np.ones(N + 1)}, f"'w' has {N + 1} rows"),
    "a matrix of weights": (Poisson("count", weights="w"), {"w": np.ones((N, 2))}, "'w' has shape"),
    "no such offset": (Poisson("count", offset="w"), {}, "the offset needs column 'w'"),
    "a huge offset": (NegativeBinomial("count", offset="w"), {"w": np.full(N, 1e300)}, "'w' holds 1e+300 at row 0"),
    "an infinite offset": (Poisson("count", offset="w"), {"w": np.full(N, -INF)}, "'w' holds -inf at row 0"),
    "one number for offsets": (Poisson("count", offset="w"), {"w": 1.0}, "'w' has shape ()"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with gamwarm.open(tmp_path_factory.mktemp("wrong") / "fits.gamwarm") as opened:
        kept = fit(bind(columns(), [Intercept(), Linear("x")], Gaussian("y")).case(), store=opened)
        assert kept.kept.record.written
        yield opened


@cache
def scaled(family):
    return [Intercept(), Linear("x"), *([SCALE] if "scale" in family.predictors else [])]


@pytest.mark.parametrize("wrong", RESPONSES)
def test_a_wrong_response_is_refused_by_its_column_and_nothing_is_written(wrong, store):
    family, changed, said = RESPONSES[wrong]
    before = store.generation, len(store)

    with pytest.raises((InvalidInput, InvalidType), match=re.escape(said)):
        fit(bind(columns(**changed), scaled(family), family).case(), store=store)

    assert (store.generation, len(store)) == before


EXACT = {
    "Gaussian": (Gaussian("e"), lambda x: 2.0 * x),
    "GaussianLocationScale": (GaussianLocationScale("e"), lambda x: 2.0 * x),
    "Gamma": (Gamma("e"), lambda x: np.exp(2.0 * x)),
    "LogNormal": (LogNormal("e"), lambda x: np.exp(2.0 * x)),
    "LogLogistic": (LogLogistic("e"), lambda x: np.exp(2.0 * x)),
}


@pytest.mark.parametrize("family", EXACT)
def test_a_response_that_the_model_fits_exactly_is_said_to_be_one_and_nothing_is_written(family, store):
    family, response = EXACT[family]
    before = store.generation, len(store)
    case = bind(columns(e=response(columns()["x"])), scaled(family), family).case()

    with pytest.raises(FitFailed, match=r"fits the (response|times) exactly"):
        fit(case, store=store)

    assert (store.generation, len(store)) == before


def test_a_likelihood_that_overflows_is_a_failed_fit_and_no_warning(store):
    data = columns(y=(columns()["g"] == "a") * 1.0)
    with pytest.raises(FitFailed, match="the scale of 48 of 48 rows tends to 0"):
        fit(bind(data, [Intercept(), Factor("g"), SCALE], GaussianLocationScale("y")).case(), store=store)


FITS = {
    "a bound model": (lambda bound: fit(bound), "case is Bound; make one with bind"),
    "columns": (lambda bound: fit(columns()), "case is dict; make one with bind"),
    "no case": (lambda bound: fit(None), "case is None"),
    "a path for a store": (lambda bound: fit(bound.case(), store="fits.gamwarm"), "gamwarm.open(path)"),
    "a dict of options": (lambda bound: fit(bound.case(), options={}), "options is dict"),
    "a list of attributes": (lambda bound: fit(bound.case(), attributes=[1]), "attributes is list"),
    "attributes of a fold": (lambda bound: fit(bound.without("g", "a"), attributes=[1]), "attributes is list"),
    "a number for seeds": (lambda bound: fit(bound.case(), group_seeds=5), "group_seeds: 5 (int)"),
    "a list for seeds": (lambda bound: fit(bound.case(), group_seeds=["g"]), "give names one by one"),
    "seeds of no column": (lambda bound: fit(bound.case(), group_seeds="none"), "needs column 'none'"),
    "a word for a switch": (lambda bound: fit(bound.case(), checkpoint="no"), "checkpoint must be True or False"),
    "a word for a Hessian": (lambda bound: fit(bound.case(), outer_hessian="no"), "outer_hessian must be True"),
    "a word for each": (lambda bound: fit(bound.case(), each="no"), "each must be True or False"),
    "no rows": (lambda bound: bound.case([]), "a case without rows cannot be fitted"),
    "a fraction of a row": (lambda bound: bound.case([0.5]), "rows must be None, a boolean mask or integer"),
    "a list for a column": (lambda bound: bound.without(["g"], "a"), "give names one by one"),
    "a level that is not there": (lambda bound: bound.without("g", "z"), "has no value 'z' to leave out"),
}


@pytest.mark.parametrize("wrong", FITS)
def test_wrong_arguments_of_a_fit_are_refused_by_name(wrong):
    call, said = FITS[wrong]
    bound = bind(columns(), [Intercept(), Linear("x"), RandomEffect("g")], Poisson("count"))
    with pytest.raises((InvalidInput, InvalidType), match=re.escape(said)):
        call(bound)


MODELS = {
    "a family class": ([Intercept()], Gaussian, "family is <class"),
    "the name of a family": ([Intercept()], "gaussian", "family is 'gaussian'"),
    "the base of families": ([Intercept()], Family("y"), "use one of gamwarm.engine's"),
    "a family for the exact key": ([Intercept()], gamwarm.family("mine", a=1.0), "use one of gamwarm.engine's"),
    "a term class": ([Intercept], Gaussian("y"), "is not a term; use instances of"),
    "a formula": ("y ~ s(x)", Gaussian("y"), "'y' is not a term"),
    "no terms": ([], Gaussian("y"), "predictor 'mean' has no term"),
    "None for terms": (None, Gaussian("y"), "terms is None"),
    "a predictor of another family": ([Intercept(), Smooth("x", predictor="sd")], Gaussian("y"), "predictor 'sd'"),
}


@pytest.mark.parametrize("wrong", MODELS)
def test_a_wrong_model_is_refused_with_the_next_step(wrong):
    terms, family, said = MODELS[wrong]
    with pytest.raises((InvalidInput, InvalidType), match=re.escape(said)):
        bind(columns(), terms, family)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("family", [Gaussian("y"), Poisson("count"), Gamma("time"), LogNormal("time")], ids=repr)
def test_a_handful_of_rows_is_an_answer_or_a_typed_error(n, family):
    data = {name: values[:n] for name, values in columns().items()}
    model = [Intercept(), Smooth("x", 6), *scaled(family)[2:]], family
    if n < 2:
        with pytest.raises((InvalidInput, InvalidType), match=r"empty|two different|constant"):
            bind(data, *model)
        return
    try:
        done = fit(bind(data, *model).case())
    except FitFailed as error:
        said = str(error)
    else:
        said = "" if done.converged else done.reason
    assert not said or re.search("determine|optimum|exactly|identifiable", said), said


# -- new rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Poisson("count"), Gamma("time"), LogNormal("time"), LogLogistic("time")], ids=repr)
def test_a_mean_far_beyond_the_data_is_infinite_and_no_warning(family):
    done = fit(bind(columns(), scaled(family), family).case())
    found = done.predict({"x": [1e9, -1e9]}, standard_errors=True)

    assert np.isinf(found.mu).any()
    assert not np.isnan(found.mu).any()
    assert np.isinf(found.standard_errors["response"][np.isinf(found.mu)]).all()


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"x": [1e200]}, "'x' holds 1e+200 at row 0, too large"),
        ({"x": ["0.5"]}, "column 'x' holds <U3 values ('0.5' at row 0)"),
        ({"x": []}, "column 'x' is empty"),
        ({"z": [0.5]}, "needs column 'x'"),
    ],
)
def test_wrong_new_rows_are_refused_by_column(new, said):
    done = fit(bind(columns(), [Intercept(), Linear("x")], Gaussian("y")).case())
    with pytest.raises((InvalidInput, InvalidType), match=re.escape(said)):
        done.predict(new)


def test_standard_errors_are_asked_for_by_a_truth_value():
    done = fit(bind(columns(), [Intercept(), Linear("x")], Gaussian("y")).case())
    with pytest.raises(InvalidType, match="standard_errors must be True or False"):
        done.predict(columns(), standard_errors="yes")
