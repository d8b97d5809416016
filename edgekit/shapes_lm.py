"""What a plan expects of the steps of language and text-to-text models: bytes by type, and what no format holds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path

from edgekit.artifact import Artifact
from edgekit.errors import ModelError, Problem
from edgekit.model_config import read_config
from edgekit.nn.load import Edits
from edgekit.nn.seq2seq import obstacles as seq2seq_obstacles
from edgekit.shapes import PROCESS_BYTES, TRAINING_BYTES, Cost, Shape
from edgekit.stages.base import Config

__all__ = ["cost_of", "next_shape", "shape_of"]

# Bits per weight of llama.cpp's types and mixtures, scales included; of a whole file about.
BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": 6.6, "q5_k_m": 5.7, "q5_k_s": 5.5, "q4_k_m": 4.9}
BITS |= {"q4_k_s": 4.6, "q4_1": 5.0, "q4_0": 4.6, "grids": 5.0, "q3_k_m": 3.9, "q2_k": 3.0}
BITS |= {"fp32": 32.0, "fp16": 16.0, "int8": 9.0, "int4": 5.0}  # onnxruntime-genai's words
SECONDS = 5.0  # of an export, beside its parity check


def shape_of(model: Artifact) -> Shape:
    """The shape of a language model. Raises ModelError for a damaged file."""
    return Shape(model.format, read_config(model.path), Edits(), 4 * _parameters(model.path))


def next_shape(shape: Shape, stage: str, config: Config, folder: Path) -> tuple[Shape, list[Problem]]:
    """The shape after a step, and why the step cannot work. `folder`: the recipe's model."""
    if stage == "lm-prune":
        return replace(shape, bytes=int(shape.bytes * _kept(config))), []
    if stage == "seq2seq-export":
        precision = str(getattr(config, "precision", "fp32"))
        exported = replace(shape, format="onnx-seq2seq", bytes=int(shape.bytes // 4 * BITS[precision] / 8))
        return exported, seq2seq_obstacles(folder)
    if stage != "lm-export":
        return shape, []
    file_format = str(getattr(config, "format", "gguf"))
    weights = shape.bytes // 4
    problems: list[Problem] = []
    if file_format == "gguf":
        from edgekit.formats.gguf_check import read_spec
        from edgekit.formats.gguf_decoder import obstacles
        from edgekit.formats.gguf_decoder_tokenizer import decoder_tokenizer_problems

        problems = obstacles(folder)
        with suppress(ModelError):  # a tokenizer that cannot be read is no matter of the format
            problems += decoder_tokenizer_problems(read_spec(folder))
    else:
        from edgekit.formats.genai import obstacles as genai_obstacles

        problems = genai_obstacles(shape.config)
    return replace(shape, format=file_format, bytes=_bytes(weights, config)), problems


def cost_of(before: Shape, after: Shape, stage: str) -> Cost:
    """What a step should need. A checkpoint is written once; training keeps gradients and moments."""
    weights = before.bytes // 4
    if stage in ("lm-finetune", "lm-distill"):
        return Cost(after.bytes, PROCESS_BYTES + weights * TRAINING_BYTES, 60.0, weights)
    return Cost(after.bytes, PROCESS_BYTES + before.bytes * 2, SECONDS, after.bytes // 4)


def _parameters(folder: Path) -> int:
    """Weights in the folder's safetensors, by their headers. Raises ModelError for a file that is cut off."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ModelError(f"{path}: damaged or cut off ({error})", hint="fetch it again") from None
    return total


def _kept(config: Config) -> float:
    return float(getattr(config, "parameters", 1.0) or 1.0)


def _bytes(weights: int, config: Config) -> int:
    """Of the exported file: by its budget, or by its type."""
    if getattr(config, "format", "gguf") == "onnx-genai":
        return int(weights * BITS[str(getattr(config, "precision", "fp32"))] / 8)
    from edgekit.formats.gguf_decoder_budget import file_size

    budget = str(getattr(config, "budget", ""))
    name = budget or str(getattr(config, "type", "f16"))
    return file_size(budget) or int(weights * BITS.get(name, 16.0) / 8)
