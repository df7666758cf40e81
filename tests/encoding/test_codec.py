"""Entries as text and arrays: every part survives, the entry id names the content, the seal covers
all bytes.
"""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from gamwarm import (
    BasisMeta,
    BlockRecord,
    Cost,
    Curvature,
    FitArtifact,
    FitDescriptor,
    GlobalFitSummary,
    InnerMode,
    Lineage,
    Producer,
    TermArtifact,
    term_identity,
)
from gamwarm.encoding.artifact_kind import encode_artifact
from gamwarm.encoding.codec import (
    DamagedEntry,
    Encoded,
    check_content,
    decode,
    encode,
    seal_of,
    sealed_parts,
    stamped_at,
)
from gamwarm.encoding.entry_kind import KINDS
from gamwarm.encoding.record_kind import encode_record
from gamwarm.encoding.texts import LATEST, parse_text
from gamwarm.identity import Components
from tests.data import make_golden
from tests.support.stores import artifact_of, exact_key_of, record_of

finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)
# Any text that UTF-8 can encode: no lone surrogates.
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
flags = st.booleans()


def vectors(length):
    return st.lists(finite, min_size=length, max_size=length)


def maybe(strategy):
    return st.none() | strategy


@st.composite
def curvatures(draw, q):
    return Curvature(
        draw(maybe(vectors(q))),
        draw(maybe(st.lists(vectors(q), min_size=q, max_size=q).map(lambda rows: np.array(rows).reshape(q, q)))),
        draw(maybe(vectors(q))),
        draw(maybe(st.lists(flags, min_size=q, max_size=q))),
    )


producers = st.builds(Producer, words, st.text("0123456789.", max_size=6), words)
costs = st.builds(Cost, counts, counts, counts, counts, st.floats(0, 1e9))
entry_ids = st.text("0123456789abcdef", min_size=32, max_size=32)
lineages = st.builds(
    Lineage,
    st.sampled_from(["exact", "transfer", "cold"]),
    maybe(entry_ids),
    st.lists(st.tuples(words, st.sampled_from(["projected", "rho-only", "cold"])), max_size=3).map(tuple),
    maybe(flags),
)
attributes = st.dictionaries(words, words | st.integers(-(2**70), 2**70) | finite, max_size=3)
common = {
    "producer": producers,
    "created": st.integers(1, LATEST),
    "lineage": maybe(lineages),
    "cost": maybe(costs),
    "attributes": attributes,
    "rho_bound": st.floats(2.5, 1e6) | st.just(np.inf),
}


@st.composite
def inner_modes(draw, blocks):
    return InnerMode(
        draw(finite),
        draw(finite),
        draw(counts),
        draw(flags),
        draw(vectors(blocks)),
        draw(vectors(blocks)),
        draw(maybe(finite)),
        draw(maybe(st.integers(0, 4).flatmap(vectors))),
    )


@st.composite
def records(draw):
    dims = draw(st.lists(st.integers(0, 4), max_size=4))
    q = draw(st.integers(0, 4))
    rows = st.lists(st.integers(0, 2**50), min_size=1, max_size=3)
    return BlockRecord(
        key=exact_key_of(draw(st.integers(0, 2**64))),
        n_rows=draw(counts),
        block_names=draw(st.lists(words, min_size=len(dims), max_size=len(dims))),
        block_dims=dims,
        rho=draw(vectors(q)),
        block_beta=[draw(vectors(d)) for d in dims],
        active_sets=draw(maybe(st.tuples(*[maybe(rows) for _ in dims]))),
        inner=draw(maybe(inner_modes(len(dims)))),
        objective=draw(maybe(finite)),
        kind=draw(st.sampled_from(["final", "checkpoint"])),
        converged=draw(maybe(flags)),
        iteration=draw(maybe(counts)),
        curvature=draw(maybe(curvatures(q))),
        **{name: draw(strategy) for name, strategy in common.items()},
    )


