"""Quantize an exported file in its own format: ONNX operators or GGUF types that stock runtimes execute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from edgekit.artifact import Artifact, Facts, Skipped
from edgekit.errors import StageError
from edgekit.stages.base import Config, Context, Outcome
from edgekit.stages.export import copy_deployable, require_task

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GGUF_METHODS", "ONNX_METHODS", "VERSION", "Quantize", "quantize"]

VERSION = 3
OnnxMethod = Literal["int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only"]
GgufMethod = Literal["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q6_k", "q4_k_m"]
ONNX_METHODS: tuple[str, ...] = get_args(OnnxMethod)
GGUF_METHODS: tuple[str, ...] = get_args(GgufMethod)
REASONS = {
    "int8-weight-only": "products are computed block by block from int8 weights; that pays on one short text at a time",
    "int4-weight-only": "4 bits shrink the file; every product first widens them, so expect size, not speed",
    "int8-static": "ONNX Runtime's CPU kernels gain from static int8 only where QDQ pairs fuse; attention does not",
}


class Quantize(Config):
    """Fewer bits for the weights (and, for int8, the activations) of an ONNX or GGUF file."""

    method: OnnxMethod | GgufMethod = Field(
        default="int8-dynamic",
        description="ONNX: int8-dynamic, int8-static, int8-weight-only, int4-weight-only; GGUF: q8_0, q6_k, q5_1, ...",
    )
    embeddings: Literal["keep", "int8", "int4"] = Field(
        default="int8", description="ONNX: the embedding tables, one scale per row (int8) or block of 32 (int4)."
    )
    per_channel: bool = Field(default=True, description="ONNX int8: one scale per output channel.")
    reduce_range: bool = Field(
        default=True,
        description="ONNX int8: weights in 7 of 8 bits, so that sums overflow on no processor; without it the file is "
        "wrong by more where there are no int8 dot products (AVX2), and a little nearer where there are.",
    )
    exclude: tuple[str, ...] = Field(default=(), description="Parts of layer names that stay as they are.")
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax", description="int8-static: how activation ranges are chosen."
    )
    samples: int = Field(default=128, ge=1, description="int8-static: rows of the training data to calibrate on.")


def quantize(source: Artifact, config: Quantize, out: Path, context: Context) -> Outcome:
    """Quantize `source` (onnx or gguf) into `out`. Raises StageError for a method of the other format."""
    task = require_task(source)
    if source.format == "hf":
        raise StageError("quantize works on an exported file", hint="export to onnx or gguf first")
    known = ONNX_METHODS if source.format == "onnx" else GGUF_METHODS
    if config.method not in known:
        raise StageError(
            f"{config.method} is not a method for {source.format}", hint=f"for {source.format}: {', '.join(known)}"
        )
    context.progress.say(f"quantizing with {config.method}")
    copy_deployable(source.path, out, source.model_file.name)
    target = out / source.model_file.name
    facts = (
        _onnx(source, config, target, context) if source.format == "onnx" else _gguf(source, config, target, context)
    )
    return Outcome(source.format, facts, task)


def _onnx(source: Artifact, config: Quantize, target: Path, context: Context) -> Facts:
    from edgekit.formats.onnx_quantize import embedding_tables, matrix_products, quantize_onnx

    bits: dict[str, Literal[0, 4, 8]] = {"keep": 0, "int8": 8, "int4": 4}
    touched = quantize_onnx(
        source.model_file,
        target,
        config.method,  # type: ignore[arg-type]  # checked against ONNX_METHODS above
        per_channel=config.per_channel,
        reduce_range=config.reduce_range,
        exclude=config.exclude,
        embedding_bits=bits[config.embeddings],
        calibration=config.calibration,
        feeds=_feeds(source, config, context) if config.method == "int8-static" else (),
    )
    skipped = tuple(
        Skipped(name=product.weight, reason=_reason(product.operator, config))
        for product in matrix_products(source.model_file)
        if product.node not in touched
    )
    skipped += tuple(
        Skipped(name=table, reason="embeddings are kept" if config.embeddings == "keep" else "excluded")
        for table in embedding_tables(source.model_file)
        if table not in touched
    )
    return _facts(source, config, target, tuple(touched), skipped, ())


def _reason(operator: str, config: Quantize) -> str:
    from edgekit.formats.onnx_quantize import OPERATORS

    known = OPERATORS[config.method]  # type: ignore[index]  # checked against ONNX_METHODS above
    return "excluded" if operator in known else f"{config.method} takes {' and '.join(known)}, not {operator}"


def _gguf(source: Artifact, config: Quantize, target: Path, context: Context) -> Facts:
    from edgekit.formats.gguf_quantize import quantize_gguf

    written = quantize_gguf(
        source.model_file,
        target,
        config.method,  # type: ignore[arg-type]  # checked against GGUF_METHODS above
        keep=config.exclude,
        threads=context.threads,
    )
    return _facts(source, config, target, (f"{written.tensors} tensors",), (), tuple(written.notes))


def _facts(
    source: Artifact,
    config: Quantize,
    target: Path,
    touched: tuple[str, ...],
    skipped: tuple[Skipped, ...],
    notes: tuple[str, ...],
) -> Facts:
    before, after = source.model_file.stat().st_size, target.stat().st_size
    warnings = list(notes)
    if config.method in REASONS:
        warnings.append(f"{config.method}: {REASONS[config.method]}")
    if after >= before:
        warnings.append(
            f"the file did not get smaller ({before:,} -> {after:,} bytes): its tensors were already this "
            "narrow, or scales and zero points outweigh what was saved on small matrices"
        )
    return Facts(
        summary=f"{config.method}: {before / 1e6:.2f} MB -> {after / 1e6:.2f} MB",
        touched=touched,
        skipped=skipped,
        warnings=tuple(warnings),
        numbers={"bytes_before": before, "bytes_after": after, "ratio": before / after},
    )


def _feeds(source: Artifact, config: Quantize, context: Context) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Calibration inputs, one row at a time: real lengths, no padding."""
    import json

    import numpy as np
    from tokenizers import Tokenizer

    labels = json.loads((source.path / "labels.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(source.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(labels["max_length"])
    train = context.data["train"] if "train" in context.data else context.split("unlabeled")
    table = train.spread(config.samples)
    inputs = list(zip(table.texts, table.pairs, strict=True)) if table.pairs else list(table.texts)
    for item in context.progress.track(tokenizer.encode_batch(inputs), "calibrating"):
        ids = np.asarray([item.ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if labels["segments"]:
            feed["token_type_ids"] = np.asarray([item.type_ids], dtype=np.int64)
        yield feed
