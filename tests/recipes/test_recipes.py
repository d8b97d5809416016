"""Every recipe that ships, run on a tiny model, through the Python API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.api import plan, run
from edgekit.artifact import Artifact
from edgekit.errors import PlanError, StageError
from edgekit.library import find_recipe, names
from edgekit.report.schema import Report, load_report
from tests.recipes import test_language_recipes
from tests.recipes.support import quick_recipe, write_data

Tiny = Callable[..., Path]
# a tiny random model learns slowly, and its FFN of 64 is cut at a rounding of 32
TRAIN = ("finetune.learning_rate=0.003", "finetune.epochs=6", "distill.learning_rate=0.003", "distill.epochs=4")
TRAIN += ("factorize.round_to=4", "prune.keep_layers=3", "onnx-int8.embeddings=int8")


class Bench:
    """A folder with data, a store, and a quick copy of each recipe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_data(folder)

    def recipe(self, name: str) -> str:
        return str(quick_recipe(find_recipe(name), self.folder / f"{name}.yaml"))

    def run(self, name: str, params: dict[str, str], overrides: tuple[str, ...] = (), out: str = "out") -> Report:
        return run(
            self.recipe(name),
            {**self.data, **params},
            self.folder / out,
            overrides=overrides,
            store=self.folder / "store",
            device="cpu",
            threads=1,
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.conftest import write_tiny

    return str(write_tiny(tmp_path_factory.mktemp("models") / "bert", "bert", layers=6, head=False))


@pytest.fixture(scope="module")
def classified(bench: Bench, model: str) -> Report:
    return bench.run("text-classifier", {"model": model}, TRAIN)


def test_text_classifier_makes_what_it_names(bench: Bench, classified: Report) -> None:
    assert [step.id for step in classified.steps][:4] == ["finetune", "prune", "factorize", "distill"]
    assert not any(step.cached for step in classified.steps)
    assert [(d.id, d.format) for d in classified.deployables] == [
        ("onnx-int8", "onnx"),
        ("gguf-q8", "gguf"),
        ("onnx-f32", "onnx"),
        ("gguf-f16", "gguf"),
    ]
    sizes = [step.size_bytes for step in classified.steps]
    assert sizes[1] < sizes[0]
    for deployable in classified.deployables:
        folder = bench.folder / "out" / deployable.path
        assert Artifact.open(folder).damage() == []
        assert deployable.speedup is not None
        assert deployable.latency_ms is not None
        assert deployable.accuracy_drop is not None
    assert classified.gate is not None
    assert {"report.json", "report.md", "report.html", "samples.jsonl"} <= {
        p.name for p in (bench.folder / "out").iterdir()
    }
    assert load_report(bench.folder / "out" / "report.json") == classified


def test_exports_of_one_model_agree(classified: Report) -> None:
    accuracy = {d.id: d.metrics["accuracy"] for d in classified.deployables}
    assert accuracy["onnx-f32"] == pytest.approx(accuracy["gguf-f16"], abs=0.04)
    differences = {s.id: s.facts.numbers["max_difference"] for s in classified.steps if s.stage == "export"}
    assert all(float(value) < (5e-3 if "gguf" in name else 1e-4) for name, value in differences.items())


def test_an_unchanged_rerun_executes_nothing(bench: Bench, classified: Report, model: str) -> None:
    again = bench.run("text-classifier", {"model": model}, TRAIN)
    assert all(step.cached for step in again.steps)
    assert [s.artifact for s in again.steps] == [s.artifact for s in classified.steps]


def test_changing_the_last_step_reruns_the_last_step(bench: Bench, classified: Report, model: str) -> None:
    changed = bench.run("text-classifier", {"model": model}, (*TRAIN, "gguf-q8.method=q4_0"), out="out2")
    assert [step.id for step in changed.steps if not step.cached] == ["gguf-q8"]


def test_a_damaged_artifact_is_found_and_made_again(bench: Bench, classified: Report, model: str) -> None:
    step = next(s for s in classified.steps if s.id == "onnx-int8")
    file = bench.folder / "store" / "artifacts" / step.artifact / "model.onnx"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    again = bench.run("text-classifier", {"model": model}, TRAIN)
    assert [s.id for s in again.steps if not s.cached] == ["onnx-int8"]
    assert file.read_bytes() == good


@pytest.mark.parametrize("name", ["onnx-int8", "gguf-q8"])
def test_the_deployables_own_program_runs_it_without_edgekit(
    bench: Bench, classified: Report, name: str, tmp_path: Path
) -> None:
    folder = bench.folder / "out" / name
    code = "import sys; sys.modules['edgekit'] = None; sys.argv = ['classify.py', 'where is my lost card']\n"
    code += "import runpy; runpy.run_path('classify.py', run_name='__main__')"
    env = {n: v for n, v in os.environ.items() if n != "ORT_DISABLE_TELEMETRY"} | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())  # onnxruntime keeps there what it will send to its makers
    labels = json.loads((folder / "labels.json").read_text())["labels"]
    assert any(label in done.stdout for label in labels)


