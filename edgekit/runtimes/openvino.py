"""OpenVINO on the processor: float32 where a file is not int8, whatever narrower float the processor has."""

from __future__ import annotations

from edgekit.runtimes.base import WorkerRuntime

__all__ = ["OPENVINO"]

OPENVINO = WorkerRuntime(
    name="openvino",
    libraries=("openvino", "tokenizers"),
    worker="openvino_worker.py",
    model="model.xml",
    tokenizer="tokenizer.json",
    provider="CPU",
    install="pip install 'edgekit[openvino]'",
)
