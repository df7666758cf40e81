"""Digest of a matrix as a two-level tree of row leaves.

The cut into leaves depends on the shape alone, so ranks, threads and chunked sources share the work without changing a
bit. Within a rank the hash library's own threads take part where the ranks leave cores free.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from blake3 import blake3

from gamwarm.checks import is_sparse
from gamwarm.errors import CollectiveError
from gamwarm.identity.leaves import LEAF_ROWS, DenseLeaves, as_bytes, dense_step, positive_zeros, sparse_leaves
from gamwarm.parallel import Communicator, agree, as_communicator, mark_agreed, share
from gamwarm.problem import DistributedRows, check_same_ranks, design_shape, read_rows

__all__ = ["matrix_digest"]

_DENSE_ROOT, _SPARSE_ROOT = b"\x01", b"\x03"
_WITNESS_ROWS = 16

_Plan = tuple[bool, int, int, bytes]  # sparse or not, n, p, witness


def matrix_digest(m: Any, comm: Any = None) -> str:
    """Return the digest of a matrix, 64 hex digits.

    Parameters
    ----------
    m : array, sparse matrix, row source or `DistributedRows` of shape (n, p)
        bool, integer, float16, float32 or float64. Memory order, chunking and the ranks that hold the rows do not
        matter; sparse and dense differ.
    comm : mpi4py communicator, optional
        Collective: every rank passes an equal ``m`` and hashes its share of the leaves. Of distributed rows (collective
        anyway) every rank hashes its own; ``comm`` is then None or has the same ranks in the same order.

    Raises
    ------
    InvalidType
        A ``TypeError``: element types or integers that binary64 cannot hold exactly.
    InvalidInput
        Not two-dimensional, or a row source that returns another shape than asked for.
    CollectiveError
        With ``comm`` or distributed rows: a rank failed, the shapes differ, or ``comm`` has other ranks than the rows.
    """
    if isinstance(m, DistributedRows):
        return _distributed_digest(m, m.comm if comm is None else as_communicator(comm))
    ranks = as_communicator(comm)
    cores = ranks.cores()
    error: BaseException | None = None
    plan: _Plan = (False, 0, 0, b"")
    leaves = b""
    count = 0
    try:
        n, p = design_shape(m, "matrix")
        plan = (is_sparse(m), n, p, b"" if ranks.is_serial else _witness(m))
        count = -(-n // _step(plan))
        mine = _leaves_of(ranks, count)
        leaves = b"".join(sparse_leaves(m, n, p, mine) if plan[0] else _dense_leaves(m, n, p, mine, cores))
    except BaseException as caught:  # every rank must reach the agreement below
        error = caught
    reports = agree(ranks, "matrix_digest", (plan, leaves), error)
    for rank, other in _strangers(reports, count):
        raise _another_matrix(rank, other, reports[0][0])
    return _root(plan, [part for _, part in (reports[:count] if count < ranks.size else reports)])


def _step(plan: _Plan) -> int:
    return LEAF_ROWS if plan[0] else dense_step(plan[2])


def _root(plan: _Plan, leaves: Sequence[bytes]) -> str:
    sparse, n, p, _ = plan
    root = blake3(_SPARSE_ROOT if sparse else _DENSE_ROOT)
    root.update(struct.pack("<QQQ", n, p, _step(plan)))
    for part in leaves:
        root.update(part)
    return str(root.hexdigest())


def _another_matrix(rank: int, other: _Plan, first: _Plan) -> CollectiveError:
    differ = CollectiveError(
        f"matrix_digest: rank {rank} holds another matrix ({other[1]} x {other[2]}) than rank 0 "
        f"({first[1]} x {first[2]}); pass the same matrix on every rank, or each=True for one fit per rank",
        rank=rank,
        cause="matrices differ",
        failed=False,
    )
    mark_agreed(differ)
    return differ


def _leaves_of(ranks: Communicator, count: int) -> range:
    """Return this rank's share of ``count`` leaves; where there are more ranks than leaves, leaves are hashed again.

    No rank hashes more than ceil(count / ranks) leaves, and the repeats are compared.
    """
    if 0 < count < ranks.size:
        return range(ranks.rank % count, ranks.rank % count + 1)
    return share(count, ranks)


def _strangers(reports: list[tuple[_Plan, bytes]], count: int) -> Iterator[tuple[int, _Plan]]:
    """Yield the ranks that hold another matrix than the ranks before them, as far as the reports can tell."""
    root = reports[0][0]
    witness = b""
    for rank, (plan, leaves) in enumerate(reports):
        witness = witness or plan[3]
        if (
            plan[:3] != root[:3]
            or (plan[3] and plan[3] != witness)
            or (0 < count < len(reports) and leaves != reports[rank % count][1])
        ):
            yield rank, plan


def _witness(m: Any) -> bytes:
    """Return a few rows of an array in memory, digested, so that ranks which hold different arrays notice.

    Each rank hashes its own leaves only: without a witness, different arrays of one shape would agree on one digest.
    """
    if not isinstance(m, np.ndarray) or m.shape[0] == 0:
        return b""
    rows = np.unique(np.linspace(0, m.shape[0] - 1, _WITNESS_ROWS).astype(np.intp))
    return bytes(blake3(as_bytes(positive_zeros(m[rows], "matrix"))).digest(length=16))


def _dense_leaves(m: Any, n: int, p: int, mine: range, cores: int) -> Iterator[bytes]:
    step = dense_step(p)
    hasher = DenseLeaves(p, 8 * p * (min(mine.stop * step, n) - mine.start * step), cores)
    for leaf in mine:
        start, stop = leaf * step, min((leaf + 1) * step, n)
        hasher.begin(stop - start)
        hasher.add(m[start:stop] if isinstance(m, np.ndarray) else read_rows(m, start, stop, p))
        yield hasher.end()


def _distributed_digest(m: DistributedRows, ranks: Communicator) -> str:
    """Every rank hashes the leaves whose first row it holds; the rows of a leaf that later ranks hold come to it."""
    cores = ranks.cores()
    error: BaseException | None = None
    plan: _Plan = (False, 0, 0, b"")
    head: Any = np.zeros((0, 0))
    try:
        check_same_ranks(m, ranks, "distributed matrix")
        n, p = design_shape(m, "matrix")
        counts = struct.pack(f"<{len(m.counts)}Q", *m.counts)
        plan = (False, n, p, bytes(blake3(counts).digest(length=16)))  # what all ranks get from all does not grow twice
        # Read before the agreement: a rank that cannot read its rows must not leave another waiting for them.
        head = _head(m, dense_step(p))
    except BaseException as caught:  # every rank must reach the agreement below
        error = caught
    plans = agree(ranks, "matrix_digest", plan, error)
    for rank, other in enumerate(plans):
        if other != plan:
            raise _another_matrix(rank, other, plans[0])
    tail = _tail(m, head, dense_step(plan[2]), ranks)
    leaves = b""
    try:
        leaves = b"".join(_own_leaves(m, tail, cores))
    except BaseException as caught:  # every rank must reach the agreement below
        error = caught
    return _root(plan, agree(ranks, "matrix_digest", leaves, error))


def _first_leaf_row(row: int, step: int) -> int:
    """Return the first row of a leaf at or after ``row``."""
    return -(-row // step) * step


def _head(m: DistributedRows, step: int) -> Any:
    """Return this rank's rows before its first leaf as float64; an earlier rank hashes them."""
    stop = min(_first_leaf_row(m.start, step), m.stop)
    if stop <= m.start:
        return np.zeros((0, m.shape[1]))
    rows = np.asarray(m.local_chunk(m.start, stop))
    if rows.dtype == np.dtype("<f8") and rows.flags.c_contiguous:
        return rows  # as it lies; the rank that hashes it looks for negative zeros
    return positive_zeros(rows, "matrix")


