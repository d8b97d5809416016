"""Trim: heads and FFN neurons go where they cost most and matter least, until the model meets a measured budget.

Without labels and without training: what a cut loses is read off the curvature of the logits, each layer's best way
down by least squares, the structure by dynamic programming over what blocks cost in the runtime, and what is left is
solved, layer by layer, to follow the intact model.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgekit.artifact import Artifact, Facts, Skipped, Task
from edgekit.errors import Problem, StageError
from edgekit.formats.cost_table import CostTable, load_costs
from edgekit.stages.base import Config, Context, Outcome, kind_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edgekit.nn.calibration import Calibration
    from edgekit.nn.narrow import Width
    from edgekit.nn.structure import Cost, Structure, Widths
    from edgekit.progress import Progress

__all__ = ["COSTS", "VERSION", "Cut", "Trim", "cut_within", "given_costs", "length_problem", "trim", "within"]

VERSION = 1
COSTS = "costs.json"  # the table, in the result's folder
UNSURE = 0.05


class Trim(Config):
    """Options of the trim stage."""

    budget: Literal["latency", "size"] = Field(
        "latency", description="what is held within the share: measured time of an inference, or the encoder's weights"
    )
    share: float = Field(0.6, gt=0, lt=1, description="share of the source's latency, or of its weights, that may stay")
    precision: Literal["f32", "int8"] = Field(
        "f32", description="the ONNX file that will ship, on which costs are measured: f32 or int8-dynamic"
    )
    batch: int = Field(1, ge=1, description="examples of an inference that is measured")
    length: int = Field(0, ge=0, description="their length in tokens; 0 takes the lengths of the calibration texts")
    inference_threads: int = Field(0, ge=0, description="threads of an inference; 0: physical cores, at most 4")
    costs: str = Field("", description="costs.json of an earlier trim, in place of a new measurement")
    foreign_costs: bool = Field(False, description="take a table that was measured on another machine")
    round_to: int = Field(32, ge=1, description="FFN widths are multiples of this, which kernels like")
    samples: int = Field(512, ge=1, description="calibration examples (training data, else unlabeled)")
    batch_size: int = Field(32, ge=1, description="calibration examples at a time")
    seed: int = Field(0, ge=0, description="which examples are drawn, and in which directions logits are probed")

    @property
    def files(self) -> tuple[Path, ...]:
        return (Path(self.costs),) if self.costs else ()


def trim(source: Artifact, config: Trim, out: Path, context: Context) -> Outcome:
    """Write the trimmed model, and the table of costs, to `out`.

    Raises StageError for missing data, a model without a trained head or with uneven layers, or a budget that cannot be
    met; UsageError for a table of another machine or model.
    """
    from edgekit.nn.factored import size_of
    from edgekit.nn.load import is_trained, load_classifier, save_model
    from edgekit.nn.structure import widths_of
    from edgekit.nn.surgery import settle
    from edgekit.stages.calibration import draw, unexercised_note

    if not is_trained(source.path, kind_of(source, context)):
        raise StageError("trim follows a trained model, and this one has no head yet", hint="fine-tune it first")
    model = load_classifier(source.path, kind=kind_of(source, context), device=context.device)
    widths = widths_of(model)
    table = _costs(source, model, widths, config, context) if config.budget == "latency" else None
    calibration = draw(source, source.path, model, context, config.samples, config.batch_size, config.seed)
    cost, budget = within(config.share, widths, table)
    cut = cut_within(
        model, calibration, cost, budget, unit=config.round_to, seed=config.seed, progress=context.progress
    )
    numbers: dict[str, float | int | str | bool] = {
        "parameters_before": size_of(model),
        "parameters_after": size_of(cut.model),
        "predicted_logit_change": cut.logit_change,
        "error_mean": sum(cut.errors) / len(cut.errors),
        "importance_samples": len(calibration.encoded),
    }
    save_model(cut.model, out, tokenizer_from=source.path, edits=settle(cut.model))
    if table is not None:
        (out / COSTS).write_text(table.model_dump_json(indent=1) + "\n", encoding="utf-8")
    facts = _facts(widths, cut.structure, table, numbers)
    facts = facts.model_copy(update={"warnings": (*facts.warnings, *unexercised_note(model, calibration))})
    return Outcome("hf", facts, source.task or context.task)


@dataclass(frozen=True)
class Cut:
    """A cut model, and its shape. `logit_change`: the predicted squared change of the logits; `errors`: of what each
    matrix that was repaired writes, relative."""

    model: PreTrainedModel
    structure: Structure
    logit_change: float
    errors: list[float]


def cut_within(
    model: PreTrainedModel,
    calibration: Calibration,
    cost: Cost,
    budget: float,
    *,
    unit: int,
    seed: int,
    progress: Progress,
) -> Cut:
    """A copy of `model` whose heads and neurons (multiples of `unit`) cost `budget` at most, repaired.

    Raises StageError where layers are uneven, or the smallest sizes are over the budget.
    """
    from edgekit.nn.follow import follow, writer_paths
    from edgekit.nn.narrow import narrow
    from edgekit.nn.sensitivity import token_weights
    from edgekit.nn.structure import best_structure, find_ladders, widths_of

    ladders = find_ladders(model, calibration, unit=unit, seed=seed, progress=progress)
    structure = best_structure(ladders, widths_of(model), cost, budget, unit)
    cut = deepcopy(model)
    narrow(cut, ladders.keep(structure))
    weights = token_weights(model, writer_paths(model), calibration, seed=seed, progress=progress)
    errors = follow(cut, model, calibration, weights, progress)
    return Cut(cut, structure, ladders.loss(structure), errors)


def within(share: float, widths: Widths, table: CostTable | None) -> tuple[Cost, float]:
    """What blocks cost, and a budget of that share in the same unit: milliseconds, or weights of the encoder.

    Raises StageError where the model takes longer with every block at its smallest.
    """
    if table is not None:
        wanted, least = share * table.whole_ms, table.smallest_ms
        if wanted < least:
            what = f"{share:.0%} of {table.whole_ms:.3g} ms cannot be met: the embeddings, the head and the smallest "
            hint = f"--share {math.ceil(100 * least / table.whole_ms) / 100:.2f} or more"
            raise StageError(f"{what}blocks already take {least:.3g} ms", hint=hint)
        return table.cost, wanted - least
    per: dict[Width, int] = {"heads": 4 * widths.hidden * widths.head_size, "ffn": 2 * widths.hidden}
    whole = widths.layers * (per["heads"] * widths.heads + per["ffn"] * widths.ffn)
    return (lambda width, layer, size: float(per[width] * size)), share * whole


def length_problem(config: Trim, task: Task) -> Problem | None:
    """Why no text is as long as those that are to be timed; None where some are."""
    if config.length <= task.max_length:
        return None
    what = f"is {config.length}, and the model's texts have at most {task.max_length} tokens"
    return Problem("length", what, "a smaller length, or 0 for the lengths of the calibration texts")


def _costs(source: Artifact, model: PreTrainedModel, widths: Widths, config: Trim, context: Context) -> CostTable:
    """The table that was given, where it is of this machine and model; else one that is measured now."""
    from edgekit.formats.cost_probes import Probes, measure_costs
    from edgekit.machine import default_threads
    from edgekit.stages.export import require_task

    threads = config.inference_threads or default_threads()
    if config.costs:
        table = given_costs(config.costs, foreign=config.foreign_costs)
        table.check(widths, config.precision, threads, config.batch)
        return table
    task = require_task(source)
    if problem := length_problem(config, task):
        raise StageError(f"{problem.where} {problem.what}", hint=problem.hint)
    context.progress.say("measuring what heads and neurons cost; keep the machine otherwise idle")
    probes = Probes.of(
        model,
        source.path,
        task,
        context.calibration(),
        threads=threads,
        batch=config.batch,
        length=config.length,
        precision=config.precision,
    )
    return measure_costs(probes, config.round_to, seed=config.seed, progress=context.progress)


def given_costs(file: str, *, foreign: bool) -> CostTable:
    """The table in a file. Raises UsageError where it is none, or, unless `foreign`, one of another machine."""
    from edgekit.transports import LOCAL

    table = load_costs(Path(file))
    if not foreign:
        table.check_machine(LOCAL.identity(("onnxruntime",)))
    return table


def _facts(
    widths: Widths, structure: Structure, table: CostTable | None, numbers: dict[str, float | int | str | bool]
) -> Facts:
    layers = range(widths.layers)
    before = f"{widths.heads} heads, {widths.ffn} neurons"
    touched = [f"layer {i}: {before} -> {structure.heads[i]}, {structure.ffn[i]}" for i in layers]
    whole = [i for i in layers if structure.heads[i] == widths.heads and structure.ffn[i] == widths.ffn]
    spans = (_span(structure.heads), _span(structure.ffn))
    summary = f"heads {widths.heads} -> {spans[0]}, FFN {widths.ffn} -> {spans[1]}"
    warnings = []
    if table is not None:
        predicted = table.predict(structure)
        numbers |= {"whole_ms": table.whole_ms, "predicted_ms": predicted, "costs_error": table.error}
        summary += f"; predicted {table.whole_ms:.2f} -> {predicted:.2f} ms ({table.whole_ms / predicted:.2f}x)"
        if table.error > UNSURE:
            warnings.append(f"costs are only known to {table.error:.0%}: the machine was busy while they were measured")
    return Facts(
        summary=summary,
        changed=len(whole) < widths.layers,
        touched=tuple(text for i, text in enumerate(touched) if i not in whole),
        skipped=tuple(Skipped(name=f"layer {i}", reason="all of it stays") for i in whole),
        warnings=tuple(warnings),
        numbers=numbers,
    )


def _span(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else f"{min(sizes)}..{max(sizes)}"
