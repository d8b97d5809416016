"""The recipe for answerers of questions, run on a tiny model: every figure is of the file that ships."""

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
from edgekit.store import Store
from tests.conftest import write_tiny
from tests.recipes.support import FILLER, quick_recipe

ASKED = {"where": "lost card", "when": "transfering", "what": "top up"}  # each has its answer in every context
SETTINGS = (
    "finetune.learning_rate=0.003",
    "finetune.epochs=9",
    "finetune.batch_size=8",
    "distill.learning_rate=0.003",
    "distill.epochs=5",
    "distill.batch_size=8",
    "prune.round_to=8",
    "prune.ffn=0.0",
    "factorize.round_to=4",
)


def write_questions(path: Path, count: int, seed: int) -> str:
    """Contexts of about two windows; the question's word says which of their pieces is the answer."""
    rng = np.random.default_rng(seed)
    paragraphs = []
    for number in range(count):
        parts = [*rng.choice([word for word in FILLER if word not in ASKED], int(rng.integers(12, 22))).tolist()]
        for piece in ASKED.values():
            parts.insert(int(rng.integers(0, len(parts) + 1)), piece)
        context = " ".join(parts)
        qas = [
            {"id": f"{number}-{word}", "question": f"{word} is it", "answers": [{"text": piece, "answer_start": at}]}
            for word, piece in ASKED.items()
            if (at := context.index(piece)) >= 0
        ]
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"data": [{"title": "cards", "paragraphs": paragraphs}]}), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("questions")


@pytest.fixture(scope="module")
def params(folder: Path) -> dict[str, str]:
    sizes = {"train": 50, "validation": 10, "test": 14}
    files = {n: write_questions(folder / f"{n}.json", s, i) for i, (n, s) in enumerate(sizes.items())}
    model = write_tiny(folder / "bert", "bert", layers=3, head=False)
    return {**files, "model": str(model), "max_length": "24", "overlap": "6", "keep_layers": "2"}


@pytest.fixture(scope="module")
def report(folder: Path, params: dict[str, str]) -> Report:
    recipe = quick_recipe(find_recipe("question-answerer"), folder / "recipe.yaml")
    return run(recipe, params, folder / "out", overrides=SETTINGS, store=folder / "store", device="cpu", threads=1)


def test_the_shipped_files_answer_what_the_teacher_answers(report: Report) -> None:
    assert report.baseline is not None
    assert report.baseline.metrics["answer_f1"] == pytest.approx(1.0, abs=0.15)
    assert report.baseline.metrics["exact_match"] is not None
    files, steps = {d.id: d for d in report.deployables}, {s.id: s for s in report.steps}
    for name in ("onnx-int8", "onnx-f32"):
        drop = files[name].accuracy_drop
        assert drop is not None
        assert drop.low <= drop.value <= drop.high < 0.4
        lost = report.baseline.metrics["answer_f1"] - (files[name].metrics["answer_f1"] or 0)
        assert drop.value == pytest.approx(lost)
    assert files["onnx-f32"].metrics["answer_f1"] == pytest.approx(steps["distill"].metrics["answer_f1"], abs=0.02)
    assert all(float(s.facts.numbers["max_difference"]) < 1e-4 for s in report.steps if s.stage == "export")
    assert all(float(s.facts.numbers["agreement"]) == 1.0 for s in report.steps if s.stage == "export")


def test_the_gate_judges_the_drop_of_f1(report: Report) -> None:
    assert report.gate is not None
    entry = next(rule for rule in report.gate.rules if rule.rule.startswith("answer_f1_drop"))
    assert entry.deployable == "onnx-int8"
    assert "bootstrap p" in entry.sentence
    assert not report.gate.reasons
    assert "Answer F1" in render_markdown(report)


def test_the_deployables_own_program_answers_without_edgekit(folder: Path, report: Report) -> None:
    from edgekit.artifact import Artifact
    from edgekit.data.load import load_table
    from edgekit.evaluate import judge, predict
    from edgekit.tasks.encoders import columns_of

    deployable = folder / "out" / "onnx-f32"
    table = load_table(str(folder / "test.json"), columns_of("question-answering")).head(6)
    artifact = Artifact.open(deployable)
    told = judge(artifact, predict(artifact, table, threads=1), table).answers.tolist()
    code = "import sys; sys.modules['edgekit'] = None; from answer import Answerer; import json\n"
    code += "answer = Answerer(); print(json.dumps([answer(*pair)[0] for pair in json.load(sys.stdin)]))"
    pairs = json.dumps(list(zip(table.texts, table.pairs or (), strict=True)))
    done = subprocess.run([sys.executable, "-c", code], cwd=deployable, input=pairs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == told
    command = [sys.executable, "answer.py", "where is it", "my lost card is still waiting"]
    done = subprocess.run(command, cwd=deployable, capture_output=True, text=True)
    assert done.stdout.split("\t")[0] in "my lost card is still waiting", done.stderr
    settings = json.loads((deployable / "labels.json").read_text(encoding="utf-8"))
    assert (settings["task"], settings["overlap"], settings["labels"]) == ("question-answering", 6, ["start", "end"])


def test_every_step_is_a_plain_question_answerer(folder: Path, report: Report) -> None:
    from safetensors import safe_open

    store = Store(folder / "store")
    for step in [step for step in report.steps if step.stage in ("finetune", "prune", "factorize", "distill")]:
        made = store.path(step.artifact)
        config = json.loads((made / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"] == ["BertForQuestionAnswering"]
        with safe_open(made / "model.safetensors", framework="pt") as file:
            assert file.get_slice("qa_outputs.weight").get_shape() == [2, 32]


def test_what_llama_cpp_cannot_do_is_refused_before_anything_runs(folder: Path, params: dict[str, str]) -> None:
    gguf = ("onnx-f32.format=gguf", "onnx-int8.method=q8_0")
    with pytest.raises(PlanError, match=r"llama\.cpp has no question-answering"):
        plan("question-answerer", params, overrides=gguf, store=folder / "store")
