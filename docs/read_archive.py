"""Read and check a gamwarm archive with h5py and BLAKE3 alone: ``python read_archive.py
archive.h5``.

Written from docs/file-format.md, which lies in every archive too. Copy it, change it, do what you
like with it.
"""

import json
import sys

import h5py
import numpy as np
from blake3 import blake3

VECTORS = ("active", "beta", "components", "curvature", "inner", "rho", "seeds")
INTEGERS = ("active", "components")


def plain(group, name, kind):
    """Return what lies in a group by a hard link: other links may lead anywhere, other files
    included.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], kind):
        raise TypeError(f"{group.name}/{name} is not a {kind.__name__.lower()} of this file")
    return group[name]


def value_of(group, name, type_, rank):
    """Return an attribute, or the dataset that stands for it where it is long, if type and shape
    are as they must be.

    A dataset lies in one piece in this file and is no longer than it; so nothing else is loaded,
    however it claims to be stored.
    """
    if name in group.attrs:
        stored = group.attrs.get_id(name)
    else:
        stored = plain(group, name, h5py.Dataset)
        in_one_piece = stored.chunks is None and not stored.is_virtual and stored.external is None
        if not in_one_piece or (stored.id.get_offset() or 0) + stored.nbytes > stored.file.id.get_filesize():
            raise ValueError(f"{group.name}/{name} is not stored in one piece in this file")
    is_of_type = stored.dtype.kind == "S" if type_ == "S" else stored.dtype == type_
    if not is_of_type or stored.shape is None or len(stored.shape) != rank:
        raise ValueError(f"{group.name}/{name} is of type {stored.dtype} and shape {stored.shape}")
    return group.attrs[name] if name in group.attrs else stored[()]


def text_of(value):
    """Return the bytes of a fixed-length string."""
    return value.encode() if isinstance(value, str) else bytes(value)


def read_entry(group, place):
    """Return the JSON text, the vectors and the digest of one entry; its first 32 digits are the
    seal.
    """
    text = text_of(value_of(group, "meta", "S", 0))
    vectors = {}
    for name in VECTORS:
        if name in group.attrs or name in group:
            vectors[name] = np.asarray(value_of(group, name, "<i8" if name in INTEGERS else "<f8", 1))
    parts = {"place": place.encode(), "meta": text, **{name: v.tobytes() for name, v in vectors.items()}}
    hasher = blake3()
    for name, data in parts.items():
        hasher.update(f"{name}:{len(data)}:".encode() + data)
    return json.loads(text), vectors, hasher.hexdigest(), text_of(value_of(group, "seal", "S", 0)).decode()


def shown(text):
    """Return text without anything that a terminal would obey."""
    return repr(text)[1:-1]


def entries_of(h5):
    """Yield where every entry lies, in order, and its group."""
    for section in ("block_records", "fit_artifacts"):
        for key in sorted(plain(h5, section, h5py.Group)):
            group = plain(h5[section], key, h5py.Group)
            if section == "block_records":
                yield f"{section}/{key}", f"{section}/{key}", group
            for name in sorted(n for n in group if section != "block_records" or n not in (*VECTORS, "meta")):
                yield f"{section}/{key}/{name}", f"{section}/{key}", plain(group, name, h5py.Group)


def cut(vector, widths):
    """Cut a vector at the running sums of widths."""
    return np.split(np.zeros(0) if vector is None else vector, np.cumsum(widths)[:-1]) if len(widths) else []


def coefficients_of(meta, vectors):
    """Return the coefficients by block (of records, reduced) or term (of artifacts, raw)."""
    if meta["entry"] == "record":
        return dict(zip(meta["blocks"], cut(vectors.get("beta"), meta["widths"]), strict=True))
    widths = [term["raw_width"] for term in meta["terms"]]
    return dict(zip([term["name"] for term in meta["terms"]], cut(vectors.get("beta"), widths), strict=True))


def read_archive(path):
    """Return title, entries (place, meta, vectors) and problems (place, reason) of an archive."""
    problems, entries = [], []
    with open(path, "rb") as file:
        block = file.read(512)
        hasher = blake3()
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    if block[64:72] != b"GWARCHV1":
        raise SystemExit(f"{path}: not a gamwarm archive")
    if block[72:104] != hasher.digest():
        problems.append(("file", "its bytes changed after the export"))
    with h5py.File(path, "r") as h5:
        archive = plain(h5, "archive", h5py.Group)
        texts = {name: value_of(archive, name, "u1", 1).tobytes() for name in archive}
        lines = texts.pop("manifest").decode().splitlines()[1:]
        listed = {place: digest for digest, place in (line.split("  ", 1) for line in lines)}
        for name, text in texts.items():
            if listed.pop(name, None) != blake3(text).hexdigest():
                problems.append((name, "its digest is not the one in the manifest"))
        for place, key_place, group in entries_of(h5):
            meta, vectors, digest, seal = read_entry(group, key_place)
            if listed.pop(place, None) != digest or seal != digest[:32]:
                problems.append((place, "its digest is not the one in the manifest"))
            entries.append((place, meta, vectors))
        problems += [(place, "the manifest lists it, the file does not hold it") for place in listed]
        return text_of(value_of(archive, "title", "S", 0)).decode(), entries, problems


if __name__ == "__main__":
    try:
        title, entries, problems = read_archive(sys.argv[1])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SystemExit(f"{sys.argv[1]}: not read: {shown(str(error))}") from None
    print(f"{shown(title)}: {len(entries)} entries")
    for _, meta, vectors in entries:
        widths = ", ".join(f"{shown(name)} ({len(beta)})" for name, beta in coefficients_of(meta, vectors).items())
        print(f"  {meta['entry_id'][:12]} {meta.get('kind', 'artifact'):10} objective {meta['objective']}  {widths}")
    for place, reason in problems:
        print(f"PROBLEM {shown(place)}: {reason}")
    sys.exit(1 if problems else 0)
