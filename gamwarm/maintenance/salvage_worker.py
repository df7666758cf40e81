"""The child process of `salvage`: walk a damaged file and write what can be read to standard
output, frame by frame.

HDF5 may hang or crash on damage; the last frame tells the parent where that was. A frame
is one line of JSON, followed by as many bytes as it says.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

import h5py

from gamwarm.entries import KINDS, DamagedEntry, FileView, seal_of
from gamwarm.errors import StoreDamaged, StoreError
from gamwarm.storage import (
    BODY_OFFSET,
    HDF5_SIGNATURE,
    HEADER_BYTES,
    PAGE,
    SIGNATURE_OFFSET,
    USER_BLOCK,
    UUID_BYTES,
    UUID_OFFSET,
    Overlay,
    TornHeader,
    journal_path,
    open_auxiliary,
    parse,
    redo_journal,
)

_END_OF_FILE: Final = USER_BLOCK + 28  # of HDF5's superblock, version 2
_LARGEST: Final = 1 << 44
_HEADER: Final = re.compile(rb"OHDR\x02")
_OUT: BinaryIO = sys.stdout.buffer


def say(payload: bytes = b"", **frame: Any) -> None:
    """Send one frame to the parent: a line of JSON, then the payload."""
    _OUT.write(json.dumps({**frame, "bytes": len(payload)}).encode() + b"\n" + payload)
    _OUT.flush()


def over(path: Path) -> tuple[Overlay, int]:
    """The file as HDF5 should see it: with the journal overlaid, the signature shown, and the
    length that it claims.

    And the bytes that there are of it.
    """
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    block = os.pread(fd, HEADER_BYTES, 0)
    pages: dict[int, bytes | memoryview] = {}
    logical = base = size
    replay = None
    try:
        journal = open_auxiliary(journal_path(path), os.O_RDONLY)
    except OSError:
        pass  # none, or something that gamwarm did not make
    else:
        with contextlib.suppress(StoreDamaged):
            replay = redo_journal.scan(journal, block[UUID_OFFSET : UUID_OFFSET + UUID_BYTES], fd, path)
    if replay is not None and leads_on(replay, block, path):
        pages.update(replay.pages)
        logical, base = replay.size, min(size, replay.size)
    first = bytearray(pages[0] if 0 in pages else os.pread(fd, PAGE, 0).ljust(PAGE, b"\0"))
    first[SIGNATURE_OFFSET:BODY_OFFSET] = HDF5_SIGNATURE
    pages[0] = bytes(first)
    there = logical
    claimed = USER_BLOCK + struct.unpack_from("<Q", first, _END_OF_FILE)[0]
    if logical < claimed < _LARGEST:
        logical = claimed  # cut off: what is missing reads as zeros
    overlay = Overlay(fd, base, pages, logical)
    overlay.dead = True
    return overlay, there


def leads_on(replay: redo_journal.Replay, block: bytes, path: Path) -> bool:
    """Whether the journal continues the state that the header names; a damaged header is trusted to
    it.
    """
    try:
        return replay.follows(parse(block, str(path)).sequence)
    except TornHeader:
        return True
    except StoreError:
        return False


def names(view: FileView, section: str, path: Path) -> tuple[list[str], bool]:
    """The keys of a section; where their list is damaged, those names in the file's bytes that can
    be opened.
    """
    try:
        return view.keys(section), True
    except Exception as error:
        say(bad=f"/{section}", reason=f"its keys cannot be listed ({error}); the file's bytes were scanned for names")
    found = names_in_bytes(section, path.read_bytes())
    there = []
    for name in sorted(found):
        try:
            if view.has(section, name):
                there.append(name)
        except Exception:
            continue
    return there, False


def names_in_bytes(section: str, data: bytes) -> set[str]:
    """What looks like a key of a section in the file's bytes."""
    # In a link the name is followed by an address, whose first byte may look like one more digit.
    return {match.decode() for match in re.findall(KINDS[section].key_pattern.encode(), data)}


class Found(FileView):
    """A view that takes one group for whatever is asked of it."""

    def __init__(self, h5: h5py.File, size: int, gid: Any) -> None:
        super().__init__(h5, size=size)
        self._found = gid

    def _group(self, section: str, path: str) -> Any:
        return self._found


