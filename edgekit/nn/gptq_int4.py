"""GPTQ on a grid of integers, in torch, so that it runs where the model is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.nn.gptq import RoundColumn, gptq, inverse_factor
from edgekit.nn.grid import GridKind, find_scales, snap

if TYPE_CHECKING:
    import torch

__all__ = ["round_by_gptq"]


def round_by_gptq(
    weights: torch.Tensor, moments: torch.Tensor, kind: GridKind
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Integers (out, in), scales and zeros (out, in / block) of weights (out, in) whose inputs have these `moments`
    (in, in), E[x x^T].

    A block's scales are found when its turn comes, from weights that already carry the errors of the blocks before;
    a column's error there counts 1 / U_jj^2, what it costs once all later columns have made up for it.
    """
    import torch

    left, factor = weights.float().clone(), inverse_factor(moments)
    cost = factor.diagonal().square().reciprocal()
    codes = torch.empty_like(left)
    scales: list[torch.Tensor] = []
    zeros: list[torch.Tensor] = []

    def open_block(start: int, values: torch.Tensor) -> RoundColumn[torch.Tensor]:
        scale, zero = find_scales(values, kind, cost[start : start + kind.block])
        scales.append(scale)
        zeros.append(zero)

        def nearest(column: int, wanted: torch.Tensor) -> torch.Tensor:
            code = snap(wanted, scale[:, 0], zero[:, 0], kind)
            codes[:, start + column] = code
            return (code - zero[:, 0]) * scale[:, 0]

        return nearest

    gptq(left, factor, open_block, kind.block)
    return codes, torch.cat(scales, 1), torch.cat(zeros, 1)
