"""What is kept: records, artifacts, curvature and plateau rule, provenance, results, starts."""

from gamwarm.records.artifact import FitArtifact, GlobalFitSummary, TermArtifact
from gamwarm.records.block import ActiveSet, BlockRecord, InnerMode, RecordKind, check_attributes, normalize_active_sets
from gamwarm.records.curvature import (
    AT_BOUND,
    PLATEAU_EDF,
    Curvature,
    are_finite,
    cut_coordinates,
    plateau_flags,
    pushes_outwards,
    settled_flags,
)
from gamwarm.records.gates import SATURATION_MARGIN, artifact_refusal, gate_record, rejection_reason
from gamwarm.records.provenance import (
    COLD_RUN,
    LATEST,
    Cost,
    Lineage,
    Producer,
    Provenance,
    StartSource,
    attributes_of_cold_run,
    check_entry_id,
    cold_objective_of,
    cold_run_of,
)
from gamwarm.records.result import ConstrainedWarmStart, FitResult
from gamwarm.records.seeds import GROUP, GroupSeeds, group_label

__all__ = [
    "AT_BOUND",
    "COLD_RUN",
    "GROUP",
    "LATEST",
    "PLATEAU_EDF",
    "SATURATION_MARGIN",
    "ActiveSet",
    "BlockRecord",
    "ConstrainedWarmStart",
    "Cost",
    "Curvature",
    "FitArtifact",
    "FitResult",
    "GlobalFitSummary",
    "GroupSeeds",
    "InnerMode",
    "Lineage",
    "Producer",
    "Provenance",
    "RecordKind",
    "StartSource",
    "TermArtifact",
    "are_finite",
    "artifact_refusal",
    "attributes_of_cold_run",
    "check_attributes",
    "check_entry_id",
    "cold_objective_of",
    "cold_run_of",
    "cut_coordinates",
    "gate_record",
    "group_label",
    "normalize_active_sets",
    "plateau_flags",
    "pushes_outwards",
    "rejection_reason",
    "settled_flags",
]
