"""Numbers and paths that fit nowhere: an error of gamwarm's tree, a store that stays on, a file
that stays whole.
"""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm import (
    BlockRecord,
    BlockwiseFitOptions,
    Cost,
    GamwarmError,
    InnerMode,
    InvalidInput,
    InvalidType,
    Lineage,
    StoreDamaged,
)
from gamwarm.archive import export_archive, import_archive, verify_archive
from gamwarm.report import write_report
from tests.support.stores import artifact_of, carrier_fit, plain_fit, record_of, result_of

HUGE = 10**5000
WRONG = [-1, math.nan, -math.inf, True, "1", None, [], HUGE, -HUGE, 2**63, np.array([1, 2]), 1j, object()]
WRONG_COUNTS = [*WRONG, 1.5, math.inf, np.float64(2.0)]


def called(value):
    """Python does not print integers of so many digits."""
    return "huge" if isinstance(value, int) and abs(value) == HUGE else type(value).__name__


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as opened:
        opened.put_record(record_of(1))
        yield opened
        assert opened.disabled_reason is None
        assert opened.put_record(record_of(2)).written
        assert opened.verify().ok


def refused(call, value, allowed=()):
    """Call with a value; what is raised must be typed, unless the value is fine."""
    try:
        call(value)
    except GamwarmError:
        return
    assert any(value is each for each in allowed), f"{type(value).__name__} passed"


@pytest.mark.parametrize("value", WRONG_COUNTS, ids=called)
def test_a_count_out_of_range_is_refused_and_the_store_stays_on(store, tmp_path, value):
    calls = {
        "evict": lambda v: store.evict(size_budget=v, dry_run=True),
        "flush_entries": lambda v: store.independent(flush_entries=v).close(),
        "size_budget": lambda v: gamwarm.open(tmp_path / "b.h5", size_budget=v).close(),
        "keep_last": lambda v: gamwarm.open(tmp_path / "b.h5", keep_last=v).close(),
        "n_rows": lambda v: store.put_record(record_of(3, n_rows=v)),
        "width": lambda v: store.put_record(record_of(3, block_dims=[v, 2])),
        "active row": lambda v: store.put_record(record_of(3, active_sets=[[v], None])),
        "iteration": lambda v: store.put_record(record_of(3, iteration=v)),
        "created": lambda v: store.put_record(record_of(3, created=v)),
        "cycles": lambda v: InnerMode(0.0, 0.0, v, True, [0.0], [0.0]),
        "cost": lambda v: Cost(evaluations=v),
        "option": lambda v: BlockwiseFitOptions(inner_max_cycles=v),
    }
    fine_if_none = {"evict", "size_budget", "iteration", "created", "active row"}
    for name, call in calls.items():
        refused(call, value, [None] if name in fine_if_none else [])


@pytest.mark.parametrize("value", WRONG, ids=called)
def test_a_number_out_of_range_is_refused_and_the_store_stays_on(store, tmp_path, value):
    calls = {
        "max_age": lambda v: store.evict(max_age=v, dry_run=True),
        "flush_seconds": lambda v: store.independent(flush_seconds=v).close(),
        "margin": lambda v: store.walltime(margin=v),
        "deadline": lambda v: store.walltime(deadline=v),
        "attribute": lambda v: store.put_record(record_of(3, attributes={"job": v})),
        "rho_bound": lambda v: store.put_record(record_of(3, rho_bound=v)),
        "objective": lambda v: store.put_record(record_of(3, objective=v)),
        "seconds": lambda v: Cost(seconds=v),
        "time_limit": lambda v: store.salvage(tmp_path / "saved.h5", time_limit=v),
    }
    for name, call in calls.items():
        fine = (
            name in ("attribute", "objective", "deadline", "rho_bound")
            or value is None
            or (type(value) is int and value == 2**63)
        )
        refused(call, value, [value] if fine else [])
        (tmp_path / "saved.h5").unlink(missing_ok=True)


@pytest.mark.parametrize("value", [5, None, "yes", np.zeros(2), 1.5], ids=called)
def test_what_is_no_truth_value_and_no_function_is_refused_and_the_store_stays_on(store, value):
    entry_id = min(store.entry_ids())
    refused(lambda v: store.pin(entry_id, v), value)
    refused(lambda v: store.evict(max_age=0.0, dry_run=v), value)
    refused(store.verify, value, [None])


