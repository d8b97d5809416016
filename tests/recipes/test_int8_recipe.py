"""`encoder-int8`: three files of two runtimes from one model, all measured, and the one that the report names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.api import run
from edgekit.library import find_recipe
from edgekit.report.sentences import verdict
from tests.conftest import write_tiny
from tests.recipes.support import CUES, quick_recipe, write_data

pytest.importorskip("nncf", reason="needs pip install 'edgekit[openvino]'")


def test_the_fastest_is_chosen_by_measuring(tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "model", "bert")
    config = json.loads((model / "config.json").read_text())
    config["id2label"] = dict(enumerate(CUES))
    config["label2id"] = {label: number for number, label in enumerate(CUES)}
    (model / "config.json").write_text(json.dumps(config))
    data = write_data(tmp_path)
    params = {"model": str(model), "test": data["test"], "calibration": data["train"], "max_length": "32"}
    recipe = str(quick_recipe(find_recipe("encoder-int8"), tmp_path / "recipe.yaml"))
    report = run(
        recipe,
        {**params, "label_column": "category"},
        tmp_path / "out",
        store=tmp_path / "store",
        device="cpu",
        threads=1,
    )
    assert {d.id: (d.format, d.runtime.name if d.runtime else "") for d in report.deployables} == {
        "onnx-int8": ("onnx", "onnxruntime"),
        "onnx-int8-static": ("onnx", "onnxruntime"),
        "openvino-int8": ("openvino", "openvino"),
    }
    assert all(d.speedup is not None for d in report.deployables)
    assert any(d.id in verdict(report) for d in report.deployables)
