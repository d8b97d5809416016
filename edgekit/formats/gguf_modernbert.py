"""ModernBERT in the terms of llama.cpp's "modern-bert" graph: what it computes, and which weight goes where.

Its linear layers and norms have no biases. Positions are rotations, by one base in layers that see the whole text and
another in local ones, which see half of `sliding_window` tokens each way; which layers are local is a list, or a period
that starts with a global one. One matrix makes neurons and then gates, as Transformers' does; GELU is the tanh
approximation, from a half-precision table. Pooling type RANK averages or takes the first token (a key of its own says
which), then computes `cls` (dense, GELU, norm) and `cls.output`.
Source: llama.cpp, `src/models/modern-bert.cpp`, `load_swa_pattern` and `llm_ffn_op_type_from_string` in
`src/llama-model.cpp`, `is_masked_swa` in `src/llama-hparams.h`, `build_pooling` in `src/llama-graph.cpp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.errors import Problem
from edgekit.formats.gguf_check import Spec
from edgekit.formats.gguf_weights import Source
from edgekit.model_config import ModelConfig, number
from edgekit.nn.families import Family

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["MODERN", "describe_layers", "describe_pooling", "modern_name", "modern_plan", "modern_problems"]

MODERN = "modern-bert"  # general.architecture
FULL, LOCAL = "full_attention", "sliding_attention"
BASES = {FULL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}  # older key, and default
ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "silu": "silu"}  # llama.cpp's name
BIASES = ("attention_bias", "mlp_bias", "norm_bias")
PERIOD, WINDOW = 3, 128  # Transformers' defaults


def modern_problems(config: ModelConfig, classifies: bool) -> list[Problem]:
    """What llama.cpp's graph does not compute of a model with this config."""
    hint = "export to ONNX instead, or distill into a BERT or MiniLM student"
    found = []
    act = config.get("hidden_activation", "gelu")
    if act not in ACTIVATIONS:
        found.append(Problem("config.json: hidden_activation", f"{act}, and llama.cpp has gelu and silu", hint))
    for key in (*BIASES, *(["classifier_bias"] if classifies else [])):
        if config.get(key):
            what = "biases, and llama.cpp's ModernBERT has none there"
            found.append(Problem(f"config.json: {key}", what, hint))
    head = config.get("classifier_activation", "gelu")
    if classifies and ACTIVATIONS.get(str(head)) != "gelu":
        what = f"{head}, and llama.cpp computes gelu there"
        found.append(Problem("config.json: classifier_activation", what, hint))
    scaled = [layer_type for layer_type in BASES if _rope(config, layer_type).get("rope_type", "default") != "default"]
    if scaled or config.get("rope_scaling"):
        found.append(Problem("config.json: rope_parameters", "scaled rotations, which are not written as GGUF", hint))
    types = config.get("layer_types")
    if isinstance(types, list) and types and all(layer_type == LOCAL for layer_type in types):
        what = "all layers are local, and llama.cpp aborts where none sees the whole text"
        found.append(Problem("config.json: layer_types", what, hint))
    return found


def _local(config: ModelConfig, layers: int) -> list[bool]:
    """Of each layer, whether it is local. A cut model lists them in `layer_types`; older configs have a period."""
    types = config.get("layer_types")
    if isinstance(types, list):
        return [layer_type == LOCAL for layer_type in types[:layers]]
    period = config.get("global_attn_every_n_layers", PERIOD)
    return [bool(layer % period) if isinstance(period, int) else True for layer in range(layers)]


def modern_plan(family: Family, layers: int, classifies: bool) -> dict[str, Source]:
    """GGUF tensor name -> weights, in the order they are written."""
    root = family.backbone
    plan = {"token_embd": f"{root}.{family.word_embeddings}", "token_embd_norm": f"{root}.{family.embedding_norm}"}
    for at in range(layers):
        layer, block = f"{root}.{family.layers}.{at}", f"blk.{at}"
        plan |= {f"{block}.attn_norm": f"{layer}.attn_norm"} if at else {}  # the first layer has none
        plan |= {
            f"{block}.attn_qkv": f"{layer}.{family.query}",
            f"{block}.attn_output": f"{layer}.{family.attention_output}",
            f"{block}.ffn_norm": f"{layer}.{family.attention_norm}",
            f"{block}.ffn_up": f"{layer}.{family.ffn_up}",
            f"{block}.ffn_down": f"{layer}.{family.ffn_down}",
        }
    plan["output_norm"] = f"{root}.final_norm"
    plan |= {"cls": "head.dense", "cls.norm": "head.norm", "cls.output": "classifier"} if classifies else {}
    found = {f"{name}.weight": Source((f"{module}.weight",)) for name, module in plan.items()}
    return found | ({"cls.output.bias": Source(("classifier.bias",))} if classifies else {})


def modern_name(spec: Spec) -> str:
    """How the file's name begins: by it llama.cpp knows that [MASK] takes the space before (`src/llama-vocab.cpp`)."""
    takes = any(entry["content"] == "[MASK]" and entry.get("lstrip") for entry in spec.get("added_tokens", []))
    return MODERN if takes else "modernbert"


def describe_layers(writer: GGUFWriter, config: ModelConfig, layers: int) -> None:
    """The metadata of attention and FFN that only this graph has."""
    import gguf

    writer.add_rope_freq_base(_base(config, FULL))
    writer.add_rope_freq_base_swa(_base(config, LOCAL))
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    writer.add_string(f"{MODERN}.hidden_activation", ACTIVATIONS[str(config.get("hidden_activation", "gelu"))])
    local = _local(config, layers)
    if not any(local):
        return  # with a window that no layer has, llama.cpp aborts
    writer.add_sliding_window(number({"local_attention": WINDOW} | config, "local_attention"))
    period = next((at for at in range(1, layers) if not local[at]), layers)
    regular = local == [bool(layer % period) for layer in range(layers)]
    writer.add_sliding_window_pattern(period if regular else local)  # older llama.cpps read periods alone


def describe_pooling(writer: GGUFWriter, config: ModelConfig) -> list[str]:
    """How a classifier pools, and what is worth knowing of it."""
    import gguf

    mean = config.get("classifier_pooling", "cls") == "mean"
    pooling = gguf.PoolingType.MEAN if mean else gguf.PoolingType.CLS
    writer.add_uint32(f"{MODERN}.classifier.pooling_type", pooling.value)
    note = f"a llama.cpp that does not know {MODERN}.classifier.pooling_type averages the tokens: wrong for this model"
    return [] if mean else [note]


def _rope(config: ModelConfig, layer_type: str) -> ModelConfig:
    """The rotation's parameters of layers of this type; {} in older configs."""
    parameters = config.get("rope_parameters")
    own = parameters.get(layer_type) if isinstance(parameters, dict) else None
    return own if isinstance(own, dict) else {}


def _base(config: ModelConfig, layer_type: str) -> float:
    key, default = BASES[layer_type]
    base = _rope(config, layer_type).get("rope_theta", config.get(key))
    return float(base) if isinstance(base, int | float) else default
