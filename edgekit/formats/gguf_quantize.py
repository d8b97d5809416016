"""Quantizing a GGUF file by llama.cpp itself, quietly, and telling what it did."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, cast, get_args

from edgekit.errors import MissingExtraError, StageError, UsageError
from edgekit.formats.gguf_encoder import GgufFacts

__all__ = ["QuantType", "quantize_gguf", "tensor_types"]

QuantType = Literal["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k_m", "q6_k"]
BASE = {"q4_k_m": "Q4_K"}  # a mix is named after the type most of its tensors have
FALLBACK = re.compile(r"warning:\s*(\S+)\s*-\s*ncols\s+(\d+) not divisible by (\d+) \(required for type\s+(\w+)\)")


def quantize_gguf(
    source: Path,
    out: Path,
    file_type: QuantType,
    *,
    keep: tuple[str, ...] = (),
    embedding_type: str | None = None,
    threads: int = 0,
) -> GgufFacts:
    """Quantize an f32 or f16 GGUF file with `llama_model_quantize`.

    `keep`: names of tensors (or parts of names, such as "cls" or "blk.0.") that stay f16. `embedding_type`: the type of
    the token embeddings (such as "q4_0"); None leaves it to llama.cpp, which keeps 6 or 8 bits there. Vectors, position
    embeddings and the token type row always stay as they are. `threads`: 0 for all.
    Raises UsageError for an unknown type, StageError where llama.cpp refuses, MissingExtraError where it is missing.
    """
    if file_type not in get_args(QuantType):
        raise UsageError(f"unknown GGUF type {file_type!r}", hint=f"one of: {', '.join(get_args(QuantType))}")
    llama = _llama()
    before = tensor_types(source)
    kept = [name for name, (kind, _) in before.items() if kind != "F32" and any(part in name for part in keep)]
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{file_type.upper()}")
    params.nthread = threads
    embedding = "f16" if "token_embd.weight" in kept else embedding_type
    if embedding is not None:
        params.token_embedding_type = _embedding_type(embedding, before["token_embd.weight"][1][-1])
    overrides = (llama.llama_model_tensor_override * (len(kept) + 1))()  # the last one stays empty: the end mark
    for slot, name in zip(overrides, kept, strict=False):
        slot.pattern, slot.type = f"^{re.escape(name)}$".encode(), llama.GGML_TYPE_F16
    params.tt_overrides = overrides
    with captured_log(llama) as lines:
        llama.llama_backend_init()
        status = llama.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    if status != 0:
        out.unlink(missing_ok=True)
        raise StageError(
            f"llama.cpp could not quantize {source.name} to {file_type}", hint=" ".join(lines[-2:]).strip()
        )
    after = tensor_types(out)
    return GgufFacts(
        file_type=file_type,
        tensors=dict(Counter(kind for kind, _ in after.values())),
        bytes=out.stat().st_size,
        notes=_notes(after, file_type, lines, keep, kept),
    )


def _llama() -> ModuleType:
    try:
        import llama_cpp
    except ModuleNotFoundError:
        raise MissingExtraError("llama-cpp-python", "gguf") from None
    return cast("ModuleType", llama_cpp.llama_cpp)


def _embedding_type(name: str, width: int) -> int:
    """The number of a ggml type. Raises UsageError where rows of `width` do not fit its blocks (llama.cpp aborts)."""
    import gguf

    known = {t.name.lower(): t for t in gguf.GGMLQuantizationType}
    if name.lower() not in known:
        raise UsageError(f"unknown embedding type {name!r}", hint="such as q8_0, q6_k, q5_0, q4_0 or f16")
    block, _ = gguf.GGML_QUANT_SIZES[known[name.lower()]]
    if width % block:
        hint = "q8_0, q5_0, q4_0 need multiples of 32, the _k types of 256; f16 takes any"
        raise UsageError(f"embedding type {name}: rows of {width} are no multiple of {block}", hint=hint)
    return int(known[name.lower()])


def _notes(
    after: dict[str, tuple[str, tuple[int, ...]]],
    file_type: str,
    lines: list[str],
    keep: tuple[str, ...],
    kept: list[str],
) -> tuple[str, ...]:
    """What a reader would not expect: tensors of another type than asked for, and keeps that matched nothing."""
    base = BASE.get(file_type, file_type.upper())
    fell: Counter[str] = Counter()
    blocks: dict[str, str] = {}
    for name, width, block, wanted in FALLBACK.findall("".join(lines)):
        key = f"{wanted.upper()} -> {after[name][0]}"
        fell[key] += 1
        blocks[key] = f"rows of {width} are no multiple of {block}"
    notes = [f"{count} tensors {key}: {blocks[key]}" for key, count in sorted(fell.items())]
    embedding = after["token_embd.weight"][0]
    if embedding != base:
        notes.append(f"token embeddings are {embedding}")
    notes += [f"keep: no tensor's name has {part!r} in it" for part in keep if not any(part in name for name in after)]
    if kept:
        notes.append(f"kept as F16: {', '.join(kept)}")
    return tuple(notes)


def tensor_types(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape (rows first) of each tensor in a GGUF file. Raises StageError for a damaged file."""
    import gguf

    try:
        tensors = gguf.GGUFReader(file).tensors
    except (OSError, ValueError, IndexError) as error:
        raise StageError(f"{file}: not a GGUF file ({error})") from None
    return {t.name: (t.tensor_type.name, tuple(int(n) for n in reversed(t.shape))) for t in tensors}


@contextlib.contextmanager
def captured_log(llama: ModuleType) -> Iterator[list[str]]:
    """What llama.cpp logs in the meantime, instead of on the terminal."""
    lines: list[str] = []

    def remember(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        lines.append(text.decode("utf-8", "replace"))

    callback = llama.llama_log_callback(remember)
    before, data = llama.llama_log_callback(), ctypes.c_void_p()
    llama.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    llama.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        llama.llama_log_set(before, data)
