"""What one process of a concurrency test does: ``python -m tests.support.torture_worker write|read
<path> ...``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import numpy as np

import gamwarm
from gamwarm import BlockRecord
from tests.support.stores import artifact_of, exact_key_of, record_of

__all__ = ["key_number", "paired_record"]

WIDTH = 50


def key_number(who: int, index: int) -> int:
    return who * 1_000_000 + index


def paired_record(who: int, index: int) -> BlockRecord:
    """A record all of whose numbers say the same."""
    value = float(key_number(who, index))
    return record_of(
        key_number(who, index),
        value,
        block_names=["x"],
        block_dims=[WIDTH],
        block_beta=[np.full(WIDTH, value)],
        attributes={"note": value},
    )


def is_whole(record: BlockRecord, who: int, index: int) -> bool:
    value = float(key_number(who, index))
    return (
        bool((record.block_beta[0] == value).all())
        and len(record.block_beta[0]) == WIDTH
        and record.objective == value
        and record.attributes["note"] == value
    )


def write(path: Path, who: int, count: int) -> None:
    """Put a record and an artifact per transaction; print each acknowledgement with how long it
    took.
    """
    with gamwarm.open(path, on_error="raise") as store:
        print("ready", flush=True)
        for index in range(count):
            begun = time.monotonic()
            with store.transaction():
                store.put_record(paired_record(who, index))
                store.put_artifact(artifact_of(f"s{who}", float(index)))
            print(json.dumps([index, time.monotonic() - begun]), flush=True)


def read(path: Path, seed: int, writers: int, stop: Path) -> None:
    """Look up until `stop` exists: what is found is whole, what was found is never gone, pairs are
    never halved.
    """
    rng = random.Random(seed)
    seen: set[tuple[int, int]] = set()
    reads = hits = 0
    longest = 0.0
    newest = [0] * writers
    with gamwarm.open(path, "r", on_error="raise") as store:
        print("ready", flush=True)
        while not stop.exists():
            who = rng.randrange(writers)
            index = rng.randrange(newest[who] + 2)
            begun = time.monotonic()
            record = store.get_record(exact_key_of(key_number(who, index)))
            longest = max(longest, time.monotonic() - begun)
            reads += 1
            if record is None:
                if (who, index) in seen:
                    raise AssertionError(f"{who}, {index} was there and is gone")
            else:
                hits += 1
                newest[who] = max(newest[who], index + 1)
                if not is_whole(record, who, index):
                    raise AssertionError(f"{who}, {index} is torn")
                seen.add((who, index))
            if reads % 40 == 0 and (len(store) % 2 or len(store.entry_ids()) % 2):
                raise AssertionError("half a transaction")
    print(json.dumps([reads, hits, longest]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        read(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
