"""kill -9 in the middle, two runs at once, Ctrl-C: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.library import find_recipe
from tests.conftest import write_tiny
from tests.recipes.support import quick_recipe, write_data

SETTINGS = (
    "finetune.learning_rate=0.003",
    "finetune.epochs=3",
    "distill.epochs=30",
    "factorize.round_to=4",
    "onnx-int8.embeddings=int8",
)


def command(folder: Path, out: str) -> list[str]:
    model = folder / "bert"
    if not model.exists():
        write_tiny(model, "bert", layers=4, head=False)
        write_data(folder)
        quick_recipe(find_recipe("text-classifier"), folder / "recipe.yaml")
    files = [f"--{name}={folder / name}.csv" for name in ("train", "validation", "test")]
    settings = [part for text in SETTINGS for part in ("--set", text)]
    base = [sys.executable, "-m", "edgekit.cli.main", "run", str(folder / "recipe.yaml"), f"--model={model}", *files]
    options = [
        "--label-column=category",
        "--max-length=32",
        f"--out={folder / out}",
        f"--store={folder / 'store'}",
        "--json",
        "--threads=1",
    ]
    return [*base, *options, *settings]


def start(folder: Path, out: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(folder: Path, stage: str) -> None:
    """Until the store has a finished artifact of this stage."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        for manifest in (folder / "store" / "artifacts").glob("*/manifest.json"):
            if json.loads(manifest.read_text())["stage"] == stage:
                return
        time.sleep(0.05)
    raise AssertionError(f"{stage} never finished")


def test_killed_in_the_middle_it_goes_on_from_the_last_finished_step(tmp_path: Path) -> None:
    process = start(tmp_path, "out")
    wait_for(tmp_path, "factorize")  # the long distillation comes next
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out" / "report.json").exists()
    again = subprocess.run(command(tmp_path, "out"), capture_output=True, text=True)
    assert again.returncode in (0, 1), again.stderr
    report = json.loads(again.stdout)
    assert [s["id"] for s in report["steps"] if s["cached"]] == ["finetune", "prune", "factorize"]
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    third = subprocess.run(command(tmp_path, "out"), capture_output=True, text=True)
    assert all(s["cached"] for s in json.loads(third.stdout)["steps"])


def test_ctrl_c_says_that_nothing_is_lost(tmp_path: Path) -> None:
    process = start(tmp_path, "out")
    wait_for(tmp_path, "factorize")
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Finished steps are kept" in stderr
    assert "Traceback" not in stderr
    assert list((tmp_path / "store" / "partial").iterdir()) == []


def test_two_runs_at_once_share_the_work(tmp_path: Path) -> None:
    processes = [start(tmp_path, "one"), start(tmp_path, "two")]
    outputs = [process.communicate(timeout=500) for process in processes]
    assert all(process.returncode in (0, 1) for process in processes), outputs
    reports = [json.loads(stdout) for stdout, _ in outputs]
    keys = [[step["artifact"] for step in report["steps"]] for report in reports]
    assert keys[0] == keys[1]
    for mine, other in zip(reports[0]["steps"], reports[1]["steps"], strict=True):
        assert mine["cached"] or other["cached"], f"{mine['id']} was made twice"


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="needs /proc")
def test_an_unwritable_out_folder_is_told_before_anything_runs(tmp_path: Path) -> None:
    arguments = command(tmp_path, "out")
    arguments[arguments.index(f"--out={tmp_path / 'out'}")] = "--out=/proc/nowhere"
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot write to /proc/nowhere" in done.stderr
    assert not (tmp_path / "store").exists()
