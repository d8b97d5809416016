"""How a file is executed: on each kind of target, one runtime per format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgekit.artifact import Artifact, Format
from edgekit.errors import UsageError
from edgekit.runtimes.base import Runtime, Samples, Workload
from edgekit.runtimes.llamacpp import LLAMACPP
from edgekit.runtimes.onnxruntime import ONNXRUNTIME
from edgekit.runtimes.onnxruntime_web import ONNXRUNTIME_WEB
from edgekit.runtimes.openvino import OPENVINO
from edgekit.runtimes.torch import TORCH

__all__ = ["ARM64", "CUDA", "RUNTIMES", "WEB", "Runtime", "Runtimes", "Samples", "Workload", "runtime_of"]

Runtimes = Mapping[Format, Runtime]
RUNTIMES: Runtimes = {
    "hf": TORCH,
    "onnx": ONNXRUNTIME,
    "gguf": LLAMACPP,
    "openvino": OPENVINO,
}
CUDA: Runtimes = {  # llama.cpp has no CUDA in the wheel that edgekit builds
    "hf": replace(TORCH, provider="cuda"),
    "onnx": replace(
        ONNXRUNTIME,
        libraries=("onnxruntime-gpu", *ONNXRUNTIME.libraries),
        provider="CUDAExecutionProvider",
        install="pip uninstall onnxruntime; pip install 'edgekit[cuda]'",  # both would fill one folder
    ),
}
ARM64: Runtimes = {"onnx": ONNXRUNTIME}  # what the Python that is brought to a device holds
WEB: Runtimes = {"onnx": ONNXRUNTIME_WEB}  # in a browser, or in Node


def runtime_of(artifact: Artifact, runtimes: Runtimes = RUNTIMES) -> Runtime:
    """The runtime that executes the artifact's format. Raises UsageError where none of `runtimes` does."""
    if artifact.format not in runtimes:
        what = f"{artifact.path.name}: no runtime for {artifact.format} files on this target"
        raise UsageError(what, hint=f"it executes {', '.join(runtimes)}")
    return runtimes[artifact.format]
