"""HQQ on a grid: zero points that keep most weights close and let outliers go, found without any data.

Source: Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models": min |W - s (q - z)|_p^p
with p < 1, in turn over the error (a shrinkage) and z (a mean). Their z is a fraction, a grid's a whole number: of its
neighbours and where it began, the one with the smallest norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.nn.grid import GridKind, blocked, held_scales, integers, snap

if TYPE_CHECKING:
    import torch

__all__ = ["round_by_hqq"]

NORM = 0.7
SHARPNESS = 10.0  # of the shrinkage, and by how much it grows
GROWTH = 1.01
TURNS = 20


def round_by_hqq(weights: torch.Tensor, kind: GridKind) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Integers (out, in), scales and zeros (out, in / block) of weights (out, in). `kind` is asymmetric."""
    blocks = blocked(weights, kind)
    low, high = blocks.amin(2).clamp_max(0), blocks.amax(2).clamp_min(0)
    scales = held_scales((high - low) / kind.highest, kind)
    began = zeros = -low / scales.clamp_min(1e-12)
    sharpness = SHARPNESS
    for _ in range(TURNS):
        codes = snap(blocks, scales[..., None], zeros[..., None], kind)
        error = _shrunk(blocks - (codes - zeros[..., None]) * scales[..., None], sharpness)
        zeros = (codes - (blocks - error) / scales[..., None].clamp_min(1e-12)).mean(2)
        sharpness *= GROWTH
    zeros = _whole(blocks, scales, (began.round(), zeros.floor(), zeros.ceil()), kind)
    return integers(weights, scales, zeros, kind), scales, zeros


def _whole(
    blocks: torch.Tensor, scales: torch.Tensor, choices: tuple[torch.Tensor, ...], kind: GridKind
) -> torch.Tensor:
    """The zero points of the smallest norm of errors, block by block."""
    import torch

    stacked = torch.stack([zeros.clamp(0, kind.highest) for zeros in choices])
    norms = []
    for zeros in stacked:
        codes = snap(blocks, scales[..., None], zeros[..., None], kind)
        norms.append((blocks - (codes - zeros[..., None]) * scales[..., None]).abs().pow(NORM).sum(2))
    return stacked.gather(0, torch.stack(norms).argmin(0)[None])[0]


def _shrunk(error: torch.Tensor, sharpness: float) -> torch.Tensor:
    size = error.abs()
    left = (size - size.clamp_min(1e-12).pow(NORM - 1) / sharpness).clamp_min(0)
    return error.sign() * left
