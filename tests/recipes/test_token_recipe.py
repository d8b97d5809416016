"""The recipe for taggers of words, run on a tiny model: every figure is of the file that ships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.api import plan, run
from edgekit.errors import PlanError
from edgekit.library import find_recipe
from edgekit.report.markdown import render_markdown
from edgekit.report.schema import Report
from tests.conftest import write_tiny
from tests.recipes.support import FILLER, quick_recipe

ENTITIES = {"lost card": "B-thing I-thing", "cash": "B-thing", "top up": "B-act I-act", "transfering": "B-act"}
SETTINGS = (
    "finetune.learning_rate=0.003",
    "finetune.epochs=10",
    "finetune.batch_size=8",
    "distill.learning_rate=0.003",
    "distill.epochs=6",
    "distill.batch_size=8",
    "prune.round_to=8",
)


def write_sentences(path: Path, count: int, seed: int) -> str:
    """Sentences in which two words, or one, are an entity."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        parts = [(word, "O") for word in rng.choice(FILLER, int(rng.integers(2, 6)))]
        for words in rng.choice(list(ENTITIES), int(rng.integers(0, 3)), replace=False):
            parts.insert(int(rng.integers(0, len(parts) + 1)), (words, ENTITIES[words]))
        pairs = zip(" ".join(w for w, _ in parts).split(), " ".join(n for _, n in parts).split(), strict=True)
        lines += [f"{word}\t{name}" for word, name in pairs] + [""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@pytest.fixture(scope="module")
def params(folder: Path) -> dict[str, str]:
    sizes = {"train": 80, "validation": 30, "test": 40}
    files = {n: write_sentences(folder / f"{n}.conll", s, i) for i, (n, s) in enumerate(sizes.items())}
    model = write_tiny(folder / "bert", "bert", layers=4, head=False)
    return {**files, "model": str(model), "max_length": "32", "keep_layers": "2"}


@pytest.fixture(scope="module")
def report(folder: Path, params: dict[str, str]) -> Report:
    recipe = quick_recipe(find_recipe("token-classifier"), folder / "recipe.yaml")
    return run(recipe, params, folder / "out", overrides=SETTINGS, store=folder / "store", device="cpu", threads=1)


def test_the_shipped_files_find_what_the_teacher_finds(report: Report) -> None:
    assert report.baseline is not None
    assert report.baseline.metrics["entity_f1"] == pytest.approx(1.0, abs=0.1)
    files = {d.id: d for d in report.deployables}
    for name in ("onnx-int8", "onnx-f32"):
        drop = files[name].accuracy_drop
        assert drop is not None
        assert drop.low <= drop.value <= drop.high < 0.3
        assert drop.value == pytest.approx(
            report.baseline.metrics["entity_f1"] - (files[name].metrics["entity_f1"] or 0)
        )
    steps = {s.id: s for s in report.steps}
    assert files["onnx-f32"].metrics["entity_f1"] == pytest.approx(steps["distill"].metrics["entity_f1"], abs=0.02)
    assert all(float(s.facts.numbers["max_difference"]) < 1e-4 for s in report.steps if s.stage == "export")
    assert files["onnx-int8"].size_bytes < files["onnx-f32"].size_bytes


def test_the_gate_judges_the_drop_of_f1(report: Report) -> None:
    assert report.gate is not None
    entry = next(rule for rule in report.gate.rules if rule.rule.startswith("entity_f1_drop"))
    assert entry.deployable == "onnx-int8"
    assert "bootstrap p" in entry.sentence
    assert not report.gate.reasons
    text = render_markdown(report)
    assert "Entity F1" in text
    assert "Accuracy |" not in text


def test_the_deployables_own_program_runs_it_without_edgekit(folder: Path, report: Report) -> None:
    deployable = folder / "out" / "onnx-int8"
    code = "import sys; sys.modules['edgekit'] = None; sys.argv = ['tag.py', 'where is my lost card please']\n"
    code += "import runpy; runpy.run_path('tag.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=deployable, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("thing\t") and "card" in line for line in done.stdout.splitlines()), done.stdout
    settings = json.loads((deployable / "labels.json").read_text(encoding="utf-8"))
    assert settings["task"] == "token-classification"
    assert settings["labels"] == ["O", "B-act", "I-act", "B-thing", "I-thing"]


def test_what_llama_cpp_cannot_do_is_refused_before_anything_runs(folder: Path, params: dict[str, str]) -> None:
    gguf = ("onnx-f32.format=gguf", "onnx-int8.method=q8_0")
    with pytest.raises(PlanError, match=r"llama\.cpp has no token-classification"):
        plan("token-classifier", params, overrides=gguf, store=folder / "store")


def test_the_deep_cut_reads_capitals_and_learns_from_unlabeled_sentences(folder: Path, params: dict[str, str]) -> None:
    more = folder / "more.txt"
    more.write_text("where is my Lost Card\nplease wait for Cash\n" * 20, encoding="utf-8")
    given = params | {"unlabeled": str(more)}
    teachers = ("finetune", "finetune-recased", "finetune-recased-b")
    quick = {"learning_rate": 0.003, "epochs": 5, "batch_size": 8}
    settings = [f"{name}.{key}={value}" for name in teachers for key, value in quick.items()]
    settings += [f"distill.{key}={value}" for key, value in {**quick, "altered_copies": 1}.items()]
    report = run(
        quick_recipe(find_recipe("token-classifier-deep"), folder / "deep.yaml"),
        given,
        folder / "deep",
        overrides=[*settings, "prune.round_to=8", "prune.ffn=0.5"],
        store=folder / "store",
        device="cpu",
        threads=1,
    )
    steps, files = {s.id: s for s in report.steps}, {d.id: d for d in report.deployables}
    assert steps["recase"].facts.numbers["tokens_added"]
    assert "1 of 4 layers in the token table" in steps["prune"].facts.summary
    assert "3 -> 2 layers" in steps["prune"].facts.summary
    learned = steps["distill"].facts.numbers
    assert (learned["teachers"], learned["unlabeled_rows"]) == (3, 40)
    assert learned["altered_rows"] > 0
    pruned = steps["prune"].facts.numbers
    assert int(pruned["heads_after"]) < int(pruned["heads_before"])
    planned = next(one for one in plan("token-classifier-deep", given).steps if one.id == "distill")
    assert {"altered_draw": "by_word", "altered_share": 0.4}.items() <= planned.config.model_dump().items()
    assert (files["onnx-int8"].metrics["entity_f1"] or 0.0) > 0.5
    tokenizer = (folder / "deep" / "onnx-int8" / "tokenizer.json").read_text(encoding="utf-8")
    assert "ˇlost" in tokenizer
