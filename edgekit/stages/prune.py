"""Prune: fewer layers, heads, FFN neurons and tokens; the result is physically smaller and reloads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from edgekit.artifact import Artifact, Facts, Skipped
from edgekit.errors import StageError
from edgekit.model_config import ModelConfig
from edgekit.stages.base import Config, Context, Outcome, SplitName, kind_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.calibration import Calibration
    from edgekit.nn.importance import Scores
    from edgekit.nn.vocabulary import Spec

__all__ = ["VERSION", "VOCABULARY_SPLITS", "Prune", "prune", "tokens_to_keep"]

VERSION = 1
VOCABULARY_SPLITS: tuple[SplitName, ...] = ("train", "validation", "unlabeled")  # whose tokens are counted


class Prune(Config):
    """Options of the prune stage. By default nothing is removed."""

    keep_layers: int = Field(0, ge=0, description="Transformer layers to keep; 0 keeps all")
    layer_choice: Literal["spread", "first", "importance"] = Field(
        "spread",
        description="which layers stay: evenly spread, the first, or those that change their input most",
    )
    fold_layers: int = Field(
        0,
        ge=0,
        description="first layers whose work on each token goes into the token table, at no cost when the model runs; "
        "keep_layers counts the others. For a deep cut that is distilled afterwards",
    )
    fold_texts: int = Field(30000, ge=1, description="texts that tell what those layers make of the tokens")
    heads: float = Field(0.0, ge=0, lt=1, description="share of attention heads to remove")
    ffn: float = Field(0.0, ge=0, lt=1, description="share of FFN neurons to remove")
    vocabulary: bool = Field(False, description="remove tokens that the data do not use, and rewrite the tokenizer")
    vocabulary_keep: Literal["data", "data+letters", "data+pieces"] = Field(
        "data+pieces",
        description="besides special tokens: the data's tokens alone; also the characters of the data's scripts; or "
        "also all characters, so that any word the tokenizer could spell stays spelled",
    )
    vocabulary_min_count: int = Field(1, ge=1, description="a token stays when the data have it at least so often")
    vocabulary_common: int = Field(
        0, ge=0, description="also keep the tokens with the lowest ids, the most common ones"
    )
    importance: Literal["magnitude", "taylor", "fisher"] = Field(
        "taylor",
        description="how heads and neurons are ranked; magnitude needs no trained classifier. On MiniLM with 40% of "
        "the FFN removed and repaired, logits moved least by taylor (2%), then magnitude (3%), then fisher (7%)",
    )
    scope: Literal["uniform", "global"] = Field(
        "uniform", description="the same share in every layer, or one budget that goes to the layers that matter"
    )
    round_to: int = Field(32, ge=1, description="FFN widths are multiples of this")
    reconstruct: bool = Field(
        True, description="re-solve the layer after what was removed, by least squares on calibration data"
    )
    samples: int = Field(512, ge=1, description="calibration examples (training data, else unlabeled)")
    batch_size: int = Field(32, ge=1, description="calibration examples at a time")
    seed: int = Field(0, ge=0, description="which examples are drawn")
    unstructured: float = Field(0.0, ge=0, lt=1, description="share of single weights to zero; nothing gets smaller")
    n_of_m: str = Field(
        "", pattern=r"^(\d+:\d+)?$", description="for instance 2:4: keep 2 of each 4 weights; no smaller"
    )

    @model_validator(mode="after")
    def _one_sparsity(self) -> Prune:
        from edgekit.nn.sparsity import parse_n_of_m

        if self.unstructured and self.n_of_m:
            raise ValueError("unstructured and n_of_m exclude each other")
        if self.n_of_m:
            parse_n_of_m(self.n_of_m)
        return self


@dataclass
class _Log:
    """What was done so far."""

    done: list[str] = field(default_factory=list)  # the parts of the summary
    touched: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    numbers: dict[str, float | int | str | bool] = field(default_factory=dict)


def prune(source: Artifact, config: Prune, out: Path, context: Context) -> Outcome:
    """Write a pruned version of `source` to `out`: vocabulary, layers, widths, then zeros.

    Importance is measured on the intact model; the repair of what is left on the model without the dropped layers.
    Raises StageError for missing data, a tokenizer that cannot be pruned, or an importance that the model cannot give.
    """
    from edgekit.nn.device import seeded
    from edgekit.nn.factored import size_of
    from edgekit.nn.importance import Scores
    from edgekit.nn.layers import backbone
    from edgekit.nn.load import copy_tokenizer, is_trained, load_classifier, save_model
    from edgekit.nn.surgery import settle
    from edgekit.stages.calibration import draw, unexercised_note

    kind = kind_of(source, context)
    trained = is_trained(source.path, kind)
    with seeded(config.seed, context.device):  # a classifier that is not there yet is drawn at random
        model = load_classifier(source.path, kind=kind, device=context.device)
    if config.vocabulary and not backbone(model)[1].word_embeddings:
        raise StageError(f"{model.config.model_type} reads pictures: it has no vocabulary", hint="leave vocabulary off")
    before, log = size_of(model), _Log()
    copy_tokenizer(source.path, out)
    if config.vocabulary:
        _prune_vocabulary(model, config, out, context, log)
    model.config.save_pretrained(out)  # the encoder of examples reads the padding id there
    calibration = None
    if _needs_data(config):
        calibration = draw(source, out, model, context, config.samples, config.batch_size, config.seed)
        log.warnings += unexercised_note(model, calibration)
    scores = _scores(model, config, calibration, trained, context, log)
    folded = _fold(model, source, config, out, context, log)
    kept = _drop_layers(model, folded, config, calibration, context, log)
    if scores is not None:
        left = Scores([scores.heads[i] for i in kept], [scores.ffn[i] for i in kept])
        _prune_widths(model, config, left, calibration, context, log)
    _zero(model, config, log)
    save_model(model, out, tokenizer_from=out, edits=settle(model))
    return Outcome("hf", _facts(log, before, size_of(model)), source.task or context.task)


def _needs_data(config: Prune) -> bool:
    narrower = config.heads > 0 or config.ffn > 0
    by_layer = config.keep_layers > 0 and config.layer_choice == "importance"
    return by_layer or (narrower and (config.reconstruct or config.importance != "magnitude"))


def tokens_to_keep(spec: Spec, counts: Counter[int], config: Prune, model: ModelConfig) -> list[int]:
    """Ids that stay by the options of the vocabulary; `counts`: how often the data have each, `model`: its config."""
    from edgekit.nn import vocabulary

    return vocabulary.choose_tokens(
        spec,
        counts,
        keep=config.vocabulary_keep,
        min_count=config.vocabulary_min_count,
        common=config.vocabulary_common,
        always=vocabulary.always_kept(model),
    )


def _prune_vocabulary(model: PreTrainedModel, config: Prune, out: Path, context: Context, log: _Log) -> None:
    """Remove unused tokens from the tokenizer in `out` and from the embedding."""
    from edgekit.nn import vocabulary

    spec = vocabulary.load_spec(out)
    splits = [name for name in VOCABULARY_SPLITS if name in context.data]
    if not splits:
        raise StageError("pruning the vocabulary needs data to see which tokens are used", hint="give --train FILE")
    texts = {name: context.data[name].all_texts() for name in splits}
    counts = {name: vocabulary.seen_tokens(spec, texts[name]) for name in splits}
    kept = tokens_to_keep(spec, sum(counts.values(), Counter()), config, model.config.to_dict())
    total = len(vocabulary.tokens_of(spec))
    if len(kept) >= total:
        log.skipped.append(Skipped(name="vocabulary", reason="every token is used"))
        return
    from edgekit.nn.factored import size_of

    before = size_of(model)
    rows = model.config.vocab_size
    vocabulary.prune_embedding(model, kept)
    rewritten = vocabulary.write_tokenizer(spec, kept, out)
    for name in splits:
        vocabulary.check_same(spec, rewritten, kept, texts[name])
    log.done.append(f"vocabulary {rows} -> {len(kept)}")
    log.touched += ["word embeddings", "tokenizer.json"]
    log.numbers |= {
        "vocabulary_kept": len(kept),
        "vocabulary_removed": rows - len(kept),
        "vocabulary_bytes_saved": 4 * (before - size_of(model)),
    }
    inside = set(kept)
    for name in splits:
        if name != "train":
            log.numbers[f"vocabulary_changed_{name}"] = _share_outside(counts[name], inside)
    if "validation" in splits and len(splits) > 1:
        others = set().union(*(counts[name] for name in splits if name != "validation"))
        log.numbers["vocabulary_new_in_validation"] = _share_outside(counts["validation"], others)


def _share_outside(counts: Counter[int], inside: set[int]) -> float:
    """Share of token occurrences that are not among `inside`."""
    return sum(n for i, n in counts.items() if i not in inside) / max(1, counts.total())


def _scores(
    model: PreTrainedModel,
    config: Prune,
    calibration: Calibration | None,
    trained: bool,
    context: Context,
    log: _Log,
) -> Scores | None:
    """Importance of heads and neurons; None where none are to be removed."""
    from edgekit.nn.importance import gradient_scores, magnitude_scores

    if not (config.heads or config.ffn):
        return None
    if config.importance == "magnitude":
        return magnitude_scores(model)
    if not trained:
        raise StageError(
            f"importance {config.importance!r} needs a trained classifier, and this model has none yet",
            hint="fine-tune it first, or use importance magnitude",
        )
    assert calibration is not None
    by = "the data's labels" if calibration.labelled else "the model's own predictions"
    log.numbers |= {"importance_labels": by, "importance_samples": len(calibration.encoded)}
    return gradient_scores(model, calibration, config.importance, context.progress)


def _fold(model: PreTrainedModel, source: Artifact, config: Prune, out: Path, context: Context, log: _Log) -> int:
    """Put the first layers into the token table; returns how many."""
    from edgekit.nn.fold import check_foldable, fold_layers
    from edgekit.nn.layers import depth
    from edgekit.nn.vocabulary import special_tokens
    from edgekit.stages.calibration import draw_all

    if not config.fold_layers:
        return 0
    if config.fold_layers >= (count := depth(model)):
        raise StageError(
            f"fold_layers is {config.fold_layers}, and the model has {count} layers", hint="one has to stay"
        )
    check_foldable(model)  # before texts are read
    drawn = draw_all(source, out, model, context, config.fold_texts, config.batch_size, config.seed)
    batches = ((inputs, mask) for some in drawn for (inputs, _), mask in zip(some, some.masks(), strict=True))
    shown = context.progress.track(batches, "reading texts", sum(len(some) for some in drawn))
    done = fold_layers(model, config.fold_layers, shown, special_tokens(out))
    log.done.append(
        f"{config.fold_layers} of {count} layers in the token table ({done.explained:.0%} of what they make)"
    )
    log.touched += [f"layer {i}: folded into the token table" for i in range(config.fold_layers)]
    log.numbers |= {"fold_explained": done.explained, "fold_tokens": done.tokens, "fold_types": done.types}
    return config.fold_layers


def _drop_layers(
    model: PreTrainedModel, folded: int, config: Prune, calibration: Calibration | None, context: Context, log: _Log
) -> list[int]:
    """Remove whole layers; returns the source's numbers of those that stay, of the layers with weights of their own."""
    from edgekit.nn.importance import spread_layers
    from edgekit.nn.layers import backbone, depth, encoder_layers
    from edgekit.nn.surgery import drop_layers

    own, count = [folded + i for i in range(len(encoder_layers(model)))], depth(model)
    if config.keep_layers > count:
        left = f" left, {folded} being folded" if folded else ""
        raise StageError(f"keep_layers is {config.keep_layers}, but the model has only {count} layers{left}")
    if config.keep_layers in (0, count):
        return own
    if backbone(model)[1].group_layers:
        if config.layer_choice == "importance":
            raise StageError("the layers share their weights: none matters more", hint="use layer_choice spread")
        drop_layers(model, range(config.keep_layers))
        log.done.append(f"{count} -> {config.keep_layers} layers")
        log.touched.append(f"the shared layers: computed {config.keep_layers} times, not {count}; no weight goes")
        return own
    if config.layer_choice == "first":
        kept = list(range(config.keep_layers))
    elif config.layer_choice == "spread":
        kept = spread_layers(count, config.keep_layers)
    else:
        assert calibration is not None
        kept = _most_influential(model, config.keep_layers, calibration, context)
    drop_layers(model, kept)
    log.done.append(f"{count} -> {len(kept)} layers")
    numbers = [folded + i for i in kept]
    log.touched += [f"layer {i}: removed" for i in range(folded, folded + count) if i not in numbers]
    log.numbers["layers_kept"] = ",".join(map(str, numbers))
    return numbers


