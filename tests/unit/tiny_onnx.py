"""A classifier small enough to check by hand: each label has a word, and the most frequent label's word wins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgekit.artifact import Artifact, Facts, Manifest, Task, entries, seal

LABELS = ("on", "off", "dim")
WORDS = {"[PAD]": 0, "[UNK]": 1, "on": 2, "off": 3, "dim": 4, "please": 5}


def write_model(path: Path, table: np.ndarray, head: np.ndarray, *, types: bool = False, extra: int = 0) -> None:
    """logits = sum over tokens of table[id] (+ 0.5 per token of type 1) times head; `extra`: idle products."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"]) for n in names]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", head.shape[1]])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["total"], keepdims=0),
        helper.make_node("MatMul", ["total", "head"], ["plain"]),
    ]
    constants = [constant("table", table), constant("head", head), constant("last", np.array([2], dtype=np.int64))]
    constants.append(constant("middle", np.array([1], dtype=np.int64)))
    last = "plain"
    if types:
        nodes += [
            helper.make_node("Cast", ["token_type_ids"], ["seconds"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["seconds", "middle"], ["count"], keepdims=1),
            helper.make_node("Add", [last, "count"], ["typed"]),
        ]
        last = "typed"
    if extra:
        constants += [
            constant("square", np.zeros((256, 256), np.float32)),
            constant("wide", np.zeros((3, 256), np.float32)),
        ]
        constants.append(constant("narrow", np.zeros((256, 3), np.float32)))
        nodes.append(helper.make_node("MatMul", [last, "wide"], ["x0"]))
        for at in range(extra):
            nodes += [helper.make_node("MatMul", [f"x{at}", "square"], [f"y{at}"])]
            nodes += [helper.make_node("Sigmoid", [f"y{at}"], [f"x{at + 1}"])]
        nodes.append(helper.make_node("MatMul", [f"x{extra}", "narrow"], ["nothing"]))
        nodes.append(helper.make_node("Add", [last, "nothing"], ["padded"]))
        last = "padded"
    nodes.append(helper.make_node("Identity", [last], ["logits"]))
    graph = helper.make_graph(nodes, "tiny", inputs, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    tokenizer.save(str(path))


def make(
    folder: Path,
    *,
    wrong: bool = False,
    types: bool = False,
    extra: int = 0,
    manifest: dict[str, object] | None = None,
) -> Artifact:
    """A sealed deployable of the classifier; `wrong` swaps the first two labels."""
    folder.mkdir(parents=True)
    table = np.zeros((len(WORDS), len(LABELS)), np.float32)
    table[[2, 3, 4], [0, 1, 2]] = 1
    head = np.eye(len(LABELS), dtype=np.float32)
    write_model(folder / "model.onnx", table, head[[1, 0, 2]] if wrong else head, types=types, extra=extra)
    write_tokenizer(folder / "tokenizer.json")
    settings = {"labels": list(LABELS), "max_length": 8, "segments": types, "pair": types, "pad_id": 0}
    (folder / "labels.json").write_text(json.dumps(settings), encoding="utf-8")
    known: dict[str, object] = {
        "key": f"{folder.name:0<64}",
        "format": "onnx",
        "stage": "export",
        "stage_version": 1,
        "config": {},
        "parents": {},
        "files": entries(folder),
        "libraries": {},
        "facts": Facts(summary="made in a test"),
        "task": Task(labels=LABELS, max_length=8, pair=types, segments=types),
    }
    return seal(folder, Manifest.model_validate(known | (manifest or {})))
