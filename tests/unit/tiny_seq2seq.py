"""Encoder and decoder files of a made-up text-to-text model, laid out as `seq2seq-export` does, without torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifact import Artifact, Facts, Manifest, Task, entries, seal

TASK = Task(kind="text-to-text", max_length=24)
TEXTS = tuple(f"translate: there were {n} girls outside" for n in range(8))
WIDTH = 16
SETTINGS = {"max_length": 24, "start": 0, "end": [2], "first": 1, "last": None, "never": [0]}
FLOAT, IDS = TensorProto.FLOAT, TensorProto.INT64


def write_tiny(out: Path, *, int8: bool = False) -> Artifact:
    """A sealed folder. The next token depends on the token before it and on the mean of what was read; the cache is
    kept, and read by nobody. `int8`: the output's matrix is rounded and stored in bytes."""
    out.mkdir(parents=True)
    vocabulary = _tokenizer(out / "tokenizer.json")
    (out / "generation.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    rng = np.random.default_rng(0)
    table = rng.normal(size=(vocabulary, WIDTH)).astype(np.float32)
    matrix = rng.normal(size=(WIDTH, vocabulary)).astype(np.float32)
    _save(out / "encoder.onnx", *_encoder(table))
    _save(out / "decoder.onnx", *_decoder(table, matrix, int8=int8))
    told = {"key": "0" * 64, "format": "onnx-seq2seq", "stage": "seq2seq-export", "stage_version": 1, "task": TASK}
    told |= {"config": {"precision": "int8" if int8 else "fp32"}, "parents": {}, "libraries": {}}
    return seal(out, Manifest.model_validate({**told, "facts": Facts(summary=""), "files": entries(out)}))


def without(artifact: Artifact, name: str, out: Path) -> Artifact:
    """A copy that lacks a file."""
    shutil.copytree(artifact.path, out)
    (out / name).unlink()
    return Artifact.open(out)


Graph = tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto], list[onnx.ValueInfoProto], list[onnx.TensorProto]]


def _encoder(table: NDArray[np.float32]) -> Graph:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["read"]),
        helper.make_node("Unsqueeze", ["read", "one"], ["cross_key_0"]),
    ]
    inputs = [helper.make_tensor_value_info(name, IDS, [1, "source"]) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("cross_key_0", FLOAT, [1, 1, "source", WIDTH])]
    return nodes, inputs, outputs, [numpy_helper.from_array(table, "table"), _one()]


def _decoder(table: NDArray[np.float32], matrix: NDArray[np.float32], *, int8: bool) -> Graph:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["now"]),
        helper.make_node("Unsqueeze", ["now", "one"], ["key"]),
        helper.make_node("Concat", ["past_key_0", "key"], ["present_key_0"], axis=2),
        helper.make_node("ReduceMean", ["cross_key_0", "two"], ["mean"], keepdims=0),
        helper.make_node("Add", ["now", "mean"], ["sum"]),
        helper.make_node("MatMul", ["sum", "matrix"], ["logits"]),
    ]
    weights = [numpy_helper.from_array(table, "table"), _one()]
    weights.append(numpy_helper.from_array(np.array([2], dtype=np.int64), "two"))
    if int8:
        scale = np.float32(np.abs(matrix).max() / 127)
        weights.append(numpy_helper.from_array(np.round(matrix / scale).astype(np.int8), "rounded"))
        weights.append(numpy_helper.from_array(np.asarray(scale), "scale"))
        nodes.insert(0, helper.make_node("DequantizeLinear", ["rounded", "scale"], ["matrix"]))
    else:
        weights.append(numpy_helper.from_array(matrix, "matrix"))
    inputs = [
        helper.make_tensor_value_info("input_ids", IDS, [1, "tokens"]),
        helper.make_tensor_value_info("attention_mask", IDS, [1, "source"]),
        helper.make_tensor_value_info("cross_key_0", FLOAT, [1, 1, "source", WIDTH]),
        helper.make_tensor_value_info("past_key_0", FLOAT, [1, 1, "past", WIDTH]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", FLOAT, [1, "tokens", len(table)]),
        helper.make_tensor_value_info("present_key_0", FLOAT, [1, 1, "all", WIDTH]),
    ]
    return nodes, inputs, outputs, weights


def _one() -> onnx.TensorProto:
    return numpy_helper.from_array(np.array([1], dtype=np.int64), "one")


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto],
) -> None:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))


def _tokenizer(path: Path) -> int:
    """Bytes, after three special tokens; the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    names = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    tokenizer.add_special_tokens(names[:3])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer.save(str(path))
    return len(names)
