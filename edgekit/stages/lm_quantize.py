"""lm-quantize: integers and scales found once, for every format that holds them; a plain checkpoint of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, field_validator, model_validator

from edgekit.artifact import Artifact, Facts, Skipped, Task
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.stages.base import Config, Context, Outcome, SplitName

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.grid import Bits, GridKind
    from edgekit.nn.grid_quantize import Quantized

__all__ = ["VERSION", "LmQuantize", "lm_quantize"]

VERSION = 2
TableBits = Literal["keep", "int8", "int4"]
SPLITS: tuple[SplitName, ...] = ("train", "unlabeled")


class LmQuantize(Config):
    """Options of the lm-quantize stage."""

    method: Literal["rtn", "gptq", "awq", "hqq", "autoround"] = Field(
        "gptq",
        description="how the integers are found: rtn (nearest, by scales that the activations choose), gptq (each "
        "column's error made up for by the next), hqq (zero points that let outliers go; no data), awq and autoround "
        "(both by auto-round)",
    )
    bits: int = Field(4, ge=4, le=8, multiple_of=4, description="bits of the layers' matrices: 4 or 8")
    block: int = Field(32, description="columns that share a scale: 32, 64 or 128")
    symmetric: bool = Field(
        True, description="no zero points: Q4_0 instead of Q4_1 in GGUF; a tenth less exact, and a tenth smaller"
    )
    head: TableBits = Field(
        "int8", description="the matrix that makes the logits; where embeddings are tied it is their table too"
    )
    embeddings: TableBits = Field("int8", description="the table of token embeddings, where it is not the head")
    exclude: tuple[str, ...] = Field((), description="parts of module names that stay as they are")
    windows: int = Field(
        64, ge=0, description="windows of calibration text (training data, else unlabeled); 0: none, for rtn alone"
    )
    batch_size: int = Field(8, ge=1, description="calibration windows at a time")

    @field_validator("block")
    @classmethod
    def _known_block(cls, block: int) -> int:
        if block not in (32, 64, 128):
            raise ValueError("32, 64 or 128")
        return block

    @model_validator(mode="after")
    def _zero_points_fit(self) -> LmQuantize:
        if self.bits == 8 and not self.symmetric:
            raise ValueError("8 bits are symmetric: no GGUF type holds them with minimums")
        if self.method == "hqq" and self.symmetric:
            raise ValueError("hqq moves zero points, which a symmetric grid does not have: symmetric: false")
        return self


def lm_quantize(source: Artifact, config: LmQuantize, out: Path, context: Context) -> Outcome:
    """Quantize `source` (hf) into a plain checkpoint whose weights lie on grids, and `grids.safetensors`.

    Raises StageError without calibration data where the method needs them, or where nothing is left to quantize;
    MissingExtraError where the method's library is not installed.
    """
    from edgekit.formats.grid_file import write_grids
    from edgekit.nn.decoders import load_decoder
    from edgekit.nn.load import save_model

    task = source.task or context.task
    model = load_decoder(source.path, device=context.device)
    kinds, skipped = _choose(model, config)
    if not kinds:
        raise StageError("nothing left to quantize: every matrix is excluded", hint="--exclude takes parts of names")
    batches = _batches(source.path, task, config, context)
    context.progress.say(f"quantizing {len(kinds)} matrices by {config.method}")
    model, found = _quantize(model, source.path, kinds, config, batches, context)
    save_model(model, out, tokenizer_from=source.path)
    write_grids(out, {item.name: item.grid for item in found})
    return Outcome("hf", _facts(config, found, skipped, bool(batches)), task)


def _choose(model: PreTrainedModel, config: LmQuantize) -> tuple[dict[str, GridKind], list[Skipped]]:
    """The grid of each matrix by module path, and what stays as it is. A tied table goes by the head's path."""
    from edgekit.nn.decoder_families import decoder_family
    from edgekit.nn.grid import GridKind
    from edgekit.nn.grid_quantize import HEAD, weight_of

    family = decoder_family(model.config.model_type)
    layers = range(model.config.num_hidden_layers)
    kind = GridKind(cast("Bits", config.bits), config.block, config.symmetric)
    wanted: dict[str, GridKind | None] = {f"{family.layers}.{i}.{m}": kind for i in layers for m in family.matrices}
    wanted[HEAD] = _table_kind(config.head)
    if not model.config.tie_word_embeddings:
        wanted[family.embeddings] = _table_kind(config.embeddings)
    kinds, skipped = {}, []
    for name, grid in wanted.items():
        width = weight_of(model, name).shape[1]
        if grid is None:
            skipped.append(Skipped(name=name, reason="kept"))
        elif any(text in name for text in config.exclude):
            skipped.append(Skipped(name=name, reason="excluded"))
        elif width % grid.block:
            skipped.append(Skipped(name=name, reason=f"rows of {width} do not divide into blocks of {grid.block}"))
        else:
            kinds[name] = grid
    return kinds, skipped


