"""Factorize: replace matrices by products of two thin ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from edgekit.artifact import Artifact, Facts, Skipped
from edgekit.errors import StageError
from edgekit.stages.base import Config, Context, Outcome, kind_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.calibration import Calibration
    from edgekit.nn.lowrank import Spectrum
    from edgekit.nn.weighting import Weighting
    from edgekit.stages.versus import Duel, Verdict

__all__ = ["VERSION", "Factorize", "factorize"]

VERSION = 3
Part = Literal["attention", "ffn", "embedding"]


class Factorize(Config):
    """Options of the factorize stage."""

    method: Literal["svd", "fwsvd", "whitened", "curvature"] = Field(
        "whitened",
        description="what stays close: the weights (svd), the weights that matter to the loss (fwsvd), the layer's "
        "output on your data (whitened), or the logits (curvature: attention and FFN alone; layer by layer, what is "
        "left is then solved to follow the source)",
    )
    modules: tuple[Part, ...] = Field(
        ("embedding",),
        min_length=1,
        description="what to factorize: attention, ffn, embedding. The embedding is the default: it holds half of a "
        "small encoder's weights and is only looked up, so its rank costs no time; two thin matrix products in place "
        "of one are often slower on a CPU, and dropping FFN neurons (prune) loses less for the same size",
    )
    versus: Literal["auto", "pruning", "none"] = Field(
        "auto",
        description="pruning: prune the source to the same cost too, as trim does, and hand it on unchanged where that "
        "moves its answers less; auto does so where attention or FFN alone are factorized and it can be done",
    )
    costs: str = Field(
        "", description="costs.json of a trim, by which both cost the same milliseconds; without it, operations"
    )
    foreign_costs: bool = Field(False, description="take a table that was measured on another machine")
    rank_by: Literal["energy", "budget"] = Field(
        "budget", description="choose ranks by the energy each layer keeps, or by one budget for all layers"
    )
    energy: float = Field(0.95, gt=0, le=1, description="share of the weighted energy that each layer keeps")
    budget: float = Field(0.5, gt=0, lt=1, description="share of the chosen modules' weights that may stay")
    round_to: int = Field(16, ge=1, description="ranks are multiples of this")
    samples: int = Field(512, ge=1, description="calibration examples (training data, else unlabeled)")
    batch_size: int = Field(32, ge=1, description="calibration examples at a time")
    seed: int = Field(0, ge=0, description="which examples are drawn")

    @property
    def files(self) -> tuple[Path, ...]:
        return (Path(self.costs),) if self.costs else ()

    @property
    def compared(self) -> bool:
        """Whether a comparison with pruning was asked for."""
        return self.versus == "pruning" or bool(self.costs)

    @model_validator(mode="after")
    def _of_layers_alone(self) -> Factorize:
        if self.costs and self.versus == "none":
            raise ValueError("costs are for the comparison with pruning, which versus=none turns off")
        if "embedding" in self.modules and self.method == "curvature":
            raise ValueError("curvature is for attention and ffn: factorize the embedding in a step of its own")
        if "embedding" in self.modules and self.compared:
            what = "low rank of the embedding cannot be compared with pruning, which leaves it as it is"
            raise ValueError(f"{what}: factorize it in a step of its own, or leave out versus and costs")
        return self


def factorize(source: Artifact, config: Factorize, out: Path, context: Context) -> Outcome:
    """Write a low-rank version of `source` to `out`, or `source` as it is where pruning would be better.

    Raises StageError for "fwsvd" or "curvature" without a trained head, missing calibration data, a budget that is too
    small, or where pruning was to be compared and cannot; UsageError for a table of another machine or model.
    """
    from edgekit.nn.factored import size_of
    from edgekit.nn.load import load_classifier, save_model
    from edgekit.nn.lowrank import ranks_by_budget, ranks_by_energy, spectrum
    from edgekit.nn.surgery import settle
    from edgekit.stages.calibration import UNEXERCISED, draw

    model = load_classifier(source.path, kind=kind_of(source, context), device=context.device)
    duel, note = _duel(source, model, config, context)
    context = duel.context if duel else context
    before = size_of(model)
    paths = chosen_modules(model, config.modules)
    spectra, means = [], {}
    for path, weighting in _weightings(source, model, paths, config, context):
        spectra.append(spectrum(path, model.get_submodule(path), weighting))
        means[path] = weighting.mean
    if config.rank_by == "energy":
        ranks = ranks_by_energy(spectra, config.energy, config.round_to)
    else:
        ranks = ranks_by_budget(spectra, config.budget, config.round_to)
    intact = deepcopy(model) if duel or config.method == "curvature" else model
    idle = [Skipped(name=path, reason=UNEXERCISED) for path in paths if path not in means]
    skipped = [*_replace(model, spectra, ranks, means), *idle]
    if config.method == "curvature":
        _repair(source, model, intact, config, context)
    facts = _facts(config, spectra, ranks, skipped, before, size_of(model))
    if note:
        facts = facts.model_copy(update={"warnings": (note,)})
    if duel and facts.changed:
        calibration = draw(source, source.path, intact, context, config.samples, config.batch_size, config.seed)
        verdict = duel.judge(source, intact, model, calibration, unit=config.round_to, seed=config.seed)
        facts = _judged(facts, verdict)
        model = intact if verdict.lost else model
    save_model(model, out, tokenizer_from=source.path, edits=settle(model))
    return Outcome("hf", facts, source.task or context.task)


def _duel(source: Artifact, model: PreTrainedModel, config: Factorize, context: Context) -> tuple[Duel | None, str]:
    """The comparison with pruning that is to be made; else why there is none, where one may be missed."""
    from edgekit.stages.versus import obstacle, prepare

    if config.versus == "none" or not {*config.modules} & {"attention", "ffn"}:
        return None, ""
    reason = obstacle(source, model, config.modules, context)
    if reason and config.compared:
        raise StageError(f"low rank cannot be compared with pruning: {reason}", hint="leave out versus and costs")
    if reason:
        return None, f"not compared with pruning: {reason}"
    duel = prepare(
        model,
        context,
        costs=config.costs,
        foreign_costs=config.foreign_costs,
        samples=config.samples,
        seed=config.seed,
    )
    return duel, ""


def _judged(facts: Facts, verdict: Verdict) -> Facts:
    """The facts with the comparison's figures; of a factorization that lost, that the source stays."""
    numbers = facts.numbers | {"cost_share": verdict.share, "answers_moved": verdict.moved}
    if verdict.pruned is not None:
        numbers |= {"answers_moved_by_pruning": verdict.pruned}
    if not verdict.lost:
        return facts.model_copy(update={"summary": f"{facts.summary}; {verdict.sentence}", "numbers": numbers})
    numbers |= {"parameters_after": numbers["parameters_before"], "factorized": 0}
    return Facts(
        summary=f"dropped: {verdict.sentence}",
        changed=False,
        dropped=True,
        warnings=(f"dropped: {verdict.detail}",),
        numbers=numbers,
    )


