"""A decoder checkpoint as one GGUF file, quantized on the way: one pass, nothing but the file itself is written.

Rows are read, checked, quantized by ggml's own functions (in threads: they hold no lock) and written tensor by tensor,
so that memory holds a few tensors at their final size and a few pieces of rows in float32, whatever the model's size.
"""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Frozen
from edgekit.errors import MissingExtraError, StageError
from edgekit.formats.ggml import ggml_type, quantize, row_bytes
from edgekit.formats.gguf_decoder_config import architecture_of, describe, notes_of, obstacles, rotary, shape_of
from edgekit.formats.gguf_decoder_tensors import Tensor, plan_tensors
from edgekit.formats.gguf_decoder_tokenizer import DecoderVocabulary, read_decoder_vocabulary, write_decoder_vocabulary
from edgekit.formats.gguf_decoder_types import PRESETS, TensorSpec, types_of
from edgekit.model_config import ModelConfig, read_config
from edgekit.progress import Progress, Silent

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = [
    "Encode",
    "TensorSpec",
    "Written",
    "bytes_besides",
    "decoder_tensors",
    "obstacles",
    "preset_types",
    "read_plan",
    "write_gguf_decoder",
]

PIECE = 1 << 20  # weights that one thread takes at a time: 4 MB in float32
F16_MAX = 65504.0
ALIGNMENT = 32  # where tensors may begin in a GGUF file
AHEAD = 2  # tensors begun before the first of them is written
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Encode = Callable[[str, Floats, str], Bytes]  # tensor name, some of its rows, ggml type -> rows of bytes


class Written(Frozen):
    """What a GGUF file holds: tensors by type, its size, and what is worth knowing."""

    tensors: dict[str, int]
    bytes: int
    notes: tuple[str, ...] = ()


def decoder_tensors(folder: Path) -> list[TensorSpec]:
    """The tensors that the folder's GGUF file will have; reads headers only.

    Raises StageError where the model cannot be exported, ModelError where weights are missing or damaged.
    """
    return [tensor.spec for tensor in read_plan(folder)]


def preset_types(folder: Path, preset: str, with_importance: bool = False) -> dict[str, str]:
    """The type of each tensor that may be quantized, as `llama_model_quantize` picks it for this preset.

    Raises UsageError for an unknown preset, and as `decoder_tensors` does.
    """
    config = read_config(folder)
    tensors = decoder_tensors(folder)
    shape = shape_of(config)
    group = shape.heads // shape.kv_heads
    kind = config["model_type"]
    large = shape.layers == 80 and (kind == "qwen2" or (kind in ("llama", "mistral") and group > 1))
    return types_of(tensors, preset, group=group, importance=with_importance, large=large)


def write_gguf_decoder(
    folder: Path,
    out: Path,
    types: Mapping[str, str],
    *,
    importance: Mapping[str, Floats] | None = None,
    encode: Encode | None = None,
    threads: int = 0,
    progress: Progress | None = None,
    preset: str = "",
) -> Written:
    """Write the checkpoint in `folder` as the GGUF file `out`.

    `types`: ggml type by tensor name (f32 where none is named). `importance`: by tensor name, a weight for each column
    (columns,). `encode`: what rounds rows to bytes, in several threads at once; None takes ggml's own rounding.
    `threads`: 0 for all. `preset`: the mix's name, told in the file.
    Raises StageError where the model cannot be exported, or for NaN, infinite or too large weights (named); ModelError
    where weights or the tokenizer are missing or damaged; MissingExtraError where gguf is not installed.
    """
    tensors = read_plan(folder)
    config = read_config(folder)
    kinds = _kinds(tensors, types)
    vocabulary = read_decoder_vocabulary(folder, shape_of(config).vocab)
    with closing(_begin_file(out, config, vocabulary, tensors, kinds, preset)) as writer:
        rounding = encode or _by_ggml(importance or {})
        encoded = _encode(tensors, kinds, rounding, threads or os.cpu_count() or 1)
        for data in (progress or Silent()).track(encoded, "writing GGUF", len(tensors)):
            writer.write_tensor_data(data)
    return Written(
        tensors=dict(Counter(kinds.values())),
        bytes=out.stat().st_size,
        notes=(*notes_of(config), *vocabulary.notes),
    )


