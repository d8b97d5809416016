"""Benchmarks: the order of blocks, the arithmetic on made-up times, and one real run."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from hypothesis import given
from hypothesis import strategies as st

from edgekit.artifact import Artifact
from edgekit.bench import measure
from edgekit.data.table import Table
from edgekit.errors import DataError, DeviceError, UsageError
from edgekit.explain import Subject, explain, precision_of
from edgekit.jobs import Call, Completed, Fidelity, Job, Sitting, Work
from edgekit.machine import Machine, describe
from edgekit.rounds import Block, round_ratios
from edgekit.runtimes import RUNTIMES, Workload, runtime_of
from edgekit.runtimes.base import inputs_of, read_sitting
from edgekit.runtimes.onnxruntime import ONNXRUNTIME
from edgekit.schedule import choose_rows, fixed_length, groups
from edgekit.transports import LOCAL

TABLE = Table(tuple("on " * (1 + at % 7) for at in range(100)), name="test")
QUICK = Workload(items=8, rounds=6, seconds=0.01, budget=0, warmup=2, throughput_batches=(), threads=1)


@dataclass
class Fake:
    """A machine of known speed: milliseconds per item of each artifact, times noise that drifts as time goes by."""

    speed: dict[str, float]
    drift: float = 0.0
    work: list[Work] = field(default_factory=list)
    name: str = "fake"
    fidelity: Fidelity = "measured"
    cycles: int = 4
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    def identity(self, libraries: tuple[str, ...]) -> dict[str, str]:
        return {}

    def probe(self, packages: tuple[str, ...] = ()) -> Machine:
        return PLAIN

    def run(self, work: Work) -> Completed:
        self.work.append(work)
        if isinstance(work, Job):
            groups = len(work.inputs.texts) // work.call.batch
            times = [self.time(work, at) for _ in range(3) for at in range(groups)]
            counted = tuple(1000 + at for at in range(4)) if work.call.mode == "count" else ()
            return Completed(json.dumps(self.result(times)).encode(), 0.1, instructions=counted)
        cycles = [{"start": at % work.items, "count": 3, "order": [], "warm": at == 0} for at in range(self.cycles)]
        times: list[list[float]] = [[] for _ in work.jobs]
        for cycle in range(self.cycles):
            weather = (1 + self.drift) ** cycle * self.dice.lognormvariate(0, 0.3)
            for at, job in enumerate(work.jobs):
                times[at] += [weather * self.time(job, (cycle + item) % work.items) for item in range(3)]
        answer = {"members": [self.result(found) for found in times], "cycles": cycles}
        return Completed(json.dumps(answer).encode(), 0.1)

    def time(self, job: Job, item: int) -> float:
        noise = 100 if self.dice.random() < 0.02 else self.dice.lognormvariate(0, 0.01)  # now and then preempted
        return self.speed[job.artifact.path.name] * job.call.batch * (1 + item / 10) * noise

    def result(self, times: list[float]) -> dict[str, object]:
        return {
            "runtime": {"name": "fake", "version": "1"},
            "load_ms": 10.0,
            "first_ms": 2 * times[0],
            "samples_ms": times,
            "cpu_ms": times,
            "peak_rss_bytes": 1000 * len(self.work),
        }


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


def test_known_speeds_are_found_in_any_weather(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0}, drift=0.3)
    bench = measure(files, "base", TABLE, QUICK.model_copy(update={"rounds": 8}), transport=fake)
    small, int8 = bench.measurements["small"].speedup, bench.measurements["int8"].speedup
    assert small is not None
    assert int8 is not None
    assert small.value == pytest.approx(4.0, rel=0.03)
    assert small.low <= small.value <= small.high
    assert int8.value == pytest.approx(2.0, rel=0.03)
    assert bench.control is not None
    assert bench.control.value == pytest.approx(1.0, rel=0.03)
    assert bench.measurements["base"].speedup is None
    assert small.against == "base"


def test_percentiles_memory_and_conditions(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    bench = measure(files, "base", TABLE, QUICK, transport=fake)
    base = bench.measurements["base"]
    assert base.latency_ms is not None
    assert base.latency_ms.n == 6 * 3 * 3  # rounds, cycles that count, items
    assert base.latency_ms.p50_interval is not None
    assert base.latency_ms.p50_interval[0] <= base.latency_ms.p50 <= base.latency_ms.p50_interval[1]
    blocks = [b for b in bench.blocks if b.id == "base" and b.kind == "latency"]
    assert base.peak_rss_bytes == max(b.peak_rss_bytes for b in blocks)
    assert base.size_bytes == files["base"].size_bytes
    assert (base.load_ms, base.throughput, base.rounds) == (10.0, (), ())
    conditions = bench.conditions
    assert (conditions.items, conditions.n, conditions.batch, conditions.rounds) == (8, 100, 1, 6)
    assert conditions.fidelity == "measured"
    assert conditions.tokens is not None
    assert (conditions.tokens.min, conditions.tokens.max) == (1, 7)


def test_every_file_is_fed_alike(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    bench = measure(files, "base", TABLE, QUICK, transport=fake)
    sittings = [work for work in fake.work if isinstance(work, Sitting)]
    twice = ["base", "base", "small", "small", "int8", "int8"]
    assert [[job.artifact.path.name for job in s.jobs] for s in sittings] == [twice] * 6
    assert len({(job.inputs, job.call) for s in sittings for job in s.jobs}) == 1
    assert len({block.items for block in bench.blocks if block.round == 3}) == 1
    assert len({s.seed for s in sittings}) == 6  # every round goes in an order of its own


def test_files_that_do_not_fit_at_once_each_meet_the_baseline(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    bench = measure(files, "base", TABLE, QUICK.model_copy(update={"at_once": 3}), transport=fake)
    assert all(len(work.jobs) == 3 for work in fake.work if isinstance(work, Sitting))
    assert bench.measurements["int8"].speedup is not None
    assert bench.measurements["int8"].speedup.value == pytest.approx(2.0, rel=0.05)
    assert len(bench.measurements["int8"].rounds) == 6


def test_throughput_counts_examples(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    workload = QUICK.model_copy(update={"throughput_batches": (4, 2), "at_once": 4})
    bench = measure(files, "base", TABLE, workload, transport=fake)
    two, four = bench.measurements["base"].throughput
    assert (two.batch, four.batch) == (2, 4)
    assert four.per_second == pytest.approx(1000 / (4.0 * 1.05), rel=0.05)
    assert four.interval is not None
    assert four.interval[0] <= four.per_second <= four.interval[1]


def test_throughput_is_measured_by_turns_without_a_control(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    unbatched = Artifact(files["int8"].path, files["int8"].manifest.model_copy(update={"format": "gguf"}))
    runtimes = {**RUNTIMES, "gguf": replace(ONNXRUNTIME, batches=False)}
    workload = QUICK.model_copy(update={"throughput_batches": (4,)})
    bench = measure(files | {"int8": unbatched}, "base", TABLE, workload, transport=fake, runtimes=runtimes)
    flows = [work for work in fake.work if isinstance(work, Sitting)][workload.rounds :]
    assert [[job.artifact.path.name for job in work.jobs] for work in flows] == [["base", "small"]] * 6
    assert bench.measurements["int8"].throughput == ()
    assert bench.conditions.rounds == workload.rounds


def test_it_goes_on_until_decided_within_the_budget(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0})
    longer = QUICK.model_copy(update={"budget": 60.0})
    bench = measure(files, "base", TABLE, longer, transport=fake, decided=lambda b: len(b.control_rounds) >= 9)
    assert bench.conditions.rounds == 9
    same = measure(files, "base", TABLE, QUICK, transport=fake, decided=lambda _: False)
    assert same.conditions.rounds == 6  # without a budget, the rounds are what they are
    short = QUICK.model_copy(update={"budget": 1.05})  # of sittings that say they took 0.1 s
    assert measure(files, "base", TABLE, short, transport=fake, decided=lambda _: False).conditions.rounds == 11


@dataclass
class Interrupted(Fake):
    """Ctrl-C comes after so much work."""

    after: int = 0

    def run(self, work: Work) -> Completed:
        if len(self.work) == self.after:
            raise KeyboardInterrupt
        return super().run(work)


@pytest.mark.parametrize(("after", "rounds"), [(2, 1), (5, 2), (12, 6), (13, 6)])  # a round is two sittings
def test_ctrl_c_keeps_the_rounds_that_are_whole(files: dict[str, Artifact], after: int, rounds: int) -> None:
    fake = Interrupted({"base": 4.0, "small": 1.0, "int8": 2.0}, after=after)
    workload = QUICK.model_copy(update={"at_once": 3, "throughput_batches": (1,)})
    bench = measure(files, "base", TABLE, workload, transport=fake)
    assert (bench.interrupted, bench.conditions.rounds) == (True, rounds)
    assert len(bench.measurements["small"].rounds) == len(bench.measurements["int8"].rounds) == rounds
    assert bool(bench.measurements["small"].notes) is (rounds < 6)  # they are too few


def test_ctrl_c_keeps_the_files_that_were_counted(files: dict[str, Artifact]) -> None:
    fake = Interrupted({"base": 4.0, "small": 1.0, "int8": 2.0}, fidelity="emulated", after=2)
    bench = measure(files, "base", TABLE, QUICK, transport=fake)
    assert bench.interrupted
    assert [bool(found.instructions) for found in bench.measurements.values()] == [True, True, False]
    assert bench.measurements["int8"].runtime is None


@pytest.mark.parametrize(("fidelity", "after"), [("measured", 1), ("emulated", 0)])
def test_ctrl_c_before_anything_is_whole_ends_it(files: dict[str, Artifact], fidelity: Fidelity, after: int) -> None:
    fake = Interrupted({"base": 4.0, "small": 1.0, "int8": 2.0}, fidelity=fidelity, after=after)
    with pytest.raises(KeyboardInterrupt):
        measure(files, "base", TABLE, QUICK.model_copy(update={"at_once": 3}), transport=fake)


def test_an_emulator_counts_and_times_nothing(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 4.0, "small": 1.0, "int8": 2.0}, fidelity="emulated")
    bench = measure(files, "base", TABLE, QUICK, transport=fake)
    found = bench.measurements["small"]
    assert (found.latency_ms, found.speedup, found.rounds, bench.control) == (None, None, (), None)
    assert found.instructions is not None
    assert found.instructions.median == 1001.5
    assert all(isinstance(work, Job) and work.call.threads == 1 for work in fake.work)


def block(name: str, kind: str, times: list[float], number: int = 0) -> Block:
    made = {"id": name, "kind": kind, "round": number, "batch": 1, "items": tuple(range(len(times)))}
    rest = {"load_ms": 1, "first_ms": 1, "peak_rss_bytes": 1, "seconds": 1, "runtime": {"name": "r", "version": ""}}
    return Block.model_validate({**made, **rest, "wall_ms": times, "cpu_ms": [0.0] * len(times)})


def test_a_file_loaded_twice_meets_the_baseline_and_its_control() -> None:
    blocks = [
        block(name, kind, [time] * 3, number)
        for number in range(2)
        for name, kind, time in (
            ("base", "latency", 1.0),
            ("base", "control", 1.21),
            ("x", "latency", 2.0),
            ("x", "latency", 2.0),
            ("y", "latency", 3.0),
            ("y", "latency", 3.0),
        )
    ]
    assert [ratio.p50 for ratio in round_ratios(blocks, "base", "base")] == pytest.approx([1.21, 1.21])
    found = round_ratios(blocks, "base", "x")
    assert [ratio.p50 for ratio in found] == pytest.approx([2.0 / 1.1, 2.0 / 1.1])
    assert [(ratio.pairs, ratio.cpu) for ratio in found] == [(6, None), (6, None)]
    assert [ratio.p99 for ratio in round_ratios(blocks, "base", "y")] == pytest.approx([3.0 / 1.1, 3.0 / 1.1])


def test_pairs_hold_what_the_weather_moves() -> None:
    weather = [1.0, 5.0, 2.0, 9.0, 1.0]
    slower = [1.1 * time for time in weather]
    (found,) = round_ratios([block("a", "latency", weather), block("b", "latency", slower)], "a", "b")
    assert found.p50 == pytest.approx(1.1)
    assert found.p90 == pytest.approx(1.1)
    assert (found.cpu, found.pairs) == (None, 5)  # a clock that stands still says nothing


def test_a_quantized_file_that_is_not_faster_is_told(files: dict[str, Artifact]) -> None:
    fake = Fake({"base": 1.0, "small": 1.0, "int8": 1.5})
    notes = measure(files, "base", TABLE, QUICK, transport=fake).measurements["int8"].notes
    assert "not faster than base (0.6" in notes[0]
    assert "not smaller" in notes[1]  # it is the same file
    fast = Fake({"base": 1.0, "small": 1.0, "int8": 0.5})
    assert len(measure(files, "base", TABLE, QUICK, transport=fast).measurements["int8"].notes) == 1


def test_the_processor_that_is_blamed_is_the_targets(files: dict[str, Artifact]) -> None:
    class Able(Fake):
        def probe(self, packages: tuple[str, ...] = ()) -> Machine:
            return PLAIN.model_copy(update={"isa": ("asimddp",)})

    told = [
        measure(files, "base", TABLE, QUICK, transport=kind({"base": 1.0, "small": 1.0, "int8": 1.5}))
        .measurements["int8"]
        .notes[0]
        for kind in (Fake, Able)
    ]
    assert ["no int8 dot product" in note for note in told] == [True, False]


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

    def run(self, work: Work) -> Completed:
        found = json.loads(super().run(work).raw)
        found["members"][2] = {"load_ms": "soon"}
        return Completed(json.dumps(found).encode(), 0.1)


def test_real_files_take_turns(tmp_path: Path) -> None:
    files = {"first": tiny_onnx.make(tmp_path / "first"), "second": tiny_onnx.make(tmp_path / "second")}
    workload = QUICK.model_copy(update={"rounds": 2, "throughput_batches": (4,)})
    bench = measure(files, "first", TABLE, workload)
    found = bench.measurements["second"]
    assert found.runtime is not None
    assert found.runtime.name == "onnxruntime"
    assert len(found.rounds) == len(bench.control_rounds) == 2
    assert all(ratio.pairs >= 3 for ratio in (*found.rounds, *bench.control_rounds))
    assert found.throughput[0].interval is not None
    low, high = found.throughput[0].interval
    assert 0 < low <= found.throughput[0].per_second <= high


def test_a_file_that_cannot_be_loaded_is_told_among_others(tmp_path: Path) -> None:
    files = {"good": tiny_onnx.make(tmp_path / "good"), "bad": tiny_onnx.make(tmp_path / "bad")}
    files["bad"].model_file.write_bytes(b"not a model")
    with pytest.raises(DeviceError, match=r"bad: onnxruntime: .*bad_model"):
        measure(files, "good", TABLE, QUICK)


@pytest.mark.parametrize(
    ("end", "kind"), [("SIGILL", "unsupported_isa"), ("SIGKILL", "out of memory"), ("SIGTERM", "exit code -15")]
)
@pytest.mark.parametrize("when", ["loading", "turns"])
def test_how_a_worker_died_beside_others_is_told(tmp_path: Path, end: str, kind: str, when: str) -> None:
    worker = tmp_path / "worker.py"
    answers = (
        "out = os.fdopen(job['reply'], 'w', 1)\nout.write('0\\n')\nsys.stdin.readline()\n" if when == "turns" else ""
    )
    read = "import json, os, signal, sys\njob = json.load(open(sys.argv[1]))\n"
    worker.write_text(f"{read}{answers}os.kill(os.getpid(), signal.{end})\n")
    good = runtime_of(tiny_onnx.make(tmp_path / "good"))
    artifact = tiny_onnx.make(tmp_path / "dies")
    jobs = [good.job(artifact, inputs_of(artifact, TABLE), Call("latency", 1, warmup=1))] * 2
    sitting = Sitting((*jobs, replace(jobs[0], worker=str(worker))), items=4, seconds=0.05, timeout=60)
    members, _ = read_sitting(LOCAL.run(sitting).raw)
    assert len(members) == 3
    with pytest.raises(DeviceError, match=kind):
        good.parse(members[2])


@given(st.integers(1, 9), st.integers(3, 6))
def test_groups_hold_the_baseline_twice_and_everyone_once_or_twice(count: int, at_once: int) -> None:
    ids = tuple(f"m{at}" for at in range(count))
    found = groups(ids, "m0", at_once)
    assert all(group[:2] == ("m0", "m0") and len(group) <= at_once for group in found)
    times = 2 if 2 * count <= at_once else 1
    assert [name for group in found for name in group[2:]] == [name for name in ids[1:] for _ in range(times)]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.integers(1, 50), st.integers(1, 5), st.integers(1, 6))
def test_rows_spread_over_lengths_in_whole_batches(lengths: list[int], items: int, batch: int, many: int) -> None:
    table = Table(tuple("x" * length for length in lengths))
    rows = choose_rows(table, Workload(items=items, batch=batch, throughput_batches=(many,)))
    assert len(rows) % batch == 0
    assert len(rows) % many == 0
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
