"""The report in a real browser: nothing sticks out at phone width, and it is light or dark as the
reader wants.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import gamwarm
from gamwarm.report import write_report
from tests.support.stores import carrier_fit, result_of

ROOT = Path(__file__).resolve().parents[2]
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium (apt-get install chromium, or set CHROMIUM)")


@pytest.fixture
def page(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        for levels, group in ((37, "A"), (36, "W" * 200), (35, "\u7a7a" * 40), (34, "a site with a long name " * 9)):
            problem = carrier_fit(range(levels))
            with opened.fit(problem, attributes={"group": group}) as fit:
                fit.keep(result_of(problem, cost=gamwarm.Cost(4, 3, 20, 10**6 + levels, seconds=1e5)))
    return write_report(tmp_path / "fits.h5", tmp_path / "page.html", title="A" * 90)


@pytest.mark.long
def test_light_and_dark_pictures_are_light_and_dark(page, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    script = [ROOT / "scripts" / "report_pictures", page, tmp_path / "pictures"]

    subprocess.run(script, check=True, capture_output=True, timeout=100)

    for width, size in (("laptop", 1280), ("phone", 500)):
        light = image.imread(tmp_path / "pictures" / f"{width}-light.png")[:, :, :3]
        dark = image.imread(tmp_path / "pictures" / f"{width}-dark.png")[:, :390, :3]
        assert light.shape[1] == size
        assert light.mean() > 0.8
        assert dark.mean() < 0.3
        assert dark.std() > 0.02, "nothing is drawn"


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_sideways(page, tmp_path, width):
    source = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())  # the page forbids the measuring script
    source = source.replace("<details>", "<details open>")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(source)}"></iframe><script>'
        "onload = () => { const d = document.querySelector('iframe').contentDocument.documentElement;"
        "const out = [...d.querySelectorAll('table, td, svg, li, p, b, text')].filter("
        "  e => e.getBoundingClientRect().right > d.clientWidth).map(e => e.tagName + ' ' + e.textContent);"
        "document.title = d.scrollWidth + ' of ' + d.clientWidth + ', outside: ' + out.join('; '); }</script>"
    )
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
    said = subprocess.run(
        [BROWSER, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", f"file://{frame}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )

    needed, there, outside = re.search(r"<title>(\d+) of (\d+), outside: ([^<]*)</title>", said.stdout).groups()
    assert needed == there
    assert outside == ""
    assert width - 20 <= int(there) <= width, "the frame has another width"


def test_the_script_explains_itself_and_its_mistakes():
    script = ROOT / "scripts" / "report_pictures"

    asked = subprocess.run([script, "--help"], capture_output=True, text=True)
    wrong = subprocess.run([script], capture_output=True, text=True)

    assert "usage: scripts/report_pictures" in asked.stdout
    assert wrong.returncode == 2
