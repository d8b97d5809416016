"""The CI examples, run: the shell commands of their steps, as they stand, in a folder like a user's repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Tree

import pytest
import tiny_onnx
import yaml

EXAMPLES = Path(__file__).parents[3] / "examples" / "ci"
BRIEF = "--seconds 0.05"  # these models take microseconds
Step = tuple[str, bool]  # command, whether it runs after a failure too


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model that ships, a new one, test data, rules, and an agreed baseline."""
    tiny_onnx.make(tmp_path / "models" / "shipped", extra=8)
    tiny_onnx.make(tmp_path / "build" / "int8")
    rows = [f"{word} please,{word}" for word in tiny_onnx.LABELS] * 30
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    for name in ("gates.yaml", "kept.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    return tmp_path


def shell(command: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    bin_folder = Path(sys.executable).parent
    page = {"GITHUB_STEP_SUMMARY": str(folder / "page.md")}
    environment = os.environ | page | variables | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "PIP_NO_INDEX": "1"}
    return subprocess.run(["bash", "-e", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


def github() -> tuple[list[Step], dict[str, str]]:
    job = yaml.safe_load((EXAMPLES / "github.yaml").read_text(encoding="utf-8"))["jobs"]["gate"]
    steps: list[dict[str, Any]] = [step for step in job["steps"] if "run" in step]
    return [(step["run"], "failure()" in step.get("if", "")) for step in steps], job["env"]


def gitlab() -> tuple[list[Step], dict[str, str]]:
    """One shell runs all lines of a script."""
    job = yaml.safe_load((EXAMPLES / "gitlab.yaml").read_text(encoding="utf-8"))["edgekit"]
    return [("\n".join(job["script"]), False)], job["variables"]


def play(example: str, folder: Path) -> int:
    """The job's exit code: steps in order, those after a failure only where they say so. Rounds are short."""
    steps, variables = github() if example == "github" else gitlab()
    code = 0
    for command, always in steps:
        if code == 0 or always:
            brief = command.replace("edgekit bench", f"edgekit bench {BRIEF}")
            done = shell(brief, folder, {name: str(value) for name, value in variables.items()})
            assert done.returncode in (0, 1), f"{command}\n{done.stdout}{done.stderr}"
            code = max(code, done.returncode)
    return code


def failures(folder: Path, name: str) -> int:
    return int(Tree.parse(folder / "report" / name).getroot().get("failures", "-1"))


def agree(folder: Path) -> None:
    """Commit the figures of the new model as the baseline."""
    measure = "edgekit bench build/int8 --baseline models/shipped --data data/test.csv --label-column label --rounds 2"
    save = "edgekit baseline save first/report.json --out baseline.json"
    kept = shell(f"{measure} --seconds 0.05 --out first && {save}", folder, {})
    assert kept.returncode == 0, kept.stderr


@pytest.mark.parametrize("example", ["github", "gitlab"])
def test_the_example_passes_what_is_better_and_refuses_what_is_worse(example: str, repository: Path) -> None:
    agree(repository)
    assert play(example, repository) == 0
    assert (failures(repository, "gate.xml"), failures(repository, "kept.xml")) == (0, 0)
    page = repository / ("page.md" if example == "github" else "report/summary.md")
    assert "edgekit gate: PASS" in page.read_text(encoding="utf-8")
    shutil.rmtree(repository / "build")
    tiny_onnx.make(repository / "build" / "int8", wrong=True)
    assert play(example, repository) == 1
    assert failures(repository, "kept.xml") == 1
    assert failures(repository, "gate.xml") >= 1
    assert "edgekit gate: FAIL" in page.read_text(encoding="utf-8")
    if example == "gitlab":
        named = yaml.safe_load((EXAMPLES / "gitlab.yaml").read_text(encoding="utf-8"))["edgekit"]["artifacts"][
            "reports"
        ]
        assert json.loads((repository / named["codequality"]).read_text(encoding="utf-8"))
        assert len(list(repository.glob(named["junit"]))) == 2


def test_a_slower_model_does_not_pass(repository: Path) -> None:
    shutil.rmtree(repository / "build")
    tiny_onnx.make(repository / "build" / "int8", extra=24)
    agree(repository)
    assert play("github", repository) == 1
    assert failures(repository, "kept.xml") == 0
    cases = Tree.parse(repository / "report" / "gate.xml").getroot().iter("testcase")
    found = {str(case.get("name")): case.find("failure") for case in cases}
    failure = found["latency.p50 <= 1.02x baseline"]
    assert failure is not None
    assert failure.get("type") == "fail", failure.text
