"""Rounding a matrix so that its outputs stay, not its entries: each column's error is taken up by the columns after it.

Source: Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StageError

if TYPE_CHECKING:
    import torch

__all__ = ["OpenBlock", "RoundColumn", "gptq", "inverse_factor"]

Array = TypeVar("Array", NDArray[np.float32], "torch.Tensor")
RoundColumn = Callable[[int, Array], Array]  # column of the block, values (out,) -> what is stored for them (out,)
OpenBlock = Callable[[int, Array], RoundColumn[Array]]  # first column, values (out, block) -> rounding by scales found


def inverse_factor(moments: torch.Tensor, damp: float = 0.01) -> torch.Tensor:
    """Upper Cholesky factor U (in, in) of the inverse: U^T U = (H + damp mean(diag H) I)^-1, in float64 inside.

    Raises StageError where `moments` H (in, in) are not finite, or not positive after damping.
    """
    import torch

    if not torch.isfinite(moments).all():
        raise StageError("what a matrix reads is NaN or infinite", hint="does the model work on these texts?")
    damped = moments.double().clone()
    damped.diagonal().add_(damp * damped.diagonal().mean().clamp_min(1e-12))
    lower, wrong = torch.linalg.cholesky_ex(damped.flip(0, 1))  # of the matrix read backwards
    if wrong:
        raise StageError("the activations' second moments are no positive matrix", hint="raise the damping")
    ones = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    inverse: torch.Tensor = torch.linalg.solve_triangular(lower, ones, upper=False)
    return inverse.flip(0, 1).float()


def gptq(left: Array, factor: Array, open_block: OpenBlock[Array], block: int, lazy: int = 32) -> None:
    """Replace `left` (out, in) by what is stored for it, block by block of `block` columns; of numpy or torch.

    `factor`: of `inverse_factor`. `open_block` fixes the scales of a block for the weights as they stand by then.
    `lazy`: columns whose errors reach the rest of the matrix in one product. Rows do not depend on each other.
    """
    for start in range(0, left.shape[1], block):
        round_column = open_block(start, left[:, start : start + block])
        for first in range(start, start + block, lazy):
            last = min(first + lazy, start + block)
            errors = left[:, first:last] * 0  # of the same kind and layout
            for j in range(first, last):
                stored = round_column(j - start, left[:, j])
                errors[:, j - first] = (left[:, j] - stored) / factor[j, j]
                left[:, j] = stored
                left[:, j + 1 : last] -= errors[:, j - first, None] * factor[j, j + 1 : last]
            left[:, last:] -= errors @ factor[first:last, last:]
