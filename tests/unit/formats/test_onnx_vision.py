"""A model of pictures, cut and factorized, in onnxruntime: what torch computes, at any batch, and near it in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.formats.gguf_encoder import obstacles_of
from edgekit.formats.onnx_encoder import operators, write_onnx
from edgekit.formats.onnx_graph import load_model, save_model
from edgekit.formats.onnx_narrow import layer_names, narrow_graph
from edgekit.formats.onnx_quantize import quantize_onnx
from edgekit.nn.load import Edits
from edgekit.nn.lowrank import factorize_module, spectrum
from edgekit.nn.surgery import head_size, part_path, prune_heads, resize_ffn
from edgekit.nn.weighting import Weighting
from tests.tiny_pictures import random_vit

TASK = Task(kind="image-classification", labels=("a", "b", "c"), max_length=10)


def run(file: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"pixel_values": pixels})[0])


def batches() -> list[NDArray[np.float32]]:
    dice = np.random.default_rng(0)
    return [dice.standard_normal((count, 3, 12, 12)).astype(np.float32) for count in (1, 2, 5)]


def logits(model: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(model(pixel_values=torch.from_numpy(pixels)).logits.numpy())


@pytest.mark.parametrize("name", ["vit", "deit"])
def test_a_cut_model_is_exported_exactly_and_quantized_closely(name: str, tmp_path: Path) -> None:
    model = random_vit(name)
    prune_heads(model, 0, torch.tensor([2]))
    resize_ffn(model, 2, torch.arange(1, 38))
    path = part_path(model, 0, "ffn_up")
    module = model.get_submodule(path)
    model.set_submodule(path, factorize_module(module, spectrum(path, module, Weighting()), 6))
    wanted = [logits(model, pixels) for pixels in batches()]
    file, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    write_onnx(model, TASK, file)
    for pixels, exact in zip(batches(), wanted, strict=True):
        assert np.abs(run(file, pixels) - exact).max() < 1e-4
    assert any(node.name.startswith("first_token") for node in onnx.load(str(file)).graph.node)
    counts = operators(file)
    assert counts["Gelu"] == 3 and "Erf" not in counts
    assert counts["MultiHeadAttention"] == 3
    quantize_onnx(file, small, "int8-dynamic")
    counts = operators(small)
    assert counts["MatMulInteger"] + counts.get("DynamicQuantizeMatMul", 0) >= 8
    assert counts["QAttention"] == 2  # the last layer's reads one query alone
    found = np.concatenate([run(small, pixels) for pixels in batches()])
    exact = np.concatenate(wanted)
    assert np.abs(found - exact).max() > 0
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.98


def test_as_it_is_the_graph_computes_the_same(tmp_path: Path) -> None:
    model = random_vit(qkv_bias=False)
    wanted = [logits(model, pixels) for pixels in batches()]  # the export changes how a model computes attention
    write_onnx(model, TASK, tmp_path / "model.onnx", rewrite=False)
    for pixels, exact in zip(batches(), wanted, strict=True):
        assert np.abs(run(tmp_path / "model.onnx", pixels) - exact).max() < 1e-4


def test_its_costs_can_be_measured(tmp_path: Path) -> None:
    """What `trim` times: the exported graph, narrowed, still runs and is smaller."""
    model, file = random_vit(), tmp_path / "model.onnx"
    write_onnx(model, TASK, file)
    graph = load_model(file)
    narrow_graph(graph, layer_names(model), [1, 2, 1], [8, 40, 16], head_size(model))
    save_model(graph, tmp_path / "narrow.onnx")
    assert run(tmp_path / "narrow.onnx", batches()[1]).shape == (2, 3)
    assert (tmp_path / "narrow.onnx").stat().st_size < file.stat().st_size


def test_gguf_is_refused_with_the_reason() -> None:
    found = obstacles_of({"model_type": "vit"}, Edits(), TASK)
    assert "multimodal projectors alone" in str(found[0])
