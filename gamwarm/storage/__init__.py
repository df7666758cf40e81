"""Bytes and entries: the crash-safe container, locks, layout, codec, selection, verification."""

from gamwarm.storage._disk import replace_text, status_of
from gamwarm.storage.browse import ARTIFACTS, RECORDS, Browser, Seen, Totals
from gamwarm.storage.buffered import BufferedEntries, leave
from gamwarm.storage.bundle import BundleCheck, BundleContents, BundleWritten, absorb_bundle, check_bundle, write_bundle
from gamwarm.storage.coherence import PROBE_PREFIX, Coherence, Safety, meet_peer, try_two
from gamwarm.storage.directory_probe import DirectoryProbe, probe, remember
from gamwarm.storage.entries import (
    ArtifactHeader,
    EntryStore,
    StoredArtifact,
    StoredRecord,
    content_id,
)
from gamwarm.storage.heads import EntryHead, FitOfRecord, find_fit_of_record, read_heads
from gamwarm.storage.ledger import LedgerLine
from gamwarm.storage.locks import LOCK_NAMES, LockKind, choose_lock
from gamwarm.storage.outcome import PutOutcome, rolled_back
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
    "ARTIFACTS",
    "LOCK_NAMES",
    "PROBE_PREFIX",
    "RECORDS",
    "ArtifactHeader",
    "Browser",
    "BufferedEntries",
    "BundleCheck",
    "BundleContents",
    "BundleWritten",
    "Coherence",
    "CompactReport",
    "DirectoryProbe",
    "EntryHead",
    "EntryStore",
    "EvictReport",
    "Evicted",
    "FitOfRecord",
    "Held",
    "LedgerLine",
    "LockKind",
    "MergeReport",
    "Problem",
    "PutOutcome",
    "Safety",
    "SalvageReport",
    "Seen",
    "StoredArtifact",
    "StoredRecord",
    "Totals",
    "Turn",
    "Verdict",
    "VerifyReport",
    "absorb_bundle",
    "check_bundle",
    "choose_lock",
    "content_id",
    "find_fit_of_record",
    "leave",
    "meet_peer",
    "probe",
    "read_heads",
    "remember",
    "replace_text",
    "rolled_back",
    "salvage_file",
    "status_of",
    "try_two",
    "write_bundle",
]
