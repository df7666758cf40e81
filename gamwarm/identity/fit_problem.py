"""One fit, described and named."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, cast

from gamwarm.checks import as_str, require
from gamwarm.display import NotebookTable
from gamwarm.errors import InvalidInput
from gamwarm.identity.components import Components
from gamwarm.identity.descriptor import FitDescriptor, descriptor_key, strict_identity, structural_identity
from gamwarm.identity.key import check_nuisance, name_fit
from gamwarm.interrupts import critical
from gamwarm.parallel import Communicator
from gamwarm.problem import (
    BlockwiseFitOptions,
    CustomFamily,
    Gauge,
    ParameterBlockSpec,
    PenaltyLayout,
    check_family,
    check_specs,
    family_kind_of,
)

__all__ = ["FitProblem"]


class FitProblem(NotebookTable):
    """Everything gamwarm needs to know of one fit. Immutable; names are computed on demand.

    Parameters
    ----------
    family : CustomFamily
    specs : sequence of ParameterBlockSpec
        Blocks in reduced coordinates.
    options : BlockwiseFitOptions, optional
    engine : str
        Name of the fitting engine; part of the exact key.
    engine_version : str
        Part of the producer, not of the key.
    gauge : Gauge, optional
        Lift from reduced to raw coefficients; None is the identity.
    nuisance : sequence of str
        Names of further outer coordinates, after the log smoothing parameters: a log scale, the log
        theta of a negative binomial. They have no bound, no plateau and no saturation; from one fit
        to another they go by name.

    Raises
    ------
    InvalidInput, InvalidType
        Blocks, gauge or options disagree; tied penalties with different initial values.
    """

    __slots__ = ("__dict__", "_sealed", "engine", "engine_version", "family", "gauge", "nuisance", "options", "specs")

    family: CustomFamily
    specs: tuple[ParameterBlockSpec, ...]
    options: BlockwiseFitOptions
    engine: str
    engine_version: str
    gauge: Gauge | None
    nuisance: tuple[str, ...]

    def __init__(
        self,
        family: CustomFamily,
        specs: Sequence[ParameterBlockSpec],
        options: BlockwiseFitOptions | None = None,
        *,
        engine: str,
        engine_version: str = "",
        gauge: Gauge | None = None,
        nuisance: Sequence[str] = (),
    ) -> None:
        options = BlockwiseFitOptions() if options is None else options
        require("options", options, BlockwiseFitOptions)
        self.family = check_family(family)
        self.specs = check_specs(specs)
        self.options = options
        self.engine = as_str(engine, "engine")
        self.engine_version = as_str(engine_version, "engine_version", empty=True)
        self.gauge = gauge
        self.nuisance = check_nuisance(nuisance)
        self._check_gauge()
        self.__dict__["layout"] = PenaltyLayout.of_blocks(self.specs)
        self._sealed = True

    def __setattr__(self, name: str, value: object) -> None:
        if getattr(self, "_sealed", False):
            raise AttributeError(f"FitProblem is immutable; make a new one to change {name!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"FitProblem is immutable; {name!r} cannot be removed")

    def __reduce__(self) -> tuple[Any, ...]:
        again = partial(FitProblem, engine=self.engine, engine_version=self.engine_version, gauge=self.gauge)
        again = partial(again, nuisance=self.nuisance)
        return again, (self.family, self.specs, self.options)

    def _check_gauge(self) -> None:
        gauge = self.gauge
        if gauge is None:
            return
        require("gauge", gauge, (Gauge, type(None)))
        widths = tuple(spec.width for spec in self.specs)
        if gauge.reduced_widths != widths:
            raise InvalidInput(
                f"gauge has reduced widths {list(gauge.reduced_widths)}; the blocks "
                f"{[spec.name for spec in self.specs]} have widths {list(widths)}"
            )
        for spec, raw in zip(self.specs, gauge.raw_widths, strict=True):
            if spec.raw_width is not None and spec.raw_width != raw:
                raise InvalidInput(
                    f"block {spec.name!r} states raw_width {spec.raw_width}; its gauge block lifts to {raw}"
                )

    @cached_property
    def layout(self) -> PenaltyLayout:
        """Map between outer coordinates and physical penalties."""
        return PenaltyLayout.from_specs(self.specs)

    @property
    def n_outer(self) -> int:
        """Number of outer coordinates: log smoothing parameters, then nuisance coordinates."""
        return self.layout.n_outer + len(self.nuisance)

    @property
    def n_rows(self) -> int:
        """Number of rows n."""
        return self.specs[0].n_rows

    @cached_property
    def block_names(self) -> tuple[str, ...]:
        """Names of the blocks, in order."""
        return tuple(spec.name for spec in self.specs)

    @cached_property
    def block_dims(self) -> tuple[int, ...]:
        """Reduced widths of the blocks, in order."""
        return tuple(spec.width for spec in self.specs)

    @cached_property
    def raw_widths(self) -> tuple[int, ...]:
        """Raw width per block: as stated, else the gauge's, else (identity) the block's own."""
        gauge_widths = self.block_dims if self.gauge is None else self.gauge.raw_widths
        return tuple(
            width if spec.raw_width is None else spec.raw_width
            for spec, width in zip(self.specs, gauge_widths, strict=True)
        )

    @cached_property
    def strict_identities(self) -> tuple[str, ...]:
        """Strict identity per term, in block order."""
        return tuple(strict_identity(spec) for spec in self.specs)

    @cached_property
    def structural_identities(self) -> tuple[str, ...]:
        """Structural identity per term, in block order."""
        return tuple(structural_identity(s, w) for s, w in zip(self.specs, self.raw_widths, strict=True))

    # No cached_property: in Python 3.11 it holds one lock for all fits while it names one.
    @property
    def key(self) -> str:
        """Exact key; reads designs once. Raises `UnkeyableFit`. Collective if distributed."""
        if "key" not in self.__dict__:
            self._name(None)
        return cast(str, self.__dict__["key"])

    @property
    def components(self) -> Components:
        """8 bytes of digest per component, from the key's walk. Raises `UnkeyableFit`."""
        if "components" not in self.__dict__:
            self._name(None)
        return cast(Components, self.__dict__["components"])

    @critical
    def _name(self, comm: Communicator | None) -> str:
        key, components = name_fit(
            self.family, self.specs, self.options, engine=self.engine, comm=comm, nuisance=self.nuisance
        )
        self.__dict__.update(key=key, components=components)
        return key

    def shared_key(self, comm: Communicator) -> str:
        """Return the exact key, computed by all ranks of ``comm``, which hold the same problem."""
        return self._name(comm)

    @cached_property
    def descriptor(self) -> FitDescriptor:
        """Strict descriptor. Raises `UnkeyableFit` if the family has no stable name."""
        return FitDescriptor(family_kind_of(self.family), self.strict_identities)

    @cached_property
    def structural_key(self) -> str | None:
        """Structural descriptor key: the strict one's construction over structural identities."""
        return descriptor_key(family_kind_of(self.family), self.structural_identities)

    def __repr__(self) -> str:
        family = type(self.family).__name__
        return f"FitProblem({family}, {self.n_rows} rows, {len(self.specs)} blocks, engine {self.engine!r})"

    def _facts(self) -> list[tuple[str, str]]:
        # No key: it would read every design.
        kind = getattr(self.family, "family_kind", type(self.family).__name__)
        return [
            ("family", str(kind)),
            ("engine", f"{self.engine} {self.engine_version}".rstrip()),
            ("rows", f"{self.n_rows:,}"),
            ("outer coordinates", str(self.n_outer + len(self.nuisance))),
            ("nuisance", ", ".join(self.nuisance)),
        ]

    def _detail(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = [(spec.name, str(spec.role), str(spec.width), str(len(spec.penalties))) for spec in self.specs]
        return ("block", "role", "coefficients", "penalties"), rows
