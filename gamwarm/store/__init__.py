"""The facade over storage and transfer: open, fit, start_for, keep, put, get, transactions."""

from gamwarm.store.arguments import refuse_without_store
from gamwarm.store.explain import Difference, Explanation, compare_records
from gamwarm.store.fit import FitInProgress, FitStore
from gamwarm.store.frozen import FrozenView
from gamwarm.store.keep import KeepOutcome
from gamwarm.store.maintenance import salvage
from gamwarm.store.savings import (
    Basis,
    ComparedFit,
    Saving,
    Savings,
    SourceSavings,
    add_up,
    compare_costs,
    total_of,
)
from gamwarm.store.store import IndependentStore, WarmStartStore, open_store
from gamwarm.store.wrapper import StoreWrapper

__all__ = [
    "Basis",
    "ComparedFit",
    "Difference",
    "Explanation",
    "FitInProgress",
    "FitStore",
    "FrozenView",
    "IndependentStore",
    "KeepOutcome",
    "Saving",
    "Savings",
    "SourceSavings",
    "StoreWrapper",
    "WarmStartStore",
    "add_up",
    "compare_costs",
    "compare_records",
    "open_store",
    "refuse_without_store",
    "salvage",
    "total_of",
]
