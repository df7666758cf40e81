"""The report: one page that loads nothing, shows the contents, and escapes what the file
says.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import h5py
import pytest

import gamwarm
from gamwarm.archive import export_archive
from gamwarm.cli import main
from gamwarm.errors import NotAStore, StoreError, StoreNotFound
from gamwarm.records import attributes_of_cold_run
from gamwarm.report import write_report
from gamwarm.report.summary import Bar, summarize
from tests.support.entries import line_of
from tests.support.stores import carrier_fit, plain_fit, record_of, result_of

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as opened:
        for problem, hessians in ((carrier_fit(), 40), (carrier_fit(range(36)), 10), (plain_fit(1), 5)):
            with opened.fit(problem) as fit:
                fit.keep(result_of(problem, cost=gamwarm.Cost(7, 5, 20, hessians, seconds=0.1)))
    return path


class Page(HTMLParser):
    """Tags in order, and text outside of style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "rect", "circle", "line", "path", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(store: Path) -> Page:
    return Page(write_report(store, store.with_suffix(".html")).read_text())


def test_the_page_is_well_formed_and_loads_nothing(store):
    page = report(store)
    source = store.with_suffix(".html").read_text()

    assert page.open == []
    assert {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags} == set()
    assert not [a for _, attrs in page.tags for a in attrs if a in ("src", "href") or a.startswith("on")]
    assert re.search(r"url\(|@import|https?:", source) is None
    assert "default-src 'none'" in source


def test_it_says_what_is_in_the_file(store):
    text = report(store).text

    for words in ("3 final records", "0 checkpoints", "3 artifacts", "tests.carrier (2)", "tests 1 (6)"):
        assert words in text


def test_it_begins_with_what_the_file_saved_and_how_that_is_known(store):
    text = report(store).text

    begin = "Times are UTC. 30 Hessian formations and 0 s saved (estimated). 1 fits"
    assert begin in text.replace("1 fit that", "1 fits that"), text[:400]
    assert "Estimated, against the nearest cold fit of the same model (1)." in text
    assert text.index("saved (estimated)") < text.index("fit by fit") < text.index("Terms") < text.index("Lineage")