def test_quantize_only_leaves_the_model_alone(bench: Bench, classified: Report) -> None:
    teacher = next(s for s in classified.steps if s.id == "finetune")
    folder = bench.folder / "store" / "artifacts" / teacher.artifact
    params = {"model": str(folder), "test": bench.data["test"], "label_column": "category", "max_length": "32"}
    report = run(
        bench.recipe("quantize-only"), params, bench.folder / "only", store=bench.folder / "store", device="cpu"
    )
    assert [d.id for d in report.deployables] == ["onnx-int8", "onnx-int4", "gguf-f16", "gguf-q8"]
    assert report.baseline is not None
    assert report.baseline.metrics["accuracy"] == pytest.approx(teacher.metrics["accuracy"] or 0, abs=0.04)


def test_distill_to_smaller_makes_the_shape_that_was_asked_for(bench: Bench, classified: Report) -> None:
    teacher = next(s for s in classified.steps if s.id == "finetune")
    folder = bench.folder / "store" / "artifacts" / teacher.artifact
    shape = {"layers": "1", "hidden": "16", "heads": "2", "ffn": "32", "epochs": "2"}
    report = bench.run("distill-to-smaller", {"model": str(folder), **shape}, out="smaller")
    student = next(s for s in report.steps if s.id == "distill")
    config = json.loads((bench.folder / "store" / "artifacts" / student.artifact / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]) == (1, 16, 32)


def test_prune_without_training_needs_no_labels(bench: Bench, classified: Report) -> None:
    teacher = next(s for s in classified.steps if s.id == "finetune")
    folder = bench.folder / "store" / "artifacts" / teacher.artifact
    params = {name: bench.data[name] for name in ("test", "label_column", "max_length")}
    given = {**params, "model": str(folder), "calibration": bench.data["train"], "share": "0.7"}
    where = {"store": bench.folder / "store", "device": "cpu", "threads": 1}
    overrides = ("trim.budget=size", "trim.round_to=8")  # what is measured takes a minute; a unit test has it
    report = run(bench.recipe("prune-without-training"), given, bench.folder / "trimmed", overrides=overrides, **where)
    assert [d.id for d in report.deployables] == ["onnx-f32", "onnx-int8"]
    assert all(d.speedup is not None for d in report.deployables)
    assert report.baseline is not None and report.deployables[0].size_bytes < report.baseline.size_bytes


def test_every_recipe_is_run_here_or_with_the_language_models() -> None:
    here = {
        "text-classifier",
        "quantize-only",
        "distill-to-smaller",
        "token-classifier",
        "token-classifier-deep",
        "question-answerer",
        "sentence-embedder",
        "sentence-embedder-int8",
        "image-classifier",
        "encoder-int8",
        "seq2seq-quantize",
        "prune-without-training",
    }
    assert set(names()) == here | set(test_language_recipes.RECIPES)


def test_a_plan_runs_nothing_and_knows_what_is_there(bench: Bench, classified: Report, model: str) -> None:
    params = {**bench.data, "model": model}
    made = plan(bench.recipe("text-classifier"), params, overrides=TRAIN, store=bench.folder / "store")
    assert all(step.cached for step in made.steps)
    other = plan(
        bench.recipe("text-classifier"), params, overrides=(*TRAIN, "prune.ffn=0"), store=bench.folder / "store"
    )
    assert [step.id for step in other.steps if step.cached] == ["finetune", "teacher-onnx"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("prune.heads=0.5",), "step gguf-f16"),
        (("prune.scope=global",), "step gguf-f16"),
        (("gguf-q8.method=int8-dynamic",), "int8-dynamic is not a method for gguf files"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    bench: Bench, model: str, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(PlanError) as caught:
        plan(bench.recipe("text-classifier"), {**bench.data, "model": model}, overrides=overrides)
    assert message in str(caught.value)
    assert caught.value.problems[0].hint


def test_a_pruning_that_removes_nothing_fails(bench: Bench, classified: Report, model: str) -> None:
    idle = ("prune.keep_layers=0", "prune.ffn=0", "prune.vocabulary=false")
    with pytest.raises(StageError, match="changed nothing"):
        bench.run("text-classifier", {"model": model}, (*TRAIN, *idle), out="idle")


def test_a_family_that_gguf_cannot_express_ships_onnx_and_says_so(bench: Bench, tmp_path: Path) -> None:
    from tests.conftest import write_tiny

    folder = write_tiny(tmp_path / "electra", "electra", layers=4, head=False)
    made = plan(bench.recipe("text-classifier"), {**bench.data, "model": str(folder)}, overrides=TRAIN)
    assert made.recipe.exports == ("onnx-int8", "onnx-f32")
    assert str(made.recipe.rules[0]) == "accuracy_drop <= 1pt on onnx-int8"
    assert any("gguf-f16 and gguf-q8 are left out" in note for note in made.notes)


def test_pairs_of_texts_go_the_same_way(tmp_path: Path, model: str) -> None:
    pairs = Bench(tmp_path)
    pairs.data = write_data(tmp_path, pairs=True)
    report = pairs.run("text-classifier", {"model": model}, (*TRAIN, "finetune.epochs=1", "distill.epochs=1"))
    accuracy = {d.id: d.metrics["accuracy"] for d in report.deployables}
    assert accuracy["onnx-f32"] == pytest.approx(accuracy["gguf-f16"], abs=0.04)
    labels = json.loads((tmp_path / "out" / "onnx-int8" / "labels.json").read_text())
    assert labels["pair"] is True
