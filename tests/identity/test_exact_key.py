"""The key: everything the answer depends on changes it, what only changes the start does not, and
nothing is forgotten.
"""

from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from gamwarm.errors import InvalidInput, InvalidKey, InvalidType, UnkeyableFit
from gamwarm.identity import EXCLUDED, FitProblem, check_exact_key, exact_key, key
from gamwarm.problem import (
    PENALTY_KINDS,
    BasisMeta,
    BlockwiseFitOptions,
    BlockwisePenalty,
    DensePenalty,
    FixedPenalty,
    Gauge,
    KroneckerPenalty,
    LabeledPenalty,
    ParameterBlockSpec,
)
from tests.support.problems import PENALTY_FIELDS, NamedFamily, Rows, block, fit_problem, small_problem, wave


def key_of(family=None, specs=None, options=None, engine="reference", **choices):
    f, s, o = small_problem(1, **choices)
    return exact_key(family or f, specs or s, options or o, engine=engine)


# One other value for every field. A field without one fails `test_every_field_has_a_perturbation`.
OPTIONS = {
    "inner_max_cycles": 1201,
    "inner_tol": 2e-6,
    "outer_max_iter": 61,
    "outer_tol": 2e-5,
    "outer_rel_cost_tol": 0.0,
    "min_weight": 0.0,
    "ridge_floor": 0.0,
    "ridge_policy": "none",
    "use_reml_objective": False,
    "use_outer_hessian": False,
    "compute_covariance": True,
    "early_exit_threshold": 0.0,
    "outer_score_subsample": [],
    "auto_outer_subsample": False,
    "rho_bound": np.inf,
}
BLOCK = {
    "name": "location",
    "design": wave(50, 4, 2),
    "offset": np.eye(1, 50).ravel(),
    "penalties": [DensePenalty(np.eye(4)), DensePenalty(np.eye(4))],
    "nullspace_dims": [0, 1],
    "initial_log_lambdas": [0.0, 1.0],
    "initial_beta": np.ones(4),
    "role": "generic",
    "raw_width": 9,
    "basis": BasisMeta("bspline"),
}


def test_every_field_has_a_perturbation():
    assert set(OPTIONS) == {f.name for f in dataclasses.fields(BlockwiseFitOptions)}
    assert set(BLOCK) == {f.name for f in dataclasses.fields(ParameterBlockSpec)}
    assert set(PENALTY_FIELDS) == set(PENALTY_KINDS)
    for kind, (first, other) in PENALTY_FIELDS.items():
        assert set(first) == set(other) == {f.name for f in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_moves_the_key(name):
    assert f"BlockwiseFitOptions.{name}" not in EXCLUDED
    assert key_of(options=BlockwiseFitOptions(**{name: OPTIONS[name]})) != key_of()


@pytest.mark.parametrize("name", BLOCK)
def test_every_field_of_a_block_moves_the_key_or_is_excluded(name):
    _, specs, _ = small_problem(1)
    changed = dataclasses.replace(specs[0], **{name: BLOCK[name]})

    moved = key_of(specs=(changed, specs[1])) != key_of()
    assert moved == (f"ParameterBlockSpec.{name}" not in EXCLUDED)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, (first, _) in PENALTY_FIELDS.items() for name in first if name != "total_dim"],
)
def test_every_field_of_a_penalty_moves_the_key(kind, name):
    first, other = PENALTY_FIELDS[kind]
    value = other[name]
    changes = {name: value}
    if isinstance(value, tuple):
        value, twin, twin_value = value
        changes = {name: value, twin: twin_value}

    def key_with(fields):
        return key_of(specs=[block("mean", 4, penalties=[kind(**fields)])])

    assert key_with(first | changes) != key_with(first)


def test_a_penalty_of_equal_matrix_but_another_kind_moves_the_key():
    kinds = [
        DensePenalty(np.eye(4)),
        KroneckerPenalty(np.eye(2), np.eye(2)),
        BlockwisePenalty(np.eye(4), 0, 4, 4),
        LabeledPenalty("a", DensePenalty(np.eye(4))),
        FixedPenalty(0.0, DensePenalty(np.eye(4))),
        LabeledPenalty("a", FixedPenalty(0.0, DensePenalty(np.eye(4)))),
        FixedPenalty(0.0, LabeledPenalty("a", DensePenalty(np.eye(4)))),
    ]

    assert len({key_of(specs=[block("mean", 4, penalties=[k])]) for k in kinds}) == len(kinds)


def test_family_kind_fingerprint_and_engine_move_the_key():
    keys = [
        key_of(),
        key_of(family=NamedFamily("poisson", "y:1")),
        key_of(family=NamedFamily("gaussian", "y:2")),
        key_of(family=NamedFamily("gaussian", "")),
        key_of(engine="other"),
    ]

    assert len(set(keys)) == len(keys)


