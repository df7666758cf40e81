"""The reference engine under the neutrality check that is shipped for everybody's engine."""

from __future__ import annotations

import pytest

from gamwarm.testing import assert_neutral
from tests.engine import cases
from tests.support.reference_driver import ReferenceDriver


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_no_start_moves_an_answer_of_the_reference_engine(family):
    report = assert_neutral(ReferenceDriver(family))

    assert report.formations("exact") == 1.0
    assert report.formations("warm") < report.formations("cold")
    assert report.modes == []
