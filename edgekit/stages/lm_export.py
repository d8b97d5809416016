"""lm-export: a decoder as GGUF (llama.cpp) or an onnxruntime-genai folder, compared with torch before it counts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgekit.artifact import Artifact, Facts, Task
from edgekit.data.table import Table
from edgekit.errors import ParityError, StageError
from edgekit.stages.base import Config, Context, Outcome
from edgekit.stages.export import draft

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekit.formats.gguf_decoder import Encode, Written
    from edgekit.formats.gguf_decoder_check import Difference, Tokenized
    from edgekit.tasks.language_modeling import Windows

    Columns = dict[str, NDArray[np.float32]]

__all__ = ["VERSION", "LmExport", "lm_export"]

VERSION = 3
MODEL = "model.gguf"
# KL divergence (nats a token) from torch in float32. llama.cpp computes GELU from a half-precision table, in f32 files
# too; bfloat16 keeps 8 bits of a weight; grids are exact, but what is multiplied with them is turned to 8 bits. Beyond
# 1 nat a quantized model says something else than the original.
LIMITS = {"f32": 1e-5, "f16": 1e-4, "bf16": 1e-2, "grids": 1e-2}  # types that leave nothing to choose
QUANTIZED_LIMIT = 1.0
GENAI_LIMITS = {"fp32": 1e-5, "fp16": 1e-4, "int8": QUANTIZED_LIMIT, "int4": QUANTIZED_LIMIT}
TEXTS = 256  # whose tokens are compared
GgufType = Literal[
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0",
    "iq4_nl", "iq4_xs", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "q2_k_s", "grids",
]  # fmt: skip


class LmExport(Config):
    """Write the file that a runtime executes."""

    format: Literal["gguf", "onnx-genai"] = Field(
        default="gguf", description="llama.cpp's format, or a folder for onnxruntime-genai."
    )
    type: GgufType = Field(
        default="q4_k_m",
        description="GGUF: f32, f16, bf16, one of llama.cpp's mixes of quantized types, or grids: "
        "the integers that lm-quantize found, as they are, and f16 for what it left out.",
    )
    precision: Literal["fp32", "fp16", "int8", "int4"] = Field(
        default="int4", description="onnx-genai: of the weights; integers found by lm-quantize are taken as they are."
    )
    budget: str = Field(
        default="",
        description='GGUF: a file size such as "3.8MB", or that of a type such as "q4_k_m"; the type of each tensor is '
        "then chosen by measured damage, its errors fed back while rounding, and `type` is not used.",
    )
    rounding: Literal["ggml", "feedback"] = Field(
        default="ggml",
        description="GGUF, at the types of a mix: as ggml rounds, or each column's error taken up by the columns after "
        "it (GPTQ), which halves the KL divergence and takes minutes.",
    )
    importance: bool = Field(
        default=False, description="GGUF: weigh each column's error by what flows through it on the training texts."
    )
    samples: int = Field(default=64, ge=1, description="Windows of text that importance and budget are measured on.")
    check_windows: int = Field(default=8, ge=1, description="Windows of text that are compared with torch.")
    max_divergence: float = Field(
        default=0.0,
        ge=0,
        description="Largest mean KL divergence from torch, nats a token; 0 takes 1e-5 for f32, 1e-4 for f16, 1e-2 for "
        "bf16 and for integers that lm-quantize found, and 1 for other quantized types.",
    )
    token_parity: float = Field(
        default=0.99, ge=0, le=1, description="Least share of texts that llama.cpp cuts into the same tokens."
    )


def lm_export(source: Artifact, config: LmExport, out: Path, context: Context) -> Outcome:
    """Export the decoder `source` (hf) to `config.format`.

    Raises ParityError where the file's probabilities or tokens differ from the original's beyond the limits on real
    text, StageError where the format cannot express the model.
    """
    task = source.task or context.task
    if task is None or task.kind != "language-modeling":
        raise StageError("lm-export is for language models", hint="edgekit export writes classifiers")
    if config.format == "onnx-genai":
        return _genai(source, task, config, out, context)
    types = None if config.budget else config.type
    context.progress.say(f"exporting to GGUF, {types or f'within {config.budget}'}")
    table = _check_table(context)
    written = _write(source, task, config, out, context)
    weights = ", ".join(f"{count} tensors {kind}" for kind, count in sorted(written.tensors.items()))
    _package(source, task, out, weights)
    tokenized = _same_tokens(source, config, out, table)
    difference = _close(source, task, config, out, table, context)
    facts = Facts(
        summary=f"gguf {types or config.budget}, {written.bytes:,} bytes, KL divergence {difference.divergence:.2e} "
        f"nats a token from torch",
        touched=(MODEL,),
        warnings=(
            *_idle_warnings(config),
            *_twice_warnings(source.path, config),
            *written.notes,
            *_token_warnings(tokenized),
        ),
        numbers={
            "bytes": written.bytes,
            "kl_divergence": difference.divergence,
            "agreement": difference.agreement,
            "max_difference": difference.max_difference,
            "largest_logit": difference.largest_logit,
            "tokens": difference.tokens,
            "texts": tokenized.texts,
            "texts_with_the_same_tokens": tokenized.same,
            "importance": _learns(config),
        },
    )
    metrics = {"kl_divergence": difference.divergence, "agreement": difference.agreement}
    return Outcome("gguf", facts, task, metrics)


def _genai(source: Artifact, task: Task, config: LmExport, out: Path, context: Context) -> Outcome:
    """The same for onnxruntime-genai, which runs in a process of its own."""
    from edgekit.evaluate_lm import reference_of, score_windows
    from edgekit.formats.genai import write_genai
    from edgekit.formats.package_lm import write_genai_package
    from edgekit.interrogate import Venue
    from edgekit.tasks.language_modeling import make_windows

    context.progress.say(f"exporting to onnxruntime-genai, {config.precision}")
    touched = write_genai(source.path, out, precision=config.precision)
    origin = f", {len(touched)} matrices as lm-quantize found them" if touched else ""
    write_genai_package(task, out, f"{config.precision}{origin}")
    windows = make_windows(source.path, _check_table(context), task, most=config.check_windows)
    with TemporaryDirectory() as cache:
        reference = reference_of(source, windows, Path(cache), threads=context.threads)
        venue = Venue(threads=context.threads)
        scores = score_windows(draft(out, "onnx-genai", task), windows, reference=reference, venue=venue)
    found = scores.metrics
    limit = config.max_divergence or (LIMITS["grids"] if touched else GENAI_LIMITS[config.precision])
    _require(found["kld"], limit, found["agreement"], windows.scored)
    facts = Facts(
        summary=f"onnx-genai {config.precision}, KL divergence {found['kld']:.2e} nats a token from torch",
        touched=(*touched, "model.onnx"),
        warnings=_idle_warnings(config),
        numbers={"kl_divergence": found["kld"], "agreement": found["agreement"], "tokens": windows.scored},
    )
    metrics = {"kl_divergence": found["kld"], "agreement": found["agreement"]}
    return Outcome("onnx-genai", facts, task, metrics)


def _learns(config: LmExport) -> bool:
    """Whether the training texts have a say in how the weights are rounded."""
    if config.format != "gguf" or (config.type in LIMITS and not config.budget):
        return False
    return config.importance or bool(config.budget) or config.rounding == "feedback"


def _idle_warnings(config: LmExport) -> tuple[str, ...]:
    """Names the options that were given and change nothing, so that nobody takes their effect for granted."""
    idle = {"precision"}
    if config.format == "onnx-genai":
        what, idle = "onnx-genai", {"type", "budget", "rounding", "importance", "samples", "token_parity"}
    elif config.budget:
        what, idle = "a budget", {"precision", "type", "rounding"}
    else:
        what = f"GGUF type {config.type}"
        idle |= {"rounding", "importance"} if config.type in LIMITS else set()
        idle |= set() if _learns(config) else {"samples"}
    usual = LmExport()
    given = [name for name in LmExport.model_fields if name in idle and getattr(config, name) != getattr(usual, name)]
    return (f"no effect with {what}: {', '.join(given)}",) if given else ()


def _twice_warnings(folder: Path, config: LmExport) -> tuple[str, ...]:
    """Says where weights that lie on lm-quantize's grids are rounded to other types."""
    from edgekit.formats.grid_file import GridFile

    if (config.type in LIMITS and not config.budget) or not GridFile(folder):
        return ()
    what = f"{config.budget or config.type} rounds what lm-quantize has rounded already"
    return (f"{what}; type grids keeps its integers, and the model before it can be rounded once",)


