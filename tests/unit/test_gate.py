"""The gate by table of cases: what passes, what fails, and that nothing passes by being absent."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.gate import judge, metric_value, show
from edgekit.machine import Machine
from edgekit.report.schema import (
    BaselineEntry,
    Conditions,
    Control,
    Deployable,
    Latency,
    Report,
    Speedup,
    Throughput,
    dump,
    load_report,
)
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
        throughput=Throughput(batch=8, per_second=1000 / p50),
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
        throughput=Throughput(batch=8, per_second=200),
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
        ("latency.p50 <= baseline - 20%", True, "q8"),
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
    entry = judge(TWO, [parse_rule("latency.p50 <= 1.02x baseline on q8")]).rules[0]
    assert (entry.value, entry.limit) == (4.0, pytest.approx(5.1))
    entry = judge(TWO, [parse_rule("size <= 9MB on q8")]).rules[0]
    assert (entry.value, entry.limit) == (10e6, 9e6)


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("op", ["<=", ">=", "<", ">", "=="])
def test_a_missing_metric_fails_either_way(metric: str, op: str) -> None:
    bare = Deployable(id="bare", format="onnx", path="", size_bytes=0)
    empty = report(bare).model_copy(update={"baseline": None})
    unit = next(iter(METRICS[metric].units))
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


def test_rules_against_an_earlier_report() -> None:
    before = report(deployable("int8", p50=0.8), deployable("q8", p50=4.0))
    slower = report(deployable("int8", p50=0.9), deployable("q8", p50=4.0))
    rule = [parse_rule("latency.p50 <= 1.02x baseline")]
    assert not judge(slower, rule, before).passed
    assert judge(before, rule, before).passed
    assert not judge(report(deployable("new")), rule, before).passed


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"machine": MACHINE.model_copy(update={"cpu": "another"})}, "another processor"),
        ({"conditions": CONDITIONS.model_copy(update={"threads": 4})}, "threads"),
        ({"conditions": None}, "conditions"),
        ({"deployables": ()}, "no deployable"),
    ],
)
def test_times_of_unlike_reports_are_not_compared(change: dict[str, object], word: str) -> None:
    other = TWO.model_copy(update=change)
    entry = judge(TWO, [parse_rule("latency.p50 <= 1.02x baseline")], other).rules[0]
    assert not entry.passed
    assert word in entry.sentence
    if "deployables" not in change:
        assert judge(TWO, [parse_rule("size <= 1.02x baseline")], other).passed


def test_noise_is_warned_of() -> None:
    rules = parse_rules(["latency.p50 <= 1.02x baseline on int8"])
    assert judge(TWO, rules).warnings == ()
    assert "wider" in judge(report(deployable("int8"), control=(1.0, 0.9, 1.1)), rules).warnings[0]
    assert "not steady" in judge(report(deployable("int8"), control=(1.2, 1.1, 1.3)), rules).warnings[0]
    assert judge(report(deployable("a"), control=(1.2, 1.1, 1.3)), parse_rules(["size <= 1GB"])).warnings == ()


def test_show() -> None:
    assert show("latency.p50", 1.234) == "1.23ms"
    assert show("size", 8_400_000) == "8.4MB"
    assert show("accuracy_drop", 0.0105) == "1.05pt"
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
