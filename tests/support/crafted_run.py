"""Judges crafted files in child processes: a signal or a hang is a finding, not the end of
the run.
"""

from __future__ import annotations

import json
import queue
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

__all__ = ["Outcomes", "judge"]

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0
"""Seconds for one file; it takes about one."""


@dataclass
class Outcomes:
    """What became of the files: how many were looked at, and what was wrong, by case."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def judge(folder: Path, names: Sequence[str], numbers: Sequence[int], *, thorough: float, seed: int) -> Outcomes:
    """Look at the cases of these numbers; a part of them (``thorough``) with slow calls too."""
    outcomes, pick = Outcomes(), random.Random(seed)
    jobs = [(number, pick.random() < thorough) for number in numbers]
    child = 0
    while jobs:
        child += 1
        done = _child(folder, folder / f"scratch-{child}", jobs, outcomes, names)
        jobs = jobs[done:]
    return outcomes


def _child(folder: Path, scratch: Path, jobs: list[tuple[int, bool]], outcomes: Outcomes, names: Sequence[str]) -> int:
    """Let one child do what it can; return how many jobs are over."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.crafted_worker", str(folder), str(scratch)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    forwarder = threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True)
    forwarder.start()
    try:
        for done, job in enumerate(jobs):
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            try:
                said = lines.get(timeout=LIMIT)
            except queue.Empty:
                said, kind = "", "hangs"
            else:
                kind = "signals or ends"
            if not said:
                process.kill()
                outcomes.counts[kind] += 1
                outcomes.wrong.append(f"{names[job[0]]}: {kind} (status {process.wait()})")
                return done + 1
            _, wrong = json.loads(said)
            if wrong is None:
                outcomes.counts["not made by HDF5"] += 1
                continue
            outcomes.counts["looked at"] += 1
            outcomes.counts["wrong"] += bool(wrong)
            outcomes.wrong += [f"{names[job[0]]}: {text}" for text in wrong]
        return len(jobs)
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        forwarder.join()
        process.stdout.close()


def _forward(stream: IO[Any], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")
