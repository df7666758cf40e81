"""Typed writes: each is unambiguous, and refuses what it cannot write exactly."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.identity import Fingerprinter, matrix_digest
from gamwarm.identity.components import ComponentFingerprinter
from tests.support.problems import wave


def written(method, *values):
    fp = Fingerprinter()
    for value in values:
        getattr(fp, method)(value)
    return fp.hexdigest()


@given(st.binary(), st.binary())
def test_raw_bytes_have_no_length(a, b):
    assert written("write_bytes", a, b) == written("write_bytes", a + b) == blake3(a + b).hexdigest()


@given(st.text())
def test_strings_are_utf8_after_their_byte_length(text):
    data = text.encode()

    assert written("write_str", text) == written("write_bytes", struct.pack("<Q", len(data)) + data)


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_different_strings_never_run_together(a, b):
    assert (written("write_str", *a) == written("write_str", *b)) == (a == b)


@given(st.integers(0, 2**64 - 1))
def test_integers_are_unsigned_little_endian(value):
    assert written("write_u64", value) == written("write_bytes", value.to_bytes(8, "little"))


@given(st.floats(width=64))
def test_floats_are_binary64_with_one_zero(value):
    plain = struct.pack("<d", 0.0 if value == 0 else value)

    assert written("write_f64", value) == written("write_bytes", plain)
    assert written("write_f64", np.float64(value)) == written("write_bytes", plain)


@pytest.mark.parametrize("value", [True, np.True_])
def test_booleans_are_one_byte(value):
    assert written("write_bool", value) == written("write_bytes", b"\x01")
    assert written("write_bool", not value) == written("write_bytes", b"\x00")


@given(hnp.arrays(np.float64, st.integers(0, 9), elements=st.floats(width=64)))
def test_a_vector_is_its_length_and_its_numbers(values):
    data = struct.pack("<Q", len(values)) + np.where(values == 0, 0.0, values).tobytes()

    assert written("write_f64_array", values) == written("write_bytes", data)
    assert written("write_f64_array", np.repeat(values, 2)[::2]) == written("write_bytes", data)
    assert written("write_f64_array", values.astype(">f8")) == written("write_bytes", data)


@pytest.mark.parametrize("values", [[1, 2], (1.0, 2.0), np.array([1, 2], dtype=np.int8), np.float32([1, 2])])
def test_a_vector_may_come_in_any_exact_type(values):
    assert written("write_f64_array", values) == written("write_f64_array", np.array([1.0, 2.0]))


def test_an_empty_list_is_an_empty_vector():
    assert written("write_f64_array", []) == written("write_u64", 0)


def test_a_matrix_is_the_bytes_of_its_digest():
    matrix = wave(5, 3, 1)

    assert written("write_matrix", matrix) == written("write_bytes", bytes.fromhex(matrix_digest(matrix)))


def test_the_digest_may_be_read_along_the_way():
    fp = Fingerprinter()
    fp.write_u64(1)
    first = fp.hexdigest()
    fp.write_u64(2)

    assert first == written("write_u64", 1)
    assert fp.hexdigest() == written("write_u64", 1, 2) == fp.digest().hex()


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("write_bool", 1),
        ("write_bool", None),
        ("write_u64", 1.0),
        ("write_u64", True),
        ("write_f64", "1.5"),
        ("write_f64", None),
        ("write_f64", 1j),
        ("write_f64", 2**53 + 1),
        ("write_f64", np.int64(2**53 + 1)),
        ("write_f64", 10**400),
        ("write_str", b"x"),
        ("write_f64_array", np.array([1j])),
        ("write_f64_array", np.array(["1"])),
        ("write_f64_array", np.array([None])),
        ("write_f64_array", np.array([1.0], dtype=np.longdouble)),
        ("write_f64_array", np.ma.masked_array([1.0], mask=[True])),
        ("write_f64_array", np.array([2**53 + 1])),
    ],
)
def test_what_cannot_be_written_exactly_is_refused_by_type(method, value):
    with pytest.raises(InvalidType) as caught:
        written(method, value)

    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("method", "value"),
    [("write_u64", -1), ("write_u64", 2**64), ("write_str", "\ud800"), ("write_f64_array", np.ones((2, 2)))],
)
def test_what_is_out_of_range_is_refused_by_value(method, value):
    with pytest.raises(InvalidInput):
        written(method, value)


def test_a_long_vector_is_hashed_in_little_memory():
    values = np.zeros(6_000_000)

    tracemalloc.start()
    try:
        written("write_f64_array", values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 * 2**20


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.sampled_from([0, 1, 100, 2047, 2048, 16_384, 70_000]), max_size=4)),
        max_size=5,
    )
)
def test_parts_of_a_walk_have_the_digests_that_they_would_have_alone_and_leave_the_intact_unchanged(stretches):
    walk, whole, expected = ComponentFingerprinter(), Fingerprinter(), []
    for number, (is_part, sizes) in enumerate(stretches):
        alone = Fingerprinter()
        if is_part:
            walk.begin_part()
        for writer in (walk, whole, alone):
            writer.write_u64(number)
            for size in sizes:
                writer.write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
        if is_part:
            walk.end_part()
            expected.append(int.from_bytes(alone.digest()[:8], "little", signed=True))

    assert walk.parts == expected
    assert walk.hexdigest() == whole.hexdigest()


def test_a_digest_asked_for_between_two_writes_changes_nothing():
    once, often = Fingerprinter(), Fingerprinter()
    for number in range(50):
        once.write_u64(number)
        often.write_u64(number)
        often.hexdigest()

    assert once.hexdigest() == often.hexdigest()


@pytest.mark.parametrize("value", ["text", [1, 2], 7, None])
def test_raw_bytes_are_bytes(value):
    with pytest.raises(TypeError):
        Fingerprinter().write_bytes(value)
