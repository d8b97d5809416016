"""Quantization-aware training: what the model computes with is what its int8 file computes with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.errors import StageError
from edgekit.formats.onnx_encoder import write_onnx
from edgekit.formats.onnx_quantize import quantize_onnx
from edgekit.nn.load import load_classifier
from edgekit.nn.qat import rounded, rounded_activations, rounded_rows, rounded_weights
from edgekit.nn.settings import ClassifierTraining

TASK = Task(labels=("LABEL_0", "LABEL_1", "LABEL_2"), max_length=16)
Tiny = Callable[..., Path]


def ids() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(5, 40, size=(1, 12)))


def run(file: Path) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {"input_ids": ids().numpy(), "attention_mask": np.ones((1, 12), np.int64)}
    return np.asarray(session.run(["logits"], feed)[0])


@pytest.mark.parametrize("tables", ["int8", "int4"])
def test_it_computes_what_the_int8_file_computes(tiny: Tiny, tmp_path: Path, tables: Literal["int8", "int4"]) -> None:
    folder, model_file, out = tiny("bert"), tmp_path / "model.onnx", tmp_path / "int8.onnx"
    model = load_classifier(folder)
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh model's numbers are too small to tell roundings apart
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    exact = model(ids()).logits.detach().numpy()
    with rounded(model, ClassifierTraining(qat="int8", qat_embeddings=tables)), torch.no_grad():
        found = model(ids()).logits.numpy()
    write_onnx(model, TASK, model_file, rewrite=False)  # all positions of the last layer, as here
    others = ("position_embeddings", "token_type_embeddings")
    quantize_onnx(model_file, out, "int8-dynamic", embedding_bits=8 if tables == "int8" else 4, exclude=others)
    shipped = run(out)
    assert np.abs(exact - shipped).max() > 5 * np.abs(found - shipped).max()


def test_the_model_is_left_as_it_was(tiny: Tiny) -> None:
    model = load_classifier(tiny("bert"))
    before, names = model(ids()).logits, set(model.state_dict())
    with rounded(model, ClassifierTraining(qat="int8")):
        assert not torch.equal(model(ids()).logits, before)
        assert set(model.state_dict()) == names
    assert torch.equal(model(ids()).logits, before)
    with rounded(model, ClassifierTraining()):
        assert torch.equal(model(ids()).logits, before)


def test_gradients_go_straight_through() -> None:
    dice = torch.Generator().manual_seed(0)
    for rounding in (rounded_weights, rounded_activations, lambda x: rounded_rows(x, "int4")):
        x = torch.randn(3, 64, generator=dice, requires_grad=True)
        given = torch.randn(3, 64, generator=dice)
        (rounding(x) * given).sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad, given)
        assert not torch.equal(rounding(x), x)
        assert torch.allclose(rounding(rounding(x)), rounding(x), atol=1e-6)  # on the grid already


def test_rows_that_are_no_whole_blocks_are_refused(tiny: Tiny) -> None:
    model = load_classifier(tiny("bert"))
    model.bert.embeddings.word_embeddings = torch.nn.Embedding(8, 38)
    settings = ClassifierTraining(qat="int8", qat_embeddings="int4")
    with pytest.raises(StageError, match="38 columns do not divide into int4 blocks"), rounded(model, settings):
        pass