def test_the_plot_has_cold_and_warm_of_every_fit_by_its_label(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as opened:
        file_fit(opened, carrier_fit(), 40)
        file_fit(opened, carrier_fit(range(36)), 10, group="AA")
        file_fit(
            opened, carrier_fit(range(35)), 5, group="UA", **attributes_of_cold_run(gamwarm.Cost(9, 8, 7, 60), 1.5)
        )

    page = report(path)
    drawn = [attrs["class"] for tag, attrs in page.tags if tag == "rect" and attrs["height"] == "11"]

    assert drawn == ["estimate", "fill-transfer", "fill-cold", "fill-transfer"]
    assert "AA 40 10 (4×) UA 60 5 (12×)" in page.text
    assert "Measured: 1 of these fits were also run cold; the objectives differ by at most 2.0e-01" in page.text
    assert "The others are estimated, against" in page.text


def file_fit(store, problem, hessians, **attributes):
    with store.fit(problem, attributes=attributes) as fit:
        fit.keep(result_of(problem, cost=gamwarm.Cost(7, 5, 20, hessians, seconds=0.1)))


def test_the_page_the_command_and_the_store_have_one_number_for_what_was_saved(store, capsys):
    with gamwarm.open(store, "r") as opened:
        saved = opened.savings().total
    assert main(["stats", str(store), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["savings"]["total"] == vars(saved)
    assert f"{saved.hessian_formations} Hessian formations" in report(store).text


@pytest.mark.parametrize("count", [1, 40, 41, 3000])
def test_one_fit_and_thousands_of_fits_fit_on_the_page(count):
    cold = line_of(0, "cold", gamwarm.Cost(10, 6, 40, 64, seconds=1.0), 60)
    warm = [line_of(n, "transfer", gamwarm.Cost(3, 2, 6, 1 + n % 99, seconds=0.1), 60) for n in range(1, count + 1)]

    plot = summarize([cold, *warm], 20).plot

    assert plot.unit == "Hessian formations"
    assert len(plot.pairs) == (count if count <= 40 else 12)
    assert sum(bar.count for bar in plot.gains) == (0 if count <= 40 else count)
    if count > 40:
        gains = [pair.cold / pair.own for pair in plot.pairs]
        assert gains == sorted(gains)
        assert plot.gains[0] == Bar("more than cold", sum(each.cost.hessian_formations > 64 for each in warm))


def test_work_for_later_fits_is_named_and_not_counted(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as opened:
        for problem, cost in (
            (carrier_fit(), gamwarm.Cost(7, 5, 20, 40, seconds=1.0, for_children=12)),
            (carrier_fit(range(36)), gamwarm.Cost(2, 1, 4, 5, seconds=0.1)),
        ):
            with opened.fit(problem) as fit:
                fit.keep(result_of(problem, cost=cost))

    text = report(path).text

    assert "23 Hessian formations" in text
    assert "12 Hessian formations that served later fits only" in text
    assert "cold, 28 Hessian formations" in text


def test_a_file_of_cold_fits_says_that_nothing_is_known_to_be_saved(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        file_fit(opened, plain_fit(1), 40)

    page = report(tmp_path / "fits.h5")

    assert "No saving is known. All fits were cold" in page.text
    assert "svg" not in {tag for tag, _ in page.tags}


def test_a_start_that_cost_more_is_not_called_a_saving(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        file_fit(opened, carrier_fit(), 10)
        file_fit(opened, carrier_fit(range(36)), 14)

    text = report(tmp_path / "fits.h5").text

    assert re.search(r"4 Hessian formations (and [\d.]+ s )?more than cold \(estimated\)\.", text)
    assert "saved" not in text


def test_it_counts_transfers_by_term(store):
    assert re.search(r"mean carrier 1 0 0", report(store).text)


def test_it_draws_what_started_from_what(store):
    page = report(store)
    dots = [attrs["class"] for tag, attrs in page.tags if "dot" in (attrs.get("class") or "")]

    assert dots == ["dot fill-cold", "dot fill-transfer"]
    assert "1 fit stands alone" in page.text


def test_the_same_file_gives_the_same_page(store, tmp_path):
    first = write_report(store, tmp_path / "a.html").read_bytes()

    assert write_report(store, tmp_path / "b.html").read_bytes() == first


def test_an_archive_gives_a_report_too(store, tmp_path):
    export_archive(store, tmp_path / "archive.h5", title="T", creators="A", license="CC0-1.0")

    assert "3 final records" in report(tmp_path / "archive.h5").text


def test_everything_from_the_file_is_escaped(tmp_path):
    path = tmp_path / "fits.h5"
    lineage = gamwarm.Lineage("transfer", "ab" * 16, ((HOSTILE, "projected"),))
    producer = gamwarm.Producer(HOSTILE, HOSTILE)
    hostile = record_of(
        1,
        block_names=[HOSTILE, "b"],
        lineage=lineage,
        producer=producer,
        cost=gamwarm.Cost(1, 1, 1, 1),
        attributes={"group": HOSTILE, **attributes_of_cold_run(gamwarm.Cost(5, 5, 5, 5))},
    )
    with gamwarm.open(path) as opened:
        assert opened.put_record(hostile).written

    source = write_report(path, tmp_path / "page.html", title=HOSTILE).read_text()

    assert "script" not in {tag for tag, _ in Page(source).tags}
    assert "<script" not in source
    assert source.count("&lt;script&gt;") >= 6


def test_an_empty_file_gives_a_page_that_says_so(tmp_path):
    gamwarm.open(tmp_path / "fits.h5").close()

    text = report(tmp_path / "fits.h5").text

    assert "The file holds no fit that says how it began." in text
    assert "0 final records" in text


def test_unreadable_entries_are_counted_and_the_page_is_written(store):
    with h5py.File(store, "r+") as h5:
        del next(iter(h5["block_records"].values())).attrs["meta"]

    assert "1 entry cannot be read" in report(store).text


def test_a_long_chain_and_many_fits_stay_on_the_page(tmp_path):
    path, parent = tmp_path / "fits.h5", None
    with gamwarm.open(path) as opened, opened.transaction():
        for n in range(400):
            lineage = None if parent is None else gamwarm.Lineage("exact", parent)
            parent = opened.put_record(record_of(n, float(n), lineage=lineage)).entry_id

    page = report(path)

    assert sum(tag == "li" for tag, _ in page.tags) == 160
    assert "240 more fits are not shown" in page.text


def test_a_bad_path_is_named_and_nothing_is_written(store, tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    out = tmp_path / "page.html"

    for path, error in ((tmp_path / "none.h5", StoreNotFound), (tmp_path / "text.h5", NotAStore)):
        with pytest.raises(error, match=path.name):
            write_report(path, out)
    with pytest.raises(StoreNotFound, match="nowhere"):
        write_report(store, tmp_path / "nowhere" / "page.html")
    with pytest.raises(StoreError, match="overwrite the store"):
        write_report(store, store)
    assert not out.exists()
