"""From stored entries to a start, and from a result to entries. Pure: no files, no
engine.
"""

from gamwarm.transfer.build import SEED_STEP, START_MARGIN, build_warm_start
from gamwarm.transfer.capture import capture_artifact, capture_fit, capture_record, check_result, producer_of
from gamwarm.transfer.guard import (
    FALSE_PLATEAU_EDF,
    PREDICTED_STEP_LIMIT,
    GuardOutcome,
    OuterPoint,
    StartGuard,
    beta_gate,
    false_plateaus,
    find_false_plateaus,
    floored_eigen,
    guard_sentence,
    held_by_curvature,
    is_same_objective,
    off_plateau,
    predicted_step,
)
from gamwarm.transfer.inner_cap import InnerCapState, inner_cap
from gamwarm.transfer.policy import TransferPolicy
from gamwarm.transfer.report import (
    BetaOutcome,
    MatchKind,
    RhoOutcome,
    SlotReport,
    StartReport,
    TermReport,
    TransferredStart,
)
from gamwarm.transfer.restore import restore
from gamwarm.transfer.terms import TermContext, term_contexts

__all__ = [
    "FALSE_PLATEAU_EDF",
    "PREDICTED_STEP_LIMIT",
    "SEED_STEP",
    "START_MARGIN",
    "BetaOutcome",
    "GuardOutcome",
    "InnerCapState",
    "MatchKind",
    "OuterPoint",
    "RhoOutcome",
    "SlotReport",
    "StartGuard",
    "StartReport",
    "TermContext",
    "TermReport",
    "TransferPolicy",
    "TransferredStart",
    "beta_gate",
    "build_warm_start",
    "capture_artifact",
    "capture_fit",
    "capture_record",
    "check_result",
    "false_plateaus",
    "find_false_plateaus",
    "floored_eigen",
    "guard_sentence",
    "held_by_curvature",
    "inner_cap",
    "is_same_objective",
    "off_plateau",
    "predicted_step",
    "producer_of",
    "restore",
    "term_contexts",
]
