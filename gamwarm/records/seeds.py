"""Group seeds: what leaving each group out would change, made at a parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import numpy as np

from gamwarm.checks import as_str, as_tuple, is_finite, real_array
from gamwarm.display import brief_repr
from gamwarm.errors import InvalidInput
from gamwarm.records.equality import ContentEquality

__all__ = ["GROUP", "GroupSeeds", "group_label"]

GROUP: Final = "group"
"""Attribute of a fold's entries: the group that it leaves out."""


def group_label(value: Any) -> str:
    """Return the text that names a left-out group: ``str`` of the (plain) value.

    Dates and times of any library are written without trailing zero parts: 2013-01-01,
    2013-01-01T12:00.
    """
    if isinstance(value, datetime) and value.tzinfo is None:
        value = np.datetime64(value.isoformat())
    if isinstance(value, np.datetime64):
        value = np.datetime_as_string(value, unit="auto")
    elif isinstance(value, np.generic) and not isinstance(value, np.timedelta64):
        value = value.item()
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python writes
        raise InvalidInput(f"group label ({brief_repr(value)}) has no text; give a shorter one") from None
    return as_str(text, "group label", empty=True)


@dataclass(frozen=True, eq=False)
class GroupSeeds(ContentEquality):
    """Changes of rho and coefficients for every group that may be left out.

    They move the *start* of a fit with ``leave_out=group``, and nothing else.

    Parameters
    ----------
    column : str
        What the groups are groups of ("carrier").
    labels : sequence of m strings
        The groups; `group_label` of the user's own values.
    rho : array of shape (m, n_outer)
        Change of the outer coordinates.
    beta : array of shape (m, p)
        Change of all coefficients, block after block: reduced in a `FitResult`, raw in an artifact.
    hessian : array of shape (m, n_outer, n_outer), optional
        About the outer Hessian of the fit without the group: the metric that its search begins
        with, instead of the parent's.
    """

    column: str
    labels: Sequence[str]
    rho: Any
    beta: Any
    hessian: Any = None

    def __post_init__(self) -> None:
        as_str(self.column, "seeds column")
        labels = tuple(group_label(label) for label in as_tuple(self.labels, "seeds labels"))
        object.__setattr__(self, "labels", labels)
        if len(set(labels)) != len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise InvalidInput(f"seeds label {twice!r} is given twice; give each group one name")
        for name in ("rho", "beta"):
            array = real_array(getattr(self, name), f"seeds {name}", "a matrix of real numbers")
            if array.ndim != 2 or array.shape[0] != len(labels):
                raise InvalidInput(f"seeds {name} has shape {array.shape}; expected {len(labels)} rows, one per label")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.hessian is None:
            return
        array = real_array(self.hessian, "seeds hessian", "matrices of real numbers")
        q = self.rho.shape[1]
        if array.shape != (len(labels), q, q):
            raise InvalidInput(f"seeds hessian has shape {array.shape}; expected ({len(labels)}, {q}, {q})")
        array = 0.5 * (array + array.transpose(0, 2, 1))
        array.flags.writeable = False
        object.__setattr__(self, "hessian", array)

    def invalid_reason(self, n_outer: int | None, width: int) -> str | None:
        """Return why these are not finite or not of ``width`` coefficients, else None."""
        if n_outer is not None and self.rho.shape[1] != n_outer:
            return f"group seeds have {self.rho.shape[1]} rho; the fit has {n_outer}"
        if self.beta.shape[1] != width:
            return f"group seeds have {self.beta.shape[1]} coefficients; the fit has {width}"
        if not (is_finite(self.rho) and is_finite(self.beta) and (self.hessian is None or is_finite(self.hessian))):
            return "group seeds hold a non-finite number"
        return None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {label: place for place, label in enumerate(self.labels)}

    def place(self, group: Any) -> int | None:
        """Return the row of a group, None if there is none."""
        return self._places.get(group_label(group))
