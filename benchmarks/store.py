"""The store beside sqlite3, diskcache and joblib.Memory: every measure in one run, stores taking
turns within it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import gamwarm
from benchmarks.rivals import NAMES, bytes_on_disk, key_of, open_rival, record_of, remove
from gamwarm.encoding.codec import stamped
from gamwarm.encoding.record_kind import encode_record
from gamwarm.records import Producer

DURABLE = ("gamwarm", "sqlite3")
PROCESSES = 4


@dataclass(frozen=True)
class Measure:
    """One line of the table: medians per store, and what is asked of gamwarm's beside sqlite3's."""

    name: str
    unit: str
    values: dict[str, float]
    target: str = ""
    met: bool | None = None
    note: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the benchmark can be told."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--records", type=int, default=4000, help="records in the files compared (%(default)s)")
    parser.add_argument("--large", type=int, action="append", metavar="N", help="also a gamwarm file of N records")
    parser.add_argument("--overwrites", type=int, metavar="N", help="overwrites of 1000 records in the churn test")
    parser.add_argument("--quick", action="store_true", help="1000 records, 10,000 overwrites, no large file")
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary folder)")


def main(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write the figures where asked."""
    records = 1000 if arguments.quick else max(1, arguments.records // 1000) * 1000
    large = arguments.large or ([] if arguments.quick else [100_000])
    overwrites = arguments.overwrites or (10_000 if arguments.quick else 100_000)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    folder = Path(tempfile.mkdtemp(prefix="gamwarm-bench-", dir=arguments.folder))
    measures: list[Measure] = []
    started = time.perf_counter()
    try:
        bench = _Bench(folder, records, measures, console)
        bench.compare()
        for count in large:
            bench.large(count)
        bench.churn(overwrites)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    where = machine(folder.parent)
    where["seconds"] = round(time.perf_counter() - started, 1)
    console.print(_table(measures, where))
    if arguments.json is not None:
        report = {"machine": where, "records": records, "measures": [asdict(m) for m in measures]}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def machine(folder: Path) -> dict[str, Any]:
    """Return what kind of machine this is, and when."""
    model = next((ln.split(":")[1].strip() for ln in _lines("/proc/cpuinfo") if ln.startswith("model name")), "")
    mounts = [ln.split() for ln in _lines("/proc/mounts")]
    inside = [m for m in mounts if folder.resolve().is_relative_to(m[1])]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "file system": max(inside, key=lambda m: len(m[1]))[2] if inside else "",
        "load before": round(os.getloadavg()[2], 1),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in ("h5py", "diskcache", "joblib")},
        "gamwarm": gamwarm.__version__,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _median_us(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1e6


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


class _Bench:
    def __init__(self, folder: Path, records: int, measures: list[Measure], console: Console) -> None:
        self.folder = folder
        self.records = records
        self.measures = measures
        self.console = console

    def _add(self, name: str, unit: str, values: dict[str, float], limit: float | None = None, note: str = "") -> None:
        """File a measure; ``limit`` is what gamwarm's may be at most as a multiple of sqlite3's."""
        met, target = None, ""
        if limit is not None:
            met, target = values["gamwarm"] <= limit * values["sqlite3"], f"≤ {limit:g}×"
        self._file(Measure(name, unit, values, target, met, note))

    def _file(self, measure: Measure) -> None:
        self.measures.append(measure)
        said = "  ".join(f"{name} {value:.4g}" for name, value in measure.values.items())
        self.console.print(f"[dim]{measure.name} ({measure.unit}): {said}[/dim]", highlight=False)

    # -- side by side ------------------------------------------------------------------------------

    def compare(self) -> None:
        self._batches()
        self._sizes()
        self._gets()
        self._opens()
        self._puts()
        self._processes()
        for name in NAMES:
            remove(name, self.folder)

    def _batches(self) -> None:
        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        rivals = {name: open_rival(name, self.folder) for name in NAMES}
        for first in range(0, self.records, 1000):
            batch = [record_of(number) for number in range(first, first + 1000)]
            for name, rival in rivals.items():
                seconds[name].append(_timed(lambda rival=rival, batch=batch: rival.put_many(batch)) / 1000)
        for rival in rivals.values():
            rival.close()
        self._add("put, batch of 1000", "µs/record", {n: _median_us(s) for n, s in seconds.items()}, 6)

    def _sizes(self) -> None:
        payload = encode_record(stamped(record_of(0), 1_700_000_000_000_000, Producer())).nbytes
        sizes = {name: bytes_on_disk(name, self.folder) / self.records / payload for name in NAMES}
        note = f"payload {payload} B: the text and the vectors"
        self._file(Measure("bytes on disk", "× payload", sizes, "≤ 1.2", sizes["gamwarm"] <= 1.2, note))

    def _gets(self) -> None:
        rivals = {name: open_rival(name, self.folder) for name in NAMES}
        order = random.Random(1).sample(range(self.records), self.records)
        cold: dict[str, list[float]] = {name: [] for name in NAMES}
        warm: dict[str, list[float]] = {name: [] for name in NAMES}
        for start in range(0, len(order), 50):
            for name, rival in rivals.items():
                get = rival.get
                for number in order[start : start + 50]:
                    cold[name].append(_timed(lambda get=get, number=number: get(number)))
        for _ in range(20):
            for name, rival in rivals.items():
                get = rival.get
                for number in order[:50]:
                    warm[name].append(_timed(lambda get=get, number=number: get(number)))
        for rival in rivals.values():
            rival.close()
        self._add("get from the file", "µs", {n: _median_us(s) for n, s in cold.items()}, 3)
        note = "gamwarm: a record decoded before, after a look at the file"
        self._add("get again", "µs", {n: _median_us(s) for n, s in warm.items()}, 0.2, note)

    def _opens(self) -> None:
        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        for number in range(60):
            for name in NAMES:
                opened: list[Any] = []

                def first(name: str = name, number: int = number, opened: list[Any] = opened) -> None:
                    opened.append(open_rival(name, self.folder))
                    opened[0].get(number)

                seconds[name].append(_timed(first))
                opened[0].close()
        self._add("open + first get", "µs", {n: _median_us(s) for n, s in seconds.items()}, 1.5)

    def _puts(self) -> None:
        rivals = {name: open_rival(name, self.folder) for name in NAMES}
        seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        number = 10_000_000
        for _ in range(40):
            for name, rival in rivals.items():
                for _ in range(5):
                    number += 1
                    record = record_of(number)
                    seconds[name].append(_timed(lambda rival=rival, record=record: rival.put(record)))
        for rival in rivals.values():
            rival.close()
        sync = statistics.median(self._syncs()) * 1e6
        values = {name: _median_us(s) for name, s in seconds.items()}
        share = sync / values["sqlite3"]
        ours = sync / values["gamwarm"]
        note = f"one fdatasync {sync:.0f} µs: {share:.0%} of sqlite3's put, {ours:.0%} of gamwarm's"
        self._add("put, single, durable", "µs", values, 1.3 if share > 0.5 else 3, note)

    def _syncs(self) -> list[float]:
        fd = os.open(self.folder / "sync", os.O_RDWR | os.O_CREAT)
        seconds = []
        for index in range(100):
            os.pwrite(fd, bytes(8192), index * 8192)
            seconds.append(_timed(lambda: os.fdatasync(fd)))
        os.close(fd)
        return seconds

    def _processes(self) -> None:
        each = 50 if self.records <= 1000 else 200
        rates: dict[str, list[float]] = {name: [] for name in DURABLE}
        longest: dict[str, float] = dict.fromkeys(DURABLE, 0.0)
        for turn in range(3):
            for name in DURABLE:
                rate, wait = self._rate(name, each, 20_000_000 + turn * PROCESSES * each)
                rates[name].append(rate)
                longest[name] = max(longest[name], wait)
        values = {name: statistics.median(r) for name, r in rates.items()}
        met = values["gamwarm"] >= 0.6 * values["sqlite3"]
        note = "longest put: " + ", ".join(f"{name} {wait * 1000:.0f} ms" for name, wait in longest.items())
        self._file(Measure(f"puts by {PROCESSES} processes", "per second", values, "≥ 0.6×", met, note))

    def _rate(self, name: str, each: int, first: int) -> tuple[float, float]:
        """Return puts per second of all processes together, and the seconds that the longest put
        took.
        """
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(PROCESSES + 1)
        stop = context.Barrier(PROCESSES + 1)
        waits = context.SimpleQueue()
        workers = [
            context.Process(
                target=_puts_of_one, args=(name, self.folder, first + index * each, each, start, stop, waits)
            )
            for index in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        start.wait()
        seconds = _timed(stop.wait)
        longest = max(waits.get() for _ in workers)
        for worker in workers:
            worker.join()
        return PROCESSES * each / seconds, longest

    # -- gamwarm alone -----------------------------------------------------------------------------

    def large(self, count: int) -> None:
        """Open and get in a file of ``count`` records, beside a file of 1000."""
        small_place, large_place = self.folder / "small", self.folder / "large"
        for place, size in ((small_place, 1000), (large_place, count)):
            place.mkdir()
            store = open_rival("gamwarm", place)
            base = record_of(0)
            for first in range(0, size, 1000):
                store.put_many([_renumbered(base, number) for number in range(first, min(first + 1000, size))])
            store.close()
        opens: dict[str, list[float]] = {"small": [], "large": []}
        gets: dict[str, list[float]] = {"small": [], "large": []}
        numbers = {"small": random.Random(2).sample(range(1000), 1000)}
        numbers["large"] = random.Random(2).sample(range(count), 1000)
        for _ in range(40):
            for name, times in opens.items():
                opened: list[Any] = []

                def act(name: str = name, opened: list[Any] = opened) -> None:
                    opened.append(open_rival("gamwarm", self.folder / name))

                times.append(_timed(act))
                opened[0].close()
        stores = {name: open_rival("gamwarm", self.folder / name) for name in gets}
        for start in range(0, 1000, 50):
            for name, store in stores.items():
                for number in numbers[name][start : start + 50]:
                    gets[name].append(_timed(lambda store=store, number=number: store.get(number)))
        for store in stores.values():
            store.close()
        size = bytes_on_disk("gamwarm", large_place)
        for place in (small_place, large_place):
            shutil.rmtree(place)
        open_us = {name: _median_us(s) for name, s in opens.items()}
        get_us = {name: _median_us(s) for name, s in gets.items()}
        note = f"{size / count:.0f} B per record"
        self._file(Measure(f"open, {count:,} records", "µs", open_us, "≤ 300 µs", open_us["large"] <= 300, note))
        met = get_us["large"] <= 1.3 * get_us["small"]
        note = "every record for the first time"
        self._file(Measure(f"get, {count:,} records", "µs", get_us, "≤ 1.3× small", met, note))

    def churn(self, overwrites: int) -> None:
        """Overwrite 1000 records at random, each time with as many numbers and new words, 20 in a
        transaction.
        """
        rng = random.Random(3)
        store = open_rival("gamwarm", self.folder)
        bases = [record_of(number) for number in range(1000)]
        store.put_many(bases)
        store.close()
        before = bytes_on_disk("gamwarm", self.folder)
        store = open_rival("gamwarm", self.folder)
        seconds = []
        for done in range(0, overwrites, 20):
            batch = [_changed(bases[rng.randrange(1000)], done + index, rng) for index in range(20)]
            seconds.append(_timed(lambda batch=batch: store.put_many(batch)) / 20)
        store.close()
        after = bytes_on_disk("gamwarm", self.folder)
        remove("gamwarm", self.folder)
        growth = {"gamwarm": after / before}
        note = f"{before / 1e6:.2f} → {after / 1e6:.2f} MB, {_median_us(seconds):.0f} µs each, 20 in a transaction"
        met = growth["gamwarm"] <= 1.2
        self._file(Measure(f"growth after {overwrites:,} overwrites", "×", growth, "≤ 1.2", met, note))


def _renumbered(base: Any, number: int) -> Any:
    return replace(base, key=key_of(number))


def _changed(base: Any, step: int, rng: random.Random) -> Any:
    return replace(base, objective=float(step), attributes={"note": "x" * rng.randrange(200)})


def _puts_of_one(name: str, folder: Path, first: int, each: int, start: Any, stop: Any, waits: Any) -> None:
    records = [record_of(number) for number in range(first, first + each)]
    store = open_rival(name, folder)
    start.wait()
    longest = max(_timed(lambda record=record: store.put(record)) for record in records)
    stop.wait()
    waits.put(longest)
    store.close()


def _table(measures: list[Measure], where: dict[str, Any]) -> Table:
    kind = f"{where['cores']} × {where['processor']}, {where['file system']}, h5py {where['h5py']}"
    table = Table(title=f"{where['date']}: {kind}; a record is 405 numbers and 2 names; medians")
    for head in ("", "unit", *NAMES, "/ sqlite3", "target", ""):
        table.add_column(head, justify="left" if head in ("", "unit", "target") else "right", no_wrap=True)
    for m in measures:
        values = [f"{m.values[n]:.3g}" if m.values[n] < 100 else f"{m.values[n]:.0f}" for n in m.values]
        if "small" in m.values:
            values = [f"{values[1]} (small: {values[0]})"]
        values += ["–"] * (len(NAMES) - len(values))
        ratio = f"{m.values['gamwarm'] / m.values['sqlite3']:.2f}" if "sqlite3" in m.values else "–"
        if "small" in m.values:
            ratio = f"{m.values['large'] / m.values['small']:.2f} × small"
        verdict = "" if m.met is None else ("met" if m.met else "[bold]missed[/bold]")
        table.add_row(m.name, m.unit, *values, ratio, m.target, verdict)
    table.caption = "\n".join(f"{m.name}: {m.note}" for m in measures if m.note)
    table.caption_justify = "left"
    return table
