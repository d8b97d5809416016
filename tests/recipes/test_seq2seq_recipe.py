"""The recipe for encoder-decoder models, run on a tiny BART with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.api import plan, run
from edgekit.chrf import has_chrf
from edgekit.errors import EdgekitError, PlanError
from edgekit.library import find_recipe
from edgekit.report.schema import Report
from tests.recipes.support import quick_recipe
from tests.unit.seq2seq_sample import TEXTS, tiny_seq2seq


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("seq2seq")
    model = tiny_seq2seq(home / "model", "bart").path
    rows = [{"source": text, "target": text.removeprefix("translate: ")} for text in TEXTS[:8]]
    (home / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shared = {"model": str(model), "test": str(home / "test.jsonl"), "label_column": "target"}
    return {**shared, "max_length": "24", "max_kld": "100"}


@pytest.fixture(scope="module")
def report(params: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Report:
    home = tmp_path_factory.mktemp("run")
    recipe = quick_recipe(find_recipe("seq2seq-quantize"), home / "seq2seq-quantize.yaml")
    made = run(str(recipe), params, home / "out", store=home / "store", threads=1)
    assert (home / "out" / "onnx-int8" / "generate.py").is_file()
    return made


def test_the_files_that_ship_are_measured_and_judged(report: Report) -> None:
    assert report.baseline is not None
    assert report.gate is not None
    (int8,) = report.deployables
    assert (int8.id, int8.precision, int8.lineage) == ("onnx-int8", "int8", ("onnx-int8",))
    names = {"kld", "agreement", "perplexity", "exact_match"} | ({"chrf"} if has_chrf() else set())
    assert set(int8.metrics) == names
    assert set(report.baseline.metrics) == names
    assert report.baseline.metrics["kld"] == pytest.approx(0, abs=1e-6)
    assert int8.speed is not None
    assert int8.speed.encoder_ms is not None
    assert int8.speedup is not None
    assert (int8.accuracy_drop is not None) == has_chrf()
    assert [rule.rule.split()[0] for rule in report.gate.rules] == ["kld", "agreement", "size_ratio", "speedup"]
    assert report.gate.rules[0].verdict == "pass"


def test_a_model_of_another_kind_is_refused_by_the_plan(
    params: dict[str, str], tiny: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match="cannot work") as told:
        plan("seq2seq-quantize", {**params, "model": str(tiny("bert", labels=2, head=True))}, store=tmp_path / "store")
    assert any("no encoder-decoder model of type 'bert'" in problem.what for problem in told.value.problems)


def test_what_the_plan_cannot_use_is_told(params: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(PlanError) as told:
        plan("seq2seq-quantize", {**params, "max_length": "65"}, store=tmp_path)
    assert "65 tokens, but the model has 64 positions" in told.value.problems[0].what
    with pytest.raises(EdgekitError) as missing:
        plan("seq2seq-quantize", {**params, "label_column": "answer"}, store=tmp_path)
    assert "no column 'answer'" in missing.value.problems[0].what


def test_a_rule_on_chrf_needs_sacrebleu(
    params: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "own.yaml"
    text = find_recipe("seq2seq-quantize").read_text(encoding="utf-8")
    recipe.write_text(text + "  - chrf_drop <= 1pt on onnx-int8\n", encoding="utf-8")
    monkeypatch.setattr("edgekit.plan.has_chrf", lambda: False)
    with pytest.raises(PlanError) as told:
        plan(str(recipe), params, store=tmp_path / "store")
    assert told.value.problems[0].hint == "pip install 'edgekit[chrf]'"
