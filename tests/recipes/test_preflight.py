"""What a plan finds before anything runs: of the tokenizer, of labels, of heads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.api import plan
from edgekit.errors import PlanError
from edgekit.library import find_recipe
from edgekit.plan import Plan
from tests.slow_tokenizers import write_slow


def write_labels(path: Path, labels: list[str]) -> str:
    path.write_text("text,label\n" + "".join(f"my card is lost,{label}\n" for label in labels), encoding="utf-8")
    return str(path)


def plan_of(recipe: str, model: Path, labels: list[str], **params: str) -> Plan:
    test = write_labels(model.parent / "test.csv", labels)
    given = {"model": str(model), "test": test, "max_length": "32", **params}
    return plan(recipe, given, store=model.parent / "store")


def refused(recipe: str, model: Path, labels: list[str], **params: str) -> str:
    with pytest.raises(PlanError) as caught:
        plan_of(recipe, model, labels, **params)
    return str(caught.value)


def test_a_package_that_the_tokenizer_takes_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.tokenizer_files._installed", lambda name: False)
    text = refused("quantize-only", write_slow(tmp_path / "deberta", "deberta-v2"), ["LABEL_0"])
    assert "making one of its spm.model takes sentencepiece and protobuf (pip install sentencepiece protobuf)" in text


def test_a_slow_tokenizer_is_no_obstacle(tmp_path: Path) -> None:
    folder = write_slow(tmp_path / "albert", "albert")
    assert [step.id for step in plan_of("quantize-only", folder, ["LABEL_0"]).steps][:2] == ["model-onnx", "onnx-f32"]


def unmapped(folder: Path) -> Path:
    """A BERT whose tokenizer is a unigram one that normalizes by NFKC, without SentencePiece's character map."""
    from tests.conftest import write_tiny
    from tests.tiny_architectures import unigram_spec

    write_tiny(folder, "bert")
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    spec = unigram_spec(roles) | {"normalizer": {"type": "NFKC"}}
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (folder / "vocab.txt").unlink()
    return folder


def test_an_optional_gguf_of_a_tokenizer_that_llama_cpp_has_not_is_left_out(tmp_path: Path) -> None:
    made = plan_of("quantize-only", unmapped(tmp_path / "bert"), ["LABEL_0"])
    assert made.recipe.exports == ("onnx-int8", "onnx-int4")
    [note] = [note for note in made.notes if "gguf-f16 and gguf-q8 are left out" in note]
    assert "without SentencePiece's character map cannot be expressed in GGUF" in note


def test_a_gguf_that_is_not_optional_is_refused_for_its_tokenizer(tmp_path: Path) -> None:
    folder, recipe = unmapped(tmp_path / "bert"), tmp_path / "own.yaml"
    recipe.write_text(find_recipe("quantize-only").read_text().replace("optional: true, ", ""))
    text = refused(str(recipe), folder, ["LABEL_0"])
    assert "step gguf-f16" in text
    assert "without SentencePiece's character map" in text


def test_a_damaged_tokenizer_is_told(tmp_path: Path) -> None:
    folder = unmapped(tmp_path / "bert")
    (folder / "tokenizer.json").write_text("{")
    assert "damaged" in refused("quantize-only", folder, ["LABEL_0"])
