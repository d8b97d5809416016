"""Why a quantized file is not faster, or not smaller: the likely reasons, in words, instead of silence."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.artifact import Artifact
from edgekit.machine import Machine

__all__ = ["Subject", "explain", "precision_of"]

SHORT_TOKENS = 32  # below, finding an activation's scale costs about what an int8 product saves
TINY_MS = 1.0  # below, an inference is mostly fixed costs of its operators
INT8 = ("int8-dynamic", "int8-static")


@dataclass(frozen=True)
class Subject:
    """What is compared: a file's precision (`precision_of`), median latency (ms) and size (bytes)."""

    id: str
    precision: str
    p50_ms: float
    size_bytes: int
    embeddings: str = ""  # what was done to the embedding tables: "keep", "int8", "int4"


def precision_of(artifact: Artifact) -> str:
    """How the weights are held: a quantization method, "f16" or "f32"."""
    config = artifact.manifest.config
    if artifact.manifest.stage == "quantize":
        return str(config.get("method", "quantized"))
    if artifact.manifest.stage == "lm-export":
        return str(config["precision"] if artifact.format == "onnx-genai" else config["budget"] or config["type"])
    return str(config.get("precision", "f32")) if artifact.format != "hf" else "f32"


def explain(
    child: Subject, parent: Subject, machine: Machine, *, speedup: float, tokens: float | None = None
) -> tuple[str, ...]:
    """Notes on a quantized `child` that is not faster (`speedup` <= 1) or not smaller than `parent`; empty where it is
    both, or where nothing was quantized. `tokens`: median tokens per example."""
    if child.precision in ("f32", "f16"):
        return ()
    notes = []
    if speedup <= 1.0:
        reasons = "; ".join(_slow(child, parent, machine, tokens))
        notes.append(f"{child.precision} is not faster than {parent.id} ({speedup:.2f}x). Likely: {reasons}")
    if child.size_bytes >= parent.size_bytes:
        reasons = "; ".join(_big(child))
        notes.append(f"{child.precision} is not smaller than {parent.id}. Likely: {reasons}")
    return tuple(notes)


def _slow(child: Subject, parent: Subject, machine: Machine, tokens: float | None) -> list[str]:
    reasons = []
    if child.precision == "int4-weight-only":
        reasons.append(
            "4-bit weights are widened before every product, which is computed in float: that saves size only"
        )
    if child.precision == "int8-weight-only":
        reasons.append(
            "only the weights are int8; that pays for one short text at a time, not for long ones or batches"
        )
    if child.precision in INT8 and machine.isa and not machine.int8_dot:
        reasons.append("this processor has no int8 dot product (VNNI, dotprod), so int8 products take about as long")
    if child.precision == "int8-static":
        reasons.append("quantize and dequantize nodes that ONNX Runtime cannot fuse stay around attention and norms")
    if child.precision == "int8-dynamic" and tokens is not None and tokens < SHORT_TOKENS:
        reasons.append(
            f"at {tokens:.0f} tokens, finding and applying each activation's scale costs what the product saves"
        )
    if child.precision.startswith("q"):
        reasons.append("llama.cpp unpacks the blocks of weights for every product; small matrices do not repay it")
    if parent.p50_ms < TINY_MS:
        reasons.append(
            f"{parent.p50_ms:.2g} ms is mostly the fixed cost of starting operators, which quantizing adds to"
        )
    return reasons or ["quantizing and dequantizing the activations costs more than the products save at this size"]


def _big(child: Subject) -> list[str]:
    reasons = ["scales and zero points outweigh what narrow weights save on small matrices"]
    if child.embeddings == "keep":
        reasons.insert(0, "the embedding tables, often most of a small encoder, were left in float")
    else:
        reasons.insert(0, "the parent's weights are already about this narrow")
    return reasons
