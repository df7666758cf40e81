"""`gamwarm.adapters.mgcv`, in a process of its own: R cannot be unloaded from this one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mgcv_driver import HAS_MGCV

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(400)
@pytest.mark.skipif(not HAS_MGCV, reason="mgcv: needs R with mgcv and rpy2")
def test_the_tests_with_r_pass(request):
    long = ["--long"] if request.config.getoption("--long") else []
    tests = Path(__file__).with_name("mgcv_process.py")
    command = [sys.executable, "-m", "pytest", "-q", *long, str(tests)]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=390, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert int(re.search(r"(\d+) passed", ended.stdout)[1]) > 60
