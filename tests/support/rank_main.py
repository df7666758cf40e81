"""What each rank of a test runs: ``python -m mpi4py rank_main.py FOLDER``; `tests.support.ranks`
reads the answers.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(folder: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from mpi4py import MPI

    from tests.support.ranks import plain

    comm = MPI.COMM_WORLD
    rank = comm.rank  # asked now: the target may end MPI
    call = json.loads((folder / "call.json").read_text())
    # A deadlock is killed by the test; just before, say where this rank stands.
    faulthandler.dump_traceback_later(call["dump_after"])
    try:
        module, name = call["target"].split(":")
        answer = getattr(importlib.import_module(module), name)(comm, *call["args"])
        text = json.dumps(answer, default=plain)
    except BaseException:
        error = f"--- rank {rank} raised ---\n{traceback.format_exc()}"
        (folder / f"rank-{rank}.error").write_text(error)
        raise
    (folder / f"rank-{rank}.json").write_text(text)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
