"""Rotary position embeddings of config.json in the terms of a GGUF file.

Transformers 5 keeps them in `rope_parameters` (for Gemma 3 one a kind of layer), older files in `rope_theta` and
`rope_scaling`. Llama 3's scaling becomes a factor for each frequency (`rope_freqs.weight`), LongRoPE's two lists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from edgekit.errors import ModelError, Problem
from edgekit.model_config import ModelConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["Rope", "rope_of", "rope_problems"]

Parameters = dict[str, JsonValue]
YARN = ("extrapolation_factor", "attention_factor", "beta_fast", "beta_slow")


@dataclass(frozen=True)
class Rope:
    """`kind` default, linear, yarn, llama3 or longrope; `base` (and `local_base`, of layers with a window) theta;
    `tensors`: factors of the frequencies, float32."""

    kind: str
    base: float
    dimensions: int
    local_base: float | None = None
    factor: float | None = None
    original_context: int | None = None
    attention_factor: float | None = None
    yarn: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def describe(self, writer: GGUFWriter) -> None:
        """Add the keys under `*.rope.*`."""
        import gguf

        writer.add_rope_dimension_count(self.dimensions)
        writer.add_rope_freq_base(self.base)
        if self.local_base is not None:
            writer.add_rope_freq_base_swa(self.local_base)
        if self.kind in ("linear", "yarn", "longrope"):
            writer.add_rope_scaling_type(gguf.RopeScalingType[self.kind.upper()])
        if self.factor is not None and self.kind in ("linear", "yarn"):
            writer.add_rope_scaling_factor(self.factor)
        if self.original_context is not None:
            writer.add_rope_scaling_orig_ctx_len(self.original_context)
        if self.attention_factor is not None:
            writer.add_rope_scaling_attn_factors(self.attention_factor)
        adders = (
            writer.add_rope_scaling_yarn_ext_factor,
            writer.add_rope_scaling_yarn_attn_factor,
            writer.add_rope_scaling_yarn_beta_fast,
            writer.add_rope_scaling_yarn_beta_slow,
        )
        for key, add in zip(YARN, adders, strict=True):
            if key in self.yarn:
                add(self.yarn[key])


def rope_problems(config: ModelConfig, known: tuple[str, ...]) -> list[Problem]:
    """A scaling that llama.cpp's graph does not compute."""
    kind = _kind(_parameters(config)[0])
    if not known or kind in known:
        return []
    what = f"rotary scaling {kind}: llama.cpp's {config['model_type']} has {', '.join(known)}"
    return [Problem("config.json: rope_parameters", what, "export to onnx-genai instead")]


def rope_of(config: ModelConfig, head_dim: int) -> Rope:
    """Raises ModelError where a number that the scaling needs is missing."""
    parameters, local = _parameters(config)
    kind = _kind(parameters)
    base = _number(parameters, "rope_theta", 10000.0)
    dimensions = int(_number(parameters, "partial_rotary_factor", 1.0) * head_dim)
    context = int(_number(config, "max_position_embeddings", 2048.0))
    rope = Rope(kind, base, dimensions, local_base=local)
    if kind in ("linear", "yarn"):
        original = int(_number(parameters, "original_max_position_embeddings", context))
        numbers = {key: _number(parameters, key) for key in YARN if parameters.get(key) is not None}
        return Rope(
            kind,
            base,
            dimensions,
            local_base=local,
            factor=_number(parameters, "factor"),
            original_context=original if kind == "yarn" else None,
            yarn=numbers,
        )
    if kind == "llama3":
        return Rope(kind, base, dimensions, tensors={"rope_freqs.weight": _llama3(parameters, base, dimensions)})
    if kind in ("longrope", "su"):
        return _longrope(config, parameters, Rope("longrope", base, dimensions), context)
    return rope


def _parameters(config: ModelConfig) -> tuple[Parameters, float | None]:
    """The parameters (of layers with full attention), and theta of the layers with a window where it differs."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    parameters = dict(found) if isinstance(found, dict) else {}
    local = config.get("rope_local_base_freq")
    sliding, full = parameters.get("sliding_attention"), parameters.get("full_attention")
    if isinstance(full, dict):
        local = sliding.get("rope_theta") if isinstance(sliding, dict) else local
        parameters = dict(full)
    for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
        if key not in parameters and config.get(key) is not None:
            parameters[key] = config[key]
    return parameters, float(local) if isinstance(local, int | float) else None


def _kind(parameters: Parameters) -> str:
    return str(parameters.get("rope_type") or parameters.get("type") or "default").lower()


def _number(values: Parameters, key: str, default: float | None = None) -> float:
    value = values.get(key)
    value = value if value is not None else default
    if not isinstance(value, int | float):
        raise ModelError(f"config.json: rope_parameters has no number {key}")
    return float(value)


def _llama3(parameters: Parameters, base: float, dimensions: int) -> NDArray[np.float32]:
    """What each frequency is divided by: 1 for short waves, `factor` for long ones, smoothly between (Llama 3.1)."""
    factor = _number(parameters, "factor", 8.0)
    low, high = _number(parameters, "low_freq_factor", 1.0), _number(parameters, "high_freq_factor", 4.0)
    original = _number(parameters, "original_max_position_embeddings", 8192)
    waves = 2 * math.pi * base ** (np.arange(0, dimensions, 2, dtype=np.float32) / dimensions)
    smooth = np.clip((original / waves - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)


def _longrope(config: ModelConfig, parameters: Parameters, rope: Rope, context: int) -> Rope:
    """Two lists of factors; attention is scaled by sqrt(1 + ln(longer by) / ln(original))."""
    original = _number(parameters, "original_max_position_embeddings", 4096.0)
    scale = context / original
    attention = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    tensors = {}
    for which in ("long", "short"):
        factors = parameters.get(f"{which}_factor")
        if not isinstance(factors, list) or len(factors) != rope.dimensions // 2:
            raise ModelError(f"config.json: rope_parameters needs {rope.dimensions // 2} numbers as {which}_factor")
        tensors[f"rope_factors_{which}.weight"] = np.asarray(factors, dtype=np.float32)
    return Rope(
        "longrope",
        rope.base,
        rope.dimensions,
        original_context=int(original),
        attention_factor=_number(parameters, "attention_factor", attention),
        tensors=tensors,
    )