basis_metas = st.builds(
    BasisMeta,
    words,
    degree=maybe(st.integers(0, 5)),
    num_knots=maybe(st.integers(0, 50)),
    nullspace_order=maybe(st.integers(0, 3)),
    matern_nu=maybe(st.floats(0.5, 5)),
    periodic=maybe(flags),
)


@st.composite
def artifacts(draw):
    sizes = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=4))
    q = sum(n for _, n in sizes)
    terms, first = [], 0
    for number, (width, n) in enumerate(sizes):
        name = f"{draw(words)}{number}"
        terms.append(
            TermArtifact(
                identity=term_identity("generic", name, [None] * n, [], width),
                role=draw(st.sampled_from(["mean", "log-slope", "generic"])),
                basis_meta=draw(maybe(basis_metas)),
                raw_beta=draw(vectors(width)),
                rho_for_term=draw(vectors(n)),
                structural_identity=draw(maybe(st.just(term_identity("generic", name, [], [], width)))),
                reduced_width=draw(maybe(st.just(width))),
                plateau=draw(maybe(st.lists(flags, min_size=n, max_size=n))),
                rho_slots=range(first, first + n),
                name=draw(st.just("") | words),
            )
        )
        first += n
    return FitArtifact(
        descriptor=FitDescriptor(draw(words), tuple(t.identity for t in terms), draw(maybe(words)), draw(maybe(words))),
        terms=terms,
        summary=GlobalFitSummary(draw(finite), draw(flags), draw(counts)),
        curvature=draw(maybe(curvatures(q))),
        fit_key=draw(maybe(st.just(exact_key_of(4)))),
        **{name: draw(strategy) for name, strategy in common.items()},
    )


def stored_again(encoded):
    """Return an entry as it comes back from its own text and bytes."""
    arrays = {n: np.frombuffer(a.tobytes(), a.dtype) for n, a in encoded.arrays.items()}
    return Encoded(encoded.section, encoded.key, json.loads(encoded.text()), arrays)


@given(records())
def test_a_record_survives_with_all_its_optional_parts(record):
    encoded = stored_again(encode_record(record))

    check_content(encoded)
    again = decode(encoded)
    assert again == record
    assert again.created == record.created
    assert (again.cost is None) == (record.cost is None)
    assert again.cost is None or again.cost.seconds == record.cost.seconds
    assert [b.tobytes() for b in again.block_beta] == [b.tobytes() for b in record.block_beta], "a bit was lost"


@given(artifacts())
def test_an_artifact_survives_with_all_its_optional_parts(artifact):
    encoded = stored_again(encode_artifact(artifact))

    check_content(encoded)
    again = decode(encoded)
    assert again == artifact
    assert again.created == artifact.created
    assert again.descriptor.key == encoded.key
    assert again.structural_key == encoded.meta["structural_key"]


@given(records() | artifacts())
def test_what_is_written_is_parsed_back_to_an_equal_summary_that_says_what_the_entry_does(entry):
    encoded = encode_record(entry) if isinstance(entry, BlockRecord) else encode_artifact(entry)
    path = f"{encoded.key}/{encoded.entry_id}"

    summary = KINDS[encoded.section].summarize(path, parse_text(encoded.section, encoded.text()))

    assert summary == encoded.summary()
    assert hash((summary.producer, summary.lineage, summary.cost)) is not None
    for name in ("created", "lineage", "cost", "attributes"):
        assert getattr(summary, name) == getattr(entry, name)
    assert summary.producer == (entry.producer or Producer("", "", ""))
    assert summary.cost is None or summary.cost.seconds == entry.cost.seconds
    if isinstance(entry, BlockRecord):
        assert (summary.kind, summary.fit_key, summary.key) == (entry.kind, entry.key, entry.key)
        assert (summary.blocks, summary.n_rows, summary.width) == (
            entry.block_names,
            entry.n_rows,
            sum(entry.block_dims),
        )
        assert (summary.objective, summary.converged) == (entry.objective, entry.converged)
        assert (summary.n_outer, summary.iteration) == (len(entry.rho), entry.iteration)
    else:
        assert (summary.kind, summary.fit_key, summary.key) == ("artifact", entry.fit_key, entry.descriptor.key)
        assert (summary.family, summary.structural_key) == (entry.descriptor.family_kind, entry.structural_key)
        assert summary.blocks == tuple(term.name for term in entry.terms)
        assert summary.width == sum(len(term.raw_beta) for term in entry.terms)
        assert summary.reduced_width == sum(term.reduced_width or 0 for term in entry.terms)
        assert (summary.objective, summary.converged) == (entry.summary.outer_objective, entry.summary.converged)


