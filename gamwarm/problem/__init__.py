"""Describing a fit: blocks, designs, penalties, layout, options, gauge, family protocol."""

from gamwarm.problem.basis import BasisMeta
from gamwarm.problem.blocks import ParameterBlockSpec, Role, check_specs, infer_role
from gamwarm.problem.designs import (
    IndexedDesign,
    RowChunkSource,
    check_exact_dtype,
    check_exact_integers,
    check_row_numbers,
    design_shape,
    is_row_source,
    read_rows,
)
from gamwarm.problem.distributed import DistributedRows, Traffic, check_same_ranks, distributed_of
from gamwarm.problem.family import CustomFamily, check_family, family_kind_of
from gamwarm.problem.gauge import Gauge
from gamwarm.problem.layout import PenaltyLayout
from gamwarm.problem.options import BlockwiseFitOptions
from gamwarm.problem.penalties import (
    PENALTY_KINDS,
    BlockwisePenalty,
    DensePenalty,
    FixedPenalty,
    KroneckerPenalty,
    LabeledPenalty,
    Penalty,
    penalty_form,
    tied_label,
)

__all__ = [
    "PENALTY_KINDS",
    "BasisMeta",
    "BlockwiseFitOptions",
    "BlockwisePenalty",
    "CustomFamily",
    "DensePenalty",
    "DistributedRows",
    "FixedPenalty",
    "Gauge",
    "IndexedDesign",
    "KroneckerPenalty",
    "LabeledPenalty",
    "ParameterBlockSpec",
    "Penalty",
    "PenaltyLayout",
    "Role",
    "RowChunkSource",
    "Traffic",
    "check_exact_dtype",
    "check_exact_integers",
    "check_family",
    "check_row_numbers",
    "check_same_ranks",
    "check_specs",
    "design_shape",
    "distributed_of",
    "family_kind_of",
    "infer_role",
    "is_row_source",
    "penalty_form",
    "read_rows",
    "tied_label",
]
