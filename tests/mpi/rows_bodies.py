"""What ranks do in the tests of shared and distributed designs, of dealt projections and of the
communicators used.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import gamwarm
from gamwarm import DistributedRows, IndexedDesign, matrix_digest
from gamwarm.parallel import as_communicator, usable_cores
from gamwarm.parallel.mpi import MpiCommunicator
from gamwarm.transfer import build
from tests.mpi.bodies import brief_repr, caught, settled
from tests.support.problems import Rows, wave
from tests.support.stores import carrier_fit, plain_fit, record_of, result_of

LEAF = 4096
INDEX_LEAF = 1_048_576
SIZES = (0, 1, 2, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF - 1, 2 * LEAF, 2 * LEAF + 1, 5 * LEAF + 7)
WIDE = 300  # a leaf of this many columns has 3495 rows

CUTS = {
    "even": lambda n, size: [(r + 1) * n // size - r * n // size for r in range(size)],
    "all on the last rank": lambda n, size: [0] * (size - 1) + [n],
    "none on the odd ranks": lambda n, size: (
        [n - n // 2 if r == 0 else n // 2 if r == 2 else 0 for r in range(size)] if size > 2 else [n] + [0] * (size - 1)
    ),
    "one row each": lambda n, size: [min(1, max(0, n - r)) for r in range(size - 1)] + [max(0, n - size + 1)],
}
"""Ways to spread n rows over ranks."""


def mine_of(matrix: Any, counts: list[int], rank: int) -> Any:
    start = sum(counts[:rank])
    return matrix[start : start + counts[rank]]


def digests_at_every_edge(comm: Any, folder: Path) -> Any:
    """Digests of replicated, lazy and distributed forms; what went wrong, and what this rank hashed
    and sent.
    """
    wrong, leaves, rows, sent = [], [], [], []
    for n, p in [*((n, 3) for n in SIZES), (3494, WIDE), (3495, WIDE), (3496, WIDE)]:
        whole = wave(n, p, n + 1)
        serial = matrix_digest(whole)
        step = min(LEAF, 8388608 // (8 * p))
        lazy = Rows(whole)
        for name, form in (("replicated", whole), ("lazy", lazy), ("column-major", np.asfortranarray(whole))):
            if matrix_digest(form, comm) != serial:
                wrong.append([name, n, p])
        leaves.append([len(lazy.asked), -(-n // step)])
        for name, cut in CUTS.items():
            counts = cut(n, comm.size)
            part = DistributedRows(mine_of(whole, counts, comm.rank), comm)
            assert sum(counts) == part.shape[0] == n
            if {matrix_digest(part), matrix_digest(part, comm)} != {serial}:
                wrong.append([name, n, p])
            first = -(-part.start // step) * step
            head = min(first, part.stop) - part.start
            rows.append([part.traffic.rows_hashed, 2 * (part.stop - part.start - head + tail_of(part, step))])
            sent.append([part.traffic.bytes_sent, 2 * 8 * p * head])
    return {"wrong": wrong, "leaves": leaves, "rows": rows, "sent": sent}


def indexed_digests(comm: Any, folder: Path) -> Any:
    """Digests and keys of an indexed design, replicated and spread, with dense and with sparse
    distinct rows.
    """
    rows = np.where(wave(7, 4, 2) > 0.0, wave(7, 4, 2), 0.0)
    wrong, names = [], []
    for n in (0, 1, INDEX_LEAF - 1, INDEX_LEAF, INDEX_LEAF + 1, 2 * INDEX_LEAF + 5):
        whole = np.arange(n, dtype="i4") * 5 % 7
        for kind, distinct in (("dense", rows), ("sparse", sparse.csr_array(rows))):
            serial = matrix_digest(IndexedDesign(distinct, whole))
            if matrix_digest(IndexedDesign(distinct, whole), comm) != serial:
                wrong.append(["replicated", kind, n])
            for name, cut in CUTS.items():
                mine = mine_of(whole, cut(n, comm.size), comm.rank)
                part = DistributedRows(IndexedDesign(distinct, mine.astype("i1")), comm)
                if {matrix_digest(part), matrix_digest(part, comm)} != {serial}:
                    wrong.append([name, kind, n])
    whole = np.arange(2 * LEAF + 5) % 7
    mine = mine_of(whole, CUTS["one row each"](len(whole), comm.size), comm.rank)
    for design in (IndexedDesign(rows, whole), DistributedRows(IndexedDesign(rows, mine), comm)):
        problem = plain_fit(design=design)
        names.append([problem.shared_key(as_communicator(comm)), problem.descriptor.key, problem.components.digests])
    alone = plain_fit(design=IndexedDesign(rows, whole))
    return {"wrong": wrong, "names": names, "serial": [alone.key, alone.descriptor.key, alone.components.digests]}


def tail_of(part: Any, step: int) -> int:
    """Return how many rows of later ranks the last leaf begun here has."""
    begins_one = -(-part.start // step) * step < part.stop
    return min(-(-part.stop // step) * step, part.shape[0]) - part.stop if begins_one else 0


def spread_fit(comm: Any, *, lazy: bool = False) -> Any:
    """Return the plain fit of 2 leaves and 5 rows, its rows here and there, and the same fit
    undistributed.
    """
    whole = wave(2 * LEAF + 5, 4, 1)
    mine = mine_of(whole, CUTS["one row each"](len(whole), comm.size), comm.rank)
    return plain_fit(design=DistributedRows(Rows(mine) if lazy else mine, comm)), plain_fit(design=whole)


def a_distributed_fit_in_the_store(comm: Any, folder: Path) -> Any:
    """From a cold start to an exact hit, and the same done serially by rank 0 with the whole
    design.
    """
    problem, plain = spread_fit(comm)
    answer: dict[str, Any] = {}
    with gamwarm.open(folder / "spread.h5", comm=comm) as store:
        with store.fit(problem) as fit:
            answer["cold"] = brief_repr(fit.start)
            kept = fit.keep(result_of(problem, 2.0))
        answer["kept"] = [settled(kept.record), settled(kept.artifact)]
        answer["again"] = brief_repr(store.start_for(spread_fit(comm, lazy=True)[0]))
        answer["plain"] = brief_repr(store.start_for(plain))
        other = plain_fit(design=problem.specs[0].design, fingerprint="y:2")
        answer["transfer"] = brief_repr(store.start_for(other))
        answer["why"] = [str(d) for d in store.explain(other).differences]
        answer["ids"] = sorted(store.entry_ids())
    answer["names"] = [problem.key, problem.descriptor.key, problem.structural_key, problem.components.digests]
    answer["serial names"] = [plain.key, plain.descriptor.key, plain.structural_key, plain.components.digests]
    answer["hashed"] = problem.specs[0].design.traffic.rows_hashed
    serial = folder / "serial.h5"
    if comm.rank == 0:
        with gamwarm.open(serial) as store, store.fit(plain) as fit:
            fit.keep(result_of(plain, 2.0))
    comm.barrier()
    with gamwarm.open(serial, "r") as store:
        answer["serial ids"] = sorted(store.entry_ids())
    return answer


def misuse_of_distributed_rows(comm: Any, folder: Path) -> Any:
    """A serial store, one fit per rank, a communicator of other ranks: an error of ours each time,
    and nobody waits.
    """
    problem, _ = spread_fit(comm)
    reverse = comm.Split(0, -comm.rank)
    halves = comm.Split(comm.rank % 2, comm.rank)
    answer = {}
    try:
        with gamwarm.open(folder / "misuse.h5", comm=comm) as store, gamwarm.open(folder / "alone.h5") as alone:
            for name, call in {
                "serial store": lambda: alone.start_for(problem),
                "serial keep": lambda: alone.keep(problem, result_of(problem)),
                "each": lambda: store.start_for(problem, each=True),
                "each keep": lambda: store.keep(problem, result_of(problem), each=True),
                "reversed digest": lambda: matrix_digest(problem.specs[0].design, reverse),
                "reversed key": lambda: gamwarm.exact_key(
                    problem.family, problem.specs, problem.options, engine="tests", comm=reverse
                ),
                "halves": lambda: matrix_digest(problem.specs[0].design, halves),
            }.items():
                try:
                    call()
                    answer[name] = {"type": None}
                except gamwarm.GamwarmError as error:
                    answer[name] = caught(error)
            answer["after"] = brief_repr(store.start_for(problem))["source"]
    finally:
        reverse.Free()
        halves.Free()
    return answer


def projections_of_a_fold(comm: Any, folder: Path) -> Any:
    """A transfer of many terms: collective (dealt), one per rank (each its own), and serial."""
    parent, child = carrier_fit(range(37)), carrier_fit(range(2, 37))
    counted: list[tuple[int, ...]] = []
    real = build.project

    def project(lift: Any, target: Any) -> Any:
        counted.append(lift.shape)
        return real(lift, target)

    build.project = project  # type: ignore[assignment]
    try:
        with gamwarm.open(folder / "projections.h5", comm=comm) as store:
            store.keep(parent, result_of(parent, 2.0))
            together = brief_repr(store.start_for(child))
            dealt = list(counted)
            each = brief_repr(store.start_for(child, each=True))
            local = counted[len(dealt) :]
        comm.barrier()
        with gamwarm.open(folder / "projections.h5", "r") as alone:
            serial = brief_repr(alone.start_for(child))
    finally:
        build.project = real
    return {"together": together, "each": each, "serial": serial, "dealt": dealt, "local": local}


class Counted:
    """Counts the communicators that gamwarm makes and frees on this rank."""

    def __init__(self) -> None:
        self.made = self.freed = 0

    def __enter__(self) -> Counted:
        self.real = MpiCommunicator.duplicate, MpiCommunicator.free

        def duplicate(comm: Any) -> Any:
            self.made += 1
            return self.real[0](comm)

        def free(comm: Any) -> None:
            self.freed += 1
            self.real[1](comm)

        MpiCommunicator.duplicate, MpiCommunicator.free = duplicate, free  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        MpiCommunicator.duplicate, MpiCommunicator.free = self.real  # type: ignore[method-assign]


def communicators_that_are_freed(comm: Any, folder: Path) -> Any:
    """Every way out of a store, an exception on one rank included."""
    answer = {}

    def closed() -> None:
        gamwarm.open(folder / "freed.h5", comm=comm).close()

    def left_in_order() -> None:
        with gamwarm.open(folder / "freed.h5", comm=comm) as store:
            store.put_record(record_of(1))

    def left_by_an_exception_of_one_rank() -> None:
        with gamwarm.open(folder / "freed.h5", comm=comm) as store:
            if comm.rank == comm.size - 1:
                raise ValueError("a bad day")
            store.keys()

    def left_out_of_a_transaction() -> None:
        with gamwarm.open(folder / "freed.h5", comm=comm) as store, store.transaction():
            raise ValueError("a bad day")

    def closed_inside_a_transaction_by_one_rank() -> None:
        with gamwarm.open(folder / "freed.h5", comm=comm) as store, store.transaction():
            if comm.rank == 0:
                store.close()

    def refused_at_open() -> None:
        gamwarm.open(folder / "missing.h5", "r", comm=comm)

    def refused_arguments() -> None:
        gamwarm.open(folder / "freed.h5", "w", comm=comm)  # type: ignore[arg-type]

    def a_view_and_independent_ranks() -> None:
        with gamwarm.open(folder / "freed.h5", comm=comm) as store:
            store.frozen().start_for(plain_fit())
            with store.independent() as own:
                own.keys()

    for way in (
        closed,
        left_in_order,
        left_by_an_exception_of_one_rank,
        left_out_of_a_transaction,
        closed_inside_a_transaction_by_one_rank,
        refused_at_open,
        refused_arguments,
        a_view_and_independent_ranks,
    ):
        comm.barrier()
        with Counted() as counted:
            try:
                way()
                raised = None
            except Exception as error:
                raised = type(error).__name__
        answer[way.__name__] = [raised, counted.made, counted.freed]
    return answer


def more_stores_than_communicators(comm: Any, folder: str) -> int:
    """Open what cannot be opened, more often than MPI has communicators at a time (MPICH: about
    2000).
    """
    refused = 0
    for _ in range(2300):
        try:
            gamwarm.open(Path(folder) / "never.h5", "w", comm=comm)  # type: ignore[arg-type]
        except gamwarm.GamwarmError:
            refused += 1
    return refused


def cores_of_a_rank(comm: Any, folder: Path) -> Any:
    """What one rank may keep busy; asked twice, the second time without a message."""
    ranks = as_communicator(comm)
    first = ranks.cores()
    if comm.rank == 0:
        again = as_communicator(comm).cores()  # alone: it would wait for ever if it asked the others
    else:
        time.sleep(0.01)
        again = first
    comm.barrier()
    mine = comm.Split(comm.rank, 0)
    try:
        alone = as_communicator(mine).cores()
    finally:
        mine.Free()
    return {"first": first, "again": again, "alone": alone, "usable": len(usable_cores())}


EVERYTHING = (
    digests_at_every_edge,
    indexed_digests,
    a_distributed_fit_in_the_store,
    misuse_of_distributed_rows,
    projections_of_a_fold,
    communicators_that_are_freed,
    cores_of_a_rank,
)


def everything(comm: Any, folder: str) -> Any:
    return {body.__name__: body(comm, Path(folder)) for body in EVERYTHING}
