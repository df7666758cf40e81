"""Every kind of store passes the suite: serial, collective, independent, frozen, read only,
wrapped, foreign.
"""

from __future__ import annotations

from contextlib import contextmanager

import gamwarm
from gamwarm import ConstrainedWarmStart, FitInProgress, KeepOutcome, StartReport, StoreClosed, StoreWrapper
from gamwarm.entries import PutOutcome
from gamwarm.errors import UnkeyableFit
from gamwarm.parallel import SERIAL
from gamwarm.testing.store_proxy import InterceptingStore
from gamwarm.transfer import check_result
from tests.store.store_suite import StoreSuite


class TestSerial(StoreSuite):
    @contextmanager
    def opened(self, path, comm):
        with gamwarm.open(path, on_error="raise") as store:
            yield store


class TestCollectiveOfOne(StoreSuite):
    ranks = 1

    @contextmanager
    def opened(self, path, comm):
        with gamwarm.open(path, comm=comm, on_error="raise") as store:
            yield store


class TestCollectiveOfTwo(TestCollectiveOfOne):
    ranks = 2


class TestIndependent(StoreSuite):
    waits = True

    @contextmanager
    def opened(self, path, comm):
        with gamwarm.open(path, comm=comm, on_error="raise") as store, store.independent() as own:
            yield own


class TestFrozen(StoreSuite):
    sees_later_parents = False

    @contextmanager
    def opened(self, path, comm):
        with gamwarm.open(path, comm=comm, on_error="raise") as store, store.frozen() as view:
            yield view


class TestFrozenCollective(TestFrozen):
    ranks = 2


class TestFrozenIndependent(TestFrozen):
    waits = True

    @contextmanager
    def opened(self, path, comm):
        with gamwarm.open(path, comm=comm, on_error="raise") as store, store.frozen().independent() as view:
            yield view


class TestReadOnly(StoreSuite):
    writes = False

    @contextmanager
    def opened(self, path, comm):
        with gamwarm.open(path, "r") as store:
            yield store


class TestWrapped(StoreSuite):
    @contextmanager
    def opened(self, path, comm):
        with gamwarm.open(path, comm=comm, on_error="raise") as store:
            yield StoreWrapper(StoreWrapper(store))


class TestWrappedCollective(TestWrapped):
    ranks = 2


class TestIntercepting(StoreSuite):
    @contextmanager
    def opened(self, path, comm):
        with gamwarm.open(path, on_error="raise") as store:
            yield InterceptingStore(store, lambda start: start)


class MemoryStore:
    """A store of somebody else's, of the protocol alone: it remembers results by key."""

    comm, disabled_reason = SERIAL, None

    def __init__(self):
        self.results, self.closed = {}, False

    def check_open(self):
        if self.closed:
            raise StoreClosed("closed; open it again")

    def close(self):
        self.closed = True

    def fit(self, problem, parent=None, leave_out=None, attributes=None, *, each=False):
        return FitInProgress(self, problem, parent, leave_out, attributes, each=each)

    def start_for(self, problem, parent=None, leave_out=None, *, each=False):
        self.check_open()
        if problem is None:
            raise gamwarm.InvalidInput("problem is None")
        if not isinstance(problem, gamwarm.FitProblem):
            raise gamwarm.InvalidType(f"problem is {type(problem).__name__}")
        try:
            key = problem.key
        except UnkeyableFit as error:
            return StartReport("cold", reason=str(error))
        result = self.results.get(key)
        if result is None:
            return StartReport("cold", None, key, reason="not kept here")
        start = ConstrainedWarmStart(result.rho, result.block_beta)
        return StartReport("exact", start, key, is_checkpoint=not result.converged)

    def keep(self, problem, result, start=None, *, each=False):
        self.check_open()
        check_result(problem, result)
        if start is not None and start.key is None:
            return KeepOutcome(PutOutcome(reason=start.reason), PutOutcome(reason=start.reason))
        self.results[problem.key] = result
        return KeepOutcome(PutOutcome(written=True, entry_id=problem.key), PutOutcome(reason="records only"))

    def should_stop_fits(self):
        return False


class TestForeign(StoreSuite):
    transfers = False

    @contextmanager
    def opened(self, path, comm):
        yield MemoryStore()
