"""The Markdown page, and the sentences both renderings share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import pytest
import report_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import BaseModel

from edgekit.report import render_markdown
from edgekit.report.markdown import render_summary
from edgekit.report.rulings import readings
from edgekit.report.schema import Deployable, Gate, Report, RuleEntry, Speedup, load_report
from edgekit.report.sentences import comparison, headline, verdict
from edgekit.sequential import Verdict
from edgekit.statistics import Drop

Model = TypeVar("Model", bound=BaseModel)
GOLDEN = Path(__file__).parents[2] / "golden"
OURS = {"<br>", "<details>\n<summary>", "</details>"}


def changed(value: Model, **fields: Any) -> Model:
    return value.model_copy(update=fields)


def with_best(**fields: Any) -> Report:
    """The sample with the int8 file alone, changed."""
    report = report_sample.sample()
    return changed(report, deployables=(changed(report.deployables[0], **fields),))


def test_golden() -> None:
    """After a change that is meant: python tests/unit/report/report_sample.py"""
    assert render_markdown(report_sample.sample()) == (GOLDEN / "report.md").read_text(encoding="utf-8")


def test_the_golden_report_still_loads() -> None:
    assert load_report(GOLDEN / "report.json") == report_sample.sample()


def test_tables_have_as_many_cells_as_headings() -> None:
    lines = render_markdown(report_sample.sample()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 6 + 6 + 13
    assert {row.replace("\\|", "").count("|") for row in rows} == {6, 12, 5}


@given(st.text(alphabet=st.sampled_from("<>[]()!`*_~|#@&\\:/.-=+1 \nahtpsw\u202e\"'$"), max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_markup_comes_through(evil: str) -> None:
    report = report_sample.sample()
    step = changed(report.steps[1], id=evil, facts=changed(report.steps[1].facts, summary=evil, warnings=(evil,)))
    evil_report = changed(report, recipe=evil, steps=(step,), notes=(evil,), deployables=())
    markdown = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
    tokens = markdown.parse(render_markdown(evil_report))
    inline = [child for token in tokens for child in token.children or ()]
    assert not [t for t in inline if t.type in ("link_open", "image", "em_open", "s_open", "softbreak", "hardbreak")]
    html = [t.content for t in (*tokens, *inline) if t.type in ("html_inline", "html_block")]
    assert all(h.strip() in OURS or h.startswith("<details>\n<summary>") for h in html)
    assert not [t for t in tokens if t.type in ("fence", "code_block", "blockquote_open", "ordered_list_open", "hr")]


def test_an_address_is_no_link_and_a_name_no_mention() -> None:
    text = render_markdown(
        changed(report_sample.sample(), notes=("see https://example.org and @somebody, www.example.org",))
    )
    assert "https://" not in text
    assert "@somebody" not in text
    assert "www." not in text


def speed(value: float, low: float, high: float) -> Speedup:
    return Speedup(value=value, low=low, high=high, against="teacher-onnx")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"speedup": speed(1.02, 0.97, 1.08)}, "is not measurably faster (1.02× [0.97, 1.08]) and 24.5× smaller than"),
        ({"speedup": speed(0.5, 0.4, 0.8)}, "is 2.0× slower [1.25, 2.50] and 24.5× smaller than"),
        ({"speedup": None}, "int8 is 24.5× smaller than teacher-onnx"),
        ({"size_bytes": 182_012_972}, "and 2.0× larger than teacher-onnx"),
        ({"size_bytes": 91_006_486}, "and as large as teacher-onnx"),
        (
            {"accuracy_drop": Drop(value=0.0, low=-0.003, high=0.003)},
            "keeps its accuracy (0.0 points [\u22120.3, 0.3]).",
        ),
        (
            {"accuracy_drop": Drop(value=-0.006, low=-0.012, high=0.001)},
            "gains 0.6 points of accuracy [\u22120.1, 1.2].",
        ),
        ({"accuracy_drop": None}, "reaches 92.5% accuracy against 92.9% (not paired, no interval)."),
        ({"accuracy_drop": None, "metrics": {}}, "its accuracy was not compared."),
    ],
)
def test_the_sentence_fits_the_figures(fields: dict[str, Any], part: str) -> None:
    assert part in comparison(with_best(**fields))


def test_without_a_baseline_nothing_is_compared() -> None:
    report = changed(with_best(speedup=None, accuracy_drop=None), baseline=None)
    assert (
        comparison(report)
        == "int8 is 3.72 MB, 92.5% accurate and 0.814 ms at the median; there is no baseline to compare it with."
    )


def test_the_headline_is_the_fastest_within_the_limit() -> None:
    report = report_sample.sample()
    int8, onnx, q8 = report.deployables
    lossy = changed(int8, accuracy_drop=Drop(value=0.02, low=0.01, high=0.03))

    def best(*deployables: Deployable, limit: float | None = None) -> str | None:
        rule = RuleEntry(rule="accuracy_drop <= 3pt", value=0.0, limit=limit, verdict="pass", passed=True)
        gate = None if limit is None else Gate(verdict="pass", rules=(rule,))
        found = headline(changed(report, deployables=deployables, gate=gate))
        return found.id if found else None

    assert best(q8, onnx, int8) == "int8"
    assert best(q8, onnx, lossy) == "onnx"
    assert best(q8, onnx, lossy, limit=0.03) == "int8"
    assert best(lossy) == "int8"
    assert best() is None


def test_a_file_beyond_any_limit_on_quality_is_no_headline() -> None:
    report = report_sample.sample()
    int8, onnx, _ = report.deployables
    far = changed(int8, metrics={**int8.metrics, "kld": 0.2})
    near = changed(onnx, metrics={**onnx.metrics, "kld": 0.01})
    rule = RuleEntry(rule="kld <= 0.05 on onnx", value=0.01, limit=0.05, verdict="pass", passed=True)
    gate = Gate(verdict="pass", rules=(rule,))
    found = headline(changed(report, deployables=(far, near), gate=gate))
    assert found is not None
    assert found.id == near.id


def test_a_failed_gate_names_what_failed() -> None:
    rule = judged("latency.p50 <= 1.02x baseline", 1.055, 1.02, "fail", relative=True)
    gate = Gate(verdict="fail", rules=(rule,), reasons=("the baseline is at chance level",))
    report = changed(report_sample.sample(), gate=gate)
    assert verdict(report) == (
        "2 checks failed: latency p50 of int8 is 1.055× the baseline's, allowed is at most 1.020×; "
        "the baseline is at chance level."
    )
    assert render_markdown(report).startswith("# ❌ FAIL: 2 checks failed")


def test_a_value_just_over_its_limit_does_not_look_equal() -> None:
    assert readings(judged("size <= 15MB", 15_000_400.0, 15e6, "fail")) == ("15.0004 MB", "at most 15.0000 MB")
    assert readings(judged("size <= 15MB", 15e6, 15e6, "pass")) == ("15.0 MB", "at most 15.0 MB")
    assert readings(judged("whatever this is", 1.5, 2.0, "pass")) == ("1.50", "2.00")
    over = judged("latency.p50 <= 1.02x baseline", 1.0238, 1.02, "fail", relative=True)
    assert readings(over) == ("1.024×", "at most 1.020×")


def test_the_summary_of_a_gate() -> None:
    undecided = changed(
        judged("latency.p50 <= 1.02x baseline", 1.01, 1.02, "inconclusive"), sentence="see @me, 6 rounds"
    )
    gate = Gate(verdict="inconclusive", rules=(undecided,), warnings=("not steady",))
    text = render_summary(changed(report_sample.sample(), gate=gate))
    assert text.startswith("## ❔ edgekit gate: INCONCLUSIVE\n\n1 check inconclusive: see &#64;me, 6 rounds.")
    assert "? inconclusive" in text
    assert "⚠ not steady" in text
    assert "## Deployables" not in text
    assert "NO GATE" in render_summary(changed(report_sample.sample(), gate=None))


def judged(rule: str, value: float, limit: float, verdict: Verdict, *, relative: bool = False) -> RuleEntry:
    return RuleEntry(
        rule=rule,
        value=value,
        limit=limit,
        verdict=verdict,
        passed=verdict == "pass",
        deployable="int8",
        relative=relative,
    )


def test_an_empty_report_says_so() -> None:
    text = render_markdown(Report(recipe="r", machine=report_sample.MACHINE, seconds=0.0))
    assert "NO GATE: This run made no deployable." in text
    assert "No rules were given" in text
