"""`gamwarm doctor`: its findings about a directory and this environment; it leaves nothing
behind.
"""

from __future__ import annotations

import errno
import os

import h5py
import pytest

from gamwarm.cli import doctor
from gamwarm.cli.exit_codes import Exit
from gamwarm.errors import StoreError
from gamwarm.storage import Coherence, DirectoryProbe
from tests.support.shared_mounts import bindfs_mounts, why_not

INCOHERENT = Coherence(flock=True, links=True, kept=False, fresh=False, lost=0)


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


def test_a_missing_path_without_a_suffix_is_no_file_to_be_made(gamwarm_command, tmp_path):
    assert found_by(gamwarm_command, tmp_path / "scratch").code == Exit.NO_FILE


def test_a_directory_that_does_not_tell_its_free_space_is_a_typed_error(gamwarm_command, tmp_path, monkeypatch):
    def fail(place):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(doctor.shutil, "disk_usage", fail)
    with pytest.raises(StoreError, match="free space"):
        doctor._of_the_place(tmp_path, None, [])


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
        "coherence": None,
    }
    return DirectoryProbe(**whole | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shared": True, "file_system": "nfs4"}, ["other hosts may see", "srun -N2", "--peer 1", "--with"]),
        ({"shared": True, "coherence": INCOHERENT}, ["not safe for several writers", "does not show", "merge"]),
        ({"rename": False}, ["compact"]),
        ({"fsync": False}, ["lost in a power failure"]),
        ({"file_system": "tmpfs"}, ["is in memory"]),
    ],
)
def test_what_is_not_safe_is_said_and_ends_with_1(gamwarm_command, tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr(doctor, "probe", lambda place, child: probed(**changes))

    ended = gamwarm_command("doctor", tmp_path, "--no-mpi")

    assert ended.code == Exit.NO
    for word in words:
        assert word in ended.out


def test_a_directory_of_others_is_reported_as_such(gamwarm_command, tmp_path, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: not mode & os.W_OK and access(path, mode, **more))

    ended = found_by(gamwarm_command, tmp_path)

    assert ended.code == Exit.NO
    assert not ended.json["writable"]
    assert "cannot be stored" in ended.json["worries"][0]


def test_an_mpi_that_does_not_start_is_a_worry(monkeypatch):
    monkeypatch.setattr(doctor, "_ASK_MPI", "import sys; sys.exit('no MPI library')")
    worries: list[str] = []

    assert doctor._mpi_library(worries) is None
    assert "no MPI library" in worries[0]


@pytest.mark.parametrize(
    ("changes", "code", "words", "noted"),
    [
        ({}, Exit.OK, ["safe", "no problems found"], False),
        ({"kept": False}, Exit.OK, ["safe with reopening", "no problems found"], False),
        ({"fresh": False}, Exit.NO, ["not safe for several writers", "gamwarm merge"], True),
        ({"lost": 3}, Exit.NO, ["3 records", "overwritten"], True),
        ({"flock": False, "links": False}, Exit.NO, ["neither flock nor a hard link"], True),
        ({"flock": False}, Exit.NO, ["use the soft lock"], True),
    ],
)
def test_two_clients_say_whether_several_hosts_may_write(
    gamwarm_command, tmp_path, monkeypatch, changes, code, words, noted
):
    found = Coherence(**{"flock": True, "links": True, "kept": True, "fresh": True, "lost": 0} | changes)
    monkeypatch.setattr(doctor, "probe", lambda place, child: probed(shared=True))
    monkeypatch.setattr(doctor, "_is_same_mount", lambda one, other: False)
    monkeypatch.setattr(doctor, "try_two", lambda one, other: found)

    ended = gamwarm_command("doctor", tmp_path, "--with", tmp_path, "--no-mpi")

    assert ended.code == code
    for word in words:
        assert word in " ".join(ended.out.split())
    assert (tmp_path / ".gamwarm-doctor.json").exists() is noted


def test_one_mount_is_not_two_clients(gamwarm_command, tmp_path):
    ended = found_by(gamwarm_command, tmp_path, "--with", tmp_path)
    assert ended.code == Exit.USAGE
    assert "same mount" in ended.err
    assert found_by(gamwarm_command, tmp_path, "--with", tmp_path / "nowhere").code == Exit.NO_FILE
    assert found_by(gamwarm_command, tmp_path, "--with", tmp_path, "--peer", "0").code == Exit.USAGE


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, None),
        ({"SLURM_PROCID": "0"}, None),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, "job")),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, (3, "job")),
        (
            {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "3"},
            (1, "job-77-3"),
        ),
    ],
)
def test_tasks_of_a_job_know_their_number(monkeypatch, environment, told):
    for rank, size, job in doctor._LAUNCHERS:
        for name in (rank, size, *job):
            monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert doctor._task_of_job() == told


@pytest.mark.fuse
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_two_mounts_take_turns(gamwarm_command, tmp_path):
    with bindfs_mounts(tmp_path) as mounts:
        ended = found_by(gamwarm_command, mounts[0], "--with", mounts[1])
        assert ended.json["several_writers"] == "safe with reopening"
        assert ended.code == Exit.OK
        assert list(mounts[0].iterdir()) == []
