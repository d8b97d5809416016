"""What every worker does around its runtime: when warm-up ends, and that nobody outlives edgekit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import tiny_onnx

from edgekit.jobs import WORKERS

BENCH = "bench", "--seconds", "600", "--items", "1", "--threads", "1"
CODE = """
from pathlib import Path
from edgekit.artifact import Artifact
from edgekit.jobs import Call, Inputs
from edgekit.runtimes import runtime_of
from edgekit.transports import LOCAL
artifact = Artifact.open(Path({path!r}))
LOCAL.run(runtime_of(artifact).job(artifact, Inputs(("on",), None, 8), Call("latency", 1, seconds=600)))
"""


@pytest.fixture
def harness() -> ModuleType:
    spec = spec_from_file_location("harness_alone", WORKERS / "harness.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_model_that_answers_token_by_token_answers_for_real_tokens_only(harness: ModuleType) -> None:
    rows = [[1, 2], [3]]

    def run(batch: list[list[int]]) -> list[list[list[float]]]:
        width = max(map(len, batch))
        return [[[float(row[at]) if at < len(row) else -1.0, 0.5] for at in range(width)] for row in batch]

    found = harness.predict(run, rows, list, 2, len)
    assert found == [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]]
    assert harness.predict(lambda batch: [[float(len(row))] for row in batch], rows, list, 2, len) == [[2.0], [1.0]]


def test_warm_up_is_bounded_by_its_second(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr(harness, "STEADY", float("inf"))
    assert harness.warm_up(ran.append, [0, 1], 6) == 6
    assert ran == [0, 1, 0, 1, 0, 1]
    assert harness.warm_up(ran.append, [0], 0) == 0
    monkeypatch.setattr(harness, "WARMUP_SECONDS", 0.0)
    assert harness.warm_up(ran.append, [0], 6) == 1


def runs(process: psutil.Process, script: str) -> bool:
    with suppress(psutil.NoSuchProcess):  # a zombie is none either
        return any(script in part for part in process.cmdline())
    return False


def workers(process: subprocess.Popen[bytes], script: str) -> list[psutil.Process]:
    """The process's descendants that run `script`, waited for; empty where it ends without any."""
    while process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        found = [child for child in children if runs(child, script)]
        if found:
            return found
        time.sleep(0.1)
    return []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_job_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    path = str(tiny_onnx.make(tmp_path / "tiny").path)
    command = [sys.executable, "-c", CODE.format(path=path)]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}) as parent:
        found = workers(parent, "ort_worker.py")
        while not any("onnxruntime" in loaded.path for loaded in found[0].memory_maps()):  # it is at work
            time.sleep(0.1)
        parent.kill()
    assert found
    assert psutil.wait_procs(found, timeout=15)[1] == []


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_whoever_ends_edgekit_ends_its_workers(tmp_path: Path, end: signal.Signals) -> None:
    path = str(tiny_onnx.make(tmp_path / "tiny").path)
    (tmp_path / "test.csv").write_text("text\non\noff\n")
    command = [sys.executable, "-m", "edgekit.cli.main", *BENCH, path, "--data", str(tmp_path / "test.csv")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as parent:
        found = workers(parent, "ort_worker.py" if end == signal.SIGINT else "duet_worker.py")
        parent.send_signal(end)
        told = parent.communicate(timeout=60)[1]
    assert found
    assert (parent.returncode, b"stopped" in told) == (130, True)
    assert psutil.wait_procs(found, timeout=15)[1] == []
