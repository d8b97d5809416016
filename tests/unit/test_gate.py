"""The gate by table of cases: what passes, what fails, and that nothing passes by being absent."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgekit.baseline import reduce
from edgekit.correctness import Correctness
from edgekit.errors import UsageError
from edgekit.figures import metric_value, show
from edgekit.gate import judge, settled
from edgekit.machine import Machine
from edgekit.report.schema import (
    BaselineEntry,
    Conditions,
    Control,
    Deployable,
    Instructions,
    Latency,
    Report,
    RoundRatio,
    RuntimeInfo,
    Speedup,
    Throughput,
    dump,
    load_report,
)
from edgekit.rounds import Bench, Measurement
from edgekit.rules import METRICS, parse_rule, parse_rules
from edgekit.statistics import Chance, Drop

MACHINE = Machine(
    cpu="some cpu",
    arch="x86_64",
    cores=2,
    logical_cores=4,
    memory_bytes=8 << 30,
    isa=(),
    system="",
    python="",
    libraries={},
)
CONDITIONS = Conditions(data="test", n=1000, items=32, batch=1, threads=2, rounds=8)


def rounds(p50: float, count: int = 16, cpu: float | None = None, spread: float = 0.004) -> tuple[RoundRatio, ...]:
    """Times over the baseline's, alternately a little above and below: deterministic noise."""
    noise = [1 + spread * math.sin(2.4 * at) for at in range(count)]
    return tuple(RoundRatio(p50=p50 * n, p90=p50 * n, p99=p50 * n, cpu=(cpu or p50) * n, pairs=500) for n in noise)


def deployable(name: str, *, p50: float = 1.0, accuracy: float | None = 0.92, size: int = 8_000_000) -> Deployable:
    return Deployable(
        id=name,
        format="onnx",
        path=name,
        size_bytes=size,
        metrics={"accuracy": accuracy, "macro_f1": 0.9, "agreement": 0.97, "parity": 3e-7},
        accuracy_drop=Drop(value=0.929 - (accuracy or 0), low=0, high=0.02),
        latency_ms=Latency(p50=p50, p90=2 * p50, p99=3 * p50, n=100),
        speedup=Speedup(value=5.0 / p50, low=4, high=6, against="teacher"),
        rounds=rounds(p50 / 5),
        throughput=(Throughput(batch=1, per_second=900 / p50), Throughput(batch=8, per_second=1000 / p50)),
        instructions=Instructions(median=1e6 * p50, spread=0.001, n=8),
        peak_rss_bytes=100_000_000,
    )


def report(
    *entries: Deployable, at_chance: bool = False, control: tuple[float, float, float] = (1, 0.99, 1.01)
) -> Report:
    value, low, high = control
    teacher = BaselineEntry(
        id="teacher",
        format="onnx",
        path="teacher",
        size_bytes=90_000_000,
        metrics={"accuracy": 0.929, "macro_f1": 0.92},
        latency_ms=Latency(p50=5.0, p90=6.0, p99=7.0, n=100),
        throughput=(Throughput(batch=1, per_second=190), Throughput(batch=8, per_second=200)),
        instructions=Instructions(median=5e6, spread=0.001, n=8),
        peak_rss_bytes=200_000_000,
    )
    return Report(
        recipe="r",
        machine=MACHINE,
        seconds=1,
        deployables=entries,
        baseline=teacher,
        baseline_check=Chance(
            accuracy=0.929, majority_share=0.02, p_value=0.4 if at_chance else 0, at_chance=at_chance
        ),
        control=Control(value=value, low=low, high=high),
        conditions=CONDITIONS,
    )


TWO = report(deployable("int8", p50=0.8, accuracy=0.919), deployable("q8", p50=4.0, size=10_000_000))


