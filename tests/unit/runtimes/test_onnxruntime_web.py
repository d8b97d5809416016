"""The job for a page: token ids instead of texts, the same that the native worker makes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_onnx

from edgekit.artifact import Artifact
from edgekit.errors import DeviceError, UsageError
from edgekit.jobs import WORKERS, Call, Inputs
from edgekit.runtimes import WEB, runtime_of


def test_rows_are_those_of_the_native_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKERS))
    import ort_worker

    artifact = tiny_onnx.make(tmp_path / "tiny", types=True)
    inputs = Inputs(("on off on", "dim", ""), ("off", "on on on on on on on on on", "dim"), 8, segments=True)
    job = runtime_of(artifact, WEB).job(artifact, inputs, Call("predict", 1))
    wire = job.inputs.wire()
    native = ort_worker.tokenize(str(artifact.path / "tokenizer.json"), inputs.wire())
    assert wire["rows"] == [[ids, types] for ids, types in native]
    assert "rows" not in inputs.wire()
    assert job.worker == "web/onnxruntime_web.mjs"
    assert (WORKERS / job.worker).is_file()
    sys.modules.pop("ort_worker"), sys.modules.pop("harness", None)


def test_other_formats_and_missing_files_are_told(tmp_path: Path) -> None:
    artifact = tiny_onnx.make(tmp_path / "tiny")
    gguf = Artifact(artifact.path, artifact.manifest.model_copy(update={"format": "gguf"}))
    with pytest.raises(UsageError, match="no runtime for gguf files on this target"):
        runtime_of(gguf, WEB)
    (artifact.path / "tokenizer.json").unlink()
    with pytest.raises(DeviceError, match=r"no tokenizer\.json, which onnxruntime-web needs"):
        runtime_of(artifact, WEB).job(artifact, Inputs(("on",), None, 8), Call("predict", 1))
