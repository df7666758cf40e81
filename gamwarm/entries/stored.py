"""Entries as look-ups hand them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gamwarm.encoding import Encoded, ranking
from gamwarm.entries.index import Index
from gamwarm.records import BlockRecord, FitArtifact, Producer

__all__ = ["ParentSnapshot", "StoredArtifact", "StoredRecord", "record_meant"]


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


def record_meant(whole: Sequence[tuple[Encoded, BlockRecord]], producer: Producer | None) -> StoredRecord | None:
    """Return the record of a key that a look-up by ``producer`` means; None of none."""
    if len(whole) > 1:
        said = ranking.select_record([encoded.summary() for encoded, _ in whole], producer)
        whole = [each for each in whole if said is not None and each[0].entry_id == said.entry_id]
    return StoredRecord(whole[0][1], whole[0][0].entry_id) if whole else None