@pytest.mark.parametrize(
    ("rule", "passed", "decider"),
    [
        ("accuracy >= 91.9%", True, "int8"),
        ("accuracy >= 92%", False, "int8"),
        ("accuracy >= 92% on q8", True, "q8"),
        ("accuracy >= baseline - 1pt", True, "int8"),  # 0.919 and 0.929 - 0.01, equal up to rounding
        ("accuracy >= baseline - 0.5pt", False, "int8"),
        ("accuracy_drop <= 1pt", True, "int8"),
        ("accuracy_drop < 1pt", False, "int8"),
        ("macro_f1 >= baseline - 3pt", True, "int8"),
        ("agreement >= 97%", True, "int8"),
        ("parity <= 1e-4", True, "int8"),
        ("latency.p50 <= 4ms", True, "q8"),
        ("latency.p90 <= 4ms", False, "q8"),
        ("latency.p99 <= 0.5x baseline", False, "q8"),
        ("latency.p99 <= 0.5x baseline on any", True, "int8"),
        ("latency.p50 >= 0.5x baseline", False, "int8"),
        ("latency.p50 >= 0.5x baseline on any", True, "q8"),
        ("latency.p50 <= baseline - 9ms", False, "q8"),
        ("instructions <= 1M on int8", True, "int8"),
        ("instructions <= 0.5x baseline", False, "q8"),
        ("instructions <= baseline - 0.5M", True, "q8"),
        ("latency.p50 <= baseline - 15%", True, "q8"),
        ("throughput >= 1.25x baseline", True, "q8"),
        ("speedup >= 5x", False, "q8"),
        ("speedup >= 5x on any", True, "int8"),
        ("speedup >= 5x on any of q8", False, "q8"),
        ("speedup >= 7x on any", False, "int8"),
        ("size <= 10MB", True, "q8"),
        ("size <= 9MB", False, "q8"),
        ("size == 10MB on q8", True, "q8"),
        ("size_ratio >= 9x", True, "q8"),
        ("size_ratio >= 10x", False, "q8"),
        ("memory <= 0.5x baseline", True, "int8"),
    ],
)
def test_verdicts(rule: str, passed: bool, decider: str) -> None:
    verdict = judge(TWO, [parse_rule(rule)])
    entry = verdict.rules[0]
    assert (entry.passed, entry.deployable) == (passed, decider)
    assert verdict.passed is passed
    assert entry.rule == str(parse_rule(rule))
    assert decider in entry.sentence


def test_values_and_limits_are_in_base_units() -> None:
    entry = judge(TWO, [parse_rule("latency.p50 <= 4ms on q8")]).rules[0]
    assert (entry.value, entry.limit, entry.relative) == (4.0, 4.0, False)
    entry = judge(TWO, [parse_rule("latency.p50 <= 1.02x baseline on q8")]).rules[0]
    assert entry.relative
    assert entry.value == pytest.approx(0.8, rel=0.004)
    assert entry.limit == pytest.approx(1.02)
    assert entry.interval is not None
    assert entry.interval[0] <= entry.value <= entry.interval[1]
    entry = judge(TWO, [parse_rule("size <= 9MB on q8")]).rules[0]
    assert (entry.value, entry.limit) == (10e6, 9e6)


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("op", ["<=", ">=", "<", ">", "=="])
def test_a_missing_metric_fails_either_way(metric: str, op: str) -> None:
    bare = Deployable(id="bare", format="onnx", path="", size_bytes=0)
    empty = report(bare).model_copy(update={"baseline": None})
    unit = list(METRICS[metric].units)[-1]
    entry = judge(empty, [parse_rule(f"{metric} {op} 1{unit}")]).rules[0]
    if metric == "size":
        assert entry.value == 0
        return
    assert not entry.passed
    assert entry.value is None
    assert f"no {metric}" in entry.sentence


def test_one_missing_metric_fails_all_but_not_any() -> None:
    mixed = report(deployable("good"), deployable("silent", accuracy=None))
    assert not judge(mixed, [parse_rule("accuracy >= 50%")]).passed
    assert judge(mixed, [parse_rule("accuracy >= 50%")]).rules[0].deployable == "silent"
    assert judge(mixed, [parse_rule("accuracy >= 50% on any")]).passed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("op", ["<=", ">="])
