"""The published digests: any implementation of the protocol gives these."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from gamwarm.identity import Fingerprinter, FitDescriptor, FitProblem, exact_key, matrix_digest, term_identity
from gamwarm.problem import IndexedDesign
from tests.support.problems import Rows, small_problem, wave

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "fingerprint.json").read_text())["vectors"]
INDEXED = json.loads((Path(__file__).parents[1] / "data" / "indexed.json").read_text())["cases"]
MATRICES = {name: text for name, text in VECTORS["matrix_digest"].items() if "entry" not in name}
PROBLEMS = {
    "small_problem(1)": {},
    "small_problem(1, labels=True)": {"labels": True},
    "small_problem(1, fixed=True)": {"fixed": True},
    "small_problem(1, outer_rel_cost_tol=1e-7)": {"outer_rel_cost_tol": 1e-7},
    "small_problem(1, outer_score_subsample=[0,2,5])": {"outer_score_subsample": [0, 2, 5]},
}


def test_the_wave_matrix_is_what_the_vectors_say():
    n, p, seed = 5, 3, 7
    by_hand = [[((i * p + j + seed) * 2654435761 % 2**32) / 2**31 - 1 for j in range(p)] for i in range(n)]

    assert wave(n, p, seed).tolist() == by_hand


def test_a_stream_of_scalars_has_the_published_digest():
    fp = Fingerprinter()
    fp.write_str("gamwarm")
    fp.write_u64(2**63 + 5)
    fp.write_bool(True)
    fp.write_f64(-0.0)
    fp.write_f64(1e-300)
    fp.write_f64_array([1.5, -0.0, 3.0])

    assert fp.hexdigest() == VECTORS["scalar_stream"]["hex"]


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, Rows], ids=["rows first", "columns first", "lazy"])
def test_a_dense_matrix_has_the_published_digest(name, form):
    _, shape, _, seed = name.split()
    n, p = map(int, shape.split("x"))

    assert matrix_digest(form(wave(n, p, int(seed)))) == MATRICES[name]


def test_a_negative_zero_entry_has_the_published_digest():
    matrix = wave(5, 3, 1)
    matrix[2, 1] = -0.0

    assert matrix_digest(matrix) == VECTORS["matrix_digest"]["wave 5x3 seed 1, entry [2,1] = -0.0"]


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "lil", "dok"])
def test_a_sparse_matrix_has_the_published_digest(form):
    matrix = wave(9000, 11, 1)
    matrix[np.abs(matrix) < 0.9] = 0.0
    (published,) = VECTORS["sparse_digest"].values()

    assert matrix_digest(sparse.csr_array(matrix).asformat(form)) == published


@pytest.mark.parametrize("case", INDEXED, ids=lambda case: f"{case['rows']}, {case['index']}")
def test_an_indexed_design_has_the_published_digest(case):
    m, p, seed = map(int, re.findall(r"\d+", case["rows"]))
    step, first, of, n = map(int, re.findall(r"\d+", case["index"]))

    assert matrix_digest(IndexedDesign(wave(m, p, seed), (np.arange(n) * step + first) % of)) == case["hex"]


def test_every_published_key_is_covered():
    assert set(PROBLEMS) == set(VECTORS["exact_key"])


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_fit_has_the_published_key(name):
    family, specs, options = small_problem(1, **PROBLEMS[name])

    assert exact_key(family, specs, options, engine="reference") == VECTORS["exact_key"][name]
    assert FitProblem(family, specs, options, engine="reference").key == VECTORS["exact_key"][name]


MEAN = ("mean", "s(x)", [None, "tie"], [1], 9)
SCALE = ("log-slope", "<scale>", [None], [2, 0], 6)


def test_terms_have_the_published_identities():
    published = list(VECTORS["term_identity"].values())

    assert [term_identity(*MEAN), term_identity(*SCALE)] == published


@pytest.mark.parametrize("terms", [(MEAN, SCALE), (SCALE, MEAN)])
def test_a_descriptor_has_the_published_key_in_either_order(terms):
    (published,) = VECTORS["descriptor_key"].values()

    assert FitDescriptor("gaussian", [term_identity(*t) for t in terms]).key == published
