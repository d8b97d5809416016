"""Which layers go back to float: found by halving, on real files in their own runtime."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.stages.accuracy_control import fewest, keep_within
from edgekit.stages.base import Context

TABLE = Table(("on", "off", "dim", "on please"), labels=("on", "off", "dim", "on"))
LAYERS = ("first", "second", "third")


@pytest.mark.parametrize(
    ("drops", "limit", "wanted"),
    [
        ((0.4, 0.3, 0.2, 0.1, 0.0), 0.2, (3, 0.2)),
        ((0.1, 0.1, 0.1, 0.1, 0.1), 0.1, (1, 0.1)),
        ((0.4, 0.3, 0.3, 0.3, 0.01), 0.01, (5, 0.01)),
        ((0.4, 0.3, 0.3, 0.3, 0.2), 0.1, (5, 0.2)),
    ],
)
def test_the_fewest_that_keep_the_limit(drops: tuple[float, ...], limit: float, wanted: tuple[int, float]) -> None:
    asked: list[int] = []

    def drop(count: int) -> float:
        asked.append(count)
        return drops[count - 1]

    assert fewest(len(drops), limit, drop) == wanted
    assert len(asked) <= 4


def files(folder: Path) -> tuple[Artifact, Artifact]:
    return tiny_onnx.make(folder / "source"), tiny_onnx.make(folder / "target", wrong=True)


@pytest.mark.parametrize("table", [TABLE, Table(TABLE.texts)], ids=["labels", "the source's answers"])
def test_the_layer_that_hurts_stays_in_float(tmp_path: Path, table: Table) -> None:
    source, target = files(tmp_path)
    calls: list[Collection[str]] = []

    def write(keep: Collection[str]) -> None:
        calls.append(keep)
        rows, head = np.zeros((6, 3), np.float32), np.eye(3, dtype=np.float32)
        rows[[2, 3, 4], [0, 1, 2]] = 1
        tiny_onnx.write_model(target.model_file, rows, head if "second" in keep else head[[1, 0, 2]])

    found = keep_within(0.1, LAYERS, write, source, target, Context(data={"validation": table}, threads=1))
    assert (found.keep, found.drop, found.drop_of_all, found.rows) == (("second",), 0.0, 0.75, 4)
    assert max(found.sensitivity, key=lambda name: found.sensitivity[name]) == "second"
    assert set(calls[-1]) == {"second"}


def test_a_limit_that_nothing_keeps(tmp_path: Path) -> None:
    source, target = files(tmp_path)
    context = Context(data={"validation": TABLE}, threads=1)
    with pytest.raises(StageError, match="all layers but"):
        keep_within(0.1, LAYERS, lambda keep: None, source, target, context)


def test_without_validation_data_there_is_no_limit(tmp_path: Path) -> None:
    source, target = files(tmp_path)
    with pytest.raises(StageError, match="validation"):
        keep_within(0.1, LAYERS, lambda keep: None, source, target, Context(threads=1))