def test_not_a_number_fails(value: float, op: str) -> None:
    entry = judge(report(deployable("bad", accuracy=value)), [parse_rule(f"accuracy {op} 50%")]).rules[0]
    assert not entry.passed
    assert entry.value is None
    assert "not a number" in entry.sentence


def test_a_baseline_at_chance_fails_whatever_the_rules() -> None:
    verdict = judge(report(deployable("a"), at_chance=True), [parse_rule("size <= 1GB")])
    assert verdict.rules[0].passed
    assert not verdict.passed
    assert "chance" in verdict.reasons[0]


def test_no_rules_and_unknown_names_fail() -> None:
    assert not judge(TWO, []).passed
    entry = judge(TWO, [parse_rule("size <= 1GB on int7")]).rules[0]
    assert not entry.passed
    assert "int7" in entry.sentence
    assert not judge(report(), [parse_rule("size <= 1GB")]).passed


LATENCY = "latency.p50 <= 1.02x baseline"


def one(entry: Deployable, **changes: object) -> Report:
    return report(entry).model_copy(update=changes)


def timed(ratio: float, count: int = 16, cpu: float | None = None, spread: float = 0.004) -> Report:
    """A report of one file that takes `ratio` times as long as the baseline."""
    return report(deployable("int8").model_copy(update={"rounds": rounds(ratio, count, cpu, spread)}))


@pytest.mark.parametrize(
    ("ratio", "count", "verdict"),
    [(1.0, 16, "pass"), (1.04, 16, "fail"), (1.0, 6, "inconclusive"), (1.04, 6, "inconclusive"), (1.02, 40, None)],
)
def test_latency_is_decided_round_by_round(ratio: float, count: int, verdict: str | None) -> None:
    entry = judge(timed(ratio, count), [parse_rule(LATENCY)]).rules[0]
    assert entry.verdict == (verdict or "inconclusive")
    assert f"over {count} rounds" in entry.sentence
    assert entry.passed is (verdict == "pass")


def test_inconclusive_does_not_pass_unless_the_rule_says_so() -> None:
    strict = judge(timed(1.0, 6), parse_rules([LATENCY, "size <= 1GB"]))
    assert (strict.verdict, strict.passed) == ("inconclusive", False)
    assert "--rounds" in strict.rules[0].sentence
    lenient = judge(timed(1.0, 6), parse_rules([f"{LATENCY} or inconclusive"]))
    assert (lenient.verdict, lenient.rules[0].verdict, lenient.rules[0].passed) == ("pass", "inconclusive", True)
    assert judge(timed(1.04), parse_rules([f"{LATENCY} or inconclusive"])).verdict == "fail"
    assert judge(timed(1.0, 6), parse_rules([LATENCY, "size <= 1kB"])).verdict == "fail"


def test_any_and_all_with_an_undecided_file() -> None:
    sure, unsure = deployable("sure"), deployable("unsure").model_copy(update={"rounds": rounds(1.0, 6)})
    slow = deployable("slow").model_copy(update={"rounds": rounds(1.1)})

    def verdict(rule: str, *entries: Deployable) -> str:
        return judge(report(*entries), [parse_rule(rule)]).verdict

    assert verdict(LATENCY, sure, unsure) == "inconclusive"
    assert verdict(f"{LATENCY} on any", sure, unsure) == "pass"
    assert verdict(LATENCY, slow, unsure) == "fail"
    assert verdict(f"{LATENCY} on any", slow, unsure) == "inconclusive"
    assert verdict(f"{LATENCY} on any", slow) == "fail"


def test_cpu_time_is_the_second_witness() -> None:
    waits = judge(timed(1.05, cpu=1.0), [parse_rule(LATENCY)]).rules[0]
    assert waits.verdict == "fail"
    assert "by CPU time it is 1.000x, within the limit: noise or waiting" in waits.sentence
    works = judge(timed(1.05, cpu=1.05), [parse_rule(LATENCY)]).rules[0]
    assert "agrees" in works.sentence
    blind = rounds(1.05)
    without = deployable("int8").model_copy(update={"rounds": tuple(r.model_copy(update={"cpu": None}) for r in blind)})
    assert judge(report(without), [parse_rule(LATENCY)]).rules[0].sentence.endswith("fails")


