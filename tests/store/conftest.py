"""A place for one file, and a store there."""

from __future__ import annotations

import pytest

import gamwarm


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fits.h5"


@pytest.fixture
def store(path):
    with gamwarm.open(path) as opened:
        yield opened
