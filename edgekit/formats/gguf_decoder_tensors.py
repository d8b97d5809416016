"""Which weight of a checkpoint becomes which GGUF tensor, and reading its rows from memory-mapped safetensors.

A safetensors file is eight bytes of header length, a JSON header (dtype, shape and byte range of each tensor) and the
bytes. Rows are mapped only while they are copied, so that memory holds a piece of one tensor and no file.
Source: https://github.com/huggingface/safetensors#format; the tensors' names are from gguf's own TensorNameMap.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ModelError
from edgekit.formats.gguf_decoder_config import Architecture, Shape, architecture_of, shape_of
from edgekit.formats.gguf_decoder_types import TensorSpec
from edgekit.model_config import ModelConfig

__all__ = ["Stored", "Tensor", "plan_tensors", "read_weights"]

INDEX = "model.safetensors.index.json"
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}  # BF16: upper halves
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # not weights


@dataclass(frozen=True)
class Stored:
    """A weight in a safetensors file: where its bytes begin, its type there and its shape."""

    file: Path
    start: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    def map(self) -> NDArray[Any]:
        """The array as it is stored, read only, backed by the file."""
        return np.memmap(self.file, dtype=DTYPES[self.dtype], mode="r", offset=self.start, shape=self.shape)

    def widen(self, part: NDArray[Any]) -> NDArray[np.float32]:
        """A part of the array as float32, exactly."""
        if self.dtype == "BF16":
            return (part.astype(np.uint32) << 16).view(np.float32)
        return np.ascontiguousarray(part, dtype=np.float32)


@dataclass(frozen=True)
class Tensor:
    """A GGUF tensor: one weight with its rows in another order, transposed, or with a number added; or given values."""

    name: str
    source: str
    shape: tuple[int, ...]
    stored: Stored | None = None
    values: NDArray[np.float32] | None = None
    order: NDArray[np.intp] | None = None
    transposed: bool = False
    shift: float = 0.0

    @property
    def rows(self) -> int:
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def spec(self) -> TensorSpec:
        """Vectors and position embeddings stay F32: llama.cpp adds and multiplies with them as they are."""
        matrix = len(self.shape) == 2 and self.name != "position_embd.weight"
        size = self.stored.bytes if self.stored else 4 * prod(self.shape)
        return TensorSpec(self.name, self.source, self.shape, matrix, size)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start` to `stop` (rows, columns), float32, contiguous."""
        if self.stored is None:
            assert self.values is not None
            return self.values.reshape(1, -1)
        array = self.stored.map()
        array = array.T if self.transposed else array
        rows: slice | NDArray[np.intp] = slice(start, stop) if array.ndim == 2 else slice(None)
        if self.order is not None:
            rows = self.order[rows]
        part = self.stored.widen(array[rows]).reshape(-1, self.columns)
        return part + np.float32(self.shift) if self.shift else part


def read_weights(folder: Path) -> dict[str, Stored]:
    """Every weight of the folder by its name, from one file or shards; reads the headers only.

    Raises ModelError for a missing, truncated or damaged file, naming a weight that is lost with it.
    """
    index = folder / INDEX
    if not index.is_file():
        if not (folder / "model.safetensors").is_file():
            raise ModelError(f"{folder} has no model.safetensors", hint="save it with save_pretrained")
        return _read_header(folder / "model.safetensors")
    try:
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        raise ModelError(f"{index}: damaged ({error})") from None
    found: dict[str, Stored] = {}
    for shard in sorted(set(places.values())):
        names = [name for name, place in places.items() if place == shard]
        if not (folder / shard).is_file():
            what = f"{folder / shard} is missing; it holds {len(names)} weights, the first is {names[0]}"
            raise ModelError(what, hint="copy all shards that the index names")
        found |= _read_header(folder / shard)
    lost = sorted(places.keys() - found.keys())
    if lost:
        raise ModelError(f"{folder}: the shards lack {len(lost)} weights that the index names, the first is {lost[0]}")
    return found


