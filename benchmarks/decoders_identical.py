"""Whether our GGUF files hold the very bytes that llama.cpp's quantizer makes of the same weights: Q8_0 and Q4_0, on
the small model and on another shape (rows that are no multiple of 256, shared heads, an output matrix of its own)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.decoders_bed import Bed, llama_quantize
from benchmarks.record import Figure
from edgekit.formats.gguf_decoder import preset_types, write_gguf_decoder

__all__ = ["equal_tensors", "figures"]

PRESETS = ("q8_0", "q4_0")


def figures(bed: Bed, scratch: Path) -> Iterator[Figure]:
    same = count = 0
    for model in (bed.model, other_shape(bed.model, scratch / "other")):
        plain = scratch / "f32.gguf"
        write_gguf_decoder(model, plain, {})
        for preset in PRESETS:
            theirs, ours = scratch / "theirs.gguf", scratch / "ours.gguf"
            llama_quantize(plain, theirs, preset)
            write_gguf_decoder(model, ours, preset_types(model, preset))
            found, of = equal_tensors(ours, theirs)
            same, count = same + found, count + of
    yield Figure(
        figure="gguf.identical_tensors",
        value=same / count,
        unit="1",
        against="llama_model_quantize of the f32 file",
        n=count,
        conditions=f"{same} of {count} tensors the same type and bytes, {' and '.join(PRESETS)}, llama-6m and a random "
        "Llama (320 wide, FFN 864, 10 heads on 2, untied)",
    )


def other_shape(tokenizer_from: Path, folder: Path) -> Path:
    """A random Llama, saved in bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=320,
        intermediate_size=864,
        num_hidden_layers=4,
        num_attention_heads=10,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_from / name, folder / name)
    return folder


def equal_tensors(ours: Path, theirs: Path) -> tuple[int, int]:
    """How many tensors have the same name, type, shape and bytes in both files, of how many in either."""
    first, second = _contents(ours), _contents(theirs)
    names = first.keys() | second.keys()
    return sum(first.get(name) == second.get(name) for name in names), len(names)


def _contents(file: Path) -> dict[str, tuple[object, ...]]:
    from gguf import GGUFReader

    return {
        tensor.name: (tensor.tensor_type, tuple(tensor.shape), hashlib.blake2b(tensor.data).digest())
        for tensor in GGUFReader(file).tensors
    }
