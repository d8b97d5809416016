"""The grammar of rules: what is written reads back, what is wrong is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import RecipeError
from edgekit.rules import DROPS, FRACTION, METRICS, Limit, Rule, find_rules, load_rules, parse_rule, parse_rules

IDS = st.text("abcxyzAZ019_-", min_size=1, max_size=8)
NUMBERS = st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12) | st.integers(1, 10**9).map(float)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    metric = draw(st.sampled_from(list(METRICS.values())))
    share = metric.units == FRACTION
    number = draw(st.floats(1e-12, 1.0) | st.floats(-1.0, -1e-12) if share else NUMBERS)
    unit = draw(st.sampled_from(["pt", "%"] if metric.name in DROPS else list(metric.units)))
    limit = Limit(kind="absolute", number=number, unit=unit)
    if metric.against_baseline:
        offsets = ["pt"] if share else [*metric.units, "%"]
        limit = draw(
            st.sampled_from(
                [
                    limit,
                    Limit(kind="offset"),
                    Limit(kind="offset", number=number, unit=draw(st.sampled_from(offsets))),
                    Limit(kind="ratio", number=abs(number)),
                ]
            )
        )
    op = draw(st.sampled_from(["<=", ">=", "<", ">", "=="]))
    on = tuple(draw(st.lists(IDS, max_size=3)))
    compares = limit.kind != "absolute" or not metric.against_baseline
    lenient = metric.timed and compares and draw(st.booleans())
    quantifier = draw(st.sampled_from(["all", "any"]))
    return Rule(metric=metric.name, op=op, limit=limit, on=on, quantifier=quantifier, or_inconclusive=lenient)


@given(rules())
def test_what_is_written_reads_back(rule: Rule) -> None:
    assert parse_rule(str(rule)) == rule


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_a_problem(text: str) -> None:
    found, problems = find_rules([text], "gate.rules")
    assert len(found) + len(problems) == 1


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("accuracy_drop <= 1pt", 0.01),
        ("accuracy >= 90%", 0.9),
        ("accuracy >= 0.9", 0.9),
        ("latency.p99 < 1.5s", 1500),
        ("latency.p50<=250us", 0.25),
        ("size <= 15MB", 15e6),
        ("size <= 15 MiB", 15 * 2**20),
        ("memory <= 1e2kB", 1e5),
        ("throughput >= 300/s", 300),
        ("speedup >= 5x", 5),
        ("size_ratio >= 10x", 10),
        ("parity <= 1e-4", 1e-4),
        ("instructions <= 80M", 80e6),
        ("instructions <= 80000000", 80e6),
    ],
)
def test_absolute_limits(text: str, limit: float) -> None:
    assert parse_rule(text).bound(None) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "baseline", "limit"),
    [
        ("latency.p50 <= 1.02x baseline", 10, 10.2),
        ("latency.p50 <= baseline + 2%", 10, 10.2),
        ("latency.p50 <= baseline + 1ms", 10, 11),
        ("accuracy >= baseline - 0.5pt", 0.9, 0.895),
        ("accuracy >= baseline", 0.9, 0.9),
        ("size < baseline - 1MB", 5e6, 4e6),
        ("throughput >= 0.98x baseline", 100, 98),
        ("instructions <= 1.01x baseline", 80e6, 80.8e6),
        ("instructions <= baseline + 1M", 80e6, 81e6),
        ("instructions <= baseline + 1%", 80e6, 80.8e6),
    ],
)
def test_limits_against_a_baseline(text: str, baseline: float, limit: float) -> None:
    rule = parse_rule(text)
    assert rule.relative
    assert rule.bound(baseline) == pytest.approx(limit)
    assert rule.bound(None) is None
    assert rule.bound(float("nan")) is None


@pytest.mark.parametrize(
    ("text", "on", "quantifier"),
    [
        ("speedup >= 5x", (), "all"),
        ("speedup >= 5x on any", (), "any"),
        ("speedup >= 5x on all", (), "all"),
        ("speedup >= 5x on int8, q8", ("int8", "q8"), "all"),
        ("speedup >= 5x on any of int8,q8", ("int8", "q8"), "any"),
    ],
)
def test_scopes(text: str, on: tuple[str, ...], quantifier: str) -> None:
    rule = parse_rule(text)
    assert (rule.on, rule.quantifier) == (on, quantifier)


@pytest.mark.parametrize(
    ("text", "lenient"),
    [
        ("latency.p50 <= 1.02x baseline", False),
        ("latency.p50 <= 1.02x baseline or inconclusive", True),
        ("latency.p99 <= baseline + 5% on any of a, b  or  inconclusive", True),
        ("throughput >= 0.98x baseline or inconclusive", True),
        ("accuracy >= baseline - 0.5pt or inconclusive", True),
        ("accuracy_drop <= 1pt or inconclusive", True),
        ("speedup >= 5x or inconclusive", True),
    ],
)
def test_what_inconclusive_means(text: str, lenient: bool) -> None:
    rule = parse_rule(text)
    assert rule.or_inconclusive is lenient
    assert rule.on in ((), ("a", "b"))


def test_a_file_of_rules_tells_all_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("gate:\n- size <= 1MB\n- sise <= 1MB\n- 3\n- {size: 1MB}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_rules(path)
    assert [p.where for p in caught.value.problems] == ["gates.yaml[1]", "gates.yaml[2]", "gates.yaml[3]"]
    path.write_text("- size <= 1MB\n- accuracy >= 90%\n", encoding="utf-8")
    assert [rule.metric for rule in load_rules(path)] == ["size", "accuracy"]


@pytest.mark.parametrize("text", ["", "rules:", "size <= 1MB", "[", "gate: {a: b}", "other: [size <= 1MB]"])
def test_a_file_without_rules_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"gates\.yaml"):
        load_rules(path)
    with pytest.raises(RecipeError, match="cannot read the rules"):
        load_rules(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("acuracy >= 90%", "no metric 'acuracy'", "did you mean 'accuracy'?"),
        ("latency <= 5ms", "no metric 'latency'", "latency.p50"),
        ("p99 <= 5ms", "no metric 'p99'", "latency.p99"),
        ("latency.p95 <= 5ms", "no metric 'latency.p95'", "did you mean 'latency.p9"),
        ("size <= 15mb", "not measured in 'mb'", "did you mean 'MB'?"),
        ("size <= 15ms", "not measured in 'ms'", "MB"),
        ("latency.p50 <= 5", "needs a unit", "ms"),
        ("accuracy_drop <= 1", "needs a unit", "1pt"),
        ("accuracy_drop <= 0.01", "needs a unit", "1pt"),
        ("accuracy >= baseline - 1", "needs a unit", "1pt"),
        ("accuracy >= 90", "at most 100%", "90%"),
        ("entity_f1 >= 9000%", "at most 100%", ""),
        ("accuracy 90%", "not a rule", "METRIC OP LIMIT"),
        ("accuracy => 90%", "not a rule", "METRIC OP LIMIT"),
        ("accuracy >= baseline - 1%", "two things", "1pt"),
        ("speedup >= baseline", "compares with the baseline already", "plain limit"),
        ("latency.p50 <= 1.02x basline", "cannot read the limit", "baseline"),
        ("latency.p50 <= 0x baseline", "above 0", "1.02x"),
        ("speedup >= 5x on any of", "after 'on'", "on any"),
        ("speedup >= 5x on a b", "after 'on'", "on any"),
        ("accuracy >= 1e999", "not a finite number", ""),
        ("", "not a rule", ""),
        ("size <= 1MB or inconclusive", "never inconclusive", "leave out"),
        ("accuracy >= 90% or inconclusive", "never inconclusive", "leave out"),
        ("latency.p50 <= 5ms or inconclusive", "never inconclusive", "leave out"),
        ("throughput >= 5/s or inconclusive", "never inconclusive", "leave out"),
        ("latency.p50 <= 1.02x baseline or inconclusiv", "cannot read the limit", "or inconclusive"),
        ("instructions <= 80MB", "not measured in 'MB'", "k, M, G"),
    ],
)
def test_what_is_wrong_is_told(text: str, what: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_rule(text, "gate.rules")
    problem = caught.value.problems[0]
    assert problem.where == "gate.rules[0]"
    assert what in problem.what
    assert hint in problem.hint


def test_all_problems_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_rules(["size <= 1MB", "sise <= 1MB", "accuracy"], "gate.rules")
    assert [p.where for p in caught.value.problems] == ["gate.rules[1]", "gate.rules[2]"]


@pytest.mark.parametrize(
    ("op", "value", "limit", "holds"),
    [
        (">=", 0.919, 0.929 - 0.01, True),  # 0.919 < 0.9190000000000001 in floats
        (">", 0.919, 0.929 - 0.01, False),
        ("<=", 1.0, 1.0, True),
        ("<", 1.0, 1.0, False),
        ("<", 0.5, 1.0, True),
        ("<=", 1.1, 1.0, False),
        ("==", 15e6, 15e6, True),
        ("==", 15e6 + 1, 15e6, False),
        (">=", float("nan"), 1.0, False),
        ("<=", float("nan"), 1.0, False),
        ("<=", 1.0, float("inf"), False),
    ],
)
def test_holds(op: str, value: float, limit: float, holds: bool) -> None:
    rule = parse_rule(f"parity {op} 1")
    assert rule.holds(value, limit) is holds
