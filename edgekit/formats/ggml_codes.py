"""The codes inside ggml's blocks: a block is scales and, for each value, a few bits that pick one of its levels.

Where those bits lie is found, not written down: flipping a bit of a scale changes many values, flipping a bit of a code
changes exactly one. So one piece of code reads and writes the codes of every type that has one code for each value, and
what it writes is what ggml reads. The types iq1 to iq3 have one code for several values; they are not for this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.formats.ggml import dequantize, ggml_type, quantize

__all__ = ["CODED", "Codes", "codes_of"]

CODED = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "iq4_xs")


@dataclass(frozen=True)
class Codes:
    """`bits` (block, bits of a code), lowest first: places in a block, from the lowest bit of its first byte."""

    type_name: str
    bits: NDArray[np.intp]

    @property
    def count(self) -> int:
        """Levels that a code picks from."""
        return int(1 << self.bits.shape[1])

    def write(self, packed: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The blocks (rows, row_bytes) with these codes (rows, columns) and the scales that they have."""
        kind = ggml_type(self.type_name)
        flat = np.unpackbits(packed.reshape(-1, kind.bytes), axis=1, bitorder="little")
        planes = codes.reshape(-1, kind.block)[:, :, None] >> np.arange(self.bits.shape[1], dtype=np.uint8) & 1
        flat[:, self.bits.reshape(-1)] = planes.reshape(len(flat), -1)
        return np.packbits(flat, axis=1, bitorder="little").reshape(packed.shape)

    def read(self, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The codes (rows, columns) of blocks (rows, row_bytes)."""
        kind = ggml_type(self.type_name)
        flat = np.unpackbits(packed.reshape(-1, kind.bytes), axis=1, bitorder="little")
        planes = flat[:, self.bits.reshape(-1)].reshape(len(flat), *self.bits.shape)
        codes = np.asarray((planes << np.arange(self.bits.shape[1], dtype=np.uint8)).sum(2), dtype=np.uint8)
        return codes.reshape(len(packed), -1)

    def levels(self, packed: NDArray[np.uint8], cols: int) -> NDArray[np.float32]:
        """What each code would mean in each place, (levels, rows, columns), with the scales of these blocks."""
        shape = (len(packed), cols)
        every = (self.write(packed, np.full(shape, code, dtype=np.uint8)) for code in range(self.count))
        return np.stack([dequantize(blocks, self.type_name, cols) for blocks in every])


@cache
def codes_of(type_name: str) -> Codes:
    """Where the codes of a type lie. Raises UsageError for a type that has not one code for each value."""
    kind = ggml_type(type_name)
    if kind.name not in CODED:
        raise UsageError(f"type {kind.name} has not one code for each value", hint=f"one of: {', '.join(CODED)}")
    values = np.random.default_rng(0).standard_normal((1, kind.block)).astype(np.float32)
    block = quantize(values, kind.name)
    flips = block ^ np.packbits(np.eye(8 * kind.bytes, dtype=np.uint8), axis=1, bitorder="little")
    change = np.abs(dequantize(flips, kind.name, kind.block) - dequantize(block, kind.name, kind.block))
    single = np.flatnonzero((change > 0).sum(1) == 1)
    owner, weight = change[single].argmax(1), change[single].max(1)
    order = np.lexsort((weight, owner))
    return Codes(kind.name, single[order].reshape(kind.block, -1))
