"""Smoothing, where something takes it and where nothing does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_onnx

from edgekit.artifact import Artifact, Task
from edgekit.data.table import Table
from edgekit.formats.onnx_encoder import operators
from edgekit.stages.base import Context
from edgekit.stages.export import Export, draft, export
from edgekit.stages.quantize import Quantize, quantize

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
