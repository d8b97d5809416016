"""The recipe for classifiers of pictures, run on a tiny model: every figure is of the file that ships."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.api import plan, run
from edgekit.errors import DataError, EdgekitError, PlanError
from edgekit.library import find_recipe
from edgekit.report.schema import Report
from tests.conftest import write_tiny
from tests.recipes.support import quick_recipe
from tests.tiny_pictures import write_digits, write_vit

SETTINGS = (
    "finetune.learning_rate=0.003",
    "finetune.epochs=6",
    "finetune.batch_size=16",
    "distill.learning_rate=0.003",
    "distill.epochs=6",
    "distill.batch_size=16",
    "prune.round_to=8",
    "factorize.round_to=4",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def params(folder: Path) -> dict[str, str]:
    rows = {"train": range(500), "validation": range(500, 600), "test": range(600, 700)}
    data = {name: str(write_digits(folder / name, which)) for name, which in rows.items()}
    model = write_vit(folder / "vit", labels=2, heads=4, ffn=64, image_size=28, patch_size=7)
    return {**data, "model": str(model), "keep_layers": "2"}


@pytest.fixture(scope="module")
def report(folder: Path, params: dict[str, str]) -> Report:
    recipe = quick_recipe(find_recipe("image-classifier"), folder / "recipe.yaml")
    return run(recipe, params, folder / "out", overrides=SETTINGS, store=folder / "store", device="cpu", threads=1)


def test_the_shipped_files_answer_as_the_teacher_does(report: Report) -> None:
    assert report.baseline is not None
    base, files = report.baseline.metrics["accuracy"] or 0, {d.id: d for d in report.deployables}
    assert base > 0.5
    for name in ("onnx-int8", "onnx-f32"):
        drop = files[name].accuracy_drop
        assert drop is not None
        assert drop.low <= drop.value <= drop.high < 0.4
        assert (files[name].metrics["agreement"] or 0) > 0.5
    steps = {s.id: s for s in report.steps}
    assert files["onnx-f32"].metrics["accuracy"] == pytest.approx(steps["distill"].metrics["accuracy"], abs=0.011)
    assert all(float(s.facts.numbers["max_difference"]) < 1e-4 for s in report.steps if s.stage == "export")
    assert files["onnx-int8"].size_bytes < files["onnx-f32"].size_bytes < report.baseline.size_bytes


def test_the_folder_stands_alone(report: Report, folder: Path, params: dict[str, str]) -> None:
    shipped = folder / "out" / "onnx-int8"
    text = (shipped / "README.md").read_text()
    assert "pip install onnxruntime pillow numpy" in text and "10 labels, pictures of any size" in text
    pictures = sorted(Path(params["test"]).rglob("*.png"))[:5]
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(shipped)!r}); {PROGRAM}"]
    done = subprocess.run([*command, *map(str, pictures)], capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[2] for row in rows] == [str(path) for path in pictures]
    assert all(row[0].isdigit() or row[0].startswith("kind") for row in rows)
    bad = shipped.parent / "bad.png"
    bad.write_text("no picture")
    done = subprocess.run([*command, str(bad)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr


PROGRAM = "import classify_image as c; assert 'edgekit' not in sys.modules; c.main(sys.argv[1:])"


def test_a_second_run_makes_nothing_again(report: Report, folder: Path, params: dict[str, str]) -> None:
    made = plan(str(find_recipe("image-classifier")), params, overrides=SETTINGS, store=folder / "store")
    assert all(step.cached for step in made.steps)
    assert made.task.max_length == 17


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        ({}, ("onnx-f32.format=gguf", "onnx-int8.method=q8_0"), "multimodal projectors alone"),
        ({}, ("prune.vocabulary=true",), "it has no vocabulary"),
        ({}, ("factorize.modules=[embedding]",), "no table of tokens"),
        ({}, ("distill.altered_copies=1",), "leave it at 0"),
        ({"train": "nowhere"}, (), "no such file: nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    change: dict[str, str], settings: tuple[str, ...], words: str, params: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises((PlanError, DataError)) as error:
        plan("image-classifier", {**params, **change}, overrides=(*SETTINGS, *settings), store=tmp_path)
    assert words in str(error.value)


def test_models_of_texts_are_refused(params: dict[str, str], tmp_path: Path) -> None:
    bert = str(write_tiny(tmp_path / "bert", "bert"))
    with pytest.raises(EdgekitError, match="bert reads texts, not pictures"):
        plan("image-classifier", {**params, "model": bert}, store=tmp_path)