def _repair(
    source: Artifact, model: PreTrainedModel, intact: PreTrainedModel, config: Factorize, context: Context
) -> None:
    """Layer by layer, what writes to the residual stream is solved to follow the intact model."""
    from edgekit.nn.follow import follow, writer_paths
    from edgekit.nn.sensitivity import token_weights
    from edgekit.stages.calibration import draw

    calibration = draw(source, source.path, intact, context, config.samples, config.batch_size, config.seed)
    weights = token_weights(intact, writer_paths(intact), calibration, seed=config.seed, progress=context.progress)
    follow(model, intact, calibration, weights, context.progress)


def chosen_modules(model: PreTrainedModel, parts: Sequence[Part]) -> list[str]:
    """Paths from the model of the linear layers and embeddings that `parts` name."""
    from edgekit.nn.load import backbone, encoder_layers
    from edgekit.nn.surgery import part_path

    _, family = backbone(model)
    names = {"attention": ("query", "key", "value", "attention_output"), "ffn": ("ffn_up", "ffn_down"), "embedding": ()}
    if "embedding" in parts and not family.word_embeddings:
        raise StageError(f"{model.config.model_type} has no table of tokens to factorize", hint="use attention or ffn")
    paths = [f"{family.backbone}.{family.word_embeddings}"] if "embedding" in parts else []
    wanted = [name for piece, members in names.items() if piece in parts for name in members]
    paths += [part_path(model, i, name) for i in range(len(encoder_layers(model))) for name in wanted]
    return list(dict.fromkeys(paths))  # one matrix may be several parts


def _weightings(
    source: Artifact, model: PreTrainedModel, paths: Sequence[str], config: Factorize, context: Context
) -> Iterator[tuple[str, Weighting]]:
    """What each layer's error is weighted by; a few at a time, because covariances are large. Nothing for layers of
    which the data say nothing."""
    from edgekit.nn.calibration import unexercised
    from edgekit.nn.layers import shares_weights
    from edgekit.nn.load import is_trained
    from edgekit.nn.structure import SHARED
    from edgekit.nn.weighting import Weighting, fisher_weightings
    from edgekit.stages.calibration import draw

    if config.method == "svd":
        yield from ((path, Weighting()) for path in paths)
        return
    if config.method == "curvature" and shares_weights(model):
        raise StageError(SHARED, hint="use the method whitened")
    if config.method in ("fwsvd", "curvature") and not is_trained(source.path, kind_of(source, context)):
        raise StageError(
            f"{config.method} needs a trained classifier, and this model has none yet",
            hint="fine-tune it first, or use the methods svd or whitened",
        )
    calibration = draw(source, source.path, model, context, config.samples, config.batch_size, config.seed)
    unread = {*unexercised(model, calibration)}
    paths = [path for path in paths if path not in unread]
    if config.method == "fwsvd":
        yield from fisher_weightings(model, paths, calibration, context.progress).items()
    elif config.method == "curvature":
        yield from _curvature(model, paths, calibration, config, context)
    else:
        yield from _whitening(model, paths, calibration, context)


