"""Static int8 for OpenVINO IR by NNCF: weights per output channel, activations by ranges seen on calibration data."""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from edgekit.errors import MissingExtraError, StageError
from edgekit.formats.openvino_ir import library, save, unpacked

if TYPE_CHECKING:
    import numpy as np
    import openvino

__all__ = ["Operation", "operations", "quantize_openvino"]

TAKEN = {"MatMul": 1, "Gather": 0}  # operator -> which input is the weight
NARROW = ("i8", "u8", "i4", "u4")


class Operation(NamedTuple):
    """A MatMul or Gather with a constant matrix: its name, the operator, and whether the matrix is int8."""

    name: str
    operator: str
    narrow: bool


def quantize_openvino(
    source: Path,
    out: Path,
    *,
    feeds: Iterable[dict[str, np.ndarray[Any, Any]]],
    keep: Collection[str] = (),
    reduce_range: bool = True,
    smooth: float = 0.0,
) -> list[str]:
    """Write the quantized IR; returns the names of the operations whose weights are int8.

    `feeds`: calibration inputs, each (batch, length); `keep`: operations that stay in float; `reduce_range`: weights in
    7 of 8 bits (see docs/design/int8-range.md); `smooth`: SmoothQuant's alpha, 0: none.
    Raises MissingExtraError without openvino or nncf, StageError where nothing is left to quantize.
    Source: NNCF, `nncf.quantize`; Xiao et al. 2022, SmoothQuant.
    """
    nncf = _nncf()
    from nncf.quantization import advanced_parameters as advanced

    model = library().Core().read_model(str(source))
    left = [operation.name for operation in _operations(model) if operation.name not in keep]
    if not left:
        raise StageError(
            "nothing left to quantize: every matrix product and embedding table is excluded",
            hint="--exclude takes parts of names; see edgekit explain",
        )
    inputs = list(feeds)
    overflow = advanced.OverflowFix.ENABLE if reduce_range else advanced.OverflowFix.DISABLE
    alphas = advanced.AdvancedSmoothQuantParameters(matmul=smooth or -1)
    settings = advanced.AdvancedQuantizationParameters(overflow_fix=overflow, smooth_quant_alphas=alphas)
    with redirect_stdout(io.StringIO()):  # its progress bars
        quantized = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=sorted(keep)) if keep else None,
            advanced_parameters=settings,
        )
    save(quantized, out)
    return [operation.name for operation in operations(out) if operation.narrow]


def operations(file: Path) -> list[Operation]:
    """Every MatMul and Gather of the IR with a constant matrix, larger than a kilobyte where it is a table."""
    return _operations(library().Core().read_model(str(file)))


def _operations(model: openvino.Model) -> list[Operation]:
    found = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        weight = unpacked(node.input_value(TAKEN[kind]).get_node()) if kind in TAKEN else None
        if weight is None or len(weight.get_output_shape(0)) != 2:
            continue
        if kind == "MatMul" or weight.get_output_shape(0)[0] * weight.get_output_shape(0)[1] >= 1024:
            narrow = weight.get_element_type().get_type_name() in NARROW
            found.append(Operation(node.get_friendly_name(), kind, narrow))
    return found


def _nncf() -> ModuleType:
    library()  # first: it keeps nncf, too, from reporting that it is used
    try:
        nncf = import_module("nncf")
    except ImportError:
        raise MissingExtraError("nncf", "openvino") from None
    nncf.set_log_level(logging.ERROR)
    return nncf
