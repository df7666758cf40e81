"""The error tree: its shape and codes are a promise to handlers, on every rank and in every
process.
"""

from __future__ import annotations

import inspect
import pickle

import pytest

from gamwarm import errors
from gamwarm.errors import CollectiveError, GamwarmError

# class: (code, parent in the tree, built-in)
TREE = {
    "GamwarmError": ("gamwarm", "Exception", Exception),
    "InvalidInput": ("invalid-input", "GamwarmError", ValueError),
    "InvalidType": ("invalid-type", "GamwarmError", TypeError),
    "InvalidKey": ("invalid-key", "InvalidInput", ValueError),
    "NoSuchKey": ("no-such-key", "InvalidKey", ValueError),
    "UnsupportedOption": ("unsupported-option", "GamwarmError", NotImplementedError),
    "MissingDependency": ("missing-dependency", "GamwarmError", ImportError),
    "UnkeyableFit": ("unkeyable-fit", "GamwarmError", ValueError),
    "TransferError": ("transfer", "GamwarmError", ValueError),
    "ParentUnusable": ("parent-unusable", "TransferError", ValueError),
    "DescriptorMismatch": ("descriptor-mismatch", "TransferError", ValueError),
    "StoreError": ("store", "GamwarmError", OSError),
    "StoreNotFound": ("store-not-found", "StoreError", FileNotFoundError),
    "NotAStore": ("not-a-store", "StoreError", OSError),
    "NewerFormat": ("newer-format", "StoreError", OSError),
    "OlderFormat": ("older-format", "StoreError", OSError),
    "StoreReadOnly": ("store-read-only", "StoreError", PermissionError),
    "StoreClosed": ("store-closed", "StoreError", ValueError),
    "StoreDamaged": ("store-damaged", "StoreError", OSError),
    "StoreUnavailable": ("store-unavailable", "StoreError", OSError),
    "LockTimeout": ("lock-timeout", "StoreError", TimeoutError),
    "CollectiveError": ("collective", "GamwarmError", RuntimeError),
    "FitFailed": ("fit-failed", "GamwarmError", ArithmeticError),
}
CLASSES = {name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, BaseException)}


def test_the_tree_is_the_published_one():
    assert {name: (c.code, c.__mro__[1].__name__) for name, c in CLASSES.items()} == {
        name: (code, parent) for name, (code, parent, _) in TREE.items()
    }
    assert set(errors.__all__) == set(TREE)


def test_codes_are_never_shared():
    assert len({cls.code for cls in CLASSES.values()}) == len(CLASSES)


@pytest.mark.parametrize("name", TREE)
def test_every_error_is_also_the_builtin_that_fits(name):
    assert issubclass(CLASSES[name], GamwarmError)
    assert issubclass(CLASSES[name], TREE[name][2])
    with pytest.raises(TREE[name][2], match="what to do next"):
        raise CLASSES[name]("what to do next")


@pytest.mark.parametrize("name", TREE)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_travels_with_its_message_and_details(name, protocol):
    error = CLASSES[name]("block 'f': do this next", block="f", shape=(3, 4))

    arrived = pickle.loads(pickle.dumps(error, protocol))

    assert type(arrived) is type(error)
    assert str(arrived) == str(error) == error.message == "block 'f': do this next"
    assert arrived.details == error.details
    assert (arrived.details["block"], arrived.details["shape"]) == ("f", (3, 4))
    assert arrived.code == TREE[name][0]


def test_a_collective_error_knows_rank_and_cause():
    error = CollectiveError("rank 2 failed", rank=2, cause="OSError: tape", operation="keep")
    arrived = pickle.loads(pickle.dumps(error))

    assert (arrived.rank, arrived.cause, arrived.details["operation"]) == (2, "OSError: tape", "keep")
    assert (CollectiveError("lost").rank, CollectiveError("lost").cause) == (-1, "")


def test_an_error_of_the_file_carries_the_errno_and_path_of_the_operating_system():
    error = errors.StoreUnavailable("f.h5: could not commit: No space left on device", errno=28, path="f.h5")
    arrived = pickle.loads(pickle.dumps(error))

    for each in (error, arrived):
        assert (each.errno, each.filename, str(each)) == (28, "f.h5", error.message)
    assert (errors.StoreError("closed").errno, errors.StoreError("closed").filename) == (None, None)
