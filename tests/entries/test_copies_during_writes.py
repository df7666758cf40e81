"""A copy made by ``cp`` during a write holds pages of several states: the process lives, whatever
is done with it.
"""

from __future__ import annotations

import os
import random
import re
import signal

import pytest

import gamwarm
from gamwarm.storage import free_space
from gamwarm.storage import header as _header
from gamwarm.storage import overlay as _overlay
from tests.support.stores import artifact_of, record_of
from tests.support.torture_kills import in_child

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Images of one store after each of its transactions."""
    path = tmp_path_factory.mktemp("states") / "fits.h5"
    rng = random.Random(1)
    images = []
    with gamwarm.open(path) as store:
        for number in range(120):
            kind = rng.random()
            if kind < 0.55:
                store.put_record(record_of(rng.randrange(300), rng.random()))
            elif kind < 0.9:
                store.put_artifact(artifact_of(f"s{rng.randrange(60)}", float(number)))
            elif number > 20:
                store.evict(size_budget=rng.randrange(2000, 60_000))
            images.append(path.read_bytes())
    return images


def free_space_headers(image: bytes) -> list[int]:
    return [found.start() for found in re.finditer(free_space.HEADER_SIGNATURE, image)]


def belongs_together(image: bytes, start: int) -> bool:
    def read(count: int, address: int) -> bytes:
        return image[address + _header.USER_BLOCK :][:count]

    return free_space.belongs_together(image[start : start + 82], start - _header.USER_BLOCK, read)


def test_what_hdf5_reads_of_what_it_has_written_belongs_together(states, tmp_path, monkeypatch):
    """Headers that HDF5 has given up may lie next to newer contents: it never reads them."""
    answers = []

    def asked(*arguments):
        answers.append(free_space.belongs_together(*arguments))
        return answers[-1]

    monkeypatch.setattr(_overlay, "belongs_together", asked)
    for number, image in enumerate(states[4::5]):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(image)
        with gamwarm.open(path, on_error="raise") as store:
            assert store.put_record(record_of(400)).written
            assert store.put_artifact(artifact_of("s400", 1.0)).written
            store.evict(size_budget=1000)
    assert len(answers) > 50
    assert all(answers)


def test_what_a_large_heap_has_written_belongs_together(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        with store.transaction():
            for number in range(3000):
                store.put_record(record_of(number))
        store.evict(size_budget=100_000)
        with store.transaction():
            for number in range(5000, 5200):
                store.put_record(record_of(number))
    image = path.read_bytes()
    starts = free_space_headers(image)
    assert starts
    assert all(belongs_together(image, start) for start in starts)


def test_a_list_of_another_state_does_not(states):
    wrong = 0
    for before, after in zip(states[20:], states[30:], strict=False):
        for start in free_space_headers(before):
            image = before[: start + 82] + after[start + 82 :]
            wrong += not belongs_together(image, start)
    assert wrong > 10


def use(path) -> None:
    """Do everything that a user might; only errors of gamwarm's own are allowed."""

    def step(call):
        try:
            return call()
        except gamwarm.GamwarmError:
            return None

    store = step(lambda: gamwarm.open(path, on_error="raise"))
    if store is None:
        return
    for call in (
        store.keys,
        store.verify,
        lambda: store.put_record(record_of(3, 2.0)),
        lambda: store.put_record(record_of(500, 2.0)),
        lambda: store.put_artifact(artifact_of("s3", 99.0)),
        lambda: store.evict(size_budget=1000),
        lambda: store.put_record(record_of(501, 2.0)),
        store.compact,
        store.close,
    ):
        step(call)


def mixed(states: list[bytes], rng: random.Random) -> bytes:
    """What a slow `cp` may read: each stretch from the state of its moment."""
    at = rng.randrange(20, len(states) - 1)
    image = b""
    while len(image) < len(states[at]):
        image += states[at][len(image) :][: _header.PAGE * rng.choice((1, 2, 5, 10, 30))]
        at = min(len(states) - 1, at + rng.choice((0, 0, 1, 1, 3, 10)))
    return image


@pytest.mark.parametrize("cases", [25, pytest.param(1500, marks=pytest.mark.long)])
def test_a_mixed_copy_never_ends_the_process(states, tmp_path, cases):
    rng = random.Random(cases)
    for case in range(cases):
        path = tmp_path / f"copy{case}.h5"
        path.write_bytes(mixed(states, rng))

        def act(acknowledge, path=path):
            signal.alarm(60)
            use(path)

        assert in_child(act) == (0, False)
        path.unlink()


def test_a_list_of_another_state_is_withheld_from_hdf5(states, tmp_path):
    path = tmp_path / "copy.h5"
    for before, after in zip(states[20:], states[30:], strict=False):
        for start in free_space_headers(before):
            image = before[: start + 82] + after[start + 82 :]
            if belongs_together(image, start):
                continue
            path.write_bytes(image)
            with open(path, "rb") as file:
                overlay = _overlay.Overlay(os.dup(file.fileno()), len(image))
                overlay.vets = True
                overlay.seek(start)
                assert overlay.read(82) == bytes(82)
                overlay.vets = False
                overlay.seek(start)
                assert overlay.read(82) == image[start : start + 82]
                os.close(overlay.fd)
            return
    raise AssertionError("no such state")
