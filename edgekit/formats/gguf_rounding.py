"""Rounding a matrix into ggml blocks so that its outputs stay: ggml finds the scales, GPTQ picks the codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.ggml import ggml_type, quantize
from edgekit.formats.ggml_codes import CODED, Codes, codes_of
from edgekit.nn.gptq import RoundColumn, gptq

__all__ = ["round_matrix"]

Floats = NDArray[np.float32]
PIECE = 1 << 18  # weights rounded at a time: their levels take 64 bytes each at 4 bits, 256 at 6


def round_matrix(weight: Floats, type_name: str, importance: Floats, factor: Floats) -> NDArray[np.uint8]:
    """Bytes (rows, row_bytes) for `weight` (rows, cols); rows do not depend on each other.

    `importance` (cols,) weighs errors while ggml looks for scales, `factor` is `inverse_factor` of the inputs' second
    moments. Types without a code for each value, and those of 8 bits or more, are rounded as ggml does.
    """
    kind = ggml_type(type_name)
    if kind.name not in CODED:
        return quantize(weight, kind.name, importance if kind.block > 1 else None)
    step = max(1, PIECE // weight.shape[1])
    pieces = [weight[start : start + step] for start in range(0, len(weight), step)]
    return np.concatenate([_round_rows(piece, codes_of(kind.name), importance, factor) for piece in pieces])


def _round_rows(weight: Floats, codes: Codes, importance: Floats, factor: Floats) -> NDArray[np.uint8]:
    block = ggml_type(codes.type_name).block
    packed: list[NDArray[np.uint8]] = []
    chosen = np.empty(weight.shape, dtype=np.uint8)
    rows = np.arange(len(weight))

    def open_block(start: int, values: Floats) -> RoundColumn[Floats]:
        packed.append(quantize(values, codes.type_name, importance[start : start + block]))
        levels = codes.levels(packed[-1], block)

        def nearest(column: int, wanted: Floats) -> Floats:
            picks = np.abs(levels[:, :, column] - wanted).argmin(0)
            chosen[:, start + column] = picks
            return np.asarray(levels[picks, rows, column], dtype=np.float32)

        return nearest

    gptq(np.array(weight, order="F"), factor, open_block, block)  # column by column
    return codes.write(np.concatenate(packed, axis=1), chosen)
