"""Rounding into ggml blocks with error feedback: real blocks, nearer outputs, rows on their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("llama_cpp")

from edgekit.formats.ggml import dequantize, quantize
from edgekit.formats.ggml_codes import CODED
from edgekit.formats.gguf_rounding import round_matrix
from edgekit.nn.gptq import inverse_factor

COLS = 512
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def second() -> Floats:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((2000, COLS)) @ random.standard_normal((COLS, COLS)) / np.sqrt(COLS)
    return np.asarray(inputs.T @ inputs / len(inputs), dtype=np.float32)


@pytest.fixture(scope="module")
def factor(second: Floats) -> Floats:
    return np.asarray(inverse_factor(torch.from_numpy(second)).numpy())


@pytest.mark.parametrize("name", CODED)
def test_outputs_stay_nearer_than_by_ggml_alone(name: str, second: Floats, factor: Floats) -> None:
    weight = np.random.default_rng(1).standard_normal((32, COLS)).astype(np.float32)
    importance = np.diag(second).copy()
    packed = {"ggml": quantize(weight, name, importance), "ours": round_matrix(weight, name, importance, factor)}
    errors = {}
    for how, data in packed.items():
        error = dequantize(data, name, COLS) - weight
        errors[how] = float(((error @ second) * error).sum())
    assert packed["ours"].shape == packed["ggml"].shape
    assert errors["ours"] < 0.7 * errors["ggml"]


@pytest.mark.parametrize("name", ["q8_0", "f16", "iq3_xxs"])
def test_types_without_a_code_for_each_value_are_as_ggml_makes_them(name: str, second: Floats, factor: Floats) -> None:
    weight, importance = np.random.default_rng(1).standard_normal((4, COLS)).astype(np.float32), np.diag(second).copy()
    expected = quantize(weight, name, None if name == "f16" else importance)
    np.testing.assert_array_equal(round_matrix(weight, name, importance, factor), expected)


def test_rows_do_not_depend_on_each_other(second: Floats, factor: Floats) -> None:
    weight, importance = np.random.default_rng(1).standard_normal((8, COLS)).astype(np.float32), np.diag(second).copy()
    whole = dequantize(round_matrix(weight, "q3_k", importance, factor), "q3_k", COLS)
    parts = [
        dequantize(round_matrix(weight[i : i + 2], "q3_k", importance, factor), "q3_k", COLS) for i in (0, 2, 4, 6)
    ]
    assert np.mean(whole == np.concatenate(parts)) > 0.99  # sums in another order may tip a value over
