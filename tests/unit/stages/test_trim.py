from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import StageError, UsageError
from edgekit.formats.cost_probes import Probes
from edgekit.formats.cost_table import CostTable, Curve
from edgekit.nn.load import load_classifier, read_edits
from edgekit.nn.structure import Structure, widths_of
from edgekit.nn.surgery import ffn_width, head_count
from edgekit.plan import step_key
from edgekit.shapes import next_shape, shape_of
from edgekit.stages.base import Context, Outcome
from edgekit.stages.trim import COSTS, Trim, trim
from edgekit.transports import LOCAL

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TEXTS = ("my card is lost", "where is my money?", "please top up", "cash rate not arrived", "transfer waiting when")
UNLABELED = Table(tuple(f"{a} {b}" for a in TEXTS for b in TEXTS), name="unlabeled")
Tiny = Callable[..., Path]


def trimmed(folder: Path, out: Path, **options: object) -> Outcome:
    out.mkdir()
    source = Artifact.outside(folder, Task(labels=LABELS, max_length=16))
    return trim(source, Trim.model_validate({"round_to": 8, **options}), out, Context(data={"unlabeled": UNLABELED}))


def table(folder: Path, file: Path, **changes: object) -> Path:
    """Heads cost four times what eight neurons cost, and nothing else costs anything."""
    widths = widths_of(load_classifier(folder))
    heads, ffn = Curve(sizes=(1, 4), ms=(0.0, 3.0)), Curve(sizes=(8, 64), ms=(0.0, 1.75))
    known: dict[str, object] = {"machine": LOCAL.identity(("onnxruntime",)), "runtime": "onnxruntime", "threads": 1}
    known |= {"batch": 1, "tokens": 8.0, "precision": "f32", "widths": widths, "whole_ms": 12.0, "smallest_ms": 2.5}
    known |= {"heads": heads, "ffn": ffn, "last_heads": heads, "last_ffn": ffn, "error": 0.01, "measured": 17}
    file.write_text(CostTable.model_validate({**known, **changes}).model_dump_json(), encoding="utf-8")
    return file


def test_within_a_size_and_loaded_again(any_family: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = trimmed(any_family, out, budget="size", share=0.5)
    facts, model = outcome.facts, load_classifier(out)
    kept = sum(4 * 32 * 8 * head_count(model, i) + 2 * 32 * ffn_width(model, i) for i in range(2))
    assert 0.35 < kept / (2 * (4 * 32 * 32 + 2 * 32 * 64)) <= 0.5
    assert not read_edits(out).empty and outcome.format == "hf" and facts.changed
    assert facts.numbers["parameters_after"] == sum(p.numel() for p in model.parameters())
    assert all(ffn_width(model, i) % 8 == 0 for i in range(2))


def test_within_a_latency_by_a_table(tiny: Tiny, tmp_path: Path) -> None:
    folder, out = tiny("bert"), tmp_path / "out"
    costs = table(folder, tmp_path / "costs.json")
    facts = trimmed(folder, out, share=0.6, costs=str(costs), inference_threads=1).facts
    assert float(facts.numbers["predicted_ms"]) <= 0.6 * 12.0 + 1e-6
    assert json.loads((out / COSTS).read_text()) == json.loads(costs.read_text())
    assert "predicted 12.00 -> " in facts.summary


def test_a_table_of_another_machine_is_refused_unless_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    machine = {**LOCAL.identity(("onnxruntime",)), "cpu": "cortex-a76"}
    costs = str(table(folder, tmp_path / "costs.json", machine=machine))
    with pytest.raises(UsageError, match="another machine"):
        trimmed(folder, tmp_path / "no", share=0.6, costs=costs, inference_threads=1)
    facts = trimmed(folder, tmp_path / "yes", share=0.6, costs=costs, inference_threads=1, foreign_costs=True).facts
    assert facts.changed


def test_a_table_that_changed_is_another_step(tiny: Tiny, tmp_path: Path) -> None:
    file = table(tiny("bert"), tmp_path / "costs.json")
    config = Trim(costs=str(file))
    first = step_key("trim", config, {}, None)
    assert step_key("trim", config, {}, None) == first
    table(tiny("bert"), file, whole_ms=13.0)
    assert step_key("trim", config, {}, None) != first
    file.unlink()
    with pytest.raises(UsageError, match=r"costs\.json: cannot be read \(No such file"):
        step_key("trim", config, {}, None)


def test_a_budget_that_cannot_be_met_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="the smallest sizes still take"):
        trimmed(tiny("bert"), tmp_path / "out", budget="size", share=0.1)


def test_a_latency_below_that_of_the_smallest_blocks_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    costs = str(table(tiny("bert"), tmp_path / "costs.json", smallest_ms=8.35))
    with pytest.raises(StageError, match=r"60% of 12 ms cannot be met: .* already take 8\.35 ms") as caught:
        trimmed(tiny("bert"), tmp_path / "out", share=0.6, costs=costs, inference_threads=1)
    assert caught.value.hint == "--share 0.70 or more"


def test_a_length_that_no_text_has_is_refused_at_plan_time(tiny: Tiny, tmp_path: Path) -> None:
    folder, task = tiny("bert"), Task(labels=LABELS, max_length=16)
    shape = shape_of(Artifact.outside(folder, task), task)
    (problem,) = next_shape(shape, "trim", Trim(length=32), task, folder, {})[1]
    assert problem.what == "is 32, and the model's texts have at most 16 tokens"
    assert next_shape(shape, "trim", Trim(length=32, budget="size"), task, folder, {})[1] == []
    with pytest.raises(StageError, match="length is 32"):
        trimmed(folder, tmp_path / "out", length=32)


def test_a_model_without_a_head_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no head yet"):
        trimmed(tiny("bert", head=False), tmp_path / "out")


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_structures_are_timed_in_the_runtime(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    folder = tiny("bert")
    task = Task(labels=LABELS, max_length=16)
    probes = Probes.of(load_classifier(folder), folder, task, UNLABELED, threads=1, precision=precision, seconds=0.05)
    found = probes.time([Structure(heads=(1, 2), ffn=(8, 64))])
    assert found.shares["whole"] == 1 and found.shares["0"] > 0
    assert found.reference_ms > 0 and found.runtime.startswith("onnxruntime ")
    assert probes.feed.batch == 1 and len(probes.feed.inputs.texts) == 25
