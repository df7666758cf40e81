"""Starting ranks of a benchmark and reading what rank 0 wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["run_ranks"]

ROOT = Path(__file__).resolve().parents[1]
LEFT_BY_AN_OUTER_JOB = ("PMI_", "PMIX_", "HYDI_", "OMPI_COMM_WORLD_")
SECONDS = 900.0


def run_ranks(n: int, command: list[str], answer: Path) -> Any:
    """Run ``mpiexec -n n command`` and return the JSON that rank 0 left in ``answer``."""
    beside = str(Path(sys.executable).with_name("mpiexec"))
    launcher = shutil.which(os.environ.get("GAMWARM_MPIEXEC") or beside) or shutil.which("mpiexec")
    if launcher is None:
        raise SystemExit("no mpiexec found: install an MPI (scripts/bench does so by itself)")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(LEFT_BY_AN_OUTER_JOB)}
    environment["PYTHONPATH"] = str(ROOT)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = "1"
    subprocess.run([launcher, "-n", str(n), *command], check=True, timeout=SECONDS, env=environment, cwd=ROOT)
    return json.loads(answer.read_text())
