"""Records and artifacts in a durable file: codec, layout, ranking, scans, buffered puts."""

from gamwarm.entries import clock, stored_values, texts
from gamwarm.entries.batch import Batch, Problem
from gamwarm.entries.browse import ARTIFACTS, RECORDS, Browser, Seen
from gamwarm.entries.buffered import BufferedEntries, leave
from gamwarm.entries.codec import SECTIONS, DamagedEntry, Encoded, check_content, decode, seal_of, sealed_parts
from gamwarm.entries.editor import EntryEditor
from gamwarm.entries.eviction import Evicted, EvictReport, evict_entries
from gamwarm.entries.heads import EntryHead, FitOfRecord, find_fit_of_record, read_heads
from gamwarm.entries.layout import ARCHIVE, FileView, Irreplaceable, check_file, create_file
from gamwarm.entries.ledger import LedgerLine, read_ledger
from gamwarm.entries.outcome import PutOutcome, rolled_back
from gamwarm.entries.scan import Progress, in_portions, tell
from gamwarm.entries.store import ArtifactHeader, EntryStore, StoredArtifact, StoredRecord, content_id
from gamwarm.entries.stored import Held
from gamwarm.entries.stored_values import ARCHIVE_TEXT, UNREADABLE, timeless

__all__ = [
    "ARCHIVE",
    "ARCHIVE_TEXT",
    "ARTIFACTS",
    "RECORDS",
    "SECTIONS",
    "UNREADABLE",
    "ArtifactHeader",
    "Batch",
    "Browser",
    "BufferedEntries",
    "DamagedEntry",
    "Encoded",
    "EntryEditor",
    "EntryHead",
    "EntryStore",
    "EvictReport",
    "Evicted",
    "FileView",
    "FitOfRecord",
    "Held",
    "Irreplaceable",
    "LedgerLine",
    "Problem",
    "Progress",
    "PutOutcome",
    "Seen",
    "StoredArtifact",
    "StoredRecord",
    "check_content",
    "check_file",
    "clock",
    "content_id",
    "create_file",
    "decode",
    "evict_entries",
    "find_fit_of_record",
    "in_portions",
    "leave",
    "read_heads",
    "read_ledger",
    "rolled_back",
    "seal_of",
    "sealed_parts",
    "stored_values",
    "tell",
    "texts",
    "timeless",
]
