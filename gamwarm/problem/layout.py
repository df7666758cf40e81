"""Which coordinate of the outer search controls which physical penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gamwarm.checks import FloatArray, float_vector
from gamwarm.errors import InvalidInput
from gamwarm.problem.blocks import ParameterBlockSpec, check_specs

__all__ = ["PenaltyLayout"]

_TIE_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class PenaltyLayout:
    """Map between the outer coordinates ``rho`` and the physical log lambdas, in block order.

    A fixed penalty has no outer coordinate; penalties of equal label share one. Build it with
    `from_specs`.

    Attributes
    ----------
    n_outer : int
    initial_rho : array of shape (n_outer,)
        A copy each time, which may be written to.
    physical_to_outer : tuple of (int or None), one per physical penalty
    fixed_log_lambdas : tuple of (float or None), one per physical penalty
    """

    n_outer: int
    _initial_rho: FloatArray
    physical_to_outer: tuple[int | None, ...]
    fixed_log_lambdas: tuple[float | None, ...]
    _penalties_per_block: tuple[int, ...]

    @classmethod
    def from_specs(cls, specs: Sequence[ParameterBlockSpec]) -> PenaltyLayout:
        """Lay out the penalties of ``specs``.

        Raises
        ------
        InvalidInput
            Tied penalties whose initial values differ by more than 1e-10; both are named.
        """
        return cls.of_blocks(check_specs(specs))

    @classmethod
    def of_blocks(cls, blocks: Sequence[ParameterBlockSpec]) -> PenaltyLayout:
        """`from_specs` of blocks that have been checked to be those of one fit."""
        initial: list[float] = []
        to_outer: list[int | None] = []
        fixed: list[float | None] = []
        owners: dict[str, tuple[int, str]] = {}
        for block in blocks:
            for j, penalty in enumerate(block.penalties):
                value = penalty.fixed_log_lambda
                fixed.append(value)
                if value is not None:
                    to_outer.append(None)
                    continue
                start = float(block.initial_log_lambdas[j])
                here = f"penalty {j} of block {block.name!r}"
                label = penalty.precision_label
                if label is not None and label in owners:
                    slot, first = owners[label]
                    if abs(initial[slot] - start) > _TIE_TOLERANCE:
                        raise InvalidInput(
                            f"label {label!r} ties {first} (initial log lambda {initial[slot]:.17g}) to {here} "
                            f"({start:.17g}); tied penalties need one initial value"
                        )
                else:
                    slot = len(initial)
                    initial.append(start)
                    if label is not None:
                        owners[label] = (slot, here)
                to_outer.append(slot)
        rho = np.array(initial, dtype=np.float64)
        return cls(len(initial), rho, tuple(to_outer), tuple(fixed), tuple(len(b.penalties) for b in blocks))

    @property
    def initial_rho(self) -> FloatArray:
        """Where the outer search begins cold, of shape (n_outer,)."""
        return self._initial_rho.copy()

    def expand(self, rho: Any) -> FloatArray:
        """Return physical log lambdas (one per penalty) at ``rho`` of shape (n_outer,)."""
        outer = float_vector(rho, f"rho ({self.n_outer} outer coordinates)", length=self.n_outer, finite=False)
        physical = np.empty(len(self.physical_to_outer))
        for i, (slot, value) in enumerate(zip(self.physical_to_outer, self.fixed_log_lambdas, strict=True)):
            physical[i] = value if slot is None else outer[slot]
        return physical

    def per_block_slots(self) -> tuple[tuple[int, ...], ...]:
        """Return each block's outer coordinates, once, in order; tied ones in every block."""
        return self._slots

    @cached_property
    def _slots(self) -> tuple[tuple[int, ...], ...]:
        slots: list[tuple[int, ...]] = []
        position = 0
        for count in self._penalties_per_block:
            here = self.physical_to_outer[position : position + count]
            slots.append(tuple(dict.fromkeys(s for s in here if s is not None)))
            position += count
        return tuple(slots)
