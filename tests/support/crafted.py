"""Malicious files: values of every type class in place of stored ones, texts under a
right seal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from blake3 import blake3
from h5py import h5a, h5d, h5p, h5s, h5t

__all__ = ["Stored", "place_text", "replace", "replacements", "reseal", "sealed_text", "stored_values", "text_of"]

VECTORS = ("active", "beta", "components", "curvature", "inner", "rho", "seeds")

Stored = tuple[str, str]
"""Path of an object and name of the attribute (or dataset) in it."""


def stored_values(path: Path) -> list[Stored]:
    """Return every attribute and dataset of a file but READMEs, which nothing reads."""
    found: list[Stored] = []

    def see(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            parent, _, own = name.rpartition("/")
            found.append((parent or "/", own))
        else:
            found.extend((name or "/", attribute) for attribute in item.attrs if attribute != "README")

    with h5py.File(path) as h5:
        see("", h5)
        h5.visititems(see)
    return sorted(found)


Replacement = tuple[str, Callable[[Any, bytes], None]]


def _attribute(type_: Any, space: Any, data: Any) -> Callable[[Any, bytes], None]:
    def put(gid: Any, name: bytes) -> None:
        made = h5a.create(gid, name, type_, space)
        if data is not None:
            made.write(data, type_)

    return put


def _numbers(code: str, shape: tuple[int, ...]) -> Replacement:
    array = np.ones(shape, dtype=code)
    type_ = h5t.py_create(array.dtype)
    space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
    return f"{code} {shape}", _attribute(type_, space, array)


def _high(what: str, value: Any, dtype: Any = None, shape: Any = None) -> Replacement:
    def put(gid: Any, name: bytes) -> None:
        h5py.Group(gid).attrs.create(name.decode(), value, shape=shape, dtype=dtype)

    return what, put


def _dataset(what: str, **how: Any) -> Replacement:
    def put(gid: Any, name: bytes) -> None:
        h5py.Group(gid).create_dataset(name.decode(), **how)

    return f"dataset {what}", put


def _external_link(gid: Any, name: bytes) -> None:
    h5py.Group(gid)[name.decode()] = h5py.ExternalLink("/dev/stdin", "/x")


def _soft_link(gid: Any, name: bytes) -> None:
    h5py.Group(gid)[name.decode()] = h5py.SoftLink("/block_records")


def _root_again(gid: Any, name: bytes) -> None:
    group = h5py.Group(gid)
    group[name.decode()] = group.file["/"]


def _subgroup(gid: Any, name: bytes) -> None:
    h5py.Group(gid).create_group(name.decode())


def _committed(gid: Any, name: bytes) -> None:
    h5py.Group(gid)[name.decode()] = np.dtype("f8")


def _of_committed_type(gid: Any, name: bytes) -> None:
    group = h5py.Group(gid)
    if "crafted type" not in group.file:
        group.file["crafted type"] = np.dtype("<f8")
    group.attrs.create(name.decode(), np.ones(2), dtype=group.file["crafted type"])


def _virtual(gid: Any, name: bytes) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="<f8")
    layout[:] = h5py.VirtualSource("/dev/stdin", "x", shape=(4,))
    h5py.Group(gid).create_virtual_dataset(name.decode(), layout)


def _vanished(gid: Any, name: bytes) -> None:
    pass


def _claims(count: int) -> Callable[[Any, bytes], None]:
    def put(gid: Any, name: bytes) -> None:
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_layout(h5d.CONTIGUOUS)
        properties.set_alloc_time(h5d.ALLOC_TIME_LATE)
        h5d.create(gid, name, h5t.IEEE_F64LE, h5s.create_simple((count,)), properties)

    return put


def _bomb(gid: Any, name: bytes) -> None:
    made = h5py.Group(gid).create_dataset(
        name.decode(), shape=(1 << 36,), dtype="<f8", chunks=(1 << 20,), compression="gzip", fillvalue=1.0
    )
    made[:4] = 1.0


def _unknown_filter(gid: Any, name: bytes) -> None:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, (1,))
    h5d.create(gid, name, h5t.IEEE_F64LE, h5s.create_simple((4,)), properties)


def replacements() -> Iterator[Replacement]:
    """Yield what may stand where a value is expected: a name, and what puts it into a group under a
    name.
    """
    yield "nothing", _vanished
    for code in ("i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", ">i4", ">i8", "<f2", "<f4", "<f8", ">f8"):
        for shape in ((), (2,), (7000 // np.dtype(code).itemsize,), (2, 1, 1, 2)):
            yield _numbers(code, shape)
    yield _numbers("g", (2,))
    yield _numbers("c16", (2,))
    for what, value in (("S1", b"x"), ("S32", b"0" * 32), ("S64", b"0" * 64), ("S600", b"x" * 600)):
        yield _high(f"{what} alone", np.bytes_(value))
        yield _high(f"{what} in a vector", np.array([value] * 3))
    yield _high("vlen string", "text of any length")
    yield _high("vlen strings", ["a", "b" * 99], dtype=h5py.string_dtype())
    yield _high("vlen of numbers", np.array([np.arange(3), np.arange(5)], dtype=object), dtype=h5py.vlen_dtype("i4"))
    yield _high("compound", np.zeros(2, dtype=[("a", "i4"), ("b", "f8", (3,))]))
    yield _high("enum", 1, dtype=h5py.enum_dtype({"a": 0, "b": 1}, basetype="i8"))
    yield _high("opaque", np.void(b"12345678"))
    yield _high("array", np.ones(2, dtype=[("x", "f8", (4,))])["x"], dtype=np.dtype(("f8", (4,))), shape=(2,))
    yield _high("reference", np.zeros(2, dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)
    bits = h5t.STD_B64LE
    yield "bitfield", _attribute(bits, h5s.create_simple((2,)), np.ones(2, "<u8"))
    yield "null space", _attribute(h5t.IEEE_F64LE, h5s.create(h5s.NULL), None)
    yield "no elements", _attribute(h5t.IEEE_F64LE, h5s.create_simple((0,)), None)
    yield "committed type", _of_committed_type
    yield _dataset("of two numbers", data=np.ones(2))
    yield _dataset("of small numbers", data=np.ones(7000, "i1"))
    yield _dataset("of octets", data=np.zeros(600, "u1"))
    yield _dataset("scalar", data=1.0)
    yield _dataset("of rank 2", data=np.ones((2, 2)))
    yield _dataset("in chunks", data=np.ones(2), chunks=(2,))
    yield _dataset("packed", data=np.ones(2), chunks=(2,), compression="gzip", shuffle=True)
    yield _dataset("outside", shape=(4,), dtype="<f8", external=[("/dev/stdin", 0, 32)])
    yield _dataset("of texts", data=["a", "bc"], dtype=h5py.string_dtype())
    yield "dataset of nothing written", _claims(4)
    yield "dataset of 2**40 numbers", _claims(1 << 40)
    yield "bomb", _bomb
    yield "unknown filter", _unknown_filter
    yield "virtual dataset", _virtual
    yield "external link", _external_link
    yield "soft link", _soft_link
    yield "link to the root", _root_again
    yield "group", _subgroup
    yield "datatype", _committed


def replace(h5: h5py.File, place: Stored, put: Callable[[Any, bytes], None]) -> None:
    """Put something else in the place of a stored value."""
    group = h5[place[0]]
    if place[1] in group.attrs:
        del group.attrs[place[1]]
    elif place[1] in group:
        del group[place[1]]
    put(group.id, place[1].encode())


# -- texts and seals -------------------------------------------------------------------------------


def text_of(group: Any) -> Any:
    """Return what an entry's text says."""
    return json.loads(bytes(group.attrs["meta"]) if "meta" in group.attrs else bytes(group["meta"][()]))


