"""Values in the HDF5 file: what each may be (`FORMS`), the one reader, and the writers.

A file may come from an untrusted source. HDF5 converts what it reads into the type it is asked for,
and the buffer is ours, so a value of another width or extent than expected overruns it. `read`
compares type, width, byte order, rank, extent and storage with the form before it gives memory, and
follows nothing that leads out of the file: soft and external links, virtual and external datasets,
filters. No other module calls HDF5's own reads.

Low-level h5py and cached types, since the high-level calls cost several times the HDF5 work.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from h5py import h5, h5a, h5d, h5i, h5l, h5o, h5p, h5s, h5t

from gamwarm.encoding import DamagedEntry
from gamwarm.entries import object_header
from gamwarm.entries.index import CANDIDATE_BYTES, MODEL_BYTES, RECENT_BYTES
from gamwarm.storage import not_of_the_file

__all__ = [
    "FORMS",
    "UNREADABLE",
    "Form",
    "Kind",
    "Misshapen",
    "form_of",
    "has",
    "name_of",
    "names_in",
    "open_group",
    "pass_on_others",
    "read",
    "read_integer",
    "read_strings",
    "read_vector",
    "remove_attribute",
    "set_integer",
    "set_integers",
    "set_strings",
    "set_text",
    "timeless",
    "write_text",
    "write_vector",
]

UNREADABLE: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError, ArithmeticError)
"""What h5py raises when HDF5 cannot read its own structure: by the place of the damage, any of
these.

Not MemoryError: no value is given memory that the file does not fill, so it is this process that
has too little. An entry that was called damaged for that would be left out of a rewritten file.
"""
ATTRIBUTE_LIMIT: Final = 60_000
"""Bytes; what is longer is a dataset, as an object header message holds less than 64 KiB."""


class Misshapen(DamagedEntry):
    """A value, or the way to it, is not of the form that the format gives it."""


class Kind(Enum):
    """What the elements of a value are."""

    TEXT = "text"
    FLOATS = "binary64 numbers"
    INTEGERS = "64-bit integers"
    OCTETS = "bytes"


class Form(NamedTuple):
    """What a stored value may be.

    Attributes
    ----------
    kind : Kind
    rank : int
        0 for one value, 1 for a vector.
    width : int
        Bytes of an element; 0 of a text means that any will do.
    dataset : bool
        A long value is a dataset.
    attribute : bool
    """

    kind: Kind
    rank: int
    width: int
    dataset: bool = False
    attribute: bool = True


_INTEGER: Final = Form(Kind.INTEGERS, 0, 8)
_FLOATS: Final = Form(Kind.FLOATS, 1, 8, dataset=True)
_INTEGERS: Final = Form(Kind.INTEGERS, 1, 8, dataset=True)
_CANDIDATES: Final = Form(Kind.TEXT, 1, CANDIDATE_BYTES)
ARCHIVE_TEXT: Final = Form(Kind.OCTETS, 1, 1, dataset=True, attribute=False)

FORMS: Final = {
    b"format_version": _INTEGER,
    b"last_created": _INTEGER,
    b"n_entries": _INTEGER,
    b"live_bytes": _INTEGER,
    b"pinned": Form(Kind.TEXT, 1, 32),
    b"candidates": _CANDIDATES,
    b"recent": Form(Kind.TEXT, 1, RECENT_BYTES),
    b"meta": Form(Kind.TEXT, 0, 0, dataset=True),
    b"seal": Form(Kind.TEXT, 0, 32),
    b"rho": _FLOATS,
    b"beta": _FLOATS,
    b"curvature": _FLOATS,
    b"inner": _FLOATS,
    b"active": _INTEGERS,
    b"components": _INTEGERS,
    b"seeds": _FLOATS,
    b"archive_format": _INTEGER,
    b"digest": Form(Kind.TEXT, 0, 64),
    b"title": Form(Kind.TEXT, 0, 0),
}
"""By name."""
_FORMS_OF_INDEX: Final = {
    b"structural": _CANDIDATES,
    b"widths": Form(Kind.INTEGERS, 1, 8),
    b"related": Form(Kind.TEXT, 1, MODEL_BYTES),
    b"fit": Form(Kind.TEXT, 0, 52),
}
"""By what stands before the first colon of the name."""
_KEY_OF_ENTRY: Final = Form(Kind.TEXT, 0, 0)
_ID_BYTES: Final = 32


def form_of(name: bytes) -> Form:
    """Return what the value of a name may be."""
    what, colon, _ = name.partition(b":")
    if colon:
        return _FORMS_OF_INDEX[what]
    return _KEY_OF_ENTRY if len(name) == _ID_BYTES else FORMS[name]


_DTYPES: Final = {Kind.FLOATS: np.dtype("<f8"), Kind.INTEGERS: np.dtype("<i8")}
_TYPES: Final = {Kind.FLOATS: h5t.IEEE_F64LE, Kind.INTEGERS: h5t.STD_I64LE, Kind.OCTETS: h5t.STD_U8LE}
# Few: with every handle that is closed, h5py looks at each of its objects.
_string_type: Final = lru_cache(maxsize=128)(object_header.string_type)
_SCALAR: Final = h5s.create(h5s.SCALAR)


@lru_cache(maxsize=32)
def _vector_space(length: int) -> Any:
    return h5s.create_simple((length,))


# -- names and links -------------------------------------------------------------------------------


def name_of(name: bytes) -> str:
    """Return a link's or attribute's name; bytes that are not UTF-8 survive the round trip."""
    return name.decode("utf-8", "surrogateescape")


def encoded(name: str) -> bytes:
    """Return the bytes of a name from `name_of`."""
    return name.encode("utf-8", "surrogateescape")


def names_in(gid: Any) -> list[str]:
    """Return the names of a group's links, sorted."""
    return sorted(name_of(name) for name in gid)


