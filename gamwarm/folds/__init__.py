"""Leave one group out, as a resumable job over ranks: the parent on all rows, then every fold.

::

    from gamwarm import engine, folds

    def fit(fold, **how):
        return engine.fit(None if fold is None else bound.case(fold.rows), **how)

    with gamwarm.open("fits.h5", comm=comm) as store, store.walltime():
        report = folds.leave_one_out(store, data["subject"], fit)
"""

from gamwarm.folds.audit import Audit, AuditedFold
from gamwarm.folds.job import leave_one_out, of_engine
from gamwarm.folds.outcome import FoldFit, FoldOutcome
from gamwarm.folds.output import FoldsReport
from gamwarm.folds.progress import bar
from gamwarm.folds.results import FoldResults
from gamwarm.folds.rounds import in_rounds
from gamwarm.folds.splits import Fold, folds_of
from gamwarm.folds.terms import TermChange, TermState

__all__ = [
    "Audit",
    "AuditedFold",
    "Fold",
    "FoldFit",
    "FoldOutcome",
    "FoldResults",
    "FoldsReport",
    "TermChange",
    "TermState",
    "bar",
    "folds_of",
    "in_rounds",
    "leave_one_out",
    "of_engine",
]
