"""What CI systems read: JUnit XML, GitHub's annotations, GitLab's code quality report."""

from __future__ import annotations

import json
from xml.etree import ElementTree as Tree

import pytest
import report_sample
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report.annotations import render_github, render_gitlab
from edgekit.report.junit import render_junit
from edgekit.report.schema import Gate, Report, RuleEntry
from edgekit.sequential import Verdict


def rule(verdict: Verdict, text: str = "size <= 1MB", sentence: str = "", *, passed: bool | None = None) -> RuleEntry:
    through = verdict == "pass" if passed is None else passed
    return RuleEntry(rule=text, value=1.0, limit=2.0, verdict=verdict, passed=through, sentence=sentence)


GATE = Gate(
    verdict="fail",
    rules=(
        rule("pass"),
        rule("fail", "latency.p50 <= 1.02x baseline", "int8: 50%, over\nthe limit"),
        rule("inconclusive", "latency.p90 <= 1.02x baseline"),
        rule("inconclusive", "latency.p99 <= 1.02x baseline or inconclusive", passed=True),
    ),
    reasons=("the baseline is at chance level",),
    warnings=("not steady",),
)


def with_gate(gate: Gate | None) -> Report:
    return report_sample.sample().model_copy(update={"gate": gate})


def test_junit_has_a_case_for_every_rule_and_reason() -> None:
    text = render_junit(with_gate(GATE))
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites')
    root = Tree.fromstring(text.encode())
    (suite,) = root
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "3", "errors": "0", "skipped": "1"}
    assert (root.get("tests"), root.get("failures")) == ("5", "3")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases][:2] == ["size <= 1MB", "latency.p50 <= 1.02x baseline"]
    assert [failure.get("type") for failure in suite.iter("failure")] == ["fail", "inconclusive", "fail"]
    assert cases[3].find("skipped") is not None
    failed = cases[1].find("failure")
    assert failed is not None
    assert "over\nthe limit" in (failed.text or "")
    assert suite.findtext("system-out") == "not steady"


def test_junit_without_a_gate_fails() -> None:
    root = Tree.fromstring(render_junit(with_gate(None)).encode())
    assert root.get("failures") == "1"


@given(st.text(max_size=60))
def test_junit_is_well_formed_whatever_the_names(text: str) -> None:
    gate = Gate(verdict="fail", rules=(rule("fail", text, text),), reasons=(text,), warnings=(text,))
    root = Tree.fromstring(render_junit(with_gate(gate)).encode("utf-8", "strict"))
    assert len(root.findall("./testsuite/testcase")) == 2


def test_github_takes_one_line_a_finding() -> None:
    lines = render_github(GATE).splitlines()
    assert lines == [
        "::error title=latency.p50 <= 1.02x baseline%3A fail::int8: 50%25, over%0Athe limit",
        "::error title=latency.p90 <= 1.02x baseline%3A inconclusive::latency.p90 <= 1.02x baseline",
        "::warning title=latency.p99 <= 1.02x baseline or inconclusive%3A inconclusive::"
        "latency.p99 <= 1.02x baseline or inconclusive",
        "::error title=edgekit gate::the baseline is at chance level",
        "::warning title=edgekit gate::not steady",
    ]
    assert render_github(Gate(verdict="pass", rules=(rule("pass"),))) == ""


@pytest.mark.parametrize("evil", ["x\n::error::forged", "x\r\n::set-output name=a::b", "a,title=b:c%0A"])
def test_github_takes_no_command_from_a_name(evil: str) -> None:
    text = render_github(Gate(verdict="fail", rules=(rule("fail", evil, evil),), reasons=(evil,)))
    assert len(text.splitlines()) == 2
    assert all(line.startswith("::error title=") for line in text.splitlines())


def test_gitlab_has_what_its_schema_requires() -> None:
    found = json.loads(render_gitlab(GATE, "gates.yaml"))
    assert [issue["severity"] for issue in found] == ["major", "major", "minor", "major", "minor"]
    assert len({issue["fingerprint"] for issue in found}) == 5
    for issue in found:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["location"] == {"path": "gates.yaml", "lines": {"begin": 1}}
    assert json.loads(render_gitlab(Gate(verdict="pass"), "gates.yaml")) == []