def _check_table(context: Context) -> Table:
    for name in ("validation", "unlabeled", "train"):
        if name in context.data:
            return context.data[name]
    raise StageError("the comparison with torch needs real text", hint="give --validation FILE")


def _write(source: Artifact, task: Task, config: LmExport, out: Path, context: Context) -> Written:
    from edgekit.formats.gguf_decoder import write_gguf_decoder

    types, importance, encode = _rounding(source.path, task, config, context)
    return write_gguf_decoder(
        source.path,
        out / MODEL,
        types,
        importance=importance,
        encode=encode,
        threads=context.threads,
        progress=context.progress,
        preset="" if config.budget or config.type == "grids" else config.type,
    )


def _rounding(
    folder: Path, task: Task, config: LmExport, context: Context
) -> tuple[dict[str, str], Columns, Encode | None]:
    """The type of each tensor, the weights of its columns, and what rounds it (None: ggml)."""
    from edgekit.formats.gguf_decoder import decoder_tensors, preset_types

    if config.type == "grids" and not config.budget:
        types, encode = _grids(folder)
        return types, {}, encode
    if not _learns(config):
        return preset_types(folder, config.type), {}, None
    windows = _calibration(folder, task, config, context)
    mix = None if config.budget else preset_types(folder, config.type, with_importance=True)
    if mix is not None and config.rounding == "ggml":
        from edgekit.formats.gguf_decoder_importance import column_importance
        from edgekit.nn.decoders import load_decoder

        model = load_decoder(folder, device=context.device)
        return mix, column_importance(model, decoder_tensors(folder), windows), None
    from edgekit.formats.gguf_decoder_budget import budget_bytes
    from edgekit.formats.gguf_kquants import plan_rounding

    room = budget_bytes(folder, config.budget) if config.budget else 0
    plan = plan_rounding(folder, windows, budget=room, types=mix, device=context.device, progress=context.progress)
    return plan.types, plan.importance, plan.encode


