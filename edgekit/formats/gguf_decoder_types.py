"""Which ggml type each tensor of a decoder gets under a preset such as q4_k_m: llama.cpp's own mixes, as a table.

A preset has one main type; value projections, down projections and attention outputs may get others, by their place
among the layers. Source: llama.cpp, `llama_tensor_get_type_impl` and `tensor_type_fallback` in `src/llama-quant.cpp`
(dense models). `types_of` is tested against `llama_model_quantize`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edgekit.errors import StageError, UsageError
from edgekit.formats.ggml import ggml_type

__all__ = ["FLOATS", "PRESETS", "Preset", "TensorSpec", "types_of"]

FLOATS = ("f32", "f16", "bf16")
FALLBACK = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0", "iq4_xs": "iq4_nl"}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the GGUF file: `shape` rows first, `source` its name in the checkpoint ("" where it is computed),
    `quantizable` whether llama.cpp lets it be anything but f32, `bytes` as the checkpoint stores it."""

    name: str
    source: str
    shape: tuple[int, ...]
    quantizable: bool
    bytes: int


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: the how manyth of its kind, of how many; query heads per key-value head."""

    index: int
    count: int
    group: int
    importance: bool


Rule = Callable[[Place], str | None]  # None: the main type


def base(place: Place) -> str | None:
    return None


def always(kind: str) -> Rule:
    return lambda place: kind


def first(count: int, kind: str, then: str | None = None) -> Rule:
    return lambda place: kind if place.index < count else then


def early(part: int, kind: str, then: str | None = None) -> Rule:
    """In the first `1 / part` of the layers."""
    return lambda place: kind if place.index < place.count // part else then


def spread(kind: str) -> Rule:
    """In the first and last eighth of the layers, and in every third between them."""

    def rule(place: Place) -> str | None:
        eighth = place.count // 8
        outer = place.index < eighth or place.index >= 7 * place.count // 8
        return kind if outer or (place.index - eighth) % 3 == 2 else None

    return rule


def grouped(kind: str, otherwise: str | None = None) -> Rule:
    """Where at least four query heads share a value."""
    return lambda place: kind if place.group >= 4 else otherwise


def given(importance: bool, rule: Rule) -> Rule:
    """Only with (or only without) an importance matrix."""
    return lambda place: rule(place) if place.importance == importance else None


@dataclass(frozen=True)
class Preset:
    """A mix: `file_type` is its name in `general.file_type`."""

    main: str
    file_type: str
    value: Rule = base
    down: Rule = base
    attention_output: Rule = base
    needs_importance: bool = False


PRESETS: Mapping[str, Preset] = {
    "f32": Preset("f32", "ALL_F32"),
    "f16": Preset("f16", "MOSTLY_F16"),
    "bf16": Preset("bf16", "MOSTLY_BF16"),
    "q8_0": Preset("q8_0", "MOSTLY_Q8_0"),
    "q6_k": Preset("q6_k", "MOSTLY_Q6_K"),
    "q5_k_m": Preset("q5_k", "MOSTLY_Q5_K_M", value=spread("q6_k"), down=spread("q6_k")),
    "q5_k_s": Preset("q5_k", "MOSTLY_Q5_K_S"),
    "q5_1": Preset("q5_1", "MOSTLY_Q5_1"),
    "q5_0": Preset("q5_0", "MOSTLY_Q5_0", down=given(True, early(8, "q5_1"))),
    "q4_k_m": Preset("q4_k", "MOSTLY_Q4_K_M", value=spread("q6_k"), down=spread("q6_k")),
    "q4_k_s": Preset("q4_k", "MOSTLY_Q4_K_S", value=first(4, "q5_k"), down=early(8, "q5_k")),
    "q4_1": Preset("q4_1", "MOSTLY_Q4_1"),
    "q4_0": Preset("q4_0", "MOSTLY_Q4_0", down=given(True, early(8, "q4_1"))),
    "iq4_nl": Preset("iq4_nl", "MOSTLY_IQ4_NL", value=grouped("q5_k"), down=given(False, early(8, "q5_k"))),
    "iq4_xs": Preset("iq4_xs", "MOSTLY_IQ4_XS", value=grouped("q5_k"), down=given(False, early(8, "q5_k"))),
    "q3_k_l": Preset(
        "q3_k", "MOSTLY_Q3_K_L", value=always("q5_k"), down=always("q5_k"), attention_output=always("q5_k")
    ),
    "q3_k_m": Preset(
        "q3_k",
        "MOSTLY_Q3_K_M",
        value=first(2, "q5_k", "q4_k"),
        down=early(16, "q5_k", "q4_k"),
        attention_output=always("q4_k"),
    ),
    "q3_k_s": Preset("q3_k", "MOSTLY_Q3_K_S"),
    "q2_k": Preset(
        "q2_k",
        "MOSTLY_Q2_K",
        value=grouped("q4_k", "q3_k"),
        down=always("q3_k"),
        attention_output=always("q3_k"),
    ),
    "q2_k_s": Preset("q2_k", "MOSTLY_Q2_K_S", value=grouped("q4_k"), down=early(8, "q4_k"), needs_importance=True),
}


def types_of(
    tensors: Iterable[TensorSpec], preset: str, *, group: int, importance: bool = False, large: bool = False
) -> dict[str, str]:
    """The type of each tensor that may be quantized, as `llama_model_quantize` picks it.

    `tensors` in the order of their layers. `group`: query heads per key-value head. `large`: a 70B model (80 layers
    with grouped heads), whose shared values get more bits. Raises UsageError for an unknown preset, StageError for one
    that is garbage without an importance matrix.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown GGUF type {preset!r}", hint=f"one of: {', '.join(PRESETS)}")
    mix = PRESETS[preset]
    if mix.needs_importance and not importance:
        raise StageError(f"{preset} needs an importance matrix", hint="turn it on with --importance, or take q2_k")
    specs = [spec for spec in tensors if spec.quantizable]
    if mix.main in FLOATS:
        return {spec.name: mix.main for spec in specs}
    kinds = [_kind(spec.name) for spec in specs]
    tied = "output" not in kinds
    seen: dict[str, int] = {}
    types = {}
    for spec, kind in zip(specs, kinds, strict=True):
        place = Place(seen.get(kind, 0), kinds.count(kind), group, importance)
        seen[kind] = place.index + 1
        wide = kind == "output" or (tied and kind == "embedding")
        wanted = _output(mix.main, spec.shape[-1]) if wide else _layer(mix, kind, place, large)
        types[spec.name] = _fitting(wanted, spec.shape[-1])
    return types


def _kind(name: str) -> str:
    if name in ("output.weight", "token_embd.weight"):
        return "output" if name == "output.weight" else "embedding"
    part = name.split(".")[-2]
    return {"attn_v": "value", "attn_qkv": "value", "ffn_down": "down", "attn_output": "attention_output"}.get(part, "")


def _output(base: str, width: int) -> str:
    """The matrix that makes the logits gets 6 bits, or 8."""
    return "q8_0" if base == "q8_0" or width % ggml_type(base).block else "q6_k"


def _layer(mix: Preset, kind: str, place: Place, large: bool) -> str:
    rules = {"value": mix.value, "down": mix.down, "attention_output": mix.attention_output}
    wanted = (rules[kind](place) if kind in rules else None) or mix.main
    return "q5_k" if large and kind == "value" and wanted in ("q3_k", "q4_k") else wanted


def _fitting(wanted: str, width: int) -> str:
    """The nearest type whose blocks divide a row."""
    if width % ggml_type(wanted).block == 0:
        return wanted
    smaller = FALLBACK.get(wanted, wanted)
    return smaller if width % ggml_type(smaller).block == 0 else "f16"