def _curvature(
    model: PreTrainedModel, paths: Sequence[str], calibration: Calibration, config: Factorize, context: Context
) -> Iterator[tuple[str, Weighting]]:
    """The curvature of the logits in what each layer writes, and what it reads."""
    from edgekit.nn.calibration import groups
    from edgekit.nn.sensitivity import sensitivities
    from edgekit.nn.weighting import curvature_weighting

    for group in groups(model, paths):
        seen = sensitivities(model, group, calibration, seed=config.seed, progress=context.progress)
        for path, found in seen.items():
            yield path, curvature_weighting(found, has_bias=model.get_submodule(path).bias is not None)


def _whitening(
    model: PreTrainedModel, paths: Sequence[str], calibration: Calibration, context: Context
) -> Iterator[tuple[str, Weighting]]:
    """Token frequencies for the embedding, input covariances for the rest. Query, key and value share one input."""
    from edgekit.nn.calibration import groups, input_moments
    from edgekit.nn.load import backbone
    from edgekit.nn.weighting import frequency_weighting, moment_weighting

    _, family = backbone(model)
    embedding = f"{family.backbone}.{family.word_embeddings}"
    readers: dict[str, list[str]] = {}  # the site that is watched -> the layers that read the same input
    for path in paths:
        if path == embedding:
            yield path, frequency_weighting(calibration, model.config.vocab_size)
            continue
        twin = next((n for n in (family.key, family.value) if path.endswith("." + n)), None)
        readers.setdefault(path.removesuffix(twin) + family.query if twin else path, []).append(path)
    for group in groups(model, list(readers)):
        moments = input_moments(model, group, calibration, context.progress)
        for site in group:
            for path in readers[site]:
                yield path, moment_weighting(moments[site], has_bias=model.get_submodule(path).bias is not None)


def _replace(
    model: PreTrainedModel, spectra: Sequence[Spectrum], ranks: Sequence[int], means: Mapping[str, torch.Tensor | None]
) -> list[Skipped]:
    """Put low-rank layers where they are smaller; returns the others."""
    from edgekit.nn.lowrank import factorize_module

    skipped = []
    for found, rank in zip(spectra, ranks, strict=True):
        if not found.shrinks(rank):
            skipped.append(Skipped(name=found.path, reason=f"rank {rank} would not be smaller"))
            continue
        module = model.get_submodule(found.path)
        made = factorize_module(module, found, rank, means[found.path])
        model.set_submodule(found.path, made.to(model.device))
    return skipped


def _facts(
    config: Factorize,
    spectra: Sequence[Spectrum],
    ranks: Sequence[int],
    skipped: Sequence[Skipped],
    before: int,
    after: int,
) -> Facts:
    left = {s.name for s in skipped}
    done = [(found, rank) for found, rank in zip(spectra, ranks, strict=True) if found.path not in left]
    errors = [found.error(rank) for found, rank in done]
    numbers: dict[str, float | int | str | bool] = {
        "parameters_before": before,
        "parameters_after": after,
        "factorized": len(done),
    }
    summary = f"none of {len(spectra)} matrices would be smaller; nothing was changed"
    if done:
        kept = [rank for _, rank in done]
        numbers |= {
            "rank_min": min(kept),
            "rank_max": max(kept),
            "error_mean": sum(errors) / len(errors),
            "error_max": max(errors),
        }
        span = str(kept[0]) if min(kept) == max(kept) else f"{min(kept)} to {max(kept)}"
        summary = (
            f"{len(done)} of {len(spectra)} matrices ({', '.join(config.modules)}) at rank {span} by {config.method}; "
            f"{before / 1e6:.1f}M -> {after / 1e6:.1f}M parameters, relative error {numbers['error_mean']:.3f}"
        )
    return Facts(
        summary=summary,
        changed=bool(done),
        touched=tuple(f"{found.path}: rank {rank}" for found, rank in done),
        skipped=tuple(skipped),
        numbers=numbers,
    )
