"""What an entry is: its kinds, its text and vectors, and what it says of itself. Knows no file."""

from gamwarm.encoding import ranking, texts
from gamwarm.encoding.artifact_kind import ARTIFACT
from gamwarm.encoding.codec import (
    ARTIFACTS,
    RECORDS,
    DamagedEntry,
    Encoded,
    Refused,
    check_content,
    decode,
    encode,
    private_copy,
    seal_of,
    sealed_parts,
    stamped_at,
)
from gamwarm.encoding.entry_kind import KINDS, EntryKind, Retain, entry_labels
from gamwarm.encoding.record_kind import RECORD
from gamwarm.encoding.summary import EntrySummary, key_of
from gamwarm.encoding.texts import is_descriptor_key, is_entry_id, is_time

__all__ = [
    "ARTIFACT",
    "ARTIFACTS",
    "KINDS",
    "RECORD",
    "RECORDS",
    "DamagedEntry",
    "Encoded",
    "EntryKind",
    "EntrySummary",
    "Refused",
    "Retain",
    "check_content",
    "decode",
    "encode",
    "entry_labels",
    "is_descriptor_key",
    "is_entry_id",
    "is_time",
    "key_of",
    "private_copy",
    "ranking",
    "seal_of",
    "sealed_parts",
    "stamped_at",
    "texts",
]
