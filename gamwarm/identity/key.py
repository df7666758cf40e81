"""The exact key: everything the answer of a fit depends on, in one digest.

Every field of a block and of the options is either written by a table here or named in `EXCLUDED`,
every field of a penalty named by its kind; `_check_exhaustive` runs at import, so that a field
added later and forgotten stops the package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from gamwarm.checks import as_str, as_tuple, is_zero_vector, require
from gamwarm.display import brief_repr
from gamwarm.errors import CollectiveError, InvalidInput, InvalidKey, InvalidType, UnkeyableFit
from gamwarm.formats import EXACT_KEY
from gamwarm.identity.components import ComponentFingerprinter, Components, Label
from gamwarm.identity.fingerprint import Fingerprinter
from gamwarm.interrupts import allowed
from gamwarm.parallel import SERIAL, Communicator, agree, as_communicator, mark_agreed
from gamwarm.problem import (
    PENALTY_KINDS,
    BlockwiseFitOptions,
    CustomFamily,
    DistributedRows,
    ParameterBlockSpec,
    check_family,
    check_same_ranks,
    check_specs,
    distributed_of,
    family_kind_of,
    penalty_form,
)

__all__ = ["EXCLUDED", "check_exact_key", "check_nuisance", "component_labels", "exact_key", "name_fit"]

_EXACT_KEY = re.compile(r"cf-[0-9a-f]{64}")

EXCLUDED: Mapping[str, str] = {
    "ParameterBlockSpec.initial_beta": "moves the start only",
    "ParameterBlockSpec.role": "matches terms across fits, not the answer of one",
    "ParameterBlockSpec.raw_width": "width before the gauge; the answer is in reduced coordinates",
    "ParameterBlockSpec.basis": "for readers of the archive",
    "FitProblem.engine_version": "kept in the producer: another build's record is found, and ranked as a checkpoint",
    "FitProblem.gauge": "lifts the answer; the blocks are in reduced coordinates already",
}

Writer = Callable[[Fingerprinter, Any, Communicator], None]


def _string(fp: Fingerprinter, value: Any, _: Communicator) -> None:
    fp.write_str(value)


def _integer(fp: Fingerprinter, value: Any, _: Communicator) -> None:
    fp.write_u64(value)


def _number(fp: Fingerprinter, value: Any, _: Communicator) -> None:
    fp.write_f64(value)


def _boolean(fp: Fingerprinter, value: Any, _: Communicator) -> None:
    fp.write_bool(value)


def _vector(fp: Fingerprinter, value: Any, _: Communicator) -> None:
    fp.write_f64_array(value)


def _matrix(fp: Fingerprinter, value: Any, _: Communicator) -> None:
    fp.write_matrix(value)


def _shared_matrix(fp: Fingerprinter, value: Any, comm: Communicator) -> None:
    fp.write_matrix(value, comm)


def _integers(fp: Fingerprinter, value: Any, _: Communicator) -> None:
    fp.write_u64(len(value))
    for item in value:
        fp.write_u64(item)


def _optional(write: Writer) -> Writer:
    def write_optional(fp: Fingerprinter, value: Any, comm: Communicator) -> None:
        fp.write_bool(value is not None)
        if value is not None:
            write(fp, value, comm)

    return write_optional


def _penalty(fp: Fingerprinter, penalty: Any, comm: Communicator) -> None:
    try:
        tag, forms = PENALTY_KINDS[type(penalty)]
    except KeyError:
        raise InvalidType(
            f"penalty kind {type(penalty).__name__} cannot enter the exact key; use one of "
            f"{', '.join(kind.__name__ for kind in PENALTY_KINDS)}"
        ) from None
    fp.write_str(tag)
    for name, form in forms.items():
        _FORMS[form](fp, getattr(penalty, name), comm)


def _penalties(fp: Fingerprinter, value: Any, comm: Communicator) -> None:
    fp.write_u64(len(value))
    for penalty in value:
        _write_part(_penalty, fp, penalty, comm)


def _write_part(write: Writer, fp: Fingerprinter, value: Any, comm: Communicator) -> None:
    """Write one component of the fit, if components are recorded."""
    if isinstance(fp, ComponentFingerprinter):
        fp.begin_part()
        write(fp, value, comm)
        fp.end_part()
    else:
        write(fp, value, comm)


def _as_part(write: Writer) -> Writer:
    return partial(_write_part, write)


def _offset(fp: Fingerprinter, value: Any, comm: Communicator) -> None:
    if isinstance(fp, ComponentFingerprinter) and isinstance(value, np.ndarray) and is_zero_vector(value):
        fp.write_zeros_part(value)
    else:
        _write_part(_vector, fp, value, comm)


_FORMS: dict[str, Writer] = {
    "matrix": _matrix, "integer": _integer, "number": _number, "string": _string, "penalty": _penalty,
}  # fmt: skip

_BLOCK: dict[str, Writer] = {
    "name": _string,  # no component: records hold the names
    "design": _as_part(_shared_matrix),
    "offset": _offset,
    "penalties": _penalties,
    "nullspace_dims": _as_part(_integers),
    "initial_log_lambdas": _as_part(_vector),
}

_OPTIONS: dict[str, Writer] = {
    "inner_max_cycles": _integer,
    "inner_tol": _number,
    "outer_max_iter": _integer,
    "outer_tol": _number,
    "outer_rel_cost_tol": _optional(_number),
    "min_weight": _number,
    "ridge_floor": _number,
    "ridge_policy": _string,
    "use_reml_objective": _boolean,
    "use_outer_hessian": _boolean,
    "compute_covariance": _boolean,
    "early_exit_threshold": _optional(_number),
    "outer_score_subsample": _optional(_vector),
    "auto_outer_subsample": _boolean,
    "rho_bound": _number,
}


def _check_exhaustive() -> None:
    tables: dict[type, Mapping[str, object]] = {}
    for kind, (_, forms) in PENALTY_KINDS.items():
        if not set(forms.values()) <= _FORMS.keys():
            raise AssertionError(f"{kind.__name__} has fields of the forms {forms}; known are {', '.join(_FORMS)}")
        tables[kind] = forms
    tables |= {ParameterBlockSpec: _BLOCK, BlockwiseFitOptions: _OPTIONS}
    for cls, writers in tables.items():
        for field in fields(cls):
            excluded = f"{cls.__name__}.{field.name}" in EXCLUDED
            if (field.name in writers) == excluded:
                raise AssertionError(
                    f"{cls.__name__}.{field.name} must either enter the exact key or be listed in EXCLUDED"
                )


_check_exhaustive()


def _check_walked(blocks: Sequence[ParameterBlockSpec], options: BlockwiseFitOptions) -> None:
    """Refuse subclasses with fields unknown here: their fits cannot be distinguished."""
    for described, writers, cls in [(b, _BLOCK, ParameterBlockSpec) for b in blocks] + [
        (options, _OPTIONS, BlockwiseFitOptions)
    ]:
        if type(described) is cls:  # `_check_exhaustive` has seen its fields
            continue
        for field in fields(described):
            if field.name not in writers and f"{cls.__name__}.{field.name}" not in EXCLUDED:
                raise UnkeyableFit(
                    f"{type(described).__name__}.{field.name} cannot enter the exact key; include it in the "
                    f"family's fingerprint, and describe the fit with plain {cls.__name__}",
                    why="design",
                )


def family_fingerprint(
    family: CustomFamily, specs: Sequence[ParameterBlockSpec], options: BlockwiseFitOptions
) -> tuple[str, str]:
    """Return (family_kind, fingerprint); raises `UnkeyableFit` if the family opts out."""
    kind = family_kind_of(check_family(family))
    try:
        with allowed():
            fingerprint = family.persistent_warm_start_fingerprint(specs, options)
    except Exception as caught:
        raise UnkeyableFit(
            f"family {kind}: its persistent_warm_start_fingerprint failed ({type(caught).__name__}: {caught}); "
            "the fit runs without a store until this is fixed",
            why="family",
        ) from caught
    if fingerprint is None:
        raise UnkeyableFit(
            f"family {kind} opted out of persistence (its fingerprint is None); the fit runs without a store",
            why="opt-out",
        )
    if not isinstance(fingerprint, str):
        raise InvalidType(
            f"family {kind}: persistent_warm_start_fingerprint returned {type(fingerprint).__name__}; "
            "return a string, or None to opt out"
        )
    return kind, fingerprint


def _write_field(fp: Fingerprinter, block: ParameterBlockSpec, name: str, ranks: Communicator) -> None:
    try:
        _BLOCK[name](fp, getattr(block, name), ranks)
    except UnkeyableFit:
        raise
    except CollectiveError as caught:
        if caught.details.get("failed") and isinstance(getattr(block, name), DistributedRows):
            # Rows that no other rank has: no rank can read this design, and all ranks are here.
            raise _unkeyable(block, name, caught) from caught
        if caught.details.get("failed"):
            # The leaves of a design are shared: to know whether all ranks or some cannot read it,
            # each must try all of it.
            agree(ranks, "exact_key", None, _unreadable(block, name))
        raise
    except Exception as caught:
        raise _unkeyable(block, name, caught) from caught


def _unreadable(block: ParameterBlockSpec, name: str) -> UnkeyableFit | None:
    try:
        _BLOCK[name](Fingerprinter(), getattr(block, name), SERIAL)
    except Exception as caught:
        return _unkeyable(block, name, caught)
    return None


def _unkeyable(block: ParameterBlockSpec, name: str, caught: Exception) -> UnkeyableFit:
    return UnkeyableFit(
        f"block {block.name!r}: its {name} could not be read for the exact key "
        f"({type(caught).__name__}: {caught}); the fit runs without a store until this is fixed",
        why="design",
        block=block.name,
    )


def exact_key(
    family: CustomFamily,
    specs: Sequence[ParameterBlockSpec],
    options: BlockwiseFitOptions,
    *,
    engine: str,
    comm: Any = None,
    nuisance: Sequence[str] = (),
) -> str:
    """Return the exact key of a fit: ``"cf-"`` and 64 hex digits.

    Parameters
    ----------
    family, specs, options
        The fit; see `FitProblem`.
    engine : str
        Name of the fitting engine; its version is not part of the key.
    comm : mpi4py communicator, optional
        Collective: every rank passes the same fit, and the leaves of its designs are shared over
        ranks. A fit with `DistributedRows` is named collectively anyway; ``comm`` is then None or
        has the same ranks in the same order.
    nuisance : sequence of str
        Names of outer coordinates other than smoothing parameters.

    Raises
    ------
    UnkeyableFit
        The family opted out, failed or is only known as ``__main__``, or a design could not be
        read; the message says which. With ``comm``: on every rank, where no rank can read it.
    CollectiveError
        With ``comm``: one rank failed, or the ranks describe different fits.
    """
    return name_fit(family, specs, options, engine=engine, comm=comm, nuisance=nuisance)[0]


def name_fit(
    family: CustomFamily,
    specs: Sequence[ParameterBlockSpec],
    options: BlockwiseFitOptions,
    *,
    engine: str,
    comm: Any = None,
    nuisance: Sequence[str] = (),
) -> tuple[str, Components]:
    """Return the exact key and, per component, 8 bytes of digest; see `exact_key`."""
    ranks = as_communicator(comm)
    distributed = distributed_of(specs if isinstance(specs, (list, tuple)) else ())  # their types are checked below
    if comm is None and distributed:
        ranks = distributed[0].comm
    error: BaseException | None = None
    named: tuple[str, str, str] | None = None
    blocks: tuple[ParameterBlockSpec, ...] = ()
    extra: tuple[str, ...] = ()
    try:
        blocks = check_specs(specs)
        require("options", options, BlockwiseFitOptions)
        _check_walked(blocks, options)
        for rows in distributed:
            check_same_ranks(rows, ranks, "exact_key")
        extra = check_nuisance(nuisance)
        named = (as_str(engine, "engine"), *family_fingerprint(family, blocks, options))
        if not ranks.is_serial:  # designs are read collectively: whatever else may fail, fails before the first of them
            rehearsal = Fingerprinter()
            for block in blocks:
                for name in _BLOCK.keys() - {"design"}:
                    if not isinstance(getattr(block, name), DistributedRows):
                        _write_field(rehearsal, block, name, ranks)
    except BaseException as caught:  # every rank must reach the agreement below
        error = caught
    _check_equal("number of blocks", agree(ranks, "exact_key", len(blocks), error))
    assert named is not None
    fp = ComponentFingerprinter()
    for text in ("gamwarm-exact-key", EXACT_KEY):
        fp.write_str(text)
    for text in named:
        _write_part(_string, fp, text, ranks)
    fp.write_u64(len(blocks))
    for block in blocks:
        for name in _BLOCK:
            _write_field(fp, block, name, ranks)
    _write_options(fp, options)
    if extra:
        fp.write_u64(len(extra))
        for name in extra:
            fp.write_str(name)
    key = f"cf-{fp.hexdigest()}"
    _check_equal("key", agree(ranks, "exact_key", key))
    forms = [[penalty_form(penalty) for penalty in block.penalties] for block in blocks]
    return key, Components.of(forms, fp.parts, _default_parts())


def _write_options(fp: ComponentFingerprinter, options: BlockwiseFitOptions) -> None:
    values = [getattr(options, name) for name in _OPTIONS]
    plain = not any(isinstance(value, np.ndarray) for value in values)
    fp.write_recorded(*(_recorded_options if plain else _record_options)(*values))


def _record_options(*values: Any) -> tuple[bytes, tuple[int, ...]]:
    fp = ComponentFingerprinter()
    for write, value in zip(_OPTIONS.values(), values, strict=True):
        _write_part(write, fp, value, SERIAL)
    return fp.recorded()


_recorded_options = lru_cache(maxsize=64, typed=True)(_record_options)


@cache
def _default_parts() -> tuple[int, ...]:
    return _record_options(*(getattr(BlockwiseFitOptions(), name) for name in _OPTIONS))[1]


def component_labels(components: Components, block_names: Sequence[str]) -> dict[Label, int]:
    """Return the digests of ``components`` by label, options at their defaults too."""
    return components.labelled(block_names, tuple(_OPTIONS), _default_parts())


def check_nuisance(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of nuisance coordinates, each a non-empty string of its own."""
    checked = tuple(as_str(name, "nuisance name") for name in as_tuple(names, "nuisance"))
    for name in checked:
        if checked.count(name) > 1:
            raise InvalidInput(f"nuisance names {name!r} {checked.count(name)} times; each needs its own name")
    return checked


def _check_equal(what: str, reports: Sequence[object]) -> None:
    for rank, other in enumerate(reports):
        if other != reports[0]:
            error = CollectiveError(
                f"rank {rank} describes another fit than rank 0 ({what} {other}, there {reports[0]}); pass the same "
                "problem on every rank, or each=True for one fit per rank",
                rank=rank,
                cause=f"{what} differs",
                failed=False,
            )
            mark_agreed(error)
            raise error


def check_exact_key(key: object) -> str:
    """Return ``key`` if it is a well-formed exact key, else raise `InvalidKey`."""
    if not isinstance(key, str) or not _EXACT_KEY.fullmatch(key):
        raise InvalidKey(
            f"{brief_repr(key)} is not an exact key; expected 'cf-' and 64 lower-case hex digits, as `gamwarm show` "
            "prints it"
        )
    return key
