"""What a block's columns are made of, for a reader of the archive; it never enters a key."""

from __future__ import annotations

from dataclasses import dataclass

from gamwarm.checks import as_finite_float, as_int, as_str
from gamwarm.display import brief_repr
from gamwarm.errors import InvalidType

__all__ = ["BasisMeta"]


@dataclass(frozen=True)
class BasisMeta:
    """Kind and constants of a term's basis; None where a constant does not apply.

    Parameters
    ----------
    kind : str
        For example ``bspline``, ``random-effect``, ``parametric``, ``duchon``.
    degree, num_knots, n_centers, nullspace_order : int, optional
    matern_nu : float, optional
        Smoothness of a Matérn kernel.
    periodic : bool, optional
    """

    kind: str
    degree: int | None = None
    num_knots: int | None = None
    n_centers: int | None = None
    nullspace_order: int | None = None
    matern_nu: float | None = None
    periodic: bool | None = None

    def __post_init__(self) -> None:
        as_str(self.kind, "basis kind")
        for name in ("degree", "num_knots", "n_centers", "nullspace_order"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, as_int(value, f"basis {name}"))
        if self.matern_nu is not None:
            object.__setattr__(self, "matern_nu", as_finite_float(self.matern_nu, "basis matern_nu", minimum=0.0))
        if self.periodic is not None and not isinstance(self.periodic, bool):
            raise InvalidType(f"basis periodic must be True, False or None; it is {brief_repr(self.periodic)}")
