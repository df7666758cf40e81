"""A wrapper passes on every public call by name, and no other; what a subclass changes reaches its
fits.
"""

from __future__ import annotations

import inspect

import pytest

import gamwarm
from gamwarm import StoreWrapper
from tests.support.stores import plain_fit, record_of, result_of

OWN = {"fit"}
"""It comes back to the wrapper."""


class Bare:
    """The least that passes for a store."""

    def start_for(self):
        raise NotImplementedError


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


def parameters_of(call):
    return [(p.name, p.kind, p.default) for p in inspect.signature(call).parameters.values()]


@pytest.mark.parametrize("cls", [gamwarm.WarmStartStore, gamwarm.IndependentStore], ids=lambda c: c.__name__)
def test_a_wrapper_has_every_public_call_of_a_store(cls):
    assert public(cls) - public(StoreWrapper) == {"open"}, "pass it on in store/wrapper.py"


@pytest.mark.parametrize("name", sorted(public(StoreWrapper) - {"flush", "pending"}))
def test_a_wrapper_takes_what_the_store_takes_and_passes_it_on(name):
    method = inspect.getattr_static(gamwarm.WarmStartStore, name, None)
    if not inspect.isfunction(method):  # a property, or an attribute
        wrapped = type("Store", (Bare,), {name: 7})()
        assert getattr(StoreWrapper(wrapped), name) == 7
        return
    assert parameters_of(getattr(StoreWrapper, name)) == parameters_of(method)
    if name in OWN:
        return
    heard = []
    wrapped = type("Store", (Bare,), {name: lambda self, *args, **options: heard.append((args, options)) or "answer"})()
    assert getattr(StoreWrapper(wrapped), name)("one", two=2) == "answer"
    assert heard == [(("one",), {"two": 2})]


def test_a_call_that_the_store_does_not_have_is_an_attribute_error(store):
    wrapper = StoreWrapper(store)

    with pytest.raises(AttributeError, match="flush"):
        wrapper.flush()
    assert not hasattr(wrapper, "pending")


@pytest.mark.parametrize("store", [None, "fits.h5", 3, gamwarm.open])
def test_what_is_no_store_is_not_wrapped(store):
    with pytest.raises(gamwarm.InvalidType, match=r"store is .*gamwarm\.open\(path\)"):
        StoreWrapper(store)


def test_what_a_subclass_changes_reaches_its_fits(store):
    class Counting(StoreWrapper):
        starts = keeps = 0

        def start_for(self, *args, **options):
            self.starts += 1
            return super().start_for(*args, **options)

        def keep(self, *args, **options):
            self.keeps += 1
            return super().keep(*args, **options)

    counting = Counting(store)
    with counting.fit(plain_fit()) as fit:
        assert fit.keep(result_of(plain_fit())).record.written

    assert (counting.starts, counting.keeps) == (1, 1)
    assert len(counting) == len(store)


def test_a_wrapper_of_a_wrapper_is_a_store_too(store):
    outer = StoreWrapper(StoreWrapper(store))
    outer.put_record(record_of(3))

    assert outer.get_record(record_of(3).key) is not None
    assert outer.path == store.path
    assert outer.generation == store.generation
    assert bool(outer)
    assert repr(store) in repr(outer)
