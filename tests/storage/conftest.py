"""One container, for the tests of what a container promises."""

from __future__ import annotations

import pytest

from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit


@pytest.fixture
def path(tmp_path):
    return tmp_path / kit.NAME


@pytest.fixture
def container(path):
    with Container.open(path, create=kit.lay_out) as opened:
        yield opened