@pytest.mark.parametrize("rule", [LATENCY, "throughput >= 0.98x baseline", "latency.p90 <= baseline + 2%"])
def test_a_machine_noisier_than_the_margin_decides_nothing(rule: str) -> None:
    wild = Control(value=1.0, low=0.96, high=1.04, rounds=rounds(1.0, spread=0.1))
    noisy = report(deployable("int8", p50=5.0)).model_copy(update={"control": wild})
    entry = judge(noisy, [parse_rule(rule)]).rules[0]
    assert entry.verdict == "inconclusive"
    assert "the baseline against itself" in entry.sentence
    assert "off, the margin is 2.0% and the file is 2.0% from the limit" in entry.sentence
    assert judge(noisy, [parse_rule(LATENCY.replace("1.02", "1.5"))]).passed
    assert judge(noisy, [parse_rule("size <= 1GB")]).passed


@pytest.mark.parametrize(
    ("rule", "ratio", "verdict"),
    [
        (LATENCY, 0.2, "pass"),
        (LATENCY, 0.97, "pass"),
        (LATENCY, 1.0, "inconclusive"),
        (LATENCY, 1.04, "inconclusive"),
        (LATENCY, 1.08, "fail"),
        (LATENCY, 3.0, "fail"),
        ("latency.p50 <= baseline", 0.9, "pass"),
        ("latency.p50 <= baseline", 0.98, "inconclusive"),
        ("latency.p50 <= 1x baseline", 1.1, "fail"),
    ],
)
def test_the_control_matters_only_near_the_limit(rule: str, ratio: float, verdict: str) -> None:
    wild = Control(value=1.0, low=0.97, high=1.03)
    assert judge(timed(ratio).model_copy(update={"control": wild}), [parse_rule(rule)]).verdict == verdict


@pytest.mark.parametrize(
    ("speedup", "count", "verdict"),
    [(5.5, 12, "pass"), (5.1, 12, "pass"), (4.5, 12, "fail"), (5.5, 6, "inconclusive"), (5.0, 40, "inconclusive")],
)
def test_a_speedup_is_decided_round_by_round(speedup: float, count: int, verdict: str) -> None:
    entry = deployable("int8").model_copy(update={"rounds": rounds(1 / speedup, count)})
    noisy = report(entry, control=(1.0, 0.9, 1.1))  # far from 5x: it hides nothing
    found = judge(noisy, [parse_rule("speedup >= 5x on any")]).rules[0]
    assert (found.verdict, found.relative, found.limit) == (verdict, False, 5.0)
    assert found.value == pytest.approx(speedup, rel=0.004)
    assert f"x [{found.interval[0] if found.interval else 0:.3f}" in found.sentence
    assert f"over {count} rounds, limit >= 5x" in found.sentence
    flipped = judge(noisy, [parse_rule("speedup <= 5x")]).rules[0].verdict
    assert flipped == {"pass": "fail", "fail": "pass"}.get(verdict, verdict)
    assert judge(noisy, [parse_rule("speedup >= 5x or inconclusive")]).passed is (verdict != "fail")


def benched(**ratios: tuple[RoundRatio, ...]) -> Bench:
    """A measurement of files with these rounds, and of the baseline."""

    def file(name: str, found: tuple[RoundRatio, ...]) -> Measurement:
        return Measurement(
            id=name,
            format="onnx",
            precision="",
            size_bytes=1,
            latency_ms=Latency(p50=5.0, p90=6.0, p99=7.0, n=100),
            speedup=Speedup(value=1, low=1, high=1, against="teacher") if found else None,
            rounds=found,
            load_ms=1,
            first_ms=1,
            peak_rss_bytes=1,
            runtime=RuntimeInfo(name="onnxruntime", version=""),
        )

    files = {name: file(name, found) for name, found in {"teacher": (), **ratios}.items()}
    return Bench(files, Control(value=1, low=0.99, high=1.01), CONDITIONS, ())


