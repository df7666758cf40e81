"""``python -m benchmarks NAME``: pick a benchmark."""

from __future__ import annotations

import argparse
from importlib import import_module

COMMANDS = {
    "store": "the store beside sqlite3, diskcache and joblib.Memory",
    "loso": "leave one group out of real data, cold and warm, corrupted starts, exact resumes",
    "layer": "what naming, finding and keeping a fold costs beside its warm fit, part by part",
    "growth": "what look-ups, keeps, a campaign and whole-file work cost in files of different sizes, beside sqlite3",
    "partial": "starts from parents with other terms, change by change, beside cold fits",
    "datasets": "twelve small data sets with default options: warm folds beside cold ones, and why any differ",
    "mgcv": "the reference engine beside mgcv's gam() and bam(discrete=TRUE), and gam() with warm starts",
    "fingerprint": "naming a design beside joblib.hash and a copy of memory, serial and over ranks",
    "mpi": "one collective save beside single ones, collective look-ups beside local ones",
    "adapters": "SciPy, scikit-learn and statsmodels alone and with a store, the layer's own cost included",
    "pools": "short fits in every kind of pool, by a store per task and by a store per worker",
    "waiting": "how long many processes that write one file wait for each other",
    "scaling": "what many ranks and many records would cost, computed from measured constants",
}
"""Each is a module of this package with ``add_arguments(parser)`` and ``main(arguments)``."""


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="gamwarm's benchmarks.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in COMMANDS.items():
        import_module(f"benchmarks.{name}").add_arguments(commands.add_parser(name, help=summary, description=summary))
    arguments = parser.parse_args()
    import_module(f"benchmarks.{arguments.command}").main(arguments)


if __name__ == "__main__":
    main()
