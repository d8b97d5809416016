"""A student of a given shape, of each of the families that texts have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification

from edgekit.artifact import Artifact, Task
from edgekit.errors import StageError
from edgekit.nn.load import load_classifier
from edgekit.shapes import next_shape, parameters, shape_of
from edgekit.stages.base import Context
from edgekit.stages.student import Student, student

TASK = Task(labels=("a", "b", "c"), max_length=16)


def narrower(source: Path, out: Path, **more: Any) -> Any:
    out.mkdir()
    return student(Artifact.outside(source, TASK), Student(hidden=24, heads=3, **more), out, Context(task=TASK))


def test_a_narrower_student_takes_every_tensor(any_family: Path, tmp_path: Path) -> None:
    facts = narrower(any_family, tmp_path / "out", ffn=48).facts
    made = load_classifier(tmp_path / "out")
    assert facts.numbers["tensors_carried_over"] == len(made.state_dict())


def test_tokens_as_wide_as_the_hidden_state_stay_so(tiny: Any, tmp_path: Path) -> None:
    """ELECTRA has a projection between the two where they differ, and none where not."""
    source = tiny("electra")
    config = AutoConfig.from_pretrained(source)
    config.embedding_size = config.hidden_size
    AutoModelForSequenceClassification.from_config(config).save_pretrained(source)
    facts = narrower(source, tmp_path / "out").facts
    made = load_classifier(tmp_path / "out")
    assert made.config.embedding_size == 24
    assert facts.numbers["tensors_carried_over"] == len(made.state_dict())
    planned, problems = next_shape(
        shape_of(Artifact.outside(source, TASK), TASK), "student", Student(hidden=24, heads=3), TASK, source, {}
    )
    assert not problems
    assert parameters(planned, TASK) == pytest.approx(facts.numbers["parameters_after"], rel=0.05)


def test_a_width_at_which_the_source_would_lose_a_part_is_refused(tiny: Any, tmp_path: Path) -> None:
    source = Artifact.outside(tiny("electra"), TASK)  # its tokens are 16 wide
    with pytest.raises(StageError, match="of this hidden size has no electra"):
        student(source, Student(hidden=16, heads=2), tmp_path, Context(task=TASK))
    fresh = student(source, Student(hidden=16, heads=2, init="random"), tmp_path, Context(task=TASK))
    assert fresh.facts.touched == ()  # it starts from nothing that it could lack
