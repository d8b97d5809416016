"""GPTQ on a grid: columns are rounded one after the other, and those that come later make up for the error.

In torch, so that it runs where the model is; `edgekit.nn.gptq` does the same for ggml's own blocks, on the CPU.
Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.nn.grid import GridKind, find_scales, snap

if TYPE_CHECKING:
    import torch

__all__ = ["round_by_gptq"]

DAMPING = 0.01  # of the moments' mean diagonal


def round_by_gptq(
    weights: torch.Tensor, moments: torch.Tensor, kind: GridKind
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Integers (out, in), scales and zeros (out, in / block) of weights (out, in) whose inputs have these `moments`
    (in, in), E[x x^T].

    A block's scales are found when its turn comes, from weights that already carry the errors of the blocks before;
    a column's error there counts 1 / U_jj^2, what it costs once all later columns have made up for it.
    """
    import torch

    left = weights.float().clone()
    upper = _inverse_factor(moments)
    cost = upper.diagonal().square().reciprocal()
    codes = torch.empty_like(left)
    scales, zeros = [], []
    for start in range(0, left.shape[1], kind.block):
        stop = start + kind.block
        scale, zero = find_scales(left[:, start:stop], kind, cost[start:stop])
        errors = torch.empty_like(left[:, start:stop])
        for column in range(start, stop):
            code = snap(left[:, column], scale[:, 0], zero[:, 0], kind)
            codes[:, column] = code
            error = (left[:, column] - (code - zero[:, 0]) * scale[:, 0]) / upper[column, column]
            left[:, column:stop] -= torch.outer(error, upper[column, column:stop])
            errors[:, column - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
        scales.append(scale)
        zeros.append(zero)
    return codes, torch.cat(scales, 1), torch.cat(zeros, 1)


def _inverse_factor(moments: torch.Tensor) -> torch.Tensor:
    """Upper triangular U (in, in), float32, with U^T U the inverse of the damped moments."""
    import torch

    damped = moments.double().clone()
    damped.diagonal().add_(DAMPING * damped.diagonal().mean().clamp_min(1e-12))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper.float()