def _most_influential(model: PreTrainedModel, keep: int, calibration: Calibration, context: Context) -> list[int]:
    """The layers that change their input most, in order; the first is among them where it must be."""
    from edgekit.nn.importance import layer_influence
    from edgekit.nn.layers import backbone

    influence = layer_influence(model, calibration, context.progress)
    if backbone(model)[1].first_layer_stays:
        influence[0] = float("inf")
    return sorted(sorted(range(len(influence)), key=lambda i: -influence[i])[:keep])


def _prune_widths(
    model: PreTrainedModel,
    config: Prune,
    scores: Scores,
    calibration: Calibration | None,
    context: Context,
    log: _Log,
) -> None:
    """Remove heads and FFN neurons, and repair the layers that read them."""
    from edgekit.nn.importance import choose
    from edgekit.nn.narrow import Width, narrow

    keep: dict[Width, dict[int, torch.Tensor]] = {}
    jobs: tuple[tuple[Width, float, list[torch.Tensor], int], ...] = (
        ("heads", config.heads, scores.heads, 1),
        ("ffn", config.ffn, scores.ffn, config.round_to),
    )
    for width, share, values, unit in jobs:
        if not share:
            continue
        chosen = choose(values, share, unit, pooled=config.scope == "global")
        keep[width] = {i: k for i, k in enumerate(chosen) if len(k) < len(values[i])}
        for i in sorted(set(range(len(values))) - keep[width].keys()):
            log.skipped.append(Skipped(name=f"layer {i} {width}", reason="all of it stays, after rounding"))
        if keep[width]:
            before, after = [len(v) for v in values], [len(k) for k in chosen]
            log.done.append(f"{'FFN' if width == 'ffn' else 'heads'} {_span(before)} -> {_span(after)}")
            log.touched += [f"layer {i} {width}: {before[i]} -> {after[i]}" for i in keep[width]]
            log.numbers |= {f"{width}_before": sum(before), f"{width}_after": sum(after)}
    errors = narrow(model, keep, calibration if config.reconstruct else None, context.progress)
    if errors:
        log.numbers["error_removed"] = sum(e for e, _ in errors) / len(errors)
        log.numbers["error_repaired"] = sum(e for _, e in errors) / len(errors)


