"""One grid of integers and scales in the blocks of two formats, bit for bit: nothing is rounded here.

Sources: llama.cpp's `block_q4_0`, `block_q4_1`, `block_q8_0` (ggml-common.h), and ONNX Runtime's operators
`MatMulNBits` and `GatherBlockQuantized` (ContribOperators.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.nn.grid import Grid

__all__ = ["Grid", "OnnxBlocks", "gguf_blocks", "gguf_type", "join_grids", "onnx_blocks"]

GGUF_BLOCK = 32


class OnnxBlocks(NamedTuple):
    """MatMulNBits' inputs: `weights` (out, blocks, block x bits / 8) uint8, `scales` (out, blocks) float32, `zeros`
    (out, blocks, packed as the weights are) uint8 or None."""

    weights: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8] | None


def gguf_type(grid: Grid) -> str:
    """The ggml type whose blocks hold the grid."""
    if grid.kind.bits == 8:
        return "Q8_0"
    return "Q4_0" if grid.zeros is None else "Q4_1"


def gguf_blocks(grid: Grid) -> tuple[str, NDArray[np.uint8]]:
    """The ggml type and its rows (out, bytes). A grid with longer blocks repeats their scales for every 32 columns."""
    rows, width = grid.shape
    repeat = grid.kind.block // GGUF_BLOCK
    scales = np.repeat(grid.scales, repeat, axis=1)[..., None]
    codes = grid.codes.reshape(rows, width // GGUF_BLOCK, GGUF_BLOCK)
    parts = [scales.view(np.uint8)]
    if grid.zeros is not None:
        minimums = -scales.astype(np.float32) * np.repeat(grid.zeros, repeat, axis=1)[..., None]
        parts.append(minimums.astype(np.float16).view(np.uint8))  # exact: see edgekit.nn.grid
    if grid.kind.bits == 8:
        parts.append(codes - np.uint8(grid.kind.middle))  # two's complement
    else:
        parts.append(_pairs(codes[..., :16], codes[..., 16:]))
    return gguf_type(grid), np.concatenate(parts, axis=2).reshape(rows, -1)


def onnx_blocks(grid: Grid) -> OnnxBlocks:
    """The grid as MatMulNBits reads it."""
    rows, width = grid.shape
    weights = _packed(grid.codes, grid.kind.bits).reshape(rows, width // grid.kind.block, -1)
    zeros = None if grid.zeros is None else _packed(grid.zeros, grid.kind.bits)
    return OnnxBlocks(weights, grid.scales.astype(np.float32), zeros)


def join_grids(grids: list[Grid]) -> Grid:
    """Matrices with the same inputs as one, their outputs one after the other: a fused projection."""
    zeros = [grid.zeros for grid in grids if grid.zeros is not None]
    return Grid(
        grids[0].kind,
        np.concatenate([grid.codes for grid in grids]),
        np.concatenate([grid.scales for grid in grids]),
        np.concatenate(zeros) if zeros else None,
    )


def _packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """4 bits: two neighbours to a byte, the first in its lower half; a last one alone."""
    if bits == 8:
        return codes
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return _pairs(even[:, 0::2], even[:, 1::2])


def _pairs(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.bitwise_or(low, np.left_shift(high, np.uint8(4)))
