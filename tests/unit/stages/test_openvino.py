"""OpenVINO IR: exported, run by its own runtime, quantized by NNCF, and the example program of the folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from edgekit.artifact import Artifact, Task
from edgekit.data.load import Columns, load_table
from edgekit.data.table import Table
from edgekit.errors import DeviceError, MissingExtraError, StageError
from edgekit.evaluate import predict, predict_torch
from edgekit.formats.openvino_ir import library, write_openvino
from edgekit.inspect import describe_artifact
from edgekit.nn.architecture import picture_length
from edgekit.stages.base import Context
from edgekit.stages.export import Export, draft, export
from edgekit.stages.quantize import Quantize, quantize
from tests.conftest import write_tiny
from tests.tiny_pictures import write_pictures, write_vit

pytest.importorskip("openvino", reason="needs pip install 'edgekit[openvino]'")
TASK = Task(labels=("a", "b", "c"), max_length=16)
TEXTS = (
    "where is my card",
    "please top up the cash",
    "transfer not arrived",
    "lost money",
    "is the rate up",
    "my card",
)
TABLE = Table(TEXTS, labels=("a", "b", "c", "a", "b", "c"))
CONTEXT = Context(data={"train": TABLE, "validation": TABLE}, threads=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return Artifact.outside(write_tiny(tmp_path_factory.mktemp("model") / "bert", "bert"), TASK)


@pytest.fixture(scope="module")
def exported(source: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("exported")
    outcome = export(source, Export(format="openvino"), out, CONTEXT)
    assert float(outcome.facts.numbers["max_difference"]) < 1e-4
    return draft(out, "openvino", TASK)


def test_the_folder_stands_alone(exported: Artifact) -> None:
    names = {"model.xml", "model.bin", "labels.json", "tokenizer.json", "classify.py", "README.md"}
    assert {path.name for path in exported.path.iterdir()} == names
    assert "pip install openvino tokenizers numpy" in (exported.path / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, exported.path / "classify.py", "lost money"], capture_output=True, text=True, check=True
    )
    label, score, text = done.stdout.rstrip("\n").split("\t")
    logits = predict(exported, Table(("lost money",)), threads=1).logits[0].astype(float)
    assert (label, text) == (TASK.labels[int(logits.argmax())], "lost money")
    assert float(score) == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), abs=1e-3)


@pytest.mark.parametrize("batch", [1, 3])
def test_answers_are_torchs_whatever_the_batch(source: Artifact, exported: Artifact, batch: int) -> None:
    found = predict(exported, TABLE, threads=1, batch=batch)
    assert (found.runtime, found.providers) == ("openvino", ("CPU",))
    np.testing.assert_allclose(found.logits, predict_torch(source, TABLE, threads=1).logits, atol=1e-4)


def test_half_precision_halves_the_weights(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(512, 32)).astype(np.float32)
    tiny_onnx.write_model(tmp_path / "model.onnx", table, np.ones((32, 3), np.float32))
    for precision in ("f32", "f16"):
        write_openvino(tmp_path / "model.onnx", tmp_path / f"{precision}.xml", precision)
    small, large = ((tmp_path / f"{precision}.bin").stat().st_size for precision in ("f16", "f32"))
    assert small < 0.6 * large


def test_int8_is_small_near_and_says_what_it_left(exported: Artifact, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="needs pip install 'edgekit[openvino]'")
    outcome = quantize(
        exported, Quantize(method="int8-nncf", embeddings="keep", exclude=("classifier",)), tmp_path, CONTEXT
    )
    assert {skipped.reason for skipped in outcome.facts.skipped} == {"embeddings are kept", "excluded"}
    assert len(outcome.facts.touched) == 13
    exact, found = (predict(a, TABLE, threads=1).logits for a in (exported, draft(tmp_path, "openvino", TASK)))
    assert 0 < np.abs(exact - found).max() < 0.1 * np.abs(exact).max()
    assert describe_artifact(draft(tmp_path, "openvino", TASK))["operators"]["FakeQuantize"] > 0  # type: ignore[call-overload, index]


def test_a_method_of_another_format_and_a_damaged_file(exported: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not a method for openvino"):
        quantize(exported, Quantize(method="int8-dynamic"), tmp_path, CONTEXT)
    for path in exported.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(DeviceError, match="bad_model"):
        predict(draft(tmp_path, "openvino", TASK), TABLE, threads=1)


def test_without_the_extra_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"edgekit\[openvino\]"):
        library()


def test_a_classifier_of_pictures_is_exported_and_quantized(tmp_path: Path) -> None:
    columns = Columns(text="image", label="label", pictures=True)
    table = load_table(str(write_pictures(tmp_path / "pictures", count=6)), columns)
    model = write_vit(tmp_path / "vit")
    task = Task(kind="image-classification", labels=("kind0", "kind1", "kind2"), max_length=picture_length(model))
    context = Context(data={"train": table, "validation": table}, task=task, threads=1)
    source, out = Artifact.outside(model, task), tmp_path / "ir"
    out.mkdir()
    export(source, Export(format="openvino"), out, context)
    exported, small = draft(out, "openvino", task), tmp_path / "int8"
    exact = predict_torch(source, table, threads=1).logits
    np.testing.assert_allclose(predict(exported, table, threads=1).logits, exact, atol=1e-4)
    small.mkdir()
    quantize(exported, Quantize(method="int8-nncf"), small, context)
    found = predict(draft(small, "openvino", task), table, threads=1).logits
    assert 0 < np.abs(found - exact).max() < 0.2 * np.abs(exact).max()
