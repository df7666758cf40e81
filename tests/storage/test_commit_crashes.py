"""A process killed at any instant: the next run finds every acknowledged transaction, complete."""

from __future__ import annotations

import random

import pytest

from gamwarm.storage import header as _header
from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit

TEARS = (0.02, 0.3, 0.5, 0.97)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    return kit.record_story(kit.fresh(tmp_path_factory.mktemp("story") / "work"))


def crash_points(story, *, every_header_byte=False):
    """(number of calls, torn fraction or None): every call, and every write torn; the header at
    each of its bytes.
    """
    for count in range(len(story.recorder.log) + 1):
        yield count, None
        op = story.recorder.log[count - 1] if count else None
        if op is not None and op.kind == "write":
            if len(op.data) == _header.HEADER_BYTES and op.offset == 0:
                cuts = range(1, _header.HEADER_BYTES) if every_header_byte else (1, 11, 13, 14, 21, 37, 45, 61, 63)
                yield from ((count, cut / _header.HEADER_BYTES) for cut in cuts)
            else:
                yield from ((count, torn) for torn in TEARS if round(len(op.data) * torn) < len(op.data))


def test_the_workload_covers_every_kind_of_call(story):
    kinds = {op.kind for op in story.recorder.log}
    assert kinds == {"create", "write", "truncate", "sync", "unlink", "syncdir", "mark"}
    assert len(story.states) == 11


THOROUGH = [False, pytest.param(True, marks=pytest.mark.long)]


@pytest.mark.parametrize("thorough", THOROUGH)
def test_after_a_kill_at_any_call_the_next_run_finds_the_last_or_the_next_transaction(story, tmp_path, thorough):
    images = opened = 0
    with kit.disk(kit.Fast()):
        for count, torn in crash_points(story, every_header_byte=thorough):
            files = kit.kill_image(story.recorder, count, torn)
            path = kit.put_files(tmp_path / "image", files)
            acked = story.acked[count]
            opened += kit.check_plain(path, story, acked)
            if thorough or images % 2 == 0:
                kit.check_open(path, story, acked, mode="r")
                assert kit.read_files(path.parent) == files, "mode 'r' changed a file"
            kit.check_open(path, story, acked, mode="a")
            if images % 7 == 0:
                kit.check_usable(path)
            images += 1
    print(f"kill images: {images}, of which plain h5py opened {opened} and was refused {images - opened}")
    assert images > 300
    assert 0 < opened < images


@pytest.mark.parametrize("thorough", THOROUGH)
def test_after_a_kill_during_recovery_the_next_run_still_recovers(story, tmp_path, thorough):
    rng = random.Random(5)
    images = 0
    with kit.disk(kit.Fast()):
        for count, torn in list(crash_points(story))[:: 1 if thorough else 3]:
            files = kit.kill_image(story.recorder, count, torn)
            recovery = kit.recovery_of(files, tmp_path / "first")
            points = list(range(1, len(recovery.log)))
            for again in points if thorough else rng.sample(points, min(1, len(points))):
                op = recovery.log[again - 1]
                cut = rng.choice((None, 0.2, 0.5, 0.8)) if op.kind == "write" and len(op.data) > 1 else None
                path = kit.put_files(tmp_path / "second", kit.kill_image(recovery, again, cut))
                acked = story.acked[count]
                kit.check_plain(path, story, acked)
                kit.check_open(path, story, acked, mode="r")
                kit.check_open(path, story, acked, mode="a")
                images += 1
    print(f"images of a kill inside recovery: {images}")
    assert images > 100


def test_a_kill_during_creation_leaves_nothing_or_the_intact_file(tmp_path):
    work = kit.fresh(tmp_path / "work")
    recorder = kit.Recorder()
    recorder.begin(work)
    with kit.disk(recorder):
        Container.open(work / kit.NAME, create=kit.lay_out).close()
    with kit.disk(kit.Fast()):
        for count in range(len(recorder.log) + 1):
            op = recorder.log[count - 1] if count else None
            for torn in (None, *TEARS) if op is not None and op.kind == "write" else (None,):
                path = kit.put_files(tmp_path / "image", kit.kill_image(recorder, count, torn))
                with Container.open(path, create=kit.lay_out) as container:
                    assert container.read(kit.dump) == {}
                    assert container.generation == 1
                kit.check_usable(path)


def test_an_unchecked_header_would_be_noticed_by_this_kit(story, tmp_path, monkeypatch):
    """Control: without its CRC a torn header passes for a whole one."""
    monkeypatch.setattr(_header, "checksum", lambda body: 0)
    control = kit.record_story(kit.fresh(tmp_path / "control"), commits=5)
    points = [point for point in crash_points(control) if point[1] is not None]

    def check(case):
        count, torn = points[case]
        path = kit.put_files(tmp_path / "image", kit.kill_image(control.recorder, count, torn))
        kit.check_open(path, control, control.acked[count], mode="a")

    with kit.disk(kit.Fast()):
        assert kit.failures(check, range(len(points)))


def test_a_file_that_keeps_its_signature_while_it_changes_would_be_noticed_by_this_kit(tmp_path, monkeypatch):
    """Control: the signature is what keeps plain h5py out of a half-applied file."""

    class Showing(kit.Recorder):
        def pwrite(self, fd, data, offset):
            if bytes(data) != bytes(len(_header.HDF5_SIGNATURE)):
                super().pwrite(fd, data, offset)

    monkeypatch.setattr(kit, "Recorder", Showing)
    control = kit.record_story(kit.fresh(tmp_path / "control"))

    def check(case):
        path = kit.put_files(tmp_path / "image", kit.kill_image(control.recorder, case))
        kit.check_plain(path, control, control.acked[case])

    assert kit.failures(check, range(len(control.recorder.log)))
