"""Read and check a gamwarm archive with h5py and BLAKE3 alone: ``python read_archive.py archive.h5``.

Written from docs/file-format.md, which lies in every archive too. Copy it, change it, do what you like with it.
"""

import json
import sys

import h5py
import numpy as np
from blake3 import blake3

INTEGERS = ("active", "components")


def value_of(group, name):
    """Return an attribute, or the dataset that stands for it where it is long."""
    return group.attrs[name] if name in group.attrs else group[name][()]


def text_of(value):
    """Return the bytes of a fixed-length string."""
    return value.encode() if isinstance(value, str) else bytes(value)


def read_entry(group, place):
    """Return the JSON text, the vectors and the digest of one entry; its first 32 digits are the seal."""
    text = text_of(value_of(group, "meta"))
    stored = {*group.attrs, *(name for name in group if isinstance(group[name], h5py.Dataset))} - {"meta", "seal"}
    vectors = {name: np.asarray(value_of(group, name), "<i8" if name in INTEGERS else "<f8") for name in sorted(stored)}
    parts = {"place": place.encode(), "meta": text, **{name: v.tobytes() for name, v in vectors.items()}}
    hasher = blake3()
    for name, data in parts.items():
        hasher.update(f"{name}:{len(data)}:".encode() + data)
    return json.loads(text), vectors, hasher.hexdigest(), text_of(value_of(group, "seal")).decode()


def entries_of(h5):
    """Yield where every entry lies, in order, and its group."""
    for section in ("block_records", "fit_artifacts"):
        for key in sorted(h5[section]):
            group = h5[section][key]
            if section == "block_records":
                yield f"{section}/{key}", f"{section}/{key}", group
            for name in sorted(n for n in group if isinstance(group[n], h5py.Group)):
                yield f"{section}/{key}/{name}", f"{section}/{key}", group[name]


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
        problems.append(("file", "its bytes are not those that were exported"))
    with h5py.File(path, "r") as h5:
        texts = {name: h5["archive"][name][()].tobytes() for name in h5["archive"]}
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
        return text_of(h5["archive"].attrs["title"]).decode(), entries, problems


if __name__ == "__main__":
    title, entries, problems = read_archive(sys.argv[1])
    print(f"{title}: {len(entries)} entries")
    for _, meta, vectors in entries:
        widths = ", ".join(f"{name} ({len(beta)})" for name, beta in coefficients_of(meta, vectors).items())
        print(f"  {meta['entry_id'][:12]} {meta.get('kind', 'artifact'):10} objective {meta['objective']}  {widths}")
    for place, reason in problems:
        print(f"PROBLEM {place}: {reason}")
    sys.exit(1 if problems else 0)
