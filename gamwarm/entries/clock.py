"""The clock that stamps entries."""

from __future__ import annotations

import time

__all__ = ["now"]


def now() -> int:
    """Return UTC microseconds since 1970."""
    return time.time_ns() // 1000