RECORD = record_of(
    created=5,
    producer=Producer("e", "1", "g"),
    cost=Cost(1, 2, 3, 4, seconds=5.0),
    lineage=Lineage("cold"),
    inner=InnerMode(1.0, 2.0, 3, True, [0.5, 0.5], [0.25, 0.25], 1e-6, [0.0, 1.0]),
    curvature=Curvature([0.0, 0.1], np.eye(2), [1.0, 2.0], [True, False]),
    active_sets=[[1], None],
    iteration=3,
    attributes={"a": 1},
)


@pytest.mark.parametrize("created", [0, 6, 2**50])
def test_the_entry_id_leaves_out_when_an_entry_was_made(created):
    assert encode_record(replace(RECORD, created=created)).entry_id == encode_record(RECORD).entry_id
    artifact = artifact_of(created=1)
    assert encode_artifact(replace(artifact, created=created)).entry_id == encode_artifact(artifact).entry_id


def test_the_entry_id_leaves_out_seconds():
    slower = replace(RECORD, cost=replace(RECORD.cost, seconds=99.0))

    assert encode_record(slower).entry_id == encode_record(RECORD).entry_id


@pytest.mark.parametrize("labels", [{}, {"a": 2}, {"a": "1"}, {"a": 1, "größe": 0.5}])
@pytest.mark.parametrize(("entry", "encode"), [(RECORD, encode_record), (artifact_of(created=1), encode_artifact)])
def test_the_entry_id_leaves_out_the_users_labels_which_are_sealed_and_come_back(labels, entry, encode):
    labelled, plain = encode(replace(entry, attributes=labels)), encode(replace(entry, attributes={"b": "other"}))

    assert labelled.entry_id == plain.entry_id
    assert decode(labelled).attributes == labels
    check_content(labelled)
    assert seal_of("r", "k", labelled.text(), labelled.arrays) != seal_of("r", "k", plain.text(), plain.arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": exact_key_of(2)},
        {"n_rows": 51},
        {"block_names": ["mean", "sigma"]},
        {"rho": [0.5, -1.5]},
        {"block_beta": [[1.0, 2.0, 3.0], [4.0, 5.5]]},
        {"block_dims": [2, 3], "block_beta": [[1.0, 2.0], [3.0, 4.0, 5.0]]},
        {"active_sets": [[2], None]},
        {"active_sets": [None, [1]]},
        {"active_sets": None},
        {"inner": None},
        {"inner": replace(RECORD.inner, cycles=4)},
        {"inner": replace(RECORD.inner, block_logdet_s=[0.25, 0.5])},
        {"inner": replace(RECORD.inner, inner_tol=None)},
        {"inner": replace(RECORD.inner, log_lambdas=None)},
        {"objective": 1.5},
        {"objective": None},
        {"kind": "checkpoint", "converged": True},
        {"converged": False},
        {"iteration": 4},
        {"iteration": None},
        {"curvature": None},
        {"curvature": replace(RECORD.curvature, edf=None)},
        {"curvature": replace(RECORD.curvature, plateau=[True, True])},
        {"rho_bound": 11.0},
        {"rho_bound": np.inf},
        {"nuisance": ["log scale"]},
        {"curvature": replace(RECORD.curvature, settled=[True, True])},
        {"inner": replace(RECORD.inner, block_logdet_h=2.5)},
        {"producer": Producer("e", "2", "g")},
        {"producer": Producer("e", "1", "h")},
        {"lineage": None},
        {"lineage": Lineage("cold", consumed=False)},
        {"cost": None},
        {"cost": Cost(2, 2, 3, 4, seconds=5.0)},
    ],
    ids=lambda c: ",".join(c),
)
def test_the_entry_id_leaves_out_nothing_else(changes):
    assert encode_record(replace(RECORD, **changes)).entry_id != encode_record(RECORD).entry_id


