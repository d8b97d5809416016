"""The page: well-formed, self-contained, everything on it, nothing let through."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any, TypeVar

import pytest
import report_sample
from pydantic import BaseModel

from edgekit.report import render_html
from edgekit.report.schema import Gate, Instructions, Report, RuleEntry
from edgekit.sequential import Verdict

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;{{ 7*7 }}\x00\u202e"
Model = TypeVar("Model", bound=BaseModel)
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and complains about tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def changed(value: Model, **fields: Any) -> Model:
    return value.model_copy(update=fields)


def hostile() -> Report:
    report = report_sample.sample()
    steps = tuple(
        changed(
            s,
            id=EVIL + s.id,
            stage=EVIL,
            artifact=EVIL,
            facts=changed(s.facts, summary=EVIL, touched=(EVIL,), warnings=(EVIL,), numbers={EVIL: EVIL}),
            parents=tuple(EVIL + p for p in s.parents),
        )
        for s in report.steps
    )
    files_ = tuple(changed(d, id=EVIL + d.id, precision=EVIL, notes=(EVIL,)) for d in report.deployables)
    rule = RuleEntry(rule=EVIL, value=None, limit=None, verdict="fail", passed=False, deployable=EVIL, sentence=EVIL)
    gate = Gate(verdict="fail", rules=(rule,), reasons=(EVIL,), warnings=(EVIL,))
    assert report.conditions is not None
    return changed(
        report,
        recipe=EVIL,
        steps=steps,
        deployables=files_,
        gate=gate,
        notes=(EVIL,),
        machine=changed(report.machine, cpu=EVIL, libraries={EVIL: EVIL}),
        conditions=changed(report.conditions, data=EVIL),
    )


def edge_cases() -> dict[str, Report]:
    report = report_sample.sample()
    int8, onnx, q8 = report.deployables
    bare: dict[str, object] = {
        "speedup": None,
        "accuracy_drop": None,
        "latency_ms": None,
        "throughput": (),
        "peak_rss_bytes": None,
        "metrics": {},
    }
    long = "a-very-long-name-" * 12
    return {
        "whole": report,
        "empty": Report(recipe="r", machine=report.machine, seconds=0.0),
        "nothing measured": changed(
            report, deployables=(changed(int8, **bare),), baseline=None, control=None, conditions=None
        ),
        "one deployable": changed(report, deployables=(int8,)),
        "no gate": changed(report, gate=None),
        "no rules": changed(report, gate=Gate(verdict="fail", reasons=("there are no rules: nothing was judged",))),
        "long names": changed(report, deployables=(changed(int8, id=long), onnx, q8), steps=(), recipe=long),
        "hostile": hostile(),
        "steps without parents": changed(report, steps=tuple(changed(s, parents=()) for s in report.steps)),
        "zero sizes": changed(report, deployables=(changed(int8, size_bytes=0),)),
    }


@pytest.mark.parametrize("name", list(edge_cases()))
def test_the_page_is_well_formed_and_loads_nothing(name: str) -> None:
    text = render_html(edge_cases()[name])
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert {"script", "link", "img", "iframe", "object", "form", "base"}.isdisjoint(page.tags)
    assert not [
        a for a in page.attributes if a[0] in ("href", "src", "srcset", "xlink:href", "action") or a[0].startswith("on")
    ]
    assert not re.search(r"https?:|url\(|@import", text)
    assert page.tags.count("h1") == 1
    for heading in (
        "Gate",
        "Deployables",
        "What each step did",
        "Trade-off",
        "Lineage",
        "Machine and conditions",
        "Notes",
    ):
        assert heading in page.texts
    assert not re.search(r"\b(nan|None|inf)\b", page.text.replace("NO GATE", ""))


def test_sections_come_in_the_order_they_are_read() -> None:
    found = re.findall(r'<(?:section|div)[^>]* id="([a-z]+)"', render_html(report_sample.sample()))
    assert found == ["verdict", "gate", "deployables", "steps", "tradeoff", "lineage", "conditions", "method", "notes"]


def test_every_figure_is_on_the_page() -> None:
    text = Page(render_html(report_sample.sample())).text
    for figure in (
        "✓ PASS",
        "int8 is 6.3× faster [5.9, 6.8] and 24.5× smaller than teacher-onnx (ONNX Runtime fp32), "
        "and loses 0.4 points of accuracy [\u22120.2, 1.1].",
        "accuracy_drop <= 1pt",
        "at most 1.0 points",
        "3.72 MB",
        "0.814 ms",
        "0.910 ms",
        "1.22 ms",
        "4,914/s",
        "64.0 MB",
        "n=2,400",
        "ONNX Runtime 1.24.1",
        "cached, took 2 min 21 s",
        "ran in 1 min 33 s",
        "Skipped 5:",
        "would not shrink at this rank",
        "a word outside the kept vocabulary is split into smaller pieces",
        "1.00× [0.98, 1.02] (baseline against itself",
        "12 interleaved rounds",
        "This processor has no int8 dot product",
        "746561636865",
    ):
        assert figure in text, figure


def test_hostile_names_stay_text() -> None:
    page = Page(render_html(hostile()))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert not any(c in "".join(page.texts) for c in "\x00\u202e")


def test_a_failure_is_told_first_and_not_by_colour_alone() -> None:
    report = report_sample.sample()
    rules = (
        judged("accuracy_drop <= 1pt", 0.01004, 0.01, "fail", "int8"),
        judged("size <= 15MB", 13.3e6, 15e6, "pass", "onnx"),
        judged("speedup >= 5x", None, None, "fail", "q8", "q8: no speedup"),
    )
    text = Page(render_html(changed(report, gate=Gate(verdict="fail", rules=rules)))).text
    assert "✗ FAIL" in text
    assert (
        "2 checks failed: accuracy drop of int8 is 1.004 points, allowed is at most 1.000 points; q8: no speedup."
        in text
    )
    assert text.count("✗ fail") == 2
    assert text.count("✓ pass") == 1
    assert "not measured" in text


def test_what_is_undecided_is_no_failure_and_no_pass() -> None:
    rules = (
        judged("latency.p50 <= 1.02x baseline", 1.012, 1.02, "inconclusive", "int8", "int8: not decided, more rounds"),
        judged("size <= 15MB", 13.3e6, 15e6, "pass", "onnx"),
    )
    text = Page(render_html(changed(report_sample.sample(), gate=Gate(verdict="inconclusive", rules=rules)))).text
    assert "? INCONCLUSIVE" in text
    assert "1 check inconclusive: int8: not decided, more rounds." in text
    assert text.count("? inconclusive") == 1
    assert "the rule lets it pass" not in text
    allowed = changed(rules[0], passed=True)
    text = Page(render_html(changed(report_sample.sample(), gate=Gate(verdict="pass", rules=(allowed,))))).text
    assert "the rule lets it pass" in text


def test_instructions_are_shown_where_they_were_counted() -> None:
    report = report_sample.sample()
    assert "Instructions" not in Page(render_html(report)).texts
    assert report.conditions is not None
    counted = changed(
        report.deployables[0], instructions=Instructions(median=81_230_000, spread=0.001, n=8), latency_ms=None
    )
    emulated = changed(report.conditions, fidelity="emulated", rounds=0)
    text = Page(render_html(changed(report, deployables=(counted,), conditions=emulated))).text
    assert "81,230,000" in text
    assert "under emulation" in text
    assert "interleaved round" not in text.split("Machine and conditions")[1].split("How to read")[0]


def judged(
    rule: str, value: float | None, limit: float | None, verdict: Verdict, name: str, sentence: str = ""
) -> RuleEntry:
    return RuleEntry(
        rule=rule,
        value=value,
        limit=limit,
        verdict=verdict,
        passed=verdict == "pass",
        deployable=name,
        sentence=sentence,
        relative=rule.startswith("latency"),
    )


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """WCAG 2.1 contrast ratio."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_palette_passes_wcag_aa() -> None:
    css = (files("edgekit.report") / "style.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    ]
    assert len(themes) == 3
    for theme in themes:
        for ink in ("ink", "muted", "good", "bad", "note", "onnx", "gguf"):
            for ground in ("card", "page", "faint") if ink in ("ink", "muted") else ("card",):
                assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground, theme)
        for tone in ("good", "bad", "note"):
            assert contrast(theme[tone], theme[f"{tone}-wash"]) >= 4.5
