"""ONNX Runtime's WebAssembly build, in a page or in Node. Rows become token ids here: a page has no tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.artifact import Artifact
from edgekit.errors import DeviceError
from edgekit.jobs import Call, Inputs, Job
from edgekit.runtimes.base import WorkerRuntime
from edgekit.runtimes.token_ids import tokenized

__all__ = ["ONNXRUNTIME_WEB"]


@dataclass(frozen=True)
class _WebRuntime(WorkerRuntime):
    def job(self, artifact: Artifact, inputs: Inputs, call: Call) -> Job:
        """See `Runtime.job`. Raises DeviceError for pictures, which no page decodes here."""
        if inputs.pixels is not None:
            raise DeviceError(f"{artifact.path}: {self.name} is fed texts alone here", hint="measure pictures on cpu")
        return tokenized(super().job(artifact, inputs, call))


ONNXRUNTIME_WEB = _WebRuntime(
    name="onnxruntime-web",
    libraries=("onnxruntime-web", "tokenizers"),
    worker="web/onnxruntime_web.mjs",
    model="model.onnx",
    tokenizer="tokenizer.json",
    provider="wasm",
)
