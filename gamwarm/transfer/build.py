"""Turning a parent's artifact into a start: pure, and every outcome with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gamwarm.checks import FloatArray, as_tuple, float_vector, require
from gamwarm.errors import DescriptorMismatch, InvalidInput, ParentUnusable
from gamwarm.identity import Fingerprinter, FitDescriptor, check_nuisance, descriptor_key
from gamwarm.parallel import Communicator, as_communicator, run_distributed
from gamwarm.problem import Gauge
from gamwarm.records import PLATEAU_EDF, SATURATION_MARGIN, Curvature, FitArtifact, Provenance, TermArtifact
from gamwarm.transfer.policy import TransferPolicy
from gamwarm.transfer.project import has_finite_numbers, project, projection_cost, relative_residual, resample
from gamwarm.transfer.report import BetaOutcome, MatchKind, RhoOutcome, SlotReport, TermReport, TransferredStart
from gamwarm.transfer.terms import TermContext

__all__ = ["SEED_STEP", "START_MARGIN", "build_warm_start"]

# Starts keep this far inside the bound of rho, where an outer search can still move both ways.
START_MARGIN = 2.0
# No coefficient of a fit on a sensible scale is larger; a projection through a nearly singular
# gauge is.
_THETA_LIMIT = 1e6
# A first-order change of log lambda beyond this is not trusted.
SEED_STEP = 1.0
# Of log lambda: what another width can do to a penalty's scale.
_MOST_RESCALE = 4.0

# Furthest from plain copying last: a term reports the last of its slots' outcomes in this order.
_RHO_ORDER = (RhoOutcome.COPIED, RhoOutcome.TIED, RhoOutcome.PLATEAU, RhoOutcome.CLAMPED, RhoOutcome.DEFAULT)

_Beta = tuple[FloatArray, BetaOutcome, str, float | None]


class _Match(NamedTuple):
    term: TermArtifact
    kind: MatchKind


def build_warm_start(
    descriptor: FitDescriptor,
    terms: Sequence[TermContext],
    rho_default: Any,
    parent: FitArtifact,
    policy: TransferPolicy | None = None,
    gauge: Gauge | None = None,
    leave_out: Any = None,
    comm: Any = None,
    nuisance: Sequence[str] = (),
) -> TransferredStart:
    """Return the start that ``parent`` gives a related fit.

    Parameters
    ----------
    descriptor : FitDescriptor
        The child's strict descriptor.
    terms : sequence of TermContext
        The child's terms, one per block, in block order.
    rho_default : array of shape (n_outer,)
        Where coordinates that are not carried over start.
    parent : FitArtifact
    policy : TransferPolicy, optional
    gauge : Gauge, optional
        The child's full gauge; needed only where it is not block-diagonal.
    leave_out : optional
        The group that the child leaves out: if the parent has seeds for it, their changes are added
        to the parent's rho and coefficients. Without them the transfer is plain, and ``seeds`` of
        the result says why.
    nuisance : sequence of str
        Names of the last outer coordinates of the child; they are matched by name and copied
        unchanged.
    comm : mpi4py communicator, optional
        Collective: every rank passes the same arguments, projections are assigned to ranks by cost,
        and every rank gets all results.

    Raises
    ------
    ParentUnusable
        Another schema, non-finite numbers, or not converged (``policy.require_converged``).
    DescriptorMismatch
        Neither strict nor structural keys agree, and (unless ``policy.partial`` is False) the
        families differ or no term of the parent matches.
    CollectiveError
        With ``comm``: a projection failed on one rank, or the ranks pass different gauges.
    """
    policy = TransferPolicy() if policy is None else policy
    contexts = as_tuple(terms, "terms")
    for what, value, kind in (
        ("descriptor", descriptor, FitDescriptor),
        ("parent", parent, FitArtifact),
        ("policy", policy, TransferPolicy),
        ("gauge", gauge, (Gauge, type(None))),
        *((f"term {position}", context, TermContext) for position, context in enumerate(contexts)),
    ):
        require(what, value, kind)
    _check_parent(parent, policy)
    partial = not _are_same_terms(descriptor, contexts, parent)
    if partial and not policy.partial:
        raise _mismatch(descriptor, contexts, parent, "a parent must have the same family and terms")
    if partial and descriptor.family_kind != parent.descriptor.family_kind:
        raise _mismatch(descriptor, contexts, parent, "a parent must be of the same family")
    if gauge is not None and gauge.n_blocks != len(contexts):
        raise InvalidInput(f"gauge has {gauge.n_blocks} blocks; the fit has {len(contexts)} terms")
    if gauge is not None and gauge.reduced_widths != tuple(c.reduced_width for c in contexts):
        raise InvalidInput(
            f"gauge has reduced widths {list(gauge.reduced_widths)}; "
            f"the terms have {[c.reduced_width for c in contexts]}"
        )
    terms_of_parent, seed_rho, seeds = _seeded(parent, leave_out)
    curvature = _seeded_curvature(parent, leave_out)
    matches = match_terms(contexts, terms_of_parent)
    if partial and not any(matches):
        raise _mismatch(descriptor, contexts, parent, "no term of the parent matches")
    rho = np.array(float_vector(rho_default, "rho_default", finite=False))
    sources: dict[int, int | None] = {}
    slot_reports = [_carry_rho(c, m, rho, sources, policy) for c, m in zip(contexts, matches, strict=True)]
    _carry_nuisance(check_nuisance(nuisance), parent, rho, sources)
    if seed_rho is not None:
        _add_seed_rho(rho, sources, seed_rho, contexts, slot_reports, policy.rho_bound)
    betas = _carry_betas(contexts, matches, policy, gauge, as_communicator(comm))
    _rescale_rho(contexts, matches, betas, rho, sources, slot_reports, parent.curvature)
    reports = tuple(
        _term_report(c, m, slots, beta)
        for c, m, slots, beta in zip(contexts, matches, slot_reports, betas, strict=True)
    )
    return TransferredStart(
        rho=rho,
        block_beta=tuple(beta[0] for beta in betas),
        curvature=_child_curvature(curvature, sources, len(rho)),
        partial_hessian=_partial_hessian(curvature, sources, len(rho)),
        provenance=tuple(r.provenance for r in reports),
        terms=reports,
        seeds=seeds,
        unmatched=_unmatched(terms_of_parent, matches),
    )


def _seeded(parent: FitArtifact, leave_out: Any) -> tuple[tuple[TermArtifact, ...], FloatArray | None, str]:
    """Return the parent's terms with a group's change of coefficients added, its change of rho, and
    a description.
    """
    terms = tuple(parent.terms)
    if leave_out is None:
        return terms, None, ""
    seeds = parent.seeds
    if seeds is None:
        return terms, None, "the parent has no group seeds"
    place = seeds.place(leave_out)
    if place is None:
        return terms, None, f"the parent's group seeds ({seeds.column}) have no group {leave_out!r}"
    change, end = seeds.beta[place], 0
    moved = []
    for term in terms:
        start, end = end, end + len(term.raw_beta)
        moved.append(term.with_raw_beta(term.raw_beta + change[start:end]))
    return tuple(moved), seeds.rho[place], "used"


def _seeded_curvature(parent: FitArtifact, leave_out: Any) -> Curvature | None:
    """Return the parent's curvature, with a group's own Hessian where the seeds have one."""
    curvature, seeds = parent.curvature, parent.seeds
    if curvature is None or seeds is None or seeds.hessian is None or leave_out is None:
        return curvature
    place = seeds.place(leave_out)
    return curvature if place is None else replace(curvature, hessian=seeds.hessian[place])


def _add_seed_rho(
    rho: FloatArray,
    sources: dict[int, int | None],
    change: FloatArray,
    contexts: Sequence[TermContext],
    slot_reports: Sequence[list[SlotReport]],
    bound: float,
) -> None:
    """Add a group's change of rho to the copied values; clamped, tied and default slots are
    unchanged.
    """
    for context, reports in zip(contexts, slot_reports, strict=True):
        for place, (slot, report) in enumerate(zip(context.rho_slots, reports, strict=True)):
            source = sources.get(slot)
            if report.outcome not in (RhoOutcome.COPIED, RhoOutcome.PLATEAU):
                continue
            if source is None or source >= len(change):
                continue
            # A flat coordinate has no change. One that is flagged for using all its freedom can
            # have.
            inner = bound - START_MARGIN
            limit = bound if report.outcome is RhoOutcome.PLATEAU or abs(rho[slot]) > inner else inner
            step = _clipped(float(change[source]), SEED_STEP)
            rho[slot] = value = _clipped(float(rho[slot]) + step, limit)
            reports[place] = SlotReport(slot, report.outcome, value, report.reason)


def _clipped(value: float, limit: float) -> float:
    return value if abs(value) <= limit else math.copysign(limit, value)


def _check_parent(parent: FitArtifact, policy: TransferPolicy) -> None:
    reason = parent.invalid_reason()
    if reason is not None:
        raise ParentUnusable(f"the parent cannot be used: {reason}; name another parent, or start cold")
    if policy.require_converged and not parent.summary.converged:
        raise ParentUnusable(
            "the parent did not converge; name another parent, or use TransferPolicy(require_converged=False)"
        )


def _are_same_terms(descriptor: FitDescriptor, terms: Sequence[TermContext], parent: FitArtifact) -> bool:
    if descriptor.key == parent.descriptor.key:
        return True
    there = parent.structural_key
    mine = tuple(t.structural_identity for t in terms if t.structural_identity is not None)
    if there is None or len(mine) < len(terms):
        return False
    return descriptor_key(descriptor.family_kind, mine) == there


def _mismatch(
    descriptor: FitDescriptor, terms: Sequence[TermContext], parent: FitArtifact, rule: str
) -> DescriptorMismatch:
    return DescriptorMismatch(
        f"the parent's descriptor {parent.descriptor.key[:12]} ({parent.descriptor.family_kind}, "
        f"{len(parent.terms)} terms) is not this fit's {descriptor.key[:12]} ({descriptor.family_kind}, {len(terms)} "
        f"terms), nor are their structural keys equal; {rule}"
    )


def match_terms(contexts: Sequence[TermContext], terms: Sequence[TermArtifact]) -> list[_Match | None]:
    """Return for each of the child's terms the parent's that it matches, and by what: the closest
    that there is.

    A term that matches by name alone (the same smooth with another width) gives its smoothing
    parameters only.
    """
    kinds: tuple[tuple[MatchKind, Callable[[TermContext | TermArtifact], Any]], ...] = (
        (MatchKind.STRICT, lambda t: t.identity),
        (MatchKind.STRUCTURAL, lambda t: t.structural_identity),
        (MatchKind.NAME, _name_of),
    )
    found: list[_Match | None] = [None] * len(contexts)
    for kind, what in kinds:
        if None not in found:
            break
        known: dict[Any, TermArtifact] = {}
        for term in terms:
            known.setdefault(what(term), term)
        known.pop(None, None)
        for place, context in enumerate(contexts):
            term_there = known.get(what(context)) if found[place] is None else None
            if term_there is not None:
                found[place] = _Match(term_there, kind)
    return found


def _name_of(term: TermContext | TermArtifact) -> Any:
    """Return the key by which a term of another width is matched; None: by nothing."""
    basis, count = (
        (term.basis, len(term.rho_slots))
        if isinstance(term, TermContext)
        else (term.basis_meta, len(term.rho_for_term))
    )
    return (term.role, term.name, None if basis is None else basis.kind, count) if term.name and count else None


def _unmatched(terms: Sequence[TermArtifact], matches: Sequence[_Match | None]) -> tuple[str, ...]:
    """Return the names (identities where there are none) of the parent's terms that this fit does
    not have.
    """
    used = {id(match.term) for match in matches if match is not None}
    return tuple(term.name or term.identity[:12] for term in terms if id(term) not in used)


def _carry_rho(
    context: TermContext,
    match: _Match | None,
    rho: FloatArray,
    sources: dict[int, int | None],
    policy: TransferPolicy,
) -> list[SlotReport]:
    """Fill ``rho`` in place; ``sources`` maps each filled slot to the parent's outer coordinate, if
    known.
    """
    parent = None if match is None else match.term
    reports = []
    reason = ""
    if parent is None:
        reason = "no term of the parent matches"
    elif len(parent.rho_for_term) != len(context.rho_slots):
        reason = (
            f"the parent's term has {len(parent.rho_for_term)} smoothing parameters, this one {len(context.rho_slots)}"
        )
    for position, slot in enumerate(context.rho_slots):
        if slot >= len(rho):
            reports.append(
                SlotReport(
                    slot, RhoOutcome.DEFAULT, float("nan"), f"slot {slot} is out of range of {len(rho)} coordinates"
                )
            )
        elif slot in sources:
            reports.append(SlotReport(slot, RhoOutcome.TIED, float(rho[slot]), "an earlier term filled this tied slot"))
        elif reason or parent is None:
            reports.append(SlotReport(slot, RhoOutcome.DEFAULT, float(rho[slot]), reason))
        else:
            flat, settled = (flags is not None and bool(flags[position]) for flags in (parent.plateau, parent.settled))
            value = float(parent.rho_for_term[position])
            value, outcome, why = _carried_value(value, flat, settled, policy.rho_bound)
            if outcome is not RhoOutcome.DEFAULT:
                rho[slot] = value
                sources[slot] = None if parent.rho_slots is None else parent.rho_slots[position]
            reports.append(SlotReport(slot, outcome, float(rho[slot]), why))
    return reports


def _rescale_rho(
    contexts: Sequence[TermContext],
    matches: Sequence[_Match | None],
    betas: Sequence[_Beta],
    rho: FloatArray,
    sources: dict[int, int | None],
    slot_reports: Sequence[list[SlotReport]],
    curvature: Curvature | None,
) -> None:
    """Move the copied rho of resampled splines to where the same function has the same effective
    degrees of freedom.

    A penalty of another width is on another scale. At an optimum ``lambda theta' S theta`` is about
    the effective degrees of freedom, where the objective has no scale parameter of its own; where
    it has one the move is far, and the copy is the better guess.
    """
    if curvature is None or curvature.edf is None:
        return
    for context, match, beta, reports in zip(contexts, matches, betas, slot_reports, strict=True):
        resampled = match is not None and match.kind is MatchKind.NAME and beta[1] is BetaOutcome.APPROXIMATE
        if not resampled or len(context.penalties) != len(reports):
            continue
        for place, (report, penalty) in enumerate(zip(reports, context.penalties, strict=True)):
            source = sources.get(report.slot)
            if report.outcome is not RhoOutcome.COPIED or source is None:
                continue
            roughness = float(beta[0] @ penalty.to_dense() @ beta[0])
            edf = float(curvature.edf[source])
            if not (roughness > 0.0 and edf > PLATEAU_EDF):
                continue
            moved = float(np.log(edf / roughness))
            if abs(moved - rho[report.slot]) <= _MOST_RESCALE:
                rho[report.slot] = moved
                reports[place] = replace(report, value=moved)


def _carry_nuisance(names: Sequence[str], parent: FitArtifact, rho: FloatArray, sources: dict[int, int | None]) -> None:
    slots = [term.rho_slots for term in parent.terms]
    known = None if None in slots else max((s + 1 for each in slots if each is not None for s in each), default=0)
    places = {name: place for place, name in enumerate(parent.nuisance)}
    for slot, name in enumerate(names, len(rho) - len(names)):
        if name in places:
            rho[slot] = parent.nuisance[name]
            sources[slot] = None if known is None else known + places[name]


def _carried_value(value: float, flat: bool, settled: bool, bound: float) -> tuple[float, RhoOutcome, str]:
    if not np.isfinite(value):
        return value, RhoOutcome.DEFAULT, f"the parent's value is {value}"
    if flat:
        return float(np.clip(value, -bound, bound)), RhoOutcome.PLATEAU, "the parent flags a plateau here"
    if settled:
        inside = float(np.clip(value, -bound, bound))
        if inside != value:
            return inside, RhoOutcome.CLAMPED, f"the parent's {value:.6g} is beyond ±{bound:g}"
        return value, RhoOutcome.COPIED, ""
    if abs(value) >= bound - SATURATION_MARGIN:
        limit = bound - SATURATION_MARGIN
        return value, RhoOutcome.DEFAULT, f"the parent's {value:.6g} is saturated (|rho| >= {limit:g})"
    limit = bound - START_MARGIN
    if abs(value) > limit:
        return (
            float(np.clip(value, -limit, limit)),
            RhoOutcome.CLAMPED,
            f"the parent's {value:.6g} is beyond ±{limit:g}",
        )
    return value, RhoOutcome.COPIED, ""


def _carry_betas(
    contexts: Sequence[TermContext],
    matches: Sequence[_Match | None],
    policy: TransferPolicy,
    gauge: Gauge | None,
    ranks: Communicator,
) -> list[_Beta]:
    coupled = gauge is not None and not gauge.is_block_diagonal
    same = None if ranks.size == 1 else _gauge_digest(contexts, gauge if coupled else None)
    if gauge is not None and coupled:
        # One piece of work: the answer is one rank's, bit for bit, on machines of different kinds
        # too.
        joint = run_distributed(
            ranks, "project", [1.0], lambda _: _joint_betas(contexts, matches, policy, gauge), same
        )[0]
        if joint is not None:
            return joint
    costs = [0.0 if m is None else projection_cost(c.gauge_block) for c, m in zip(contexts, matches, strict=True)]

    def slab(b: int) -> _Beta:
        return _slab_beta(contexts[b], matches[b], policy, approximate=coupled)

    if not any(costs):  # nothing to deal: no message
        return [slab(b) for b in range(len(contexts))]
    return run_distributed(ranks, "project", costs, slab, same)


def _gauge_digest(contexts: Sequence[TermContext], gauge: Gauge | None) -> str:
    """Digest what projections depend on and no key holds."""
    fp = Fingerprinter()
    for context in contexts:
        for write, value in ((fp.write_matrix, context.gauge_block), (fp.write_f64_array, context.gauge_shift)):
            fp.write_bool(value is not None)
            if value is not None:
                write(value)
    if gauge is not None:
        fp.write_matrix(gauge.lift)
        fp.write_f64_array(gauge.shift)
    return fp.hexdigest()


def _gap_reason(context: TermContext, parent: TermArtifact, policy: TransferPolicy) -> str:
    here, there = context.reduced_width, parent.reduced_width
    if there is None or not abs(here - there) > policy.max_width_gap * there:
        return ""
    return f"reduced widths differ by more than {policy.max_width_gap:.0%}: {here} here, {there} in the parent"


def _theta_reason(theta: FloatArray) -> str:
    largest = float(np.abs(theta).max()) if theta.size else 0.0
    if largest <= _THETA_LIMIT:
        return ""
    if not math.isfinite(largest):
        return "the projection is not finite"
    return f"a projected coefficient exceeds {_THETA_LIMIT:g}"


def _joint_betas(
    contexts: Sequence[TermContext],
    matches: Sequence[_Match | None],
    policy: TransferPolicy,
    gauge: Gauge,
) -> list[_Beta] | None:
    """Project through the full T, or return None if some term cannot take part."""
    raw_parts = []
    for context, match, raw_width in zip(contexts, matches, gauge.raw_widths, strict=True):
        if match is None or match.kind is MatchKind.NAME or len(match.term.raw_beta) != raw_width:
            return None
        if _gap_reason(context, match.term, policy):
            return None
        raw_parts.append(match.term.raw_beta)
    target = np.concatenate(raw_parts) - gauge.shift
    theta = project(gauge.lift, target)
    if _theta_reason(theta):
        return None
    residual = relative_residual(gauge.lift, theta, target)
    return [(part, BetaOutcome.PROJECTED, "", residual) for part in gauge.split_reduced(theta)]


def _slab_beta(context: TermContext, match: _Match | None, policy: TransferPolicy, *, approximate: bool) -> _Beta:
    def cold(reason: str) -> _Beta:
        return np.zeros(context.reduced_width), BetaOutcome.COLD, reason, None

    if match is None:
        return cold("no term of the parent matches")
    parent = match.term
    raw, gap = parent.raw_beta, _gap_reason(context, parent, policy)
    if match.kind is MatchKind.NAME:
        resampled = resample(raw, parent.basis_meta, context.basis)
        if resampled is None:
            return cold("the parent's term has another form; only its smoothing parameters can be used")
        raw, gap = resampled, ""
    if context.gauge_block is None:
        return cold("this term has no gauge block")
    if context.reduced_width == 0:
        return cold("this term has no coefficients")
    block = context.gauge_block
    if len(raw) != block.shape[0]:
        return cold(f"raw widths disagree: {block.shape[0]} here, {len(raw)} in the parent")
    if gap:
        return cold(gap)
    target = raw if context.gauge_shift is None else raw - context.gauge_shift
    theta = project(block, target)
    reason = _theta_reason(theta)
    if reason:
        finite = has_finite_numbers(block) and np.isfinite(target).all()
        return cold(reason if finite else "the gauge or the parent's coefficients hold a non-finite number")
    residual = relative_residual(block, theta, target)
    if match.kind is MatchKind.NAME:
        why = f"resampled from a spline of raw width {len(parent.raw_beta)} to one of {block.shape[0]}"
        return theta, BetaOutcome.APPROXIMATE, why, residual
    if approximate:
        return theta, BetaOutcome.APPROXIMATE, "the gauge couples blocks; only this block's slab was used", residual
    return theta, BetaOutcome.PROJECTED, "", residual


def _term_report(context: TermContext, match: _Match | None, slots: list[SlotReport], beta: _Beta) -> TermReport:
    _, outcome, beta_reason, residual = beta
    worst = max(slots, key=lambda s: _RHO_ORDER.index(s.outcome), default=None)
    if outcome is not BetaOutcome.COLD:
        provenance = Provenance.PROJECTED
    elif any(s.outcome is not RhoOutcome.DEFAULT for s in slots):
        provenance = Provenance.RHO_ONLY
    else:
        provenance = Provenance.COLD
    return TermReport(
        identity=context.identity,
        provenance=provenance,
        rho=RhoOutcome.DEFAULT if worst is None else worst.outcome,
        rho_reason="this term has no smoothing parameter" if worst is None else worst.reason,
        slots=tuple(slots),
        beta=outcome,
        beta_reason=beta_reason,
        residual=residual,
        matched_by=None if match is None else match.kind,
    )


def _child_curvature(parent: Curvature | None, sources: dict[int, int | None], n_outer: int) -> Curvature | None:
    """Reorder the parent's curvature to the child's outer coordinates; None unless every coordinate
    has a source.
    """
    if parent is None or len(sources) != n_outer:
        return None
    order = [sources[slot] for slot in range(n_outer)]
    columns = np.array([i for i in order if i is not None], dtype=np.intp)
    if len(columns) != n_outer or len(set(columns.tolist())) != n_outer:
        return None

    def pick(values: Any) -> Any:
        return None if values is None else values[columns]

    vectors = {name: pick(getattr(parent, name)) for name in ("gradient", "edf", "plateau", "settled")}
    hessian = None if parent.hessian is None else parent.hessian[np.ix_(columns, columns)]
    return Curvature.of_checked(hessian=hessian, **vectors)


def _partial_hessian(parent: Curvature | None, sources: dict[int, int | None], n_outer: int) -> FloatArray | None:
    """Return the parent's Hessian on the coordinates that were carried over, NaN in the rows and
    columns of the others.

    None if that is nothing or everything: then `_child_curvature` has it.
    """
    known = {slot: source for slot, source in sources.items() if source is not None}
    if parent is None or parent.hessian is None or not 0 < len(known) < n_outer:
        return None
    if len(set(known.values())) < len(known):
        return None
    there, here = list(known.values()), list(known)
    hessian = np.full((n_outer, n_outer), np.nan)
    hessian[np.ix_(here, here)] = parent.hessian[np.ix_(there, there)]
    return hessian
