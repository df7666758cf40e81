"""Bytes and entries: the crash-safe container, locks, layout, codec, selection, verification."""

from gamwarm.storage._disk import replace_text, status_of
from gamwarm.storage.batch import Problem
from gamwarm.storage.browse import ARTIFACTS, RECORDS, Browser, Seen, Totals
from gamwarm.storage.buffered import BufferedEntries, leave
from gamwarm.storage.bundle import BundleCheck, BundleContents, BundleWritten, absorb_bundle, check_bundle, write_bundle
from gamwarm.storage.coherence import PROBE_PREFIX, Coherence, Safety, meet_peer, try_two
from gamwarm.storage.compaction import compact
from gamwarm.storage.directory_probe import DirectoryProbe, probe, remember
from gamwarm.storage.entries import (
    ArtifactHeader,
    EntryStore,
    StoredArtifact,
    StoredRecord,
    content_id,
)
from gamwarm.storage.eviction import Evicted, EvictReport
from gamwarm.storage.eviction_request import evict
from gamwarm.storage.heads import EntryHead, FitOfRecord, find_fit_of_record, read_heads
from gamwarm.storage.ledger import LedgerLine, read_ledger
from gamwarm.storage.locks import LOCK_NAMES, LockKind, choose_lock
from gamwarm.storage.merging import merge
from gamwarm.storage.outcome import PutOutcome, rolled_back
from gamwarm.storage.reports import CompactReport, MergeReport, SalvageReport, Verdict, VerifyReport
from gamwarm.storage.salvage import salvage_file
from gamwarm.storage.stored import Held
from gamwarm.storage.turns import Turn
from gamwarm.storage.verification import verify

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
    "compact",
    "content_id",
    "evict",
    "find_fit_of_record",
    "leave",
    "meet_peer",
    "merge",
    "probe",
    "read_heads",
    "read_ledger",
    "remember",
    "replace_text",
    "rolled_back",
    "salvage_file",
    "status_of",
    "try_two",
    "verify",
    "write_bundle",
]