@pytest.mark.parametrize(
    ("rule", "done"),
    [
        (LATENCY, False),
        (f"{LATENCY} on fast", True),
        ("speedup >= 5x", False),
        ("speedup >= 5x on near", False),
        ("speedup >= 5x on any", True),  # fast passes
        ("speedup >= 9x", True),
        ("speedup == 5x", True),  # the value decides
        ("size <= 1MB", True),
    ],
)
def test_a_bench_goes_on_until_its_rounds_decide(rule: str, done: bool) -> None:
    bench = benched(fast=rounds(1 / 6, 12), near=rounds(1 / 5, 40), new=rounds(1 / 6, 6))
    assert settled([parse_rule(rule)], bench) is done


def test_a_speedup_without_rounds_is_decided_by_its_value() -> None:
    bare = deployable("int8").model_copy(update={"rounds": ()})
    assert judge(report(bare), [parse_rule("speedup >= 5x")]).passed
    assert judge(report(bare), [parse_rule("speedup >= 5.1x")]).verdict == "fail"
    assert judge(report(deployable("int8")), [parse_rule("speedup == 5x")]).passed


def test_a_speedup_near_one_needs_a_quiet_machine() -> None:
    entry = deployable("int8").model_copy(update={"rounds": rounds(1 / 1.04)})
    found = judge(report(entry, control=(1, 0.95, 1.05)), [parse_rule("speedup >= 1.02x")]).rules[0]
    assert (found.verdict, "the baseline against itself" in found.sentence) == ("inconclusive", True)


def test_throughput_whose_interval_holds_the_limit_is_told() -> None:
    flow = Throughput(batch=8, per_second=100, interval=(90, 110))
    found = report(deployable("int8").model_copy(update={"throughput": (flow,)}))
    entry = judge(found, [parse_rule("throughput >= 95/s")]).rules[0]
    assert (entry.verdict, "holds the limit: it may come out otherwise" in entry.sentence) == ("pass", True)
    assert "otherwise" not in judge(found, [parse_rule("throughput >= 80/s")]).rules[0].sentence


def test_throughput_of_other_batches_is_not_compared() -> None:
    single = deployable("gguf").model_copy(update={"throughput": (Throughput(batch=1, per_second=900),)})
    entry = judge(report(single), [parse_rule("throughput >= 1x baseline")]).rules[0]
    assert (entry.verdict, "of batches of 8, here 1 (--throughput-batches 1 suits both)" in entry.sentence) == (
        "fail",
        True,
    )
    assert judge(report(single), [parse_rule("throughput >= 800/s")]).passed


def test_a_file_that_was_not_timed_beside_the_baseline_fails() -> None:
    alone = deployable("int8").model_copy(update={"rounds": ()})
    entry = judge(report(alone), [parse_rule(LATENCY)]).rules[0]
    assert (entry.verdict, "no rounds" in entry.sentence) == ("fail", True)
    broken = tuple(r.model_copy(update={"p50": math.nan}) for r in rounds(1.0))
    entry = judge(report(alone.model_copy(update={"rounds": broken})), [parse_rule(LATENCY)]).rules[0]
    assert (entry.verdict, "not a number" in entry.sentence) == ("fail", True)


@pytest.mark.parametrize("rule", [LATENCY, "latency.p50 <= 5ms", "throughput >= 1/s", "speedup >= 1x"])
def test_emulated_times_are_refused(rule: str) -> None:
    emulated = CONDITIONS.model_copy(update={"fidelity": "emulated", "transport": "cortex-a53"})
    entry = judge(TWO.model_copy(update={"conditions": emulated}), [parse_rule(f"{rule} on int8")]).rules[0]
    assert (entry.verdict, "emulation" in entry.sentence) == ("fail", True)
    assert judge(TWO.model_copy(update={"conditions": emulated}), [parse_rule("instructions <= 1x baseline")]).passed


