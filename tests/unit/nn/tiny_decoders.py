"""Tiny random decoders of each family, made in the test."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2")


def tiny_decoder(
    family: str,
    *,
    hidden: int = 24,
    groups: int = 2,
    shared: int = 2,
    head: int = 4,
    ffn: int = 20,
    layers: int = 3,
    vocabulary: int = 50,
    tied: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> PreTrainedModel:
    """A model with weights, biases and norms far from their stock initialization; a norm's epsilon hardly counts."""
    sizes: dict[str, object] = {"vocab_size": vocabulary, "tie_word_embeddings": tied, "pad_token_id": None}
    sizes |= {"bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 64}
    if family == "gpt2":
        heads = groups * shared
        sizes |= {"n_embd": heads * head, "n_head": heads, "n_layer": layers, "n_inner": ffn}
    else:
        sizes |= {"hidden_size": hidden, "num_key_value_heads": groups, "num_attention_heads": groups * shared}
        sizes |= {"head_dim": head, "intermediate_size": ffn, "num_hidden_layers": layers, "rms_norm_eps": 1e-12}
    if family.startswith("gemma"):
        sizes |= {"query_pre_attn_scalar": head, "sliding_window": 4}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes), dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.tie_weights()
    return model.eval()
