"""Speeds of language models: what is fed, what follows from known times, and one real run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from tiny_lm import some_windows, write_genai, write_gguf, write_hf

from edgekit.artifact import Artifact
from edgekit.bench_lm import measure_lm
from edgekit.decode_bytes import decode_bytes
from edgekit.errors import DataError, DeviceError, UsageError
from edgekit.jobs import Completed, Fidelity, Job, Sitting, Work
from edgekit.machine import Machine, describe
from edgekit.runtimes import RUNTIMES, Workload
from edgekit.runtimes.lm import LM_RUNTIMES, runtimes_for
from edgekit.tasks.language_modeling import Windows
from tests.conftest import bpe_spec

WINDOWS = some_windows(4, 20, 300, 10)
QUICK = Workload(items=4, rounds=2, seconds=0.01, budget=0, warmup=1, length=8, threads=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    home = tmp_path_factory.mktemp("lm")
    original = write_hf(home / "hf", bpe_spec(["a tiny text"], 300), 300)
    return {
        "hf": original,
        "f16": write_gguf(original, home / "f16", "f16"),
        "q8_0": write_gguf(original, home / "q8_0", "q8_0"),
        "genai": write_genai(original, home / "genai"),
    }


@dataclass
class Fake:
    """A machine that reads 2 GB/s, where a step takes 2 ms and a prompt 10, half of that from quantized files."""

    work: list[Work] = field(default_factory=list)
    name: str = "fake"
    fidelity: Fidelity = "measured"
    stop_at: int = 1000

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        return {}

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        return describe()

    def run(self, work: Work) -> Completed:
        self.work.append(work)
        if len(self.work) == self.stop_at:
            raise KeyboardInterrupt
        runtime = {"runtime": {"name": "fake", "version": "1"}}
        if isinstance(work, Job):
            return Completed(json.dumps({**runtime, "bytes_per_second": 2e9}).encode(), 0.1)
        times = [self.time(job) for job in work.jobs]
        members = [{**runtime, "samples_ms": [t] * 4, "cpu_ms": [t] * 4, "first_ms": t} for t in times]
        cycles = [{"start": 0, "count": 2, "order": [], "warm": False}] * 2
        return Completed(json.dumps({"members": members, "cycles": cycles}).encode(), 0.1)

    def time(self, job: Job) -> float:
        whole = 2.0 if job.call.phase == "decode" else 10.0
        return whole / 2 if job.artifact.path.name == "q8_0" else whole


def test_figures_follow_from_times(files: dict[str, Artifact]) -> None:
    chosen = {"f16": files["f16"], "q8_0": files["q8_0"]}
    found = measure_lm(chosen, "f16", WINDOWS, QUICK, transport=Fake())
    speed = found.speeds["q8_0"]
    assert (speed.decode_per_second.value, speed.ttft_ms.value) == (1000.0, 5.0)
    assert speed.prefill_per_second.value == pytest.approx(1600.0)
    assert speed.bandwidth_share == pytest.approx(1000 * decode_bytes(files["q8_0"]) / 2e9)
    assert found.bandwidth == 2e9
    assert found.decode.measurements["q8_0"].speedup is not None
    assert found.decode.measurements["q8_0"].speedup.value == pytest.approx(2.0)
    assert found.decode.control is not None
    assert found.decode.control.value == pytest.approx(1.0)
    assert (found.decode.conditions.length, found.decode.conditions.items) == (8, 4)


def test_a_step_follows_one_context_and_prompts_differ(files: dict[str, Artifact]) -> None:
    fake = Fake()
    measure_lm({"f16": files["f16"]}, "f16", WINDOWS, QUICK, transport=fake)
    sittings = [work for work in fake.work if isinstance(work, Sitting)]
    rows = {s.jobs[0].call.phase: [ids for ids, _ in s.jobs[0].inputs.rows or ()] for s in sittings}
    stream = WINDOWS.ids.reshape(-1).tolist()
    assert {row[:-1] for row in rows["decode"]} == {tuple(stream[:8])}
    assert all(len(row) == 8 and list(row) in [stream[at : at + 8] for at in range(80)] for row in rows["prefill"])
    assert len(set(rows["prefill"])) == 4
    assert [work.worker for work in fake.work if isinstance(work, Job)] == ["lm_bandwidth_worker.py"] * 2


def test_ctrl_c_among_the_steps_keeps_them(files: dict[str, Artifact]) -> None:
    workload = QUICK.model_copy(update={"rounds": 9})
    found = measure_lm({"f16": files["f16"]}, "f16", WINDOWS, workload, transport=Fake(stop_at=5))
    assert (found.decode.interrupted, found.decode.conditions.rounds) == (True, 3)
    assert (found.prefill, found.speeds) == (None, {})


def test_a_real_run(files: dict[str, Artifact]) -> None:
    chosen = {name: files[name] for name in ("f16", "q8_0", "genai")}
    found = measure_lm(chosen, "f16", WINDOWS, QUICK)
    assert set(found.speeds) == set(chosen)
    for name in chosen:
        speed, measured = found.speeds[name], found.decode.measurements[name]
        assert speed.decode_per_second.low <= speed.decode_per_second.value <= speed.decode_per_second.high
        assert measured.runtime is not None
        assert measured.runtime.name == ("onnxruntime-genai" if name == "genai" else "llama.cpp")
        assert (measured.peak_rss_bytes or 0) > 1e6
        assert len(measured.rounds) == (0 if name == "f16" else 2)


def test_bytes_of_a_step_leave_out_the_embedding_that_is_looked_up(files: dict[str, Artifact]) -> None:
    from safetensors.numpy import load_file

    weights = load_file(files["hf"].path / "model.safetensors")
    whole = sum(value.size for value in weights.values())
    embedding = weights["model.embed_tokens.weight"].size
    matrices = sum(v.size for n, v in weights.items() if v.ndim == 2 and n != "model.embed_tokens.weight")
    norms = whole - embedding - matrices
    assert decode_bytes(files["hf"]) == 4 * (whole - embedding)
    assert decode_bytes(files["f16"]) == 2 * matrices + 4 * norms
    assert decode_bytes(files["genai"]) == pytest.approx(4 * (whole - embedding), rel=0.05)  # and tables of sines


def test_bad_wishes_are_told(files: dict[str, Artifact]) -> None:
    chosen = {"f16": files["f16"]}
    with pytest.raises(UsageError, match="not among the files"):
        measure_lm(chosen, "f32", WINDOWS, QUICK, transport=Fake())
    with pytest.raises(UsageError, match="one sequence at a time"):
        measure_lm(chosen, "f16", WINDOWS, QUICK.model_copy(update={"batch": 2}), transport=Fake())
    with pytest.raises(UsageError, match="times mean nothing"):
        measure_lm(chosen, "f16", WINDOWS, QUICK, transport=Fake(fidelity="emulated"))
    with pytest.raises(UsageError, match="no runtime for gguf"):
        measure_lm(chosen, "f16", WINDOWS, QUICK, transport=Fake(), runtimes={})
    with pytest.raises(DataError, match="8 tokens are too few to time a context of 8"):
        measure_lm(chosen, "f16", Windows(np.zeros((1, 8), np.int32), 4), QUICK, transport=Fake())
    with pytest.raises(DeviceError, match=r"f16: .*71 tokens, but the model's context is 64"):
        measure_lm(chosen, "f16", WINDOWS, QUICK.model_copy(update={"length": 70}))


def test_runtimes_of_language_models_are_those_of_the_target() -> None:
    assert runtimes_for("language-modeling", RUNTIMES) is LM_RUNTIMES
    assert runtimes_for("language-modeling", {"onnx": RUNTIMES["onnx"]}) == {}
