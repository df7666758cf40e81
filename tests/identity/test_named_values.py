"""`gamwarm.family(kind, **values)`: what is different has another fingerprint, what is equal has
the same one, and what cannot be told apart is refused.
"""

from __future__ import annotations

import datetime
import decimal
import itertools
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import gamwarm
from gamwarm import BlockwiseFitOptions, FitProblem, GamwarmError, InvalidInput, InvalidType
from gamwarm.problem import DistributedRows
from tests.support.problems import block
from tests.support.thread_ranks import on_ranks

pd = pytest.importorskip("pandas")


def print_of(value):
    return gamwarm.family("tests.values", value=value).persistent_warm_start_fingerprint((), None)


Y = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 1000.0])
LETTERS = ["a", "b", "a"]
Pair = namedtuple("Pair", "x y")
Couple = namedtuple("Couple", "a b")


def frame(**changes):
    return pd.DataFrame({"x": [1.0, 2.0, 3.0], "g": LETTERS}, **changes)


DIFFERENT = {
    "masks": [
        Y,
        np.ma.array(Y, mask=Y > 999),
        np.ma.array(Y, mask=Y > 3),
        np.ma.array(Y, mask=Y > 2),
        np.ma.array(Y + 1.0, mask=Y > 999),
    ],
    "masks over equal numbers": [np.ma.array([0.0, 0.0, 1.0], mask=mask) for mask in ([1, 0, 0], [0, 1, 0], [0, 0, 0])],
    "column names": [frame(), frame().rename(columns={"x": "z"}), frame()[["g", "x"]]],
    "indexes": [
        frame(),
        frame(index=[0, 2, 1]),
        frame(index=["0", "1", "2"]),
        frame(index=pd.Index([0, 1, 2], name="row")),
        frame(index=pd.MultiIndex.from_tuples([(0, 0), (0, 1), (1, 0)])),
        frame(index=pd.MultiIndex.from_tuples([(0, 0), (0, 1), (1, 1)])),
        frame(index=pd.date_range("2020", periods=3)),
        frame(index=pd.date_range("2020", periods=3, tz="UTC")),
    ],
    "names of a series": [pd.Series(Y), pd.Series(Y, name="y"), pd.Series(Y[::-1]), Y],
    "categories": [
        pd.Series(pd.Categorical(LETTERS, ["a", "b"])),
        pd.Series(pd.Categorical(LETTERS, ["b", "a"])),
        pd.Series(pd.Categorical(LETTERS, ["a", "b", "c"])),
        pd.Series(pd.Categorical(LETTERS, ["a", "b"], ordered=True)),
        pd.Series(pd.Categorical(["a", "b", None], ["a", "b"])),
        pd.Series(LETTERS, dtype=object),
    ],
    "missing values": [
        pd.Series([1, None, 3], dtype=object),
        pd.Series([1, pd.NA, 3], dtype=object),
        pd.Series([1, np.nan, 3], dtype=object),
        pd.Series([1, pd.NaT, 3], dtype=object),
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series([1, 0, 3], dtype="Int64"),
        pd.Series([1.0, None, 3.0], dtype="Float64"),
    ],
    "texts": [LETTERS, ["ab", "", "a"], ["a", "ba", ""], np.array(LETTERS), np.array([b"a", b"b", b"a"]), "aba", b"a"],
    "shapes": [Y, Y.reshape(2, 3), Y.reshape(3, 2), Y.reshape(1, 6), Y.reshape(6, 1), Y.reshape(1, 2, 3), [Y], [[Y]]],
    "dates": [
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array(["2020-01-02"], dtype="datetime64[D]"),
        np.array(["2020-01-01"], dtype="datetime64[s]"),
        np.array(["NaT"], dtype="datetime64[D]"),
        np.array([18262], dtype="timedelta64[D]"),
        np.array([18262]),
        datetime.date(2020, 1, 1),
        datetime.datetime(2020, 1, 1),
        datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        pd.Timestamp(1),
        pd.Timestamp(2),
        pd.Period("2020-01"),
    ],
    "plain things": [
        None, True, False, 0, 1, 0.5, 1.0, "1", b"1", 1j, "", (), {}, [[]], [None], {"a": 1}, {"a": [1]}, {"b": 1},
        decimal.Decimal("0.5"), 2**70, -(2**70), datetime.timedelta(1), Pair(1, 2), Couple(1, 2), (1, 2), np.nan,
    ],
    "sparse": [sparse.csr_array(np.eye(2)), sparse.csr_array(2 * np.eye(2)), np.eye(2), sparse.csr_array((2, 2))],
    "complex": [np.array([1.0, 2.0]), np.array([1.0 + 0j, 2.0]), np.array([1.0 + 1j, 2.0])],
    "records": [
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.array([(1, 2.0)], dtype=[("b", int), ("a", float)]),
        np.array([(1, 3.0)], dtype=[("a", int), ("b", float)]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_is_different_has_another_fingerprint(what):
    for (i, a), (j, b) in itertools.combinations(enumerate(map(print_of, DIFFERENT[what])), 2):
        assert a != b, f"{what}: {i} and {j}"


SAME = {
    "element types": [np.arange(3), np.arange(3.0), np.arange(3, dtype=np.uint8), np.arange(3, dtype=np.float32)],
    "memory": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
               np.arange(12.0)[::2].reshape(2, 3) / 2],
    "masked values": [np.ma.array([1.0, 7.0], mask=[0, 1]), np.ma.array([1.0, 9.0], mask=[0, 1], fill_value=3.0)],
    "sequences": [[1, "a"], (1, "a")],
    "mappings": [{"a": 1, "b": 2}, {"b": 2, "a": 1}, OrderedDict(b=2, a=1)],
    "numbers": [2.0, np.float64(2.0), np.float32(2.0)],
    "whole numbers": [2, np.int8(2), np.uint64(2)],
    "strings": [np.array(LETTERS), np.array(LETTERS, dtype=object)],
    "indexes": [frame(), frame(index=[0, 1, 2]), frame(index=pd.RangeIndex(3))],
    "signs of zero": [np.array([0.0]), np.array([-0.0])],
    "sparse formats": [sparse.csr_array(np.eye(3)), sparse.csc_array(np.eye(3)), sparse.coo_matrix(np.eye(3))],
    "units of equal name": [np.array(["2020"], dtype="<M8[D]"), np.array(["2020"], dtype=">M8[D]")],
}  # fmt: skip
if hasattr(np.dtypes, "StringDType"):  # NumPy 2
    SAME["strings"].append(np.array(LETTERS, dtype=np.dtypes.StringDType()))


@pytest.mark.parametrize("what", SAME)
def test_what_is_equal_has_one_fingerprint(what):
    assert len({print_of(value) for value in SAME[what]}) == 1


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_tables_of_other_libraries_are_reported_apart(library):
    module = pytest.importorskip(library, exc_type=ImportError)
    make = module.DataFrame if library == "polars" else module.table
    tables = [
        make({"x": [1.0, 2.0], "g": ["a", "b"]}),
        make({"z": [1.0, 2.0], "g": ["a", "b"]}),
        make({"g": ["a", "b"], "x": [1.0, 2.0]}),
        make({"x": [1.0, None], "g": ["a", "b"]}),
        make({"x": [1.0, float("nan")], "g": ["a", "b"]}),
        make({"x": [1, 2], "g": ["a", None]}),
        make({"x": [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], "g": ["a", "b"]}),
    ]
    assert len({print_of(table) for table in tables}) == len(tables)
    assert print_of(tables[0]) == print_of(make({"x": [1.0, 2.0], "g": ["a", "b"]}))
    if library == "polars":
        levels = [module.Series(["a", "b"], dtype=module.Enum(order)) for order in (["a", "b"], ["b", "a"])]
        levels += [module.Series(["a", "b"], dtype=module.Categorical), module.Series(["a", "b"])]
    else:
        values = module.array(["a", "b"])
        levels = [values, values.dictionary_encode(), module.array(["b", "a"]).dictionary_encode().take([1, 0])]
    assert len({print_of(each) for each in levels}) == len(levels)


class Unit(np.ndarray):
    """An array with something beside its numbers."""


class Arrayish:
    def __array__(self, dtype=None, copy=None):
        return np.zeros(2)


def ring():
    made = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, frozenset("ab"), SimpleNamespace(a=1), lambda: 1, np.zeros(2).view(Unit), Arrayish(),
        iter([1]), np.array([object()]), np.array([2**60 + 1]), np.longdouble(1), np.zeros(1, dtype=np.longdouble),
        {1: 2}, ring(),
        [1, {"a": object()}], np.array([lambda: 1]), pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame,
        np.zeros(2, dtype="V4"), int,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_cannot_be_told_apart_is_refused_by_name(value):
    with pytest.raises((InvalidType, InvalidInput), match=r"value|fingerprint"):
        print_of(value)


def test_the_message_names_the_part_and_the_next_step():
    with pytest.raises(InvalidType, match=r"^prior\['scale'\]\[1\] is Unit, .*numpy.asarray"):
        gamwarm.family("tests.values", prior={"scale": [1.0, np.zeros(2).view(Unit)]})
    with pytest.raises(InvalidType, match=r"^levels is set, .*it has no order; pass sorted"):
        gamwarm.family("tests.values", levels={"a"})


def test_names_kinds_and_values_count():
    family = gamwarm.family
    prints = [
        family(kind, **values).persistent_warm_start_fingerprint((), None)
        for kind, values in (("a", {"y": Y}), ("a", {"z": Y}), ("a", {"y": Y, "z": None}), ("a", {}))
    ]
    keys = [
        FitProblem(family(kind, y=Y), [block("mean", 2)], BlockwiseFitOptions(), engine="tests").key
        for kind in ("a", "b")
    ]

    assert len({*prints}) == 4
    assert keys[0] != keys[1]
    assert family("a", kind="a value may have this name").family_kind == "a"
    with pytest.raises(GamwarmError, match="family kind is empty"):
        family("")


def test_distributed_rows_are_the_plain_array():
    y, X = np.arange(7.0), np.arange(14.0).reshape(7, 2)

    def body(comm):
        mine = slice(0, 3) if comm.rank == 0 else slice(3, 7)
        return print_of([DistributedRows(y[mine], comm), DistributedRows(X[mine], comm)])

    assert on_ranks(2, body) == [print_of([y, X])] * 2


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4) | st.binary(max_size=4)
)
values = st.recursive(
    scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3)
)


def shown(value):
    """A text that differs where the value does: -0.0 is 0.0, whole numbers are no other numbers."""
    if isinstance(value, dict):
        return f"{{{sorted((key, shown(each)) for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{[shown(each) for each in value]}]"
    return repr(value + 0.0 if isinstance(value, float) else value)


@given(values, values)
def test_two_values_have_one_fingerprint_exactly_if_they_are_equal(a, b):
    assert (print_of(a) == print_of(b)) == (shown(a) == shown(b))
