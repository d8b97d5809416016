"""Where each decoder architecture keeps its parts, and which axis each dimension of a weight runs along: data.

A new family is one `DecoderFamily` and one line in `FAMILIES`. The axes: `hidden` (the residual stream), `query` (query
heads x head size), `kv` (key-value heads x head size), `ffn` (FFN neurons), `vocabulary`. A fused matrix joins the axes
of its parts: "query+kv+kv".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from edgekit.errors import ModelError
from edgekit.model_config import ModelConfig

__all__ = [
    "FAMILIES",
    "Axis",
    "DecoderFamily",
    "decoder_family",
    "family_of_config",
    "module_axes",
    "split_layer",
    "tensor_axes",
]

Axis = Literal["hidden", "query", "kv", "ffn", "vocabulary"]

ATTENTION = {
    "self_attn.q_proj": "query hidden",
    "self_attn.k_proj": "kv hidden",
    "self_attn.v_proj": "kv hidden",
    "self_attn.o_proj": "hidden query",
}
GATED_FFN = {"mlp.gate_proj": "ffn hidden", "mlp.up_proj": "ffn hidden", "mlp.down_proj": "hidden ffn"}


@dataclass(frozen=True)
class DecoderFamily:
    """Attribute paths, axes and config keys of one architecture. Paths of a layer's parts start at the layer.

    `matrices`: path -> "outputs inputs"; a bias runs along the outputs. `reads`: each matrix that reads the residual
    stream -> the first matrix with the same input.
    """

    layers: str = "model.layers"
    embeddings: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    matrices: Mapping[str, str] = field(default_factory=lambda: ATTENTION | GATED_FFN)
    reads: Mapping[str, str] = field(
        default_factory=lambda: {
            "self_attn.q_proj": "self_attn.q_proj",
            "self_attn.k_proj": "self_attn.q_proj",
            "self_attn.v_proj": "self_attn.q_proj",
            "mlp.gate_proj": "mlp.gate_proj",
            "mlp.up_proj": "mlp.gate_proj",
        }
    )
    attention_output: str = "self_attn.o_proj"
    ffn_output: str = "mlp.down_proj"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")  # read the residual stream
    output_norms: tuple[str, ...] = ()  # of what attention and FFN add to it
    norm_offset: float = 0.0  # Gemma's norms multiply by 1 + weight
    scales_embeddings: bool = False  # by the square root of the hidden width
    inputs_first: bool = False  # GPT-2's Conv1D stores (in, out)
    fixed_hidden: str = ""  # why the hidden width and the heads cannot change
    ffn_key: str = "intermediate_size"
    layer_pattern: int = 0  # llama.cpp takes each n-th layer for one of full attention, whatever config.json says


LLAMA = DecoderFamily()
GEMMA2 = DecoderFamily(
    norms=("input_layernorm", "pre_feedforward_layernorm"),
    output_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    norm_offset=1.0,
    scales_embeddings=True,
    layer_pattern=2,
)
GEMMA3 = DecoderFamily(
    norms=GEMMA2.norms,
    output_norms=GEMMA2.output_norms,
    norm_offset=1.0,
    scales_embeddings=True,
    layer_pattern=6,
)
PHI3 = DecoderFamily(
    matrices={
        "self_attn.qkv_proj": "query+kv+kv hidden",
        "self_attn.o_proj": "hidden query",
        "mlp.gate_up_proj": "ffn+ffn hidden",
        "mlp.down_proj": "hidden ffn",
    },
    reads={"self_attn.qkv_proj": "self_attn.qkv_proj", "mlp.gate_up_proj": "mlp.gate_up_proj"},
)
GPT2 = DecoderFamily(
    layers="transformer.h",
    embeddings="transformer.wte",
    final_norm="transformer.ln_f",
    matrices={
        "attn.c_attn": "query+kv+kv hidden",
        "attn.c_proj": "hidden query",
        "mlp.c_fc": "ffn hidden",
        "mlp.c_proj": "hidden ffn",
    },
    reads={"attn.c_attn": "attn.c_attn", "mlp.c_fc": "mlp.c_fc"},
    attention_output="attn.c_proj",
    ffn_output="mlp.c_proj",
    norms=("ln_1", "ln_2"),
    inputs_first=True,
    fixed_hidden="its config.json says width = heads x head size, and its norms take the mean over all channels",
    ffn_key="n_inner",
)
FAMILIES: dict[str, DecoderFamily] = {  # by config.json's model_type
    "llama": LLAMA,  # SmolLM and SmolLM2 too
    "mistral": LLAMA,
    "qwen2": LLAMA,  # Qwen2.5 too
    "qwen3": LLAMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "phi3": PHI3,
    "gpt2": GPT2,
}
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def decoder_family(model_type: str) -> DecoderFamily:
    """The family of a config's `model_type`. Raises ModelError for one that is not known."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(f"architecture {model_type!r} is not supported", hint=f"supported decoders: {known}")
    return FAMILIES[model_type]


def family_of_config(config: ModelConfig) -> DecoderFamily:
    """The family of a parsed config.json. Raises ModelError for one that is not known, and for experts."""
    found = [key for key in EXPERTS if config.get(key)]
    if found:
        what = f"{config.get('model_type')} is a mixture of experts ({found[0]} {config[found[0]]})"
        hint = "each expert would need a router and sizes of its own; only dense decoders are supported"
        raise ModelError(what, hint=hint)
    return decoder_family(str(config.get("model_type")))


def module_axes(family: DecoderFamily, name: str) -> tuple[tuple[Axis, ...], ...]:
    """Axes of a module's (outputs, inputs), by its path (a layer's from the layer); () where nothing is ever cut."""
    if name in (*family.norms, *family.output_norms, family.final_norm):
        return (("hidden",),)
    spec = {family.embeddings: "vocabulary hidden", "lm_head": "vocabulary hidden"} | dict(family.matrices)
    return tuple(cast("tuple[Axis, ...]", tuple(part.split("+"))) for part in spec.get(name, "").split())


def tensor_axes(family: DecoderFamily, name: str) -> tuple[tuple[Axis, ...], ...]:
    """Axes of each dimension of a tensor of the state dictionary; () where nothing is ever cut."""
    module, _, kind = split_layer(family, name)[1].rpartition(".")
    axes = module_axes(family, module)
    if kind == "bias":
        return axes[:1]
    return axes[::-1] if family.inputs_first and module in family.matrices else axes


def split_layer(family: DecoderFamily, name: str) -> tuple[int | None, str]:
    """Number of the layer, and the name from there; None and the whole name outside of the layers."""
    if not name.startswith(family.layers + "."):
        return None, name
    number, _, rest = name.removeprefix(family.layers + ".").partition(".")
    return int(number), rest
