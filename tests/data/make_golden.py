"""Writes store-format-2.h5 and .json: a small store with every optional part, and what is in it.

Run by hand, once per format version, and never again for one that was released:

    PYTHONPATH=. python tests/data/make_golden.py

Times, uuid and boot identity are fixed, so another run gives the same entries. The JSON is made
from what was put, not from what the store reads back.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from enum import Enum
from itertools import count
from pathlib import Path
from unittest import mock

import numpy as np

import gamwarm
from gamwarm import (
    BasisMeta,
    BlockRecord,
    Cost,
    Curvature,
    FitArtifact,
    FitDescriptor,
    GlobalFitSummary,
    InnerMode,
    TermArtifact,
)
from gamwarm.entries import clock
from gamwarm.identity import Components
from gamwarm.records import GroupSeeds, Lineage, Producer
from gamwarm.storage import container, vfs

HERE = Path(__file__).resolve().parent
NAME = "store-format-2"
FIRST = 1_760_000_000_000_000  # October 2025, in microseconds
LONG = 1000
# Fields that later versions added: left out where an entry has nothing in them, as in the files of
# before.
SINCE = ("settled", "nuisance", "seconds_for_children", "forms")
PRODUCER = Producer("golden", "1.0", "0.1.0")


def records() -> dict[str, BlockRecord]:
    """Every optional part of a record, between them."""
    common = {"producer": PRODUCER, "rho_bound": 10.0}
    full = BlockRecord(
        key="cf-" + "1" * 64,
        n_rows=1234,
        block_names=["µ: s(température)", "log σ", "机场"],
        block_dims=[3, 1, 0],
        rho=[0.1, -2.5, 9.75],
        block_beta=[[1.0, -1 / 3, 5e-324], [1.7976931348623157e308], []],
        active_sets=[[0, 2, 7], None, None],
        inner=InnerMode(-1234.5678, 3.25, 11, True, [1.5, 2.5, 0.0], [0.5, 0.25, 0.0], 1e-9, [0.1, -2.5, 9.75, 0.125]),
        objective=1237.8178,
        converged=True,
        iteration=12,
        curvature=Curvature(
            [1e-7, -2e-7, 0.0],
            [[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1e-12]],
            [2.75, 0.5, 0.01],
            [False, False, True],
        ),
        lineage=Lineage(
            "transfer", "ab" * 16, (("µ: s(température)", "projected"), ("log σ", "rho-only"), ("机场", "cold")), True
        ),
        cost=Cost(17, 12, 345, 346, 1.25),
        attributes={"größe": "naïve ✓", "n": 2**60, "x": 0.1, "empty": ""},
        components=Components([2, 1, 0], list(range(-8, 12))),
        **common,
    )
    checkpoint = BlockRecord(
        key=full.key,
        n_rows=1234,
        block_names=full.block_names,
        block_dims=full.block_dims,
        rho=[0.0, -1.0, 1.0],
        block_beta=[[0.0, -0.0, 1.0], [2.0], []],
        objective=1300.0,
        kind="checkpoint",
        iteration=3,
        **common,
    )
    unbounded = BlockRecord(
        key="cf-" + "2" * 64,
        n_rows=0,
        block_names=["x"],
        block_dims=[1],
        rho=[55.5],
        block_beta=[[0.25]],
        inner=InnerMode(0.0, 0.0, 0, False, [0.0], [0.0]),
        curvature=Curvature(edf=[0.5]),
        lineage=Lineage("cold"),
        **common | {"rho_bound": float("inf")},
    )
    big = BlockRecord(
        key="cf-" + "3" * 64,
        n_rows=10,
        block_names=["wide"],
        block_dims=[8000],
        rho=[],
        block_beta=[np.arange(8000) / 7.0],
        objective=-0.5,
        **common,
    )
    return {"full": full, "checkpoint": checkpoint, "unbounded": unbounded, "big": big}


def artifacts() -> dict[str, FitArtifact]:
    """A rich artifact, a bare one, and one whose seeds have Hessians."""
    first, second = "a" * 64, "b" * 64
    smooth = TermArtifact(
        identity=first,
        role="mean",
        basis_meta=BasisMeta("bspline", 3, 10),
        raw_beta=[1.0, 2.0, 3.0, 4.0],
        rho_for_term=[0.5, 1.5],
        structural_identity="c" * 64,
        reduced_width=3,
        plateau=[False, True],
        rho_slots=[0, 2],
        name="µ: s(x)",
    )
    factor = TermArtifact(second, "log-slope", None, [-1.0], [2.5], "d" * 64, 1, rho_slots=[1], name="carrier")
    rich = FitArtifact(
        descriptor=FitDescriptor("gaulss", (first, second)),
        terms=[smooth, factor],
        summary=GlobalFitSummary(99.5, True, 777),
        curvature=Curvature([0.0, 0.0, 0.0], np.eye(3), [1.0, 2.0, 0.05], [False, False, True]),
        fit_key="cf-" + "1" * 64,
        rho_bound=10.0,
        producer=PRODUCER,
        lineage=Lineage("exact", "cd" * 16, (), None),
        cost=Cost(1, 0, 1, 1, 0.5),
        attributes={"fold": "3"},
        seeds=GroupSeeds(
            "carrier", ["AA", "ЖЖ"], [[0.5, -1.0, 0.0], [0.1, 0.0, 1e-300]], [[0.25] * 5, [-0.0, 1 / 3, 0.0, -1.0, 2.0]]
        ),
    )
    bare = FitArtifact(
        descriptor=FitDescriptor("gaussian", ("e" * 64,)),
        terms=[TermArtifact("e" * 64, "generic", None, [1.0, 2.0], [])],
        summary=GlobalFitSummary(1.0, True, 5),
        rho_bound=10.0,
        producer=PRODUCER,
    )
    seeded = FitArtifact(
        descriptor=FitDescriptor("poisson", (first,)),
        terms=[replace(smooth, reduced_width=None, rho_slots=None)],
        summary=GlobalFitSummary(12.5, True, 300),
        curvature=Curvature([0.0, 0.0], [[2.0, 0.5], [0.5, 1.0]], [1.5, 1.0], [False, False]),
        rho_bound=15.0,
        producer=PRODUCER,
        seeds=GroupSeeds(
            "site",
            ["north", "south"],
            [[0.25, -0.5], [0.0, 1 / 3]],
            [[0.0, 1.0, -1.0, 0.5], [0.125, 0.0, 0.0, -2.0]],
            [[[2.0, 0.25], [0.25, 1.0]], [[1.5, -1 / 3], [-1 / 3, 0.75]]],
        ),
    )
    return {"rich": rich, "bare": bare, "seeded": seeded}


def plain(value: object) -> object:
    """A dataclass as JSON can hold it: binary64 by its shortest digits, infinity as a word, long
    vectors as digests.
    """
    if isinstance(value, np.ndarray):
        if value.size > LONG:
            return {"numbers": value.size, "sha256": hashlib.sha256(value.astype("<f8").tobytes()).hexdigest()}
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    if hasattr(value, "__dataclass_fields__"):
        fields = {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
        return {name: held for name, held in fields.items() if held or name not in SINCE}
    return value


def make(folder: Path) -> None:
    path = folder / f"{NAME}.h5"
    for left in folder.glob(f"{NAME}.*"):
        left.unlink()
    times = count(FIRST)
    expected: dict[str, object] = {}
    with (
        mock.patch.object(clock, "now", side_effect=times),
        mock.patch.object(container.secrets, "token_bytes", lambda n: bytes(range(n))),
        mock.patch.object(vfs, "boot_identity", return_value=bytes(8)),
        gamwarm.open(path, engine="golden", engine_version="1.0", on_error="raise") as store,
    ):
        for name, record in records().items():
            outcome = store.put_record(record)
            assert outcome.written, (name, outcome)
            expected[name] = {"entry_id": outcome.entry_id, "content": plain(record)}
        for name, artifact in artifacts().items():
            store.compact()  # so that all but the last are in the index as most entries of a file are
            outcome = store.put_artifact(artifact)
            assert outcome.written, (name, outcome)
            expected[name] = {"entry_id": outcome.entry_id, "content": plain(artifact)}
        assert store.pin(expected["unbounded"]["entry_id"])
    for number, name in enumerate(expected):
        expected[name]["content"]["created"] = FIRST + number
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    with (folder / f"{NAME}.json").open("w", encoding="utf-8") as out:
        json.dump(expected, out, ensure_ascii=False, indent=None, separators=(",", ":"), sort_keys=True)
        out.write("\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