def test_engine_version_and_gauge_do_not_move_the_key():
    family, specs, options = small_problem(1)
    gauge = Gauge.from_blocks([np.eye(5)[:, :4], np.eye(4)[:, :3]], shift=np.ones(9))
    problem = FitProblem(family, specs, options, engine="reference", engine_version="7", gauge=gauge)

    assert {"FitProblem.engine_version", "FitProblem.gauge"} <= set(EXCLUDED)
    assert problem.key == key_of()


def test_block_order_moves_the_key():
    _, specs, _ = small_problem(1)

    assert key_of(specs=specs[::-1]) != key_of()


def test_the_form_of_a_design_does_not_move_the_key_but_sparsity_does():
    dense = wave(50, 4, 1)

    def key_with(design):
        return key_of(specs=[ParameterBlockSpec("mean", design)])

    assert key_with(Rows(dense)) == key_with(np.asfortranarray(dense)) == key_with(dense)
    assert key_with(sparse.csc_array(dense)) == key_with(sparse.coo_matrix(dense)) != key_with(dense)


def test_a_zero_offset_is_no_offset():
    assert key_of(specs=[block("mean", 4, offset=-np.zeros(20))]) == key_of(specs=[block("mean", 4)])


@given(st.integers(0, 3), st.integers(0, 3))
def test_penalties_never_move_between_blocks_unnoticed(a, b):
    def key_with(first, second):
        return key_of(
            specs=[
                block("mean", 2, penalties=[DensePenalty(np.eye(2))] * first),
                block("scale", 2, penalties=[DensePenalty(np.eye(2))] * second),
            ]
        )

    assert (key_with(a, b) == key_with(b, a)) == (a == b)


@pytest.mark.parametrize(
    ("table", "name", "culprit"),
    [
        ("_BLOCK", "offset", "ParameterBlockSpec.offset"),
        ("_OPTIONS", "outer_tol", "BlockwiseFitOptions.outer_tol"),
    ],
)
def test_a_field_that_is_neither_written_nor_excluded_stops_the_package(monkeypatch, table, name, culprit):
    without = {field: write for field, write in getattr(key, table).items() if field != name}
    monkeypatch.setattr(key, table, without)

    with pytest.raises(AssertionError, match=culprit):
        key._check_exhaustive()


def test_a_penalty_field_that_is_forgotten_stops_the_package(monkeypatch):
    tag, forms = PENALTY_KINDS[BlockwisePenalty]
    without = {field: form for field, form in forms.items() if field != "stop"}
    monkeypatch.setitem(PENALTY_KINDS, BlockwisePenalty, (tag, without))

    with pytest.raises(AssertionError, match=r"BlockwisePenalty\.stop"):
        key._check_exhaustive()


def test_a_penalty_field_of_an_unknown_form_stops_the_package(monkeypatch):
    monkeypatch.setitem(PENALTY_KINDS, DensePenalty, ("dense", {"matrix": "tensor"}))

    with pytest.raises(AssertionError, match=r"DensePenalty.*tensor.*known are matrix"):
        key._check_exhaustive()


def test_a_field_both_written_and_excluded_stops_the_package(monkeypatch):
    monkeypatch.setattr(key, "_BLOCK", key._BLOCK | {"raw_width": key._integer})

    with pytest.raises(AssertionError, match=r"ParameterBlockSpec\.raw_width"):
        key._check_exhaustive()


@dataclasses.dataclass(frozen=True, eq=False)
class LaterOptions(BlockwiseFitOptions):
    damping: float = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class LaterBlock(ParameterBlockSpec):
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class LaterPenalty(DensePenalty):
    power: float = 1.0


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"options": LaterOptions()}, "damping"),
        ({"specs": [LaterBlock("mean", wave(20, 4, 1))]}, "weight"),
        ({"specs": [block("mean", 4, penalties=[LaterPenalty(np.eye(4))])]}, "LaterPenalty"),
    ],
)
def test_a_subclass_with_more_fields_is_never_keyed_without_them(changes, culprit):
    with pytest.raises(UnkeyableFit, match=culprit):
        key_of(**changes)


def test_a_family_may_opt_out():
    with pytest.raises(UnkeyableFit, match="gaussian opted out") as caught:
        key_of(family=NamedFamily("gaussian", None))

    assert caught.value.details["why"] == "opt-out"


class Unreadable:
    shape = (50, 4)

    def __init__(self, answer):
        self.answer = answer

    def row_chunk(self, start, stop):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (OSError("tape is gone"), "tape is gone"),
        (np.ones((50, 3)), r"\(50, 3\)"),
        (np.ones((50, 4), dtype=complex), "complex128"),
        (np.full((50, 4), 2**53 + 1), "9007199254740993"),
    ],
)
def test_an_unreadable_design_makes_the_fit_unkeyable_and_names_the_block(answer, said):
    specs = [block("mean", 4, n=50), ParameterBlockSpec("s(age)", Unreadable(answer))]

    with pytest.raises(UnkeyableFit, match=rf"'s\(age\)'.*design.*{said}") as caught:
        key_of(specs=specs)

    assert caught.value.details["why"] == "design"
    assert caught.value.details["block"] == "s(age)"


