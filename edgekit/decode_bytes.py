"""How many bytes of weights one decode step reads: what memory bandwidth bounds."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

from edgekit.artifact import Artifact

__all__ = ["decode_bytes"]

LOOKED_UP = ("Gather", "GatherBlockQuantized")  # of whose table a step reads one row
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")


def decode_bytes(artifact: Artifact) -> int:
    """Bytes of the weights that a step reads: all but an embedding of which it looks up one row (a tied one is also the
    output layer, and read whole); of a text-to-text model only its decoder's. The KV cache comes on top. Of a
    Transformers folder: in float32, as torch holds it.
    """
    count = {"gguf": _gguf, "onnx-genai": _onnx, "onnx-seq2seq": _decoder}.get(artifact.format, _safetensors)
    return count(artifact.path)


def _gguf(folder: Path) -> int:
    from gguf import GGUFReader

    sizes = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(folder / "model.gguf").tensors}
    return sum(sizes.values()) - (sizes["token_embd.weight"] if "output.weight" in sizes else 0)


def _safetensors(folder: Path) -> int:
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="numpy") as opened:
            sizes |= {name: 4 * math.prod(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    untied = any(name.endswith("lm_head.weight") for name in sizes)
    return sum(size for name, size in sizes.items() if not (untied and name.endswith(EMBEDDINGS)))


def _decoder(folder: Path) -> int:
    """Of two files the one that each step runs."""
    return _onnx(folder, "decoder.onnx")


def _onnx(folder: Path, files: str = "*.onnx") -> int:
    import onnx
    from onnx.external_data_helper import uses_external_data

    total = 0
    for file in sorted(folder.glob(files)):
        graph = onnx.load(str(file), load_external_data=False).graph
        readers: dict[str, set[str]] = defaultdict(set)
        for node in graph.node:
            for name in node.input:
                readers[name].add(node.op_type)
        for tensor in graph.initializer:
            if readers[tensor.name] <= set(LOOKED_UP):
                continue
            told = {entry.key: entry.value for entry in tensor.external_data} if uses_external_data(tensor) else {}
            total += int(told["length"]) if "length" in told else tensor.ByteSize()
    return total