def test_an_interval_that_holds_the_limit_is_told() -> None:
    latency = Latency(p50=4.0, p90=5, p99=6, n=9, p50_interval=(3.8, 4.3))
    entry = deployable("int8").model_copy(update={"latency_ms": latency})
    near = judge(report(entry), [parse_rule("latency.p50 <= 4.1ms")]).rules[0]
    assert near.passed
    assert "3.8ms to 4.3ms, holds the limit" in near.sentence
    assert "holds the limit" not in judge(report(entry), [parse_rule("latency.p50 <= 5ms")]).rules[0].sentence


def test_accuracy_says_whether_the_sample_could_tell() -> None:
    def sentence(rule: str, drop: Drop) -> str:
        entry = deployable("int8").model_copy(update={"accuracy_drop": drop})
        return judge(report(entry), [parse_rule(rule)]).rules[0].sentence

    unsure = sentence("accuracy_drop <= 1pt", Drop(value=0.004, low=-0.004, high=0.012, p_value=0.3))
    assert "1,000 examples cannot tell" in unsure
    assert "McNemar p = 0.3" in unsure
    assert "takes about 1," in unsure
    sure = sentence("accuracy_drop <= 3pt", Drop(value=0.004, low=-0.004, high=0.012, p_value=0.3))
    assert sure.endswith("the sample tells")
    lost = sentence("accuracy >= baseline - 0.5pt", Drop(value=0.009, low=0.006, high=0.012, p_value=0.001))
    assert lost.endswith("the sample tells")


def test_rules_against_an_earlier_report() -> None:
    before = reduce(report(deployable("int8", p50=0.8), deployable("q8", p50=4.0)))
    same = report(deployable("int8", p50=0.8), deployable("q8", p50=4.0))
    slower = report(deployable("int8", p50=0.9), deployable("q8", p50=4.0))
    rule = [parse_rule(LATENCY)]
    assert not judge(slower, rule, before).passed
    assert judge(same, rule, before).passed
    assert not judge(report(deployable("new")), rule, before).passed


@pytest.mark.parametrize(
    ("p50", "verdict"), [(0.7, "pass"), (0.75, "pass"), (0.79, "inconclusive"), (0.83, "inconclusive"), (0.9, "fail")]
)
def test_times_of_two_runs_are_decided_only_where_their_intervals_are_apart(p50: float, verdict: str) -> None:
    def run(value: float) -> Report:
        latency = Latency(p50=value, p90=1, p99=1, n=9, p50_interval=(value * 0.98, value * 1.02))
        return report(deployable("int8").model_copy(update={"latency_ms": latency}))

    entry = judge(run(p50), [parse_rule(LATENCY)], reduce(run(0.8))).rules[0]
    assert entry.verdict == verdict
    assert ("side by side" in entry.sentence) is (verdict == "inconclusive")


@pytest.mark.parametrize(
    ("change", "rule", "word"),
    [
        ({"machine": MACHINE.model_copy(update={"cpu": "another"})}, LATENCY, "another machine (another)"),
        ({"conditions": CONDITIONS.model_copy(update={"threads": 4})}, LATENCY, "another workload (its threads is 4"),
        ({"conditions": CONDITIONS.model_copy(update={"data": "other"})}, LATENCY, "another workload (its data is"),
        ({"conditions": CONDITIONS.model_copy(update={"transport": "ssh"})}, LATENCY, "another target (cpu, ssh"),
        ({"conditions": CONDITIONS.model_copy(update={"transport": "ssh"})}, "instructions <= 1x baseline", "target"),
        ({"conditions": CONDITIONS.model_copy(update={"data": "x"})}, "accuracy >= baseline", "other test data"),
        ({"conditions": None}, LATENCY, "conditions"),
    ],
)
def test_unlike_reports_are_not_compared(change: dict[str, object], rule: str, word: str) -> None:
    other = reduce(TWO.model_copy(update=change))
    entry = judge(TWO, [parse_rule(rule)], other).rules[0]
    assert not entry.passed
    assert word in entry.sentence
    if rule == LATENCY and change.get("conditions", True):
        assert "measure the two side by side" in entry.sentence
    assert judge(TWO, [parse_rule("size <= 1.02x baseline")], other).passed


