"""Putting grids of integers into an ONNX file that onnxruntime-genai's builder wrote in float32: every product whose
weights are a grid's values becomes MatMulNBits, every look-up GatherBlockQuantized.

The builder's nodes are named after Transformers' modules, with short forms of its own. A name is only believed where
the float weights in the file are the grid's values, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StageError
from edgekit.formats.int4 import Grid, join_grids, onnx_blocks

__all__ = ["can_fuse_qkv", "put_grids"]

DOMAIN = "com.microsoft"
QKV = ("q_proj", "k_proj", "v_proj")
EMBEDDINGS = "model.embed_tokens"
HEAD = "lm_head"


def can_fuse_qkv(grids: Mapping[str, Grid]) -> bool:
    """Whether query, key and value of every layer share a kind of grid, or have none: they can then be one matrix."""
    stems = {name.rsplit(".", 1)[0] for name in grids if name.endswith(QKV)}
    return all(len({_kind(grids, f"{stem}.{part}") for part in QKV}) == 1 for stem in stems)


def _kind(grids: Mapping[str, Grid], name: str) -> object:
    return grids[name].kind if name in grids else None


def put_grids(source: Path, target: Path, grids: Mapping[str, Grid], accuracy_level: int) -> list[str]:
    """Write `source` with the grids in it as `target` (and its .data beside it); returns the modules that are on grids.

    Raises StageError for a grid that no weight of the file agrees with.
    """
    import onnx_ir as ir

    model = ir.load(source)
    rewriter = Rewriter(model.graph, grids, accuracy_level)
    for node in list(model.graph):
        if node.op_type == "Gather" and "embed_tokens" in (node.name or ""):
            rewriter.look_up(node)
        elif node.op_type == "MatMul" and node.inputs[1] is not None and node.inputs[1].const_value is not None:
            rewriter.multiply(node)
    lost = sorted(set(grids) - set(rewriter.done))
    if lost:
        hint = "the folder's weights and its grids.safetensors do not belong together; quantize it again"
        raise StageError(f"{len(lost)} grid(s) are of no matrix of the ONNX file, the first is {lost[0]}", hint=hint)
    _drop_unread(model.graph)
    model.opset_imports.setdefault(DOMAIN, 1)
    model.graph.sort()
    ir.save(model, target, external_data=f"{target.name}.data")  # small constants stay inside: shapes are read early
    return sorted(rewriter.done)


class Rewriter:
    """Replaces nodes of one graph; `done` names the modules that were put in."""

    def __init__(self, graph: Any, grids: Mapping[str, Grid], accuracy_level: int) -> None:
        self.graph, self.grids, self.accuracy_level = graph, grids, accuracy_level
        self.done: list[str] = []
        self.stored: dict[str, tuple[Any, Any, Any]] = {}

    def multiply(self, node: Any) -> None:
        """MatMul(x, W) with W (in, out)."""
        names = self._modules(str(node.name))
        if not names:
            return
        grid = join_grids([self.grids[name] for name in names])
        self._agree(node.inputs[1].const_value.numpy().T, grid, names)
        rows, width = grid.shape
        weights, scales, zeros = self._store("+".join(names), grid)
        attributes = {"K": width, "N": rows, "bits": grid.kind.bits, "block_size": grid.kind.block}
        attributes["accuracy_level"] = self.accuracy_level
        inputs = [node.inputs[0], weights, scales, *([] if zeros is None else [zeros])]
        self._replace(node, "MatMulNBits", inputs, attributes)
        self.done += names

    def look_up(self, node: Any) -> None:
        """Gather(W, ids) with W (tokens, in), or with W the head's matrix, transposed."""
        import onnx_ir as ir

        if EMBEDDINGS not in self.grids:
            return
        grid = self.grids[EMBEDDINGS]
        table = node.inputs[0]
        tied = table.const_value is None
        values = table.producer().inputs[0].const_value.numpy().T if tied else table.const_value.numpy()
        self._agree(values, grid, [EMBEDDINGS])
        weights, scales, zeros = self._store(EMBEDDINGS, grid)
        shape = self._constant(f"{EMBEDDINGS}.rows", np.asarray([grid.shape[0], -1], dtype=np.int64))
        flat = ir.node("Reshape", [weights, shape], name=f"{node.name}/rows")
        self.graph.insert_before(node, flat)
        attributes = {"bits": grid.kind.bits, "block_size": grid.kind.block, "gather_axis": 0, "quantize_axis": 1}
        inputs = [flat.outputs[0], node.inputs[1], scales, *([] if zeros is None else [zeros])]
        self._replace(node, "GatherBlockQuantized", inputs, attributes)
        self.done.append(EMBEDDINGS)

    def _modules(self, node: str) -> list[str]:
        """The modules on grids whose rows are the node's outputs, in their order."""
        if node == "/lm_head/MatMul":
            return [name for name in (HEAD, EMBEDDINGS) if name in self.grids][:1]
        found = re.fullmatch(r"/model/layers\.(\d+)/(attn|mlp)/(\w+)/MatMul", node)
        if found is None:
            return []
        stem = f"model.layers.{found[1]}.{'self_attn' if found[2] == 'attn' else 'mlp'}"
        whole = f"{stem}.{found[3]}"
        if whole in self.grids or found[3] != "qkv_proj":
            return [whole] if whole in self.grids else []
        return [f"{stem}.{part}" for part in QKV if f"{stem}.{part}" in self.grids]

    def _agree(self, values: NDArray[np.float32], grid: Grid, names: list[str]) -> None:
        if values.shape != grid.shape or not np.array_equal(values, grid.values()):
            hint = "the weights were changed after they were quantized; quantize again"
            raise StageError(f"the weights of {' and '.join(names)} are not their grid's", hint=hint)

    def _store(self, name: str, grid: Grid) -> tuple[Any, Any, Any]:
        """Initializers for weights, scales and zero points; the head and a tied table share theirs."""
        if name not in self.stored:
            blocks = onnx_blocks(grid)
            zeros = None if blocks.zeros is None else self._constant(f"{name}.zeros", blocks.zeros)
            weights = self._constant(f"{name}.codes", blocks.weights)
            self.stored[name] = weights, self._constant(f"{name}.scales", blocks.scales), zeros
        return self.stored[name]

    def _constant(self, name: str, array: NDArray[Any]) -> Any:
        import onnx_ir as ir

        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def _replace(self, node: Any, operator: str, inputs: list[Any], attributes: dict[str, int]) -> None:
        import onnx_ir as ir

        new = ir.node(operator, inputs, attributes, domain=DOMAIN, name=f"{node.name}NBits")
        old, fresh = node.outputs[0], new.outputs[0]
        fresh.type, fresh.shape = old.type, old.shape
        ir.convenience.replace_nodes_and_values(self.graph, node, [node], [new], [old], [fresh])


def _drop_unread(graph: Any) -> None:
    """Remove a tied table's Transpose and the float weights that nothing reads any more."""
    for node in reversed(list(graph)):
        if node.op_type == "Transpose" and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
