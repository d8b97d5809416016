"""Classifiers in headless Chromium and in Node: the same answers as natively, turns, and every way to fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny_onnx

from edgekit.artifact import Artifact, Facts, Manifest, Task, entries, seal
from edgekit.bench import measure
from edgekit.data.table import Table
from edgekit.errors import DeviceError
from edgekit.evaluate import predict
from edgekit.jobs import WORKERS, Call, Inputs
from edgekit.provision.cache import cache_root
from edgekit.provision.web import missing
from edgekit.runtimes import WEB, Workload, runtime_of
from edgekit.transports.browser import Browser, Node

PROBLEMS = missing(cache_root())
pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(map(str, PROBLEMS))),
]

TASK = Task(labels=("a", "b", "c"), max_length=32)
TABLE = Table(("where is my card", "money still not arrived?", "lost my cash", "top up rate", "", "where"), name="t")
ON = Table(tuple("on " * (1 + at % 7) for at in range(40)), name="on")
BROWSER, NODE = Browser(), Node()


def sealed(folder: Path, tokenizer: Path) -> Artifact:
    shutil.copy(tokenizer, folder)
    known = {"key": f"{folder.name:0<64}", "format": "onnx", "stage": "export", "stage_version": 1, "config": {}}
    rest = {"parents": {}, "libraries": {}, "facts": Facts(summary="made in a test"), "task": TASK}
    return seal(folder, Manifest.model_validate({**known, **rest, "files": entries(folder)}))


WARM = """
const { Member } = await import(process.argv[1]);
let now = 0;
performance.now = () => now;
const found = [];
for (const [ms, least] of [[600, 6], [10, 6], [10, 0]]) {
  const model = { make: (rows) => rows, run: async () => { now += ms; } };
  const member = new Member(model, { batch: 1, items: null, warmup: least }, [[1], [2]], {});
  found.push([await member.warmUp(), member.warmup]);
}
console.log(JSON.stringify(found));
"""


def test_warm_up_is_bounded_by_its_second() -> None:
    """Each: milliseconds of an inference, and how many were run."""
    command = ["node", "--input-type=module", "-e", WARM, str(WORKERS / "web" / "harness.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[600, 2], [10, 6], [10, 2]]


@pytest.fixture
def bert(tiny: Callable[..., Path], tmp_path: Path) -> tuple[Path, Artifact]:
    from edgekit.formats.onnx_encoder import write_onnx
    from edgekit.nn.load import load_classifier

    hf, folder = tiny("bert"), tmp_path / "exported"
    folder.mkdir()
    write_onnx(load_classifier(hf), TASK, folder / "model.onnx")
    return hf, sealed(folder, hf / "tokenizer.json")


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test, no process of a job runs."""
    yield
    end = time.monotonic() + 15
    while (left := processes()) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


