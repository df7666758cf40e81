"""Years later, with plain HDF5 tools: names, shapes, units, no gamwarm; and nothing next to the
file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

import gamwarm
from gamwarm import engine
from tests.support.stores import carrier_fit, exact_key_of, leftovers, plain_fit, record_of, result_of


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "fits.h5"
    with gamwarm.open(path) as store:
        for problem in (plain_fit(), carrier_fit()):
            with store.fit(problem) as fit:
                fit.keep(result_of(problem, 2.5))
        store.put_record(record_of(1))
        store.put_record(record_of(1, 0.5, kind="checkpoint"))
    return path


def run_without_gamwarm(program, path):
    """Run a program in a process that cannot import gamwarm; return what it prints, as JSON."""
    guard = """
    import sys
    class Refuse:
        def find_spec(self, name, *_):
            assert name.split('.')[0] not in ('gamwarm', 'tests'), f'a reader imported {name}'
    sys.meta_path.insert(0, Refuse())
    """
    code = textwrap.dedent(guard) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_plain_h5py_opens_the_file_and_sees_names_shapes_and_units(path):
    seen = run_without_gamwarm(
        """
        import h5py, json, numpy
        out = {}
        with h5py.File(sys.argv[1], 'r') as h5:
            out['top'] = sorted(h5)
            out['readme'] = h5.attrs['README'].decode() if isinstance(h5.attrs['README'], bytes) else h5.attrs['README']
            out['format'] = int(h5.attrs['format_version'])
            for section in h5:
                out[section] = {}
                for key, group in h5[section].items():
                    group = group if 'meta' in group.attrs else next(iter(group.values()))
                    meta = group.attrs['meta']
                    out[section][key] = {
                        'shapes': {n: list(v.shape) for n, v in group.attrs.items() if n not in ('meta', 'seal')},
                        'meta': json.loads(meta),
                    }
        print(json.dumps(out))
        """,
        path,
    )

    assert seen["top"] == ["block_records", "fit_artifacts"]
    assert seen["format"] == 2
    for word in ("microseconds", "log lambda", "units of response", "counts and seconds"):
        assert word in seen["readme"]
    record = seen["block_records"][carrier_fit().key]
    digests = record["shapes"].pop("components")
    assert record["shapes"] == {"rho": [2], "beta": [41], "curvature": [12], "inner": [4]}
    assert digests == [len(carrier_fit().components.digests)]
    assert record["meta"]["blocks"] == ["mean s(x)", "mean carrier"]
    assert record["meta"]["widths"] == [4, 37]
    assert record["meta"]["objective"] == 2.5
    assert record["meta"]["producer"]["engine"] == "tests"
    artifact = seen["fit_artifacts"][carrier_fit().descriptor.key]
    assert artifact["shapes"]["beta"] == [44]
    assert [t["name"] for t in artifact["meta"]["terms"]] == ["mean s(x)", "mean carrier"]


def test_the_top_level_is_two_groups_with_one_child_per_key(path):
    with gamwarm.open(path, "r") as store, h5py.File(path) as h5:
        assert set(h5) == {"block_records", "fit_artifacts"}
        assert sorted(h5["block_records"]) == store.keys()
        assert set(h5["fit_artifacts"]) == {f.descriptor.key for f in (plain_fit(), carrier_fit())}
        assert all(isinstance(child, h5py.Group) for section in h5.values() for child in section.values())


def test_every_group_explains_itself(path):
    with h5py.File(path) as h5:
        for place in ("/", "/block_records", "/fit_artifacts"):
            assert len(str(h5[place].attrs["README"])) > 100


def test_no_object_has_more_than_eight_attributes_and_none_is_of_variable_length(path):
    entries = []
    with h5py.File(path) as h5:
        h5.visititems(lambda name, item: entries.append((name, [item.attrs.get_id(a).get_type() for a in item.attrs])))
        for name, types in entries:
            if name.count("/"):
                assert len(types) <= 8, name
            for kind in types:
                assert kind.get_class() in (h5py.h5t.STRING, h5py.h5t.FLOAT, h5py.h5t.INTEGER), name
                assert kind.get_class() != h5py.h5t.STRING or not kind.is_variable_str(), name


def test_after_close_nothing_but_the_file_and_its_lock_remains(path):
    assert leftovers(path) == set()


def test_hdf5s_own_checks_find_nothing_wrong(path):
    with h5py.File(path) as h5:
        h5.visititems(lambda name, item: [item.attrs[a] for a in item.attrs])
        assert h5["block_records"][exact_key_of(1)].attrs["beta"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_file_may_be_read_by_plain_h5py_while_a_store_has_it_open(path):
    with gamwarm.open(path) as store, h5py.File(path, "r") as h5:
        assert sorted(h5["block_records"]) == store.keys()


def test_plain_h5py_sees_a_nuisance_coordinate_by_name(tmp_path):
    path = tmp_path / "fits.h5"
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, 120)
    y = rng.negative_binomial(2.0, 2.0 / (2.0 + np.exp(np.sin(x)))).astype(float)
    case = engine.bind({"x": x, "y": y}, [engine.Intercept(), engine.Smooth("x", k=6)], engine.NegativeBinomial("y"))
    with gamwarm.open(path) as store:
        rho = engine.fit(case.case(), store=store).result.rho

    seen = run_without_gamwarm(
        """
        import h5py, json
        out = []
        with h5py.File(sys.argv[1], 'r') as h5:
            for section in ('block_records', 'fit_artifacts'):
                group = next(iter(h5[section].values()))
                group = group if 'meta' in group.attrs else next(iter(group.values()))
                out.append([json.loads(group.attrs['meta'])['nuisance'], list(group.attrs['rho'])])
        print(json.dumps(out))
        """,
        path,
    )

    assert seen == [[["log theta"], rho.tolist()]] * 2
