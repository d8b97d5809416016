"""What a plan finds before anything runs: of the tokenizer, of labels, of heads."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.api import plan
from edgekit.errors import PlanError
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