def processes(switch: str = "") -> list[psutil.Process]:
    """Node and browsers that work in a job's folder; those with this switch."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and "edgekit-job-" in words and switch in words:
                found.append(process)
    return found


def torch_logits(folder: Path) -> np.ndarray:
    import torch

    from edgekit.nn.load import load_classifier
    from edgekit.tasks.text_classification import encode

    model = load_classifier(folder)
    with torch.inference_mode():
        rows = encode(folder, TABLE, TASK).ids
        return np.stack([model(torch.tensor([ids])).logits[0].numpy() for ids in rows])


@pytest.mark.parametrize(("where", "threads", "batch"), [(BROWSER, 1, 1), (BROWSER, 2, 4), (NODE, 1, 4), (NODE, 2, 1)])
def test_it_predicts_like_torch(
    bert: tuple[Path, Artifact], where: Browser | Node, threads: int, batch: int, nothing_left: None
) -> None:
    found = predict(bert[1], TABLE, threads=threads, batch=batch, transport=where, runtimes=WEB)
    assert np.abs(found.logits - torch_logits(bert[0])).max() < 1e-4
    assert (found.runtime, found.providers) == ("onnxruntime-web", ("wasm",))
    assert found.version == where.identity(())["onnxruntime-web"]
    assert sys.platform != "linux" or 20 << 20 < found.peak_rss_bytes < 2 << 30


@pytest.mark.parametrize(
    ("method", "embeddings", "tolerance"),
    [("int8-dynamic", 8, 0.02), ("int8-dynamic", 4, 0.1), ("int8-weight-only", 8, 0.02), ("int4-weight-only", 4, 0.3)],
)
def test_quantized_files_run(
    bert: tuple[Path, Artifact], tmp_path: Path, method: str, embeddings: int, tolerance: float
) -> None:
    """Held against torch in float: a processor without int8 dot products may saturate where WebAssembly does not."""
    from edgekit.formats.onnx_quantize import quantize_onnx

    folder = tmp_path / "quantized"
    folder.mkdir()
    quantize_onnx(bert[1].model_file, folder / "model.onnx", method, embedding_bits=embeddings)  # type: ignore[arg-type]
    artifact = sealed(folder, bert[0] / "tokenizer.json")
    found = predict(artifact, TABLE, threads=1, transport=BROWSER, runtimes=WEB)
    assert np.abs(found.logits - torch_logits(bert[0])).max() < tolerance


def test_pairs_and_segments_reach_the_model(tmp_path: Path) -> None:
    artifact = tiny_onnx.make(tmp_path / "typed", types=True)
    table = Table(("on", "off off"), ("dim dim", "on"), name="pairs")
    native = predict(artifact, table, threads=1)
    found = predict(artifact, table, threads=1, transport=BROWSER, runtimes=WEB)
    assert np.array_equal(found.logits, native.logits)
    assert native.logits.max() > 1  # type ids add half a point per token


@pytest.mark.parametrize("where", [BROWSER, NODE])
def test_files_take_turns(tmp_path: Path, where: Browser | Node, nothing_left: None) -> None:
    files = {"plain": tiny_onnx.make(tmp_path / "plain"), "slow": tiny_onnx.make(tmp_path / "slow", extra=60)}
    workload = Workload(items=8, rounds=2, seconds=0.2, warmup=4, throughput_batches=(2,), threads=1)
    bench = measure(files, "plain", ON, workload, transport=where, runtimes=WEB)
    plain, slow = bench.measurements["plain"], bench.measurements["slow"]
    assert bench.control is not None
    assert len(bench.control.rounds) == 2
    assert slow.speedup is not None
    assert slow.speedup.value < 0.5  # it computes some hundred times as much
    assert slow.latency_ms is not None
    assert plain.latency_ms is not None
    assert slow.latency_ms.p50 > plain.latency_ms.p50 > 0
    assert all((ratio.cpu is None) == (where is BROWSER) for ratio in slow.rounds)
    assert plain.runtime.name == "onnxruntime-web"
    assert plain.throughput[0].batch == 2
    assert plain.load_ms is not None
    assert bench.conditions.transport == where.name
    for number in (0, 1):  # everyone went through the same
        assert len({b.items for b in bench.blocks if b.round == number and b.kind != "throughput"}) == 1


def broken(folder: Path, kind: str) -> Artifact:
    import onnx
    from onnx import TensorProto, helper

    artifact = tiny_onnx.make(folder)
    model = onnx.load(str(artifact.model_file))
    last = model.graph.node[-1]
    if kind == "unknown operator":
        model.graph.node.append(helper.make_node("NoSuchOperator", ["plain"], ["extra"], domain="com.microsoft"))
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        last.input[0] = "extra"
    if kind in ("large", "too large"):  # 3.7 GB for each token, and more than 32 bits can count
        rows = 56_000 if kind == "large" else 1 << 17
        model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [2], [rows, 1 << 14]))
        wide = [
            helper.make_node("Shape", ["input_ids"], ["shape"]),
            helper.make_node("Mul", ["shape", "size"], ["large"]),
            helper.make_node("ConstantOfShape", ["large"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["plain", "zero"], ["extra"]),
        ]
        for node in wide:
            model.graph.node.insert(len(model.graph.node) - 1, node)
        last.input[0] = "extra"
    onnx.save(model, str(artifact.model_file))
    if kind == "no model":
        artifact.model_file.write_bytes(b"not a model")
    return artifact


@pytest.mark.parametrize("where", [BROWSER, NODE])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no model", "bad_model"),
        ("unknown operator", "unsupported_model"),
        ("large", "out_of_memory"),
        ("too large", "out_of_memory"),
    ],
)
def test_a_file_that_does_not_run_is_told(
    tmp_path: Path, where: Browser | Node, kind: str, words: str, nothing_left: None
) -> None:
    with pytest.raises(DeviceError, match=words) as caught:
        predict(broken(tmp_path / "broken", kind), ON, threads=1, transport=where, runtimes=WEB)
    assert "onnxruntime-web: " in str(caught.value)


@pytest.mark.parametrize("where", [BROWSER, NODE])
def test_a_broken_file_is_told_among_others(tmp_path: Path, where: Browser | Node, nothing_left: None) -> None:
    files = {"good": tiny_onnx.make(tmp_path / "good"), "bad": broken(tmp_path / "bad", "no model")}
    workload = Workload(items=4, rounds=2, seconds=0.1, warmup=2, throughput_batches=(), threads=1)
    with pytest.raises(DeviceError, match=r"bad: onnxruntime-web: .*bad_model"):
        measure(files, "good", ON, workload, transport=where, runtimes=WEB)


def endless(artifact: Artifact, where: Browser | Node, timeout: float) -> None:
    call = Call("latency", 1, seconds=600, timeout=timeout)
    runtime = runtime_of(artifact, WEB)
    runtime.parse(where.run(runtime.job(artifact, Inputs(("on",), None, 8), call)).raw)


@pytest.mark.parametrize("where", [BROWSER, NODE])
def test_a_hung_job_is_killed(tmp_path: Path, where: Browser | Node, nothing_left: None) -> None:
    with pytest.raises(DeviceError, match="still running after 8 s"):
        endless(tiny_onnx.make(tmp_path / "tiny"), where, 8.0)


@pytest.mark.parametrize(("victim", "words"), [("browser", "the browser ended"), ("page", "the page crashed")])
def test_a_browser_that_dies_is_told(tmp_path: Path, victim: str, words: str, nothing_left: None) -> None:
    artifact = tiny_onnx.make(tmp_path / "tiny")
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + 60
        while not killed and time.monotonic() < end:
            time.sleep(0.2)
            for process in processes("--remote-debugging-pipe"):
                with suppress(psutil.NoSuchProcess):
                    for page in process.children(recursive=True):
                        if "--type=renderer" in page.cmdline() and sum(page.cpu_times()[:2]) > 1:  # it is at work
                            os.kill(process.pid if victim == "browser" else page.pid, signal.SIGKILL)
                            killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(DeviceError, match=words):
        endless(artifact, BROWSER, 120.0)
    thread.join()
    assert killed


def test_nothing_outlives_a_killed_parent(tmp_path: Path, nothing_left: None) -> None:
    artifact = tiny_onnx.make(tmp_path / "tiny")
    code = f"""
