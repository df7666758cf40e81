"""What each rank does in the tests of adapters: one fit for all ranks, and one fit each."""

from __future__ import annotations

from typing import Any

import numpy as np

import gamwarm
from gamwarm.adapters import least_squares, remember

T = np.linspace(0.0, 5.0, 40)


def decay(store: Any, seed: int, *, each: bool) -> Any:
    """Fit an exponential to noise of its own."""
    y = 2.0 * np.exp(-T / 1.3) + 0.01 * np.random.default_rng(seed).normal(size=40)
    return least_squares(
        lambda p, t, y: p[0] * np.exp(-t / p[1]) - y, [1.0, 1.0], args=(T, y), store=store, name="decay", each=each
    )


def fits(comm: Any, path: str) -> dict[str, Any]:
    """Make one fit on all ranks; then one per rank, twice, where the last rank has none."""
    with gamwarm.open(path, comm=comm) as store:
        together = decay(store, 99, each=False)
        rounds = []
        for _ in range(2):
            if comm.rank == comm.size - 1:
                found = remember(None, store=store, each=True)
            else:
                found = decay(store, comm.rank, each=True)
            rounds.append(None if found is None else [str(found.start.source), found.nfev])
        again = decay(store, 99, each=False)
        return {
            "written": together.kept.record.written,
            "x": together.x,
            "again": [str(again.start.source), again.nfev, bool(np.array_equal(again.x, together.x))],
            "rounds": rounds,
        }
