"""How far a parent may differ from the fit it starts."""

from __future__ import annotations

from dataclasses import dataclass

from gamwarm.checks import as_bool, as_finite_float
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
        Whether a fit of the same family with other terms may be a parent: matching terms are
        transferred.
    """

    require_converged: bool = True
    max_width_gap: float = 0.25
    rho_bound: float = 15.0
    partial: bool = True

    def __post_init__(self) -> None:
        as_bool(self.partial, "policy partial")
        as_bool(self.require_converged, "policy require_converged")
        object.__setattr__(
            self,
            "max_width_gap",
            as_finite_float(self.max_width_gap, "policy max_width_gap", minimum=0.0, infinite=True),
        )
        object.__setattr__(self, "rho_bound", as_finite_float(self.rho_bound, "policy rho_bound", infinite=True))
        if self.rho_bound <= 2.0:
            raise InvalidInput(f"policy rho_bound is {self.rho_bound}; it must be above 2 (or inf)")
