"""What stages say of calibration data that do not fit, or leave layers untouched."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.errors import ModelError, StageError
from edgekit.nn.calibration import calibrate, unexercised
from edgekit.nn.load import load_classifier, read_edits
from edgekit.stages.base import Context
from edgekit.stages.export import Export, export
from edgekit.stages.factorize import Factorize, factorize
from edgekit.stages.prune import Prune, prune
from edgekit.stages.trim import Trim, trim
from tests.conftest import CLOSED, FAMILIES, write_closed, write_tiny
from tests.tiny_architectures import ARCHITECTURES, write_architecture

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TASK = Task(labels=LABELS, max_length=16)
TABLE = Table(("my card is lost", "where is my money?", "please top up", "cash") * 6, name="unlabeled")
DATA = Context(data={"unlabeled": TABLE})


@pytest.mark.parametrize("name", [*FAMILIES, *ARCHITECTURES])
def test_every_layer_of_every_architecture_is_exercised_by_texts(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    source = write_architecture(folder, name) if name in ARCHITECTURES else write_tiny(folder, name)
    examples = calibrate(source, TABLE, TASK, model_labels=LABELS, count=8, batch_size=4, seed=0)
    assert unexercised(load_classifier(source), examples) == []
    thin = tmp_path / "thin"
    thin.mkdir()
    config = Factorize(modules=("attention", "ffn"), versus="none", budget=0.5, round_to=2)
    factorize(Artifact.outside(source, TASK), config, thin, DATA)
    assert unexercised(load_classifier(thin), examples) == []


def test_numbers_are_labels_of_a_head_without_names(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bert", "bert")
    table = Table(TABLE.texts[:3], None, ("2", "0", "1"))
    given = {"model_labels": LABELS, "count": 3, "batch_size": 2, "seed": 0}
    assert calibrate(folder, table, TASK, **given).labelled  # type: ignore[arg-type]
    other = Table(TABLE.texts[:3], None, ("2", "0", "7"))
    assert not calibrate(folder, other, TASK, **given).labelled  # type: ignore[arg-type]


def test_layers_that_data_never_exercise_are_told_and_left_alone(tmp_path: Path) -> None:
    source = Artifact.outside(write_closed(tmp_path / "dead"), TASK)
    outs = {name: tmp_path / name for name in ("prune", "trim", "factorize")}
    for out in outs.values():
        out.mkdir()
    told = f"the calibration data never exercise {CLOSED}"
    assert told in prune(source, Prune(ffn=0.5, round_to=8), outs["prune"], DATA).facts.warnings[-1]
    assert told in trim(source, Trim(budget="size", round_to=8), outs["trim"], DATA).facts.warnings[-1]
    config = Factorize(modules=("ffn",), versus="none", budget=0.5, round_to=2)
    facts = factorize(source, config, outs["factorize"], DATA).facts
    assert [skipped.name for skipped in facts.skipped] == [CLOSED]
    assert CLOSED not in read_edits(outs["factorize"]).low_rank


def test_texts_longer_than_the_model_takes_are_refused_by_every_stage(tmp_path: Path) -> None:
    source = Artifact.outside(write_tiny(tmp_path / "bert", "bert"), Task(labels=LABELS, max_length=500))
    (tmp_path / "out").mkdir()
    for run, config in (
        (export, Export()),
        (prune, Prune(ffn=0.5, round_to=8)),
        (trim, Trim(budget="size", round_to=8)),
        (factorize, Factorize(modules=("ffn",), round_to=2)),
    ):
        with pytest.raises(ModelError, match="texts of 500 tokens, but the model has 40 positions"):
            run(source, config, tmp_path / "out", DATA)  # type: ignore[operator]
    fitting = Artifact.outside(source.path, TASK)
    with pytest.raises(StageError, match="length is 17, and the model's texts have at most 16 tokens"):
        trim(fitting, Trim(length=17, round_to=8), tmp_path / "out", DATA)
