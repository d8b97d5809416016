"""Every stage alone, through the command line, one after the other on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.artifact import Artifact
from tests.conftest import write_tiny
from tests.recipes.support import write_data


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    write_tiny(folder / "bert", "bert", layers=2, head=False)
    write_data(folder)
    return folder


def edgekit(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit.cli.main", *arguments]
    if arguments[0] not in ("bench", "gate"):
        command += ["--store", str(work / "store")]
    return subprocess.run(command, cwd=work, capture_output=True, text=True)


DATA = ("--train", "train.csv", "--validation", "validation.csv", "--label-column", "category", "--max-length", "32")
CHAIN = [  # (arguments, format of the result)
    (("finetune", "bert", "tuned", *DATA, "--epochs", "4", "--learning-rate", "0.003", "--threads", "1"), "hf"),
    (("prune", "tuned", "small", *DATA, "--keep-layers", "1", "--ffn", "0.5", "--vocabulary"), "hf"),
    (
        ("trim", "tuned", "trimmed", "--train", "train.csv", "--budget", "size", "--share", "0.7", "--round-to", "8"),
        "hf",
    ),
    (("factorize", "small", "thin", *DATA[:2], "--round-to", "4", "--rank-by", "budget", "--budget", "0.5"), "hf"),
    (("distill", "thin", "student", "--teacher", "tuned", *DATA, "--epochs", "2", "--threads", "1"), "hf"),
    (("student", "tuned", "shaped", "--layers", "1", "--hidden", "16", "--heads", "2", "--ffn", "32"), "hf"),
    (("export", "student", "onnx", "--validation", "validation.csv"), "onnx"),
    (("export", "student", "gguf", "--format", "gguf", "--precision", "f16", "--validation", "validation.csv"), "gguf"),
    (("quantize", "onnx", "int8", "--method", "int8-dynamic"), "onnx"),
    (("quantize", "onnx", "static", "--method", "int8-static", "--train", "train.csv", "--samples", "8"), "onnx"),
    (("quantize", "gguf", "q8", "--method", "q8_0"), "gguf"),
]


def test_the_chain_by_hand(work: Path) -> None:
    for arguments, file_format in CHAIN:
        done = edgekit(work, *arguments)
        assert done.returncode == 0, f"{arguments[0]}: {done.stderr}"
        made = Artifact.open(work / arguments[2])
        assert made.damage() == []
        assert made.format == file_format
        assert made.task is not None
        assert made.task.labels == ("lost", "rate", "top")
    again = edgekit(work, *CHAIN[-1][0][:2], "q8-again", *CHAIN[-1][0][3:], "--json")
    assert json.loads(again.stdout)["cached"] is True
    bench = edgekit(
        work, "bench", "int8", "q8", "--baseline", "onnx", "--data", "test.csv", "--label-column", "category",
        "--rounds", "2", "--seconds", "0.02", "--items", "4", "--out", "bench", "--json",
    )  # fmt: skip
    assert bench.returncode == 0, bench.stderr
    report = json.loads(bench.stdout)
    assert [d["id"] for d in report["deployables"]] == ["int8", "q8"]
    assert report["baseline"]["id"] == "onnx"
    good = edgekit(work, "gate", "bench/report.json", "--rule", "size <= 1MB")
    assert (good.returncode, "pass" in good.stdout) == (0, True)
    bad = edgekit(work, "gate", "bench/report.json", "--rule", "size <= 1kB", "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["verdict"] == "fail"
    shown = edgekit(work, "inspect", "int8", "--json")
    assert json.loads(shown.stdout)["operators"]["MatMulInteger"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quantize", "bert", "x"), "quantize works on onnx or gguf"),
        (("finetune", "bert", "x", "--train", "nowhere.csv"), "no such file: nowhere.csv"),
        (("finetune", "bert", "x", "--train", "train.csv", "--label-column", "categry"), "did you mean 'category'?"),
        (("prune", "bert", "x", "--ffn", "2"), "--ffn"),
        (("distill", "bert", "x", "--train", "train.csv"), "--teacher"),
    ],
)
def test_a_mistake_is_told(work: Path, arguments: tuple[str, ...], message: str) -> None:
    done = edgekit(work, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (work / "x").exists()
