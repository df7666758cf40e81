"""Entries as look-ups hand them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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
    """Artifacts that a campaign may start from, with their times: none is evicted while this object
    lives.
    """

    created: dict[str, int]