def carve(h5: h5py.File, size: int, path: Path, skip: set[str]) -> None:
    """Look for entries by the mark of an object header, where lists of names are lost; their seals
    say if they are.

    May recover entries that were replaced or removed and not yet overwritten: intact entries as
    well.
    """
    data = path.read_bytes()
    keys = {section: sorted(names_in_bytes(section, data)) for section, kind in KINDS.items() if not kind.key_in_text}
    for match in _HEADER.finditer(data, USER_BLOCK):
        place = f"@{match.start()}"
        if place in skip:
            continue
        say(at=place)
        try:
            found = Found(h5, size, h5py.h5r.dereference(reference_to(match.start() - USER_BLOCK), h5.id))
            section = section_of(found)
            place_in_text = found.place_in_text(section, "")
        except Exception:
            continue  # not an entry, or not readable
        if place_in_text is not None:
            send_entry(found, section, place_in_text, carved=place)
            continue
        for key in keys[section]:
            if send_entry(found, section, key, carved=place):
                break


def section_of(found: FileView) -> str:
    """The section that an entry's text is one of."""
    for section in KINDS:
        with contextlib.suppress(DamagedEntry):
            return found.read_summary(section, "").section
    raise DamagedEntry("it is not an entry")


def reference_to(address: int) -> Any:
    """An HDF5 object reference to the object at an address."""
    memory = h5py.File(io.BytesIO(), "w")
    dataset = memory.create_dataset("r", (1,), dtype=h5py.ref_dtype, chunks=(1,))
    dataset.id.write_direct_chunk((0,), struct.pack("<Q", address))
    return dataset[0]


def walk(path: Path, skip: set[str]) -> None:
    """Send every entry of the file but the places to skip."""
    if "/" in skip:
        return
    say(at="/")
    overlay, size = over(path)
    h5 = h5py.File(overlay, "r", driver="fileobj")
    view = FileView(h5, size=size)
    unlisted = any(place.count("/") == 1 or place.endswith("/") for place in skip if not place.startswith("@"))
    for section in KINDS:
        place = f"/{section}"
        if place in skip:
            continue
        say(at=place)
        keys, whole = names(view, section, path)
        unlisted |= not whole
        for key in keys:
            if f"{place}/{key}/" in skip:  # the list of what lies in it, as apart from the entry of that name
                continue
            say(at=f"{place}/{key}/")
            try:
                paths = view.entry_paths(section, key)
            except Exception as error:
                say(bad=f"{place}/{key}", reason=str(error))
                unlisted = True
                continue
            for each in paths:
                if f"{place}/{each}" not in skip:
                    send_entry(view, section, each)
    if unlisted:
        carve(h5, size, path, skip)


def send_entry(view: FileView, section: str, path: str, carved: str = "") -> bool:
    """Send one entry; return whether it is intact. A carved one may not be expected there."""
    place = carved or f"/{section}/{path}"
    if not carved:
        say(at=place)
    try:
        entry = view.read(section, path)
        arrays = [(name, array.dtype.str, array.tobytes()) for name, array in entry.arrays.items()]
        text = entry.text()
    except Exception as error:
        if not carved:
            reason = str(error) if isinstance(error, DamagedEntry) else f"{type(error).__name__}: {error}"
            say(bad=place, reason=reason)
        return False
    key = path.split("/", 1)[0]
    parts = [("", "", text), *arrays]
    say(
        b"".join(data for _, _, data in parts),
        entry=place,
        section=section,
        key=key,
        seal=seal_of(section, key, text, entry.arrays),
        parts=[(name, dtype, len(data)) for name, dtype, data in parts],
    )
    return True


def main() -> None:
    """Read the path from the command line and the places to skip from standard input."""
    try:
        walk(Path(sys.argv[1]), set(json.loads(sys.stdin.read())))
    except Exception as error:
        say(bad="/", reason=f"HDF5 cannot read the file ({type(error).__name__}: {error})")
    say(done=True)
    _OUT.flush()
    os._exit(0)  # closing a damaged file may hang


if __name__ == "__main__":
    main()
