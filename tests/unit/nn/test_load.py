from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit.errors import ModelError
from edgekit.nn.load import Edits, is_trained, load_classifier, read_edits, save_model
from edgekit.nn.surgery import resize_ffn, settle

Tiny = Callable[..., Path]


def narrowed(folder: Path, out: Path) -> Path:
    model = load_classifier(folder)
    resize_ffn(model, 1, torch.arange(10))
    save_model(model, out, tokenizer_from=folder, edits=settle(model))
    return out


def test_an_encoder_without_head_loads_with_a_new_one(tiny: Tiny) -> None:
    folder = tiny("bert", head=False)
    assert not is_trained(folder)
    model = load_classifier(folder, ("a", "b", "c", "d"))
    assert model.classifier.out_features == 4
    assert model.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"}


def test_new_labels_replace_the_head_also_after_edits(tiny: Tiny, tmp_path: Path) -> None:
    folder = narrowed(tiny("bert"), tmp_path / "out")
    model = load_classifier(folder, ("a", "b", "c", "d", "e"))
    assert model.classifier.out_features == 5
    kept = load_classifier(folder)
    assert torch.equal(model.bert.encoder.layer[1].output.dense.weight, kept.bert.encoder.layer[1].output.dense.weight)


def test_a_missing_encoder_weight_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    for folder in (tiny("bert"), narrowed(tiny("bert"), tmp_path / "edited")):
        weights = load_file(folder / "model.safetensors")
        del weights["bert.encoder.layer.0.output.dense.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="missing"):
            load_classifier(folder)


def test_edits_that_do_not_fit_the_weights_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = narrowed(tiny("bert"), tmp_path / "out")
    (folder / "edits.json").write_text(json.dumps({"ffn": {"1": 12}}))
    with pytest.raises(ModelError, match=r"edits\.json says"):
        load_classifier(folder)


@pytest.mark.parametrize(
    "edits",
    [
        {"ffn": {"7": 10}},
        {"ffn": {"0": 0}},
        {"heads": {"0": 9}},
        {"low_rank": {"bert.nothing": 4}},
        {"low_rank": {"bert.embeddings.LayerNorm": 4}},
    ],
)
def test_edits_that_the_model_cannot_have_are_refused(tiny: Tiny, edits: dict[str, object]) -> None:
    folder = tiny("bert")
    (folder / "edits.json").write_text(json.dumps(edits))
    with pytest.raises(ModelError, match=r"edits\.json"):
        load_classifier(folder)


def test_damaged_edits_are_named(tiny: Tiny) -> None:
    folder = tiny("bert")
    (folder / "edits.json").write_text('{"ffn": {"0": "many"}}')
    with pytest.raises(ModelError, match=r"edits\.json"):
        read_edits(folder)


def test_weights_that_are_none_are_named(tiny: Tiny) -> None:
    folder = tiny("bert")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        is_trained(folder)


def test_a_pickle_is_refused(tiny: Tiny) -> None:
    folder = tiny("bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        load_classifier(folder)


def test_a_folder_without_tokenizer_is_refused(tiny: Tiny) -> None:
    folder = tiny("bert")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load_classifier(folder)


def test_empty_edits_write_no_file(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    save_model(load_classifier(folder), tmp_path / "out", tokenizer_from=folder, edits=Edits())
    assert not (tmp_path / "out" / "edits.json").exists()
    assert "/" not in (tmp_path / "out" / "config.json").read_text()  # no path of the machine