def _tail(m: DistributedRows, head: Any, step: int, ranks: Communicator) -> list[Any]:
    """Exchange boundary rows: send the head, return the rows that complete this rank's last leaf, piece by piece."""
    n, p = m.shape
    outgoing, incoming = {}, {}
    if len(head):
        outgoing[m.owner(m.start // step * step)] = as_bytes(head)
        m.traffic.rows_sent += len(head)
        m.traffic.bytes_sent += 8 * p * len(head)
    if _first_leaf_row(m.start, step) < m.stop:  # this rank begins a leaf
        for rank, start, stop in m.pieces(m.stop, min(_first_leaf_row(m.stop, step), n)):
            incoming[rank] = 8 * p * (stop - start)
            m.traffic.rows_received += stop - start
    if ranks.size == 1:
        return []
    received = ranks.exchange(outgoing, incoming)
    lengths = {rank: length // max(8 * p, 1) for rank, length in incoming.items()}
    return [np.frombuffer(received[rank], dtype="<f8").reshape(lengths[rank], p) for rank in sorted(incoming)]


def _own_leaves(m: DistributedRows, tail: list[Any], cores: int) -> Iterator[bytes]:
    n, p = m.shape
    step = dense_step(p)
    first = _first_leaf_row(m.start, step)
    hasher = DenseLeaves(p, 8 * p * max(m.stop - first, 0), cores)
    for start in range(first, m.stop, step):
        stop = min(start + step, n)
        hasher.begin(stop - start)
        hasher.add(m.local_chunk(start, min(stop, m.stop)))
        if stop > m.stop:
            for piece in tail:
                hasher.add(piece)
        m.traffic.rows_hashed += stop - start
        yield hasher.end()
