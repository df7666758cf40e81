"""Entries as look-ups hand them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gamwarm.entries.index import Index
from gamwarm.records import BlockRecord, FitArtifact

__all__ = ["ParentSnapshot", "StoredArtifact", "StoredRecord"]


class StoredRecord(NamedTuple):
    """A record with its entry id."""

    record: BlockRecord
    entry_id: str


class StoredArtifact(NamedTuple):
    """An artifact with its entry id."""

    artifact: FitArtifact
    entry_id: str


@dataclass(frozen=True, eq=False)
class ParentSnapshot:
    """Artifacts that a campaign may start from; none is evicted while this object lives."""

    ids: frozenset[str] = frozenset()
    index: Index = field(default_factory=Index)