def has(gid: Any, name: bytes) -> bool:
    """Whether group ``gid`` links to ``name``; the link is not followed."""
    return bool(gid.links.exists(name))


def is_hard(gid: Any, name: bytes) -> bool:
    """Whether a link leads to an object of this file directly."""
    return bool(gid.links.get_info(name).type == h5l.TYPE_HARD)


def open_group(parent: Any, name: bytes) -> Any:
    """Open a group in another group.

    Raises
    ------
    Misshapen
        It is not a group, or the link is soft or external: that may lead anywhere, other files
        included.
    """
    return _open(parent, name, h5i.GROUP)


def open_object(parent: Any, name: bytes) -> Any:
    """Open an object in a group by a hard link; raises `Misshapen` of other links."""
    if not is_hard(parent, name):
        raise Misshapen(f"{name_of(name)} is a link, which is not followed")
    return h5o.open(parent, name)


def _open(parent: Any, name: bytes, kind: int) -> Any:
    found = open_object(parent, name)
    if h5i.get_type(found) != kind:
        raise Misshapen(f"{name_of(name)} is not a {'group' if kind == h5i.GROUP else 'dataset'}")
    return found


# -- reading ---------------------------------------------------------------------------------------


def read(gid: Any, name: bytes, size: int, form: Form | None = None) -> bytes | None:
    """Return the bytes of a value as stored (text without padding), or None if not there.

    Parameters
    ----------
    gid : h5py GroupID
    name : bytes
    size : int
        Bytes of the file: no dataset reaches further.
    form : Form, optional
        Default: that of the name.

    Raises
    ------
    Misshapen
        It is not of its form.
    """
    form = form or form_of(name)
    found = _found(gid, name, size, form)
    if found is None:
        return None
    stored, array, type_ = found
    if isinstance(stored, h5a.AttrID):
        stored.read(array, type_)
    else:
        stored.read(h5s.ALL, h5s.ALL, array, type_)
    data = bytes(array.tobytes())
    return data.rstrip(b"\0") if form.kind is Kind.TEXT and not form.rank else data


