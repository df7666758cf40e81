"""A digest is recomputed unless the data are immutable."""

from __future__ import annotations

import gc
import os
import pickle
import warnings

import numpy as np
import pytest

from gamwarm import (
    BlockwiseFitOptions,
    BlockwisePenalty,
    DensePenalty,
    FitProblem,
    Gauge,
    IndexedDesign,
    KroneckerPenalty,
    ParameterBlockSpec,
    checks,
    matrix_digest,
)
from gamwarm.checks import frozen, is_immutable
from gamwarm.errors import InvalidInput
from gamwarm.identity import matrices
from tests.support.oracle import plain_digest
from tests.support.problems import NamedFamily, wave
from tests.support.thread_ranks import on_ranks


@pytest.fixture
def read(monkeypatch):
    """What was really read, one shape for each time."""
    shapes = []
    real = matrices._shared_digest

    def counted(m, ranks, seen):
        shapes.append(m.shape)
        return real(m, ranks, seen)

    monkeypatch.setattr(matrices, "_shared_digest", counted)
    return shapes


def over_bytes(values):
    return np.ndarray(values.shape, dtype=values.dtype, buffer=values.tobytes())


def test_folds_that_share_penalties_and_distinct_rows_read_them_once(read):
    penalty, rows = DensePenalty(np.eye(3)), IndexedDesign(wave(5, 3, 1), [0]).rows

    def fold(n):
        spec = ParameterBlockSpec("s(x)", IndexedDesign(rows, np.arange(n) % 5), penalties=[penalty])
        return FitProblem(NamedFamily("y:1"), [spec], BlockwiseFitOptions(), engine="tests").key

    keys = {fold(n) for n in (7, 8, 9)}

    assert len(keys) == 3
    assert sorted(read) == sorted([(3, 3), (5, 3), (7, 3), (8, 3), (9, 3)])


def test_blocks_of_one_fit_that_share_a_design_or_an_index_read_it_once(read, monkeypatch):
    leaves = []
    real = matrices._index_leaves
    monkeypatch.setattr(matrices, "_index_leaves", lambda index, *rest: leaves.append(len(index)) or real(index, *rest))
    index, design = np.arange(9) % 5, wave(9, 2, 1)
    blocks = {
        "a": IndexedDesign(wave(5, 3, 1), index),
        "b": IndexedDesign(wave(5, 3, 2), index),
        "c": design,
        "d": design,
    }

    def key(blocks):
        specs = [ParameterBlockSpec(name, value) for name, value in blocks.items()]
        return FitProblem(NamedFamily("y:1"), specs, BlockwiseFitOptions(), engine="tests").key

    shared = key(blocks)

    assert leaves == [9]
    assert read.count((9, 2)) == 1
    apart = {
        "a": IndexedDesign(wave(5, 3, 1), index.copy()),
        "b": IndexedDesign(wave(5, 3, 2), index.copy()),
        "c": design.copy(),
        "d": design.copy(),
    }
    assert key(apart) == shared


@pytest.mark.parametrize("form", ["owned", "older view", "view", "reversed", "transposed", "broadcast", "bytearray"])
def test_an_array_that_somebody_can_write_to_is_read_each_time(form):
    owner = wave(6, 6, 1)
    older = owner[:]
    memory = bytearray(owner.tobytes())
    array = {
        "owned": lambda: owner,
        "older view": lambda: owner,
        "view": lambda: owner[:],
        "reversed": lambda: owner[::-1],
        "transposed": lambda: owner.T,
        "broadcast": lambda: np.broadcast_to(owner[0], (6, 6)),
        "bytearray": lambda: np.frombuffer(memoryview(memory).toreadonly()).reshape(6, 6),
    }[form]()
    array.flags.writeable = False
    before = matrix_digest(array)
    assert not is_immutable(array)
    if form == "bytearray":
        memory[:8] = np.float64(9.0).tobytes()
    elif form == "older view":
        older[0, 0] = 9.0
    else:
        owner.flags.writeable = True
        owner[0, 0] = 9.0

    assert matrix_digest(array) != before
    assert matrix_digest(array) == plain_digest(array)


def test_what_no_one_can_write_to_is_read_once_and_forgotten_with_its_array(read):
    array = over_bytes(wave(4, 3, 1))
    again = over_bytes(wave(4, 3, 2))
    gc.collect()
    before = len(checks._noted)
    for _ in range(3):
        assert matrix_digest(array) == plain_digest(wave(4, 3, 1))
        assert matrix_digest(again) == plain_digest(wave(4, 3, 2))
    assert len(read) == 2
    assert len(checks._noted) == before + 2

    del array, again
    gc.collect()

    assert len(checks._noted) == before
    for seed in range(50):  # the next arrays may lie where those lay
        assert matrix_digest(over_bytes(wave(4, 3, seed))) == plain_digest(wave(4, 3, seed))


