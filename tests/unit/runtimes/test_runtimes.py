"""Runtimes: the job they make of an artifact, how results are read, and the real workers on tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import DeviceError
from edgekit.jobs import WORKERS, Call
from edgekit.running import read_samples
from edgekit.runtimes import CUDA, RUNTIMES, Samples, runtime_of
from edgekit.runtimes.base import inputs_of
from edgekit.runtimes.llamacpp import LLAMACPP
from edgekit.runtimes.onnxruntime import ONNXRUNTIME
from edgekit.runtimes.token_ids import tokenized
from edgekit.targets import find_target
from edgekit.transports import LOCAL
from edgekit.transports.fake import Fake

TEXTS = Table(("on", "off off on", "dim please dim", "please", "on on off dim dim dim"))
COUNTS = [[1, 0, 0], [1, 2, 0], [0, 0, 2], [0, 0, 0], [2, 1, 3]]


def run(artifact: Artifact, table: Table, call: Call) -> Samples:
    runtime = runtime_of(artifact)
    return runtime.parse(LOCAL.run(runtime.job(artifact, inputs_of(artifact, table), call)).raw)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_onnx.make(tmp_path_factory.mktemp("made") / "plain")


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_onnx_predictions_whatever_the_batch(plain: Artifact, batch: int) -> None:
    samples = run(plain, TEXTS, Call("predict", 1, batch=batch))
    assert samples.logits is not None
    assert samples.logits.dtype == np.float32
    assert samples.logits.tolist() == COUNTS
    assert (samples.runtime, samples.providers) == ("onnxruntime", ("CPUExecutionProvider",))
    assert samples.peak_rss_bytes > 10 << 20


def test_onnx_pairs_and_segments(tmp_path: Path) -> None:
    artifact = tiny_onnx.make(tmp_path / "pairs", types=True)
    samples = run(artifact, Table(("on", "off"), ("dim dim", "on")), Call("predict", 1))
    assert samples.logits is not None
    assert samples.logits.tolist() == [[3, 2, 4], [2, 2, 1]]  # counts, plus the tokens of the second text


def test_rows_that_are_token_ids_already_are_not_tokenized(tmp_path: Path) -> None:
    artifact = tiny_onnx.make(tmp_path / "pairs", types=True)
    job = tokenized(runtime_of(artifact).job(artifact, inputs_of(artifact, Table(("on", "off"))), Call("predict", 1)))
    assert job.inputs.rows is not None
    (artifact.path / "tokenizer.json").unlink()
    logits = ONNXRUNTIME.parse(LOCAL.run(job).raw).logits
    assert logits is not None
    assert logits.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_onnx_truncates(plain: Artifact) -> None:
    samples = run(plain, Table(("on " * 20,)), Call("predict", 1))
    assert samples.logits is not None
    assert samples.logits.tolist() == [[8, 0, 0]]


def test_latency_by_iterations(plain: Artifact) -> None:
    samples = run(plain, TEXTS, Call("latency", 1, warmup=3, iterations=7))
    assert len(samples.wall_ms) == len(samples.cpu_ms) == 7
    assert samples.logits is None
    assert (samples.wall_ms > 0).all()
    assert (samples.first_ms > 0, samples.load_ms > 0) == (True, True)


def test_latency_by_seconds_is_whole_passes(plain: Artifact) -> None:
    samples = run(plain, TEXTS, Call("latency", 1, batch=2, seconds=0.05, items=(0, 1, 2, 3)))
    assert len(samples.wall_ms) % 2 == 0
    assert len(samples.wall_ms) > 2  # more than one pass
    assert len(run(plain, TEXTS, Call("latency", 1, seconds=1e-9)).wall_ms) == len(TEXTS)


def test_a_file_that_is_no_model(plain: Artifact, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    (tmp_path / "tokenizer.json").write_bytes((plain.path / "tokenizer.json").read_bytes())
    with pytest.raises(DeviceError, match="bad_model"):
        run(replace(plain, path=tmp_path), TEXTS, Call("predict", 1))
    with pytest.raises(DeviceError, match=r"no model\.onnx"):
        ONNXRUNTIME.job(replace(plain, path=tmp_path / "absent"), inputs_of(plain, TEXTS), Call("predict", 1))


def test_a_tokenizer_of_another_model(plain: Artifact, tmp_path: Path) -> None:
    spec = json.loads((plain.path / "tokenizer.json").read_text())
    spec["model"]["vocab"]["on"] = 99
    (tmp_path / "model.onnx").write_bytes(plain.model_file.read_bytes())
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(DeviceError, match="out of data bounds"):
        run(replace(plain, path=tmp_path), TEXTS, Call("predict", 1))


def test_torch_worker_agrees_with_this_process(tiny: Callable[..., Path]) -> None:
    from edgekit.evaluate import predict_torch

    task = Task(labels=("a", "b", "c"), max_length=16)
    artifact = Artifact.outside(tiny("bert"), task)
    table = Table(("lost my card", "the money is still not arrived", "top up"))
    samples = run(artifact, table, Call("predict", 1, batch=2))
    reference = predict_torch(artifact, table, threads=1)
    assert samples.logits is not None
    np.testing.assert_allclose(samples.logits, reference.logits, atol=1e-5)
    assert samples.runtime == reference.runtime == "torch"


def result(**changes: object) -> bytes:
    content: dict[str, object] = {
        "schema": 1,
        "runtime": {"name": "r", "version": "1", "providers": []},
        "threads": 1,
        "load_ms": 1.0,
        "first_ms": 1.0,
        "logits": None,
        "samples_ms": [1.0],
        "cpu_ms": [1.0],
        "peak_rss_bytes": 1,
        "error": None,
    }
    return json.dumps(content | changes).encode()


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"{", "broken result"),
        (result(runtime=None), "no runtime"),
        (result(samples_ms="fast"), "broken result"),
        (result(samples_ms=[1.0, float("nan")]), "not finite"),
        (result(logits=[[1.0, float("inf")]]), "not finite"),
        (result(error={"kind": "bad_model", "message": "no such operator"}), "no such operator"),
    ],
)
def test_broken_results_are_told(raw: bytes, word: str) -> None:
    with pytest.raises(DeviceError) as caught:
        ONNXRUNTIME.parse(raw)
    assert word in str(caught.value)


def test_a_missing_runtime_is_told_with_the_command_for_this_machine_only() -> None:
    raw = result(error={"kind": "missing_runtime", "message": "no llama_cpp"})
    with pytest.raises(DeviceError, match=r"no llama_cpp.*\n.*edgekit\[gguf\]"):
        read_samples(LLAMACPP, raw, LOCAL)
    with pytest.raises(DeviceError, match="no llama_cpp") as caught:
        read_samples(LLAMACPP, raw, Fake({}))
    assert caught.value.hint == ""


def test_a_provider_that_is_missing_is_told(plain: Artifact) -> None:
    runtime = replace(CUDA["onnx"], provider="NoSuchProvider")  # type: ignore[type-var]
    raw = LOCAL.run(runtime.job(plain, inputs_of(plain, TEXTS), Call("predict", 1))).raw
    with pytest.raises(DeviceError, match="this onnxruntime has no NoSuchProvider") as caught:
        read_samples(runtime, raw, LOCAL)
    assert caught.value.hint == "pip uninstall onnxruntime; pip install 'edgekit[cuda]'"


def test_what_is_brought_to_a_device_runs_onnx_only() -> None:
    assert set(find_target("cortex-a53").runtimes) == {"onnx"}


def test_a_newer_worker_may_say_more() -> None:
    assert ONNXRUNTIME.parse(result(extra=1)).wall_ms.tolist() == [1.0]


def test_every_format_has_a_runtime_whose_worker_exists() -> None:
    assert set(RUNTIMES) == {"hf", "onnx", "gguf", "openvino"}
    for runtime in RUNTIMES.values():
        assert (WORKERS / runtime.worker).is_file()


EXAMPLE = Path(__file__).parents[3] / "edgekit/formats/examples/classify_onnx.py"


def test_the_example_program_needs_no_edgekit(tmp_path: Path) -> None:
    program = tiny_onnx.make(tmp_path / "ship").path / "classify.py"
    program.write_text(EXAMPLE.read_text())
    assert "edgekit" not in program.read_text()

    def classify(*arguments: str, lines: str = "") -> list[list[str]]:
        command = [sys.executable, str(program), *arguments]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=tmp_path, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    assert [row[0] for row in classify("on on", "please off")] == ["on", "off"]
    assert [row[0] for row in classify(lines="dim\n\noff\n")] == ["dim", "off"]
    assert float(classify("on")[0][1]) == pytest.approx(np.e / (np.e + 2), abs=1e-3)


def test_the_example_program_takes_pairs(tmp_path: Path) -> None:
    artifact = tiny_onnx.make(tmp_path / "pairs", types=True)
    program = artifact.path / "classify.py"
    program.write_text(EXAMPLE.read_text())
    command = [sys.executable, str(program)]
    done = subprocess.run([*command, "on", "on off"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\t")[0] == "on"
    failed = subprocess.run(command, input="no tab here\n", capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "put a tab" in failed.stderr
    assert "Traceback" not in failed.stderr
