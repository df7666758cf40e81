"""From a start to an answer, for any engine that can evaluate its objective."""

from gamwarm.fitting.certificate import LAST_STEP_LIMIT, Certificate, Refusal, Verdict, coordinate_names
from gamwarm.fitting.evaluation import Evaluation, Objective
from gamwarm.fitting.outer_fit import fit
from gamwarm.fitting.report import GuardReport, OuterFit, fit_facts, fit_repr
from gamwarm.fitting.search import ARMIJO, predicted_mode

__all__ = [
    "ARMIJO",
    "LAST_STEP_LIMIT",
    "Certificate",
    "Evaluation",
    "GuardReport",
    "Objective",
    "OuterFit",
    "Refusal",
    "Verdict",
    "coordinate_names",
    "fit",
    "fit_facts",
    "fit_repr",
    "predicted_mode",
]