def bytes_besides(folder: Path) -> int:
    """What the folder's GGUF file takes besides the tensors that may be quantized: metadata, vectors and padding."""
    tensors, config = read_plan(folder), read_config(folder)
    vocabulary = read_decoder_vocabulary(folder, shape_of(config).vocab)
    with TemporaryDirectory() as scratch:
        header = Path(scratch) / "header.gguf"
        _begin_file(header, config, vocabulary, tensors, _kinds(tensors, {}), "").close()
        size = header.stat().st_size
    vectors = [tensor for tensor in tensors if not tensor.spec.quantizable]
    return size + sum(tensor.rows * tensor.columns * 4 for tensor in vectors) + ALIGNMENT * (len(tensors) + 1)


def _begin_file(
    out: Path,
    config: ModelConfig,
    vocabulary: DecoderVocabulary,
    tensors: list[Tensor],
    kinds: Mapping[str, str],
    preset: str,
) -> GGUFWriter:
    """The file up to its first tensor."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise MissingExtraError("gguf", "gguf") from None
    writer = gguf.GGUFWriter(out, architecture_of(config).name)
    writer.add_name(_name(config, vocabulary))
    describe(writer, config, PRESETS[preset].file_type if preset else "GUESSED")
    write_decoder_vocabulary(writer, vocabulary)
    for tensor in tensors:
        kind = kinds[tensor.name]
        size = tensor.rows * row_bytes(kind, tensor.columns)
        number = gguf.GGMLQuantizationType(ggml_type(kind).number)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def _name(config: ModelConfig, vocabulary: DecoderVocabulary) -> str:
    """llama.cpp drops spaces after the marks of a chat where the name has "phi-3" in it; it then needs these tokens."""
    shape = shape_of(config)
    family = architecture_of(config).name
    if family == "phi3":
        family = "phi-3" if {"</s>", "<unk>", "<s>", "<|endoftext|>"} <= set(vocabulary.tokens) else "phi"
    return f"{family} decoder, {shape.layers} layers, {shape.hidden} wide"


def read_plan(folder: Path) -> list[Tensor]:
    """The tensors with where their rows come from. Raises as `decoder_tensors` does."""
    problems = obstacles(folder)
    if problems:
        raise StageError("this model cannot be written as GGUF", problems=tuple(problems))
    config = read_config(folder)
    return plan_tensors(folder, config, rotary(config).tensors)


def _kinds(tensors: list[Tensor], types: Mapping[str, str]) -> dict[str, str]:
    """The type of every tensor. Raises StageError for a name or a type that the tensors do not have."""
    specs = {tensor.name: tensor.spec for tensor in tensors}
    wrong = [name for name, kind in types.items() if kind != "f32" and not (name in specs and specs[name].quantizable)]
    if wrong:
        raise StageError(f"{wrong[0]} is no tensor of this model that may have another type than f32")
    return {name: types.get(name, "f32") for name in specs}


def _by_ggml(importance: Mapping[str, Floats]) -> Encode:
    return lambda name, rows, kind: quantize(rows, kind, importance.get(name))


def _encode(tensors: list[Tensor], kinds: Mapping[str, str], encode: Encode, threads: int) -> Iterator[Bytes]:
    """Every tensor at its final size (rows, bytes), in order; the next is begun while this one is finished."""
    begun: deque[tuple[Bytes, list[Future[None]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for tensor in tensors:
            begun.append(_begin(pool, tensor, kinds[tensor.name], encode))
            if len(begun) == AHEAD:
                yield _finish(*begun.popleft())
        while begun:
            yield _finish(*begun.popleft())


def _begin(pool: ThreadPoolExecutor, tensor: Tensor, kind: str, encode: Encode) -> tuple[Bytes, list[Future[None]]]:
    target = np.empty((tensor.rows, row_bytes(kind, tensor.columns)), dtype=np.uint8)
    step = max(1, PIECE // tensor.columns)
    pieces = [slice(start, min(start + step, tensor.rows)) for start in range(0, tensor.rows, step)]
    return target, [pool.submit(_fill, tensor, kind, encode, piece, target) for piece in pieces]


def _finish(target: Bytes, pieces: list[Future[None]]) -> Bytes:
    for piece in pieces:
        piece.result()
    return target


def _fill(tensor: Tensor, kind: str, encode: Encode, rows: slice, target: Bytes) -> None:
    """Read, check and encode some rows."""
    data = tensor.read(rows.start, rows.stop)
    lowest, highest = float(data.min()), float(data.max())  # NaN if any is
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise StageError(f"{tensor.source} has NaN or infinite weights", hint="check the training that made it")
    largest = max(-lowest, highest)
    if kind == "f16" and largest > F16_MAX:
        raise StageError(f"{tensor.source} has weights up to {largest:.3g}, which f16 cannot hold", hint="take bf16")
    target[rows] = encode(tensor.name, data, kind)
