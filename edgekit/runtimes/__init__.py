"""How a file is executed: one runtime per format. `RUNTIMES` is the whole list."""

from __future__ import annotations

from edgekit.artifact import Artifact, Format
from edgekit.runtimes.base import Runtime, Samples, Workload
from edgekit.runtimes.llamacpp import LLAMACPP
from edgekit.runtimes.onnxruntime import ONNXRUNTIME
from edgekit.runtimes.torch import TORCH

__all__ = ["RUNTIMES", "Runtime", "Samples", "Workload", "runtime_of"]

RUNTIMES: dict[Format, Runtime] = {
    "hf": TORCH,
    "onnx": ONNXRUNTIME,
    "gguf": LLAMACPP,
}


def runtime_of(artifact: Artifact) -> Runtime:
    """The runtime that executes the artifact's format."""
    return RUNTIMES[artifact.format]
