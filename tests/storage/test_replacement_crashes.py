"""A kill or a power loss at any instant of a compaction leaves the old file or the new one,
whole.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit

pytestmark = pytest.mark.timeout(300)
TEARS = (0.1, 0.6)
DEBRIS = kit.NAME + "-new"


def copy(old, new):
    old.copy("records", new)


def record_compactions(directory, forget_syncs_of=()):
    """Transactions, each followed by a compaction, in two sessions; the second meets a journal that
    is in use.
    """
    path = kit.make_base(directory)
    recorder = kit.Recorder(forget_syncs_of)
    rng = np.random.default_rng(4)
    story = kit.Story(recorder, [], 0, path=path)
    with kit.disk(recorder):
        recorder.begin(directory)
        for session in range(2):
            container = Container.open(path)
            if not story.states:
                story.states.append(container.read(kit.dump))
                story.first_generation = container.generation
            for step in range(2):
                with container.write() as h5:
                    kit.put(h5, f"new{session}{step}", rng.normal(size=200))
                    kit.put(h5, f"old{int(rng.integers(kit.OLD)):02}", rng.normal(size=70), big=3000 * step)
                    state = kit.dump(h5)
                recorder.mark("ack")
                story.states.append(state)
                container.rewrite(copy)
                recorder.mark("ack")
                story.states.append(state)
            container.close()
    story.finish()
    return story


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    return record_compactions(kit.fresh(tmp_path_factory.mktemp("story") / "work"))


def crash_points(story, every):
    """Every call but most writes into the new file, which nobody opens before it is renamed; torn
    ones too.
    """
    scratch = {op.ino for op in story.recorder.log if op.kind == "create" and op.name == DEBRIS}
    inside = 0
    for count in range(len(story.recorder.log) + 1):
        op = story.recorder.log[count - 1] if count else None
        if op is not None and op.kind == "write" and op.ino in scratch:
            inside += 1
            if inside % every:
                continue
        yield count, None
        if op is not None and op.kind == "write":
            yield from ((count, torn) for torn in TEARS if round(len(op.data) * torn) < len(op.data))


def test_the_story_compacts_over_a_journal_in_use(story):
    kinds = [op.kind for op in story.recorder.log]
    assert kinds.count("rename") == 4
    assert len(story.states) == 9


@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.long)])
def test_after_a_kill_at_any_call_the_next_run_finds_the_old_file_or_the_new_one(story, tmp_path, every):
    images = 0
    with kit.disk(kit.Fast()):
        for count, torn in crash_points(story, every):
            files = kit.kill_image(story.recorder, count, torn)
            path = kit.put_files(tmp_path / "image", files)
            acked = story.acked[count]
            kit.check_plain(path, story, acked)
            kit.check_open(path, story, acked, mode="r")
            assert kit.read_files(path.parent) == files, "mode 'r' changed a file"
            kit.check_open(path, story, acked, mode="a")
            if images % 5 == 0:
                with Container.open(path) as container:  # debris is overwritten
                    container.rewrite(copy)
                kit.check_usable(path)
            images += 1
    print(f"kill images: {images}")
    assert images > 100


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.long)])
def test_after_a_power_loss_at_any_call_the_next_run_finds_the_old_file_or_the_new_one(story, tmp_path, rounds):
    rng = random.Random(8)
    images = 0
    with kit.disk(kit.Fast()):
        for count, torn in crash_points(story, 25 if rounds == 2 else 5):
            for _ in range(rounds if torn is None else 0):
                files = kit.power_image(story.recorder, count, rng)
                path = kit.put_files(tmp_path / "image", files)
                kit.check_open(path, story, story.acked[count], mode="a", boot_as=kit.OTHER_BOOT)
                images += 1
    print(f"power-loss images: {images}")
    assert images > 150


def test_a_compaction_that_does_not_sync_the_new_file_would_be_noticed_by_this_kit(tmp_path):
    """Control: renamed before its bytes are on the media, the new file can be empty after a power
    loss.
    """
    control = record_compactions(kit.fresh(tmp_path / "control"), forget_syncs_of=("-new",))
    rng = random.Random(8)
    renames = [count for count, op in enumerate(control.recorder.log, 1) if op.kind == "syncdir"]

    def check(case):
        count = renames[case]
        path = kit.put_files(tmp_path / "image", kit.power_image(control.recorder, count, rng))
        kit.check_open(path, control, control.acked[count], mode="a", boot_as=kit.OTHER_BOOT)

    with kit.disk(kit.Fast()):
        assert kit.failures(check, range(len(renames)))
