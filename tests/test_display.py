"""What a person sees at a prompt and in a notebook: short, escaped, without reading more than it
says.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gamwarm
from gamwarm import Cost, OuterFit, engine
from gamwarm.display import brief_repr, few, json_text, short, shortened, visible, wrapped
from gamwarm.fitting import GuardReport
from gamwarm.store import Saving
from tests.support.stores import artifact_of, carrier_fit, plain_fit, record_of, result_of
from tests.support.thread_ranks import on_ranks

HOSTILE = "<img src=x onerror=alert(1)>"


class Cells(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.cells.append(data)


def cells(thing: object) -> list[str]:
    return Cells(thing._repr_html_()).cells  # type: ignore[attr-defined]


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        yield opened


@pytest.mark.parametrize(
    ("key", "shown"), [("cf-" + "0123456789abcdef" * 4, "cf-0123456789ab"), ("ab" * 16, "abababababab"), (None, "none")]
)
def test_a_key_is_shown_by_its_beginning(key, shown):
    assert short(key) == shown


def test_a_list_is_cut_only_where_that_is_shorter():
    assert few("abcde") == "a, b, c, d, e"
    assert few("abcdef") == "a, b, c, d and 2 more"


def test_a_record_is_one_line_however_large():
    record = record_of(1, block_dims=[5000, 2], block_beta=[np.zeros(5000), [1.0, 2.0]])

    assert repr(record) == (
        "<BlockRecord final cf-000000000000: objective 1, 2 blocks, 5002 coefficients, rho (2,), 50 rows>"
    )


def test_a_record_in_a_notebook_says_who_made_it_from_what(store):
    made = gamwarm.Lineage("transfer", "ab" * 16)
    store.put_record(record_of(1, lineage=made, cost=gamwarm.Cost(7, 5, 20, 25, seconds=0.125)))

    shown = cells(store.get_record(record_of(1).key))

    assert "transfer from abababababab" in shown
    assert "7 evaluations, 25 Hessian formations, 0.125 s" in shown
    assert any(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", cell) for cell in shown)
    assert shown[-2:] == ["log sigma", "2"]


def test_an_artifact_shows_its_terms(store):
    assert repr(artifact_of()) == "<FitArtifact of tests.family: 1 terms (s(x)), objective 1, 50 rows>"
    assert cells(artifact_of())[-4:] == ["s(x)", "4", "3", "0.25"]


def test_a_start_report_gives_source_reason_and_terms(store):
    parent = carrier_fit()
    store.keep(parent, result_of(parent))

    report = store.start_for(carrier_fit(range(36)))
    shown = cells(report)

    assert repr(report).startswith("<StartReport: transfer start from ")
    assert {"transfer", "no exact record", "mean carrier", "projected"} <= set(shown)


def test_a_keep_outcome_says_what_was_written_and_why_not(store):
    problem = plain_fit(1)
    kept = store.keep(problem, result_of(problem))
    stopped = store.keep(plain_fit(2), result_of(plain_fit(2), converged=False))

    assert re.fullmatch(r"<KeepOutcome: record written as \w{12}; artifact written as \w{12}>", repr(kept))
    assert re.search(r"record written as \w{12}; artifact not written: .*converge", repr(stopped))
    assert cells(stopped)[-1] == str(stopped.artifact)


def test_what_a_file_saved_and_whether_it_is_sound_are_tables(store):
    parent = carrier_fit()
    store.keep(parent, result_of(parent, cost=gamwarm.Cost(9, 5, 20, 30, seconds=1.0)))
    child = carrier_fit(range(36))
    with store.fit(child) as fit:
        fit.keep(result_of(child, cost=gamwarm.Cost(3, 1, 5, 10, seconds=0.25)))

    saved, sound = store.savings(), store.verify()

    assert repr(saved).startswith("<Savings: 6 evaluations, 20 Hessian formations")
    assert {"start", "transfer", "3 evaluations, 10 Hessian formations, 0.25 s"} <= set(cells(saved))
    assert repr(sound) == "<VerifyReport: sound, 4 entries, 0 problems>"
    assert {"verdict", "sound"} <= set(cells(sound))


def test_an_explanation_lists_what_differs(store):
    stored, asked = carrier_fit(), carrier_fit(range(36))
    store.keep(stored, result_of(stored))

    hit, miss = store.explain(stored), store.explain(asked)

    assert cells(hit)[1:3] == ["exact hit", hit.reason]
    assert repr(miss).startswith("<Explanation: miss, no exact record")
    assert set(miss.differences) <= set(cells(miss))
    assert any(cell.startswith("transfer start from") for cell in cells(miss))


def test_a_fit_its_problem_and_its_result_are_one_line_and_a_table(store):
    rng = np.random.default_rng(1)
    columns = {"x": rng.uniform(0, 10, 60), "y": rng.normal(size=60)}
    bound = engine.bind(columns, [engine.Smooth("x", k=6)], engine.Gaussian("y"))
    fit = engine.fit(bound.case(), store=store, attributes={HOSTILE: HOSTILE})
    problem = carrier_fit()

    assert re.fullmatch(r"<EngineFit converged: objective [-.\d]+, cold start; \d+ evaluations, .* s>", repr(fit))
    assert {"mean:s(x)", "log lambda", "record"} <= set(cells(fit))
    assert re.fullmatch(
        r"<FitResult converged: objective [-.\d]+, 1 blocks, 5 coefficients, rho \(1,\)>", repr(fit.result)
    )
    assert "objective" in cells(fit.result)
    assert {problem.family.family_kind, *problem.block_names} <= set(cells(problem))
    assert "descriptor" not in vars(problem), "nothing is hashed to show a problem"
    assert repr(engine.fit(None, store=store, each=True)) == "<EngineFit: no work on this rank>"


def test_a_store_shows_how_much_it_holds_until_it_is_closed(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        opened.put_record(record_of(1))
        shown = cells(opened)
        assert shown[shown.index("entries") + 1] == "1"

    assert "closed" in cells(opened)


def test_one_rank_can_show_a_collective_store_by_itself(tmp_path):
    def body(comm):
        with gamwarm.open(tmp_path / "fits.h5", comm=comm) as opened:
            return cells(opened) if comm.rank == 1 else repr(opened)

    shown = on_ranks(2, body)

    assert "1 of 2" in shown[1]


def test_what_a_file_says_is_escaped(tmp_path):
    term = gamwarm.TermArtifact(artifact_of().terms[0].identity, "mean", None, [1.0], [], name=HOSTILE)
    things = [
        record_of(1, block_names=[HOSTILE, "b"], producer=gamwarm.Producer(HOSTILE)),
        artifact_of(terms=[term], producer=gamwarm.Producer(HOSTILE)),
        gamwarm.StartReport(gamwarm.StartSource.COLD, reason=HOSTILE),
    ]

    for thing in things:
        page = Cells(thing._repr_html_())
        assert "img" not in page.tags
        assert HOSTILE in page.cells


# Everything of Unicode, controls and lone surrogates more often than chance has them.
any_text = st.text(st.characters() | st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=20)
HARMFUL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(any_text)
def test_visible_text_has_nothing_that_is_obeyed_or_hidden_and_is_the_same_again(text):
    shown = visible(text)

    assert {unicodedata.category(c) for c in shown} & HARMFUL == set()
    assert visible(shown) == shown
    assert shown.encode("utf-8").decode("utf-8") == shown


@given(
    st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u115f\u1160\u3164\uffa0\u2800"))
)
def test_ordinary_text_of_any_script_stays_unchanged(text):
    assert visible(text) == text


@given(st.recursive(any_text, lambda inner: st.lists(inner) | st.dictionaries(any_text, inner), max_leaves=5))
def test_json_reads_back_and_holds_nothing_that_is_obeyed(value):
    text = json_text(value)

    assert json.loads(text) == value
    assert {unicodedata.category(c) for c in text} & HARMFUL == set()


@pytest.mark.parametrize(
    "character", ["\0", "\x1b", "\x7f", "\x85", "\x9b", "\u200b", "\u2028", "\u202e", "\u2066", "\ud800", "\n"]
)
def test_errors_and_the_log_escape_what_they_are_reported(character, caplog):
    error = gamwarm.StoreError(f"a{character}b", path=f"a{character}b")
    logging.getLogger("gamwarm").warning("%s is %r", f"a{character}b", 5)

    assert character not in str(error) + repr(error) + caplog.records[0].getMessage()
    assert error.filename == f"a{character}b"


@pytest.mark.parametrize("value", [np.float64("nan"), np.int32(7), np.str_("a"), np.bool_(True)])
def test_a_scalar_of_numpy_is_told_as_pythons(value):
    assert brief_repr(value) == repr(value.item())


@given(st.lists(st.text(st.sampled_from("aé -\n\u202e€"), max_size=300), max_size=4), st.integers(20, 90))
def test_wrapped_text_keeps_its_words_and_breaks_no_word(lines, width):
    text = wrapped(lines, width)

    assert text.split() == [word for line in lines for word in visible(line).split()]
    assert all(len(line) <= width or " " not in line.lstrip() for line in text.split("\n"))


def test_a_continued_line_is_indented_by_four_more():
    assert wrapped(["  a: " + "word " * 5, ""], 20) == "  a: word word word\n      word word\n"


def test_every_summary_fits_80_columns(tmp_path):
    parent, cost = carrier_fit(range(37), n=60), Cost(11, 5, 40, 48, seconds=3.25)
    with gamwarm.open(tmp_path / "fits.h5") as store:
        store.keep(parent, result_of(parent, cost=cost))
        start = store.start_for(carrier_fit(range(12), n=30))
    guard = GuardReport(continued_from="start", notes=["the offered coefficients were doubtful"] * 3)
    fit = OuterFit(None, start, None, guard, "a term has no finite optimum; " * 4, ("a long note " * 9,), cost, None)

    assert "reduced widths differ" in start.summary()
    for text in (start.summary(), fit.summary()):
        assert max(map(len, text.split("\n"))) <= 80


@pytest.mark.parametrize(
    ("cost", "said", "work"),
    [
        (Cost(8, seconds=0.5), "8 evaluations, 0.5 s", "8 evaluations"),
        (Cost(8, 2, 9, 30), "8 evaluations, 30 Hessian formations, 0 s", "30 Hessian formations"),
        (Cost(0, hessian_formations=1), "1 Hessian formation, 0 s", "1 Hessian formation"),
        (
            Cost(1, hessian_formations=5, for_children=5),
            "1 evaluation, 0 Hessian formations (and 5 for later fits), 0 s",
            "1 evaluation",
        ),
        (Cost(), "0 evaluations, 0 s", "0 evaluations"),
    ],
)
def test_what_an_engine_does_not_count_is_not_shown_as_none(cost, said, work):
    assert (str(cost), cost.work) == (said, work)


def test_a_saving_without_counted_formations_names_evaluations_only():
    assert str(Saving(7, seconds=0.25)) == "7 evaluations, 0.25 s"


def test_labels_that_differ_at_their_end_differ_when_they_are_shortened():
    assert shortened("subject 17", 12) == "subject 17"
    assert shortened("a long label of subject 17", 12) == "a long…ct 17"
    assert shortened("\x1b[31mred label", 12) == "\\x1b[3…label"


@given(st.text(st.sampled_from("ab日本 é\n"), max_size=40), st.integers(2, 30))
def test_a_shortened_label_fits_and_is_made_of_both_ends(text, most):
    short_text = shortened(text, most)

    assert sum(2 if each in "日本" else 1 for each in short_text) <= most
    if short_text != visible(text):
        head, tail = short_text.split("…")
        assert visible(text).startswith(head)
        assert visible(text).endswith(tail)
