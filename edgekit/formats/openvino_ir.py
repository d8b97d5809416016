"""A classifier as OpenVINO IR: `model.xml` (the graph) and `model.bin` (its weights), made of an exported ONNX file.

OpenVINO reads `com.microsoft::MultiHeadAttention` as its own ScaledDotProductAttention, so the graph needs no other
export.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgekit.errors import MissingExtraError

if TYPE_CHECKING:
    import openvino

__all__ = ["Weight", "library", "operators", "save", "size_of", "unpacked", "weights", "write_openvino"]

DECOMPRESSION = ("Convert", "Subtract", "Multiply", "Reshape", "FakeQuantize")


class Weight(NamedTuple):
    """A constant: its name, the type it is kept in ("f32", "i8", ...), its bytes, the operator that reads it and that
    node's name, both behind what only unpacks it, and whether it is part of the unpacking."""

    name: str
    type: str
    bytes: int
    reader: str
    user: str
    scale: bool


def library() -> ModuleType:
    """The openvino package, which tells nobody that it is used. Raises MissingExtraError where it is not installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import fails; openvino goes on
    try:
        return import_module("openvino")
    except ImportError:
        raise MissingExtraError("openvino", "openvino") from None


def write_openvino(onnx_file: Path, out_file: Path, precision: Literal["f32", "f16"] = "f32") -> None:
    """Write `out_file` (.xml) and its weights beside it; `precision` is that of the weights on disk.

    Raises MissingExtraError without openvino.
    """
    core = library().Core()
    save(core.read_model(str(onnx_file)), out_file, precision)


def save(model: openvino.Model, out_file: Path, precision: Literal["f32", "f16"] = "f32") -> None:
    """Write the IR without what it says of this machine's files."""
    with tempfile.TemporaryDirectory(dir=out_file.parent) as folder:  # its .bin is named after it
        library().save_model(model, str(Path(folder) / out_file.name), compress_to_fp16=precision == "f16")
        for path in Path(folder).iterdir():
            path.replace(out_file.parent / path.name)


def size_of(file: Path) -> int:
    """Bytes of graph and weights."""
    return file.stat().st_size + file.with_suffix(".bin").stat().st_size


def operators(file: Path) -> dict[str, int]:
    """Operator -> how often the graph uses it."""
    model = library().Core().read_model(str(file))
    return dict(Counter(node.get_type_name() for node in model.get_ordered_ops()))


def weights(file: Path) -> list[Weight]:
    """Every constant, in the order of the graph."""
    model = library().Core().read_model(str(file))
    return [_weight(node) for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]


def _weight(node: openvino.Node) -> Weight:
    first = next(iter(node.output(0).get_target_inputs())).get_node()
    reader = first
    while unpacked(reader) is not None:
        reader = next(iter(reader.output(0).get_target_inputs())).get_node()
    beside = 1 in node.get_output_shape(0)  # a number for each row or column of the matrix
    scale = first.get_type_name() == "FakeQuantize" or (unpacked(first) is not None and beside)
    return Weight(
        node.get_friendly_name(),
        node.get_element_type().get_type_name(),
        int(node.get_byte_size()),
        reader.get_type_name(),
        reader.get_friendly_name(),
        scale,
    )


def unpacked(node: openvino.Node) -> openvino.Node | None:
    """The constant that a value is unpacked from (itself, where it is one); None for what depends on inputs."""
    if node.get_type_name() == "Constant":
        return node
    if node.get_type_name() not in DECOMPRESSION:
        return None
    sources = [unpacked(node.input_value(at).get_node()) for at in range(node.get_input_size())]
    return sources[0] if all(source is not None for source in sources) else None