def _grids(folder: Path) -> tuple[dict[str, str], Encode]:
    """The types that hold the checkpoint's grids, f16 elsewhere, and what packs them. Raises StageError without any."""
    from edgekit.formats.gguf_decoder import preset_types
    from edgekit.formats.gguf_grids import plan_grids

    plan = plan_grids(folder)
    if not plan.types:
        raise StageError(
            f"type grids: {folder.name} has no grids.safetensors", hint="export what lm-quantize wrote, or take q4_k_m"
        )
    return preset_types(folder, "f16") | plan.types, plan.encode


def _calibration(folder: Path, task: Task, config: LmExport, context: Context) -> Windows:
    from edgekit.tasks.language_modeling import make_windows

    return make_windows(folder, context.calibration(), task, most=config.samples)


def _package(source: Artifact, task: Task, out: Path, weights: str) -> None:
    from edgekit.formats.gguf_decoder_tokenizer import read_chat_template
    from edgekit.formats.package_lm import write_gguf_package

    write_gguf_package(source.path, task, out, weights, chat=read_chat_template(source.path) is not None)


def _same_tokens(source: Artifact, config: LmExport, out: Path, table: Table) -> Tokenized:
    """Raises ParityError where too many texts get other tokens."""
    from edgekit.formats.gguf_decoder_check import compare_tokens

    found = compare_tokens(out / MODEL, source.path, table.spread(TEXTS).texts)
    if found.same < config.token_parity * found.texts:
        raise ParityError(
            f"llama.cpp cuts {found.texts - found.same} of {found.texts} texts into other tokens; the first is "
            f"{found.first[:80]!r}",
            hint="nothing was kept; --token-parity changes the limit",
        )
    return found


def _token_warnings(found: Tokenized) -> list[str]:
    if found.same == found.texts:
        return []
    return [f"llama.cpp cuts {found.texts - found.same} of {found.texts} texts otherwise, such as {found.first[:80]!r}"]


def _close(source: Artifact, task: Task, config: LmExport, out: Path, table: Table, context: Context) -> Difference:
    """Raises ParityError where the file's probabilities are too far from torch's."""
    from edgekit.formats.gguf_decoder_check import compare
    from edgekit.tasks.language_modeling import make_windows

    windows = make_windows(source.path, table, task, most=config.check_windows)
    found = compare(out / MODEL, source.path, windows, threads=context.threads)
    limit = config.max_divergence or (QUANTIZED_LIMIT if config.budget else LIMITS.get(config.type, QUANTIZED_LIMIT))
    _require(found.divergence, limit, found.agreement, found.tokens)
    return found


def _require(divergence: float, limit: float, agreement: float, tokens: int) -> None:
    if not divergence <= limit:
        raise ParityError(
            f"the exported file disagrees with torch: KL divergence {divergence:.2e} > {limit:.0e} nats a token "
            f"on {tokens} tokens (same likeliest token on {agreement:.1%})",
            hint="nothing was kept; take more bits, or --max-divergence to change the limit",
        )
