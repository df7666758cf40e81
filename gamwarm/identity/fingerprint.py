"""Fingerprint protocol, version 1: typed values into one BLAKE3 digest.

Integers are unsigned 64-bit little-endian; floats binary64 little-endian with -0.0 written as +0.0
and NaN bits unchanged; strings UTF-8 after their byte length; booleans one byte.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from blake3 import blake3

from gamwarm.checks import as_bool, as_float, as_int, as_str, is_zero_vector
from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.identity.leaves import as_bytes, plain_numbers, positive_zeros
from gamwarm.identity.matrices import DigestCache, digest_of
from gamwarm.problem import DistributedRows, check_exact_dtype

__all__ = ["Fingerprinter"]

_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")
_CHUNK = 1 << 16  # numbers converted at a time: half a MiB, which stays in cache
_SMALL = 1 << 11  # bytes
_MOST_PENDING = 1 << 14
_ZEROS = memoryview(bytes(8 * _CHUNK))


class Fingerprinter:
    """Hash typed values in the order they are written.

    Two sequences of writes give one digest only if they are the same writes, save `write_bytes`,
    which is raw.
    """

    def __init__(self) -> None:
        self._hasher: Any = blake3()
        self._seen: DigestCache | None = None
        # Small values are collected: a call of the hash library takes longer than most of them.
        self._pending = bytearray()

    def _add(self, data: Any) -> None:
        if len(data) >= _SMALL:
            self._flush()
            self._hash(data)
            return
        self._pending += data
        if len(self._pending) >= _MOST_PENDING:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._hash(self._pending)
            self._pending = bytearray()

    def _hash(self, data: Any) -> None:
        self._hasher.update(data)

    def write_bytes(self, value: bytes) -> None:
        """Write raw bytes, without their length."""
        self._add(memoryview(value).cast("B"))

    def write_bool(self, value: bool) -> None:
        """Write one byte, 0 or 1."""
        self._add(b"\x01" if as_bool(value, "fingerprint boolean") else b"\x00")

    def write_u64(self, value: int) -> None:
        """Write an integer from 0 to 2**64 - 1."""
        self._add(_U64.pack(as_int(value, "fingerprint integer", maximum=2**64 - 1)))

    def write_f64(self, value: float) -> None:
        """Write a number; -0.0 is written as +0.0."""
        number = as_float(value, "fingerprint number")
        if isinstance(value, (int, np.integer)) and int(number) != int(value):
            raise InvalidType(f"fingerprint number {value} cannot be held by binary64; convert it to float64 yourself")
        self._add(_F64.pack(0.0 if number == 0.0 else number))

    def write_str(self, value: str) -> None:
        """Write the byte length, then UTF-8."""
        data = as_str(value, "fingerprint string", empty=True).encode("utf-8")
        self._add(_U64.pack(len(data)))
        self._add(data)

    def write_f64_array(self, values: Any) -> None:
        """Write the length, then the numbers, of a vector of shape (n,).

        Distributed values are written in full on every rank: collective.
        """
        if isinstance(values, DistributedRows):
            self._write_distributed(values)
            return
        if isinstance(values, np.ma.MaskedArray):
            raise InvalidType("fingerprint array is a masked array; fill or drop the masked entries first")
        array = np.asarray(values)
        if is_zero_vector(array):
            self._write_zeros(array.shape[0])
            return
        if array.ndim != 1:
            raise InvalidInput(f"fingerprint array has shape {array.shape}; expected a vector (matrices: write_matrix)")
        if array.size == 0:
            array = array.astype(np.float64)
        check_exact_dtype(array.dtype, "fingerprint array")
        self._add(_U64.pack(array.shape[0]))
        for at in range(0, array.shape[0], _CHUNK):
            self._add(as_bytes(plain_numbers(array[at : at + _CHUNK], "fingerprint array")))

    def _write_zeros(self, n: int) -> None:
        self._add(_U64.pack(n))
        for at in range(0, n, _CHUNK):
            self._add(_ZEROS[: 8 * min(_CHUNK, n - at)])

    def _write_distributed(self, values: DistributedRows) -> None:
        if len(values.shape) != 1:
            raise InvalidInput(f"fingerprint array is distributed rows of shape {values.shape}; expected a vector")
        self._add(_U64.pack(values.shape[0]))
        for part in values.everywhere(_CHUNK):
            self._add(as_bytes(positive_zeros(part, "fingerprint array")))

    def write_matrix(self, matrix: Any, comm: Any = None) -> None:
        """Write the 32 bytes of `matrix_digest`."""
        self._add(bytes.fromhex(digest_of(matrix, comm, self._seen)))

    def digest(self) -> bytes:
        """Return the digest so far, 32 bytes."""
        self._flush()
        return bytes(self._hasher.digest())

    def hexdigest(self) -> str:
        """Return the digest so far, 64 hex digits."""
        return self.digest().hex()
