"""A block checks what it is given, and says which block, which penalty and both shapes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem import BasisMeta, DensePenalty, ParameterBlockSpec, Role, check_specs, infer_role
from tests.support.problems import Rows, block, smooth, wave


def test_defaults_are_zeros_and_an_inferred_role():
    spec = ParameterBlockSpec("mean", wave(5, 3, 1), penalties=[smooth(3), smooth(3)])

    assert spec.offset.tolist() == [0.0] * 5
    assert spec.initial_log_lambdas.tolist() == [0.0, 0.0]
    assert spec.nullspace_dims == ()
    assert spec.initial_beta is None
    assert spec.raw_width is None
    assert spec.role == Role.MEAN == "mean"
    assert (spec.n_rows, spec.width) == (5, 3)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("LogSlope of x", "log-slope"),
        ("log_slope", "log-slope"),
        ("<Scale>", "log-slope"),
        ("SIGMA", "log-slope"),
        ("dispersion", "log-slope"),
        ("disp", "log-slope"),
        ("scale: s(x)", "log-slope"),
        ("mean_scale", "generic"),
        ("sigma2", "generic"),
        ("Loc", "mean"),
        ("Location", "generic"),
        ("s(displacement)", "generic"),
        ("s(meander)", "generic"),
        ("marginal", "mean"),
        ("MEAN", "mean"),
        ("s(x)", "generic"),
        ("log slope", "generic"),
    ],
)
def test_a_role_is_inferred_from_the_words_of_the_lower_cased_name(name, role):
    assert infer_role(name) == role
    assert block(name, 3).role == role


def test_a_stated_role_wins():
    assert block("mean", 3, role="generic").role is Role.GENERIC


@pytest.mark.parametrize("design", [wave(5, 3, 1), sparse.csr_array(wave(5, 3, 1)), Rows(wave(5, 3, 1))])
def test_any_kind_of_design_is_taken_and_kept_by_reference(design):
    spec = ParameterBlockSpec("mean", design)

    assert spec.design is design
    assert (spec.n_rows, spec.width) == (5, 3)


def test_a_block_copies_its_vectors_and_cannot_be_changed():
    offset = np.ones(20)
    spec = block("mean", 3, offset=offset)
    offset[0] = 9.0

    assert spec.offset[0] == 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"
    with pytest.raises(ValueError, match="read-only"):
        spec.offset[0] = 2.0


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"name": ""}, InvalidInput, "block name is empty"),
        ({"name": 3}, InvalidType, "block name"),
        ({"name": "\ud800"}, InvalidInput, "UTF-8"),
        ({"design": [[1.0]]}, InvalidType, r"'f'.*design.*row_chunk"),
        ({"design": np.ones(3)}, InvalidInput, r"'f'.*design.*\(3,\)"),
        ({"design": np.ones((3, 2), dtype=complex)}, InvalidType, r"'f'.*complex"),
        ({"design": np.ma.masked_array(np.ones((3, 2)))}, InvalidType, r"'f'.*masked"),
        ({"offset": np.ones(4)}, InvalidInput, r"'f'.*offset \(design 20 x 3\).*\(4,\).*\(20,\)"),
        ({"offset": np.ones((20, 1))}, InvalidInput, r"'f'.*offset.*\(20, 1\).*\(20,\)"),
        ({"offset": np.r_[np.nan, np.ones(19)]}, InvalidInput, r"'f'.*offset.*position 0 \(nan\)"),
        ({"offset": np.ones(20, dtype=complex)}, InvalidType, r"'f'.*offset.*complex"),
        ({"offset": ["1"] * 20}, InvalidType, r"'f'.*offset"),
        ({"offset": np.ma.masked_array(np.ones(20))}, InvalidType, r"'f'.*offset.*masked"),
        ({"penalties": smooth(3)}, InvalidType, r"'f'.*penalties must be a sequence"),
        ({"penalties": [smooth(3), np.eye(3)]}, InvalidType, r"'f'.*penalty 1.*DensePenalty"),
        ({"penalties": [smooth(3), smooth(4)]}, InvalidInput, r"'f'.*penalty 1.*\(4, 4\).*\(20, 3\)"),
        ({"nullspace_dims": [1, 1]}, InvalidInput, r"'f'.*2 nullspace_dims for 1 penalties"),
        ({"nullspace_dims": 1}, InvalidType, r"'f'.*nullspace_dims"),
        ({"nullspace_dims": [-1]}, InvalidInput, r"'f'.*nullspace_dims\[0\]"),
        ({"nullspace_dims": [0.5]}, InvalidType, r"'f'.*nullspace_dims\[0\]"),
        ({"nullspace_dims": [4]}, InvalidInput, r"'f'.*nullspace_dims.*width 3"),
        (
            {"initial_log_lambdas": [0.0, 0.0]},
            InvalidInput,
            r"'f'.*initial_log_lambdas \(1 penalties\).*\(2,\).*\(1,\)",
        ),
        ({"initial_log_lambdas": [np.inf]}, InvalidInput, r"'f'.*initial_log_lambdas.*inf"),
        ({"initial_beta": np.ones(4)}, InvalidInput, r"'f'.*initial_beta \(design 20 x 3\).*\(4,\).*\(3,\)"),
        ({"initial_beta": [1.0, np.nan, 1.0]}, InvalidInput, r"'f'.*initial_beta.*nan"),
        ({"role": "median"}, InvalidInput, r"'f'.*'median'.*log-slope"),
        ({"raw_width": 2}, InvalidInput, r"'f'.*raw_width 2.*width 3"),
        ({"raw_width": 4.0}, InvalidType, r"'f'.*raw_width"),
        ({"basis": "bspline"}, InvalidType, r"'f'.*BasisMeta"),
    ],
)
def test_a_contradiction_names_the_block_the_part_and_both_shapes(changes, error, said):
    arguments = {"name": "f", "design": wave(20, 3, 1), "penalties": [smooth(3)]} | changes

    with pytest.raises(error, match=said):
        ParameterBlockSpec(**arguments)


def test_a_fit_needs_a_block():
    with pytest.raises(InvalidInput, match="at least one block"):
        check_specs([])


def test_two_blocks_of_one_name_are_refused():
    with pytest.raises(InvalidInput, match="blocks 0 and 2 are both named 'f'"):
        check_specs([block("f", 3), block("g", 3), block("f", 2)])


def test_blocks_of_different_rows_are_refused_with_both_shapes():
    with pytest.raises(InvalidInput, match=r"'g' has shape \(21, 2\) but block 'f' has shape \(20, 3\)"):
        check_specs([block("f", 3), block("g", 2, n=21)])


@pytest.mark.parametrize("specs", [block("f", 3), [DensePenalty(np.eye(2))], "f", None])
def test_what_is_no_sequence_of_blocks_is_refused(specs):
    with pytest.raises(InvalidType):
        check_specs(specs)


def test_a_design_without_rows_or_columns_is_a_design():
    assert block("f", 0, n=0, penalties=[]).width == 0


def test_basis_meta_keeps_what_a_reader_needs():
    meta = BasisMeta("duchon", 3, 10, 20, 1, 1.5, True)

    assert (meta.kind, meta.degree, meta.num_knots, meta.n_centers) == ("duchon", 3, 10, 20)
    assert (meta.nullspace_order, meta.matern_nu, meta.periodic) == (1, 1.5, True)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": ""}, InvalidInput),
        ({"degree": 1.5}, InvalidType),
        ({"num_knots": -1}, InvalidInput),
        ({"matern_nu": np.nan}, InvalidInput),
        ({"periodic": 1}, InvalidType),
    ],
)
def test_basis_meta_refuses_what_means_nothing(changes, error):
    with pytest.raises(error, match="basis"):
        BasisMeta(**({"kind": "bspline"} | changes))
