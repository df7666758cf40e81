"""Rows that stay on the rank that made them: each holds a contiguous part, in rank order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NoReturn

import numpy as np

from gamwarm.checks import FloatArray, float_vector, is_sparse
from gamwarm.errors import CollectiveError, InvalidInput, InvalidType
from gamwarm.parallel import Communicator, agree, as_communicator, mark_agreed
from gamwarm.problem.designs import IndexedDesign, check_exact_dtype, design_shape, read_rows

__all__ = ["DistributedRows", "Traffic", "check_same_ranks", "distributed_of"]

_UNTOLD = ((0,), (0, 0))  # shapes of a rank without rows that tell nothing of their width


@dataclass
class Traffic:
    """Counts of the work that fingerprinting has cost this rank.

    Attributes
    ----------
    rows_hashed : int
        Rows that this rank hashed, received ones included.
    rows_sent, bytes_sent : int
        Boundary rows of this rank that another hashed.
    rows_received : int
        Boundary rows of other ranks that this one hashed.
    """

    rows_hashed: int = 0
    rows_sent: int = 0
    bytes_sent: int = 0
    rows_received: int = 0


class DistributedRows:
    """A dense or indexed design (or an offset) spread over ranks. Making one is collective.

    Row numbers are global: rank 0 holds the first rows, rank 1 the next, and so on. The rows are
    hashed where they are; the digest is that of the plain array with all rows, or of the
    `IndexedDesign` with the full index.

    Parameters
    ----------
    local_rows : array, row source or `IndexedDesign` of shape (rows of this rank, p)
        Any number of rows on each rank, none included (an empty array). Kept by reference. The
        distinct rows of an `IndexedDesign` are the same on every rank, its index that of this
        rank's rows. For an offset: an array of shape (rows of this rank,), which is copied.
    comm : mpi4py communicator or None
        Not duplicated: naming a fit uses collective calls on it, in the same order on all ranks.
        None: one rank.

    Attributes
    ----------
    local_rows : array, row source or IndexedDesign
    distinct : int or None
        Distinct rows of an indexed design, also on a rank without rows; None of a dense one.
    start, stop : int
        Global numbers of this rank's rows: ``start:stop``.
    counts : tuple of int
        Rows of each rank.
    traffic : Traffic
        Rows hashed, sent and received by this rank.

    Raises
    ------
    InvalidInput, InvalidType
        With ``comm=None``; else
    CollectiveError
        on every rank: one rank's rows are not a dense or indexed matrix of numbers, or their widths
        or kinds differ.
    """

    def __init__(self, local_rows: Any, comm: Any) -> None:
        self.comm: Communicator = as_communicator(comm)
        self.traffic = Traffic()
        error: BaseException | None = None
        shape: tuple[int, ...] = ()
        distinct: int | None = None
        try:
            local_rows, shape = _checked(local_rows)
            distinct = local_rows.rows.shape[0] if isinstance(local_rows, IndexedDesign) else None
        except BaseException as caught:  # every rank must reach the agreement below
            error = caught
        told = agree(self.comm, "DistributedRows", (shape, distinct), error)
        shapes = [shape for shape, _ in told]
        self.comm.cores()  # remembered: here all ranks are known to be there, at a digest one might have failed before
        self._widths = _common_widths(shapes)
        self.distinct = _common_kind(told)
        self.local_rows = local_rows
        self.counts: tuple[int, ...] = tuple(s[0] for s in shapes)
        self._starts = (0, *accumulate(self.counts))
        self.start, self.stop = self._starts[self.comm.rank], self._starts[self.comm.rank + 1]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, p), or (n,) of an offset; n counts the rows of all ranks."""
        return (self._starts[-1], *self._widths)

    def row_chunk(self, start: int, stop: int, /) -> Any:
        """Rows start:stop (global numbers) that this rank holds. Never communicates.

        Raises
        ------
        InvalidInput
            Some of these rows are on other ranks.
        """
        if start == stop:
            return np.zeros((0, *self._widths))
        if not self.start <= start < stop <= self.stop:
            raise InvalidInput(
                f"rows {start}:{stop} are not all on rank {self.comm.rank}, which holds {self.start}:{self.stop} of "
                f"{self._starts[-1]}; a rank reads its own rows (start:stop); send the others yourself"
            )
        return self.local_chunk(start, stop)

    def local_chunk(self, start: int, stop: int) -> Any:
        """Rows start:stop (global numbers), which this rank holds, dense."""
        if isinstance(self.local_rows, np.ndarray):
            return self.local_rows[start - self.start : stop - self.start]
        if isinstance(self.local_rows, IndexedDesign):
            return self.local_rows.row_chunk(start - self.start, stop - self.start)
        return read_rows(self.local_rows, start - self.start, stop - self.start, self._widths[0])

    def local_index(self, start: int, stop: int) -> Any:
        """Index of rows start:stop (global numbers) of an indexed design, which this rank holds."""
        return self.local_rows.index[start - self.start : stop - self.start]

    def owner(self, row: int) -> int:
        """Return the rank that holds a row."""
        return bisect_right(self._starts, row) - 1

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (rank, start, stop) of rows start:stop by rank, in order, empty ones left out."""
        while start < stop:
            rank = self.owner(start)
            end = min(stop, self._starts[rank + 1])
            yield rank, start, end
            start = end

    def everywhere(self, at_once: int) -> Iterator[FloatArray]:
        """Yield an offset's values on every rank, ``at_once`` at a time, in order. Collective."""
        n = self._starts[-1]
        for first in range(0, n, at_once):
            start, stop = max(first, self.start), min(first + at_once, self.stop)
            mine = self.local_rows[start - self.start : stop - self.start] if start < stop else np.zeros(0)
            yield np.concatenate(agree(self.comm, "distributed offset", mine))

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidType(
            f"rows of shape {self.shape} are distributed over {self.comm.size} ranks and not an array on any of "
            "them; use local_rows, or gather them yourself (the reference engine fits data that every rank holds)"
        )

    def __reduce__(self) -> NoReturn:
        raise InvalidType(
            "DistributedRows cannot be pickled or copied: its rows are on several ranks; send local_rows and create "
            "a new one there"
        )

    def __repr__(self) -> str:
        return f"DistributedRows({self.shape}, rows {self.start}:{self.stop} on rank {self.comm.rank})"


