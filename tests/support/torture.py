"""What `scripts/torture` runs: crash images, power loss, kills, damage, interrupts and faults, in
rounds with a seed.

A round is a function of its seed alone, so a failure can be repeated:
``scripts/torture --only KIND --seed SEED --rounds 1``.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support import faults as below
from tests.support import interrupt_kit, interrupt_storm, shared_mounts
from tests.support import torture_damage as damage
from tests.support import torture_kills as kills
from tests.support import torture_states as states

__all__ = ["KINDS", "main"]

ROUND_LIMIT = 900
"""Seconds after which a round counts as hung: all stacks are printed and the run ends."""


def crash(directory: Path, seed: int) -> Counter[str]:
    """A recorded life; every cut of every call, and of the recoveries of some."""
    life = states.record_life(directory / "life", seed=seed, transactions=random.Random(seed).randrange(2, 7))
    return states.crash_round(life, directory, seed, every=4, recoveries=25)


def power(directory: Path, seed: int) -> Counter[str]:
    """A recorded life; power lost anywhere in it, and again inside the recovery."""
    life = states.record_life(directory / "life", seed=seed, transactions=random.Random(seed).randrange(2, 7))
    return states.power_round(life, directory, seed, 80)


def kill(directory: Path, seed: int) -> Counter[str]:
    """Child processes on one store, killed at any call."""
    return kills.kill_round(directory / "kills", seed, 40)


def damages(directory: Path, seed: int) -> Counter[str]:
    """Flipped bits (one, or a few), zeroed stretches and cuts of a store, in both modes."""
    rng = random.Random(seed)
    folder = directory / "damage"
    folder.mkdir()
    size = damage.fill(folder / "base.h5", big=rng.random() < 0.2).stat().st_size
    jobs: list[damage.Job] = []
    for mode in "ra":
        jobs += damage.flips(rng.choices(range(size), k=40), rng, mode)
        jobs += rng.sample(list(damage.cuts(size, mode)), 10)
    for each in range(20):
        length = rng.choice((8, 64, 512))
        start = rng.randrange(size)
        jobs.append([f"zeros {start} + {length}", "ra"[each % 2], [["fill", start, length]]])
    outcomes = damage.judge(folder, jobs)
    wrong = [text for text in outcomes.wrong if not (text.startswith("zeros") and "entries are missed" in text)]
    if wrong:
        raise damage.Wrong("; ".join(wrong[:10]))
    return Counter({f"damage: {name}": count for name, count in outcomes.counts.items()})


def interrupted(directory: Path, seed: int) -> Counter[str]:
    """A signal at a few lines of every public call, then a storm of them on a writer beside another
    process.
    """
    rng = random.Random(seed)
    base = interrupt_kit.base_file(directory)
    counts: Counter[str] = Counter()
    for name in interrupt_kit.CALLS:
        n_lines = interrupt_kit.count_lines(name, base)
        for n in rng.choices(range(1, n_lines + 1), k=10):
            number = rng.choice(list(interrupt_kit.SIGNALS))
            wrong = interrupt_kit.strike_at(name, base, (n,), number)
            assert not wrong, f"{name}, {number.name} at line {n}: {wrong}"
            counts["signals at a line of a call"] += 1
    storm = interrupt_storm.storm(directory / "storm.h5", seed, strikes=500, seconds=120.0)
    return counts + Counter({name: n for name, n in storm.items() if not name.startswith("longest")})


def faults(_: Path, seed: int) -> Counter[str]:
    """Calls killed, failed and cut short below libc; nothing without a C compiler."""
    if below.compiler() is None:
        print("torture: faults: skipped, there is no C compiler", flush=True)
        return Counter()
    with below.Faults() as made:
        return made.try_out(below.some_runs(made, seed, 500))


KINDS: dict[str, Callable[[Path, int], Counter[str]]] = {
    "crash": crash,
    "power": power,
    "kill": kill,
    "damage": damages,
    "interrupt": interrupted,
    "faults": faults,
}


STORM_SECONDS = 60


def on_mounts(places: list[Path]) -> Callable[[Path, int], Counter[str]]:
    """Rounds of clients behind several mounts of one folder: strict turns, then writers and readers
    with kills.
    """

    def round_of(directory: Path, seed: int) -> Counter[str]:
        shared_mounts.probe_mounts(places)
        folders = [place / f"gamwarm-torture-{seed}" for place in places]
        counts: Counter[str] = Counter()
        acts: dict[str, Callable[[list[Path]], Counter[str]]] = {
            "turns": lambda mounts: shared_mounts.alternate(mounts, 20),
            "storm": lambda mounts: shared_mounts.storm(mounts, seconds=STORM_SECONDS, seed=seed),
        }
        for name, act in acts.items():
            folders[0].mkdir()
            shared_mounts.wait_for(folders)
            found = act(folders)
            wrong = found.keys() - {"acknowledged", "kills", "look-ups"}
            if wrong:
                raise AssertionError(f"{name}: {dict(found)}")
            shutil.rmtree(folders[0])
            counts.update({f"{name}: {what}": count for what, count in found.items()})
        return counts

    return round_of


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="scripts/torture",
        description="Loops over crash images, power loss, killed processes, damaged files and interrupts, with fresh "
        "seeds, until the time is over or something is wrong. The exit code is 0 only if every round passed.",
    )
    made.add_argument("--minutes", type=float, default=5.0, help="how long to go on (default 5); a round is finished")
    made.add_argument("--seed", type=int, help="seed of the first round; the others follow (default: a random one)")
    made.add_argument("--rounds", type=int, help="stop after so many rounds of each kind")
    made.add_argument("--only", choices=sorted(KINDS), help="this kind of round only")
    made.add_argument(
        "--mounts",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="mounts of one shared folder, two or more: only rounds of clients that take turns, and of writers and "
        "readers with kills, in a new folder there",
    )
    made.add_argument("--faults", action="store_const", dest="only", const="faults", help="the same as --only faults")
    return made


def main(arguments: list[str] | None = None, *, watch: bool = False) -> int:
    """Run rounds; return the exit code. With ``watch`` a round that hangs ends the process."""
    given = parser().parse_args(arguments)
    logging.getLogger("gamwarm").addHandler(logging.NullHandler())
    logging.getLogger("gamwarm").propagate = False
    first = secrets.randbelow(10**6) if given.seed is None else given.seed
    kinds = {given.only: KINDS[given.only]} if given.only else KINDS
    if given.mounts:
        kinds = {"mounts": on_mounts(given.mounts)}
    begun = time.monotonic()
    totals: Counter[str] = Counter()
    done = 0
    seed = first
    print(f"torture: seeds from {first} on, {', '.join(kinds)}", flush=True)
    while (given.rounds is None or done < given.rounds) and (not done or time.monotonic() - begun < 60 * given.minutes):
        for name, run in kinds.items():
            if done and time.monotonic() - begun >= 60 * given.minutes:
                break
            directory = Path(tempfile.mkdtemp(prefix=f"gamwarm-torture-{name}-"))
            if watch:
                faulthandler.dump_traceback_later(ROUND_LIMIT, exit=True)
            try:
                counts = run(directory, seed)
            except Exception:
                traceback.print_exc()
                _report(totals, begun)
                print(f"torture: FAILED: {name}, seed {seed}; what it worked on is in {directory}")
                which = f"--mounts {' '.join(map(str, given.mounts))}" if given.mounts else f"--only {name}"
                print(f"torture: again: scripts/torture {which} --seed {seed} --rounds 1", flush=True)
                return 1
            finally:
                if watch:
                    faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(directory)
            totals.update(counts)
            totals[f"{name} rounds"] += 1
        done += 1
        seed += 1
        print(
            f"torture: {time.monotonic() - begun:.0f} s, {sum(totals[f'{k} rounds'] for k in kinds)} rounds", flush=True
        )
    _report(totals, begun)
    print("torture: passed", flush=True)
    return 0


def _report(totals: Counter[str], begun: float) -> None:
    print(f"torture: after {time.monotonic() - begun:.0f} s on {os.cpu_count()} cores")
    for name, count in sorted(totals.items()):
        print(f"torture: {count:10,}  {name}")


if __name__ == "__main__":
    sys.exit(main(watch=True))
