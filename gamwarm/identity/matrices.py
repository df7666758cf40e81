"""Digest of a matrix as a two-level tree of leaves: rows, or an `IndexedDesign`'s index.

The cut into leaves depends on the shape alone, so ranks, threads and chunked sources share the work
without changing a bit. Within a rank the hash library's own threads take part where the ranks leave
cores free.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from blake3 import blake3

from gamwarm.checks import is_immutable, is_sparse, notes_of
from gamwarm.errors import CollectiveError
from gamwarm.identity.leaves import (
    INDEX_LEAF,
    LEAF_ROWS,
    DenseLeaves,
    IndexLeaves,
    as_bytes,
    dense_step,
    positive_zeros,
    sparse_leaves,
)
from gamwarm.parallel import Communicator, agree, as_communicator, mark_agreed, share
from gamwarm.problem import DistributedRows, IndexedDesign, check_row_numbers, check_same_ranks, design_shape, read_rows

__all__ = ["DigestCache", "digest_of", "matrix_digest"]

_WITNESS_ROWS: Final = 16


class _Kind(IntEnum):
    """First byte of a root; its leaves begin with the number before it."""

    DENSE = 1
    SPARSE = 3
    INDEXED = 5


class _Plan(NamedTuple):
    """What all ranks must agree on; of an indexed design also its distinct rows."""

    kind: _Kind = _Kind.DENSE
    n: int = 0
    p: int = 0
    distinct: int = 0
    rows: bytes = b""
    witness: bytes = b""

    @property
    def step(self) -> int:
        """Rows of one leaf."""
        if self.kind is _Kind.DENSE:
            return dense_step(self.p)
        return LEAF_ROWS if self.kind is _Kind.SPARSE else INDEX_LEAF

    @property
    def width(self) -> int:
        """Numbers of 8 bytes that a row is hashed as, dense or indexed."""
        return 1 if self.kind is _Kind.INDEXED else self.p

    def root(self, leaves: Sequence[bytes]) -> str:
        """Return the digest of the matrix with these leaves, as joined by any rank."""
        sizes = (self.n, self.p, self.distinct) if self.kind is _Kind.INDEXED else (self.n, self.p)
        head = bytes([self.kind]) + struct.pack(f"<{len(sizes) + 1}Q", *sizes, self.step)
        return str(blake3(b"".join([head, self.rows, *leaves])).hexdigest())


class DigestCache:
    """Digests that one walk over a fit has met: blocks often share designs and indices.

    By identity, and only while the walk lasts: a writeable array is read again by the next walk.
    """

    def __init__(self) -> None:
        self.designs: dict[int, tuple[Any, str]] = {}
        self.indices: dict[int, tuple[Any, bytes]] = {}


def matrix_digest(m: Any, comm: Any = None) -> str:
    """Return the digest of a matrix, 64 hex digits.

    Parameters
    ----------
    m : array, sparse matrix, `IndexedDesign`, row source or `DistributedRows` of shape (n, p)
        bool, integer, float16, float32 or float64. Memory order, chunking, the type of an index and
        the ranks that hold the rows do not matter; dense, sparse and indexed differ.
    comm : mpi4py communicator, optional
        Collective: every rank passes an equal ``m`` and hashes its share of the leaves. Of
        distributed rows (collective anyway) every rank hashes its own; ``comm`` is then None or has
        the same ranks in the same order.

    Raises
    ------
    InvalidType
        A ``TypeError``: element types or integers that binary64 cannot hold exactly.
    InvalidInput
        Not two-dimensional, a row source that returns another shape than asked for, or an index
        that was written to since and names no row.
    CollectiveError
        With ``comm`` or distributed rows: a rank failed, the shapes differ, or ``comm`` has other
        ranks than the rows.
    """
    return digest_of(m, comm, None)


def digest_of(m: Any, comm: Any, seen: DigestCache | None) -> str:
    """Return `matrix_digest`; without a communicator, what was ``seen`` is not read again."""
    if isinstance(m, DistributedRows):
        return _distributed_digest(m, m.comm if comm is None else as_communicator(comm))
    ranks = as_communicator(comm)
    if ranks.is_serial:
        if isinstance(m, np.ndarray) and is_immutable(m):
            notes = notes_of(m)
            if "digest" not in notes:
                notes["digest"] = _shared_digest(m, ranks, None)
            return str(notes["digest"])
        if seen is not None:
            if id(m) not in seen.designs:
                seen.designs[id(m)] = m, _shared_digest(m, ranks, seen)
            return seen.designs[id(m)][1]
    return _shared_digest(m, ranks, seen)


def _shared_digest(m: Any, ranks: Communicator, seen: DigestCache | None) -> str:
    if ranks.is_serial:
        plan = _plan(m, witness=False)
        return plan.root([_leaves(m, plan, range(-(-plan.n // plan.step)), ranks.cores, seen)])
    cores = _cores(ranks)
    error: BaseException | None = None
    plan = _Plan()
    leaves = b""
    count = 0
    try:
        plan = _plan(m, witness=True)
        count = -(-plan.n // plan.step)
        leaves = _leaves(m, plan, _leaves_of(ranks, count), cores, None)
    except BaseException as caught:  # every rank must reach the agreement below
        error = caught
    reports = agree(ranks, "matrix_digest", (plan, leaves), error)
    for rank, other in _strangers(reports, count):
        raise _another_matrix(rank, other, reports[0][0])
    return plan.root([part for _, part in (reports[:count] if count < ranks.size else reports)])


def _cores(ranks: Communicator) -> Callable[[], int]:
    """Return how to ask what cores this rank may use: ranks together, now; alone, when needed."""
    if ranks.is_serial:
        return ranks.cores
    known = ranks.cores()
    return lambda: known


def _plan(m: Any, *, witness: bool) -> _Plan:
    n, p = design_shape(m, "matrix")
    telling = _witness(m) if witness else b""
    if isinstance(m, IndexedDesign):
        # Few: each rank hashes them on its own, and only once if they are immutable.
        return _Plan(_Kind.INDEXED, n, p, m.rows.shape[0], bytes.fromhex(matrix_digest(m.rows)), telling)
    return _Plan(_Kind.SPARSE if is_sparse(m) else _Kind.DENSE, n, p, witness=telling)


def _leaves(m: Any, plan: _Plan, mine: range, cores: Callable[[], int], seen: DigestCache | None) -> bytes:
    if plan.kind is _Kind.SPARSE:
        return b"".join(sparse_leaves(m, plan.n, plan.p, mine))
    if plan.kind is _Kind.DENSE:
        return b"".join(_dense_leaves(m, plan, mine, cores))
    if seen is None:
        return b"".join(_index_leaves(m.index, plan, mine, cores))
    if id(m.index) not in seen.indices:
        seen.indices[id(m.index)] = m.index, b"".join(_index_leaves(m.index, plan, mine, cores))
    return seen.indices[id(m.index)][1]


def _another_matrix(rank: int, other: _Plan, first: _Plan) -> CollectiveError:
    differ = CollectiveError(
        f"matrix_digest: rank {rank} holds another matrix ({other.n} x {other.p}) than rank 0 "
        f"({first.n} x {first.p}); pass the same matrix on every rank, or each=True for one fit per rank",
        rank=rank,
        cause="matrices differ",
        failed=False,
    )
    mark_agreed(differ)
    return differ


def _leaves_of(ranks: Communicator, count: int) -> range:
    """Return this rank's share of ``count`` leaves; spare ranks hash leaves again.

    No rank hashes more than ceil(count / ranks) leaves, and the repeats are compared.
    """
    if 0 < count < ranks.size:
        return range(ranks.rank % count, ranks.rank % count + 1)
    return share(count, ranks)


def _strangers(reports: list[tuple[_Plan, bytes]], count: int) -> Iterator[tuple[int, _Plan]]:
    """Yield the ranks whose matrix differs from those before, as far as reports tell."""
    root = reports[0][0]
    witness = b""
    for rank, (plan, leaves) in enumerate(reports):
        witness = witness or plan.witness
        if (
            plan[:-1] != root[:-1]
            or (plan.witness and plan.witness != witness)
            or (0 < count < len(reports) and leaves != reports[rank % count][1])
        ):
            yield rank, plan


def _witness(m: Any) -> bytes:
    """Return a digest of a few rows in memory, so that ranks with different ones notice.

    Each rank hashes its own leaves only: without a witness, different arrays of one shape would
    agree on one digest.
    """
    if isinstance(m, IndexedDesign):
        m = m.index
    if not isinstance(m, np.ndarray) or m.shape[0] == 0:
        return b""
    rows = np.unique(np.linspace(0, m.shape[0] - 1, _WITNESS_ROWS).astype(np.intp))
    return bytes(blake3(as_bytes(positive_zeros(m[rows], "matrix"))).digest(length=16))


def _dense_leaves(m: Any, plan: _Plan, mine: range, cores: Callable[[], int]) -> Iterator[bytes]:
    hasher = DenseLeaves(plan.p, 8 * plan.p * (min(mine.stop * plan.step, plan.n) - mine.start * plan.step), cores)
    for leaf in mine:
        start, stop = leaf * plan.step, min((leaf + 1) * plan.step, plan.n)
        hasher.begin(stop - start)
        hasher.add(m[start:stop] if isinstance(m, np.ndarray) else read_rows(m, start, stop, plan.p))
        yield hasher.end()


def _index_leaves(index: Any, plan: _Plan, mine: range, cores: Callable[[], int]) -> Iterator[bytes]:
    first = mine.start * INDEX_LEAF
    hasher = IndexLeaves(plan.distinct, 8 * (min(mine.stop * INDEX_LEAF, plan.n) - first), cores, first)
    for leaf in mine:
        start, stop = leaf * INDEX_LEAF, min((leaf + 1) * INDEX_LEAF, plan.n)
        hasher.begin(stop - start)
        hasher.add(index[start:stop])
        yield hasher.end()


def _distributed_digest(m: DistributedRows, ranks: Communicator) -> str:
    """Each rank hashes the leaves whose first row it holds; their later rows come to it."""
    cores = _cores(ranks)
    error: BaseException | None = None
    plan = _Plan()
    head: Any = np.zeros((0, 0))
    try:
        check_same_ranks(m, ranks, "distributed matrix")
        plan = _distributed_plan(m)
        # Read before the agreement: a rank that fails to must not leave others waiting.
        head = _head(m, plan)
    except BaseException as caught:  # every rank must reach the agreement below
        error = caught
    plans = agree(ranks, "matrix_digest", plan, error)
    # A rank without rows need not know the distinct ones.
    plan = plan._replace(rows=next((each.rows for each in plans if each.rows), b""))
    for rank, other in enumerate(plans):
        if other != plan and other != plan._replace(rows=b""):
            raise _another_matrix(rank, other, plans[0])
    tail = _tail(m, head, plan, ranks)
    leaves = b""
    try:
        leaves = b"".join(_own_leaves(m, tail, plan, cores))
    except BaseException as caught:  # every rank must reach the agreement below
        error = caught
    return plan.root(agree(ranks, "matrix_digest", leaves, error))


def _distributed_plan(m: DistributedRows) -> _Plan:
    n, p = design_shape(m, "matrix")
    # What all ranks get from all does not grow twice: the counts go as a digest.
    counts = bytes(blake3(struct.pack(f"<{len(m.counts)}Q", *m.counts)).digest(length=16))
    if m.distinct is None:
        return _Plan(_Kind.DENSE, n, p, witness=counts)
    rows = matrix_digest(m.local_rows.rows) if isinstance(m.local_rows, IndexedDesign) else ""
    return _Plan(_Kind.INDEXED, n, p, m.distinct, bytes.fromhex(rows), counts)


def _first_leaf_row(row: int, step: int) -> int:
    """Return the first row of a leaf at or after ``row``."""
    return -(-row // step) * step


def _read(m: DistributedRows, plan: _Plan, start: int, stop: int) -> Any:
    """Rows start:stop, which this rank holds, as they are hashed."""
    return m.local_index(start, stop) if plan.kind is _Kind.INDEXED else m.local_chunk(start, stop)


def _head(m: DistributedRows, plan: _Plan) -> Any:
    """Return this rank's rows before its first leaf as they travel; an earlier rank hashes them."""
    stop = min(_first_leaf_row(m.start, plan.step), m.stop)
    if stop <= m.start:
        return np.zeros((0, plan.width))
    rows = np.asarray(_read(m, plan, m.start, stop))
    if plan.kind is _Kind.INDEXED:
        check_row_numbers(rows, plan.distinct, m.start)
        return rows.astype("<u8")
    if rows.dtype == np.dtype("<f8") and rows.flags.c_contiguous:
        return rows  # as it lies; the rank that hashes it looks for negative zeros
    return positive_zeros(rows, "matrix")


