"""Cold fits in a process of their own, in which no store can be opened."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from gamwarm.errors import FitFailed, GamwarmError, StoreUnavailable
from gamwarm.store import WarmStartStore
from gamwarm.testing.driver import Fitted

__all__ = ["cold_fits", "main"]

_PROGRAM = "from gamwarm.testing import isolated; isolated.main()"


def cold_fits(driver: Any, cases: Sequence[Any], directory: Path, timeout: float) -> list[Fitted]:
    """Fit every case without a store, in a new process.

    Raises
    ------
    FitFailed
        The engine failed there, or tried to open a store although it was given none.
    """
    sent, answered = directory / "driver.pickle", directory / "cold.pickle"
    sent.write_bytes(pickle.dumps((driver, list(cases))))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(sent), str(answered)],
        env=environment,
        timeout=timeout,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or not answered.exists():
        raise FitFailed(
            f"the process of the cold fits ended with {done.returncode}: {' / '.join(done.stderr.strip().splitlines())}"
        )
    found = pickle.loads(answered.read_bytes())
    if isinstance(found, str):
        raise FitFailed(f"a cold fit failed: {found}")
    fits: list[Fitted] = found
    return fits


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise StoreUnavailable("the engine opened a store although it was given none; a cold fit must not use one")


def main() -> None:
    """Run in the child: ``argv`` has the pickled driver, and where the answers go."""
    WarmStartStore.__init__ = _refuse  # type: ignore[method-assign]
    sent, answered = (Path(argument) for argument in sys.argv[1:3])
    found: list[Fitted] | str
    try:
        driver, cases = pickle.loads(sent.read_bytes())
        found = [driver.fit(case, None) for case in cases]
    except GamwarmError as error:
        found = f"{type(error).__name__}: {error}"
    answered.write_bytes(pickle.dumps(found))
