"""The end of a batch job, seen early enough: signals only set a flag, and the clock is asked.

```
with store.walltime(margin=120):
    for fold in folds:
        if store.should_stop():
            break
        ...
```
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from gamwarm.checks import as_finite_float
from gamwarm.errors import InvalidInput
from gamwarm.parallel import agree, as_communicator

__all__ = ["Walltime"]

log = logging.getLogger("gamwarm")

SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Walltime:
    """Whether it is time to stop. In a ``with`` it also listens to SIGTERM, SIGUSR1 and SIGUSR2.

    A signal only sets a flag; a handler that was installed before is called as well, and is back in
    its place at the end. The default action of a signal (to end the process) is suspended inside
    the ``with``.

    Parameters
    ----------
    margin : float
        Seconds before the end at which `should_stop` says so: the time to store the fit and close
        the file.
    deadline : float or aware datetime, optional
        When to be done, as seconds since 1970 or a date. The earliest of it, ``SLURM_JOB_END_TIME``
        (seconds since 1970) and ``PBS_WALLTIME`` (seconds from the start of this process, or
        ``hh:mm:ss``) counts.
    comm : mpi4py communicator, optional
        Whose ranks stop together.
    """

    def __init__(self, margin: float = 60.0, deadline: float | datetime | None = None, comm: Any = None) -> None:
        self._margin = as_finite_float(margin, "walltime margin", minimum=0.0)
        self._comm = as_communicator(comm)
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        ends = [_of_slurm(), _of_pbs(), None if deadline is None else _of_deadline(deadline)]
        self._end = min((end for end in ends if end is not None), default=math.inf)

    @property
    def signal(self) -> signal.Signals | None:
        """The last signal that arrived, or None. Local."""
        return self._signal

    def time_left(self) -> float:
        """Return the seconds to the end of the job, never below 0; infinite if unknown. Local."""
        return max(0.0, self._end - time.time())

    def is_due(self) -> bool:
        """Whether this rank should stop: a signal came, or less than the margin is left. Local."""
        return self._signal is not None or self.time_left() <= self._margin

    def should_stop(self) -> bool:
        """Whether any rank should stop. Collective over ``comm``: one answer for all ranks."""
        return any(agree(self._comm, "should_stop", self.is_due()))

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise InvalidInput(
                "walltime: only the main thread can receive signals; enter it there, or use should_stop() "
                "outside a with block (then only the clock counts)"
            )
        if self._before:
            raise InvalidInput("walltime: already entered; create another one with store.walltime()")
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            # A handler that was installed over ours must not be removed; one that C code installed
            # cannot be put back.
            if signal.getsignal(number) == self._arrived and before is not None:
                signal.signal(number, before)
        self._before = {}

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)
        before = self._before.get(self._signal)
        if callable(before):
            before(number, frame)


def _of_deadline(deadline: float | datetime) -> float:
    if isinstance(deadline, datetime):
        if deadline.tzinfo is None:
            raise InvalidInput(f"walltime deadline {deadline} has no time zone; use deadline.astimezone() or seconds")
        return deadline.timestamp()
    return as_finite_float(deadline, "walltime deadline")


def _of_slurm() -> float | None:
    return _seconds("SLURM_JOB_END_TIME")


def _of_pbs() -> float | None:
    length = _seconds("PBS_WALLTIME")
    return None if length is None else _process_start() + length


def _seconds(variable: str) -> float | None:
    """Return the batch system's limit in seconds; None if it says nothing readable."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    try:
        seconds = 0.0
        for part in text.split(":"):
            seconds = 60.0 * seconds + float(part)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        log.warning("walltime: %s is %r, which is not a number of seconds; it is ignored", variable, text)
        return None
    return seconds


def _process_start() -> float:
    """Return when this process began (seconds since 1970), close to the start of the job."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return _IMPORTED
    return time.time() - age


_IMPORTED: Final = time.time()
