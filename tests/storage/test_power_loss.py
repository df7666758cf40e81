"""Power lost at any instant: of what was not synced any part may be missing, and nothing
acknowledged is lost.
"""

from __future__ import annotations

import random

import pytest

from gamwarm.storage import header as _header
from gamwarm.storage.container import Container
from gamwarm.storage.overlay import Overlay
from tests.support import crash_simulator as kit

SIZES = [250, pytest.param(8000, marks=pytest.mark.long)]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    return kit.record_story(kit.fresh(tmp_path_factory.mktemp("story") / "work"), seed=3)


def lose_power(story, directory, case, *, shear_header=False):
    rng = random.Random(case)
    count = rng.randrange(len(story.recorder.log) + 1)
    files = kit.power_image(story.recorder, count, rng, shear_header=shear_header)
    path = kit.put_files(directory, files)
    if case % 3 == 0:
        kit.check_open(path, story, story.acked[count], mode="r", boot_as=kit.OTHER_BOOT)
    kit.check_open(path, story, story.acked[count], mode="a", boot_as=kit.OTHER_BOOT)
    if case % 7 == 0:
        kit.check_usable(path, boot_as=kit.OTHER_BOOT)


@pytest.mark.parametrize("images", SIZES)
@pytest.mark.parametrize("shear_header", [False, True])
def test_after_a_power_loss_nothing_acknowledged_is_lost(story, tmp_path, shear_header, images):
    with kit.disk(kit.Fast()):
        for case in range(images):
            lose_power(story, tmp_path / "image", case, shear_header=shear_header)


@pytest.mark.parametrize("images", [25, pytest.param(2000, marks=pytest.mark.long)])
def test_pages_that_a_commit_leaves_out_as_unchanged_are_there_after_a_power_loss(tmp_path, images, monkeypatch):
    left_out = []
    unchanged = Overlay._unchanged

    def counted(overlay, data, offset):
        found = unchanged(overlay, data, offset)
        left_out.extend(found)
        return found

    monkeypatch.setattr(Overlay, "_unchanged", counted)
    story = kit.record_story(kit.fresh(tmp_path / "work"), seed=3, old=900)
    assert len(left_out) > 20
    with kit.disk(kit.Fast()):
        for case in range(images):
            lose_power(story, tmp_path / "image", case, shear_header=case % 2 == 1)


@pytest.mark.parametrize("images", SIZES)
def test_a_second_power_loss_during_recovery_loses_nothing_either(story, tmp_path, images):
    with kit.disk(kit.Fast()):
        for case in range(images // 4):
            rng = random.Random(10_000 + case)
            count = rng.randrange(len(story.recorder.log) + 1)
            recovery = kit.recovery_of(
                kit.power_image(story.recorder, count, rng), tmp_path / "first", boot_as=kit.OTHER_BOOT
            )
            again = rng.randrange(len(recovery.log) + 1)
            path = kit.put_files(tmp_path / "second", kit.power_image(recovery, again, rng, shear_header=case % 2 == 0))
            kit.check_open(path, story, story.acked[count], mode="a", boot_as=b"3rd boot")


def test_a_power_loss_during_creation_leaves_nothing_or_the_intact_file(tmp_path):
    work = kit.fresh(tmp_path / "work")
    recorder = kit.Recorder()
    recorder.begin(work)
    with kit.disk(recorder):
        Container.open(work / kit.NAME, create=kit.lay_out).close()
    done = [op.kind for op in recorder.log].index("syncdir")
    with kit.disk(kit.Fast()):
        for case in range(100):
            rng = random.Random(case)
            count = rng.randrange(len(recorder.log) + 1)
            path = kit.put_files(tmp_path / "image", kit.power_image(recorder, count, rng))
            assert path.exists() or count <= done
            with kit.boot(kit.OTHER_BOOT), Container.open(path, create=kit.lay_out) as container:
                assert container.read(kit.dump) == {}


@pytest.mark.parametrize("forgotten", ["-journal", kit.NAME])
def test_a_commit_or_a_checkpoint_without_its_sync_would_be_noticed_by_this_kit(tmp_path, forgotten):
    """Controls: the commit's one fdatasync, and the checkpoint's."""
    control = kit.record_story(kit.fresh(tmp_path / "control"), seed=3, forget_syncs_of=(forgotten,))
    with kit.disk(kit.Fast()):
        wrong = kit.failures(lambda case: lose_power(control, tmp_path / "image", case), range(200))
    assert len(wrong) > 10


def test_an_unchecked_header_would_be_noticed_by_this_kit(tmp_path, monkeypatch):
    """Control: sheared headers pass for whole ones without the CRC."""
    monkeypatch.setattr(_header, "checksum", lambda body: 0)
    control = kit.record_story(kit.fresh(tmp_path / "control"), seed=3)
    with kit.disk(kit.Fast()):
        wrong = kit.failures(lambda case: lose_power(control, tmp_path / "image", case, shear_header=True), range(200))
    assert wrong
