"""Benchmarks: the order of blocks, the arithmetic on made-up times, and one real run."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from hypothesis import given
from hypothesis import strategies as st

from edgekit.artifact import Artifact
from edgekit.bench import measure, ratio_interval
from edgekit.data.table import Table
from edgekit.errors import DataError, DeviceError, UsageError
from edgekit.explain import Subject, explain, precision_of
from edgekit.jobs import Completed, Job
from edgekit.machine import Machine, describe
from edgekit.runtimes import Workload
from edgekit.schedule import choose_rows, fixed_length, schedule

TABLE = Table(tuple("on " * (1 + at % 7) for at in range(100)), name="test")
QUICK = Workload(items=8, rounds=6, seconds=0.01, warmup=2, throughput_batch=0, threads=1)


@dataclass
class Fake:
    """A machine of known speed: milliseconds per item of each artifact, times noise that drifts as jobs go by."""

    speed: dict[str, float]
    drift: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    name: str = "fake"
    passes: int = 3
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        return {}

    def run(self, job: Job) -> Completed:
        slow = (
            self.speed[job.artifact.path.name] * (1 + self.drift) ** len(self.jobs) * self.dice.lognormvariate(0, 0.01)
        )
        self.jobs.append(job)
        groups = len(job.inputs.texts) // job.call.batch
        times = [slow * job.call.batch * (1 + at / 10) for _ in range(self.passes) for at in range(groups)]
        times[0] *= 100  # one preempted inference a block
        result = {
            "runtime": {"name": "fake", "version": "1"},
            "load_ms": 10.0,
            "first_ms": 2 * slow,
            "samples_ms": times,
            "cpu_ms": times,
            "peak_rss_bytes": 1000 * len(self.jobs),
        }
        return Completed(json.dumps(result).encode(), 0.1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("made")
    parents = {"source": f"{'base':0<64}"}
    quantized = {"stage": "quantize", "config": {"method": "int8-dynamic"}, "parents": parents}
    return {
        "base": tiny_onnx.make(folder / "base"),
        "small": tiny_onnx.make(folder / "small"),
        "int8": tiny_onnx.make(folder / "int8", manifest=quantized),
    }


def test_known_speeds_are_found_in_spite_of_drift(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0}, drift=0.01)
    bench = measure(files, "base", TABLE, QUICK.model_copy(update={"rounds": 8}), transport=fake)
    small, int8 = bench.measurements["small"].speedup, bench.measurements["int8"].speedup
    assert small is not None
    assert int8 is not None
    assert small.value == pytest.approx(4.0, rel=0.03)
    assert small.low <= small.value <= small.high
    assert int8.value == pytest.approx(2.0, rel=0.03)
    assert bench.control.low <= 1.0 <= bench.control.high
    assert bench.measurements["base"].speedup is None
    assert small.against == "base"


def test_percentiles_memory_and_conditions(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    bench = measure(files, "base", TABLE, QUICK, transport=fake)
    base = bench.measurements["base"]
    assert base.latency_ms.n == 6 * 3 * 8
    assert base.latency_ms.p50 == pytest.approx(4.0 * 1.4, rel=0.05)
    assert base.latency_ms.p99 > 100
    blocks = [b for b in bench.blocks if b.id == "base" and b.kind == "latency"]
    assert base.peak_rss_bytes == max(b.peak_rss_bytes for b in blocks)
    assert base.size_bytes == files["base"].size_bytes
    assert (base.load_ms, base.throughput) == (10.0, None)
    assert (bench.conditions.items, bench.conditions.n, bench.conditions.batch) == (8, 100, 1)
    assert bench.conditions.tokens is not None
    assert (bench.conditions.tokens.min, bench.conditions.tokens.max) == (1, 7)


def test_every_block_is_fed_alike(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    measure(files, "base", TABLE, QUICK, transport=fake)
    assert len({job.inputs.texts for job in fake.jobs}) == 1
    assert len({job.call for job in fake.jobs}) == 1


def test_throughput_counts_examples(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    bench = measure(files, "base", TABLE, QUICK.model_copy(update={"throughput_batch": 4}), transport=fake)
    found = bench.measurements["base"].throughput
    assert found is not None
    assert found.batch == 4
    assert found.per_second == pytest.approx(1000 / (4.0 * 1.05), rel=0.05)


def test_an_unfinished_pass_is_paired_item_by_item() -> None:
    full, short = np.array([1.0, 2.0, 30.0]), np.array([0.5, 1.0])
    assert ratio_interval([full] * 6, [short] * 6).value == 2.0


def test_a_quantized_file_that_is_not_faster_is_told(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 1.0, "small": 1.0, "int8": 1.5})
    notes = measure(files, "base", TABLE, QUICK, transport=fake).measurements["int8"].notes
    assert "not faster than base (0.6" in notes[0]
    assert "not smaller" in notes[1]  # it is the same file
    fast = Fake({"base": 1.0, "small": 1.0, "int8": 0.5})
    assert len(measure(files, "base", TABLE, QUICK, transport=fast).measurements["int8"].notes) == 1


def test_few_rounds_are_told(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 1.0, "small": 0.5, "int8": 0.5})
    bench = measure(files, "base", TABLE, QUICK.model_copy(update={"rounds": 3}), transport=fake)
    assert "too few" in bench.measurements["small"].notes[0]


def test_bad_input_is_told(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 1.0, "small": 1.0, "int8": 1.0})
    with pytest.raises(UsageError, match="'bse' is not among"):
        measure(files, "bse", TABLE, QUICK, transport=fake)
    with pytest.raises(DataError, match="nothing to time"):
        measure(files, "base", Table(()), QUICK, transport=fake)
    with pytest.raises(UsageError, match="base takes at most 8"):
        measure(files, "base", TABLE, QUICK.model_copy(update={"length": 9}), transport=fake)
    gguf = files["base"].manifest.model_copy(update={"format": "gguf"})
    unbatched = files | {"q8": Artifact(files["base"].path, gguf)}
    with pytest.raises(UsageError, match=r"q8: llama\.cpp is timed one example at a time"):
        measure(unbatched, "base", TABLE, QUICK.model_copy(update={"batch": 4}), transport=fake)
    with pytest.raises(DeviceError, match="small: onnxruntime: broken") as caught:
        measure(files, "base", TABLE, QUICK, transport=Broken())
    assert "Traceback" not in str(caught.value)


class Broken(Fake):
    def __init__(self) -> None:
        super().__init__({"base": 1.0, "small": 1.0, "int8": 1.0})

    def run(self, job: Job) -> Completed:
        return Completed(b"{", 0.1) if job.artifact.path.name == "small" else super().run(job)


def test_a_really_slower_file_is_found(tmp_path: Path) -> None:
    files = {"quick": tiny_onnx.make(tmp_path / "quick"), "slow": tiny_onnx.make(tmp_path / "slow", extra=40)}
    bench = measure(files, "slow", TABLE, QUICK)
    found = bench.measurements["quick"].speedup
    assert found is not None
    assert found.low > 2
    assert bench.measurements["quick"].runtime.name == "onnxruntime"
    assert bench.control.low < 1.2
    assert bench.control.high > 0.8


@given(st.integers(1, 6), st.integers(2, 12), st.integers(0, 99))
def test_schedule_is_balanced(count: int, rounds: int, seed: int) -> None:
    ids = tuple(f"m{at}" for at in range(count))
    workload = Workload(rounds=rounds, seed=seed, throughput_batch=0)
    plan = schedule(ids, "m0", workload)
    for number in range(rounds):
        one = [(kind, name) for kind, at, name in plan if at == number]
        assert sorted(one) == sorted([*(("latency", name) for name in ids), ("control", "m0")])
        if number % 2:
            assert one == [(kind, name) for kind, at, name in plan if at == number - 1][::-1]
    assert plan == schedule(ids, "m0", workload)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.integers(1, 50), st.integers(1, 5), st.integers(0, 6))
def test_rows_spread_over_lengths_in_whole_batches(lengths: list[int], items: int, batch: int, many: int) -> None:
    table = Table(tuple("x" * length for length in lengths))
    rows = choose_rows(table, Workload(items=items, batch=batch, throughput_batch=many))
    assert len(rows) % batch == 0
    assert not many or len(rows) % many == 0
    assert all(0 <= row < len(table) for row in rows)
    if len(rows) <= len(lengths):
        assert len(set(rows)) == len(rows)
        middle = float(np.median([lengths[r] for r in rows])) if len(rows) > 20 else None
        assert middle is None or abs(np.mean(np.array(lengths) < middle) - 0.5) < 0.5


def test_a_fixed_length_is_filled() -> None:
    table = fixed_length(Table(("on", "", "on off dim"), ("dim", "on on", "")), 8)
    assert all(len(text.split()) >= 8 for text in (*table.texts, *(table.pairs or ())))


PLAIN = Machine(
    cpu="c", arch="x86_64", cores=2, logical_cores=2, memory_bytes=1, isa=("avx2",), system="", python="", libraries={}
)


@pytest.mark.parametrize(
    ("precision", "speedup", "size", "tokens", "words"),
    [
        ("int8-dynamic", 0.9, 5, 13.0, ["13 tokens", "no int8 dot product"]),
        ("int8-dynamic", 0.9, 5, 128.0, ["no int8 dot product"]),
        ("int8-static", 0.7, 5, 64.0, ["cannot fuse"]),
        ("int4-weight-only", 0.8, 5, 64.0, ["saves size only"]),
        ("int8-weight-only", 0.8, 5, 64.0, ["only the weights"]),
        ("q8_0", 0.5, 5, 64.0, ["llama.cpp unpacks"]),
        ("int8-dynamic", 1.5, 12, 64.0, ["not smaller", "embedding tables"]),
        ("int8-dynamic", 1.5, 5, 64.0, []),
        ("f32", 0.5, 12, 64.0, []),
    ],
)
def test_explanations(precision: str, speedup: float, size: int, tokens: float, words: list[str]) -> None:
    child = Subject("child", precision, 5.0, size, "keep")
    notes = " ".join(explain(child, Subject("parent", "f32", 4.0, 10), PLAIN, speedup=speedup, tokens=tokens))
    assert all(word in notes for word in words)
    assert bool(notes) is bool(words)


def test_no_blame_on_a_processor_that_can() -> None:
    able = PLAIN.model_copy(update={"isa": ("avx512_vnni",)})
    child, parent = Subject("c", "int8-dynamic", 1.0, 1), Subject("p", "f32", 0.5, 2)
    notes = explain(child, parent, able, speedup=0.5, tokens=64.0)
    assert "dot product" not in notes[0]
    assert "fixed cost" in notes[0]


def test_precision_is_read_from_the_manifest(files: dict[str, Artifact]) -> None:
    assert precision_of(files["int8"]) == "int8-dynamic"
    assert precision_of(files["base"]) == "f32"


def test_this_machine_is_described() -> None:
    machine = describe()
    assert machine.cores >= 1
    assert machine.memory_bytes > 1 << 28
    assert machine.libraries["onnxruntime"][0].isdigit()
