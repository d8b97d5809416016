"""The gate beside the code: GitHub's workflow commands, GitLab's code quality report."""

from __future__ import annotations

import json
from collections.abc import Iterator

from edgekit.digest import digest_json
from edgekit.report.schema import Gate

__all__ = ["render_github", "render_gitlab"]


def render_github(gate: Gate) -> str:
    """One line a finding: `::error` for what does not pass, `::warning` for what is undecided and may be, and for what
    to know. Source: docs.github.com, "Workflow commands for GitHub Actions"."""
    lines = [f"::{level} title={_property(name)}::{_data(text)}" for level, name, text in _findings(gate)]
    return "".join(f"{line}\n" for line in lines)


def render_gitlab(gate: Gate, path: str) -> str:
    """JSON for `artifacts: reports: codequality`. `path`: the file that findings are shown at, relative to the
    repository (the rules, or the report). Source: docs.gitlab.com, "Code Quality report format"."""
    found = [
        {
            "description": f"{name}: {text}",
            "check_name": "edgekit-gate",
            "fingerprint": digest_json({"path": path, "name": name, "at": at}),
            "severity": "major" if level == "error" else "minor",
            "location": {"path": path, "lines": {"begin": 1}},
        }
        for at, (level, name, text) in enumerate(_findings(gate))
    ]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _findings(gate: Gate) -> Iterator[tuple[str, str, str]]:
    """Level, name, text."""
    for rule in gate.rules:
        if rule.verdict != "pass":
            yield "warning" if rule.passed else "error", f"{rule.rule}: {rule.verdict}", rule.sentence or rule.rule
    for reason in gate.reasons:
        yield "error", "edgekit gate", reason
    for warning in gate.warnings:
        yield "warning", "edgekit gate", warning


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
