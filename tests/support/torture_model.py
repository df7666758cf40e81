"""The rules for keeping and looking up, on dicts, with nothing of the shipped code but the content
digest.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gamwarm import BlockRecord, Curvature, FitArtifact, InnerMode
from gamwarm.entries import Encoded, EntryStore, encode, list_entries
from gamwarm.records import Producer
from tests.support.stores import artifact_of, record_of

__all__ = ["STORE_PRODUCER", "Model", "ModelEntry", "Seen", "random_artifact", "random_record", "see"]

STORE_PRODUCER = Producer("tests", "1")
BIG = 8000
"""Coefficients of a block too large for an attribute."""


@dataclass(frozen=True)
class ModelEntry:
    """An entry that a store should hold; `turn` orders entries by when they were filed."""

    entry: BlockRecord | FitArtifact
    entry_id: str
    turn: int


@dataclass
class Seen:
    """What a store shows: all its entry ids, the record that each key means, the artifacts of each
    descriptor key.
    """

    ids: set[str]
    records: dict[str, BlockRecord]
    artifacts: dict[str, dict[str, FitArtifact]]


def see(store: EntryStore) -> Seen:
    """Read all that a store shows."""
    records = {}
    for key in store.keys():  # noqa: SIM118 - a store is no dict
        found = store.find_record(key, STORE_PRODUCER)
        assert found is not None, f"{key} is listed and not found"
        records[key] = found.record
    artifacts: dict[str, dict[str, FitArtifact]] = {}
    for summary in list_entries(store)[0]:
        stored = store.find_artifact(summary.entry_id) if summary.kind == "artifact" else None
        if stored is not None:
            artifacts.setdefault(summary.key, {})[stored.entry_id] = stored.artifact
    return Seen(store.entry_ids(), records, artifacts)


@dataclass
class Model:
    """A store as two dicts."""

    records: dict[str, list[ModelEntry]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, ModelEntry]] = field(default_factory=dict)
    turn: int = 0

    def copy(self) -> Model:
        return deepcopy(self)

    def put_record(self, record: BlockRecord) -> str:
        """File a record; returns ``new``, ``same``, ``worse`` (than the checkpoint there) or
        ``refused``.
        """
        limit = record.rho_bound - 1.0
        flags = None if record.curvature is None else record.curvature.plateau
        for index, value in enumerate(record.rho):
            if abs(value) >= limit and (flags is None or not flags[index]):
                return "refused"
        held = self._hold(record)
        there = self.records.get(record.key, [])
        if any(other.entry_id == held.entry_id for other in there):
            return "same"
        if record.kind == "final":
            there = [other for other in there if _kind(other) == "checkpoint"]
        else:
            rival = next((other for other in there if _kind(other) == "checkpoint"), None)
            if rival is not None and _objective(rival) < _objective(held):
                return "worse"
            there = [other for other in there if other is not rival]
        self.records[record.key] = [*there, held]
        return "new"

    def put_artifact(self, artifact: FitArtifact) -> str:
        """File an artifact; returns ``new`` or ``same``."""
        held = self._hold(artifact)
        there = self.artifacts.setdefault(artifact.descriptor.key, {})
        if held.entry_id in there:
            return "same"
        there[held.entry_id] = held
        return "new"

    def forget(self, gone: Collection[str]) -> None:
        """Remove entries by id."""
        for key, there in list(self.records.items()):
            self.records[key] = [held for held in there if held.entry_id not in gone]
            if not self.records[key]:
                del self.records[key]
        for key, found in list(self.artifacts.items()):
            self.artifacts[key] = {i: held for i, held in found.items() if i not in gone}
            if not self.artifacts[key]:
                del self.artifacts[key]

    def _hold(self, entry: Any) -> ModelEntry:
        self.turn += 1
        encoded = encode(entry, STORE_PRODUCER)
        entry_id = encoded.entry_id if isinstance(encoded, Encoded) else ""
        if entry.producer is None:
            entry = replace(entry, producer=STORE_PRODUCER)
        return ModelEntry(entry, entry_id, self.turn)

    def find_record(self, key: str, producer: Producer | None = STORE_PRODUCER) -> BlockRecord | None:
        """Return the record that a look-up by this producer means."""
        best: ModelEntry | None = None
        for held in sorted(self.records.get(key, []), key=lambda h: h.turn):
            mine = producer is None or producer.is_same_build(held.entry.producer)
            if _kind(held) == "final" and mine:
                assert isinstance(held.entry, BlockRecord)
                return held.entry
            if best is None or _objective(held) <= _objective(best):
                best = held
        found = None if best is None else best.entry
        assert found is None or isinstance(found, BlockRecord)
        return found

    def find_artifact(self, key: str) -> FitArtifact | None:
        """Return the parent under a strict descriptor key: most rows, then newest."""
        best: ModelEntry | None = None
        for held in sorted(self.artifacts.get(key, {}).values(), key=lambda h: h.turn):
            if best is None or _rows(held) >= _rows(best):
                best = held
        found = None if best is None else best.entry
        assert found is None or isinstance(found, FitArtifact)
        return found

    def held(self) -> dict[str, ModelEntry]:
        """Return every entry by its id."""
        groups = [*self.records.values(), *(list(found.values()) for found in self.artifacts.values())]
        return {held.entry_id: held for group in groups for held in group}

    def seen(self) -> Seen:
        """Return what a store with this content shows."""
        records = {key: self.find_record(key) for key in self.records}
        artifacts = {
            key: {i: held.entry for i, held in found.items() if isinstance(held.entry, FitArtifact)}
            for key, found in self.artifacts.items()
        }
        return Seen(set(self.held()), {k: r for k, r in records.items() if r is not None}, artifacts)


def _kind(held: ModelEntry) -> str:
    assert isinstance(held.entry, BlockRecord)
    return str(held.entry.kind)


def _objective(held: ModelEntry) -> float:
    assert isinstance(held.entry, BlockRecord)
    return float("inf") if held.entry.objective is None else held.entry.objective


def _rows(held: ModelEntry) -> int:
    assert isinstance(held.entry, FitArtifact)
    return held.entry.summary.n_rows


def random_record(rng: random.Random, *, keys: int = 4, big: bool = False, salt: int = 0) -> BlockRecord:
    """Return a record of one of a few keys, with any of its optional parts; ``salt`` makes its
    numbers its own.
    """
    value = float(rng.randrange(1, 50)) + salt
    width = BIG if big else rng.choice((0, 1, 3, 40))
    saturated = rng.random() < 0.15
    curvature = None
    if rng.random() < 0.5:
        plateau = np.array([False, rng.random() < 0.7])
        curvature = Curvature(np.array([value, 0.5]), np.eye(2) * value, np.array([1.5, 0.05]), plateau)
    inner = None
    if rng.random() < 0.4:
        inner = InnerMode(-value, 0.5, 4, True, np.full(2, value), np.zeros(2), 1e-8, np.array([value]))
    return record_of(
        rng.randrange(keys),
        value,
        block_names=["µ", "log sigma"],
        block_dims=[width, 2],
        rho=[0.5 + salt % 7, 9.5 if saturated else -1.0],
        block_beta=[np.full(width, value), [value, -value]],
        objective=None if rng.random() < 0.1 else value,
        kind="final" if rng.random() < 0.5 else "checkpoint",
        producer=rng.choice((None, None, Producer("other", "2"), Producer())),
        active_sets=[None, [0, 1]] if rng.random() < 0.3 else None,
        curvature=curvature,
        inner=inner,
        attributes={"note": f"nº {salt}", "value": value},
    )


def random_artifact(rng: random.Random, *, names: int = 3, big: bool = False, salt: int = 0) -> FitArtifact:
    """Return an artifact of one of a few descriptors."""
    return artifact_of(
        f"s({rng.randrange(names)})",
        float(rng.randrange(1, 30)) + salt,
        width=3,
        raw_width=BIG if big else 4,
        n_rows=rng.choice((40, 50, 60)),
    )