def _table_kind(bits: TableBits) -> GridKind | None:
    from edgekit.nn.grid import GridKind

    return {"keep": None, "int8": GridKind(8, 32), "int4": GridKind(4, 32)}[bits]


def _batches(folder: Path, task: Task | None, config: LmQuantize, context: Context) -> list[torch.Tensor]:
    """Calibration windows as token ids (batch, length) of one shape: windows that do not fill a batch are left out."""
    from edgekit.tasks.language_modeling import make_windows

    if config.method == "hqq" or (config.method == "rtn" and config.windows == 0):
        return []
    if config.windows == 0:
        raise StageError(f"{config.method} looks at activations", hint="--windows 64, or --method rtn")
    if task is None:
        raise StageError("how long a window of text is, is not said", hint="give --max-length")
    windows = make_windows(folder, _table(context), task, most=config.windows)
    size = min(config.batch_size, len(windows))
    return [ids for ids in windows.batches(size) if len(ids) == size]


def _table(context: Context) -> Table:
    for split in SPLITS:
        if split in context.data:
            return context.data[split]
    raise StageError("the activations are measured on text", hint="give --train FILE, or --windows 0 --method rtn")


def _quantize(
    model: PreTrainedModel,
    folder: Path,
    kinds: Mapping[str, GridKind],
    config: LmQuantize,
    batches: Sequence[torch.Tensor],
    context: Context,
) -> tuple[PreTrainedModel, list[Quantized]]:
    from edgekit.nn.decoder_families import decoder_family
    from edgekit.nn.grid_quantize import HEAD, quantize_layers, quantize_table, renamed

    table = decoder_family(model.config.model_type).embeddings
    inner = {name: kind for name, kind in kinds.items() if name != table}
    if config.method == "rtn" or config.method == "gptq" or config.method == "hqq":
        found = list(quantize_layers(model, batches, inner, config.method, context.progress))
    else:
        from edgekit.nn.grid_libraries import quantize_by_library

        model, found = quantize_by_library(model, folder, batches, inner, config.method)
    if table in kinds:
        found.append(quantize_table(model, table, kinds[table]))
    if model.config.tie_word_embeddings:
        found = [renamed(item, table) if item.name == HEAD else item for item in found]
    return model, found


def _facts(config: LmQuantize, found: Sequence[Quantized], skipped: Sequence[Skipped], measured: bool) -> Facts:
    errors = [item.error for item in found if item.grid.kind.bits == config.bits]
    mean = sum(errors) / max(1, len(errors))
    weights = sum(item.grid.codes.size for item in found)
    size = sum(item.grid.codes.size * item.grid.kind.bits // 8 + 2 * item.grid.scales.size for item in found)
    of = "outputs" if measured else "weights"
    return Facts(
        summary=f"{len(found)} matrices by {config.method}, {config.bits} bits, blocks of {config.block}: "
        f"relative squared error of {of} {mean:.2e}",
        touched=tuple(
            f"{item.name}: {item.grid.kind.bits} bits, blocks of {item.grid.kind.block}, error {item.error:.1e}"
            for item in found
        ),
        skipped=tuple(skipped),
        numbers={
            "error_mean": mean,
            "error_max": max(errors, default=0.0),
            "error_of": of,
            "quantized_weights": weights,
            "quantized_bytes": size,
        },
    )
