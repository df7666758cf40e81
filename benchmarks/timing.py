"""Times that other work on the machine disturbs little."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

__all__ = ["quiet_seconds"]


def quiet_seconds(acts: list[Callable[[], object]]) -> float:
    """Return what an act takes when nothing else disturbs it: a tenth of them are faster."""
    took = []
    for act in acts:
        started = time.perf_counter()
        act()
        took.append(time.perf_counter() - started)
    return statistics.quantiles(took, n=10)[0]
