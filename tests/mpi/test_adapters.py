"""Adapters on ranks: one fit for all, or one each, and a rank without work."""

from __future__ import annotations

import gamwarm
from tests.mpi import adapter_bodies


def test_an_adapter_fits_on_all_ranks_or_on_each(mpiexec, tmp_path):
    path = tmp_path / "fits.h5"

    answers = mpiexec(3, adapter_bodies.fits, path, timeout=90)

    assert all(answer["written"] and answer["x"] == answers[0]["x"] for answer in answers)
    assert [answer["again"] for answer in answers] == [["exact", 1, True]] * 3
    assert [answer["rounds"][0] and answer["rounds"][0][0] for answer in answers] == ["transfer", "transfer", None]
    assert [answer["rounds"][1] for answer in answers] == [["exact", 1], ["exact", 1], None]
    with gamwarm.open(path, "r") as store:
        assert len(store.keys()) == 3
