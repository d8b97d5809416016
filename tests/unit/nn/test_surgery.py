from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from edgekit.nn.factored import LowRankEmbedding, LowRankLinear, size_of
from edgekit.nn.load import backbone, encoder_layers, load_classifier, read_edits, save_model
from edgekit.nn.lowrank import factorize_module, spectrum
from edgekit.nn.surgery import (
    drop_layers,
    ffn_width,
    head_count,
    merge_low_rank,
    part,
    part_path,
    prune_heads,
    resize_ffn,
    settle,
)
from edgekit.nn.weighting import Weighting

Tiny = Callable[..., Path]
IDS = torch.tensor([[4, 7, 9, 12, 15, 11], [5, 6, 8, 10, 1, 1]])


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def saved_again(model: PreTrainedModel, source: Path, out: Path) -> PreTrainedModel:
    save_model(model, out, tokenizer_from=source, edits=settle(model))
    return load_classifier(out)


def low_rank(model: PreTrainedModel, path: str, rank: int) -> None:
    module = model.get_submodule(path)
    found = spectrum(path, module, Weighting())
    model.set_submodule(path, factorize_module(module, found, rank))


def test_ffn_of_one_width_stays_a_plain_checkpoint(any_family: Path, tmp_path: Path) -> None:
    model = load_classifier(any_family)
    for layer in range(2):
        resize_ffn(model, layer, torch.arange(0, 64, 2))
    again = saved_again(model, any_family, tmp_path / "out")
    assert read_edits(tmp_path / "out").empty
    assert torch.equal(logits(model), logits(again))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits(model), logits(plain))


def test_removed_neurons_are_those_that_were_not_kept(any_family: Path) -> None:
    model, reference = load_classifier(any_family), load_classifier(any_family)
    keep = torch.tensor([0, 3, 5, 60])
    gone = torch.tensor([i for i in range(64) if i not in keep.tolist()])
    part(reference, 1, "ffn_down").weight.data[:, gone] = 0
    resize_ffn(model, 1, keep)
    torch.testing.assert_close(logits(model), logits(reference))


def test_removed_heads_are_those_that_were_not_kept(any_family: Path) -> None:
    model, reference = load_classifier(any_family), load_classifier(any_family)
    part(reference, 0, "attention_output").weight.data[:, 8:16] = 0
    prune_heads(model, 0, torch.tensor([0, 2, 3]))
    assert head_count(model, 0) == 3
    torch.testing.assert_close(logits(model), logits(reference))


def test_uneven_shapes_come_back_through_edits(any_family: Path, tmp_path: Path) -> None:
    model = load_classifier(any_family)
    resize_ffn(model, 0, torch.arange(16))
    prune_heads(model, 1, torch.tensor([1]))
    low_rank(model, part_path(model, 0, "ffn_up"), 4)
    root, family = backbone(model)
    low_rank(model, f"{family.backbone}.{family.word_embeddings}", 6)
    again = saved_again(model, any_family, tmp_path / "out")
    edits = read_edits(tmp_path / "out")
    assert edits.ffn == {0: 16} and edits.heads == {1: 1} and sorted(edits.low_rank.values()) == [4, 6]
    assert size_of(again) == size_of(model)
    assert torch.equal(logits(model), logits(again))
    assert isinstance(root.get_submodule(family.word_embeddings), LowRankEmbedding)


def test_edits_compose_over_several_saves(any_family: Path, tmp_path: Path) -> None:
    """Prune, save; factorize, save; drop the first layer, save: what is left of the edits moves along."""
    model = load_classifier(any_family)
    resize_ffn(model, 1, torch.arange(20))
    model = saved_again(model, any_family, tmp_path / "a")
    low_rank(model, part_path(model, 1, "query"), 5)
    model = saved_again(model, any_family, tmp_path / "b")
    prune_heads(model, 1, torch.tensor([0, 3]))
    model = saved_again(model, any_family, tmp_path / "c")
    drop_layers(model, [1])
    again = saved_again(model, any_family, tmp_path / "d")
    edits = read_edits(tmp_path / "d")
    assert edits.heads == {0: 2} and edits.low_rank == {part_path(model, 0, "query"): 5}
    assert len(encoder_layers(again)) == 1 and ffn_width(again, 0) == 20
    assert torch.equal(logits(model), logits(again))


def test_dropping_layers_keeps_the_named_ones(tiny: Tiny, tmp_path: Path) -> None:
    for name in ("bert", "distilbert"):
        folder = tiny(name, layers=4)
        model, reference = load_classifier(folder), load_classifier(folder)
        drop_layers(model, [0, 3])
        for new, old in enumerate((0, 3)):
            assert torch.equal(part(model, new, "ffn_up").weight, part(reference, old, "ffn_up").weight)
        out = tmp_path / f"{name}-out"
        again = saved_again(model, folder, out)
        assert read_edits(out).empty and torch.equal(logits(model), logits(again))


def test_low_rank_layers_can_be_narrowed(any_family: Path) -> None:
    model = load_classifier(any_family)
    for name in ("query", "key", "value", "attention_output", "ffn_up", "ffn_down"):
        low_rank(model, part_path(model, 0, name), 7)
    reference, _ = merge_low_rank(_copy(model))
    for m in (model, reference):
        resize_ffn(m, 0, torch.arange(1, 64, 3))
        prune_heads(m, 0, torch.tensor([1, 2]))
    assert isinstance(part(model, 0, "ffn_up"), LowRankLinear)
    torch.testing.assert_close(logits(model), logits(reference))


def test_merging_gives_a_plain_model_with_the_same_answers(any_family: Path, tmp_path: Path) -> None:
    model = load_classifier(any_family)
    _, family = backbone(model)
    paths = [f"{family.backbone}.{family.word_embeddings}", part_path(model, 1, "ffn_down")]
    for path in paths:
        low_rank(model, path, 5)
    before = logits(model)
    merged, names = merge_low_rank(model)
    assert merged is model and sorted(names) == sorted(paths)
    torch.testing.assert_close(logits(model), before)
    saved_again(model, any_family, tmp_path / "out")
    assert read_edits(tmp_path / "out").empty


def test_a_layer_keeps_a_head(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="at least one head"):
        prune_heads(load_classifier(tiny("bert")), 0, torch.tensor([], dtype=torch.long))


def test_low_rank_models_go_through_torch_export(tiny: Tiny) -> None:
    model = load_classifier(tiny("bert"))
    low_rank(model, "bert.embeddings.word_embeddings", 6)
    low_rank(model, part_path(model, 0, "ffn_up"), 6)
    prune_heads(model, 1, torch.tensor([0, 2]))
    mask = torch.ones_like(IDS)
    program = torch.export.export(model, (), {"input_ids": IDS, "attention_mask": mask})
    out = program.module()(input_ids=IDS, attention_mask=mask)
    torch.testing.assert_close(out.logits, logits(model))


def _copy(model: PreTrainedModel) -> PreTrainedModel:
    import copy

    return copy.deepcopy(model)