@pytest.mark.parametrize(
    ("drop", "verdict"),
    [
        (Drop(value=0.004, low=-0.004, high=0.012), "pass"),  # it cannot be proved, but it looks well
        (Drop(value=0.012, low=0.004, high=0.02), "inconclusive"),
        (Drop(value=0.012, low=0.0101, high=0.014), "fail"),
    ],
)
def test_accuracy_fails_only_where_the_paired_sample_bears_it_out(drop: Drop, verdict: str) -> None:
    entry = deployable("int8").model_copy(update={"accuracy_drop": drop})
    strict, lenient = (
        judge(report(entry), [parse_rule(f"accuracy_drop <= 1pt{end}")]) for end in ("", " or inconclusive")
    )
    assert (strict.rules[0].verdict, strict.verdict, lenient.passed) == (verdict, verdict, verdict != "fail")
    assert ("not decided" in strict.rules[0].sentence) is (verdict == "inconclusive")


def test_accuracy_is_paired_with_an_earlier_report_of_the_same_examples() -> None:
    def answered(wrong: range, data: str = "d" * 64) -> Report:
        flags = [at not in wrong for at in range(1000)]
        entry = deployable("int8", accuracy=sum(flags) / 1000)
        return report(entry.model_copy(update={"correctness": Correctness.pack(flags, data)}))

    rule = [parse_rule("accuracy >= baseline - 0.5pt")]
    worse = judge(answered(range(80, 140)), rule, reduce(answered(range(80, 120)))).rules[0]
    assert worse.verdict == "fail"
    assert "lost 2.00pt" in worse.sentence
    assert worse.sentence.endswith("the sample tells")
    other = judge(answered(range(80)), rule, reduce(answered(range(80), "e" * 64))).rules[0]
    assert "other test data" in other.sentence


def test_an_unsteady_machine_is_warned_of() -> None:
    rules = parse_rules(["latency.p50 <= 1.02x baseline on int8"])
    assert judge(TWO, rules).warnings == ()
    assert "not steady" in judge(report(deployable("int8"), control=(1.2, 1.1, 1.3)), rules).warnings[0]
    assert "0.760 to 2.800" in judge(report(deployable("int8"), control=(1.27, 0.76, 2.8)), rules).warnings[0]
    assert judge(report(deployable("a"), control=(1.2, 1.1, 1.3)), parse_rules(["size <= 1GB"])).warnings == ()


def test_show() -> None:
    assert show("latency.p50", 1.234) == "1.23ms"
    assert show("size", 8_400_000) == "8.4MB"
    assert show("accuracy_drop", 0.0105) == "1.05pt"
    assert show("instructions", 12_340_000) == "12.34M"
    assert show("accuracy", None) == "nothing"


def test_report_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    full = TWO.model_copy(update={"gate": judge(TWO, parse_rules(["speedup >= 5x on any", "size <= 1MB"]))})
    path.write_text(dump(full), encoding="utf-8")
    assert '"schema": 1' in path.read_text(encoding="utf-8")
    assert load_report(path) == full
    silent = deployable("nan", accuracy=math.nan).model_copy(update={"accuracy_drop": None})
    path.write_text(dump(report(silent)), encoding="utf-8")
    entry = load_report(path).deployables[0]
    assert metric_value("accuracy", entry, load_report(path)) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[]", "not a report"),
        ("{}", "schema: None"),
        ('{"schema": 2}', "schema: 2"),
        ('{"schema": 1, "recipe": "r"}', "machine: Field required"),
        ('{"schema": 1, "recipes": "r"}', "recipes: Extra inputs"),
    ],
)
def test_a_broken_report_is_told(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"report\.json") as caught:
        load_report(path)
    assert word in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        load_report(tmp_path / "absent.json")
