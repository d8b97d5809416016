"""lm-prune: a decoder with fewer layers, key-value heads, FFN neurons, channels and tokens; a plain checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from edgekit.artifact import Artifact, Facts, Skipped, Task
from edgekit.errors import StageError
from edgekit.nn.decoder_sizes import ROW, Sizes
from edgekit.stages.base import Config, Context, Outcome, SplitName

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.decoder_budget import Dimension
    from edgekit.nn.decoder_importance import DecoderScores
    from edgekit.nn.decoder_surgery import Keep

__all__ = ["VERSION", "LmPrune", "lm_prune"]

VERSION = 1
PROBE_BATCHES = 4  # of the calibration data, to measure what a size costs
NAMES = {"layers": "layers", "hidden": "hidden width", "groups": "key-value groups", "ffn": "FFN"}


class LmPrune(Config):
    """Options of the lm-prune stage. By default nothing is removed."""

    parameters: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the parameters to keep, spread over `dimensions` by measured damage; 0: off",
    )
    dimensions: tuple[Literal["layers", "hidden", "groups", "ffn"], ...] = Field(
        ("layers", "groups", "ffn"),
        min_length=1,
        description="what the budget may cut. The hidden width costs most (llama-6m, repaired: KL divergence 0.30 with "
        "75% of the parameters left, against 0.05 with 69% left by FFN)",
    )
    layers: float = Field(0.0, ge=0, lt=1, description="share of the layers to remove")
    groups: float = Field(0.0, ge=0, lt=1, description="share of the key-value heads to remove, with their query heads")
    ffn: float = Field(0.0, ge=0, lt=1, description="share of the FFN neurons to remove")
    hidden: float = Field(0.0, ge=0, lt=1, description="share of the hidden channels to remove")
    vocabulary: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the tokens to remove, the rarest in the data first; rewrites the tokenizer",
    )
    vocabulary_keep: Literal["data", "data+letters", "data+pieces"] = Field(
        "data+pieces",
        description="besides common tokens: none; the characters of the data's scripts; or all characters, so that any "
        "text that could be spelled stays spelled",
    )
    importance: Literal["activation", "taylor"] = Field(
        "activation",
        description="how neurons, groups and channels rank: by what they add to the next matrix, or by gradients. "
        "Repaired, both are worth the same (llama-6m, FFN: KL 0.051 and 0.049); taylor takes more time and memory",
    )
    round_to: int = Field(
        0,
        ge=0,
        description="widths become multiples of this; 0: of 256 where they are above it (K-quants), else 32 (int4)",
    )
    reconstruct: bool = Field(
        True, description="solve what reads the removed columns again, by least squares on calibration data"
    )
    samples: int = Field(64, ge=1, description="calibration windows (training data, else unlabeled)")
    batch_size: int = Field(8, ge=1, description="calibration windows at a time")

    @model_validator(mode="after")
    def _one_way(self) -> LmPrune:
        if self.parameters and any(self.shares.values()):
            raise ValueError("give a budget of parameters, or shares of layers, groups, ffn and hidden, not both")
        return self

    @property
    def shares(self) -> dict[Dimension, float]:
        """What to remove of each dimension."""
        return {"layers": self.layers, "hidden": self.hidden, "groups": self.groups, "ffn": self.ffn}


@dataclass
class _Log:
    """What was done so far."""

    done: list[str] = field(default_factory=list)  # the parts of the summary
    touched: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    numbers: dict[str, float | int | str | bool] = field(default_factory=dict)


def lm_prune(source: Artifact, config: LmPrune, out: Path, context: Context) -> Outcome:
    """Write a smaller version of the decoder `source` to `out`: vocabulary first, then everything else at once.

    Raises ModelError for an architecture that is not known or a mixture of experts; StageError for missing data, sizes
    that config.json cannot say, or a budget that cannot be met.
    """
    from edgekit.model_config import read_config
    from edgekit.nn.decoder_families import family_of_config
    from edgekit.nn.decoders import load_decoder
    from edgekit.nn.device import threads
    from edgekit.nn.factored import size_of
    from edgekit.nn.load import copy_tokenizer

    written = read_config(source.path)
    family_of_config(written)
    copy_tokenizer(source.path, out)
    with threads(context.threads):
        model, log = load_decoder(source.path, device=context.device), _Log()
        before = size_of(model)
        if config.vocabulary:
            model = _prune_vocabulary(model, config, out, context, log)
        task = source.task or context.task or _task(model)
        if config.parameters or any(config.shares.values()):
            model = _prune_sizes(model, config, out, task, context, before, log)
    _save(model, out, str(written.get("dtype") or written.get("torch_dtype") or "float32"))
    log.numbers |= {"parameters_before": before, "parameters_after": size_of(model)}
    done = ", ".join(log.done) or "nothing was removed"
    facts = Facts(
        summary=f"{done}; {before / 1e6:.1f}M -> {size_of(model) / 1e6:.1f}M parameters",
        changed=bool(log.done),
        touched=tuple(log.touched),
        skipped=tuple(log.skipped),
        warnings=tuple(log.warnings),
        numbers=log.numbers,
    )
    return Outcome("hf", facts, task)


def _task(model: PreTrainedModel) -> Task:
    return Task(kind="language-modeling", max_length=min(256, model.config.max_position_embeddings))


def _save(model: PreTrainedModel, out: Path, dtype: str) -> None:
    """Write config and weights, in the type that the source had."""
    import torch

    model.to("cpu", dtype=getattr(torch, dtype.removeprefix("torch."))).save_pretrained(out)


def _prune_vocabulary(
    model: PreTrainedModel, config: LmPrune, out: Path, context: Context, log: _Log
) -> PreTrainedModel:
    """Remove rare tokens from the tokenizer in `out` and from the model."""
    from edgekit.nn import vocabulary
    from edgekit.nn.decoder_vocabulary import keep_tokens, named_ids, rarest_out

    splits: list[SplitName] = [name for name in ("train", "validation", "unlabeled") if name in context.data]
    if not splits:
        raise StageError("pruning the vocabulary needs data to see which tokens are used", hint="give --train FILE")
    spec = vocabulary.load_spec(out)
    texts = {name: context.data[name].all_texts() for name in splits}
    counts = {name: vocabulary.seen_tokens(spec, texts[name]) for name in splits}
    together = sum(counts.values(), Counter[int]())
    always = named_ids(model)
    kept = rarest_out(spec, together, config.vocabulary, keep=config.vocabulary_keep, always=always)
    rows = model.config.vocab_size
    if len(kept) >= rows:
        log.skipped.append(Skipped(name="vocabulary", reason="every token is needed"))
        return model
    small = keep_tokens(model, kept)
    rewritten = vocabulary.write_tokenizer(spec, kept, out)
    same = sum(vocabulary.check_same(spec, rewritten, kept, texts[name]) for name in splits)
    log.done.append(f"vocabulary {rows} -> {len(kept)}")
    log.touched += ["embeddings", "tokenizer.json"]
    inside = set(kept)
    log.numbers |= {"vocabulary_kept": len(kept), "vocabulary_same_texts": same}
    for name, seen in counts.items():
        outside = sum(times for i, times in seen.items() if i not in inside)
        log.numbers[f"vocabulary_changed_{name}"] = outside / max(1, seen.total())
    return small


def _prune_sizes(
    model: PreTrainedModel, config: LmPrune, out: Path, task: Task, context: Context, before: int, log: _Log
) -> PreTrainedModel:
    """Remove layers, groups, neurons and channels, and repair what reads them."""
    from edgekit.nn.decoder_budget import by_share
    from edgekit.nn.decoder_importance import best, score
    from edgekit.nn.decoder_sizes import sizes_of
    from edgekit.nn.decoder_statistics import divergence
    from edgekit.nn.decoder_surgery import shrink
    from edgekit.tasks.language_modeling import make_windows

    windows = make_windows(out, context.calibration(), task, most=config.samples)
    data = windows.batches(config.batch_size)
    old = sizes_of(model.config)
    if config.parameters:
        scores = score(model, data, config.importance, context.progress)
        new = _spread(model, config, scores, data, before, log)
        if new == old:
            log.skipped.append(Skipped(name="sizes", reason="the budget is met already"))
            return model
    else:
        new, reasons = by_share(model, config.shares, config.round_to)
        log.skipped += [Skipped(name=NAMES[name], reason=reason) for name, reason in reasons.items()]
        if new == old:
            return model
        scores = score(model, data, config.importance, context.progress)
    keep = best(scores, old, new)
    repaired = _repaired(model, config, keep, data, context)
    small = shrink(model, keep, repaired)
    few = data[:: -(-len(data) // PROBE_BATCHES)]
    log.numbers["divergence"] = divergence(model, small, few)
    if repaired:
        log.numbers["divergence_unrepaired"] = divergence(model, shrink(model, keep), few)
    log.numbers["layers_kept"] = ",".join(map(str, keep.layers))
    _tell(model, old, new, log)
    return small


def _spread(
    model: PreTrainedModel,
    config: LmPrune,
    scores: DecoderScores,
    data: Sequence[torch.Tensor],
    before: int,
    log: _Log,
) -> Sizes:
    """Sizes within the budget; their damage is the divergence on the calibration windows."""
    from edgekit.nn.decoder_budget import by_budget
    from edgekit.nn.decoder_importance import best
    from edgekit.nn.decoder_repair import moments_fit, repair, sites
    from edgekit.nn.decoder_sizes import sizes_of
    from edgekit.nn.decoder_statistics import divergence, moments
    from edgekit.nn.decoder_surgery import shrink

    old = sizes_of(model.config)
    second = moments(model, sites(model), data) if config.reconstruct and moments_fit(model) else {}
    few = data[:: -(-len(data) // PROBE_BATCHES)]

    def damage(sizes: Sizes) -> float:
        keep = best(scores, old, sizes)
        return divergence(model, shrink(model, keep, repair(model, keep, second)), few)

    new, measured = by_budget(model, config.parameters * before, config.dimensions, config.round_to, damage)
    log.numbers |= {f"divergence_at {what}": worth for what, worth in measured.items()}
    if config.reconstruct and not second:
        log.warnings.append(
            "the budget was spread by damage before repair: the moments of all layers need too much room"
        )
    return new


def _repaired(
    model: PreTrainedModel, config: LmPrune, keep: Keep, data: Sequence[torch.Tensor], context: Context
) -> dict[str, torch.Tensor]:
    """The matrices that were solved again; none where that is not wanted."""
    from edgekit.nn.decoder_repair import repair_by_parts

    return repair_by_parts(model, keep, data, context.progress) if config.reconstruct else {}


def _tell(model: PreTrainedModel, old: Sizes, new: Sizes, log: _Log) -> None:
    """Say what went, and what the new sizes rule out."""
    from edgekit.nn.decoder_families import decoder_family

    for dimension, name in NAMES.items():
        before, after = getattr(old, dimension), getattr(new, dimension)
        if before != after:
            log.done.append(f"{name} {before} -> {after}")
            log.touched.append(f"{name}: {before} -> {after}")
    for what, before, after in (
        ("hidden width", old.hidden, new.hidden),
        ("FFN", old.ffn, new.ffn),
        ("attention", old.axis("query"), new.axis("query")),
    ):
        if before % ROW == 0 and after % ROW:
            log.warnings.append(
                f"rows of the {what} are now {after}, no multiple of {ROW}: K-quants do not apply to them"
            )
    pattern = decoder_family(model.config.model_type).layer_pattern
    if pattern and old.layers != new.layers:
        log.warnings.append(
            f"llama.cpp takes every {pattern}. layer for one of full attention; with layers gone, the GGUF may "
            "disagree on texts longer than the window"
        )