@pytest.mark.parametrize("forms", [(), [["kron 2 x 3"], []]])
def test_components_are_no_content_of_their_own_but_are_sealed_and_come_back(forms):
    made = Components([1, 0], range(-5, 7), forms)
    plain, told = encode_record(RECORD), encode_record(replace(RECORD, components=made))

    assert told.entry_id == plain.entry_id
    assert decode(told).components == made
    assert decode(plain).components is None
    check_content(told)
    assert seal_of("r", "k", told.text(), told.arrays) != seal_of("r", "k", plain.text(), plain.arrays)


def test_every_field_of_a_record_is_in_the_list_above_or_is_the_time_a_label_or_follows_from_the_key():
    named = {name for changes in test_the_entry_id_leaves_out_nothing_else.pytestmark[0].args[1] for name in changes}

    assert named | {"created", "components", "attributes"} == set(BlockRecord.__dataclass_fields__)


def test_the_entry_id_of_an_artifact_depends_on_all_its_parts():
    artifact = artifact_of(curvature=Curvature([0.5]), producer=Producer("e"), fit_key=exact_key_of(1))
    term = artifact.terms[0]
    others = [
        replace(artifact, **changes)
        for changes in (
            {"descriptor": replace(artifact.descriptor, family_kind="other")},
            {"descriptor": replace(artifact.descriptor, row_population="all")},
            {"summary": replace(artifact.summary, n_rows=9)},
            {"summary": replace(artifact.summary, outer_objective=9.0)},
            {"curvature": None},
            {"rho_bound": 12.0},
            {"nuisance": {"log scale": 1.0}},
            {"nuisance": {"log scale": 2.0}},
            {"producer": Producer("f")},
            {"lineage": Lineage("cold")},
            {"cost": Cost(1)},
            {"fit_key": exact_key_of(2)},
            *(
                {"terms": [replace(term, **changes)]}
                for changes in (
                    {"role": "generic"},
                    {"basis_meta": None},
                    {"raw_beta": np.zeros(4)},
                    {"rho_for_term": [1.0]},
                    {"structural_identity": None},
                    {"reduced_width": None},
                    {"plateau": [True]},
                    {"settled": [True]},
                    {"rho_slots": None},
                    {"name": "other"},
                )
            ),
        )
    ]

    ids = [encode_artifact(other).entry_id for other in [artifact, *others]]
    assert len(set(ids)) == len(ids)


def test_negative_zero_and_zero_are_one_content_but_both_are_kept_unchanged():
    plus, minus = record_of(rho=[0.0, 1.0], created=1), record_of(rho=[-0.0, 1.0], created=1)

    assert encode_record(plus).entry_id == encode_record(minus).entry_id
    assert np.signbit(decode(stored_again(encode_record(minus))).rho[0])


