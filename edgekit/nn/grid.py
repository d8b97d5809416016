"""Weights on a grid that every 4- and 8-bit format can hold: integers, and a scale for each block of a row.

w = s (q - z), with q in 0 ... 2^bits - 1, s a half-precision number, z an integer: half the range where the grid is
symmetric. What makes it fit everywhere: GGUF's Q4_0, Q8_0 and ONNX's MatMulNBits hold s and q as they are; Q4_1 holds
s and the minimum -s z, both in half precision, so an asymmetric grid's scales have 7 significant bits and every
product with z <= 15 is exact in half precision's 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = [
    "Bits",
    "Grid",
    "GridKind",
    "blocked",
    "find_scales",
    "grid_of",
    "held_scales",
    "integers",
    "snap",
    "values_of",
]

Bits = Literal[4, 8]
SHRINK = tuple(1 - 0.03 * step for step in range(14))  # ranges tried, against the block's own: 1 ... 0.61
DAMPING = 1e-3  # of the mean importance: a channel that the data never excite still counts a little


@dataclass(frozen=True)
class GridKind:
    """`bits` 4 or 8, `block` columns to a scale; 8 bits are always symmetric."""

    bits: Bits = 4
    block: int = 32
    symmetric: bool = True

    @property
    def middle(self) -> int:
        """What q means zero in a symmetric grid."""
        return 1 << (self.bits - 1)

    @property
    def lowest(self) -> int:
        """8 bits leave out -128: kernels take absolute values of signed bytes."""
        return 1 if self.bits == 8 else 0

    @property
    def highest(self) -> int:
        return int((1 << self.bits) - 1)


@dataclass(frozen=True)
class Grid:
    """A matrix (out, in): `codes` (out, in) uint8, `scales` (out, in / block) float16, `zeros` (out, in / block) uint8
    or None where the grid is symmetric."""

    kind: GridKind
    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    zeros: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.codes.shape[0]), int(self.codes.shape[1])

    def values(self) -> NDArray[np.float32]:
        """The weights (out, in) that it stands for: exact in float32."""
        rows, width = self.shape
        zeros = np.float32(self.kind.middle) if self.zeros is None else self.zeros[..., None].astype(np.float32)
        steps = self.codes.reshape(rows, -1, self.kind.block).astype(np.float32) - zeros
        return (steps * self.scales[..., None].astype(np.float32)).reshape(rows, width)

    def take(self, rows: NDArray[np.int64]) -> Grid:
        """The rows with these numbers, in this order: a permutation of a matrix's outputs is one of its grid."""
        zeros = None if self.zeros is None else self.zeros[rows]
        return Grid(self.kind, self.codes[rows], self.scales[rows], zeros)


def find_scales(
    weights: torch.Tensor, kind: GridKind, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zeros (out, in / block), float32, of weights (out, in): of the ranges tried, the one with the smallest
    sum of importance (in,) times squared error, its scale then fitted by least squares to the integers it gave.

    `importance`: mean square of each input, so that the error is the output's (for inputs that do not correlate).
    """
    import torch

    blocks = blocked(weights, kind)
    heavy = _weighting(blocks, importance)
    best = scales = zeros = torch.empty(0)
    for shrink in SHRINK if kind.bits == 4 else (1.0,):
        for scale, zero in _candidates(blocks, heavy, kind, shrink):
            error = _error(blocks, heavy, scale, zero, kind)
            if not best.numel():
                best, scales, zeros = error, scale, zero
                continue
            better = error < best
            best, scales = torch.where(better, error, best), torch.where(better, scale, scales)
            zeros = torch.where(better, zero, zeros)
    return scales, zeros


def integers(weights: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, kind: GridKind) -> torch.Tensor:
    """q (out, in), float32: the grid's nearest to weights (out, in)."""
    blocks = blocked(weights, kind)
    return snap(blocks, scales[..., None], zeros[..., None], kind).flatten(1)


def snap(weights: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, kind: GridKind) -> torch.Tensor:
    """The integers nearest to weights, with scales and zeros that broadcast to them. A block of zeros has scale 0: its
    integers are the zero point."""
    import torch

    steps = weights / torch.where(scales == 0, 1.0, scales)
    return torch.round(steps + zeros).clamp(kind.lowest, kind.highest)


def values_of(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, kind: GridKind) -> torch.Tensor:
    """The weights (out, in) that codes (out, in) stand for."""
    return ((blocked(codes, kind) - zeros[..., None]) * scales[..., None]).flatten(1)


def blocked(matrix: torch.Tensor, kind: GridKind) -> torch.Tensor:
    """(out, in) as (out, in / block, block), float32."""
    return matrix.float().reshape(len(matrix), -1, kind.block)


def grid_of(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, kind: GridKind) -> Grid:
    """The grid of what `find_scales` and `integers` gave."""
    import torch

    held = None if kind.symmetric else zeros.to(torch.uint8).cpu().numpy()
    return Grid(kind, codes.to(torch.uint8).cpu().numpy(), scales.to(torch.float16).cpu().numpy(), held)


def _weighting(blocks: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    """(1, in / block, block)."""
    import torch

    if importance is None:
        return torch.ones_like(blocks[:1])
    heavy = importance.float() / importance.float().mean().clamp_min(1e-30)
    return (heavy + DAMPING).reshape(1, -1, blocks.shape[2])


def _candidates(
    blocks: torch.Tensor, heavy: torch.Tensor, kind: GridKind, shrink: float
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Scales and zeros for the range times `shrink`, as they are and fitted to the integers that they give."""
    import torch

    if kind.symmetric:
        extreme = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))[..., 0]
        # 4 bits: the largest value lands on the grid's longer side, -8, whatever its sign
        scales = held_scales(extreme * shrink / (-kind.middle if kind.bits == 4 else kind.middle - 1), kind)
        zeros = torch.full_like(scales, kind.middle)
    else:
        low, high = blocks.amin(2).clamp_max(0) * shrink, blocks.amax(2).clamp_min(0) * shrink
        scales = held_scales((high - low) / kind.highest, kind)
        zeros = snap(-low, scales, torch.zeros_like(scales), kind)
    steps = snap(blocks, scales[..., None], zeros[..., None], kind) - zeros[..., None]
    fitted = (heavy * steps * blocks).sum(2) / (heavy * steps.square()).sum(2).clamp_min(1e-30)
    return (scales, zeros), (held_scales(fitted, kind), zeros)


def _error(
    blocks: torch.Tensor, heavy: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, kind: GridKind
) -> torch.Tensor:
    steps = snap(blocks, scales[..., None], zeros[..., None], kind) - zeros[..., None]
    return (heavy * (blocks - steps * scales[..., None]).square()).sum(2)


def held_scales(scales: torch.Tensor, kind: GridKind) -> torch.Tensor:
    """The nearest scales that the formats hold: half precision; 7 significant bits of it where there are minimums."""
    import torch

    halves = scales.to(torch.float16)
    if not kind.symmetric:
        bits = halves.view(torch.int16).int()
        halves = ((bits + 7 + ((bits >> 4) & 1)) & ~15).to(torch.int16).view(torch.float16)
    return halves.float()
