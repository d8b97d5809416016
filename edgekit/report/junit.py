"""The gate as JUnit XML, which every CI system shows: one test case a rule."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Tree

from edgekit.report.schema import Gate, Report, RuleEntry

__all__ = ["render_junit"]

NAME = "edgekit.gate"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0, even escaped


def render_junit(report: Report) -> str:
    """The document as text. A rule that fails, or is undecided and may not be, is a failure; one that is undecided and
    may be is skipped; what failed the gate besides its rules is a case of its own."""
    gate = report.gate or Gate(verdict="fail", reasons=("nothing was judged",))
    cases = [_case(rule) for rule in gate.rules]
    cases += [_failed("the gate itself", reason, "fail", reason) for reason in gate.reasons]
    failures = sum(case.find("failure") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0", "time": "0"}
    root = Tree.Element("testsuites", {"name": "edgekit", **counts})
    suite = Tree.SubElement(root, "testsuite", {"name": NAME, **counts, "skipped": str(skipped)})
    suite.extend(cases)
    if gate.warnings:
        Tree.SubElement(suite, "system-out").text = _clean("\n".join(gate.warnings))
    Tree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Tree.tostring(root, encoding="unicode")}\n'


def _case(rule: RuleEntry) -> Tree.Element:
    told = rule.sentence or rule.rule
    if not rule.passed:
        return _failed(rule.rule, told, rule.verdict, f"{rule.rule}\n{told}")
    case = _empty(rule.rule)
    if rule.verdict == "inconclusive":
        Tree.SubElement(case, "skipped", {"message": _clean(told)})
    else:
        Tree.SubElement(case, "system-out").text = _clean(told)
    return case


def _failed(name: str, message: str, kind: str, text: str) -> Tree.Element:
    case = _empty(name)
    Tree.SubElement(case, "failure", {"message": _clean(message), "type": kind}).text = _clean(text)
    return case


def _empty(name: str) -> Tree.Element:
    return Tree.Element("testcase", {"classname": NAME, "name": _clean(name), "time": "0"})


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