def test_an_array_object_that_is_given_another_shape_or_other_numbers_is_read_again():
    array = over_bytes(wave(12, 6, 1))
    matrix_digest(array)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        array.shape = (6, 12)
    assert matrix_digest(array) == plain_digest(wave(12, 6, 1).reshape(6, 12))

    array.__setstate__((1, (6, 12), np.dtype("f8"), False, wave(6, 12, 9).tobytes()))
    array.flags.writeable = False

    assert matrix_digest(array) == plain_digest(wave(6, 12, 9))


def test_ranks_that_name_a_matrix_together_do_so_whatever_each_has_named_before():
    array = over_bytes(wave(9000, 3, 1))

    def digest(comm):
        if comm.rank == 0:
            matrix_digest(array)
        return matrix_digest(array, comm)

    assert on_ranks(3, digest) == [plain_digest(wave(9000, 3, 1))] * 3


def test_a_forked_child_names_what_its_parent_named():
    array = over_bytes(wave(4, 3, 1))
    expected = matrix_digest(array)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, (matrix_digest(array) + matrix_digest(over_bytes(wave(4, 3, 2)))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == expected + plain_digest(wave(4, 3, 2))


@pytest.mark.parametrize(
    "array_of",
    [
        lambda m: DensePenalty(m).matrix,
        lambda m: KroneckerPenalty(m, m).right,
        lambda m: BlockwisePenalty(m, 0, 3, 5).local,
        lambda m: Gauge.from_blocks([m]).lift,
        lambda m: Gauge.from_blocks([m], m[0]).shift,
        lambda m: IndexedDesign(m, [0, 1]).rows,
        lambda m: ParameterBlockSpec("x", m, offset=m[0]).offset,
        lambda m: ParameterBlockSpec("x", m).offset,
        lambda m: ParameterBlockSpec("x", m, initial_beta=m[0]).initial_beta,
    ],
)
def test_parts_of_a_description_are_copies_that_no_one_can_write_to(array_of):
    given_matrix = np.eye(3)
    held = array_of(given_matrix)
    before = held.copy()
    given_matrix[:] = 5.0

    assert is_immutable(held)
    assert np.array_equal(held, before)
    assert frozen(held) is held
    with pytest.raises(ValueError, match="WRITEABLE"):
        held.flags.writeable = True


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickled_penalty_is_named_by_the_numbers_it_has_then(protocol):
    penalty = pickle.loads(pickle.dumps(DensePenalty(np.eye(3)), protocol))
    before = matrix_digest(penalty.matrix)
    if penalty.matrix.flags.writeable:
        penalty.matrix[0, 0] = 2.0
        assert matrix_digest(penalty.matrix) != before

    assert matrix_digest(penalty.matrix) == plain_digest(penalty.matrix)


@pytest.mark.parametrize("n", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_no_offset_is_an_offset_of_zeros_in_key_and_components(n):
    rows = np.zeros((1, 1))
    names = []
    for offset in (None, np.zeros(n), -np.zeros(n)):
        spec = ParameterBlockSpec("x", IndexedDesign(rows, np.zeros(n, dtype="u1")), offset=offset)
        problem = FitProblem(NamedFamily("y:1"), [spec], BlockwiseFitOptions(), engine="tests")
        names.append((problem.key, problem.components.digests))

    assert names[0] == names[1] == names[2]
    if n:
        spec = ParameterBlockSpec("x", IndexedDesign(rows, np.zeros(n, dtype="u1")), offset=np.eye(1, n, n - 1)[0])
        other = FitProblem(NamedFamily("y:1"), [spec], BlockwiseFitOptions(), engine="tests")
        assert other.key != names[0][0]


def test_what_was_found_finite_or_symmetric_once_is_checked_again_where_it_can_have_changed():
    good = np.eye(40)
    DensePenalty(DensePenalty(good).matrix)
    good[0, 1] = 1.0
    with pytest.raises(InvalidInput, match="not symmetric"):
        DensePenalty(good)
    good[0, 1] = np.nan
    with pytest.raises(InvalidInput, match=r"non-finite number at \[0, 1\]"):
        DensePenalty(good)
