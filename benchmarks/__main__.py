"""``python -m benchmarks store``: pick a benchmark."""

from __future__ import annotations

import argparse

from benchmarks import store


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="gamwarm's benchmarks.")
    commands = parser.add_subparsers(dest="command", required=True)
    store.add_arguments(commands.add_parser("store", help="the store beside sqlite3, diskcache and joblib.Memory"))
    arguments = parser.parse_args()
    store.main(arguments)


if __name__ == "__main__":
    main()
