"""ONNX Runtime's WebAssembly build, in a page or in Node. Rows become token ids here: a page has no tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgekit.artifact import Artifact
from edgekit.jobs import Call, Inputs, Job, TokenIds
from edgekit.runtimes.base import WorkerRuntime

__all__ = ["ONNXRUNTIME_WEB", "token_ids"]


@dataclass(frozen=True)
class _WebRuntime(WorkerRuntime):
    def job(self, artifact: Artifact, inputs: Inputs, call: Call) -> Job:
        """See `Runtime.job`."""
        made = super().job(artifact, inputs, call)
        return replace(made, inputs=replace(inputs, rows=token_ids(artifact, inputs)))


def token_ids(artifact: Artifact, inputs: Inputs) -> TokenIds:
    """Every row's token ids and type ids by the artifact's tokenizer.json, as `ort_worker.py` makes them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(artifact.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(inputs.max_length)
    rows = list(zip(inputs.texts, inputs.pairs, strict=True)) if inputs.pairs else list(inputs.texts)
    return tuple((tuple(e.ids), tuple(e.type_ids)) for e in tokenizer.encode_batch(rows))


ONNXRUNTIME_WEB = _WebRuntime(
    name="onnxruntime-web",
    libraries=("onnxruntime-web", "tokenizers"),
    worker="web/onnxruntime_web.mjs",
    model="model.onnx",
    tokenizer="tokenizer.json",
    provider="wasm",
)
