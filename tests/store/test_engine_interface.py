"""The interface of engines: writable starts, shapes that are refused, refusals that are
said, parents by any name that keeping gave them, seconds and labels that the `with` adds.
"""

from __future__ import annotations

import logging
import time
from itertools import chain

import numpy as np
import pytest

import gamwarm
from gamwarm import Cost, Curvature, FitResult, GroupSeeds, InnerMode, InvalidInput, InvalidType
from tests.support.stores import carrier_fit, plain_fit, result_of
from tests.support.thread_ranks import on_ranks

FULL = {
    "curvature": Curvature(gradient=[0.0], hessian=np.eye(1), edf=[2.0], plateau=[False]),
    "inner": InnerMode(1.0, 2.0, 3, True, [0.5], [0.25], 1e-6, [0.0]),
}


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- out: starts -----------------------------------------------------------------------------------


def arrays_of(start):
    parts = [part for part in (start, start.cached_inner, start.curvature) if part is not None]
    found = chain(start.block_beta, *(vars(part).values() for part in parts))
    return [value for value in found if isinstance(value, np.ndarray)]


def ways(store):
    """Every place that offers a start, by its name: the exact record, a transfer, and what waits to
    be written.
    """
    view = store.frozen()
    yield "exact", lambda: store.start_for(plain_fit())
    yield "transfer", lambda: store.start_for(plain_fit(fingerprint="another"))
    yield "frozen", lambda: view.start_for(plain_fit(fingerprint="another"))
    yield "one fit per rank", lambda: store.start_for(plain_fit(), each=True)

    def in_progress():
        with store.fit(plain_fit()) as fit:
            return fit.start

    yield "in progress", in_progress
    with store.independent() as own:
        own.keep(plain_fit(fingerprint="pending"), result_of(plain_fit(), 2.0, **FULL))
        yield "pending", lambda: own.start_for(plain_fit(fingerprint="pending"))
    with store.transaction():
        store.keep(plain_fit(fingerprint="open"), result_of(plain_fit(), 3.0, **FULL))
        yield "in a transaction", lambda: store.start_for(plain_fit(fingerprint="open"))


def test_offered_arrays_may_be_written_to_and_that_changes_nothing_stored_or_offered_later(store):
    store.keep(plain_fit(), result_of(plain_fit(), **FULL))

    for way, offer in ways(store):
        offered = arrays_of(offer().start)
        assert len(offered) >= 3, way
        before = [np.array(array) for array in offered]
        for array in offered:
            array[...] = False if array.dtype == np.bool_ else array + 7.0
        later = arrays_of(offer().start)
        assert all(np.array_equal(a, b) for a, b in zip(later, before, strict=True)), way
    assert store.verify().ok


def test_a_cold_engine_may_write_to_its_first_rho():
    problem = plain_fit()

    problem.layout.initial_rho[...] += 1.0

    assert problem.layout.initial_rho.tolist() == [0.0]


def test_arrays_that_were_handed_in_stay_the_engines_own(store):
    rho, beta = np.array([0.5]), np.ones(4)
    with store.fit(plain_fit()) as fit:
        fit.checkpoint(FitResult(rho, [beta], 1.0, False))
        fit.keep(FitResult(rho, [beta], 1.0, True))
    rho += 1.0
    beta += 1.0

    start = store.start_for(plain_fit()).start
    assert (start.rho.tolist(), start.block_beta[0].tolist()) == ([0.5], [1.0] * 4)


# -- in: shapes ------------------------------------------------------------------------------------

MISSHAPEN = {
    "rho too long": ({"rho": [0.0, 0.0], "curvature": None}, "rho has 2 numbers; the fit has 1 outer"),
    "no rho": ({"rho": [], "curvature": None}, "rho has 0 numbers"),
    "a short vector": ({"block_beta": [np.ones(3)]}, "block_beta of 'mean' has 3 numbers; the block's width is 4"),
    "a vector too many": ({"block_beta": [np.ones(4)] * 2}, "block_beta has 2 vectors; the fit has 1 blocks"),
    "active sets": ({"active_sets": [None, None]}, "active_sets has 2 entries"),
    "a Hessian": ({"curvature": Curvature(hessian=np.eye(2))}, "curvature hessian has length 2"),
    "seeds": ({"seeds": GroupSeeds("g", ["a"], [[0.0]], [[0.0] * 5])}, "seeds beta has shape"),
}


@pytest.mark.parametrize("converged", [True, False])
@pytest.mark.parametrize("what", MISSHAPEN)
def test_a_result_in_another_shape_than_its_problem_is_refused_by_name(store, what, converged):
    changes, said = MISSHAPEN[what]
    result = result_of(plain_fit(), converged=converged, **changes)

    with pytest.raises(InvalidInput, match=said):
        store.keep(plain_fit(), result)
    with store.fit(plain_fit()) as fit:
        with pytest.raises(InvalidInput, match=said):
            fit.checkpoint(result)
        with pytest.raises(InvalidInput, match=said):
            fit.keep(result)
    with pytest.raises(InvalidInput, match=said):
        store.keep(plain_fit(), result, each=True)
    assert len(store) == 0
    assert store.savings().refused == 0


