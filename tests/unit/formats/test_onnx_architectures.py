"""Each architecture, cut and factorized, in onnxruntime: what torch computes, at other shapes, and near it in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.formats.onnx_encoder import operators, write_onnx
from edgekit.formats.onnx_quantize import quantize_onnx
from edgekit.nn.layers import encoder_layers
from edgekit.nn.lowrank import factorize_module, spectrum
from edgekit.nn.surgery import part_path, prune_heads, resize_ffn
from edgekit.nn.weighting import Weighting
from tests.tiny_architectures import random_model

TASK = Task(labels=("a", "b", "c"), max_length=32)
Feed = dict[str, NDArray[np.int64]]


def feed(batch: int, length: int, padded: int, pad: int) -> Feed:
    ids = np.random.default_rng(length).integers(5, 60, (batch, length))
    mask = np.ones_like(ids)
    if padded:
        mask[-1, -padded:] = 0
        ids[-1, -padded:] = pad
    return {"input_ids": ids, "attention_mask": mask}


def run(file: Path, inputs: Feed) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], inputs)[0])


@pytest.mark.parametrize("name", ["albert", "deberta-v2", "modernbert", "mpnet", "xlm-roberta"])
def test_a_cut_model_is_exported_exactly_and_quantized_closely(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    prune_heads(model, 0, torch.tensor([2]))
    resize_ffn(model, len(encoder_layers(model)) - 1, torch.arange(1, 38))
    path = part_path(model, 0, "ffn_up")
    module = model.get_submodule(path)
    model.set_submodule(path, factorize_module(module, spectrum(path, module, Weighting()), 6))
    pad = model.config.pad_token_id
    feeds = [feed(*shape, pad) for shape in ((1, 1, 0), (1, 9, 0), (3, 12, 5), (2, TASK.max_length, 3))]
    with torch.inference_mode():
        wanted = [model(**{n: torch.from_numpy(x) for n, x in f.items()}).logits.numpy() for f in feeds]
    file, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    write_onnx(model, TASK, file)
    for inputs, exact in zip(feeds, wanted, strict=True):
        assert np.abs(run(file, inputs) - exact).max() < 1e-4
    assert any(node.name.startswith("first_token") for node in onnx.load(str(file)).graph.node)
    quantize_onnx(file, small, "int8-dynamic")
    assert operators(small)["MatMulInteger"] >= 10
    found = np.concatenate([run(small, inputs) for inputs in feeds])
    exact = np.concatenate(wanted)
    assert np.abs(found - exact).max() > 0
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.98
