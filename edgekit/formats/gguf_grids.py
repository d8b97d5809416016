"""Grids in a decoder's GGUF file: the types that hold them, and the bytes of their rows in place of ggml's rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StageError
from edgekit.formats.ggml import quantize
from edgekit.formats.gguf_decoder import Encode, decoder_tensors
from edgekit.formats.grid_file import GridFile
from edgekit.formats.int4 import gguf_blocks, gguf_type

__all__ = ["GridPlan", "plan_grids"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class GridPlan:
    """`types`: the ggml type of each tensor with a grid, by its name in the GGUF file; `encode`: its rows as they are,
    and any other tensor's by ggml."""

    types: dict[str, str]
    encode: Encode


def plan_grids(folder: Path) -> GridPlan:
    """What `write_gguf_decoder` needs to carry the folder's grids over; nothing where the folder has none.

    Raises ModelError and StageError as `decoder_tensors` does.
    """
    grids = GridFile(folder)
    sources = {spec.name: spec.source.removesuffix(".weight") for spec in decoder_tensors(folder)}
    held = {name: source for name, source in sources.items() if source in grids}
    types = {name: gguf_type(grids[source]).lower() for name, source in held.items()}
    rows_of = lru_cache(maxsize=4)(lambda source: _rows_by_values(grids, source))
    return GridPlan(types, _encoder(held, rows_of))


def _encoder(held: dict[str, str], rows_of: Callable[[str], dict[bytes, Bytes]]) -> Encode:
    def encode(name: str, rows: Floats, kind: str) -> Bytes:
        if name not in held:
            return quantize(rows, kind)
        known = rows_of(held[name])
        try:
            return np.stack([known[_digest(row)] for row in rows])
        except KeyError:
            hint = "the weights were changed after they were quantized; quantize again"
            raise StageError(f"the weights of {held[name]} are not their grid's", hint=hint) from None

    return encode


def _rows_by_values(grids: GridFile, source: str) -> dict[bytes, Bytes]:
    """The packed rows by their values: a GGUF file has rows in an order of its own, and they are asked for in pieces.
    Rows with the same values may be told by either's integers."""
    grid = grids[source]
    _, packed = gguf_blocks(grid)
    return {_digest(row): blocks for row, blocks in zip(grid.values(), packed, strict=True)}


def _digest(row: Floats) -> bytes:
    """Of the row's numbers: -0 is 0."""
    return blake2b((row + np.float32(0)).tobytes(), digest_size=16).digest()
