"""A Llama of true shape with random weights, written layer by layer: for cost, where quality does not matter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["TRUE_SHAPE", "write_model"]

TRUE_SHAPE: Mapping[str, int] = {  # TinyLlama 1.1B's
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
SPREAD = 0.02  # standard deviation of the weights


def write_model(folder: Path, shape: Mapping[str, int], tokenizer_from: Path) -> int:
    """Write config, a shard for each layer in bfloat16, and a tokenizer (of fewer tokens: the rest is unused); returns
    the bytes of the largest tensor."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    folder.mkdir(parents=True)
    config = LlamaConfig(**shape, max_position_embeddings=2048, tie_word_embeddings=False)
    config.update({"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"})
    config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(tokenizer_from / name, folder / name)
    torch.manual_seed(0)
    places: dict[str, str] = {}
    largest = 0
    for number, shapes in enumerate(_shards(config)):
        shard = f"model-{number:05d}.safetensors"
        tensors = {name: _values(size) for name, size in shapes.items()}
        save_file(tensors, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(tensors, shard)
        largest = max(largest, *(tensor.nbytes for tensor in tensors.values()))
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return largest


def _shards(config: object) -> list[dict[str, tuple[int, ...]]]:
    """Shapes by name: the ends of the model, then each layer."""
    from transformers import LlamaConfig

    assert isinstance(config, LlamaConfig)
    wide, inner = config.hidden_size, config.intermediate_size
    shared = wide // config.num_attention_heads * config.num_key_value_heads
    matrices = {
        "self_attn.q_proj": (wide, wide),
        "self_attn.k_proj": (shared, wide),
        "self_attn.v_proj": (shared, wide),
        "self_attn.o_proj": (wide, wide),
        "mlp.gate_proj": (inner, wide),
        "mlp.up_proj": (inner, wide),
        "mlp.down_proj": (wide, inner),
    }
    vectors = {"input_layernorm": (wide,), "post_attention_layernorm": (wide,)}
    table = (config.vocab_size, wide)
    ends = {"model.embed_tokens.weight": table, "lm_head.weight": table, "model.norm.weight": (wide,)}
    layers = range(config.num_hidden_layers)
    return [ends, *({f"model.layers.{n}.{k}.weight": s for k, s in {**matrices, **vectors}.items()} for n in layers)]


def _values(size: tuple[int, ...]) -> torch.Tensor:
    import torch

    return torch.ones(size, dtype=torch.bfloat16) if len(size) == 1 else (torch.randn(size) * SPREAD).bfloat16()
