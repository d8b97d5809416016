"""ggml's block types: rows of floats to the bytes that llama.cpp reads, and back, by ggml's own code.

The calls release the interpreter lock and may run in several threads at once.
Source: `ggml_quantize_chunk` and `ggml_get_type_traits` of libggml-base, which llama-cpp-python carries.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import MissingExtraError, StageError, UsageError

__all__ = ["TYPES", "BlockType", "dequantize", "ggml_type", "needs_importance", "quantize", "row_bytes"]

ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


@dataclass(frozen=True)
class BlockType:
    """`number`: how a GGUF file names the type. A row is cut into blocks of `block` values, each stored in `bytes`."""

    name: str
    number: int
    block: int
    bytes: int

    @property
    def bits(self) -> float:
        """Bits of storage for one value."""
        return 8 * self.bytes / self.block


TYPES = {
    name: BlockType(name, number, block, size)
    for name, number, block, size in (
        ("f32", 0, 1, 4),
        ("f16", 1, 1, 2),
        ("bf16", 30, 1, 2),
        ("q4_0", 2, 32, 18),
        ("q4_1", 3, 32, 20),
        ("q5_0", 6, 32, 22),
        ("q5_1", 7, 32, 24),
        ("q8_0", 8, 32, 34),
        ("q2_k", 10, 256, 84),
        ("q3_k", 11, 256, 110),
        ("q4_k", 12, 256, 144),
        ("q5_k", 13, 256, 176),
        ("q6_k", 14, 256, 210),
        ("iq1_s", 19, 256, 50),
        ("iq1_m", 29, 256, 56),
        ("iq2_xxs", 16, 256, 66),
        ("iq2_xs", 17, 256, 74),
        ("iq2_s", 22, 256, 82),
        ("iq3_xxs", 18, 256, 98),
        ("iq3_s", 21, 256, 110),
        ("iq4_nl", 20, 32, 18),
        ("iq4_xs", 23, 256, 136),
        ("tq1_0", 34, 256, 54),
        ("tq2_0", 35, 256, 66),
        ("mxfp4", 39, 32, 17),
    )
}


class _Traits(ctypes.Structure):
    """The head of `struct ggml_type_traits`."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ToFloat),
    )


@cache
def _library() -> ctypes.CDLL:
    try:
        import llama_cpp
        from llama_cpp._ctypes_extensions import load_shared_library
    except ModuleNotFoundError:
        raise MissingExtraError("llama-cpp-python", "gguf") from None
    library: ctypes.CDLL = load_shared_library("ggml-base", Path(llama_cpp.__file__).parent / "lib")
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = (
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),  # type, values, bytes
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),  # first value, rows, columns
        ctypes.c_void_p,  # importance
    )
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    library.ggml_quantize_requires_imatrix.argtypes = (ctypes.c_int,)
    library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    library.ggml_get_type_traits.argtypes = (ctypes.c_int,)
    return library


def ggml_type(name: str) -> BlockType:
    """The type of this name, in either case. Raises UsageError where there is none."""
    if name.lower() not in TYPES:
        raise UsageError(f"unknown ggml type {name!r}", hint=f"one of: {', '.join(TYPES)}")
    return TYPES[name.lower()]


def row_bytes(type_name: str, cols: int) -> int:
    """Bytes of a row of `cols` values. Raises UsageError where blocks do not fill it."""
    kind = ggml_type(type_name)
    if cols < 1 or cols % kind.block:
        hint = "q4_0 to q8_0 and iq4_nl need multiples of 32, the other quantized types of 256; f16 takes any"
        raise UsageError(f"type {kind.name}: rows of {cols} are no multiple of {kind.block}", hint=hint)
    return cols // kind.block * kind.bytes


def needs_importance(type_name: str) -> bool:
    """Whether ggml refuses to quantize to this type without an importance matrix."""
    return bool(_library().ggml_quantize_requires_imatrix(ggml_type(type_name).number))


def quantize(
    values: NDArray[np.float32], type_name: str, importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Values (rows, cols) as bytes (rows, row_bytes).

    `importance` (cols,): weight of the squared error in each column; llama.cpp's is the mean square of the input.
    Raises UsageError for an unknown type or rows that its blocks do not fill, StageError for values that are not
    finite and for an importance that is missing or does not fit (ggml would end the process).
    """
    kind = ggml_type(type_name)
    rows, cols = values.shape
    packed = np.empty((rows, row_bytes(kind.name, cols)), dtype=np.uint8)
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise StageError(f"values that are not finite cannot be quantized to {kind.name}")
    weights = None
    if importance is not None:
        weights = np.ascontiguousarray(importance, dtype=np.float32)
        if weights.shape != (cols,) or not np.isfinite(weights).all() or (weights < 0).any():
            raise StageError(f"importance of shape {weights.shape}: {cols} finite values, not below 0, are needed")
    elif needs_importance(kind.name):
        raise StageError(f"type {kind.name} needs an importance for each column", hint="give calibration text")
    pointer = None if weights is None else weights.ctypes.data
    _library().ggml_quantize_chunk(kind.number, values.ctypes.data, packed.ctypes.data, 0, rows, cols, pointer)
    return packed


def dequantize(data: NDArray[np.uint8], type_name: str, cols: int) -> NDArray[np.float32]:
    """Bytes (rows, row_bytes) as values (rows, cols). Raises UsageError where the bytes are not rows of `cols`."""
    kind = ggml_type(type_name)
    width = row_bytes(kind.name, cols)
    if data.ndim != 2 or data.shape[1] != width:
        raise UsageError(f"bytes of shape {data.shape}: a row of {cols} {kind.name} values has {width}")
    data = np.ascontiguousarray(data)
    if kind.name == "f32":
        return data.view(np.float32).copy()
    values = np.empty((len(data), cols), dtype=np.float32)
    to_float = _library().ggml_get_type_traits(kind.number).contents.to_float
    to_float(data.ctypes.data, values.ctypes.data, values.size)
    return values
