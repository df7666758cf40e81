"""The stores that are compared, behind one small interface: open, get, put, put many in one durable
step, close.

All of them keep the same `gamwarm.BlockRecord` objects and give equal ones back: gamwarm by its
format, the others by pickle. Only gamwarm and sqlite3 (WAL, ``synchronous=FULL``) have the record
on the media when a put returns.
"""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Protocol

import diskcache
import joblib
import numpy as np

import gamwarm
from gamwarm import BlockRecord

NAMES = ("gamwarm", "sqlite3", "diskcache", "joblib")
RHO, MEAN, SCALE = 5, 300, 100


def key_of(number: int) -> str:
    """Return a well-formed exact key."""
    return f"cf-{number:064x}"


def record_of(number: int, value: float = 0.0) -> BlockRecord:
    """Return the record that the targets speak of: 405 numbers, 2 names; ``value`` makes contents
    differ.
    """
    numbers = np.random.default_rng(number).standard_normal(RHO + MEAN + SCALE)
    numbers[0] += value
    return BlockRecord(
        key=key_of(number),
        n_rows=327_346,
        block_names=["mean", "log sigma"],
        block_dims=[MEAN, SCALE],
        rho=numbers[:RHO],
        block_beta=[numbers[RHO : RHO + MEAN], numbers[RHO + MEAN :]],
        objective=float(numbers.sum()),
    )


class Rival(Protocol):
    """One store, open."""

    def get(self, number: int) -> BlockRecord | None: ...
    def put(self, record: BlockRecord) -> None: ...
    def put_many(self, records: list[BlockRecord]) -> None: ...
    def close(self) -> None: ...


class Gamwarm:
    """The public store, as a user opens it."""

    def __init__(self, place: Path) -> None:
        self.store = gamwarm.open(place / "fits.h5", on_error="raise", lock="flock")

    def get(self, number: int) -> BlockRecord | None:
        return self.store.get_record(key_of(number))

    def put(self, record: BlockRecord) -> None:
        self.store.put_record(record)

    def put_many(self, records: list[BlockRecord]) -> None:
        with self.store.transaction():
            for record in records:
                self.store.put_record(record)

    def close(self) -> None:
        self.store.close()


class Sqlite:
    """A table of pickles: WAL, FULL."""

    def __init__(self, place: Path) -> None:
        self.db = sqlite3.connect(place / "fits.sqlite", timeout=60, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS fits (key TEXT PRIMARY KEY, value BLOB)")

    def get(self, number: int) -> BlockRecord | None:
        row = self.db.execute("SELECT value FROM fits WHERE key=?", (key_of(number),)).fetchone()
        return None if row is None else pickle.loads(row[0])

    def _insert(self, record: BlockRecord) -> None:
        self.db.execute("INSERT OR REPLACE INTO fits VALUES (?, ?)", (record.key, pickle.dumps(record, 5)))

    def put(self, record: BlockRecord) -> None:
        self._insert(record)

    def put_many(self, records: list[BlockRecord]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for record in records:
            self._insert(record)
        self.db.execute("COMMIT")

    def close(self) -> None:
        self.db.close()


class Diskcache:
    """Not durable: its sqlite runs with synchronous=NORMAL."""

    def __init__(self, place: Path) -> None:
        self.cache = diskcache.Cache(str(place), size_limit=2**40, eviction_policy="none")

    def get(self, number: int) -> BlockRecord | None:
        found: BlockRecord | None = self.cache.get(key_of(number))
        return found

    def put(self, record: BlockRecord) -> None:
        self.cache.set(record.key, record)

    def put_many(self, records: list[BlockRecord]) -> None:
        with self.cache.transact():
            for record in records:
                self.put(record)

    def close(self) -> None:
        self.cache.close()


def fitted(number: int, value: float = 0.0) -> BlockRecord:
    """The function that joblib.Memory remembers."""
    return record_of(number, value)


class Joblib:
    """Not durable, and asked by arguments: a put is a first call, a get a second one."""

    def __init__(self, place: Path) -> None:
        self.call: Any = joblib.Memory(place, verbose=0).cache(fitted)

    def get(self, number: int) -> BlockRecord | None:
        found: BlockRecord = self.call(number)
        return found

    def put(self, record: BlockRecord) -> None:
        self.call(int(record.key[3:], 16))

    def put_many(self, records: list[BlockRecord]) -> None:
        for record in records:
            self.put(record)

    def close(self) -> None:
        pass


def open_rival(name: str, folder: Path) -> Rival:
    """Open (or make) a store in its own folder below `folder`."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, Any] = {"gamwarm": Gamwarm, "sqlite3": Sqlite, "diskcache": Diskcache, "joblib": Joblib}
    rival: Rival = kinds[name](place)
    return rival


def bytes_on_disk(name: str, folder: Path) -> int:
    """What the store occupies (closed, without lock files): whole blocks, as the file system counts
    them.
    """
    return sum(
        path.stat().st_blocks * 512 for path in (folder / name).rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def remove(name: str, folder: Path) -> None:
    """Remove all that a store left."""
    shutil.rmtree(folder / name, ignore_errors=True)
