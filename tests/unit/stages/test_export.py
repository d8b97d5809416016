from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import ParityError, StageError
from edgekit.formats import onnx_encoder
from edgekit.stages.base import Context
from edgekit.stages.export import Export, export

TASK = Task(labels=("a", "b", "c"), max_length=16)
TEXTS = ("where is my card", "please top up the cash", "transfer not arrived", "lost money", "is the rate up")
CONTEXT = Context(data={"validation": Table(TEXTS)}, threads=1)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_export_stands_alone_and_says_how_close_it_is(tiny: Callable[..., Path], tmp_path: Path) -> None:
    source = Artifact.outside(tiny("bert"), TASK)
    outcome = export(source, Export(format="onnx", check_rows=3), folder(tmp_path / "out"), CONTEXT)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "model.onnx",
        "labels.json",
        "tokenizer.json",
        "classify.py",
        "README.md",
    }
    assert outcome.facts.numbers["rows"] == 3
    assert float(outcome.facts.numbers["max_difference"]) < 1e-4


def test_a_file_that_disagrees_with_torch_does_not_count(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real mismatch: the exporter is given a model whose head was changed behind the source's back."""
    import torch

    true_write = onnx_encoder.write_onnx

    def wrong(model: torch.nn.Module, task: Task, out_file: Path, *, rewrite: bool) -> None:
        with torch.no_grad():
            model.classifier.bias += 0.01
        true_write(model, task, out_file, rewrite=rewrite)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_encoder, "write_onnx", wrong)
    source = Artifact.outside(tiny("bert"), TASK)
    with pytest.raises(ParityError, match="disagrees with torch"):
        export(source, Export(format="onnx"), folder(tmp_path / "out"), CONTEXT)
    outcome = export(source, Export(format="onnx", tolerance=0.1), folder(tmp_path / "lax"), CONTEXT)
    assert float(outcome.facts.numbers["max_difference"]) == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("family", ["distilbert", "electra"])
def test_what_gguf_cannot_express_is_refused_with_a_way_out(
    tiny: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    source = Artifact.outside(tiny(family), TASK)
    with pytest.raises(StageError, match="GGUF cannot express") as caught:
        export(source, Export(format="gguf"), folder(tmp_path / "out"), CONTEXT)
    assert caught.value.problems[0].hint


def test_a_model_without_a_trained_head_is_refused(tiny: Callable[..., Path], tmp_path: Path) -> None:
    source = Artifact.outside(tiny("bert", head=False), None)
    with pytest.raises(StageError, match="no trained head"):
        export(source, Export(), folder(tmp_path / "out"), CONTEXT)


def test_the_comparison_needs_real_inputs(tiny: Callable[..., Path], tmp_path: Path) -> None:
    source = Artifact.outside(tiny("bert"), TASK)
    with pytest.raises(StageError, match="real inputs"):
        export(source, Export(), folder(tmp_path / "out"), Context(threads=1))
