"""Bytes and entries: the crash-safe container, locks, layout, codec, selection, verification."""

from gamwarm.storage.buffered import BufferedEntries
from gamwarm.storage.entries import (
    ArtifactHeader,
    EntryStore,
    LockChoice,
    StoredArtifact,
    StoredRecord,
    content_id,
)
from gamwarm.storage.outcome import PutOutcome
from gamwarm.storage.salvage import salvage_file
from gamwarm.storage.stored import Held
from gamwarm.storage.turns import Turn
from gamwarm.storage.upkeep import (
    CompactReport,
    Evicted,
    EvictReport,
    MergeReport,
    Problem,
    SalvageReport,
    Verdict,
    VerifyReport,
)

__all__ = [
    "ArtifactHeader",
    "BufferedEntries",
    "CompactReport",
    "EntryStore",
    "EvictReport",
    "Evicted",
    "Held",
    "LockChoice",
    "MergeReport",
    "Problem",
    "PutOutcome",
    "SalvageReport",
    "StoredArtifact",
    "StoredRecord",
    "Turn",
    "Verdict",
    "VerifyReport",
    "content_id",
    "salvage_file",
]
