"""The names that others build on, and what they take: a parameter may be added at the end, none
moves or goes.
"""

from __future__ import annotations

import inspect

import pytest

import gamwarm
from gamwarm import adapters

TAKES = {
    "ParameterBlockSpec": "name design offset=None penalties=() nullspace_dims=() initial_log_lambdas=None "
    "initial_beta=None role=None raw_width=None",
    "DensePenalty": "matrix",
    "KroneckerPenalty": "left right",
    "BlockwisePenalty": "local start stop total_dim",
    "LabeledPenalty": "label inner",
    "FixedPenalty": "log_lambda inner",
    "BlockwiseFitOptions": "inner_max_cycles=1200 inner_tol=1e-06 outer_max_iter=60 outer_tol=1e-05 "
    "outer_rel_cost_tol=None min_weight=1e-12 ridge_floor=1e-12 ridge_policy='explicit-stabilization-pospart' "
    "use_reml_objective=True use_outer_hessian=True compute_covariance=False early_exit_threshold=None "
    "outer_score_subsample=None auto_outer_subsample=True rho_bound=15.0",
    "family": "kind **values",
    "Gauge": "lift raw_starts reduced_starts shift=None",
    "FitProblem": "family specs options=None * engine engine_version='' gauge=None nuisance=()",
    "Fingerprinter": "",
    "matrix_digest": "m comm=None",
    "exact_key": "family specs options * engine comm=None",
    "term_identity": "role name labels nullspace_dims width",
    "FitDescriptor": "family_kind term_identities response_signature=None row_population=None",
    "DistributedRows": "local_rows comm",
    "BasisMeta": "kind",
    "BlockRecord": "key n_rows block_names block_dims rho block_beta active_sets=None inner=None objective=None "
    "kind='final'",
    "Curvature": "gradient=None hessian=None edf=None plateau=None settled=None",
    "settled_flags": "rho gradient tol rho_bound",
    "plateau_flags": "rho gradient edf max_edf tol rho_bound",
    "normalize_active_sets": "sets",
    "ConstrainedWarmStart": "rho block_beta active_sets=None cached_inner=None",
    "InnerMode": "log_likelihood penalty_value cycles converged block_logdet_h block_logdet_s inner_tol=None "
    "log_lambdas=None",
    "Producer": "engine='' engine_version=''",
    "TermArtifact": "identity role basis_meta raw_beta rho_for_term structural_identity=None reduced_width=None "
    "plateau=None settled=None",
    "GlobalFitSummary": "outer_objective converged n_rows",
    "FitArtifact": "descriptor terms summary curvature=None rho_bound=15.0",
    "TermContext": "identity rho_slots reduced_width gauge_block=None gauge_shift=None structural_identity=None",
    "FitResult": "rho block_beta objective converged active_sets=None inner=None curvature=None iteration=None "
    "cost=None start_used=None",
    "TransferPolicy": "require_converged=True max_width_gap=0.25 rho_bound=15.0",
    "build_warm_start": "descriptor terms rho_default parent policy=None gauge=None leave_out=None",
    "inner_cap": "options cached_inner gradient_norm state",
    "InnerCapState": "",
    "open": "path mode='a' comm=None lock='auto' engine=None engine_version=None on_error='warn' size_budget=None",
    "fit": "problem objective store=None * parent=None leave_out=None each=False attributes=None group_seeds=None "
    "checkpoint=True",
    "Evaluation": "rho theta value gradient",
    "salvage": "path into",
}
HAS = {
    "DensePenalty": "dim to_dense precision_label fixed_log_lambda",
    "FixedPenalty": "dim to_dense precision_label fixed_log_lambda",
    "PenaltyLayout": "from_specs n_outer initial_rho physical_to_outer expand per_block_slots",
    "Gauge": "identity from_blocks sum_to_zero lift_blocks lift_covariance restrict_design restrict_offset "
    "restrict_penalty block is_identity is_block_diagonal",
    "FitProblem": "key layout descriptor structural_key",
    "Fingerprinter": "write_bytes write_bool write_u64 write_f64 write_str write_f64_array write_matrix hexdigest",
    "FitDescriptor": "key",
    "BlockRecord": "is_compatible",
    "FitArtifact": "is_usable",
    "OuterFit": "result start kept guard converged reason notes cost evaluation summary",
    "StartReport": "source start key parent reason terms",
    "KeepOutcome": "record artifact",
    "Evaluation": "hessian edf max_edf tangent converged cycles last_step formations",
    "IndependentStore": "flush",
    "WarmStartStore": "open fit start_for keep put_record get_record put_artifact get_artifact transaction keys "
    "__len__ verify salvage compact evict pin frozen independent merge explain savings generation disabled_reason "
    "close walltime should_stop time_left",
}
METHODS = {
    "fit": "problem parent=None leave_out=None attributes=None * each=False",
    "start_for": "problem parent=None leave_out=None * each=False",
    "keep": "problem result start=None * each=False",
    "put_record": "record * each=False",
    "evict": "size_budget=None max_age=None dry_run=False",
    "independent": "flush_seconds=30.0 flush_entries=64",
    "merge": "path",
    "salvage": "into",
    "pin": "entry_id",
}


def brief_repr(parameter):
    name = f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name
    default = parameter.default
    if default is parameter.empty or repr(default) == "<factory>":
        return name
    return f"{name}={str(default)!r}" if isinstance(default, str) else f"{name}={default!r}"


def check(function, written, skip=0):
    """Whether what is written is how the parameters begin; after ``*`` any order of keywords will
    do.
    """
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    taken = [brief_repr(parameter) for parameter in parameters]
    before, _, keywords = written.partition("*") if "**" not in written else (written, "", "")
    assert taken[: len(before.split())] == before.split()
    assert set(keywords.split()) <= {brief_repr(p) for p in parameters if p.kind is p.KEYWORD_ONLY}
    for each in parameters[len(before.split()) :]:  # what came later can be left out
        assert each.default is not each.empty or brief_repr(each) in keywords.split() or each.kind is each.VAR_KEYWORD


@pytest.mark.parametrize("name", TAKES)
def test_a_public_name_takes_what_it_says(name):
    assert name in gamwarm.__all__
    check(getattr(gamwarm, name), TAKES[name])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_a_store_takes_what_it_says(name):
    check(getattr(gamwarm.WarmStartStore, name), METHODS[name], skip=1)


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in HAS.items() for name in names.split()])
def test_a_public_object_has_its_parts(owner, name):
    made = getattr(gamwarm, owner)

    assert hasattr(made, name) or name in {
        each for kind in made.__mro__ for each in getattr(kind, "__annotations__", {})
    }


def test_the_adapter_takes_what_scipy_takes_in_its_order():
    ours = [*inspect.signature(adapters.minimize).parameters]

    assert ours[:3] == ["fun", "x0", "args"]
    assert {"method", "jac", "hess", "hessp", "bounds", "constraints", "tol", "callback", "options"} <= {*ours}
