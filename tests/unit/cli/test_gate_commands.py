"""`edgekit gate`, `baseline` and `compare`, as a CI job calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Tree

import pytest
import report_sample

from edgekit.report.schema import Report, RoundRatio, dump

LATENCY = "latency.p50 <= 1.02x baseline"


def edgekit(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit.cli.main", *map(str, arguments)]
    inherited = {name: value for name, value in os.environ.items() if name != "GITHUB_STEP_SUMMARY"}
    return subprocess.run(command, capture_output=True, text=True, env=inherited | environment)


def report(ratio: float, count: int = 16, **changes: Any) -> Report:
    """The sample's int8 file alone, at `ratio` times the baseline's latency in each of `count` rounds."""
    whole = report_sample.sample()
    rounds = tuple(RoundRatio(p50=ratio, p90=ratio, p99=ratio, cpu=ratio, pairs=99) for _ in range(count))
    first = whole.deployables[0].model_copy(update={"rounds": rounds, **changes})
    return whole.model_copy(update={"deployables": (first,), "gate": None})


def write(path: Path, value: Report) -> Path:
    path.write_text(dump(value), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("ratio", "count", "rule", "code", "word"),
    [
        (1.0, 16, LATENCY, 0, "pass"),
        (1.1, 16, LATENCY, 1, "fail"),
        (1.0, 4, LATENCY, 1, "inconclusive"),
        (1.0, 4, f"{LATENCY} or inconclusive", 0, "pass"),
    ],
)
def test_three_verdicts_two_exit_codes(
    tmp_path: Path, ratio: float, count: int, rule: str, code: int, word: str
) -> None:
    path = write(tmp_path / "report.json", report(ratio, count))
    junit = tmp_path / "out" / "gate.xml"
    done = edgekit("gate", path, "--rule", rule, "--junit", junit, "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (code, word), done.stderr
    root = Tree.fromstring(junit.read_bytes())
    assert root.get("failures") == str(code)
    shown = edgekit("gate", path, "--rule", rule)
    assert shown.stdout.splitlines()[-1].startswith(f"{word.upper()}: ")


def test_a_rule_about_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    done = edgekit("gate", write(tmp_path / "report.json", report(1.0)), "--rule", "size <= 1GB on onnx-int")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no file 'onnx-int' (did you mean 'int8'?)" in done.stderr


def test_rules_of_a_file_and_of_the_command_line_are_added_up(tmp_path: Path) -> None:
    path, rules = write(tmp_path / "report.json", report(1.0)), tmp_path / "gates.yaml"
    rules.write_text("- size <= 15MB\n- accuracy >= 90%\n", encoding="utf-8")
    done = edgekit("gate", path, "--rules", rules, "--rule", "size <= 1kB", "--json")
    assert [entry["passed"] for entry in json.loads(done.stdout)["rules"]] == [True, True, False]
    rules.write_text("- sise <= 15MB\n- accuracy >= \n- 7\n", encoding="utf-8")
    done = edgekit("gate", path, "--rules", rules)
    assert done.returncode == 2
    assert all(f"gates.yaml[{at}]" in done.stderr for at in range(3))


def test_the_summary_goes_to_the_jobs_page(tmp_path: Path) -> None:
    path, page = write(tmp_path / "report.json", report(1.0)), tmp_path / "page.md"
    page.write_text("before\n", encoding="utf-8")
    call = ("gate", path, "--rule", LATENCY, "--annotations", "github", "--summary")
    done = edgekit(*call, "-", GITHUB_STEP_SUMMARY=str(page))
    again = edgekit(*call, page, GITHUB_STEP_SUMMARY=str(page))
    assert (done.returncode, again.returncode) == (0, 0)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n## ✅ edgekit gate: PASS")
    assert text.count("edgekit gate: PASS") == 2
    edgekit(*call, page)
    assert page.read_text(encoding="utf-8").startswith("## ✅")
    assert "## ✅ edgekit gate: PASS" in edgekit(*call, "-").stdout
    assert json.loads(edgekit(*call, "-", "--json").stdout)["verdict"] == "pass"


def test_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "report.json", report(1.1))
    monkeypatch.chdir(tmp_path)
    done = edgekit("gate", path, "--rule", LATENCY, "--annotations", "github")
    assert "::error title=latency.p50 <= 1.02x baseline%3A fail::int8: latency.p50 is 1.100x" in done.stdout
    done = edgekit("gate", path, "--rule", LATENCY, "--annotations", "gitlab")
    (issue,) = json.loads((tmp_path / "gl-code-quality-report.json").read_text(encoding="utf-8"))
    assert (done.returncode, issue["severity"]) == (1, "major")


def test_a_baseline_is_kept_shown_held_against_and_updated(tmp_path: Path) -> None:
    first = write(tmp_path / "first.json", report(1.0))
    smaller = write(tmp_path / "second.json", report(1.0, size_bytes=3_000_000))
    kept = tmp_path / "baseline.json"
    assert edgekit("baseline", "save", first, "--out", kept).returncode == 0
    refused = edgekit("baseline", "save", first, "--out", kept)
    assert (refused.returncode, "is there already" in refused.stderr) == (2, True)
    assert "3.72MB" in edgekit("baseline", "show", kept).stdout
    rule = ("--rule", "size <= 1x baseline")
    assert edgekit("gate", first, "--baseline", kept, *rule).returncode == 0
    done = edgekit("baseline", "update", kept, smaller, "--reason", "half the vocabulary")
    assert (done.returncode, "int8: size 3.72MB -> 3MB" in done.stdout) == (0, True)
    assert edgekit("gate", first, "--baseline", kept, *rule).returncode == 1
    assert edgekit("gate", smaller, "--baseline", kept, *rule).returncode == 0
    assert edgekit("gate", first, "--baseline", smaller, *rule).returncode == 1  # a report is taken too
    shown = json.loads(edgekit("baseline", "show", kept, "--json").stdout)
    assert [entry["reason"] for entry in shown["history"]] == ["half the vocabulary"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ('{"kind": "baseline", "schema": 9}', "schema 9"), ("[", "not JSON")],
)
def test_a_baseline_that_is_none_is_told(tmp_path: Path, text: str, words: str) -> None:
    path, kept = write(tmp_path / "report.json", report(1.0)), tmp_path / "baseline.json"
    kept.write_text(text, encoding="utf-8")
    done = edgekit("gate", path, "--baseline", kept, "--rule", "size <= 1x baseline")
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_samples_that_are_not_numbers_do_not_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "report.json", report(float("nan")))
    done = edgekit("gate", path, "--rule", LATENCY)
    assert done.returncode == 2
    assert "rounds.0.p50" in done.stderr


def test_compare(tmp_path: Path) -> None:
    first = write(tmp_path / "first.json", report(1.0))
    second = write(tmp_path / "second.json", report(1.0, size_bytes=3_000_000))
    done = edgekit("compare", first, second)
    assert (done.returncode, "size 3.72MB -> 3MB (-19.4%)" in done.stdout) == (0, True)
    found = json.loads(edgekit("compare", first, second, "--json").stdout)
    assert [file["id"] for file in found["files"]] == ["teacher-onnx", "int8"]
