"""The llama.cpp worker and the example program as processes of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

import edgekit.formats
from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.formats.gguf_encoder import write_gguf
from edgekit.jobs import WORKERS
from edgekit.nn.load import load_classifier
from edgekit.tasks.text_classification import encode

TEXTS = ("where is my card", "money still not arrived?", "", "top up cash rate " * 20, "Café, please!")
TASK = Task(labels=("a", "b", "ccc"), max_length=24)
EXAMPLE = Path(edgekit.formats.__file__).parent / "examples" / "classify_gguf.py"


@pytest.fixture
def folder(tiny: Callable[..., Path]) -> Path:
    folder = tiny("bert")
    write_gguf(folder, TASK, folder / "model.gguf", "f16")
    return folder


def torch_logits(folder: Path, table: Table, task: Task = TASK) -> np.ndarray:
    import torch

    model = load_classifier(folder)
    with torch.inference_mode():
        rows = encode(folder, table, task).ids
        return np.stack([model(torch.tensor([ids])).logits[0].numpy() for ids in rows])


def run(folder: Path, mode: str, pairs: list[str] | None = None, **job: Any) -> dict[str, Any]:
    inputs = {"texts": list(TEXTS), "pairs": pairs, "max_length": job.pop("max_length", 24)}
    (folder / "inputs.json").write_text(json.dumps(inputs))
    whole = {"model": str(folder / "model.gguf"), "inputs": str(folder / "inputs.json"), "threads": 1, "mode": mode}
    whole |= {"tokenizer": None, "batch": 1, "warmup": 0, "seconds": None, "iterations": None, "items": None} | job
    (folder / "job.json").write_text(json.dumps(whole))
    worker = [sys.executable, str(WORKERS / "llama_worker.py"), str(folder / "job.json"), str(folder / "result.json")]
    done = subprocess.run(worker, capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    assert done.stderr == ""
    assert done.returncode == 0
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def test_predict_in_batches_gives_torchs_logits_in_order(folder: Path) -> None:
    result = run(folder, "predict", batch=3)
    assert (result["schema"], result["error"], result["threads"]) == (1, None, 1)
    assert result["runtime"]["name"] == "llama.cpp"
    assert np.abs(np.array(result["logits"]) - torch_logits(folder, Table(texts=TEXTS))).max() < 5e-3
    assert result["peak_rss_bytes"] > result["base_rss_bytes"] > 1e6
    assert result["load_ms"] > 0
    assert result["first_ms"] > 0


def test_pairs_are_predicted_as_pairs(folder: Path) -> None:
    result = run(folder, "predict", pairs=list(TEXTS[::-1]), batch=2)
    expected = torch_logits(folder, Table(texts=TEXTS, pairs=TEXTS[::-1]))
    assert np.abs(np.array(result["logits"]) - expected).max() < 5e-3


def test_tokenize_keeps_the_end_mark_of_a_text_that_is_cut(folder: Path) -> None:
    result = run(folder, "tokenize", max_length=9)
    ids = encode(folder, Table(texts=TEXTS), TASK.model_copy(update={"max_length": 9})).ids
    assert result["tokens"] == ids
    assert len(result["tokens"][3]) == 9
    assert result["tokens"][3][-1] == 3


def test_latency_times_exactly_the_iterations(folder: Path) -> None:
    result = run(folder, "latency", warmup=2, iterations=7, items=[0, 1])
    assert len(result["samples_ms"]) == len(result["cpu_ms"]) == 7
    assert all(ms > 0 for ms in result["samples_ms"])


def test_latency_by_seconds_makes_whole_passes(folder: Path) -> None:
    result = run(folder, "latency", seconds=0.05, items=[0, 1, 2, 4], batch=2)
    assert len(result["samples_ms"]) >= 2
    assert len(result["samples_ms"]) % 2 == 0


@pytest.mark.parametrize(
    ("job", "kind"),
    [
        ({"model": "absent.gguf"}, "bad_model"),
        ({"inputs": "absent.json"}, "bad_input"),
        ({"mode": "dance"}, "bad_input"),
        ({"max_length": 25}, "bad_input"),
        ({"mode": "latency"}, "bad_input"),
        ({"items": [99]}, "bad_input"),
        ({"pairs": ["one"]}, "bad_input"),
    ],
)
def test_what_cannot_be_done_is_told_in_the_result(folder: Path, job: dict[str, Any], kind: str) -> None:
    result = run(folder, **({"mode": "predict"} | job))
    assert result["error"]["kind"] == kind
    assert result["error"]["message"]


def test_a_damaged_file_is_told_with_llamas_own_words(folder: Path) -> None:
    whole = (folder / "model.gguf").read_bytes()
    (folder / "model.gguf").write_bytes(whole[: len(whole) // 2])
    result = run(folder, "predict")
    assert result["error"]["kind"] == "bad_model"
    assert "(" in result["error"]["message"]


def test_a_missing_runtime_is_told(folder: Path) -> None:
    (folder / "llama_cpp.py").write_text("raise ImportError('no llama here')")
    for name in ("llama_worker.py", "harness.py"):
        shutil.copyfile(WORKERS / name, folder / name)
    (folder / "job.json").write_text("{}")
    command = [sys.executable, str(folder / "llama_worker.py"), str(folder / "job.json"), str(folder / "result.json")]
    subprocess.run(command, timeout=60, check=True)
    error = json.loads((folder / "result.json").read_text())["error"]
    assert error == {"kind": "missing_runtime", "message": "no llama here"}


def example(folder: Path, *arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "classify.py").write_bytes(EXAMPLE.read_bytes())
    command = [sys.executable, str(folder / "classify.py"), *arguments]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60, cwd=folder.parent)


def test_the_example_program_says_what_torch_says(folder: Path) -> None:
    texts = tuple(text for text in TEXTS if text)
    logits = torch_logits(folder, Table(texts=texts))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    done = example(folder, lines="\n".join(texts) + "\n")
    assert done.stderr == ""
    for line, text, row in zip(done.stdout.splitlines(), texts, scores, strict=True):
        label, score, said = line.split("\t")
        assert (label, said) == (TASK.labels[int(row.argmax())], text)
        assert abs(float(score) - row.max()) < 2e-3
    assert example(folder, texts[0]).stdout == done.stdout.splitlines()[0] + "\n"


def test_the_example_program_takes_pairs(tiny: Callable[..., Path]) -> None:
    folder = tiny("roberta")
    task = TASK.model_copy(update={"pair": True})
    write_gguf(folder, task, folder / "model.gguf", "f16")
    pair = ("top up " * 30, "card " * 13)
    row = torch_logits(folder, Table(texts=pair[:1], pairs=pair[1:]), task)[0]
    label, score, _ = example(folder, *pair).stdout.split("\t")
    assert label == TASK.labels[int(row.argmax())]
    assert abs(float(score) - np.exp(row.max()) / np.exp(row).sum()) < 2e-3
    assert "give both" in example(folder, "one").stderr
