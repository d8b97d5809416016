"""The same file against itself, by several ways to measure: how far each way's ratios scatter around 1.

All ways get about the same time for one ratio. hyperfine and pytest-benchmark run as their users run them, one side
after the other; pytest-benchmark in an environment of its own.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gate_models import LENGTH, texts
from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.jobs import WORKERS, Call, Job
from edgekit.progress import Progress
from edgekit.runtimes import Workload, runtime_of
from edgekit.runtimes.base import inputs_of
from edgekit.transports import LOCAL

__all__ = ["spread", "ways"]

SIDE = 6.0  # seconds for each side of one ratio
ROUNDS = 4  # of turns: as long, with their starts
THREADS = 2
SCRIPT = Path(__file__).parent / "peers" / "inference.py"
PEER = ("pytest-benchmark==5.2.*", "pytest>=8,<9", "onnxruntime=={onnxruntime}", "tokenizers", "numpy")


@dataclass(frozen=True)
class Side:
    """What every way measures."""

    file: Artifact
    folder: Path

    @property
    def job(self) -> Job:
        call = Call("latency", THREADS, warmup=16, seconds=SIDE)
        return runtime_of(self.file).job(self.file, inputs_of(self.file, texts(), LENGTH), call)

    def write(self) -> Path:
        """JOB.json for the peers."""
        inputs, path = self.folder / "inputs.json", self.folder / "job.json"
        inputs.write_text(json.dumps(self.job.inputs.wire()), encoding="utf-8")
        job = {"model": str(self.file.model_file), "tokenizer": str(self.file.path / "tokenizer.json")}
        job |= {"inputs": str(inputs), "threads": THREADS, "provider": self.job.provider}  # type: ignore[dict-item]
        path.write_text(json.dumps(job), encoding="utf-8")
        return path


def spread(way: Callable[[], float], times: int, label: str, progress: Progress) -> tuple[float, ...]:
    """`times` log ratios of the file against itself."""
    return tuple(math.log(way()) for _ in progress.track(range(times), label, times))


def ways(file: Artifact, folder: Path, progress: Progress) -> dict[str, Callable[[], float]]:
    """Each way to get one ratio; a peer that cannot be had is left out, and said."""
    side = Side(file, folder)
    path = side.write()
    environment = {**os.environ, "PYTHONPATH": str(WORKERS), "JOB": str(path), "OMP_NUM_THREADS": str(THREADS)}
    found: dict[str, Callable[[], float]] = {"turns": lambda: _turns(file), "sequential": lambda: _sequential(side)}
    if shutil.which("hyperfine"):
        found["hyperfine"] = lambda: _hyperfine(path, folder, environment)
    else:
        progress.say("hyperfine is left out: apt-get install hyperfine")
    python = _peer(folder, progress)
    found["pytest-benchmark"] = lambda: _pytest(python, folder, environment) / _pytest(python, folder, environment)
    return found


def _turns(file: Artifact) -> float:
    workload = Workload(rounds=ROUNDS, length=LENGTH, threads=THREADS, throughput_batches=())
    control = measure({"file": file}, "file", texts(), workload).control
    assert control is not None
    return control.value


def _sequential(side: Side) -> float:
    """Medians of two plain loops, one after the other, each in a fresh process."""
    runtime = runtime_of(side.file)
    first, second = (statistics.median(runtime.parse(LOCAL.run(side.job).raw).wall_ms) for _ in range(2))
    return float(first / second)


def _hyperfine(job: Path, folder: Path, environment: dict[str, str]) -> float:
    """Mean times of two equal commands, each started until its side's time is over."""
    command = f"{sys.executable} {SCRIPT} {job} 300"
    out = folder / "hyperfine.json"
    options = ["--shell=none", "--warmup=1", "--runs=5", "--style=none", f"--export-json={out}"]
    subprocess.run(["hyperfine", *options, command, command], env=environment, check=True, capture_output=True)
    first, second = (item["mean"] for item in json.loads(out.read_text(encoding="utf-8"))["results"])
    return float(first / second)


def _pytest(python: Path, folder: Path, environment: dict[str, str]) -> float:
    """pytest-benchmark's median of one side."""
    out = folder / "pytest.json"
    options = [f"--benchmark-json={out}", f"--benchmark-max-time={SIDE}", "--benchmark-min-rounds=50", "-q"]
    command = [str(python), "-m", "pytest", *options, "-p", "no:cacheprovider", "-c", os.devnull, str(SCRIPT)]
    subprocess.run(command, env=environment, check=True, capture_output=True, cwd=folder)
    return float(json.loads(out.read_text(encoding="utf-8"))["benchmarks"][0]["stats"]["median"])


def _peer(folder: Path, progress: Progress) -> Path:
    from importlib.metadata import version

    progress.say("setting up pytest-benchmark's environment")
    home = folder / "peer"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    wanted = [name.format(onnxruntime=version("onnxruntime")) for name in PEER]
    subprocess.run([str(home / "bin" / "pip"), "install", "-q", *wanted], check=True, capture_output=True)
    return home / "bin" / "python"


def deviation(logs: Sequence[float]) -> float:
    """Root mean square of the log ratios: their scatter around the truth, which is 0."""
    return math.sqrt(sum(x * x for x in logs) / len(logs))
