"""What tests of one container share."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from gamwarm.storage.container import Container
from tests.support import crash_simulator as kit

ROOT = Path(__file__).resolve().parents[2]


def add(container: Container, name: str, value: float = 1.0, size: int = 20) -> None:
    with container.write() as h5:
        kit.put(h5, name, np.full(size, float(value)))


def names(container: Container) -> list[str]:
    return sorted(container.read(lambda h5: list(h5["records"])))


def beside(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.iterdir())


def run(script: str, *args: Any, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
