"""On a miss the store says what differs from the nearest stored fit."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gamwarm
from gamwarm import (
    BlockwiseFitOptions,
    BlockwisePenalty,
    DensePenalty,
    Fingerprinter,
    FitProblem,
    FixedPenalty,
    InvalidInput,
    KroneckerPenalty,
    LabeledPenalty,
    ParameterBlockSpec,
    UnkeyableFit,
    engine,
)
from gamwarm.fitting.certificate import coordinate_names
from gamwarm.identity import Components, component_labels
from tests.support.problems import NamedFamily, Rows, small_problem, wave
from tests.support.stores import plain_fit, record_of, result_of
from tests.support.thread_ranks import on_ranks

FAMILY, SPECS, OPTIONS = small_problem(1, rho_bound=BlockwiseFitOptions().rho_bound)


def problem(family=FAMILY, specs=SPECS, engine="tests", **options):
    return FitProblem(family, specs, replace(OPTIONS, **options), engine=engine)


def with_block(number, **changes):
    specs = list(SPECS)
    specs[number] = replace(specs[number], **changes)
    return problem(specs=specs)


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", engine="tests") as opened:
        yield opened


@pytest.fixture
def full(store):
    store.keep(problem(), result_of(problem()))
    return store


OTHERS = [
    (problem(engine="other"), ["engine"]),
    (problem(NamedFamily("poisson", "y:1")), ["family kind"]),
    (problem(NamedFamily("gaussian", "y:2")), ["family fingerprint"]),
    (problem(outer_tol=2e-5), ["option 'outer_tol'"]),
    (problem(outer_tol=2e-5, rho_bound=12.0), ["option 'outer_tol'", "option 'rho_bound'"]),
    (with_block(0, design=wave(50, 4, 2)), ["block 'mean': design"]),
    (with_block(1, offset=np.zeros(50)), ["block '<scale>': offset"]),
    (with_block(0, penalties=[SPECS[0].penalties[0], DensePenalty(np.eye(4))]), ["block 'mean': penalty 1"]),
    (
        with_block(0, penalties=[LabeledPenalty("t", DensePenalty(np.eye(4))), SPECS[0].penalties[1]]),
        ["block 'mean': penalty 0"],
    ),
    (with_block(1, penalties=[FixedPenalty(0.0, SPECS[1].penalties[0])]), ["block '<scale>': penalty 0"]),
    (with_block(0, nullspace_dims=[0, 1]), ["block 'mean': null-space dims"]),
    (with_block(0, initial_log_lambdas=[0.0, 1.0]), ["block 'mean': initial log lambdas"]),
    (
        with_block(1, penalties=(), nullspace_dims=(), initial_log_lambdas=None),
        [
            "block '<scale>': null-space dims",
            "block '<scale>': initial log lambdas",
            "block '<scale>': number of penalties (0 here, 1 there)",
        ],
    ),
    (problem(specs=SPECS[:1]), ["block '<scale>' (in the stored fit only)"]),
    (problem(specs=[*SPECS, replace(SPECS[0], name="more")]), ["block 'more' (not in the stored fit)"]),
    (problem(specs=SPECS[::-1]), ["order of blocks"]),
]


@pytest.mark.parametrize(("other", "differences"), OTHERS, ids=lambda v: v[0] if isinstance(v, list) else "")
def test_a_miss_names_exactly_what_differs(full, other, differences):
    told = full.explain(other)

    assert not told.hit
    assert told.differences == differences
    assert told.nearest in full.entry_ids()
    assert (told.key, told.nearest_key) == (other.key, problem().key)
    assert all(d in str(told) for d in differences)


def test_a_difference_tells_a_program_block_option_and_penalty(full):
    (option,) = full.explain(problem(inner_tol=1e-3)).differences
    penalties = [SPECS[0].penalties[0], DensePenalty(np.eye(4))]
    (penalty,) = pickle.loads(pickle.dumps(full.explain(with_block(0, penalties=penalties)).differences))

    assert (option.what, option.name, option.block) == ("option", "inner_tol", None)
    assert (penalty.what, penalty.block, penalty.number) == ("penalty", "mean", 1)


def test_another_number_of_rows_is_reported_with_the_design(store):
    store.keep(plain_fit(n=30), result_of(plain_fit(n=30)))

    assert store.explain(plain_fit(n=29)).differences == [
        "block 'mean': design (29 x 4 here, 30 x 4 there)",
        "block 'mean': offset",
    ]


def test_the_nearest_is_the_fit_with_fewest_differences_then_the_newest(store):
    for seed, options in ((2, {}), (1, {"outer_tol": 0.5}), (1, {"outer_tol": 0.25}), (3, {"outer_tol": 0.5})):
        fit = plain_fit(seed, **options)
        kept = store.keep(fit, result_of(fit))
        if options == {"outer_tol": 0.25}:
            wanted = kept.record.entry_id

    told = store.explain(plain_fit(1))

    assert told.nearest == wanted
    assert told.differences == ["option 'outer_tol'"]


def test_a_hit_says_exact_and_names_the_record(full):
    told = full.explain(problem())

    assert told.hit
    assert told.differences == []
    assert told.nearest == full.start_for(problem()).entry
    assert str(told) == "exact: this fit's own answer"


def test_an_empty_store_and_a_store_of_hand_made_records_say_so(store):
    assert "no fit is stored" in store.explain(problem()).reason
    store.put_record(record_of())

    told = store.explain(problem())

    assert told.nearest is None
    assert "none of the 1 stored fits has stored components" in told.reason


def test_a_fit_without_a_name_says_why(full):
    class Torn(Rows):
        def row_chunk(self, start, stop, /):
            raise OSError("gone")

    out = full.explain(problem(NamedFamily("gaussian", None)))
    torn = full.explain(plain_fit(design=Torn(wave(30, 4, 1))))

    assert (out.hit, out.key, out.differences) == (False, None, [])
    assert "opted out" in out.reason
    assert "could not be read" in torn.reason


def test_a_record_that_does_not_fit_its_own_key_is_reported_apart_from_a_miss(store):
    store.put_record(replace(record_of(), key=problem().key, n_rows=3))

    assert "the exact record does not fit (n_rows" in store.explain(problem()).reason


def test_a_closed_store_refuses_and_a_store_that_is_off_says_so(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with gamwarm.open(blocked / "fits.h5") as store:
        assert "off" in store.explain(problem()).reason
    with pytest.raises(gamwarm.StoreClosed):
        store.explain(problem())


def test_what_is_not_a_problem_is_refused(full):
    with pytest.raises(gamwarm.InvalidType, match="problem is int"):
        full.explain(3)


def test_designs_are_read_once_for_key_and_components():
    rows = Rows(wave(30, 4, 1))
    fit = plain_fit(design=rows)

    assert (fit.key, fit.components) == (plain_fit().key, plain_fit().components)
    assert sum(stop - start for start, stop in rows.asked) == 30
    fresh = plain_fit(design=rows)
    assert fresh.components == fit.components


def test_components_are_digests_of_what_the_key_hashes():
    """Written out by docs/file-format.md: a reader in another language gets these numbers."""

    def first_8_bytes(*writes):
        fp = Fingerprinter()
        for kind, value in writes:
            getattr(fp, f"write_{kind}")(value)
        return int.from_bytes(fp.digest()[:8], "little", signed=True)

    left, right = np.eye(2), np.diag([1.0, 2.0])
    by_hand = [
        first_8_bytes(("str", "tests")),
        first_8_bytes(("str", "gaussian")),
        first_8_bytes(("str", "y:1")),
        first_8_bytes(("matrix", wave(50, 4, 1))),
        first_8_bytes(("f64_array", np.zeros(50))),
        first_8_bytes(("str", "dense"), ("matrix", np.eye(4))),
        first_8_bytes(("str", "kron"), ("matrix", left), ("matrix", right)),
        first_8_bytes(("u64", 2), ("u64", 1), ("u64", 0)),
        first_8_bytes(("f64_array", [0.0, 0.0])),
    ]
    made = problem().components

    assert made.penalties == (2, 1)
    assert list(made.digests[:9]) == by_hand
    assert len(made.digests) == 9 + 5


def test_components_do_not_depend_on_the_number_of_ranks():
    fits = [problem() for _ in range(3)]
    on_ranks(3, lambda comm: fits[comm.rank].shared_key(comm))

    assert {f.components for f in fits} == {problem().components}


def test_trailing_default_options_are_left_out_and_come_back_as_defaults():
    plain, late = problem().components, problem(rho_bound=12.0).components

    assert len(late.digests) - len(plain.digests) == 15
    names = [s.name for s in SPECS]
    one, other = component_labels(plain, names), component_labels(late, names)
    assert {label.name for label in one if one[label] != other[label]} == {"rho_bound"}
    assert one.keys() == other.keys()


def test_the_defaults_that_records_leave_out_are_those_of_format_1():
    """A default that changes must not change what a record of today says: keep these digests for
    old records.
    """
    labels = component_labels(problem().components, [s.name for s in SPECS])
    options = {label.name: value for label, value in labels.items() if label.what == "option"}

    assert len(options) == 15
    assert sum(options.values()) == -3617067533011035523


def test_components_of_a_typical_record_stay_under_250_bytes(tmp_path):
    sizes = []
    for made in (None, problem().components):
        path = tmp_path / f"{made is None}.h5"
        with gamwarm.open(path) as store, store.transaction():
            for number in range(200):
                store.put_record(replace(record_of(number), components=made))
        sizes.append(path.stat().st_size)

    assert (sizes[1] - sizes[0]) / 200 <= 250


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (([1], [0] * 7), "7 digests"),
        (([0], [2**63] * 7), "does not fit 64 bits"),
        (([1], [0] * 8, [["dense", "dense"]]), r"forms of \[2\] penalties; its blocks have \[1\]"),
    ],
)
def test_components_that_contradict_themselves_are_refused(arguments, complaint):
    with pytest.raises(InvalidInput, match=complaint):
        Components(*arguments)


def test_components_of_an_unkeyable_fit_raise_as_its_key_does():
    with pytest.raises(UnkeyableFit):
        _ = plain_fit(fingerprint=None).components


def test_a_block_of_the_same_name_is_compared_with_its_namesake(store):
    first = ParameterBlockSpec("a", wave(20, 2, 1))
    second = ParameterBlockSpec("b", wave(20, 2, 2))
    stored = FitProblem(FAMILY, [first, second], OPTIONS, engine="tests")
    store.keep(stored, result_of(stored))
    swapped = FitProblem(FAMILY, [replace(second, name="a"), replace(first, name="b")], OPTIONS, engine="tests")

    assert store.explain(swapped).differences == ["block 'a': design", "block 'b': design"]


def test_all_ranks_get_one_explanation_and_other_problems_are_refused(tmp_path):
    fits = [problem(outer_tol=0.5) for _ in range(3)]

    def body(comm):
        with gamwarm.open(tmp_path / "fits.h5", comm=comm) as store:
            store.keep(problem(), result_of(problem()))
            told = store.explain(fits[comm.rank])
            with pytest.raises(gamwarm.CollectiveError):
                store.explain(problem(inner_tol=0.1 if comm.rank else 0.2))
            return told

    answers = on_ranks(3, body)
    with gamwarm.open(tmp_path / "fits.h5", "r") as store:
        serial = store.explain(fits[0])

    assert answers == [serial] * 3
    assert serial.differences == ["option 'outer_tol'"]


def test_a_record_has_the_same_id_whether_or_not_it_tells_components(tmp_path):
    """Components follow from the key: neither they nor the number of ranks that took them move an
    entry id.
    """
    ids = []
    for name, components in (("with", problem().components), ("without", None)):
        with gamwarm.open(tmp_path / f"{name}.h5") as store:
            store.put_record(replace(record_of(), components=components))
            ids.append(store.entry_ids())

    assert ids[0] == ids[1]


def test_a_miss_says_term_by_term_what_a_parent_with_other_terms_gives(store):
    """The parent has the smooth of another width, and a term that this fit has not."""

    def fit(*terms):
        return engine.bind(columns, [engine.Intercept(), *terms], engine.Poisson("y"))

    columns = {"x": np.linspace(0.0, 1.0, 60), "z": np.cos(np.arange(60.0)), "y": np.arange(60.0) % 5}
    with gamwarm.open(store.path.with_name("other.h5"), on_error="raise") as own:
        engine.fit(fit(engine.Smooth("x", 6), engine.Smooth("z", 5)).case(), store=own)
        child = fit(engine.Smooth("x", 8), engine.Linear("z")).case().problem()
        told, report = own.explain(child), own.start_for(child)

    assert report.source == "transfer"
    assert told.start == report.summary()
    assert told.start in str(told)
    for line in (
        "mean:s(x) (matched by name): rho",
        "resampled from a spline of raw width 6 to one of 8",
        "mean:z: no rho; beta cold (no term of the parent matches)",
        "of the parent only: mean:s(z)",
    ):
        assert line in told.start
    page = report._repr_html_()
    assert "matched by" in page
    assert "of the parent only" in page
    assert pickle.loads(pickle.dumps(told)).start == told.start


def test_a_hit_and_a_miss_without_a_parent_say_nothing_of_a_start(store, full):
    assert full.explain(problem()).start == ""
    assert store.explain(plain_fit(9, n=11)).start == ""


# -- names of outer coordinates --------------------------------------------------------------------

PENALTIES = st.recursive(
    st.sampled_from(
        [DensePenalty(np.eye(4)), KroneckerPenalty(np.eye(2), np.eye(2)), BlockwisePenalty(np.eye(2), 1, 3, 4)]
    ),
    lambda inner: (
        st.builds(LabeledPenalty, st.sampled_from(["t", "a: b", "dense"]), inner)
        | st.builds(FixedPenalty, st.sampled_from([0.0, -1.5]), inner)
    ),
    max_leaves=2,
)


@given(st.lists(st.lists(PENALTIES, max_size=3), min_size=1, max_size=3), st.sampled_from([(), ("log theta",)]))
@settings(max_examples=60, deadline=None)
def test_a_record_names_its_outer_coordinates_as_the_fit_does(penalties, nuisance):
    specs = [ParameterBlockSpec(f"s{k}", np.ones((5, 4)), penalties=each) for k, each in enumerate(penalties)]
    fit = FitProblem(gamwarm.family("tests.named"), specs, engine="tests", nuisance=nuisance)
    names = coordinate_names(fit)
    widths = [4] * len(specs)
    shape = {"block_names": fit.block_names, "block_dims": widths, "block_beta": [np.zeros(4)] * len(specs)}

    record = record_of(rho=np.zeros(len(names)), nuisance=nuisance, components=fit.components, **shape)

    assert record.outer_names == names
    assert record_of(rho=np.zeros(2), nuisance=("log scale",)).outer_names == ("", "log scale")
