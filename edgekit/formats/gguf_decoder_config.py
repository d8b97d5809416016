"""Decoder architectures that llama.cpp has, as data: config.json in the terms of a GGUF file, and what cannot be said.

Source: llama.cpp, `src/models/*.cpp` (what each graph computes) and `conversion/*.py` (which keys it reads).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from edgekit.errors import ModelError, Problem
from edgekit.formats.gguf_decoder_rope import Rope, rope_of, rope_problems
from edgekit.model_config import ModelConfig, number, read_config
from edgekit.nn.load import read_edits

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Shape",
    "architecture_of",
    "describe",
    "notes_of",
    "obstacles",
    "obstacles_of",
    "rotary",
    "shape_of",
]

SILU, GELU = ("silu", "swish"), ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")
TO_ONNX = "export to onnx-genai instead"


@dataclass(frozen=True)
class Architecture:
    """`name` is llama.cpp's; `defaults` are Transformers' where config.json is silent; `keys` are other names of keys.

    `pairs`: rotary pairs are neighbours, so rows of q and k are reordered. `norm_shift`: added to norms, which are
    stored less one. `transposed`: matrices stored input by output. `biases`: whether attention may have them.
    """

    name: str
    activations: tuple[str, ...] = SILU
    defaults: Mapping[str, JsonValue] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    ropes: tuple[str, ...] = ("default", "linear", "yarn")
    pairs: bool = False
    norm_shift: float = 0.0
    transposed: tuple[str, ...] = ()
    biases: bool = False
    windows: bool = False  # whether the graph has layers with a sliding window
    untied: bool = True  # whether the graph has an output matrix of its own
    free_heads: bool = True  # whether heads x head size may differ from the hidden size


LLAMA_ROPES = ("default", "linear", "yarn", "llama3")
GEMMA: dict[str, JsonValue] = {"tie_word_embeddings": True, "head_dim": 256, "query_pre_attn_scalar": 256}
GEMMA |= {"sliding_window": 4096, "hidden_activation": "gelu_pytorch_tanh", "num_key_value_heads": 4}
GPT2_KEYS = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
GPT2_KEYS |= {"max_position_embeddings": "n_positions", "intermediate_size": "n_inner"}
GPT2_KEYS |= {"hidden_act": "activation_function", "num_key_value_heads": "n_head"}
ARCHITECTURES: Mapping[str, Architecture] = {  # by model_type
    "llama": Architecture("llama", ropes=LLAMA_ROPES, pairs=True, biases=True),
    "mistral": Architecture(
        "llama",
        ropes=LLAMA_ROPES,
        pairs=True,
        defaults={"num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131072},
    ),
    "qwen2": Architecture("qwen2", biases=True, free_heads=False),
    "qwen3": Architecture("qwen3", defaults={"head_dim": 128}),
    "gemma2": Architecture(
        "gemma2",
        GELU,
        defaults=GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window_pattern": 2},
        keys={"hidden_act": "hidden_activation"},
        norm_shift=1.0,
        windows=True,
        untied=False,
    ),
    "gemma3_text": Architecture(
        "gemma3",
        GELU,
        defaults=GEMMA | {"rope_theta": 1e6, "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
        keys={"hidden_act": "hidden_activation"},
        norm_shift=1.0,
        windows=True,
    ),
    "phi3": Architecture(
        "phi3",
        ropes=("default", "longrope", "su", "yarn"),
        defaults={"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
        free_heads=False,
    ),
    "gpt2": Architecture(
        "gpt2",
        GELU,
        defaults={"tie_word_embeddings": True, "activation_function": "gelu_new", "n_positions": 1024},
        keys=GPT2_KEYS,
        ropes=(),
        transposed=("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"),
        free_heads=False,
    ),
}


@dataclass(frozen=True)
class Shape:
    """The model's sizes. `window` in tokens, with a mark per layer where only some layers have one; 0 where none."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    tied: bool
    window: int = 0
    windowed: tuple[bool, ...] = ()


def architecture_of(config: ModelConfig) -> Architecture:
    """Raises ModelError where there are obstacles to it (see `obstacles`)."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ModelError(f"llama.cpp export of {kind} is not known", hint=f"known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind]


def setting(config: ModelConfig, key: str) -> JsonValue:
    """A value of config.json under its common name, or Transformers' default."""
    arch = architecture_of(config)
    own = arch.keys.get(key, key)
    found = config.get(own, config.get(key))
    return found if found is not None else arch.defaults.get(own)