def _span(sizes: list[int]) -> str:
    """One size, or the range of several."""
    return str(sizes[0]) if min(sizes) == max(sizes) else f"{min(sizes)}..{max(sizes)}"


def _zero(model: PreTrainedModel, config: Prune, log: _Log) -> None:
    """Set single weights to zero."""
    from edgekit.nn.sparsity import encoder_linears, n_of_m, parse_n_of_m, sparsify

    if not (config.unstructured or config.n_of_m):
        return
    everything = encoder_linears(model).keys()
    if config.n_of_m:
        n, m = parse_n_of_m(config.n_of_m)
        zeros = n_of_m(model, n, m)
        for path in sorted(everything - zeros.keys()):
            log.skipped.append(Skipped(name=path, reason=f"its input width is no multiple of {m}"))
    else:
        zeros = sparsify(model, config.unstructured)
    if not zeros:
        return
    share = sum(zeros.values()) / len(zeros)
    log.done.append(f"{share:.0%} zeros in {len(zeros)} matrices")
    log.touched += [f"{path}: {config.n_of_m or 'magnitude'} zeros" for path in zeros]
    log.numbers["zeros_mean"] = share
    log.warnings.append(
        "zeros are stored like any other number: no file and no runtime here gets smaller or faster by them, and "
        "training after this step fills them again"
    )


def _facts(log: _Log, before: int, after: int) -> Facts:
    done = ", ".join(log.done) or "nothing was removed"
    return Facts(
        summary=f"{done}; {before / 1e6:.1f}M -> {after / 1e6:.1f}M parameters",
        changed=bool(log.done),
        touched=tuple(log.touched),
        skipped=tuple(log.skipped),
        warnings=tuple(log.warnings),
        numbers={"parameters_before": before, "parameters_after": after, **log.numbers},
    )