def test_a_misshapen_result_on_one_rank_is_known_to_all(path):
    def body(comm):
        with gamwarm.open(path, comm=comm) as store:
            problem = plain_fit(fingerprint=str(comm.rank))
            result = result_of(problem) if comm.rank else result_of(problem, block_beta=[np.ones(3)])
            with pytest.raises(gamwarm.CollectiveError, match="width is 4"):
                store.keep(problem, result, each=True)
            return len(store)

    assert on_ranks(2, body) == [0, 0]


# -- in: refusals ----------------------------------------------------------------------------------

REFUSED = {
    "NaN in a coefficient": lambda i: {"block_beta": [[1.0, np.nan, float(i), 0.0]]},
    "an infinite objective": lambda i: {"objective": np.inf},
    "a saturated rho": lambda i: {"rho": [60.0 + i], "curvature": None},
    "no objective, so no artifact": lambda i: {"objective": None},
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_answer_that_a_gate_refuses_is_one_warning_a_store_and_reason_and_is_counted(path, caplog, what):
    with caplog.at_level(logging.DEBUG, "gamwarm"), gamwarm.open(path) as store:
        for i in range(3):
            problem = plain_fit(fingerprint=str(i))
            store.keep(problem, result_of(problem, **REFUSED[what](i)))
        (said,) = warnings_of(caplog)
        assert str(path) in said
        assert "of a converged fit is not stored" in said
        assert sum("of a converged fit is not stored" in record.getMessage() for record in caplog.records) == 3
        assert store.savings().refused == 3
        assert "3 converged fits" in str(store.savings())
        assert "3 converged fits not stored" in repr(store)

        other = next(each for each in REFUSED if each != what)
        store.keep(plain_fit(), result_of(plain_fit(), **REFUSED[other](0)))
        assert len(warnings_of(caplog)) == 2, "another reason is another warning"
    with gamwarm.open(path) as again:
        assert again.savings().refused == 0
        again.keep(plain_fit(), result_of(plain_fit(), **REFUSED[what](0)))
    assert len(warnings_of(caplog)) == 3, "another store says it once more"


def test_a_search_that_is_not_done_is_refused_without_a_word(store, caplog):
    store.keep(plain_fit(), result_of(plain_fit(), converged=False, objective=np.nan))

    assert not warnings_of(caplog)
    assert store.savings().refused == 0


def test_refusals_of_all_ranks_are_counted_once_each(path, caplog):
    def body(comm):
        with gamwarm.open(path, comm=comm) as store:
            problem = plain_fit(fingerprint=str(comm.rank))
            store.keep(problem, result_of(problem, objective=np.inf), each=True)
            return store.savings().refused

    assert on_ranks(3, body) == [3, 3, 3]
    assert len(warnings_of(caplog)) == 1


# -- parents ---------------------------------------------------------------------------------------


def test_a_parent_may_be_named_by_what_keeping_returned_or_by_either_of_its_ids(store):
    kept = store.keep(plain_fit(), result_of(plain_fit(), 1.0))
    store.keep(plain_fit(fingerprint="newer"), result_of(plain_fit(), 2.0))
    child = plain_fit(fingerprint="child")

    for parent in (kept, kept.artifact.entry_id, kept.record.entry_id):
        report = store.start_for(child, parent=parent)
        assert (report.source, report.parent) == ("transfer", kept.artifact.entry_id)
        with store.frozen().fit(child, parent=parent) as fit:
            assert fit.start.parent == kept.artifact.entry_id


def test_what_waits_to_be_written_can_be_named_as_a_parent(store):
    with store.independent() as own:
        kept = own.keep(plain_fit(), result_of(plain_fit()))
        assert kept.record.pending
        for parent in (kept, kept.record.entry_id):
            assert own.start_for(plain_fit(fingerprint="child"), parent=parent).parent == kept.artifact.entry_id
    with store.transaction():
        kept = store.keep(plain_fit(seed=9), result_of(plain_fit(seed=9)))
        assert store.start_for(plain_fit(seed=8), parent=kept.record.entry_id).parent == kept.artifact.entry_id


@pytest.mark.parametrize("how", ["start_for", "fit", "frozen", "independent", "each"])
def test_a_named_parent_that_is_not_there_is_one_warning_and_a_cold_start(store, caplog, how):
    store.keep(plain_fit(), result_of(plain_fit()))
    lost = "0123456789abcdef" * 2

    def ask(i, parent=lost):
        problem = plain_fit(fingerprint=f"child {i}")
        if how == "fit":
            with store.fit(problem, parent=parent) as fit:
                return fit.start
        if how == "independent":
            return own.start_for(problem, parent=parent)
        if how == "frozen":
            return store.frozen().start_for(problem, parent=parent)
        return store.start_for(problem, parent=parent, each=how == "each")

    with store.independent() as own:
        for i in range(3):
            report = ask(i)
            assert report.source == "cold"
            assert "not in the file" in report.reason
        (said,) = warnings_of(caplog)
        assert lost in said
        ask(0, "f" * 32)
        assert len(warnings_of(caplog)) == 2, "another one is another warning"


def test_a_record_whose_fit_has_no_artifact_is_called_a_record(store, caplog):
    kept = store.keep(plain_fit(), result_of(plain_fit(), converged=False))

    report = store.start_for(plain_fit(fingerprint="child"), parent=kept.record.entry_id)

    assert report.source == "cold"
    assert "is a record whose fit has no artifact" in report.reason
    assert "is a record" in warnings_of(caplog)[0]


def test_an_outcome_that_kept_nothing_is_no_silent_parent(store, caplog):
    refused = store.keep(plain_fit(), result_of(plain_fit(), objective=np.inf))
    caplog.clear()

    report = store.start_for(plain_fit(fingerprint="child"), parent=refused)

    assert report.source == "cold"
    assert "the named parent was not stored (its objective is inf)" in report.reason
    assert len(warnings_of(caplog)) == 1


def test_a_parent_that_is_filed_later_is_found_then(store, caplog):
    child = plain_fit(fingerprint="child")
    with store.independent() as other:
        kept = other.keep(plain_fit(), result_of(plain_fit()))
        assert store.start_for(child, parent=kept).source == "cold"
    time.sleep(0.05)  # ten times as long as it took to look for it

    assert store.start_for(child, parent=kept.record.entry_id).source == "transfer"
    assert store.start_for(child, parent=kept).source == "transfer"


# -- seconds and labels ----------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [None, Cost(evaluations=5)], ids=["no cost", "counts"])
def test_a_fit_is_clocked_where_its_engine_is_not(store, cost):
    for seconds in (0.2, 0.0):
        with store.fit(plain_fit()) as fit:
            time.sleep(seconds)
            kept = fit.keep(result_of(plain_fit(), cost=cost, start_used=fit.start.start is not None))

    assert store.get_record(plain_fit().key).cost.seconds >= 0.2
    assert store.get_artifact(plain_fit().descriptor.key).cost.seconds >= 0.2
    assert 0.1 < kept.saved.seconds < 5.0
    assert kept.saved.evaluations == 0
    assert store.savings().total.seconds > 0.1


def test_seconds_that_an_engine_tells_are_taken_unchanged(store):
    with store.fit(plain_fit()) as fit:
        fit.keep(result_of(plain_fit(), cost=Cost(1, seconds=123.0)))

    assert store.get_record(plain_fit().key).cost == Cost(1, seconds=123.0)


def test_a_checkpoint_is_clocked_and_labelled_too(store, monkeypatch):
    monkeypatch.setattr("gamwarm.store.fit.CHECKPOINT_SECONDS", 0.05)
    with store.fit(plain_fit(), attributes={"job": 7}) as fit:
        time.sleep(0.1)
        assert fit.checkpoint(result_of(plain_fit(), cost=Cost(3), converged=False)).written

    record = store.get_record(plain_fit().key)
    assert record.cost.seconds >= 0.1
    assert record.attributes == {"job": 7}


@pytest.mark.parametrize("view", [lambda s: s, lambda s: s.frozen()], ids=["store", "frozen"])
def test_attributes_are_kept_with_record_and_artifact_and_are_no_part_of_key_or_entry_id(tmp_path, view):
    ids = []
    for site in ("north", "süd"):
        with gamwarm.open(tmp_path / f"{site}.h5") as store:
            with view(store).fit(carrier_fit(), attributes={"site": site, "fold": 3, "share": 0.5}) as fit:
                fit.keep(result_of(carrier_fit(), attributes={"fold": 4}))
            ids.append(store.entry_ids())
            expected = {"site": site, "fold": 4, "share": 0.5}
            assert store.get_record(carrier_fit().key).attributes == expected
            assert store.get_artifact(carrier_fit().descriptor.key).attributes == expected
            assert store.verify().ok
    assert ids[0] == ids[1]
    with gamwarm.open(tmp_path / "north.h5") as store:
        store.merge(tmp_path / "süd.h5")
        assert store.entry_ids() == ids[0]


@pytest.mark.parametrize("attributes", [["a"], {"a": None}, {"a": np.nan}, {1: "a"}, {"a": [1]}])
def test_attributes_that_cannot_be_kept_are_refused_before_the_fit(store, attributes):
    with pytest.raises((InvalidInput, InvalidType), match="attribute"):
        store.fit(plain_fit(), attributes=attributes)