def _found(gid: Any, name: bytes, size: int, form: Form) -> tuple[Any, Any, Any] | None:
    """Return a value of its form, its memory and the type to read it as; None if not there."""
    if form.attribute and h5a.exists(gid, name):
        stored = h5a.open(gid, name)
        return stored, *_buffer(stored, name, form)  # HDF5 has its bytes in memory by now
    if not (form.dataset and has(gid, name)):
        return None
    stored = _open(gid, name, h5i.DATASET)
    _check_layout(stored, name)
    offset = stored.get_offset()
    if offset is None or offset + stored.get_storage_size() > size:
        raise Misshapen(f"{name_of(name)} lies beyond the end of the file")
    return stored, *_buffer(stored, name, form)


def _check_layout(did: Any, name: bytes) -> None:
    properties = did.get_create_plist()
    if properties.get_layout() != h5d.CONTIGUOUS or properties.get_external_count() or properties.get_nfilters():
        raise Misshapen(f"{name_of(name)} is not stored in one piece in this file")


def _buffer(stored: Any, name: bytes, form: Form) -> tuple[Any, Any]:
    """Return memory for a value and the type to read it as, so that HDF5 converts nothing."""
    type_ = stored.get_type()
    if type_.committed() or not _is(type_, form):
        raise Misshapen(f"{name_of(name)} does not consist of {form.kind.value}{_of_width(form)}")
    shape = stored.shape  # None of an empty space
    if shape is None or len(shape) != form.rank or 0 in shape:
        raise Misshapen(f"{name_of(name)} is not {'a vector' if form.rank else 'one value'}")
    width = type_.get_size()
    claimed = width * (shape[0] if shape else 1)
    if claimed != stored.get_storage_size():
        raise Misshapen(f"{name_of(name)} claims {claimed} bytes that do not exist")
    return np.empty(shape, dtype=f"V{width}"), type_


def _is(type_: Any, form: Form) -> bool:
    if form.kind is not Kind.TEXT:
        return bool(type_.equal(_TYPES[form.kind]))
    is_fixed = type_.get_class() == h5t.STRING and not type_.is_variable_str()
    return is_fixed and form.width in (0, type_.get_size())


def _of_width(form: Form) -> str:
    return f" of {form.width} bytes" if form.kind is Kind.TEXT and form.width else ""


def read_vector(gid: Any, name: bytes, size: int) -> Any:
    """Return a vector over immutable bytes, which stay read-only; None if not there."""
    data = read(gid, name, size)
    return None if data is None else np.frombuffer(data, _DTYPES[form_of(name).kind])


def read_integer(gid: Any, name: bytes, size: int) -> int:
    """Return an integer; raises `Misshapen` if there is none."""
    data = read(gid, name, size)
    if data is None:
        raise Misshapen(f"{name_of(name)} is missing")
    return int.from_bytes(data, "little", signed=True)


def read_strings(gid: Any, name: bytes, size: int) -> list[str]:
    """Return a list of strings of one length; empty if it is not there."""
    data, width = read(gid, name, size) or b"", form_of(name).width
    return [data[at : at + width].decode("ascii", "replace") for at in range(0, len(data), width)]


def check_forms(gid: Any, size: int, *, depth: int = 1) -> None:
    """Raise `Misshapen` unless a group, down to ``depth``, holds only values of their forms."""
    for name in map(encoded, names_in(gid)):
        if name in FORMS:
            _found(gid, name, size, FORMS[name]._replace(attribute=False))
        elif depth:
            check_forms(open_group(gid, name), size, depth=depth - 1)
        else:
            raise Misshapen(f"{name_of(name)} is not a value of an entry")
    for name in attribute_names(gid):
        if name not in FORMS:
            raise Misshapen(f"{name_of(name)} is not a value of an entry")
        _found(gid, name, size, FORMS[name])


def pass_on_others(error: BaseException) -> None:
    """Re-raise errors of the disk or of this process: these are not damage of an entry."""
    if not_of_the_file(error) is not None:
        raise error


# -- writing ---------------------------------------------------------------------------------------


def timeless(kind: Any) -> Any:
    """Return a creation property list without HDF5's own times: entries say when they were made."""
    properties = h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


