"""Which entries are meant: one rule for every criterion, one way to read a key."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gamwarm.entries import ARTIFACTS, RECORDS, Browser, EntryStore, Selection, Selector, list_entries, resolve_key
from gamwarm.errors import InvalidInput, InvalidKey, NoSuchKey
from tests.support.selections import expected, facts_of, varied_file


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("selection") / "fits.h5"
    varied_file(path)
    facts = facts_of(path)
    store = EntryStore(path, mode="r")
    yield store, facts
    store.close()


def patterns(criterion, facts):
    """Values of the file, parts of them with wildcards, and what is in no file."""
    values = sorted({value for each in facts for value in each[criterion] if value})
    parts = [pattern for value in values for pattern in (f"{value[: len(value) // 2]}*", f"*{value[-2:]}")]
    return st.sampled_from([*values, *parts, "?" * len(values[0]), "*", "no"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_selection_takes_what_meets_every_criterion_in_one_of_its_values(file, data):
    store, facts = file
    drawn = {
        name: data.draw(st.lists(patterns(name, facts), max_size=2) if data.draw(st.booleans()) else st.just([]), name)
        for name in ("families", "blocks", "producers", "jobs")
    }
    times = sorted(each["created"] for each in facts)
    selection = Selection(
        **drawn,
        kinds=data.draw(st.lists(st.sampled_from(["final", "checkpoint", "artifact"]), max_size=2)),
        attributes=data.draw(st.lists(st.sampled_from([("job", "471?"), ("host", "n*"), ("host", "42")]), max_size=1)),
        since=data.draw(st.none() | st.sampled_from([times[3], times[-1] + 1])),
        until=data.draw(st.none() | st.sampled_from([times[0], times[-3], times[-1] + 1])),
        keys=data.draw(st.just([]) | st.lists(st.sampled_from([n for e in facts for n in e["names"]]), max_size=2)),
    )
    selector = Selector(Browser(store), selection)
    wanted = expected(facts, selection)

    assert {entry.entry_id for entry in list_entries(store)[0] if selector.takes(entry)} == wanted
    assert {seen.entry_id for seen in selector.scan()} == wanted
    assert not selection.is_all or len(wanted) == len(facts)


def test_a_record_without_artifact_is_of_the_family_that_its_components_name(file):
    store, facts = file
    selection = Selection(families=["*.plain"], kinds=["checkpoint"])

    found = {seen.entry_id for seen in Selector(Browser(store), selection).scan()}

    assert len(found) == 2
    assert found == {each["id"] for each in facts if each["kinds"] == ["checkpoint"]}


def test_the_beginning_of_a_key_means_what_the_intact_key_means(file):
    store, facts = file
    browser = Browser(store)
    for each in facts:
        for name in each["names"]:
            whole = resolve_key(browser, name)
            if not name.startswith("cf-0000"):  # two of those begin alike
                assert resolve_key(browser, name.removeprefix("cf-")[:20] + "…") == whole
            assert str(whole) == name
            assert each["id"] in {seen.entry_id for seen in whole.entries(browser)}
            assert whole.section == (ARTIFACTS if each["kinds"] == ["artifact"] else RECORDS)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("abc", InvalidKey, "at least 4 hex digits"),
        ("cf-", InvalidKey, "at least 4 hex digits"),
        ("s(x)!", InvalidKey, "not a key"),
        ("ffffffffffff", NoSuchKey, "no entry of this file has a key"),
        ("0000", NoSuchKey, "2 keys have this prefix: .*give more digits"),
    ],
)
def test_a_key_that_means_nothing_or_several_things_is_one_error(file, text, error, says):
    store, _ = file
    with pytest.raises(error, match=says) as caught:
        resolve_key(Browser(store), text)
    assert type(caught.value) is error
    with pytest.raises(error, match=says):
        Selector(Browser(store), Selection(keys=[text]))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kinds": ["finals"]}, "use one of final"),
        ({"jobs": "4711"}, "give a list"),
        ({"attributes": [("job",)]}, "pairs of a name and a value"),
        ({"attributes": ["job=1"]}, "give a list"),
        ({"attributes": [("job", "a", "b")]}, "pairs of a name and a value"),
        ({"since": 1.5}, "since"),
    ],
)
def test_a_selection_that_says_nothing_sensible_is_refused(wrong, says):
    with pytest.raises((InvalidInput, TypeError), match=says):
        Selection(**wrong)
