"""Damage to a store file, judged in a child process with a time limit, many images per child.

``python -m tests.support.torture_damage <folder>`` reads jobs from standard input, one JSON list a
line: a name, then edits of the base image. It prints one verdict a line. The parent knows which job
a child died or hung on.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import gamwarm
from gamwarm import BlockRecord, Curvature, FitArtifact, GamwarmError
from tests.support.stores import artifact_of, exact_key_of, record_of

__all__ = ["KEYS", "Outcomes", "Wrong", "cuts", "entry_bytes", "fill", "flips", "judge"]

ROOT = Path(__file__).resolve().parents[2]
KEYS = range(1, 6)
LIMIT = 30.0
"""Seconds for one image; a hundred times what it takes."""

Job = list[Any]


class Wrong(AssertionError):
    """A wrong number, a lost neighbour, an untyped error, a crash or a hang."""


def value_of(key: int) -> float:
    """A number whose eight bytes are found nowhere else in the file."""
    return 1.0 + key / 7.0


def victim_record(key: int, *, big: bool = False) -> BlockRecord:
    width = 9000 if big else 5
    return record_of(
        key,
        value_of(key),
        block_names=["x"],
        block_dims=[width],
        block_beta=[np.full(width, value_of(key))],
        curvature=Curvature(np.array([0.125, value_of(key) / 3]), np.eye(2)),
        attributes={"note": f"victim number {key}"},
        producer=gamwarm.Producer("tests", "1"),
    )


def victim_artifact(key: int) -> FitArtifact:
    return artifact_of(f"s({key})", value_of(key) / 11, producer=gamwarm.Producer("tests", "1"))


def fill(path: Path, *, big: bool = False, keys: Iterable[int] = KEYS) -> Path:
    """Write the store that is damaged: a record and an artifact per key."""
    with gamwarm.open(path) as store:
        for key in keys:
            store.put_record(victim_record(key, big=big and key == 3))
            store.put_artifact(victim_artifact(key))
    return path


def entry_bytes(image: bytes, key: int) -> list[int]:
    """Positions of the bytes of one record: its numbers, and its text with all names and counts."""
    spots: set[int] = set()
    for part in (
        np.full(5, value_of(key)).tobytes(),
        np.array([0.125, value_of(key) / 3]).tobytes() + np.eye(2).tobytes(),
    ):
        start = image.find(part)
        assert start > 0, "the record's numbers were not found"
        spots.update(range(start, start + len(part)))
    note = image.find(f"victim number {key}".encode())
    start = image.rfind(b'{"active"', 0, note)
    end = image.find(b'"}', note)
    end = image.find(b"}", image.find(b'"widths"', start)) if image.find(b'"widths"', start) > end else end
    assert 0 < start < note < end, "the record's text was not found"
    spots.update(range(start, end + 1))
    return sorted(spots)


# -- the child -------------------------------------------------------------------------------------


def _edited(base: bytes, edits: list[Any]) -> bytes:
    image = bytearray(base)
    for kind, place, value in edits:
        if kind == "xor":
            image[place] ^= value
        elif kind == "cut":
            del image[place:]
        elif kind == "fill":
            image[place : place + value] = bytes(len(image[place : place + value]))
        else:
            raise ValueError(kind)
    return bytes(image)


def verdict_of(path: Path, mode: str, whole: dict[str, Any]) -> dict[str, Any]:
    """Open, look up everything, verify, and in mode ``a`` put: what was missed or refused, and what
    is wrong.
    """
    missing: list[str] = []
    refused: list[str] = []
    wrong: list[str] = []
    problems: list[str] | None = None
    try:
        with gamwarm.open(path, mode, on_error="raise", engine="tests", engine_version="1") as store:  # type: ignore[arg-type]
            for place, expected in whole.items():
                kind, key = place.split(" ")
                try:
                    found = store.get_record(key) if kind == "record" else store.get_artifact(key)
                except GamwarmError:
                    refused.append(place)
                    continue
                if found is None:
                    missing.append(place)
                elif found != expected or found.created != expected.created:
                    wrong.append(f"{place}: another content was served")
            try:
                problems = [str(problem) for problem in store.verify().problems]
                len(store)
                store.entry_ids()
            except GamwarmError:
                refused.append("verify")
            if mode == "a":
                try:
                    outcome = store.put_record(victim_record(50))
                    if outcome.written and store.get_record(exact_key_of(50)) != victim_record(50):
                        wrong.append("a put was acknowledged and is not there")
                except GamwarmError:
                    refused.append("put")
    except GamwarmError as error:
        return {"outcome": "file refused", "error": type(error).__name__, "missing": [], "refused": [], "wrong": wrong}
    except Exception as error:
        wrong.append(f"untyped {type(error).__name__}: {error}")
    if missing and problems is not None and not problems:
        wrong.append("an entry is missed, and verify() finds nothing")
    outcome_name = (
        "missed" if missing else "looks refused" if refused else "found by verify" if problems else "unharmed"
    )
    return {"outcome": outcome_name, "missing": missing, "refused": refused, "wrong": wrong, "problems": problems or []}


def child(folder: Path) -> None:
    logging.getLogger("gamwarm").addHandler(logging.NullHandler())
    logging.getLogger("gamwarm").propagate = False
    base = (folder / "base.h5").read_bytes()
    whole: dict[str, Any] = {}
    with gamwarm.open(folder / "base.h5", "r", engine="tests", engine_version="1") as store:
        for key in store.keys():  # noqa: SIM118 - a store is no dict
            whole[f"record {key}"] = store.get_record(key)
        for number in KEYS:
            key = victim_artifact(number).descriptor.key
            if (artifact := store.get_artifact(key)) is not None:
                whole[f"artifact {key}"] = artifact
    path = folder / f"image-{os.getpid()}.h5"
    for line in sys.stdin:
        _, mode, edits = json.loads(line)
        path.write_bytes(_edited(base, edits))
        print(json.dumps(verdict_of(path, mode, whole)), flush=True)
        for left in folder.glob(f"{path.name}*"):
            left.unlink()


# -- the parent ------------------------------------------------------------------------------------


@dataclass
class Outcomes:
    """Counts per outcome, and what went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    verdicts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def judge(folder: Path, jobs: Iterable[Job], *, children: int = 2) -> Outcomes:
    """Have every job judged by child processes; one that dies or hangs is a finding, and another
    goes on.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    outcomes = Outcomes()
    lock = threading.Lock()

    def work() -> None:
        process: subprocess.Popen[str] | None = None
        try:
            while True:
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    return
                if process is None:
                    process = _start(folder)
                verdict = _ask(process, job)
                if verdict is None:
                    process.kill()
                    process.wait()
                    verdict = {"outcome": "child lost", "missing": [], "wrong": [f"child died: {process.returncode}"]}
                    process = None
                with lock:
                    outcomes.counts[verdict["outcome"]] += 1
                    outcomes.verdicts.append((job[0], verdict))
                    outcomes.wrong += [f"{job[0]} ({job[1]}): {text}" for text in verdict["wrong"]]
                    if len(verdict["missing"]) > 1:
                        outcomes.wrong.append(f"{job[0]} ({job[1]}): {len(verdict['missing'])} entries are missed")
        finally:
            if process is not None:
                assert process.stdin is not None
                process.stdin.close()
                process.wait(60)
                assert process.stdout is not None
                process.stdout.close()

    threads = [threading.Thread(target=work) for _ in range(children)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.torture_damage", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(process: subprocess.Popen[str], job: Job) -> dict[str, Any] | None:
    assert process.stdin is not None
    assert process.stdout is not None
    watch = threading.Timer(LIMIT, process.kill)  # what was read then is the empty line of a dead child
    watch.start()
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    finally:
        watch.cancel()
    verdict: dict[str, Any] | None = json.loads(line) if line.endswith("\n") else None
    return verdict


def flips(spots: Iterable[int], rng: random.Random, mode: str = "r") -> Iterator[Job]:
    """One bit of each of these bytes, in turn."""
    for spot in spots:
        bit = 1 << rng.randrange(8)
        yield [f"byte {spot} ^ {bit}", mode, [["xor", spot, bit]]]


def cuts(size: int, mode: str = "r") -> Iterator[Job]:
    """The file cut to every multiple of 512 bytes, and to one byte beside some."""
    for length in sorted({*range(0, size, 512), 1, 63, 64, 511, 513, 4095, 4097, size - 1}):
        yield [f"cut to {length}", mode, [["cut", length, 0]]]


if __name__ == "__main__":
    child(Path(sys.argv[1]))