def write_text(gid: Any, name: bytes, text: bytes) -> None:
    """Write a fixed-length string, as an attribute or, if it is long, a data set."""
    type_ = _string_type(len(text))
    value = np.array(text)  # of as many bytes: JSON and hex digits do not end in NUL
    if len(text) > ATTRIBUTE_LIMIT:
        h5d.create(gid, name, type_, _SCALAR, timeless(h5p.DATASET_CREATE)).write(h5s.ALL, h5s.ALL, value, type_)
    else:
        h5a.create(gid, name, type_, _SCALAR).write(value, type_)


def write_vector(gid: Any, name: bytes, array: Any) -> None:
    """Write a vector in the form of `FORMS`: an attribute or, if long, a data set."""
    type_ = _TYPES[FORMS[name].kind]
    space = _vector_space(len(array))
    if array.nbytes > ATTRIBUTE_LIMIT:
        properties = timeless(h5p.DATASET_CREATE)
        properties.set_layout(h5d.CONTIGUOUS)
        stored = h5d.create(gid, name, type_, space, properties)
        stored.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array), type_)
    else:
        h5a.create(gid, name, type_, space).write(np.ascontiguousarray(array), type_)


def set_integer(gid: Any, name: bytes, value: int) -> Any:
    """Write an integer over whatever has the name; return its attribute for `rewrite_integer`."""
    stored = None
    if h5a.exists(gid, name):
        stored = h5a.open(gid, name)
        try:
            _buffer(stored, name, _INTEGER)
        except Misshapen:
            h5a.delete(gid, name)
            stored = None
    if stored is None:
        stored = h5a.create(gid, name, h5t.STD_I64LE, _SCALAR)
    rewrite_integer(stored, value)
    return stored


def rewrite_integer(stored: Any, value: int) -> None:
    """Write an integer to an attribute of `set_integer`; nothing else used its handle since."""
    stored.write(np.array(value, dtype="<i8"), h5t.STD_I64LE)


def set_strings(gid: Any, name: bytes, values: Sequence[str], *, in_place: bool = False) -> None:
    """Make an attribute a list of strings of one length; of none, remove it.

    ``in_place``: if it is there, it is of as many, since this handle wrote it so.
    """
    if not values:
        remove_attribute(gid, name)
        return
    array, type_ = _strings(name, values), _string_type(form_of(name).width)
    if in_place:
        with suppress(KeyError):  # removed since
            h5a.open(gid, name).write(array, type_)
            return
    _set(gid, name, array, type_)


def _strings(name: bytes, values: Sequence[str]) -> Any:
    width = form_of(name).width
    return np.frombuffer("".join([value.ljust(width, "\0") for value in values]).encode("ascii"), dtype=f"S{width}")


def set_text(gid: Any, name: bytes, text: bytes) -> None:
    """Make an attribute a string."""
    _set(gid, name, np.array(text), _string_type(len(text)))


def set_integers(gid: Any, name: bytes, values: Sequence[int]) -> None:
    """Make an attribute a vector of integers."""
    _set(gid, name, np.array(values, dtype="<i8"), h5t.STD_I64LE)


def _set(gid: Any, name: bytes, array: Any, type_: Any) -> None:
    """Write an attribute, in place if of that form: HDF5 loses the space of removed ones."""
    if h5a.exists(gid, name):
        stored = h5a.open(gid, name)
        if stored.shape == array.shape and stored.get_type().equal(type_):
            stored.write(array, type_)
            return
        h5a.delete(gid, name)
    space = h5s.create_simple(array.shape) if array.ndim else _SCALAR
    h5a.create(gid, name, type_, space).write(array, type_)


def remove_attribute(gid: Any, name: bytes) -> None:
    """Remove an attribute, if it is there."""
    if h5a.exists(gid, name):
        h5a.delete(gid, name)


def attribute_names(gid: Any) -> list[bytes]:
    """Return the names of a group's attributes."""
    names: list[bytes] = []
    h5a.iterate(gid, names.append, index_type=h5.INDEX_NAME)
    return names