@pytest.mark.parametrize("field", ["log_likelihood", "penalty_value", "block_logdet_h", "block_logdet_s"])
def test_an_inner_mode_without_a_number_that_it_needs_is_refused_by_name(field):
    given = dict.fromkeys(("log_likelihood", "penalty_value", "block_logdet_h", "block_logdet_s"), 0.0)
    with pytest.raises(InvalidType, match=f"inner {field}"):
        InnerMode(**given | {field: None}, cycles=1, converged=True)


@pytest.mark.parametrize("field", ["block_names", "block_dims", "block_beta", "active_sets", "nuisance"])
def test_one_number_in_the_place_of_a_sequence_is_refused_by_name(field):
    with pytest.raises(InvalidType, match="must be a sequence"):
        record_of(1, **{field: np.array(3)})


def test_what_leaves_no_text_or_no_list_is_refused_in_text(store):
    with pytest.raises(InvalidInput, match="group label"):
        store.start_for(plain_fit(), leave_out=HUGE)
    with pytest.raises(InvalidInput, match="must be a sequence"):
        Lineage("cold", terms=5)


@pytest.mark.parametrize("value", [1e300, 1e308, math.inf, np.float32(5), np.int64(3)])
def test_large_and_numpy_numbers_are_numbers(store, tmp_path, value):
    assert store.evict(max_age=1e308 if value == math.inf else value, dry_run=True).evicted == ()
    assert store.salvage(tmp_path / "saved.h5", time_limit=value).copied
    store.independent(flush_seconds=value).close()


@pytest.mark.parametrize("name", ["a\0b.h5", "\udcff\0", "", "a" * 300 + ".h5", b"a.h5", 5, None, "\ud800.h5"])
def test_a_path_that_no_file_can_have_is_refused_by_every_call(store, tmp_path, name):
    place = str(tmp_path / name) if isinstance(name, str) and name else name
    for call in (
        lambda: gamwarm.open(place, on_error="raise"),
        lambda: gamwarm.open(place, "r", on_error="raise"),
        lambda: store.merge(place),
        lambda: store.salvage(place),
        lambda: gamwarm.salvage(place, tmp_path / "x.h5"),
        lambda: gamwarm.salvage(store.path, place),
        lambda: export_archive(place, tmp_path / "y.h5", title="t", creators="c", license="CC0-1.0"),
        lambda: export_archive(store.path, place, title="t", creators="c", license="CC0-1.0"),
        lambda: verify_archive(place),
        lambda: import_archive(place, tmp_path / "z.h5"),
        lambda: write_report(place, tmp_path / "r.html"),
        lambda: write_report(store.path, place),
    ):
        with pytest.raises(GamwarmError):
            call()


def test_words_that_are_no_words_are_refused(store, tmp_path):
    for value in (HUGE, np.array(["r", "a"]), [], None, object()):
        for name in ("mode", "lock", "on_error"):
            with pytest.raises(GamwarmError):
                gamwarm.open(tmp_path / "b.h5", **{name: value})
        for call in (
            store.get_record,
            store.get_artifact,
            store.pin,
            lambda v: BlockRecord(**vars(record_of(1)) | {"key": v}),
        ):
            with pytest.raises(GamwarmError):
                call(value)
        if value is not None:
            with pytest.raises(GamwarmError):
                store.start_for(plain_fit(), parent=value)
    assert store.start_for(carrier_fit(range(5))).source == "cold"
    assert result_of(carrier_fit(range(5))) is not None


def test_after_hdf5_complains_of_its_own_structure_nothing_more_is_written(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        store.put_record(record_of(1))
    with h5py.File(path, "r+") as h5:
        del h5["fit_artifacts"]
        h5["fit_artifacts"] = h5["block_records"]  # opens, but what gamwarm seeks there is not in it
    image = bytearray(path.read_bytes())
    with gamwarm.open(path, on_error="raise") as store:
        entries = store._writes.file
        with pytest.raises(StoreDamaged), entries.transaction():
            with pytest.raises(StoreDamaged), entries._translated:
                raise RuntimeError("Unable to load B-tree node")
            with pytest.raises(StoreDamaged):
                entries.put_record(record_of(5))
        for put in (lambda: store.put_record(record_of(6)), lambda: store.put_artifact(artifact_of())):
            with pytest.raises(StoreDamaged, match="Nothing more is written"):
                put()
    assert path.read_bytes() == image
    with gamwarm.open(path, on_error="raise") as store:
        assert store.put_record(record_of(6)).written


def test_an_attribute_of_many_digits_is_refused_in_text():
    with pytest.raises(InvalidInput, match="keep it as a string"):
        record_of(1, attributes={"job": HUGE})
    assert record_of(1, attributes={"job": 10**300}).attributes == {"job": 10**300}