def test_a_family_of_a_script_is_refused_with_the_next_step(monkeypatch):
    class Mine(NamedFamily):
        def __init__(self):
            super().__init__()
            del self.family_kind

    monkeypatch.setattr(Mine, "__module__", "__main__")
    with pytest.raises(UnkeyableFit, match="set `family_kind") as caught:
        key_of(family=Mine())

    assert caught.value.details["why"] == "family-kind"


@pytest.mark.parametrize("kind", ["__main__.Mine", "__main__", "", 3])
def test_a_family_kind_that_names_nothing_stable_is_refused(kind):
    with pytest.raises(UnkeyableFit, match="family_kind"):
        key_of(family=NamedFamily(kind))


def test_a_family_without_a_kind_is_named_by_its_module_and_class(monkeypatch):
    module = types.ModuleType("lab.models")
    monkeypatch.setitem(sys.modules, "lab.models", module)

    class Mine:
        __module__ = "lab.models"
        __qualname__ = "Mine"

        def persistent_warm_start_fingerprint(self, specs, options):
            return "y:1"

    assert key_of(family=Mine()) == key_of(family=NamedFamily("lab.models.Mine"))


@pytest.mark.parametrize("fingerprint", [b"y", 3, ["y"]])
def test_a_fingerprint_that_is_no_string_is_refused(fingerprint):
    with pytest.raises(InvalidType, match="return a string, or None"):
        key_of(family=NamedFamily("gaussian", fingerprint))


def test_the_key_before_a_fit_is_the_key_after_it():
    class LazyCsr:
        """A design that converts itself on first use, as real ones do."""

        def __init__(self):
            self.shape, self.cache = (50, 4), None

        def row_chunk(self, start, stop):
            self.cache = sparse.csr_array(wave(50, 4, 1)) if self.cache is None else self.cache
            return self.cache[start:stop].toarray()

    disordered = sparse.csr_array(([1.0, 2.0, 3.0], [2, 0, 2], np.minimum(np.arange(51) * 3, 3)), shape=(50, 4))
    specs = [ParameterBlockSpec("mean", LazyCsr()), ParameterBlockSpec("scale", disordered)]
    before = key_of(specs=specs)

    specs[0].design.row_chunk(0, 50)
    disordered @ np.ones(4)
    disordered.sum_duplicates()
    disordered.sort_indices()

    assert key_of(specs=specs) == before


def test_a_problem_reads_its_designs_once_for_its_key():
    design = Rows(wave(5000, 2, 1))
    problem = fit_problem([ParameterBlockSpec("mean", design)])

    assert problem.key == problem.key
    assert design.asked == [(0, 4096), (4096, 5000)]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"specs": []}, InvalidInput),
        ({"specs": block("mean", 4)}, InvalidType),
        ({"specs": ["mean"]}, InvalidType),
        ({"options": {"rho_bound": 10.0}}, InvalidType),
        ({"family": object()}, InvalidType),
        ({"family": NamedFamily}, InvalidType),
        ({"engine": 3}, InvalidType),
        ({"engine": ""}, InvalidInput),
    ],
)
def test_arguments_of_another_kind_are_refused(changes, error):
    family, specs, options = small_problem(1)
    arguments = {"family": family, "specs": specs, "options": options, "engine": "reference"} | changes

    with pytest.raises(error):
        exact_key(arguments["family"], arguments["specs"], arguments["options"], engine=arguments["engine"])


def test_a_well_formed_key_passes_the_check():
    key = key_of()

    assert check_exact_key(key) == key
    assert len(key) == 67


@pytest.mark.parametrize(
    "key", [None, 3, "", "cf-", "cf-" + 63 * "0", "cf-" + 64 * "F", 67 * "0", "cf-" + 64 * "0" + "\n"]
)
def test_a_malformed_key_is_refused(key):
    with pytest.raises(InvalidKey, match="cf-"):
        check_exact_key(key)


def test_a_family_whose_fingerprint_fails_makes_the_fit_unkeyable_and_is_named():
    class Broken:
        family_kind = "broken"

        def persistent_warm_start_fingerprint(self, specs, options):
            raise RuntimeError("no response yet")

    _, specs, options = small_problem(1)

    with pytest.raises(UnkeyableFit, match=r"family broken.*no response yet") as caught:
        exact_key(Broken(), specs, options, engine="reference")

    assert caught.value.details["why"] == "family"
