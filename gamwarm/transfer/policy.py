"""How far a parent may differ from the fit it starts."""

from __future__ import annotations

from dataclasses import dataclass

from gamwarm.checks import real_number, truth
from gamwarm.errors import InvalidInput

__all__ = ["TransferPolicy"]


@dataclass(frozen=True)
class TransferPolicy:
    """Rules of a transfer.

    Parameters
    ----------
    require_converged : bool
        Refuse a parent that did not converge.
    max_width_gap : float
        Largest difference of a term's reduced widths, as a share of the parent's, at which
        coefficients are projected.
    rho_bound : float
        The *child's* bound on outer coordinates: values within 1 of it are not copied without a
        plateau or settled flag, others are clamped to 2 inside it.
    partial : bool
        Whether a fit of the same family with other terms may be a parent: the terms that match give
        what they learned.
    """

    require_converged: bool = True
    max_width_gap: float = 0.25
    rho_bound: float = 15.0
    partial: bool = True

    def __post_init__(self) -> None:
        truth(self.partial, "policy partial")
        truth(self.require_converged, "policy require_converged")
        object.__setattr__(
            self, "max_width_gap", real_number(self.max_width_gap, "policy max_width_gap", minimum=0.0, infinite=True)
        )
        object.__setattr__(self, "rho_bound", real_number(self.rho_bound, "policy rho_bound", infinite=True))
        if self.rho_bound <= 2.0:
            raise InvalidInput(f"policy rho_bound is {self.rho_bound}; it must be above 2 (or inf)")
