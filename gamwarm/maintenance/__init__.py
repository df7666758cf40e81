"""Operations on a whole file: verify, merge, compact, evict, salvage."""

from gamwarm.maintenance.compaction import compact
from gamwarm.maintenance.eviction import evict
from gamwarm.maintenance.merging import KEEP_ALL, import_batches, merge, read_batches
from gamwarm.maintenance.reports import CompactReport, MergeReport, SalvageReport, Verdict, VerifyReport
from gamwarm.maintenance.salvage import salvage_file
from gamwarm.maintenance.verification import verify

__all__ = [
    "KEEP_ALL",
    "CompactReport",
    "MergeReport",
    "SalvageReport",
    "Verdict",
    "VerifyReport",
    "compact",
    "evict",
    "import_batches",
    "merge",
    "read_batches",
    "salvage_file",
    "verify",
]
