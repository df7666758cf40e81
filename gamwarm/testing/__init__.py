"""Neutrality check for any engine: a warm start may change where a fit begins, never where it ends.

Describe your engine (`Driver`), then `assert_neutral(driver)` in your tests.
docs/how-to/my-own-engine.md shows one.
"""

from gamwarm.testing.check import assert_neutral, check_neutrality
from gamwarm.testing.corruptions import Corruption, corruptions_of
from gamwarm.testing.driver import Driver, Fitted, Tolerances
from gamwarm.testing.report import Finding, NeutralityReport, NotNeutral, Run, Verdict

__all__ = [
    "Corruption",
    "Driver",
    "Finding",
    "Fitted",
    "NeutralityReport",
    "NotNeutral",
    "Run",
    "Tolerances",
    "Verdict",
    "assert_neutral",
    "check_neutrality",
    "corruptions_of",
]
