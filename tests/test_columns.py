"""Columns as users have them: missing values are refused by column and row, and two indexes are
never paired by position.
"""

from __future__ import annotations

import datetime
import decimal
import re

import numpy as np
import pytest

from gamwarm import GamwarmError, InvalidInput, InvalidType
from gamwarm.columns import columns_of, known_values, level_values, numeric_values
from gamwarm.engine import Binomial, Factor, Gaussian, Intercept, Linear, RandomEffect, Smooth, bind, fit
from gamwarm.folds import folds_of

pd = pytest.importorskip("pandas")

N = 24
LETTERS = list("abcdef") * (N // 6)
DAYS = np.datetime64("2020-01-01") + np.arange(N) * np.timedelta64(1, "D")


def holed(values, hole):
    """The list with a hole at row 3."""
    return [*list(values)[:3], hole, *list(values)[4:]]


MISSING_TEXT = {
    "None in a list": holed(LETTERS, None),
    "NaN in a list of strings": holed(LETTERS, float("nan")),
    "None in an object array": np.array(holed(LETTERS, None), dtype=object),
    "NaN in an object array": np.array(holed(LETTERS, np.nan), dtype=object),
    "pd.NA in an object array": np.array(holed(LETTERS, pd.NA), dtype=object),
    "NaT in an object array": np.array(holed(LETTERS, pd.NaT), dtype=object),
    "a masked constant in an object array": np.array(holed(LETTERS, np.ma.masked), dtype=object),
    "a signalling decimal": np.array(holed(LETTERS, decimal.Decimal("sNaN")), dtype=object),
    "a masked array": np.ma.array(LETTERS, mask=[i == 3 for i in range(N)]),
    "pandas string": pd.Series(holed(LETTERS, pd.NA), dtype="string"),
    "pandas object": pd.Series(holed(LETTERS, None), dtype=object),
    "pandas str": pd.Series(holed(LETTERS, None)),
    "pandas category": pd.Series(pd.Categorical(holed(LETTERS, None))),
    "pandas boolean": pd.Series(holed([True, False] * 12, pd.NA), dtype="boolean"),
    "pandas period": pd.Series(pd.period_range("2020-01", periods=N, freq="M")).mask(np.arange(N) == 3),
}
if hasattr(np.dtypes, "StringDType"):  # NumPy 2
    MISSING_TEXT |= {
        "NumPy strings, NaN": np.array(holed(LETTERS, np.nan), dtype=np.dtypes.StringDType(na_object=np.nan)),
        "NumPy strings, None": np.array(holed(LETTERS, None), dtype=np.dtypes.StringDType(na_object=None)),
    }
MISSING_NUMBERS = {
    "NaN": np.array(holed(range(N), np.nan)),
    "half precision": np.array(holed(range(N), np.nan), dtype=np.float16),
    "None in a list of numbers": holed(range(N), None),
    "pd.NA": holed(range(N), pd.NA),
    "a masked array of numbers": np.ma.array(np.arange(N), mask=[i == 3 for i in range(N)]),
    "Int64": pd.Series(holed(range(N), pd.NA), dtype="Int64"),
    "Float64": pd.Series(holed(range(N), pd.NA), dtype="Float64"),
}
MISSING_TIMES = {
    "dates": np.array(holed(DAYS, np.datetime64("NaT", "D"))),
    "durations": np.array(holed(DAYS - DAYS[0], np.timedelta64("NaT", "D"))),
    "pandas dates": pd.Series(DAYS).mask(np.arange(N) == 3),
    "pandas dates with a zone": pd.Series(DAYS).dt.tz_localize("UTC").mask(np.arange(N) == 3),
    "pandas durations": pd.Series(DAYS - DAYS[0]).mask(np.arange(N) == 3),
}
MISSING = MISSING_TEXT | MISSING_NUMBERS | MISSING_TIMES


def others(name):
    """Columns of polars and Arrow with a null at row 3, where these are installed."""
    library = pytest.importorskip(name, exc_type=ImportError)
    numbers, dates = holed(range(N), None), holed([datetime.date(2020, 1, 1 + i) for i in range(N)], None)
    if name == "polars":
        return {
            "numbers": library.Series(numbers),
            "text": library.Series(holed(LETTERS, None)),
            "categories": library.Series(holed(LETTERS, None), dtype=library.Categorical),
            "dates": library.Series(dates),
            "truth": library.Series(holed([True, False] * 12, None)),
        }
    return {
        "numbers": library.array(numbers),
        "chunks": library.chunked_array([numbers[:5], numbers[5:]]),
        "text": library.array(holed(LETTERS, None)),
        "categories": library.array(holed(LETTERS, None)).dictionary_encode(),
        "dates": library.array(dates),
        "pandas": pd.Series(numbers, dtype="int64[pyarrow]"),
        "pandas text": pd.Series(holed(LETTERS, None), dtype="string[pyarrow]"),
    }


def test_a_missing_number_is_named_as_it_is_written():
    with pytest.raises(InvalidInput, match=re.escape("y has no value at row 1 (nan); drop")):
        known_values(np.array([1.0, np.nan]), "y")


@pytest.mark.parametrize("what", MISSING)
def test_a_group_without_a_label_is_refused_with_its_row(what):
    with pytest.raises(GamwarmError, match=r"groups has no value at row 3 \([^;]*\); drop"):
        folds_of(MISSING[what])
    columns = {"y": np.arange(N) * 1.0, "g": MISSING[what]}
    for term in (Factor("g"), RandomEffect("g")):
        with pytest.raises(GamwarmError, match="column 'g' has no value at row 3 "):
            bind(columns, [Intercept(), term], Gaussian("y"))


@pytest.mark.parametrize("what", MISSING)
@pytest.mark.parametrize("place", ["response", "weights", "offset", "linear", "smooth"])
def test_a_number_that_is_missing_is_refused_with_its_row(what, place):
    columns = {name: np.linspace(1.0, 2.0, N) ** 2 for name in ("weights", "offset", "linear", "smooth")}
    columns["response"] = np.sin(np.arange(N))
    columns[place] = MISSING[what]

    with pytest.raises(GamwarmError, match=f"column '{place}' has no value at row 3 "):
        bind(columns, [Intercept(), Linear("linear"), Smooth("smooth", 5)], Gaussian("response", "weights", "offset"))


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_a_null_of_polars_or_arrow_is_refused_with_its_row(library):
    for kind, column in others(library).items():
        with pytest.raises(GamwarmError, match="g has no value at row 3 "):
            level_values(column, "g")
        with pytest.raises(GamwarmError, match="x has no value at row 3 "):
            numeric_values(column, "x")
        assert len(known_values(column.slice(4), kind)) == N - 4 if hasattr(column, "slice") else True


@pytest.mark.parametrize(
    "column",
    [
        np.array([1.0, 2.0, np.inf]),
        [1.0, -np.inf, 2.0],
        pd.Series([1.0, np.inf, 2.0]),
        np.array([1, np.inf], dtype=object),
    ],
)
def test_infinity_is_neither_a_number_to_fit_nor_a_group(column):
    with pytest.raises(InvalidInput, match=r"x holds -?inf at row"):
        numeric_values(column, "x")
    with pytest.raises(InvalidInput, match="groups has no level at row"):
        folds_of(column)


def test_an_integer_beyond_binary64_is_refused():
    with pytest.raises(InvalidInput, match="x holds an integer of more than 308 digits"):
        numeric_values([1, 10**400], "x")


@pytest.mark.parametrize("column", [np.array([1j, 2.0]), [1.0, 2j], np.zeros(2, dtype=[("a", float)])])
def test_complex_numbers_and_records_are_refused(column):
    for take in (numeric_values, level_values):
        with pytest.raises(InvalidType, match=r"x holds .* values; give real numbers"):
            take(column, "x")


def test_dates_are_groups_by_their_day_and_no_numbers():
    with pytest.raises(InvalidType, match=r"holds dates or durations .*numpy.timedelta64\(1, 'D'\)"):
        bind({"d": pd.Series(DAYS), "y": np.arange(N) * 1.0}, [Intercept(), Smooth("d", 5)], Gaussian("y"))
    noon = pd.Series(np.array(["2013-01-01", "2013-02-01T12:00"], dtype="datetime64[ns]").repeat(3))
    assert sorted(fold.group for fold in folds_of(noon)) == ["2013-01-01", "2013-02-01T12:00"]
    rng = np.random.default_rng(0)
    bound = bind({"d": noon, "y": rng.normal(size=6)}, [Intercept(), RandomEffect("d")], Gaussian("y"))
    assert bound.without("d", noon[0]).n_rows == 3
    assert bound.without("d", noon.to_numpy()[5]).n_rows == 3


@pytest.mark.parametrize("library", ["polars", "pyarrow", "records"])
def test_a_table_of_another_library_is_the_same_model(library):
    rng = np.random.default_rng(1)
    data = {"x": rng.normal(size=60), "y": rng.normal(size=60), "g": LETTERS * 2 + LETTERS[:12]}
    terms = [Intercept(), Smooth("x", 6), RandomEffect("g")]
    if library == "polars":
        table = pytest.importorskip("polars").DataFrame(data)
    elif library == "pyarrow":
        table = pytest.importorskip("pyarrow", exc_type=ImportError).table(data)
    else:
        table = pd.DataFrame(data).to_records(index=False)

    plain, taken = (bind(each, terms, Gaussian("y")).case().problem() for each in (data, table))

    assert taken.key == plain.key


@pytest.mark.parametrize("table", [None, 3, "text", [1.0], np.zeros((2, 2)), pd.Series([1.0]), pd.DataFrame])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(InvalidType, match="give a data frame, or a mapping"):
        columns_of(table)


# -- indexes ---------------------------------------------------------------------------------------


def frame(n=60):
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "x": rng.uniform(0, 10, n),
            "z": rng.normal(size=n),
            "y": rng.normal(size=n),
            "w": rng.uniform(1, 2, n),
            "o": rng.normal(size=n),
            "g": rng.integers(0, 4, n),
        }
    )


