"""ONNX Runtime, processor provider, all graph optimizations."""

from __future__ import annotations

from edgekit.runtimes.base import WorkerRuntime

__all__ = ["ONNXRUNTIME"]

ONNXRUNTIME = WorkerRuntime(
    name="onnxruntime",
    libraries=("onnxruntime", "tokenizers"),
    worker="ort_worker.py",
    model="model.onnx",
    tokenizer="tokenizer.json",
    provider="CPUExecutionProvider",
)
