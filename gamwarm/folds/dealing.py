"""Which rows a fold keeps, and in which order folds are dealt to ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.errors import InvalidInput
from gamwarm.records import group_label

__all__ = ["Fold", "folds_of"]

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """The rows that stay when one group is left out; or all rows.

    Attributes
    ----------
    group : str or None
        Label of the group that is left out; None: all rows.
    """

    group: str | None
    _codes: Codes
    _code: int

    @property
    def rows(self) -> npt.NDArray[np.bool_]:
        """The rows to fit: a mask of shape (n,), made when asked for."""
        mask: npt.NDArray[np.bool_] = self._codes != self._code
        return mask

    @property
    def left_out(self) -> npt.NDArray[np.bool_]:
        """The rows left out: a mask of shape (n,)."""
        return ~self.rows

    @property
    def n_rows(self) -> int:
        """Number of rows to fit."""
        return int(np.count_nonzero(self._codes != self._code))

    def __repr__(self) -> str:
        what = "all rows" if self.group is None else f"without {self.group!r}"
        return f"<Fold {what}: {self.n_rows} of {len(self._codes)} rows>"


def folds_of(groups: Any) -> list[Fold]:
    """Return one fold per group, largest fold first (ties by label), so that the fits of a round are of one size.

    Parameters
    ----------
    groups : array_like of shape (n,)
        The group of every row: subjects, sites, months; for k-fold cross-validation the number of the fold.

    Raises
    ------
    InvalidInput
        Not one column, fewer than two groups, or a missing label.
    """
    labels, codes = _coded(groups)
    sizes = np.bincount(codes, minlength=len(labels))
    order = sorted(range(len(labels)), key=lambda k: (sizes[k], labels[k]))
    return [Fold(labels[k], codes, k) for k in order]


def all_rows(groups: Any) -> Fold:
    """Return the fold that leaves nothing out."""
    return Fold(None, _coded(groups)[1], -1)


def _coded(groups: Any) -> tuple[list[str], Codes]:
    """Return the labels as text and, per row, which of them it has."""
    column = np.asarray(groups)
    if column.ndim != 1:
        raise InvalidInput(f"groups has shape {column.shape}; give one label per row, shape (n,)")
    if _has_missing(column):
        raise InvalidInput("groups has missing labels; leave those rows out of the data, or name their group")
    try:
        values, codes = np.unique(column, return_inverse=True)
    except TypeError:
        raise InvalidInput("groups mixes kinds of labels that have no order; give them as text") from None
    labels = [group_label(value) for value in values]
    if len(labels) < 2:
        raise InvalidInput(f"groups has {len(labels)} group(s); leaving one out needs two or more")
    if len(set(labels)) < len(labels):
        raise InvalidInput("groups has different labels that read alike; give them as text")
    return labels, codes.astype(np.int64, copy=False)


def _has_missing(column: npt.NDArray[Any]) -> bool:
    if column.dtype.kind == "O":
        return any(label is None or label != label for label in column)  # NaN is not itself
    if column.dtype.kind in "fc":
        return bool(np.isnan(column).any())
    return column.dtype.kind in "mM" and bool(np.isnat(column).any())