def bound_of(columns):
    terms = [Intercept(), Smooth("x", 6), Linear("z"), RandomEffect("g")]
    return bind(columns, terms, Gaussian("y", weights="w", offset="o"))


MULTI = pd.MultiIndex.from_product([range(6), range(10)])
CHANGES = {
    "shuffled": lambda s: s.sample(frac=1, random_state=1),
    "sorted by its values": lambda s: s.sort_values(),
    "reversed": lambda s: s[::-1],
    "renumbered": lambda s: s.set_axis(np.arange(60) + 1),
    "a text index": lambda s: s.set_axis([f"row {i}" for i in range(60)]),
    "a MultiIndex": lambda s: s.set_axis(MULTI),
    "duplicates": lambda s: s.set_axis(np.arange(60) // 2),
}


@pytest.mark.parametrize("column", ["x", "z", "y", "w", "o", "g"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_column_with_another_index_is_refused_by_name(change, column):
    data = frame()
    columns = {name: data[name] for name in data}
    columns[column] = CHANGES[change](columns[column])

    with pytest.raises(InvalidInput, match="has another index than column") as refused:
        bound_of(columns)
    assert f"'{column}'" in str(refused.value)


@pytest.mark.parametrize("change", ["shuffled", "a text index", "a MultiIndex", "duplicates"])
def test_one_index_for_all_is_taken_whatever_it_is(change):
    data = frame()
    changed = CHANGES[change](data)
    mixed = {name: changed[name] for name in changed} | {"w": changed["w"].to_numpy()}

    assert bound_of(mixed).case().problem().key == bound_of(changed).case().problem().key


def test_a_column_that_no_one_reads_may_have_any_index():
    data = frame()

    bound_of({**{name: data[name] for name in data}, "unused": data["x"][::-1]})


def test_a_mask_of_rows_is_compared_with_the_data():
    data = frame()
    bound = bound_of(data)
    mask = data["g"] != 2

    assert bound.case(mask).n_rows == int(mask.sum())
    assert bound.case(mask.to_numpy()).n_rows == int(mask.sum())
    with pytest.raises(InvalidInput, match="the mask of rows has another index than column"):
        bound.case(mask.sample(frac=1, random_state=1))
    with pytest.raises(InvalidInput, match="rows has no value at row 3"):
        bound.case(pd.Series(holed(mask, pd.NA), dtype="boolean"))
    with pytest.raises(InvalidInput, match="rows has no value at row 3"):
        bound.case(np.ma.array(mask.to_numpy(), mask=np.arange(60) == 3))


def test_folds_of_a_column_in_another_order_are_not_fitted():
    data = frame()
    bound = bound_of(data)
    for fold in folds_of(data["g"]):
        assert bound.case(fold.rows).n_rows == fold.n_rows == int(np.asarray(fold.rows).sum())
        assert np.array_equal(fold.left_out, ~fold.rows)
        assert data["x"].to_numpy()[fold.rows].size == fold.n_rows

    for fold in folds_of(data["g"].sample(frac=1, random_state=1)):
        with pytest.raises(InvalidInput, match="another index"):
            bound.case(fold.rows)


def test_a_fit_of_a_frame_in_another_order_is_the_same_answer():
    data = frame()

    right, shuffled = (fit(bound_of(each).case()).result.objective for each in (data, CHANGES["shuffled"](data)))

    assert shuffled == pytest.approx(right, abs=1e-6)


def test_a_response_of_trials_may_be_a_nullable_column_without_nulls():
    data = frame()
    data["b"] = pd.array((data["x"] > 5).astype(int), dtype="Int64")

    assert fit(bind(data, [Intercept(), Linear("z")], Binomial("b")).case()).converged
