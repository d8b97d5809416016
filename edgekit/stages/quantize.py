"""Quantize an exported file in its own format: operators or types that stock runtimes execute."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from edgekit.artifact import Artifact, Facts, Skipped
from edgekit.errors import StageError
from edgekit.stages.accuracy_control import Controlled, keep_within
from edgekit.stages.base import Config, Context, Outcome
from edgekit.stages.calibration import UNEXERCISED
from edgekit.stages.export import copy_deployable, draft, require_task

if TYPE_CHECKING:
    import numpy as np

    from edgekit.formats.onnx_quantize import Method, Product

__all__ = ["METHODS", "VERSION", "Quantize", "calibration_feeds", "quantize"]

VERSION = 11
OnnxMethod = Literal["int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only"]
GgufMethod = Literal["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q6_k", "q4_k_m"]
OpenvinoMethod = Literal["int8-nncf"]
METHODS: dict[str, tuple[str, ...]] = {
    "onnx": get_args(OnnxMethod),
    "gguf": get_args(GgufMethod),
    "openvino": get_args(OpenvinoMethod),
}
REASONS = {
    "int8-weight-only": "products are computed block by block from int8 weights; that pays on one short text at a time",
    "int4-weight-only": "4 bits shrink the file; every product first widens them, so expect size, not speed",
}
UNSMOOTHED = "no norm or attention makes what products alone read, so that none can take the scales"


class Quantize(Config):
    """Fewer bits for the weights (and, for int8, the activations) of an ONNX, GGUF or OpenVINO file."""

    method: OnnxMethod | GgufMethod | OpenvinoMethod = Field(
        default="int8-dynamic",
        description="ONNX: int8-dynamic, int8-static, int8-weight-only, int4-weight-only; GGUF: q8_0, q6_k, q5_1, ...; "
        "OpenVINO: int8-nncf.",
    )
    embeddings: Literal["keep", "int8", "int4"] = Field(
        default="int8",
        description="ONNX, OpenVINO: embedding tables, a scale per row (int8) or, in ONNX, 32 columns at most (int4).",
    )
    per_channel: bool = Field(default=True, description="ONNX int8: one scale per output channel.")
    reduce_range: bool = Field(
        default=True,
        description="int8: weights in 7 of 8 bits, so that sums overflow on no processor; without it the file is "
        "wrong by more where there are no int8 dot products (AVX2), and a little nearer where there are.",
    )
    exclude: tuple[str, ...] = Field(default=(), description="Parts of layer names that stay as they are.")
    max_drop: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="ONNX, OpenVINO: accuracy (a fraction) that may be lost on the validation data; layers that hurt "
        "most stay in float until it holds.",
    )
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax", description="int8-static: how activation ranges are chosen."
    )
    samples: int = Field(
        default=128, ge=1, description="int8-static, int8-nncf: rows of the training data to calibrate on."
    )
    smooth: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="int8: how much of outlier channels goes from activations into weights (SmoothQuant's alpha); in "
        "ONNX where a norm or an attention before them takes it for free.",
    )


@dataclass(frozen=True)
class Written:
    """What was quantized, what was not and why, and what is to be said of it."""

    touched: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


def quantize(source: Artifact, config: Quantize, out: Path, context: Context) -> Outcome:
    """Quantize `source` (onnx, gguf or openvino) into `out`.

    Raises StageError for a method of another format, or where `max_drop` cannot be kept.
    """
    task = require_task(source)
    if source.format not in METHODS:
        raise StageError("quantize works on an exported file", hint="export to onnx, gguf or openvino first")
    known = METHODS[source.format]
    if config.method not in known:
        raise StageError(
            f"{config.method} is not a method for {source.format}", hint=f"for {source.format}: {', '.join(known)}"
        )
    if config.max_drop is not None and source.format == "gguf":
        raise StageError("max_drop works on ONNX and OpenVINO files", hint="for GGUF: --exclude, or a wider type")
    context.progress.say(f"quantizing with {config.method}")
    copy_deployable(source.path, out, source.model_file.name)
    write = {"onnx": _onnx, "gguf": _gguf, "openvino": _openvino}[source.format]
    target = draft(out, source.format, task)
    written = write(source, config, target.model_file, context, ())
    if config.max_drop is None:
        return Outcome(source.format, _facts(source, config, target, written), task)

    def rewrite(keep: Collection[str]) -> None:
        nonlocal written
        written = write(source, config, target.model_file, context, keep)

    found = keep_within(config.max_drop, written.touched, rewrite, source, target, context)
    facts = _facts(source, config, target, written, found)
    return Outcome(source.format, facts, task, {"validation_drop": found.drop})


def _onnx(source: Artifact, config: Quantize, target: Path, context: Context, keep: Collection[str]) -> Written:
    from edgekit.formats.onnx_quantize import quantize_onnx

    bits: dict[str, Literal[0, 4, 8]] = {"keep": 0, "int8": 8, "int4": 4}
    products, tables = _known(source.model_file)
    written = quantize_onnx(
        source.model_file,
        target,
        _method(config),
        per_channel=config.per_channel,
        reduce_range=config.reduce_range,
        exclude=config.exclude,
        keep=keep,
        embedding_bits=bits[config.embeddings],
        calibration=config.calibration,
        smooth=config.smooth,
        feeds=list(calibration_feeds(source, config.samples, context)) if _calibrated(config) else (),
    )
    skipped = [
        Skipped(
            name=p.node, reason=UNEXERCISED if p.node in written.idle else _reason(p.operator, p.node, config, keep)
        )
        for p in products
        if p.node not in written.touched
    ]
    skipped += [Skipped(name=t, reason=_reason("Gather", t, config, keep)) for t in tables if t not in written.touched]
    if config.smooth and _calibrated(config) and not written.smoothed:
        skipped.append(Skipped(name="smoothing", reason=UNSMOOTHED))
    return Written(tuple(written.touched), tuple(skipped), _notes(config))


def _known(file: Path) -> tuple[list[Product], list[str]]:
    """The products and the embedding tables of an ONNX file."""
    from edgekit.formats.onnx_embedding import embedding_tables
    from edgekit.formats.onnx_graph import load_model
    from edgekit.formats.onnx_quantize import matrix_products

    model = load_model(file)
    return matrix_products(model), embedding_tables(model)


def _openvino(source: Artifact, config: Quantize, target: Path, context: Context, keep: Collection[str]) -> Written:
    from edgekit.formats.openvino_quantize import operations, quantize_openvino

    if config.embeddings == "int4":
        raise StageError("OpenVINO files have no int4 embedding tables here", hint="--embeddings int8, or keep")
    known = operations(source.model_file)
    left = {o.name for o in known if any(part in o.name for part in config.exclude)} | set(keep)
    if config.embeddings == "keep":
        left |= {o.name for o in known if o.operator == "Gather"}
    touched = quantize_openvino(
        source.model_file,
        target,
        feeds=calibration_feeds(source, config.samples, context),
        keep=left,
        reduce_range=config.reduce_range,
        smooth=config.smooth,
    )
    skipped = tuple(
        Skipped(name=o.name, reason=_reason(o.operator, o.name, config, keep)) for o in known if o.name not in touched
    )
    return Written(tuple(touched), skipped)


def _gguf(source: Artifact, config: Quantize, target: Path, context: Context, keep: Collection[str]) -> Written:
    from edgekit.formats.gguf_quantize import quantize_gguf

    written = quantize_gguf(
        source.model_file,
        target,
        config.method,  # type: ignore[arg-type]  # checked against METHODS above
        keep=(*config.exclude, *keep),
        threads=context.threads,
    )
    return Written((f"{written.tensors} tensors",), notes=tuple(written.notes))


def _calibrated(config: Quantize) -> bool:
    """Whether an ONNX file is run on calibration data first."""
    return config.method == "int8-static" or (config.method == "int8-dynamic" and config.smooth > 0)


def _method(config: Quantize) -> Method:
    return config.method  # type: ignore[return-value]  # checked against METHODS above


def _reason(operator: str, name: str, config: Quantize, keep: Collection[str]) -> str:
    from edgekit.formats.onnx_quantize import OPERATORS

    if name in keep:
        return "costs too much accuracy in int8"
    if operator == "Gather":
        return "embeddings are kept" if config.embeddings == "keep" else "excluded"
    known = OPERATORS.get(_method(config), ("MatMul",))
    return "excluded" if operator in known else f"{config.method} takes {' and '.join(known)}, not {operator}"


def _notes(config: Quantize) -> tuple[str, ...]:
    return (f"{config.method}: {REASONS[config.method]}",) if config.method in REASONS else ()


def _facts(
    source: Artifact, config: Quantize, target: Artifact, written: Written, found: Controlled | None = None
) -> Facts:
    before, after = _bytes(source), _bytes(target)
    warnings, numbers = list(written.notes), {"bytes_before": before, "bytes_after": after, "ratio": before / after}
    summary = f"{config.method}: {before / 1e6:.2f} MB -> {after / 1e6:.2f} MB"
    if found is not None:
        kept = f", {len(found.keep)} layers kept in float" if found.keep else ""
        summary += f", {found.drop:.2%} lost on {found.rows} rows{kept}"
        numbers |= {"validation_drop": found.drop, "drop_of_all": found.drop_of_all}
        numbers |= {f"sensitivity.{name}": value for name, value in found.sensitivity.items()}
    if after >= before:
        warnings.append(
            f"the file did not get smaller ({before:,} -> {after:,} bytes): its tensors were already this "
            "narrow, or scales and zero points outweigh what was saved on small matrices"
        )
    return Facts(
        summary=summary,
        touched=written.touched,
        skipped=written.skipped,
        warnings=tuple(warnings),
        numbers={**numbers},
    )


def _bytes(artifact: Artifact) -> int:
    """Of the model file, and of the weights beside it where the format keeps them apart."""
    weights = artifact.model_file.with_suffix(".bin")
    return artifact.model_file.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)


def calibration_feeds(source: Artifact, samples: int, context: Context) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Inputs of an exported file, of so many rows of the training data, one at a time: real lengths, no padding."""
    from edgekit.tasks.encoders import examples_of

    encoded = examples_of(source.path, context.calibration().spread(samples), require_task(source)).encoded
    for row in context.progress.track(range(len(encoded)), "calibrating"):
        yield {name: tensor.numpy() for name, tensor in encoded.batch([row]).items()}
