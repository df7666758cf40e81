"""The family protocol: what a response model must provide so that its fits have keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

from gamwarm.display import brief_repr
from gamwarm.errors import InvalidType, UnkeyableFit
from gamwarm.problem.blocks import ParameterBlockSpec
from gamwarm.problem.options import BlockwiseFitOptions

__all__ = ["CustomFamily", "check_family", "family_kind_of"]


@runtime_checkable
class CustomFamily(Protocol):
    """A response model.

    It may also have ``family_kind: str``, a stable name; the default is the class's module and
    qualified name.
    """

    def persistent_warm_start_fingerprint(
        self, specs: Sequence[ParameterBlockSpec], options: BlockwiseFitOptions
    ) -> str | None:
        """Return a string for everything the answer depends on that blocks and options do not hold.

        Response, weights, constants, priors, constraints, joint penalties. Hash arrays with
        `gamwarm.Fingerprinter` or `gamwarm.matrix_digest`. None: this family opts out of
        persistence.
        """
        ...


def check_family(family: object) -> CustomFamily:
    """Return ``family`` if it offers the protocol's method."""
    # As the protocol's own check, which takes longer: families are asked for with each name.
    if isinstance(family, type) or not callable(getattr(family, "persistent_warm_start_fingerprint", None)):
        raise InvalidType(
            f"family is {brief_repr(family)}; give an object with "
            "`persistent_warm_start_fingerprint(specs, options) -> str | None`"
        )
    return cast(CustomFamily, family)


def family_kind_of(family: object) -> str:
    """Return the family's stable name.

    Raises
    ------
    UnkeyableFit
        The name would depend on which script is run (``__main__``), or is not a non-empty string.
    """
    kind = getattr(family, "family_kind", None)
    if callable(kind):
        kind = kind()
    if kind is None:
        cls = type(family)
        if cls.__module__ == "__main__":
            raise UnkeyableFit(
                f"family {cls.__qualname__} is defined in __main__, so another script could not find its fits; "
                "set `family_kind = 'my-project.my-family'` on it, or move it into a module",
                why="family-kind",
            )
        kind = f"{cls.__module__}.{cls.__qualname__}"
    if not isinstance(kind, str) or not kind:
        raise UnkeyableFit(f"family_kind is {brief_repr(kind)}; set it to a non-empty string", why="family-kind")
    if kind == "__main__" or kind.startswith("__main__."):
        raise UnkeyableFit(
            f"family_kind {brief_repr(kind)} names __main__, so another script could not find its fits; "
            "choose another name, such as 'my-project.my-family'",
            why="family-kind",
        )
    return kind
