"""A file size as what it leaves for the tensors that may be quantized."""

from __future__ import annotations

import re
from pathlib import Path

from edgekit.errors import UsageError
from edgekit.formats.ggml import row_bytes
from edgekit.formats.gguf_decoder import bytes_besides, decoder_tensors, preset_types
from edgekit.formats.gguf_decoder_types import PRESETS
from edgekit.rules import BYTES

__all__ = ["budget_bytes", "file_size"]

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG]i?B|B)")


def budget_bytes(folder: Path, budget: str) -> int:
    """What the tensors that may be quantized can take, for a file of a size such as "3.8MB" or "q4_k_m" (that type's).

    Raises UsageError where it is neither.
    """
    specs = {spec.name: spec for spec in decoder_tensors(folder)}
    if budget in PRESETS:
        types = preset_types(folder, budget).items()
        return sum(specs[name].shape[0] * row_bytes(kind, specs[name].shape[1]) for name, kind in types)
    size = file_size(budget)
    if size is None:
        raise UsageError(f"budget {budget!r} is no size", hint=f'such as "3.8MB", or one of: {", ".join(PRESETS)}')
    return size - bytes_besides(folder)


def file_size(text: str) -> int | None:
    """Bytes that a text such as "3.8MB" says; None where it says no size."""
    found = SIZE.fullmatch(text.strip())
    return int(float(found[1]) * BYTES[found[2]]) if found else None
