"""The recipes for sentence embedders, run on a tiny model: every figure is of the file that ships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.api import plan, run, run_stage
from edgekit.data.table import SplitName, Table
from edgekit.errors import PlanError
from edgekit.library import find_recipe
from edgekit.nn.load import load_classifier
from edgekit.report.markdown import render_markdown
from edgekit.report.schema import Report
from edgekit.stages.export import Export
from tests.conftest import write_tiny
from tests.recipes.support import FILLER, quick_recipe

SETTINGS = (
    "finetune.learning_rate=0.003",
    "finetune.epochs=10",
    "finetune.batch_size=16",
    "distill.learning_rate=0.003",
    "distill.epochs=10",
    "distill.batch_size=16",
    "prune.round_to=8",
)
COLUMNS = {"first_column": "1", "second_column": "2", "score_column": "3"}


def write_pairs(path: Path, count: int, seed: int) -> str:
    """Pairs, without a header, whose score is the share of words that both texts have."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        words = rng.choice(FILLER, 8, replace=False).tolist()
        shared = int(rng.integers(0, 5))
        lines.append(f"{' '.join(words[:4])},{' '.join(words[4 - shared : 8 - shared])},{1.25 * shared}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def params(folder: Path) -> dict[str, str]:
    sizes = {"train": 160, "validation": 40, "test": 60}
    files = {n: write_pairs(folder / f"{n}.csv", s, i) for i, (n, s) in enumerate(sizes.items())}
    model = write_tiny(folder / "bert", "bert", layers=4, head=False)
    return {**files, **COLUMNS, "model": str(model), "max_length": "32", "keep_layers": "2"}


@pytest.fixture(scope="module")
def report(folder: Path, params: dict[str, str]) -> Report:
    recipe = quick_recipe(find_recipe("sentence-embedder"), folder / "recipe.yaml")
    return run(recipe, params, folder / "out", overrides=SETTINGS, store=folder / "store", device="cpu", threads=1)


def test_the_shipped_files_order_pairs_as_the_teacher_does(report: Report) -> None:
    assert report.baseline is not None
    base, files = report.baseline.metrics["spearman"] or 0, {d.id: d for d in report.deployables}
    assert base > 0.8
    for name in ("onnx-int8", "onnx-f32", "gguf-q8", "gguf-f16"):
        drop = files[name].accuracy_drop
        assert drop is not None
        assert drop.low <= drop.value <= drop.high < 0.3
        assert drop.value == pytest.approx(base - (files[name].metrics["spearman"] or 0))
        assert (files[name].metrics["agreement"] or 0) > 0.8
    steps = {s.id: s for s in report.steps}
    assert files["onnx-f32"].metrics["spearman"] == pytest.approx(steps["distill"].metrics["spearman"], abs=0.01)
    for step in (s for s in report.steps if s.stage == "export"):
        assert float(step.facts.numbers["max_difference"]) < (1e-3 if step.id == "gguf-f16" else 1e-5)
    assert files["onnx-int8"].size_bytes < files["onnx-f32"].size_bytes
    assert files["gguf-q8"].size_bytes < files["gguf-f16"].size_bytes


def test_the_gate_judges_the_drop_of_spearman(report: Report) -> None:
    assert report.gate is not None
    entry = next(rule for rule in report.gate.rules if rule.rule.startswith("spearman_drop"))
    assert entry.deployable == "onnx-int8"
    assert "bootstrap p" in entry.sentence
    assert not report.gate.reasons
    text = render_markdown(report)
    assert "Spearman correlation" in text
    assert "Accuracy |" not in text


def test_the_student_is_a_folder_that_other_libraries_open(folder: Path, report: Report) -> None:
    key = next(step.artifact for step in report.steps if step.id == "distill")
    made = next((folder / "store").glob(f"artifacts/{key}*"))
    modules = json.loads((made / "modules.json").read_text(encoding="utf-8"))
    assert [module["type"].rsplit(".", 1)[1] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    assert json.loads((made / "1_Pooling" / "config.json").read_text())["word_embedding_dimension"] == 32
    assert load_classifier(made, kind="sentence-similarity").pooling == "mean"


def in_openvino(folder: Path, report: Report, out: Path) -> Path:
    """The student once more, as OpenVINO IR."""
    pytest.importorskip("openvino", reason="needs pip install 'edgekit[openvino]'")
    key = next(step.artifact for step in report.steps if step.id == "distill")
    made = next((folder / "store").glob(f"artifacts/{key}*"))
    texts = Table(tuple(" ".join(FILLER[at:]) for at in range(6)), name="texts")
    given: dict[SplitName, Table] = {"unlabeled": texts}
    run_stage("export", Export(format="openvino"), str(made), out, tables=given, store=folder / "store", device="cpu")
    return out


@pytest.mark.parametrize("file_format", ["onnx", "openvino", "gguf"])
def test_the_deployables_own_program_runs_it_without_edgekit(
    folder: Path, report: Report, tmp_path: Path, file_format: str
) -> None:
    shipped = {"onnx": "onnx-int8", "gguf": "gguf-q8"}.get(file_format)
    deployable = folder / "out" / shipped if shipped else in_openvino(folder, report, tmp_path / "openvino")
    texts = [" ".join(FILLER[:4]), " ".join(FILLER[4:8]), " ".join(FILLER[:4])]
    code = f"import sys; sys.modules['edgekit'] = None; sys.argv = ['embed.py', *{texts}]\n"
    code += "import runpy; runpy.run_path('embed.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=deployable, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    likest, other = (line.split("\t") for line in done.stdout.splitlines())
    assert float(likest[0]) == pytest.approx(1.0, abs=1e-4)
    assert likest[1:] == [texts[0], texts[2]]
    assert float(other[0]) < 0.9


def test_an_embedder_is_quantized_as_it_is(folder: Path, params: dict[str, str], report: Report) -> None:
    recipe = quick_recipe(find_recipe("sentence-embedder-int8"), folder / "int8.yaml")
    given = {**COLUMNS, "model": params["model"], "test": params["test"], "max_length": "32"}
    found = run(recipe, given, folder / "int8", store=folder / "store", device="cpu", threads=1)
    assert found.baseline is not None
    files = {d.id: d for d in found.deployables}
    assert files["onnx-f32"].metrics["spearman"] == pytest.approx(found.baseline.metrics["spearman"], abs=0.01)
    for name in ("onnx-int8", "gguf-q8", "gguf-f16"):
        assert files[name].metrics["spearman"] == pytest.approx(found.baseline.metrics["spearman"], abs=0.1)


def test_what_cannot_work_is_refused_before_anything_runs(folder: Path, params: dict[str, str]) -> None:
    electra = {**params, "model": str(write_tiny(folder / "electra", "electra", layers=4, head=False))}
    wanted = ("onnx-f32.format=gguf", "onnx-int8.method=q8_0")
    with pytest.raises(PlanError, match="electra as GGUF"):
        plan("sentence-embedder", electra, overrides=wanted, store=folder / "s")
    made = plan("sentence-embedder", electra, store=folder / "s")
    assert made.recipe.exports == ("onnx-int8", "onnx-f32")
    with pytest.raises(PlanError, match="sentence-similarity is of two texts"):
        plan("sentence-embedder", {**params, "second_column": ""}, store=folder / "s")
