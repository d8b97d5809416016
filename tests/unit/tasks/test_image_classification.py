"""Pictures as a task has them: batches, answers, and what is told of a picture that breaks off."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.artifact import Task
from edgekit.data.load import load_table
from edgekit.data.pictures import of_pictures
from edgekit.errors import DataError
from edgekit.runtimes.base import inputs_of
from edgekit.source import open_model
from edgekit.stages.base import Context
from edgekit.stages.distill import Distill, distill
from edgekit.stages.factorize import Factorize, factorize
from edgekit.stages.prune import Prune, prune
from edgekit.stages.student import Student, student
from edgekit.tasks.encoders import columns_of, examples_of, is_ready
from edgekit.tasks.encoders import of_pictures as reads_pictures
from tests.tiny_pictures import write_pictures, write_vit

TASK = Task(kind="image-classification", labels=("kind0", "kind1", "kind2"), max_length=10)


def test_pictures_are_batches_of_pixels_as_long_as_each_other(tmp_path: Path) -> None:
    table = load_table(str(write_pictures(tmp_path / "data", count=2)), columns_of(TASK.kind))
    examples = examples_of(write_vit(tmp_path / "vit"), table, TASK)
    batch = examples.encoded.batch([5, 0])
    assert batch.keys() == {"pixel_values"}
    assert batch["pixel_values"].shape == (2, 3, 12, 12) and batch["pixel_values"].dtype == torch.float32
    assert examples.lengths == examples.encoded.lengths == [10] * 6
    assert examples.encoded.mask([0, 1]).shape == (2, 10)
    assert torch.equal(examples.encoded.pick([5, 0]).batch([0, 1])["pixel_values"], batch["pixel_values"])
    assert examples.classes.tolist() == [0, 0, 1, 1, 2, 2]
    judged = examples.judge(np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 0]])
    assert judged.metrics["accuracy"] == pytest.approx(5 / 6)


def test_a_picture_that_breaks_off_is_told(tmp_path: Path) -> None:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)).save(file, "JPEG")
    table = of_pictures([file.getvalue(), file.getvalue()[:600]], "some")
    rows = examples_of(write_vit(tmp_path), table, TASK).encoded
    rows.batch([0])
    with pytest.raises(DataError, match="some: row 2: not a picture that Pillow can read"):
        rows.batch([0, 1])


def test_what_crosses_to_a_worker_is_the_file_and_the_settings(tmp_path: Path) -> None:
    model = open_model(str(write_vit(tmp_path / "vit")))
    assert model.task is not None
    assert (model.task.kind, model.task.max_length, is_ready(model.task)) == (TASK.kind, 10, True)
    table = load_table(str(write_pictures(tmp_path / "data", count=1)), columns_of(TASK.kind))
    wire = inputs_of(model, table).wire()
    assert wire["pixels"]["resize"] == [12, 12]  # type: ignore[index, call-overload]
    assert len(wire["texts"]) == 3 and "rows" not in wire  # type: ignore[arg-type]
    assert reads_pictures(TASK.kind) and not reads_pictures("text-classification")


def test_stages_say_what_is_of_texts_alone(tmp_path: Path) -> None:
    model = open_model(str(write_vit(tmp_path / "vit")))
    table = load_table(str(write_pictures(tmp_path / "data", count=2)), columns_of(TASK.kind))
    context = Context({"train": table, "validation": table}, teachers=(model,), task=model.task)
    with pytest.raises(Exception, match="it has no vocabulary"):
        prune(model, Prune(vocabulary=True), tmp_path / "a", context)
    with pytest.raises(Exception, match="no table of tokens"):
        factorize(model, Factorize(), tmp_path / "b", context)
    with pytest.raises(Exception, match="altered_copies are of texts"):
        distill(model, Distill(altered_copies=1), tmp_path / "c", context)


def test_a_narrower_student_sees_what_its_source_sees(tmp_path: Path) -> None:
    """Patches, positions and learned tokens are projected by one basis."""
    model = open_model(str(write_vit(tmp_path / "vit", heads=4)))
    made = student(model, Student(hidden=16, heads=2, layers=2), tmp_path / "small", Context())
    names = " ".join(made.facts.touched)
    for part in ("patch_embeddings.projection.weight", "cls_token", "position_embeddings"):
        assert part in names
