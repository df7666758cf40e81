"""Real processes killed with SIGKILL at random times: every acknowledged record is there, none is
partial.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(1200)

WORKER = """
import sys
import numpy as np
from gamwarm.storage import pager, writer
from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit
writer.CHECKPOINT_BYTES = 200_000  # so that kills meet checkpoints too
who, start = sys.argv[2], int(sys.argv[3])
container = Container.open(sys.argv[1], create=kit.lay_out)
for index in range(start, start + 100_000):
    with container.write() as h5:
        kit.put(h5, f"{who}-{index}", np.full(60, float(index)))
        kit.put(h5, f"{who}-last", np.full(60, float(index)))
    print(index, flush=True)
"""


def rounds(directory, workers, count, seed):
    rng = random.Random(seed)
    path = directory / kit.NAME
    acked: dict[str, set[int]] = {str(who): set() for who in range(workers)}
    total = 0
    for turn in range(count):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(path), str(who), str(turn * 100_000)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for who in range(workers)
        ]
        first = [child.stdout.readline() for child in children]
        time.sleep(rng.uniform(0.0, 0.25))
        for child in children:
            child.send_signal(signal.SIGKILL)
        for who, child in enumerate(children):
            lines = [first[who], *child.stdout.read().splitlines(keepends=True)]
            child.wait()
            child.stdout.close()
            acked[str(who)].update(int(line) for line in lines if line.endswith("\n"))
        total = check(path, acked, leave_journal=turn % 2 == 0)
    return total


def check(path, acked, *, leave_journal):
    """As the next run finds it; every other time the next writer, not this check, has to
    recover.
    """
    with Container.open(path, mode="r" if leave_journal else "a") as container:
        found = container.read(
            lambda h5: {name: group.attrs["values"][()].tolist() for name, group in h5["records"].items()}
        )
    for who, numbers in acked.items():
        stored = {int(name.split("-")[1]) for name in found if name.startswith(who + "-") and not name.endswith("last")}
        assert numbers <= stored, f"worker {who} lost {sorted(numbers - stored)}"
        for number in stored:
            assert found[f"{who}-{number}"] == [float(number)] * 60
        assert found[f"{who}-last"] == [float(max(stored))] * 60, "half a transaction"
    if not leave_journal:
        with h5py.File(path, "r") as plain:
            assert len(plain["records"]) == len(found)
    return sum(map(len, acked.values()))


@pytest.mark.parametrize(
    ("workers", "count"),
    [(1, 3), (3, 2), pytest.param(1, 100, marks=pytest.mark.long), pytest.param(3, 80, marks=pytest.mark.long)],
)
def test_every_acknowledged_record_survives_sigkill(tmp_path, workers, count):
    total = rounds(tmp_path, workers, count, seed=workers)
    print(f"{workers} process(es), {count} rounds: {total} acknowledged records, all present")
    assert total >= workers * count


def test_the_values_of_a_killed_file_are_doubles_of_the_stated_length(tmp_path):
    """Guards the check above against a dump that reads nothing."""
    with Container.open(tmp_path / kit.NAME, create=kit.lay_out) as container, container.write() as h5:
        kit.put(h5, "0-1", np.full(60, 2.0))
        kit.put(h5, "0-last", np.full(60, 2.0))
    with pytest.raises(AssertionError):
        check(tmp_path / kit.NAME, {"0": {1}}, leave_journal=True)
