"""Smoothing where something takes it and where nothing does; ranges by every method; layers without any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_onnx

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.evaluate import predict
from edgekit.formats.onnx_encoder import operators
from edgekit.stages.base import Context
from edgekit.stages.calibration import UNEXERCISED
from edgekit.stages.export import Export, draft, export
from edgekit.stages.quantize import Quantize, quantize
from tests.conftest import CLOSED, write_closed

TABLE = Table(("on", "off", "dim", "on please"))
CONTEXT = Context(data={"train": TABLE, "validation": TABLE}, threads=1)


@pytest.mark.parametrize("method", ["int8-static", "int8-dynamic"])
def test_what_nothing_takes_is_skipped_and_said(method: str, tmp_path: Path) -> None:
    source = tiny_onnx.make(tmp_path / "source", extra=2)
    (tmp_path / "out").mkdir()
    config = Quantize(method=method, smooth=0.5, samples=2)
    facts = quantize(source, config, tmp_path / "out", CONTEXT).facts
    assert facts.touched
    assert [one.reason for one in facts.skipped if one.name == "smoothing"] == [
        "no norm or attention makes what products alone read, so that none can take the scales"
    ]


def test_what_an_attention_takes_is_not(tiny: Callable[..., Path], tmp_path: Path) -> None:
    task = Task(labels=("a", "b", "c"), max_length=16)
    for name in ("float", "smooth", "plain"):
        (tmp_path / name).mkdir()
    export(Artifact.outside(tiny("bert"), task), Export(), tmp_path / "float", CONTEXT)
    source = draft(tmp_path / "float", "onnx", task)
    for name, alpha in (("smooth", 0.5), ("plain", 0.0)):
        config = Quantize(method="int8-static", smooth=alpha, samples=2)
        facts = quantize(source, config, tmp_path / name, CONTEXT).facts
        assert "smoothing" not in [one.name for one in facts.skipped]
    smooth, plain = (tmp_path / name / "model.onnx" for name in ("smooth", "plain"))
    assert smooth.read_bytes() != plain.read_bytes()
    assert operators(smooth) == operators(plain)


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_ranges_are_found_on_texts_of_any_length(calibration: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    task = Task(labels=("a", "b", "c"), max_length=16)
    for name in ("float", "int8"):
        (tmp_path / name).mkdir()
    export(Artifact.outside(tiny("bert"), task), Export(), tmp_path / "float", CONTEXT)
    source = draft(tmp_path / "float", "onnx", task)
    quantize(source, Quantize(method="int8-static", calibration=calibration), tmp_path / "int8", CONTEXT)
    exact, found = (predict(draft(tmp_path / name, "onnx", task), TABLE).logits for name in ("float", "int8"))
    assert 0 < abs(found - exact).max() < 0.2 * abs(exact).max()


def test_products_that_calibration_never_exercises_stay_in_float(tmp_path: Path) -> None:
    task = Task(labels=("LABEL_0", "LABEL_1", "LABEL_2"), max_length=16)
    for name in ("float", "int8"):
        (tmp_path / name).mkdir()
    export(Artifact.outside(write_closed(tmp_path / "closed"), task), Export(), tmp_path / "float", CONTEXT)
    source = draft(tmp_path / "float", "onnx", task)
    facts = quantize(source, Quantize(method="int8-static"), tmp_path / "int8", CONTEXT).facts
    assert [one.name for one in facts.skipped if one.reason == UNEXERCISED] == [CLOSED]
    assert "bert.encoder.layer.0.output.dense" in facts.touched