def _read_header(path: Path) -> dict[str, Stored]:
    size = path.stat().st_size
    with path.open("rb") as file:
        lead = file.read(8)
        length = struct.unpack("<Q", lead)[0] if len(lead) == 8 else size
        if length > size - 8:
            raise ModelError(f"{path}: truncated or damaged (no whole header)", hint="copy the file again")
        try:
            header = json.loads(file.read(length))
            entries = [(name, *_entry(entry)) for name, entry in header.items() if name != "__metadata__"]
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError):
            raise ModelError(f"{path}: damaged header", hint="copy the file again") from None
    base = 8 + length
    for name, dtype, shape, start, stop in sorted(entries, key=lambda entry: entry[3]):
        if dtype not in DTYPES:
            raise ModelError(f"{path}: {name} is {dtype}; F32, F16 and BF16 are known")
        if base + stop > size or stop - start != prod(shape) * DTYPES[dtype].itemsize:
            what = f"{path}: truncated, {size:,} bytes; {name} ends at {base + stop:,}"
            raise ModelError(what, hint="copy the file again")
    return {name: Stored(path, base + start, dtype, shape) for name, dtype, shape, start, _ in entries}


def _entry(entry: dict[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    start, stop = entry["data_offsets"]
    return str(entry["dtype"]), tuple(int(n) for n in entry["shape"]), int(start), int(stop)


def plan_tensors(
    folder: Path, config: ModelConfig, extra: dict[str, NDArray[np.float32]] | None = None
) -> list[Tensor]:
    """The GGUF file's tensors, embeddings first and layer by layer; `extra` are computed ones (rotary factors).

    Raises ModelError for weights that are missing, unknown, or of a shape that config.json does not say.
    """
    import gguf

    arch, shape = architecture_of(config), shape_of(config)
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch.name)
    names = gguf.get_tensor_name_map(number, shape.layers)
    tensors = [Tensor(name, "", values.shape, values=values) for name, values in (extra or {}).items()]
    for source, stored in read_weights(folder).items():
        if source.endswith(BUFFERS) or (shape.tied and source == "lm_head.weight"):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            what = f"weight {source} has no place in llama.cpp's {arch.name} of {shape.layers} layers"
            raise ModelError(f"{folder}: {what}", hint="does config.json belong to these weights?")
        tensors.append(_tensor(name, source, stored, arch, shape))
    _check(folder, tensors, shape)
    return sorted(tensors, key=lambda tensor: _order(tensor.name))


def _tensor(name: str, source: str, stored: Stored, arch: Architecture, shape: Shape) -> Tensor:
    """The weight with what this architecture's checkpoints need on the way."""
    kind = name.split(".", 2)[-1] if name.startswith("blk.") else name
    transposed = kind in arch.transposed
    heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(kind.split(".")[0]) if arch.pairs else None
    return Tensor(
        name=name,
        source=source,
        shape=stored.shape[::-1] if transposed else stored.shape,
        stored=stored,
        order=_neighbours(stored.shape[0], heads) if heads else None,
        transposed=transposed,
        shift=arch.norm_shift if kind.endswith("norm.weight") else 0.0,
    )


def _neighbours(rows: int, heads: int) -> NDArray[np.intp]:
    """Row order that brings rotary pairs together: Transformers turns i with i + half, llama.cpp 2i with 2i + 1."""
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _check(folder: Path, tensors: list[Tensor], shape: Shape) -> None:
    found = {tensor.name: tensor for tensor in tensors}
    embedding = found.get("token_embd.weight")
    if embedding is not None and embedding.shape != (shape.vocab, shape.hidden):
        what = f"{embedding.source} is {embedding.shape}, config.json says {(shape.vocab, shape.hidden)}"
        raise ModelError(f"{folder}: {what}")
    parts = {name.split(".", 2)[2] for name in found if name.startswith("blk.")}
    wanted = {f"blk.{layer}.{part}" for layer in range(shape.layers) for part in parts}
    wanted |= {"token_embd.weight", "output_norm.weight", *(() if shape.tied else ("output.weight",))}
    lost = sorted(wanted - found.keys(), key=_order)
    if lost or not parts:
        first = lost[0] if lost else "blk.0"
        raise ModelError(f"{folder}: {len(lost)} weights are missing, the first is {first} by llama.cpp's names")


def _order(name: str) -> tuple[int, int, str]:
    if name.startswith("blk."):
        return 1, int(name.split(".")[1]), name
    return (0 if "embd" in name else 2), 0, name
