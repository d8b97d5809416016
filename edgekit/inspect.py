"""Looking into an artifact: what its file holds."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from edgekit.artifact import MANIFEST, Artifact
from edgekit.errors import UsageError
from edgekit.source import open_model
from edgekit.store import Store, default_root

__all__ = ["describe_artifact", "find_artifact"]


def find_artifact(name: str, store: Path | None) -> Artifact:
    """A folder, or the first characters of a key in the store. Raises StoreError, ModelError or UsageError where
    there is none."""
    folder = Path(name)
    if (folder / MANIFEST).is_file():
        return Artifact.open(folder)
    if folder.is_dir() and list(folder.glob(f"*/{MANIFEST}")):
        return Artifact.open(folder)  # the error says which folders in it are meant
    if folder.is_dir() or name.startswith("pkg:"):
        return open_model(name)
    if "/" in name or name.startswith("."):
        raise UsageError(f"no such folder: {name}", hint="give a folder, or the first characters of a key in the store")
    return Store(store or default_root()).find(name)


def describe_artifact(artifact: Artifact) -> dict[str, JsonValue]:
    """Operators of an ONNX or OpenVINO file, tensor types of a GGUF file, tensors and parameters of safetensors."""
    if artifact.format == "onnx":
        from edgekit.formats.onnx_encoder import operators

        return {"operators": {**operators(artifact.model_file)}}
    if artifact.format == "openvino":
        from edgekit.formats.openvino_ir import operators as openvino_operators

        return {"operators": {**openvino_operators(artifact.model_file)}}
    if artifact.format == "gguf":
        from collections import Counter

        from gguf import GGUFReader

        types = Counter(tensor.tensor_type.name for tensor in GGUFReader(artifact.model_file).tensors)
        return {"tensor_types": {**types}}
    return _describe_safetensors(artifact)


def _describe_safetensors(artifact: Artifact) -> dict[str, JsonValue]:
    from math import prod

    from safetensors import safe_open

    tensors = parameters = 0
    for file in sorted(artifact.path.glob("*.safetensors")):
        with safe_open(str(file), framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118  # not a dict
                tensors += 1
                parameters += prod(opened.get_slice(name).get_shape())
    return {"tensors": tensors, "parameters": parameters}