def shape_of(config: ModelConfig) -> Shape:
    """Raises ModelError where a size is missing."""
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    layers = _size(config, "num_hidden_layers")
    windowed = _windowed(config, layers)
    return Shape(
        layers=layers,
        hidden=hidden,
        ffn=_size(config, "intermediate_size", 4 * hidden),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", heads),
        head_dim=_size(config, "head_dim", hidden // heads),
        vocab=_size(config, "vocab_size"),
        context=_size(config, "max_position_embeddings", 2048),
        tied=bool(setting(config, "tie_word_embeddings") or False),
        window=_size(config, "sliding_window") if any(windowed) else 0,
        windowed=windowed,
    )


def _size(config: ModelConfig, key: str, default: int | None = None) -> int:
    value = setting(config, key)
    return number({key: value if value is not None else default}, key)


def _windowed(config: ModelConfig, layers: int) -> tuple[bool, ...]:
    """Which layers see only a window: named in config.json, or all but every so manyth."""
    if not architecture_of(config).windows:
        return ()
    named = config.get("layer_types")
    if isinstance(named, list):
        return tuple(kind == "sliding_attention" for kind in named)
    pattern = _size(config, "sliding_window_pattern")
    return tuple((layer + 1) % pattern != 0 for layer in range(layers))


def obstacles(folder: Path) -> list[Problem]:
    """Why this model cannot become a GGUF decoder; [] where it can. Reads config.json (and edits.json) alone.

    Raises ModelError where config.json is missing or damaged.
    """
    found = obstacles_of(read_config(folder))
    if not read_edits(folder).empty:
        what = "layers have shapes of their own (low-rank, or pruned unevenly), and GGUF has one for all"
        found.append(Problem("edits.json", what, f"merge them back, or {TO_ONNX}"))
    return found


def obstacles_of(config: ModelConfig) -> list[Problem]:
    """The same for config.json's values alone."""
    kind = str(config.get("model_type"))
    experts = [key for key in EXPERTS if isinstance(config.get(key), int) and number(config, key) > 1]
    if experts or "moe" in kind or kind == "mixtral":
        return [Problem("config.json", f"{kind} is a mixture of experts; only dense models are exported")]
    if kind not in ARCHITECTURES:
        return [Problem("config.json", f"no GGUF export of {kind}; known: {', '.join(ARCHITECTURES)}", TO_ONNX)]
    found = [*_graph_problems(config), *rope_problems(config, ARCHITECTURES[kind].ropes)]
    if config.get("quantization_config"):
        what = "the weights are quantized already, and GGUF is made from the original ones"
        found.append(Problem("config.json: quantization_config", what, "give the unquantized checkpoint"))
    names = config.get("architectures")
    if isinstance(names, list) and names and not str(names[0]).endswith(("ForCausalLM", "LMHeadModel")):
        found.append(Problem("config.json: architectures", f"{names[0]} is no causal language model"))
    return found


def _graph_problems(config: ModelConfig) -> list[Problem]:
    """What llama.cpp's graph of this architecture computes otherwise."""
    arch, shape = architecture_of(config), shape_of(config)
    act = setting(config, "hidden_act") or arch.activations[0]
    scalar = setting(config, "query_pre_attn_scalar") or shape.head_dim
    big = shape.layers == {"gemma2": 46, "gemma3": 62}.get(arch.name)
    checks = {
        f"hidden_act {act}; llama.cpp computes {arch.activations[0]}": act not in arch.activations,
        "attention_bias": bool(config.get("attention_bias")) and not arch.biases,
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "tie_word_embeddings=false": not shape.tied and not arch.untied,
        f"heads of {shape.head_dim}, which do not fill the hidden size {shape.hidden}": (
            not arch.free_heads and shape.heads * shape.head_dim != shape.hidden
        ),
        "rotary sizes that are odd": shape.head_dim % 2 == 1 and bool(arch.ropes),
        f"query_pre_attn_scalar {scalar}": scalar != (shape.hidden // shape.heads if big else shape.head_dim),
        "attn_logit_softcapping": arch.name == "gemma3" and config.get("attn_logit_softcapping") is not None,
        "scale_attn_by_inverse_layer_idx": bool(config.get("scale_attn_by_inverse_layer_idx")),
        "scale_attn_weights=false": config.get("scale_attn_weights") is False,
        "add_cross_attention": bool(config.get("add_cross_attention")),
    }
    why = f"llama.cpp's {arch.name} does not have it"
    return [Problem("config.json", f"{what}: {why}", TO_ONNX) for what, wrong in checks.items() if wrong]


def notes_of(config: ModelConfig) -> tuple[str, ...]:
    """What a reader would not expect of the file."""
    window, context = setting(config, "sliding_window"), shape_of(config).context
    if not architecture_of(config).windows and isinstance(window, int) and 0 < window < context:
        return (f"attention looks back {window} tokens in this model, and over the whole text in llama.cpp",)
    return ()


def rotary(config: ModelConfig) -> Rope:
    """The rotary embedding, with Transformers' defaults where config.json is silent."""
    arch = architecture_of(config)
    return rope_of({**arch.defaults, **config}, shape_of(config).head_dim)


def describe(writer: GGUFWriter, config: ModelConfig, file_type: str) -> None:
    """Add `general.*` and the architecture's own keys. `file_type`: a name of `gguf.LlamaFileType`."""
    import gguf

    arch, shape = architecture_of(config), shape_of(config)
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    if "layer_norm_epsilon" in config or arch.name == "gpt2":
        writer.add_layer_norm_eps(_real(config, "layer_norm_epsilon", 1e-5))
    else:
        writer.add_layer_norm_rms_eps(_real(config, "rms_norm_eps", 1e-6))
    for key, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if setting(config, key) is not None:
            add(_real(config, key, 0.0))
    if arch.windows or arch.name == "phi3":  # llama.cpp tells Phi-3 from Phi-4 by this key, and computes no window
        writer.add_sliding_window(shape.window)
    if shape.window:
        writer.add_sliding_window_pattern(list(shape.windowed))
    if arch.ropes:
        rotary(config).describe(writer)


def _real(config: ModelConfig, key: str, default: float) -> float:
    value = setting(config, key)
    return float(value) if isinstance(value, int | float) else default
