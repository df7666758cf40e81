"""Damage: an entry whose bytes changed is a miss with one warning and takes no other with it; never
a wrong number.

A long search (every byte, many images, in children with a time limit) would be a kit of its own;
this one is short.
"""

from __future__ import annotations

import logging
import random

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm import Curvature, GamwarmError, StoreDamaged, StoreError
from tests.support.stores import artifact_of, exact_key_of, plain_fit, record_of, result_of
from tests.support.torture_damage import value_of

KEYS = range(1, 6)
VICTIM = 3


def record(key, width=5):
    return record_of(
        key,
        value_of(key),
        block_names=["x"],
        block_dims=[width],
        block_beta=[np.full(width, value_of(key))],
        curvature=Curvature(np.array([0.125, value_of(key) / 3]), np.eye(2)),
        attributes={"note": f"victim number {key}"},
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fits.h5"


def fill(path, width=5):
    with gamwarm.open(path) as store:
        for key in KEYS:
            store.put_record(record(key, width))
            store.put_artifact(artifact_of(f"s({key})", value_of(key)))


def places(image, key, width):
    """Where the victim's stored values and text lie in the file."""
    beta = np.full(width, value_of(key)).tobytes()
    note = f"victim number {key}".encode()
    spots = []
    for start, length in (
        (image.find(beta), len(beta)),
        (image.find(np.array([0.125, value_of(key) / 3]).tobytes()), 48),
        (image.rfind(b'{"active"', 0, image.find(note)), 600),
    ):
        assert start > 0, "the victim's bytes were not found"
        spots += range(start, start + length)
    return spots


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("width", [5, 9000], ids=["in attributes", "in datasets"])
def test_a_flipped_byte_of_an_entry_is_a_miss_with_one_warning_and_hurts_no_other(path, caplog, width):
    fill(path, width)
    image = path.read_bytes()
    pick = random.Random(20261123)
    for spot in pick.sample(places(image, VICTIM, width), 40):
        changed = bytearray(image)
        changed[spot] ^= 1 << pick.randrange(8)
        path.write_bytes(changed)
        caplog.clear()
        with gamwarm.open(path, "r") as store:
            for _ in range(3):
                assert store.get_record(exact_key_of(VICTIM)) is None
            for key in set(KEYS) - {VICTIM}:
                assert store.get_record(exact_key_of(key)).block_beta[0][0] == value_of(key)
            assert store.disabled_reason is None
            assert len(warnings_of(caplog)) == 1, warnings_of(caplog)
            assert exact_key_of(VICTIM) in warnings_of(caplog)[0]
            report = store.verify()
            assert not report.ok
            assert [p.place for p in report.problems] == [f"/block_records/{exact_key_of(VICTIM)}"]
            assert len(store.entry_ids()) == 2 * len(KEYS) - 1
            assert len(store.keys()) == len(KEYS)


def test_a_flipped_byte_of_an_artifact_takes_it_out_of_the_choice_of_parents_and_no_other(path, caplog):
    parents = {}
    with gamwarm.open(path) as store:
        for seed, n in ((2, 40), (3, 90), (4, 50)):
            fit = plain_fit(seed=seed, n=n)
            parents[n] = store.keep(fit, result_of(fit, n / 7)).artifact.entry_id
    image = bytearray(path.read_bytes())
    spot = image.rfind((90 / 7 * np.arange(1.0, 5.0)).tobytes())
    record_spot = image.find((90 / 7 * np.arange(1.0, 5.0)).tobytes())
    assert 0 < record_spot < spot
    for place in (spot + 3, record_spot + 3):
        image[place] ^= 8
    path.write_bytes(image)

    with gamwarm.open(path, "r") as store:
        report = store.start_for(plain_fit())
        assert report.parent == parents[50]
        assert store.start_for(plain_fit(), parent=parents[90]).source == "cold"
        damaged, lost = warnings_of(caplog)
        assert f"{parents[90]} is damaged" in damaged
        assert f"the named parent {parents[90]} is not in the file" in lost
        assert len(store.verify().problems) == 2


def test_an_entry_edited_with_plain_h5py_is_a_miss(path, caplog):
    fill(path, 9000)
    with h5py.File(path, "r+") as h5:
        h5["block_records"][exact_key_of(VICTIM)]["beta"][17] = 4.0
        other = h5["block_records"][exact_key_of(1)].attrs
        other.modify("meta", np.bytes_(other["meta"].replace(b'"n_rows":50', b'"n_rows":51')))

    with gamwarm.open(path, "r") as store:
        assert store.get_record(exact_key_of(VICTIM)) is None
        assert store.get_record(exact_key_of(1)) is None
        assert store.get_record(exact_key_of(2)) is not None
        assert len(warnings_of(caplog)) == 2


def test_an_entry_moved_to_another_key_is_a_miss(path):
    fill(path)
    with h5py.File(path, "r+") as h5:
        h5["block_records"].move(exact_key_of(VICTIM), exact_key_of(77))

    with gamwarm.open(path, "r") as store:
        assert store.get_record(exact_key_of(77)) is None
        assert "digest" in store.verify().problems[0].reason


def test_a_forged_seal_over_another_content_is_found_by_verify(path):
    """Whoever changes a number and seals it anew still has the old entry id."""
    from gamwarm.encoding.codec import seal_of

    fill(path)
    with h5py.File(path, "r+") as h5:
        group = h5["block_records"][exact_key_of(VICTIM)]
        beta = group.attrs["beta"] + 1.0
        group.attrs.modify("beta", beta)
        arrays = {n: group.attrs[n] for n in ("rho", "curvature")} | {"beta": beta}
        seal = seal_of("block_records", exact_key_of(VICTIM), bytes(group.attrs["meta"]), arrays)
        group.attrs.modify("seal", np.bytes_(seal))

    with gamwarm.open(path, "r") as store:
        assert "content digest" in store.verify().problems[0].reason


def test_damaged_values_are_replaced_by_the_next_put_and_the_file_is_sound_again(path, caplog):
    fill(path, 9000)
    with h5py.File(path, "r+") as h5:
        h5["block_records"][exact_key_of(VICTIM)]["beta"][17] = 4.0
        for group in h5["fit_artifacts"].values():
            for child in group.values():
                child.attrs.modify("beta", child.attrs["beta"] + 1.0)

    with gamwarm.open(path) as store:
        assert len(store.verify().problems) == 1 + len(KEYS)
        assert store.put_record(record(VICTIM, 9000)).written
        for key in KEYS:
            assert store.put_artifact(artifact_of(f"s({key})", value_of(key))).written
        assert store.get_record(exact_key_of(VICTIM)).block_beta[0][17] == value_of(VICTIM)
        report = store.verify()
        assert report.ok, report.problems
        assert len(store) == 2 * len(KEYS)


def test_a_structure_that_hdf5_cannot_remove_refuses_the_put_with_the_reason_and_nothing_else(path, caplog):
    fill(path)
    image = bytearray(path.read_bytes())
    image[image.find(np.full(5, value_of(VICTIM)).tobytes())] ^= 1
    path.write_bytes(image)

    with gamwarm.open(path) as store:
        outcome = store.put_record(record(VICTIM))
        assert not outcome.written
        assert "cannot be replaced" in outcome.reason
        assert store.disabled_reason is None
        assert store.put_record(record(77)).written
    with gamwarm.open(path, "r") as store:
        assert len(store.keys()) == len(KEYS) + 1
        assert [p.place for p in store.verify().problems] == [f"/block_records/{exact_key_of(VICTIM)}"]


def test_a_wrong_total_is_found_by_verify(path):
    fill(path)
    with h5py.File(path, "r+") as h5:
        h5.attrs.modify("n_entries", np.int64(3))

    with gamwarm.open(path, "r") as store:
        report = store.verify()
        assert [str(p) for p in report.problems] == ["/: attribute n_entries says 3, but 10 were counted"]


def open_and_use(path, mode):
    """Return the values served, or the typed error; anything else is a failure of the test."""
    try:
        with gamwarm.open(path, mode, on_error="raise") as store:
            served = {key: store.get_record(exact_key_of(key)) for key in KEYS}
            store.entry_ids()
            store.start_for(plain_fit())
            verdict = store.verify()
            if mode == "a":
                store.put_record(record(50))
    except GamwarmError as error:
        return error
    for key, found in served.items():
        assert found is None or found == store_record(key), "a wrong number was served"
    if any(found is None for found in served.values()):
        assert not verdict.ok
    return served


def store_record(key):
    return gamwarm.BlockRecord(
        **{n: getattr(record(key), n) for n in record(key).__dataclass_fields__} | {"producer": gamwarm.Producer()}
    )


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_truncated_file_is_refused_by_a_typed_error_or_serves_only_right_numbers(path, mode):
    fill(path)
    image = path.read_bytes()
    for size in [1, 8, 63, 64, 511, 512, 513, *range(1024, len(image), 1536), len(image) - 1]:
        path.write_bytes(image[:size])
        outcome = open_and_use(path, mode)
        assert isinstance(outcome, StoreError), f"cut to {size} bytes: {outcome}"


def test_a_byte_flipped_anywhere_never_serves_a_wrong_number_nor_a_bare_error(path):
    fill(path)
    image = path.read_bytes()
    pick = random.Random(7)
    refused = 0
    for spot in pick.sample(range(len(image)), 150):
        changed = bytearray(image)
        changed[spot] ^= 1 << pick.randrange(8)
        path.write_bytes(changed)
        outcome = open_and_use(path, "r")
        refused += isinstance(outcome, GamwarmError)

    assert refused < 75


def test_zeros_over_a_page_of_the_file_never_serve_a_wrong_number(path):
    fill(path)
    image = path.read_bytes()
    for start in range(0, len(image), 4096):
        changed = bytearray(image)
        changed[start : start + 4096] = bytes(len(changed[start : start + 4096]))
        path.write_bytes(changed)
        open_and_use(path, "r")


def test_damage_of_the_root_switches_the_store_off_with_one_warning(path, caplog):
    fill(path)
    image = bytearray(path.read_bytes())
    spot = image.find(b"gamwarm store, entry format")
    assert spot > 0
    image[spot] ^= 1
    path.write_bytes(image)

    with gamwarm.open(path) as store:
        assert store.get_record(exact_key_of(1)) is None
        assert store.start_for(plain_fit()).source == "cold"
        assert store.disabled_reason is not None
    assert len(warnings_of(caplog)) == 1
    with pytest.raises(StoreDamaged):
        gamwarm.open(path, on_error="raise")
