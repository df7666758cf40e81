"""What every store that a fit can use must do: inherited by a test class of each kind
(test_store_kinds.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import gamwarm
from gamwarm import FitStore, InvalidInput, InvalidType, StoreClosed
from tests.support.ridge_engine import Ridge, describe, terms_and_response
from tests.support.stores import plain_fit, result_of
from tests.support.thread_ranks import on_ranks

TERMS, Y = terms_and_response()
STRANGER = {"kind": "tests.stranger"}
"""Of a family that no other fit here is of."""
ROWS = np.arange(len(Y)) >= 10
FOLD_TERMS, FOLD_Y = {name: X[ROWS] for name, X in TERMS.items()}, Y[ROWS]


class StoreSuite:
    """Tests of one kind of store; a subclass is collected, opens stores of its kind, and says what
    differs.
    """

    ranks: int | None = None
    """Ranks that open a store together; None: one process without a communicator."""
    writes = True
    """Whether it keeps fits. If not, every outcome says why."""
    waits = False
    """Whether puts wait for a `flush`."""
    transfers = True
    """Whether a fit may start from a relative."""
    sees_later_parents = True
    """Whether a fit that was kept while the store is open may be chosen as a parent."""

    @contextmanager
    def opened(self, path: Any, comm: Any) -> Iterator[FitStore]:
        """Open a store of this kind."""
        raise NotImplementedError
        yield

    def close(self, store: Any) -> None:
        """Close it, inside of `opened`."""
        store.close()

    def run(self, path: Any, body: Callable[[Any], Any]) -> Any:
        """Run ``body`` on a store of this kind, on every rank; return what it returned (the same
        everywhere).
        """

        def on_rank(comm: Any) -> Any:
            with self.opened(path, comm) as store:
                return body(store)

        if self.ranks is None:
            return on_rank(None)
        answers = on_ranks(self.ranks, on_rank)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        assert all(answer == answers[0] for answer in answers)
        return answers[0]

    def kept(self, store: Any, outcome: gamwarm.KeepOutcome) -> bool:
        """Whether an outcome says that the record is on disk, once it must be."""
        if self.waits:
            assert not self.writes or outcome.record.pending
            store.flush()
        assert not outcome.record.pending
        assert outcome.record.written or outcome.record.reason
        return outcome.record.written

    @pytest.fixture
    def path(self, tmp_path):
        with gamwarm.open(tmp_path / "fits.h5", on_error="raise") as store:
            gamwarm.fit(describe(TERMS, Y), Ridge(TERMS, Y), store)
            store.keep(plain_fit(9), result_of(plain_fit(9)))
        return tmp_path / "fits.h5"

    def test_it_has_what_the_protocol_names(self, path):
        names = {name for name in vars(FitStore) if not name.startswith("_")}

        self.run(path, lambda store: [getattr(store, name) for name in names] and None)

    def test_a_fit_that_nobody_kept_starts_cold_and_is_named(self, path):
        def body(store):
            report = store.start_for(plain_fit(1, **STRANGER))
            return str(report.source), report.key == plain_fit(1, **STRANGER).key, report.start, bool(report.reason)

        assert self.run(path, body) == ("cold", True, None, True)

    def test_a_fit_that_was_there_before_starts_at_its_own_answer(self, path):
        def body(store):
            with store.fit(plain_fit(9)) as fit:
                return str(fit.start.source)

        assert self.run(path, body) == ("exact" if self.transfers else "cold")

    def test_a_kept_fit_is_found_again_with_the_same_bits(self, path):
        result = result_of(plain_fit(1, **STRANGER), 3.0)

        def body(store):
            with store.fit(plain_fit(1, **STRANGER), attributes={"job": "a"}) as fit:
                written = self.kept(store, fit.keep(result))
            found = store.start_for(plain_fit(1, **STRANGER))
            assert written == self.writes
            if not self.writes:
                assert found.source == "cold"
                return
            assert found.source == "exact"
            assert not found.is_checkpoint
            assert np.array_equal(found.start.rho, result.rho)
            assert all(np.array_equal(a, b) for a, b in zip(found.start.block_beta, result.block_beta, strict=True))

        self.run(path, body)

    def test_a_fit_that_did_not_converge_is_kept_as_a_checkpoint(self, path):
        def body(store):
            report = store.start_for(plain_fit(1))
            kept = store.keep(plain_fit(1), result_of(plain_fit(1), converged=False), report)
            assert self.kept(store, kept) == self.writes
            again = store.start_for(plain_fit(1))
            return again.is_checkpoint

        assert self.run(path, body) == self.writes

    def test_a_relative_ends_where_its_cold_fit_ends(self, path):
        problem = describe(FOLD_TERMS, FOLD_Y)
        cold = gamwarm.fit(problem, Ridge(FOLD_TERMS, FOLD_Y))

        def body(store):
            warm = gamwarm.fit(describe(FOLD_TERMS, FOLD_Y), Ridge(FOLD_TERMS, FOLD_Y), store)
            assert warm.start.source == ("transfer" if self.transfers else "cold")
            assert warm.result.objective == pytest.approx(cold.result.objective, abs=1e-6)
            self.kept(store, warm.kept)
            return str(store.start_for(describe(FOLD_TERMS, FOLD_Y)).source)

        assert self.run(path, body) == ("exact" if self.writes else "transfer" if self.transfers else "cold")

    def test_a_parent_that_is_named_is_taken_and_one_that_is_missing_is_not_missed_by_the_fit(self, path):
        def body(store):
            kept = store.keep(plain_fit(1), result_of(plain_fit(1)))
            self.kept(store, kept)
            sources = [str(store.start_for(plain_fit(2, n=29), parent).source) for parent in (None, kept, "0" * 32)]
            expected = ["transfer"] * 2 if self.transfers else ["cold"] * 2
            if not self.writes:
                expected[1] = "cold"
            assert sources == [*expected, "cold"]

        self.run(path, body)

    def test_the_choice_of_a_parent_is_of_the_moment_that_the_kind_says(self, path):
        other = STRANGER | {"design": np.ones((30, 4))}

        def body(store):
            self.kept(store, store.keep(plain_fit(1, **other), result_of(plain_fit(1, **other))))
            relative = plain_fit(1, fingerprint="y:2", **other)
            return str(store.start_for(relative).source)

        seen = self.writes and self.transfers and self.sees_later_parents
        assert self.run(path, body) == ("transfer" if seen else "cold")

    def test_what_is_wrong_is_refused_by_name_and_the_store_goes_on(self, path):
        def body(store):
            with pytest.raises((InvalidInput, gamwarm.CollectiveError), match="problem is None"):
                store.start_for(None)
            with pytest.raises((InvalidType, gamwarm.CollectiveError), match="problem is str"):
                store.start_for("fit")
            if self.writes:
                with pytest.raises((InvalidInput, gamwarm.CollectiveError), match="rho has 3 numbers"):
                    store.keep(plain_fit(1), result_of(plain_fit(1), rho=[1.0, 2.0, 3.0]))
            with pytest.raises((InvalidInput, gamwarm.CollectiveError), match="with"):
                _ = store.fit(plain_fit(1)).start
            assert store.start_for(plain_fit(9)).source == ("exact" if self.transfers else "cold")

        self.run(path, body)

    def test_a_fit_without_a_name_runs_cold_and_says_why_it_is_not_kept(self, path):
        def body(store):
            unnamed = plain_fit(1, fingerprint=None)
            with store.fit(unnamed) as fit:
                assert fit.start.source == "cold"
                assert fit.start.key is None
                kept = fit.keep(result_of(unnamed))
            assert not kept.record.written
            assert kept.record.reason

        self.run(path, body)

    def test_an_exception_in_the_block_of_a_fit_is_the_callers_own(self, path):
        def body(store):
            with pytest.raises((ZeroDivisionError, gamwarm.CollectiveError)), store.fit(plain_fit(1)):
                raise ZeroDivisionError
            assert store.start_for(plain_fit(1, **STRANGER)).source == "cold"

        self.run(path, body)

    def test_a_checkpoint_is_offered_at_most_every_two_seconds(self, path):
        def body(store):
            with store.fit(plain_fit(1)) as fit:
                early = fit.checkpoint(result_of(plain_fit(1), converged=False))
                assert "not due" in early.reason
                fit._last_written = time.monotonic() - 3.0
                late = fit.checkpoint(result_of(plain_fit(1), converged=False))
                assert late.entry_id is not None or not self.writes

        self.run(path, body)

    def test_no_search_is_cut_short_that_was_not_asked_to_hurry(self, path):
        def body(store):
            with store.fit(plain_fit(1)) as fit:
                return fit.should_stop(), store.should_stop_fits()

        assert self.run(path, body) == (False, False)

    def test_after_close_every_call_says_so(self, path):
        def body(store):
            fit = store.fit(plain_fit(1)).__enter__()
            self.close(store)
            for call in (
                store.check_open,
                lambda: store.start_for(plain_fit(1)),
                lambda: store.keep(plain_fit(1), result_of(plain_fit(1))),
                fit.should_stop,
                lambda: fit.__exit__(None, None, None),
            ):
                with pytest.raises(StoreClosed, match="open"):
                    call()
            fit.__exit__(ValueError, ValueError("of the caller"), None)

        self.run(path, body)