def distributed_of(specs: Iterable[Any]) -> list[DistributedRows]:
    """Return the distributed designs and offsets of blocks (found in ``specs``), in order."""
    parts = [getattr(spec, field, None) for spec in specs for field in ("design", "offset")]
    return [part for part in parts if isinstance(part, DistributedRows)]


def check_same_ranks(rows: DistributedRows, comm: Communicator, what: str) -> None:
    """Refuse a communicator whose ranks differ from those the rows are distributed over."""
    if not rows.comm.is_congruent(comm):
        raise InvalidInput(
            f"{what}: its rows are distributed over {rows.comm.size} ranks, but comm has {comm.size}"
            f"{' others' if comm.size == rows.comm.size else ''}; pass the communicator of its DistributedRows "
            "(or one of the same ranks in the same order)"
        )


def _checked(local_rows: Any) -> tuple[Any, tuple[int, ...]]:
    if is_sparse(local_rows):
        raise InvalidType(
            "local_rows is sparse; distributed rows are dense or indexed: pass local_rows.toarray(), chunks of it, "
            "or an IndexedDesign whose distinct rows are sparse"
        )
    if isinstance(local_rows, DistributedRows):
        raise InvalidType("local_rows is already distributed; pass this rank's own rows")
    if isinstance(local_rows, np.ndarray) and local_rows.ndim == 1:
        check_exact_dtype(local_rows.dtype, "local_rows")
        offset = float_vector(local_rows, "local_rows")
        return offset, offset.shape
    return local_rows, design_shape(local_rows, "local_rows")


def _common_widths(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return () of vectors or (p,) of matrices; a rank without rows need not know p."""
    telling = [shape for shape in shapes if shape not in _UNTOLD] or shapes
    for rank, shape in enumerate(shapes):
        if shape[1:] != telling[0][1:] and shape not in _UNTOLD:
            raise _different(
                rank,
                f"rows of shape {shape}, another rank {telling[0]}; all ranks must pass rows of one width",
                "widths",
            )
    return telling[0][1:]


def _common_kind(told: list[tuple[tuple[int, ...], int | None]]) -> int | None:
    """Return the number of distinct rows, None if dense; an empty array is either kind."""
    kinds = [(rank, distinct) for rank, (shape, distinct) in enumerate(told) if shape[0] or distinct is not None]
    for rank, distinct in kinds:
        if distinct != kinds[0][1]:
            mine, first = ("plain rows" if d is None else f"an index of {d} rows" for d in (distinct, kinds[0][1]))
            raise _different(
                rank,
                f"{mine}, rank {kinds[0][0]} {first}; all ranks must pass the same distinct rows, or none",
                "kinds",
            )
    return kinds[0][1] if kinds else None


def _different(rank: int, what: str, cause: str) -> CollectiveError:
    error = CollectiveError(
        f"DistributedRows: rank {rank} passed {what}", rank=rank, cause=f"{cause} differ", failed=False
    )
    mark_agreed(error)
    return error
