"""A reader made from docs/file-format.md alone, with h5py and blake3, finds every number and every
digest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import gamwarm
from gamwarm import Curvature, GlobalFitSummary, InnerMode
from gamwarm.records import GroupSeeds
from tests.support.stores import artifact_of, carrier_fit, exact_key_of, plain_fit, record_of, result_of

READER = r'''
import json, re, struct, sys
import h5py, numpy as np
from blake3 import blake3

class Refuse:
    def find_spec(self, name, *_):
        assert name.split(".")[0] not in ("gamwarm", "tests"), f"the reader imported {name}"

sys.meta_path.insert(0, Refuse())

def text_of(value):
    return value if isinstance(value, bytes) else bytes(value.item()) if hasattr(value, "item") else value.encode()

def value_of(group, name):
    if name in group.attrs:
        return group.attrs[name]
    return group[name][()] if name in group else None

def seal(section, key, meta, vectors):
    hasher = blake3()
    parts = [("place", f"{section}/{key}".encode()), ("meta", meta)]
    parts += [(n, v.tobytes()) for n, v in sorted(vectors.items())]
    for name, data in parts:
        hasher.update(f"{name}:{len(data)}:".encode() + data)
    return hasher.digest()[:16].hex()

class Token(float):
    """A number that is written as it was found."""
    def __new__(cls, text):
        self = super().__new__(cls, text)
        self.text = text
        return self
    def __repr__(self):
        return self.text

def canonical(value):
    if isinstance(value, dict):
        pairs = (json.dumps(k, ensure_ascii=False) + ":" + canonical(value[k]) for k in sorted(value))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return value.text if isinstance(value, Token) else json.dumps(value, ensure_ascii=False)

def entry_id(section, key, meta, vectors):
    content = json.loads(meta, parse_float=Token)
    del content["created"], content["entry_id"]
    content.pop("penalties", None)
    content["attributes"] = {}
    if content["cost"] is not None:
        del content["cost"]["seconds"]
    def string(s):
        return struct.pack("<Q", len(s.encode())) + s.encode()
    hasher = blake3()
    for s in ("gamwarm-entry-1", section, key, canonical(content)):
        hasher.update(string(s))
    for name, v in sorted((n, v) for n, v in vectors.items() if n != "components"):
        hasher.update(string(name) + struct.pack("<Q", len(v)) + (v.astype("<f8") + 0.0).tobytes())
    return hasher.digest()[:16].hex()

def cut(vector, sizes):
    vector = np.zeros(0) if vector is None else vector
    assert len(vector) == sum(sizes), (len(vector), sizes)
    return [part.tolist() for part in np.split(vector, np.cumsum(sizes)[:-1])] if sizes else []

def read(section, key, group):
    meta = text_of(value_of(group, "meta"))
    names = ("rho", "beta", "curvature", "inner", "active", "components", "seeds")
    vectors = {n: v for n in names if (v := value_of(group, n)) is not None}
    assert seal(section, key, meta, vectors) == text_of(value_of(group, "seal")).decode(), "seal"
    fields = json.loads(meta)
    assert entry_id(section, key, meta, vectors) == fields["entry_id"], "entry id"
    out = {"key": key, "meta": fields, "nbytes": len(meta) + sum(v.nbytes for v in vectors.values())}
    q = fields["n_outer"]
    if fields["curvature"] is not None:
        sizes = [q * q if part == "hessian" else q for part in fields["curvature"]]
        out["curvature"] = dict(zip(fields["curvature"], cut(vectors.get("curvature"), sizes)))
    if section == "block_records":
        assert fields["entry"] == "record"
        out["rho"] = cut(vectors.get("rho"), [q])[0]
        out["beta"] = dict(zip(fields["blocks"], cut(vectors.get("beta"), fields["widths"])))
        if fields["active"] is not None:
            mine = iter(cut(vectors.get("active"), [n for n in fields["active"] if n is not None]))
            out["active"] = [None if n is None else next(mine) for n in fields["active"]]
        if "penalties" in fields:
            mine = vectors["components"].tolist()
            out["components"] = {"all": mine, "fit": mine[:3]}
            at = 3
            for block, n in zip(fields["blocks"], fields["penalties"], strict=True):
                own = {"design": mine[at], "offset": mine[at + 1], "penalties": mine[at + 2 : at + 2 + n]}
                out["components"][block] = own
                at += 4 + n
            out["components"]["options"] = mine[at:]
        if fields["inner"] is not None:
            lengths = [fields["inner"][n] or 0 for n in ("logdet_h", "logdet_s", "log_lambdas")]
            out["inner"] = cut(vectors.get("inner"), lengths)
    else:
        assert fields["entry"] == "artifact"
        terms = fields["terms"]
        out["beta"] = dict(zip([t["name"] for t in terms], cut(vectors.get("beta"), [t["raw_width"] for t in terms])))
        out["rho"] = cut(vectors.get("rho"), [t["n_rho"] for t in terms])
        if "seeds" in fields:
            told = fields["seeds"]
            q, width = told["n_outer"], sum(t["raw_width"] for t in terms)
            lower = q * (q + 1) // 2 if told.get("has_hessian") else 0
            rows = cut(vectors.get("seeds"), [q + width + lower] * len(told["labels"]))
            out["seeds"] = {label: [row[:q], row[q : q + width], row[q + width :]]
                            for label, row in zip(told["labels"], rows, strict=True)}
    return out

found = {"block_records": [], "fit_artifacts": [], "index": {}}
with h5py.File(sys.argv[1], "r") as h5:
    assert h5.attrs["format_version"] == 2
    assert sorted(h5) == ["block_records", "fit_artifacts"]
    for key, group in h5["block_records"].items():
        assert re.fullmatch("cf-[0-9a-f]{64}", key)
        own = read("block_records", key, group)
        found["block_records"].append(own)
        for name, child in group.items():
            if isinstance(child, h5py.Group):
                other = read("block_records", key, child)
                assert other["meta"]["entry_id"] == name
                found["block_records"].append(other)
    for key, group in h5["fit_artifacts"].items():
        assert re.fullmatch("[0-9a-f]{64}", key)
        for name, child in group.items():
            artifact = read("fit_artifacts", key, child)
            assert artifact["meta"]["entry_id"] == name
            found["fit_artifacts"].append(artifact)
    recent = [text_of(row).decode().rstrip("\0").split(" ") for row in h5.attrs.get("recent", [])]
    for section in ("block_records", "fit_artifacts"):
        ids = {n: text_of(v).decode() for n, v in h5[section].attrs.items() if re.fullmatch("[0-9a-f]{32}", n)}
        ids |= {row[0]: row[1].split("/")[1] for row in recent if row[1:] and row[1].startswith(section + "/")}
        assert ids == {e["meta"]["entry_id"]: e["key"] for e in found[section]}
    tables = {n: [text_of(row).decode() for row in rows] for n, rows in h5["fit_artifacts"].attrs.items()
              if n.startswith(("structural:", "related:"))}
    tables |= {key: [text_of(row).decode() for row in group.attrs["candidates"]]
               for key, group in h5["fit_artifacts"].items()}
    assert all(rows == sorted(rows, reverse=True) for rows in tables.values())
    fits = {n: text_of(v).decode() for n, v in h5["fit_artifacts"].attrs.items() if n.startswith("fit:")}
    for row in recent:
        if len(row) == 4:
            fits["fit:" + row[3]] = max(f"{row[2]} {row[0]}", fits.get("fit:" + row[3], ""))
    for name, keys in h5["fit_artifacts"].attrs.items():
        if name.startswith("widths:"):
            assert keys.tolist() == sorted(keys.tolist())
            for width in keys:
                assert f"structural:{name.removeprefix('widths:')}:{width}" in tables
    found["index"] = tables
    for artifact in found["fit_artifacts"]:
        meta = artifact["meta"]
        row = f"{meta['converged']:d} {meta['n_rows']:019d} {meta['created']:019d} {meta['entry_id']} {artifact['key']}"
        own = tables[artifact["key"]]
        assert row in own or (len(own) == 8 and row < own[-1])
        structural = meta["structural_key"]
        if structural:
            width = sum(term["reduced_width"] or 0 for term in meta["terms"])
            alike = tables[f"structural:{structural}:{width}"]
            assert row in alike or (len(alike) == 8 and row < alike[-1])
        for term in meta["terms"]:
            if term["n_rho"] and term["name"]:
                kind = (term["basis"] or {}).get("kind")
                h = blake3()
                for part in ("gamwarm-term-relation", meta["descriptor"]["family_kind"], term["role"], term["name"]):
                    h.update(struct.pack("<Q", len(part.encode())) + part.encode())
                h.update(bytes([kind is not None]) + struct.pack("<Q", len(kind or "")) + (kind or "").encode())
                h.update(struct.pack("<Q", term["n_rho"]))
                models = [row.split(" ")[1:] for row in tables["related:" + h.hexdigest()[:32]]]
                assert ["1", structural] in models if structural else ["0", artifact["key"]] in models
        if meta["fit_key"]:
            assert fits["fit:" + meta["fit_key"][3:35]] >= f"{meta['created']:019d} {meta['entry_id']}"
    entries = found["block_records"] + found["fit_artifacts"]
    assert h5.attrs["n_entries"] == len(entries)
    assert h5.attrs["live_bytes"] == sum(e["nbytes"] for e in entries)
    assert h5.attrs["last_created"] == max(e["meta"]["created"] for e in entries)
print(json.dumps(found))
'''


def big_record():
    return record_of(
        2,
        block_names=[f"b{i}" for i in range(3000)],
        block_dims=[3] * 3000,
        block_beta=np.arange(9000.0).reshape(3000, 3) / 7,
        rho=np.linspace(-1, 1, 120),
        curvature=Curvature(np.zeros(120), np.eye(120) / 3, None, np.arange(120) % 2 == 0),
        active_sets=[[i] if i % 2 else None for i in range(3000)],
        inner=InnerMode(1 / 3, 1e-300, 3, False, np.ones(3000), [0.5], log_lambdas=[]),
        attributes={"Maßeinheit": "µg/m³", "tiny": 5e-324, "whole": 10**25, "minus": -0.0},
        rho_bound=np.inf,
    )


def seeded_artifact():
    # Long enough to be a dataset.
    plain = artifact_of()
    width = sum(len(t.raw_beta) for t in plain.terms)
    labels = [f"group é {i}" for i in range(9000)]
    rng = np.random.default_rng(1)
    seeds = GroupSeeds(
        "carrier", labels, rng.normal(size=(9000, 2)), rng.normal(size=(9000, width)), rng.normal(size=(9000, 2, 2))
    )
    return replace(plain, summary=GlobalFitSummary(1.0, True, 99), seeds=seeds)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path, engine="tests", engine_version="1") as store:
        parent = carrier_fit()
        for problem in (parent, carrier_fit(range(35)), plain_fit()):
            with store.fit(problem) as fit:
                kept = fit.keep(result_of(problem, 2.5, active_sets=[[4, 2]] + [None] * (len(problem.specs) - 1)))
                assert kept.record.written
        for entry in (record_of(1), record_of(1, 0.5, kind="checkpoint"), big_record(), record_of(3, rho=[-0.0, 0.0])):
            assert store.put_record(entry).written
        assert store.put_artifact(artifact_of()).written
        assert store.put_artifact(seeded_artifact()).written
    return path


@pytest.fixture
def found(path):
    return read_by_the_page(path)


def read_by_the_page(path):
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_alone_is_enough_to_read_every_number_and_check_every_digest(path, found):
    with gamwarm.open(path, "r", engine="tests", engine_version="1") as store:
        ids = {e["meta"]["entry_id"] for section in ("block_records", "fit_artifacts") for e in found[section]}
        assert ids == store.entry_ids()
        for seen in found["block_records"]:
            if seen["meta"]["kind"] == "checkpoint":
                continue
            record = store.get_record(seen["key"])
            assert seen["rho"] == record.rho.tolist()
            assert list(seen["beta"].values()) == [b.tolist() for b in record.block_beta]
            assert list(seen["beta"]) == list(record.block_names)
            wanted = None if all(a is None for a in record.active_sets) else list(record.active_sets)
            assert seen.get("active") == (wanted and [None if a is None else list(a) for a in wanted])
            assert seen.get("components", {}).get("all") == (record.components and list(record.components.digests))
            for part in ("gradient", "edf", "plateau"):
                values = None if record.curvature is None else getattr(record.curvature, part)
                assert seen.get("curvature", {}).get(part) == (None if values is None else values.tolist())
            if record.inner is not None:
                assert seen["inner"][0] == record.inner.block_logdet_h.tolist()
                assert seen["inner"][1] == record.inner.block_logdet_s.tolist()
        for seen in found["fit_artifacts"]:
            artifact = store.get_artifact(seen["key"])
            assert list(seen["beta"].values()) == [t.raw_beta.tolist() for t in artifact.terms]
            assert seen["rho"] == [t.rho_for_term.tolist() for t in artifact.terms]

        seeded = next(a for a in found["fit_artifacts"] if "seeds" in a)
        seeds = seeded_artifact().seeds
        assert list(seeded["seeds"]) == list(seeds.labels)
        for place, (rho, beta, hessian) in enumerate(seeded["seeds"].values()):
            assert hessian == seeds.hessian[place][np.tril_indices(2)].tolist()
            assert rho == seeds.rho[place].tolist()
            assert beta == seeds.beta[place].tolist()


def test_the_index_lists_relatives_by_their_structural_key(found):
    one, two = carrier_fit(), carrier_fit(range(35))

    listed = [rows for name, rows in found["index"].items() if name.startswith(f"structural:{one.structural_key}:")]

    assert {row.split(" ")[-1] for rows in listed for row in rows} == {one.descriptor.key, two.descriptor.key}


def test_a_table_holds_the_best_of_many(tmp_path):
    with gamwarm.open(tmp_path / "many.h5") as store, store.transaction():
        for value in range(40):
            assert store.put_artifact(artifact_of(value=float(value), n_rows=value % 20)).pending

    found = read_by_the_page(tmp_path / "many.h5")

    assert sorted(len(rows) for name, rows in found["index"].items() if not name.startswith("related:")) == [8, 8]


def test_the_reader_finds_the_checkpoint_next_to_the_final(found):
    kinds = [e["meta"]["kind"] for e in found["block_records"] if e["key"] == exact_key_of(1)]

    assert kinds == ["final", "checkpoint"]


def test_the_reader_refuses_a_changed_number(path):
    import h5py

    with h5py.File(path, "r+") as h5:
        h5["block_records"][exact_key_of(2)]["beta"][5] = 0.25
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode != 0
    assert "AssertionError: seal" in done.stderr
