"""`gamwarm doctor`: what it finds of a directory and this environment, and that it leaves nothing behind."""

from __future__ import annotations

import os

import h5py
import pytest

from gamwarm.cli import doctor
from gamwarm.cli.exits import Exit
from gamwarm.storage import DirectoryProbe


def found_by(gamwarm_command, place, *options):
    return gamwarm_command("doctor", place, "--no-mpi", "--json", *options)


def test_a_local_directory_is_well_and_stays_as_it_was(gamwarm_command, tmp_path):
    ended = found_by(gamwarm_command, tmp_path)

    told = ended.json
    assert told["writable"]
    assert told["lock"] in ("flock", "soft")
    assert told["trial_seconds"] > 0
    assert told["environment"]["h5py"] == h5py.version.version
    assert told["environment"]["HDF5"] == h5py.version.hdf5_version
    assert ended.code == (Exit.OK if told["ok"] else Exit.NO)
    assert list(tmp_path.iterdir()) == []


def test_the_path_of_a_file_means_its_directory(gamwarm_command, tmp_path):
    assert found_by(gamwarm_command, tmp_path / "fits.h5").json["directory"] == str(tmp_path)


def test_a_missing_directory_is_exit_code_5(gamwarm_command, tmp_path):
    assert found_by(gamwarm_command, tmp_path / "no" / "where").code == Exit.NO_FILE


def probed(**changes):
    whole = {
        "directory": "/somewhere",
        "file_system": "ext4",
        "shared": False,
        "flock": True,
        "by_child": True,
        "hard_links": True,
        "rename": True,
        "fsync": True,
    }
    return DirectoryProbe(**whole | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shared": True, "file_system": "nfs4"}, ["other nodes may see", "merge", "lock service"]),
        ({"rename": False}, ["compact"]),
        ({"fsync": False}, ["lost with the power"]),
        ({"file_system": "tmpfs"}, ["lives in memory"]),
    ],
)
def test_what_is_not_safe_is_said_and_ends_with_1(gamwarm_command, tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr(doctor, "probe", lambda place, child: probed(**changes))

    ended = gamwarm_command("doctor", tmp_path, "--no-mpi")

    assert ended.code == Exit.NO
    for word in words:
        assert word in ended.out


def test_a_directory_of_others_is_told_as_such(gamwarm_command, tmp_path, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: not mode & os.W_OK and access(path, mode, **more))

    ended = found_by(gamwarm_command, tmp_path)

    assert ended.code == Exit.NO
    assert not ended.json["writable"]
    assert "cannot be kept" in ended.json["worries"][0]


def test_an_mpi_that_does_not_start_is_a_worry(monkeypatch):
    monkeypatch.setattr(doctor, "_ASK_MPI", "import sys; sys.exit('no MPI library')")
    worries: list[str] = []

    assert doctor._mpi_library(worries) is None
    assert "no MPI library" in worries[0]
