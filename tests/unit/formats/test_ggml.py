"""ggml's block types: the bytes are those that other readers understand, and the errors are bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("llama_cpp")

import gguf

from edgekit.errors import StageError, UsageError
from edgekit.formats.ggml import TYPES, dequantize, needs_importance, quantize, row_bytes

# Root mean square error of normal values, relative to their own size: what the bits can do, with some room.
ERROR = {
    "f32": 0.0,
    "f16": 5e-4,
    "bf16": 4e-3,
    "q8_0": 0.01,
    "q6_k": 0.025,
    "q5_k": 0.05,
    "q5_1": 0.05,
    "q5_0": 0.06,
    "q4_k": 0.09,
    "q4_1": 0.09,
    "q4_0": 0.11,
    "iq4_nl": 0.10,
    "iq4_xs": 0.10,
    "mxfp4": 0.14,
    "q3_k": 0.18,
    "iq3_s": 0.18,
    "iq3_xxs": 0.23,
    "q2_k": 0.33,
    "iq2_s": 0.33,
    "iq2_xs": 0.36,
    "iq2_xxs": 0.40,
    "iq1_m": 0.60,
    "iq1_s": 0.65,
    "tq1_0": 0.80,
    "tq2_0": 0.80,
}


def normal(rows: int, cols: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


def relative_error(values: NDArray[np.float32], back: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((values - back) ** 2) / np.mean(values**2)))


@pytest.mark.parametrize("name", TYPES)
def test_the_gguf_package_reads_the_same_values(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name.upper()]
    assert (TYPES[name].number, TYPES[name].block, TYPES[name].bytes) == (int(kind), *gguf.GGML_QUANT_SIZES[kind])
    packed = quantize(normal(3, 512), name, np.ones(512, dtype=np.float32))
    assert packed.shape == (3, row_bytes(name, 512))
    ours, theirs = dequantize(packed, name, 512), gguf.quants.dequantize(packed, kind)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TYPES)
def test_the_error_is_what_the_bits_allow(name: str) -> None:
    values = normal(4, 1024)
    back = dequantize(quantize(values, name, np.ones(1024, dtype=np.float32)), name, 1024)
    assert relative_error(values, back) <= ERROR[name]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(TYPES)),
    seed=st.integers(0, 1 << 16),
    exponent=st.integers(-2, 3),  # far below, scales are rounded coarsely: half precision has no more bits there
    rows=st.integers(1, 4),
    blocks=st.integers(1, 3),
)
def test_values_of_any_size_come_back(name: str, seed: int, exponent: int, rows: int, blocks: int) -> None:
    values = (normal(rows, 256 * blocks, seed) * np.float32(10.0**exponent)).astype(np.float32)
    back = dequantize(quantize(values, name, np.ones(256 * blocks, dtype=np.float32)), name, 256 * blocks)
    assert relative_error(values, back) <= 1.25 * ERROR[name]


@pytest.mark.parametrize("name", TYPES)
def test_threads_write_the_same_bytes(name: str) -> None:
    values, importance = normal(16, 256), np.abs(normal(1, 256, 1)[0])
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda row: quantize(row[None], name, importance), values))
    np.testing.assert_array_equal(np.concatenate(rows), quantize(values, name, importance))


@pytest.mark.parametrize("name", ["q2_k", "q4_k", "iq3_s", "q4_0"])
def test_important_columns_are_kept_better(name: str) -> None:
    values, importance = normal(64, 256), np.ones(256, dtype=np.float32)
    importance[::8] = 100.0
    plain, weighted = (dequantize(quantize(values, name, i), name, 256) for i in (None, importance))
    assert relative_error(values[:, ::8], weighted[:, ::8]) < relative_error(values[:, ::8], plain[:, ::8])


def test_input_that_would_end_the_process_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown ggml type 'q9_k'"):
        row_bytes("q9_k", 256)
    with pytest.raises(UsageError, match="rows of 96 are no multiple of 256"):
        quantize(normal(2, 96), "q4_k")
    with pytest.raises(UsageError, match="a row of 256 q4_k values has 144"):
        dequantize(np.zeros((2, 143), dtype=np.uint8), "q4_k", 256)
    assert needs_importance("iq2_xs")
    assert not needs_importance("q2_k")
    with pytest.raises(StageError, match="iq2_xs needs an importance"):
        quantize(normal(2, 256), "iq2_xs")
    with pytest.raises(StageError, match="256 finite values"):
        quantize(normal(2, 256), "q4_k", np.ones(255, dtype=np.float32))
    with pytest.raises(StageError, match="not finite"):
        quantize(np.full((1, 256), np.nan, dtype=np.float32), "q4_k")
