"""Records and artifacts in a durable file: codec, layout, ranking, scans, buffered puts."""

from gamwarm.encoding import (
    ARTIFACT,
    KINDS,
    RECORD,
    DamagedEntry,
    Encoded,
    EntryKind,
    EntrySummary,
    Refused,
    check_content,
    decode,
    encode,
    entry_labels,
    seal_of,
    sealed_parts,
    texts,
)
from gamwarm.entries import clock, stored_values
from gamwarm.entries.batch import Batch, Problem
from gamwarm.entries.browse import (
    ARTIFACTS,
    RECORDS,
    BrowsedEntry,
    Browser,
    list_entries,
    list_sealed,
)
from gamwarm.entries.buffered import BufferedEntries, leave
from gamwarm.entries.editor import EntryEditor
from gamwarm.entries.eviction import Evicted, EvictReport, evict_entries
from gamwarm.entries.index import Index, Wanted
from gamwarm.entries.layout import ARCHIVE, FileView, Irreplaceable, check_file, create_file
from gamwarm.entries.outcome import Pending, PutOutcome, rolled_back
from gamwarm.entries.scan import Progress, iter_batches, report_progress
from gamwarm.entries.selection import Families, Selection, Selector, Target, resolve_key
from gamwarm.entries.store import EntryStore, StoredArtifact, StoredRecord
from gamwarm.entries.stored import ParentSnapshot
from gamwarm.entries.stored_values import ARCHIVE_TEXT, UNREADABLE, timeless

__all__ = [
    "ARCHIVE",
    "ARCHIVE_TEXT",
    "ARTIFACT",
    "ARTIFACTS",
    "KINDS",
    "RECORD",
    "RECORDS",
    "UNREADABLE",
    "Batch",
    "BrowsedEntry",
    "Browser",
    "BufferedEntries",
    "DamagedEntry",
    "Encoded",
    "EntryEditor",
    "EntryKind",
    "EntryStore",
    "EntrySummary",
    "EvictReport",
    "Evicted",
    "Families",
    "FileView",
    "Index",
    "Irreplaceable",
    "ParentSnapshot",
    "Pending",
    "Problem",
    "Progress",
    "PutOutcome",
    "Refused",
    "Selection",
    "Selector",
    "StoredArtifact",
    "StoredRecord",
    "Target",
    "Wanted",
    "check_content",
    "check_file",
    "clock",
    "create_file",
    "decode",
    "encode",
    "entry_labels",
    "evict_entries",
    "iter_batches",
    "leave",
    "list_entries",
    "list_sealed",
    "report_progress",
    "resolve_key",
    "rolled_back",
    "seal_of",
    "sealed_parts",
    "stored_values",
    "texts",
    "timeless",
]
