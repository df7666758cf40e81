"""Many processes on one store: every durable put is there, no reader sees a torn state, none
starves.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gamwarm
from tests.support.stores import exact_key_of, leftovers
from tests.support.torture_worker import is_whole, key_number

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(900)


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.torture_worker", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(tmp_path, writers, puts, readers):
    """Return what each writer said of every put and each reader at its end."""
    path, stop = tmp_path / "fits.h5", tmp_path / "stop"
    gamwarm.open(path).close()
    reading = [start("read", path, seed, writers, stop) for seed in range(readers)]
    for child in reading:
        assert child.stdout.readline() == "ready\n"
    begun = time.monotonic()
    writing = [start("write", path, who, puts) for who in range(writers)]
    try:
        said = []
        for child in writing:
            assert child.stdout.readline() == "ready\n"
            said.append([json.loads(line) for line in child.stdout.read().splitlines()])
            assert child.wait(60) == 0
        took = time.monotonic() - begun
    finally:
        stop.touch()
        looked = [child.communicate(timeout=120)[0] for child in reading]
        for child in writing:
            child.kill()
            child.communicate()
    assert [child.returncode for child in reading] == [0] * readers
    longest = max(seconds for puts_of in said for _, seconds in puts_of)
    looked = [json.loads(text) for text in looked]
    print(
        f"{writers} writers x {puts} durable puts beside {readers} readers: {writers * puts / took:.0f} puts/s; "
        f"longest put {1000 * longest:.0f} ms; "
        f"{sum(r for r, _, _ in looked)} look-ups, {sum(h for _, h, _ in looked)} hits, "
        f"longest {1000 * max(s for _, _, s in looked):.0f} ms"
    )
    return path, said, looked


@pytest.mark.parametrize("puts", [25, pytest.param(200, marks=pytest.mark.long)])
def test_four_writers_next_to_two_readers_lose_nothing_and_show_nothing_torn(tmp_path, puts):
    path, said, looked = run(tmp_path, 4, puts, 2)

    assert [[index for index, _ in puts_of] for puts_of in said] == [list(range(puts))] * 4
    assert all(hits for _, hits, _ in looked)
    with gamwarm.open(path, "r") as store:
        for who in range(4):
            for index in range(puts):
                assert is_whole(store.get_record(exact_key_of(key_number(who, index))), who, index)
        assert len(store) == len(store.entry_ids()) == 2 * 4 * puts
        assert store.generation == 4 * puts + 1
        assert store.verify().ok
    assert leftovers(path) == {"stop"}


@pytest.mark.parametrize("puts", [15, pytest.param(400, marks=pytest.mark.long)])
def test_eight_readers_never_starve_the_writer_nor_it_them(tmp_path, puts):
    """Progress is the verdict: the writer reaches its end while all eight look up without a pause,
    and so do they.
    """
    path, said, looked = run(tmp_path, 1, puts, 8)

    assert len(said[0]) == puts
    assert all(reads > 10 and hits for reads, hits, _ in looked)
    with gamwarm.open(path, "r") as store:
        assert len(store) == 2 * puts
