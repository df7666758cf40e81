"""Eight bytes of digest per component of a fit: enough to say what differs between two.

The components are taken in the walk that makes the exact key, from the same bytes, so that designs
are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from blake3 import blake3

from gamwarm.checks import FloatArray, as_int, as_tuple, zero_vector
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.identity.fingerprint import Fingerprinter
from gamwarm.identity.matrices import DigestCache
from gamwarm.problem import tied_label

__all__ = ["ComponentFingerprinter", "Components", "Label"]

HEAD: Final = ("engine", "family kind", "family fingerprint")
# What each block gives besides one digest per penalty, in the order of the key.
BEFORE_PENALTIES: Final = ("design", "offset")
AFTER_PENALTIES: Final = ("null-space dims", "initial log lambdas")
_PER_BLOCK: Final = len(BEFORE_PENALTIES) + len(AFTER_PENALTIES)
_LIMIT: Final = 1 << 63


class Label(NamedTuple):
    """What one component is: of a block, or (``block`` None) of the fit.

    ``what`` is ``engine``, ``family kind``, ``family fingerprint``, ``option``, ``design``,
    ``offset``, ``penalty``, ``null-space dims`` or ``initial log lambdas``; ``name`` is the
    option's name, ``number`` the penalty's.
    """

    what: str
    block: str | None = None
    name: str | None = None
    number: int | None = None


@dataclass(frozen=True)
class Components:
    """What a fit is made of, as digests, labelled by the names of the blocks.

    Parameters
    ----------
    penalties : sequence of int
        Number of penalties of each block.
    digests : sequence of int
        Signed 64-bit: engine, family kind, family fingerprint; per block design, offset, each
        penalty, null-space dims, initial log lambdas; then the options in the order of the exact
        key, but those at the end that have their default are left out.
    forms : sequence of sequences of str
        Per block, what each penalty is, in words (`penalty_form`); empty where all are dense. For
        readers of the file: nothing depends on it.
    """

    penalties: Sequence[int]
    digests: Sequence[int]
    forms: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        counts = tuple(as_int(n, "components penalties") for n in as_tuple(self.penalties, "components penalties"))
        digests = tuple(_signed(d) for d in as_tuple(self.digests, "components digests"))
        least = len(HEAD) + sum(_PER_BLOCK + n for n in counts)
        if len(digests) < least:
            raise InvalidInput(
                f"components has {len(digests)} digests; blocks with {list(counts)} penalties need {least}"
            )
        forms = tuple(as_tuple(each, "components forms") for each in as_tuple(self.forms, "components forms"))
        if forms and tuple(map(len, forms)) != counts:
            raise InvalidInput(
                f"components has forms of {list(map(len, forms))} penalties; its blocks have {list(counts)}"
            )
        object.__setattr__(self, "forms", forms)
        object.__setattr__(self, "penalties", counts)
        object.__setattr__(self, "digests", digests)

    @classmethod
    def of_checked(
        cls, penalties: Sequence[int], digests: Sequence[int], forms: Sequence[Sequence[str]] = ()
    ) -> Components:
        """Return components of counts, signed 64-bit integers and texts."""
        if forms or len(digests) < len(HEAD) + sum(penalties) + _PER_BLOCK * len(penalties):
            return cls(penalties, digests, forms)  # says what is wrong
        components = object.__new__(cls)
        vars(components).update(penalties=tuple(penalties), digests=tuple(digests), forms=())
        return components

    @classmethod
    def of(cls, forms: Sequence[Sequence[str]], parts: Sequence[int], defaults: Sequence[int]) -> Components:
        """Take all ``parts``, the options last, and leave out trailing ``defaults``."""
        kept, first = len(parts), len(parts) - len(defaults)
        while kept > first and parts[kept - 1] == defaults[kept - 1 - first]:
            kept -= 1
        plain = all(form == "dense" for each in forms for form in each)
        return cls.of_checked([len(each) for each in forms], parts[:kept], () if plain else forms)

    def smoothed_blocks(self) -> list[list[int]]:
        """Return, per outer coordinate of the penalties, the blocks that use it.

        A tied label has one coordinate, a fixed penalty none.
        """
        users: list[list[int]] = []
        by_label: dict[str, list[int]] = {}
        forms = self.forms or [["dense"] * count for count in self.penalties]
        for block, each in enumerate(forms):
            for form in each:
                label, is_fixed = tied_label(form)
                if is_fixed:
                    continue
                own = [block] if label is None else by_label.setdefault(label, [])
                if block not in own:
                    own.append(block)
                if not any(own is known for known in users):
                    users.append(own)
        return users

    def labelled(
        self, block_names: Sequence[str], option_names: Sequence[str], defaults: Sequence[int]
    ) -> dict[Label, int]:
        """Return digests by label.

        Raises
        ------
        InvalidInput
            The names are not of as many blocks.
        """
        if len(block_names) != len(self.penalties):
            raise InvalidInput(f"components of {len(self.penalties)} blocks, given {len(block_names)} names")
        labels = [Label(what) for what in HEAD]
        for block, count in zip(block_names, self.penalties, strict=True):
            labels += [Label(what, block) for what in BEFORE_PENALTIES]
            labels += [Label("penalty", block, number=j) for j in range(count)]
            labels += [Label(what, block) for what in AFTER_PENALTIES]
        options = [Label("option", name=name) for name in option_names]
        given = dict(zip([*labels, *options], self.digests, strict=False))  # a later version may know more options
        return dict(zip(options, defaults, strict=True)) | given


class ComponentFingerprinter(Fingerprinter):
    """A fingerprinter that also digests marked sections of its input separately.

    Attributes
    ----------
    parts : list of int
        First 8 bytes of each section's digest, as signed little-endian integers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[int] = []
        self._seen = DigestCache()
        self._part: Any = None  # hashes the part, once something of it has left `_pending`
        self._begun: int | None = None  # where what is pending of the part begins; None outside of parts

    def begin_part(self) -> None:
        """What is written from here to `end_part` is one part. Parts do not nest."""
        self._begun = len(self._pending)

    def end_part(self) -> None:
        """Note the digest of the part."""
        rest = self._pending[self._begun :]
        if self._part is None:
            self.parts.append(_part_of(bytes(rest)))
        else:
            self._part.update(rest)
            self.parts.append(_first_bytes(self._part.digest()))
        self._part = self._begun = None

    def recorded(self) -> tuple[bytes, tuple[int, ...]]:
        """Return all that was written, which is little, and its parts."""
        return bytes(self._pending), tuple(self.parts)

    def write_recorded(self, data: bytes, parts: tuple[int, ...]) -> None:
        """Write what another one `recorded`."""
        self._add(data)
        self.parts += parts

    def _hash(self, data: Any) -> None:
        super()._hash(data)
        if self._begun is not None:
            if self._part is None:
                self._part = blake3()
            self._part.update(memoryview(data)[self._begun :])
            self._begun = 0

    def write_zeros_part(self, zeros: FloatArray) -> None:
        """Write a `zero_vector` as a part of its own, whose digest depends on its length alone."""
        self.write_f64_array(zeros)
        self.parts.append(_zeros_part(zeros.shape[0]))


@lru_cache(maxsize=1024)  # most are short, and those of the last fold
def _part_of(data: bytes) -> int:
    return _first_bytes(blake3(data).digest())


def _first_bytes(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little", signed=True)


@lru_cache(maxsize=64)
def _zeros_part(n: int) -> int:
    fp = Fingerprinter()
    fp.write_f64_array(zero_vector(n))
    return _first_bytes(fp.digest())


def _signed(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidType(f"components digest is {type(value).__name__}; expected an integer")
    number = int(value)
    if not -_LIMIT <= number < _LIMIT:
        raise InvalidInput(f"components digest {number} does not fit 64 bits")
    return number
