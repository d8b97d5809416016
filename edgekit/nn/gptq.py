"""Rounding a matrix so that its outputs stay, not its entries: each column's error is taken up by the columns after it.

Source: Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StageError

__all__ = ["OpenBlock", "RoundColumn", "gptq", "inverse_factor"]

Floats = NDArray[np.float32]
RoundColumn = Callable[[int, Floats], Floats]  # column of the block, values (out,) -> what is stored for them (out,)
OpenBlock = Callable[[int, Floats], RoundColumn]  # first column, values (out, block) -> rounding with scales that fit


def inverse_factor(hessian: Floats, damp: float = 0.01) -> Floats:
    """Upper Cholesky factor U (in, in) of the inverse: U^T U = (H + damp mean(diag H) I)^-1, in float64 inside.

    Raises StageError where `hessian` (in, in) is not finite, or not positive after damping.
    """
    if not np.isfinite(hessian).all():
        raise StageError("what a matrix reads is NaN or infinite", hint="does the model work on these texts?")
    damped = hessian.astype(np.float64)
    damped[np.diag_indices_from(damped)] += damp * max(float(np.mean(np.diag(damped))), 1e-12)
    try:
        lower = np.linalg.cholesky(damped[::-1, ::-1])  # of the matrix read backwards
    except np.linalg.LinAlgError:
        raise StageError("the activations' second moments are no positive matrix", hint="raise the damping") from None
    inverse = np.linalg.inv(lower)
    return np.ascontiguousarray(inverse[::-1, ::-1], dtype=np.float32)


def gptq(weight: Floats, factor: Floats, open_block: OpenBlock, block: int, lazy: int = 32) -> Floats:
    """What is stored for `weight` (out, in), block by block of `block` columns.

    `factor`: of `inverse_factor`. `open_block` fixes the scales of a block for the weights as they stand by then.
    `lazy`: columns whose errors reach the rest of the matrix in one product. Rows do not depend on each other.
    """
    left = np.array(weight, dtype=np.float32, order="F")
    cols = left.shape[1]
    stored = np.empty_like(left)
    for start in range(0, cols, block):
        round_column = open_block(start, np.ascontiguousarray(left[:, start : start + block]))
        for first in range(start, start + block, lazy):
            last = min(first + lazy, start + block)
            errors = np.empty((len(left), last - first), dtype=np.float32, order="F")
            for j in range(first, last):
                stored[:, j] = round_column(j - start, left[:, j])
                errors[:, j - first] = (left[:, j] - stored[:, j]) / factor[j, j]
                left[:, j + 1 : last] -= np.outer(errors[:, j - first], factor[j, j + 1 : last])
            left[:, last:] -= errors @ factor[first:last, last:]
    return stored
