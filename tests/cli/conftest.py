"""The command in this process, and a file for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import Runner, Stored, campaign


@pytest.fixture
def gamwarm_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return Runner(capsys, monkeypatch)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return campaign(tmp_path / "fits.h5")