@given(records(), counts)
def test_the_text_is_the_sorted_json_of_the_intact_description_whatever_it_was_put_together_from(record, created):
    encoded = stamped_at(encode_record(record), created)
    assert encoded.meta["created"] == created
    again = json.dumps(encoded.meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    assert encoded.text() == again.encode()
    check_content(encoded)


@given(records(), st.data())
def test_the_seal_covers_every_stored_byte_and_the_place(record, data):
    encoded = encode_record(record)
    text = encoded.text()
    seal = seal_of(encoded.section, encoded.key, text, encoded.arrays)
    name = data.draw(st.sampled_from(["meta", "key", "section", *encoded.arrays]))
    section, key, arrays = encoded.section, encoded.key, dict(encoded.arrays)
    if name == "meta":
        text = flipped(text, data)
    elif name == "key":
        key = exact_key_of(2**65)
    elif name == "section":
        section = "fit_artifacts"
    else:
        arrays[name] = np.frombuffer(flipped(arrays[name].tobytes(), data), arrays[name].dtype)

    assert seal_of(section, key, text, arrays) != seal


def flipped(stored, data):
    changed = bytearray(stored)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(changed)


def test_the_seal_tells_apart_bytes_that_moved_from_one_vector_to_the_next():
    one = {"beta": np.array([1.0, 2.0]), "rho": np.array([3.0])}
    two = {"beta": np.array([1.0]), "rho": np.array([2.0, 3.0])}

    assert seal_of("s", "k", b"{}", one) != seal_of("s", "k", b"{}", two)
    assert seal_of("s", "k", b"{}", one) != seal_of("s", "k", b"{}", one | {"inner": np.zeros(0)})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.pop("blocks"),
        lambda m: m.update(widths=[3]),
        lambda m: m.update(widths=[3, 3]),
        lambda m: m.update(kind="best"),
        lambda m: m.update(n_outer=3),
        lambda m: m.update(producer="me"),
        lambda m: m.update(curvature=["gradient", "torsion"]),
        lambda m: m.update(inner={"logdet_h": 1}),
        lambda m: m.update(n_rows=-1),
        lambda m: m.update(n_rows="many"),
        lambda m: m.update(lineage={"source": "dream"}),
    ],
)
def test_a_text_that_does_not_describe_its_vectors_is_damage_and_nothing_else(spoil):
    encoded = stored_again(encode_record(RECORD))
    spoil(encoded.meta)

    with pytest.raises(DamagedEntry):
        decode(encoded)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda seeds: seeds.update(n_outer=10**9),
        lambda seeds: seeds.update(n_outer=10**9, labels=[]),
        lambda seeds: seeds.update(has_hessian=False),
        lambda seeds: seeds.update(labels=["north"]),
    ],
)
def test_seeds_that_are_not_as_their_text_says_are_damage_found_before_anything_large_is_made(spoil):
    artifact = replace(make_golden.artifacts()["seeded"], created=1)
    encoded = stored_again(encode_artifact(artifact))
    assert decode(encoded) == artifact
    spoil(encoded.meta["seeds"])

    with pytest.raises(DamagedEntry):
        decode(encoded)


def big_record(numbers):
    return record_of(block_names=["x"], block_dims=[numbers], block_beta=[np.arange(float(numbers))])


def test_encoding_and_sealing_copy_a_vector_once():
    record = big_record(1 << 20)

    tracemalloc.start()
    try:
        encoded = encode(record, Producer("e"))
        seal_of(encoded.section, encoded.key, encoded.text(), encoded.arrays)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1.5 * encoded.arrays["beta"].nbytes


@pytest.mark.parametrize("numbers", [9, 1 << 14], ids=["short", "long"])
def test_the_digests_are_those_of_the_joined_bytes_however_long_these_are(numbers):
    encoded = encode(big_record(numbers), Producer("e"))
    parts = encoded.section, encoded.key, encoded.text(), encoded.arrays

    assert seal_of(*parts) == blake3(sealed_parts(*parts)).hexdigest(length=16)
    check_content(stored_again(encoded))


def test_what_was_encoded_does_not_change_with_what_it_was_made_of():
    record = record_of(rho=[0.5, -1.0])
    encoded = encode(record, Producer("e"))
    for array in (record.rho, *record.block_beta):
        array.setflags(write=True)
        array[:] = 7.0

    check_content(encoded)


def test_a_refused_entry_is_not_encoded():
    assert "saturated" in encode(record_of(rho=[9.75, 0.0]), Producer("e")).reason


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@given(vector=st.lists(finite, min_size=2, max_size=2), place=st.integers(0, 1))
def test_a_vector_with_a_number_that_is_not_finite_is_damage(wrong, vector, place):
    encoded = encode_record(record_of(rho_bound=np.inf, rho=vector, created=1))
    assert decode(encoded).rho.tolist() == vector
    encoded.arrays["rho"][place] = wrong

    with pytest.raises(DamagedEntry, match="rho"):
        decode(encoded)
