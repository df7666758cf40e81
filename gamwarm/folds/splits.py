"""The rows that each fold keeps, and the order in which folds are fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gamwarm.columns import index_of, level_values
from gamwarm.errors import InvalidInput
from gamwarm.identity import Fingerprinter
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
    _column: Any = None

    @property
    def rows(self) -> Any:
        """The rows to fit: a mask of shape (n,), made when asked for.

        An array, or where the groups are a pandas Series a Series with its index, which
        `engine.Bound.case` and pandas compare with that of the data.
        """
        return self._mask(self._codes != self._code)

    @property
    def left_out(self) -> Any:
        """The rows left out: a mask of shape (n,), as ``rows``."""
        return self._mask(self._codes == self._code)

    def _mask(self, mask: npt.NDArray[np.bool_]) -> Any:
        return mask if self._column is None else type(self._column)(mask, index=self._column.index)

    @property
    def n_rows(self) -> int:
        """Number of rows to fit."""
        return int(np.count_nonzero(self._codes != self._code))

    def __repr__(self) -> str:
        what = "all rows" if self.group is None else f"without {self.group!r}"
        return f"<Fold {what}: {self.n_rows} of {len(self._codes)} rows>"


def folds_of(groups: Any) -> list[Fold]:
    """Return one fold per group, largest first (ties by label): a round's fits are of one size.

    Parameters
    ----------
    groups : array_like of shape (n,)
        The group of every row: subjects, sites, months; for k-fold cross-validation the number of
        the fold.

    Raises
    ------
    InvalidInput, InvalidType
        Not one column, fewer than two groups, a row without a label (which is named), or labels
        that have no order.
    """
    labels, codes = _coded(groups)
    sizes = np.bincount(codes, minlength=len(labels))
    order = sorted(range(len(labels)), key=lambda k: (sizes[k], labels[k]))
    return [Fold(labels[k], codes, k, _indexed(groups)) for k in order]


def all_rows(groups: Any) -> Fold:
    """Return the fold that leaves nothing out."""
    return Fold(None, _coded(groups)[1], -1, _indexed(groups))


def digest_of(folds: list[Fold]) -> str:
    """Return a digest of the rows that the folds leave out: ranks compare it."""
    if not folds:
        return ""
    hashed = Fingerprinter()
    for fold in folds:
        hashed.write_str(str(fold.group))
        hashed.write_u64(fold._code)
    hashed.write_bytes(folds[0]._codes.astype("<i8").tobytes())
    return hashed.hexdigest()


def _indexed(groups: Any) -> Any:
    return None if index_of(groups) is None else groups


def _coded(groups: Any) -> tuple[list[str], Codes]:
    """Return the labels as text and, per row, which of them it has."""
    values, codes = level_values(groups, "groups")
    labels = [group_label(value) for value in values]
    if len(labels) < 2:
        raise InvalidInput(f"groups has {len(labels)} group(s); leaving one out needs two or more")
    if len(set(labels)) < len(labels):
        raise InvalidInput("groups has different labels with the same text; make them distinct strings")
    return labels, codes.astype(np.int64, copy=False)
