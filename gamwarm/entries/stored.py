"""Entries as selection and the choice of a parent see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gamwarm.records import BlockRecord, FitArtifact, Producer, RecordKind

__all__ = ["Held", "StoredArtifact", "StoredRecord"]


class StoredRecord(NamedTuple):
    """A record with its entry id, as selection sees it."""

    record: BlockRecord
    entry_id: str

    @property
    def kind(self) -> RecordKind:
        return RecordKind(self.record.kind)

    @property
    def objective(self) -> float | None:
        return self.record.objective

    @property
    def producer(self) -> Producer:
        return self.record.producer or Producer("", "", "")

    @property
    def created(self) -> int:
        return self.record.created or 0


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact with its entry id."""

    artifact: FitArtifact
    entry_id: str

    @property
    def created(self) -> int:
        return self.artifact.created or 0


@dataclass(frozen=True, eq=False)
class Held:
    """Artifacts that a campaign may start from, with their times: none is evicted while this object lives."""

    created: dict[str, int]