def _tail(m: DistributedRows, head: Any, plan: _Plan, ranks: Communicator) -> list[Any]:
    """Exchange boundary rows: send the head, return the last leaf's missing rows by piece."""
    step, width = plan.step, plan.width
    outgoing, incoming = {}, {}
    if len(head):
        outgoing[m.owner(m.start // step * step)] = as_bytes(head)
        m.traffic.rows_sent += len(head)
        m.traffic.bytes_sent += 8 * width * len(head)
    if _first_leaf_row(m.start, step) < m.stop:  # this rank begins a leaf
        for rank, start, stop in m.pieces(m.stop, min(_first_leaf_row(m.stop, step), plan.n)):
            incoming[rank] = 8 * width * (stop - start)
            m.traffic.rows_received += stop - start
    if ranks.size == 1:
        return []
    received = ranks.exchange(outgoing, incoming)
    if plan.kind is _Kind.INDEXED:
        return [np.frombuffer(received[rank], dtype="<u8") for rank in sorted(incoming)]
    lengths = {rank: length // max(8 * width, 1) for rank, length in incoming.items()}
    return [np.frombuffer(received[rank], dtype="<f8").reshape(lengths[rank], width) for rank in sorted(incoming)]


def _own_leaves(m: DistributedRows, tail: list[Any], plan: _Plan, cores: Callable[[], int]) -> Iterator[bytes]:
    first = _first_leaf_row(m.start, plan.step)
    total = 8 * plan.width * max(m.stop - first, 0)
    hasher: Any = (
        IndexLeaves(plan.distinct, total, cores, first)
        if plan.kind is _Kind.INDEXED
        else DenseLeaves(plan.p, total, cores)
    )
    for start in range(first, m.stop, plan.step):
        stop = min(start + plan.step, plan.n)
        hasher.begin(stop - start)
        hasher.add(_read(m, plan, start, min(stop, m.stop)))
        if stop > m.stop:
            for piece in tail:
                hasher.add(piece)
        m.traffic.rows_hashed += stop - start
        yield hasher.end()