def plain(meta: Any) -> bytes:
    """Write a text as the format has it."""
    return json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def place_text(group: Any, name: str, text: bytes) -> None:
    """Store a text as the format says, in the place of the old one."""
    if name in group.attrs:
        del group.attrs[name]
    elif name in group:
        del group[name]
    type_ = h5t.C_S1.copy()
    type_.set_size(max(len(text), 1))
    type_.set_cset(h5t.CSET_UTF8)
    type_.set_strpad(h5t.STR_NULLPAD)
    space, value = h5s.create(h5s.SCALAR), np.array(text or b"\0", f"S{max(len(text), 1)}")
    if len(text) > 60_000:
        h5d.create(group.id, name.encode(), type_, space).write(h5s.ALL, h5s.ALL, value, type_)
    else:
        h5a.create(group.id, name.encode(), type_, space).write(value, type_)


def reseal(group: Any) -> None:
    """Give an entry the seal of what is stored in it, as far as bytes can be had of that."""
    section, key = group.name.strip("/").split("/")[:2]
    meta = bytes(_small(group, "meta"))
    place = f"{section}/{key}".encode("utf-8", "surrogateescape")
    parts = [b"place:%d:" % len(place), place, b"meta:%d:" % len(meta), meta]
    for name in VECTORS:
        data = _small(group, name)
        if not data:
            continue
        parts += [f"{name}:{len(data)}:".encode(), data]
    place_text(group, "seal", blake3(b"".join(parts)).hexdigest(length=16).encode())


def _small(group: Any, name: str) -> bytes:
    """Return the bytes of a value if they are there and few."""
    stored = group.attrs[name] if name in group.attrs else group.get(name)
    if stored is None or getattr(stored, "size", 0) > 10**5:
        return b""
    return np.asarray(stored if name in group.attrs else stored[()]).tobytes()


def sealed_text(path: Path, place: str, text: bytes) -> None:
    """Put a text under a right seal into an entry."""
    with h5py.File(path, "r+") as h5:
        place_text(h5[place], "meta", text)
        reseal(h5[place])
