"""Settings of the whole test suite: hypothesis profiles, `long` and `mpi` tests, real ranks, a
limit on hangs.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import HealthCheck, settings

import gamwarm
from tests.support.ranks import RankRunner, find_mpiexec

# No derandomize: every run looks at new cases. A failure prints its blob (@reproduce_failure),
# pytest its seed.
settings.register_profile(
    "default", max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("default"), max_examples=1000)

LONG_TEST_SECONDS = 900.0
"""Time limit of a `long` test that states none."""

HANG_GRACE_SECONDS = 20.0
"""A test stuck inside C code does not hear pytest-timeout's signal: so much later the run ends,
with all stacks.
"""

real_stderr = pytest.StashKey[TextIO]()
exit_status = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long too, with many more random cases")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("long" if config.getoption("--long") else "default")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[real_stderr] = os.fdopen(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2), "w")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[exit_status] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[real_stderr].close()
    # Nothing is unloaded: an HDF5 that has met hundreds of damaged files may crash when it is.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(config.stash.get(exit_status, 0))


def pytest_report_header() -> str:
    return f"mpiexec: {find_mpiexec() or 'none'}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that start ranks (before ``-m mpi`` looks) and leave the long ones out unless
    asked for.
    """
    for item in items:
        if "mpiexec" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.mpi)
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_TEST_SECONDS))
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)


def time_limit(item: pytest.Item) -> float:
    """Return the seconds pytest-timeout gives this test (0: no limit)."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0] if marker.args else marker.kwargs["timeout"])
    given = item.config.getoption("timeout", None)
    return float(item.config.getini("timeout") if given is None else given)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if limit := time_limit(item):
        faulthandler.dump_traceback_later(limit + HANG_GRACE_SECONDS, exit=True, file=item.config.stash[real_stderr])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def mpiexec() -> RankRunner:
    """Run a function on real ranks: ``mpiexec(n, function, *args)``, see `tests.support.ranks`."""
    found = find_mpiexec()
    if found is None:
        if os.environ.get("GAMWARM_NO_MPI") == "1":
            pytest.skip("no mpiexec, and GAMWARM_NO_MPI=1 allows that")
        pytest.fail(
            "no mpiexec found: run scripts/test, or `pip install mpich`, or set GAMWARM_NO_MPI=1", pytrace=False
        )
    return RankRunner(found)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fits.h5"


@pytest.fixture
def store(path: Path) -> Generator[gamwarm.WarmStartStore, None, None]:
    with gamwarm.open(path) as opened:
        yield opened