from pathlib import Path
from edgekit.artifact import Artifact
from edgekit.jobs import Call, Inputs
from edgekit.runtimes import WEB, runtime_of
from edgekit.transports.browser import Browser
artifact = Artifact.open(Path({str(artifact.path)!r}))
job = runtime_of(artifact, WEB).job(artifact, Inputs(("on",), None, 8), Call("latency", 1, seconds=600))
Browser().run(job)
"""
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as parent:
        end = time.monotonic() + 60
        while not processes("--remote-debugging-pipe") and time.monotonic() < end:
            time.sleep(0.1)
        assert processes("--remote-debugging-pipe")
        parent.kill()


def test_a_browser_that_does_not_start_is_told(tmp_path: Path, nothing_left: None) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho 'error while loading shared libraries: libnss3.so' >&2; exit 127\n")
    program.chmod(0o755)
    with pytest.raises(DeviceError, match=r"chromium does not start: .*libnss3\.so"):
        predict(tiny_onnx.make(tmp_path / "tiny"), ON, threads=1, transport=Browser(program), runtimes=WEB)


def test_a_worker_in_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="does not run in WebAssembly"):
        predict(tiny_onnx.make(tmp_path / "tiny"), ON, threads=1, transport=BROWSER)


def test_identity_names_what_decides_the_numbers() -> None:
    found = BROWSER.identity(("onnxruntime-web", "tokenizers"))
    assert found["cpu"]
    assert "Chrom" in found["browser"]
    assert found["onnxruntime-web"][0].isdigit()
    assert found["tokenizers"][0].isdigit()
    assert NODE.identity(())["node"].startswith("v")
