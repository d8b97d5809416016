"""Small random decoders of each architecture, with a tokenizer trained here; and what llama.cpp's quantizer makes."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

TEXTS = [
    "Once upon a time, there was a little girl named Lily. She liked to play outside.",
    "It's 12345 o'clock;  we'll\n\n\tmeet at the café -- they've said so!",
    "You are all resolved rather to die than to famish? Resolved. resolved.",
]
SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}
OPTIONS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"head_dim": 32},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "phi3": {"original_max_position_embeddings": 64},
    "gpt2": {},
}


def byte_level(folder: Path, **parts: Any) -> None:
    """A byte-level BPE `tokenizer.json` with tokens 0 <s> and 1 </s>; `parts` are set on the tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for name, value in parts.items():
        setattr(tokenizer, name, value)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=310, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_decoder(folder: Path, kind: str, *, shard: str = "5GB", **changes: Any) -> Path:
    """A random model whose norms and biases are random too, so that none of them can be forgotten."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **OPTIONS[kind], **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=shard)
    byte_level(folder)
    return folder


def quantize_with_llama(source: Path, out: Path, preset: str, importance: dict[str, Any] | None = None) -> None:
    """`llama_model_quantize` of a whole file."""
    import llama_cpp
    import numpy as np

    from edgekit.formats.gguf_quantize import captured_log

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{preset.upper()}")
    params.nthread = 1
    if importance is not None:
        kept = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in importance.items()}
        data = (llama_cpp.llama_model_imatrix_data * (len(kept) + 1))()  # the last one stays empty: the end mark
        for slot, (name, values) in zip(data, kept.items(), strict=False):
            slot.name, slot.size = name.encode(), values.size
            slot.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = ctypes.cast(data, type(params.imatrix)) if params.imatrix is not None else data
    with captured_log(llama_cpp.llama_cpp):
        llama_cpp.llama_backend_init()
        assert llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) == 0


def tensors(file: Path) -> dict[str, tuple[str, Any]]:
    """Type and bytes of every tensor."""
    import gguf

    return {t.name: (t.tensor_type.name.lower(), t.data) for t in gguf.GGUFReader(file).tensors}
