"""Every architecture, at random small shapes: after surgery the model computes what the masked original computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.nn.layers import depth, encoder_layers
from edgekit.nn.load import load_classifier, save_model
from edgekit.nn.lowrank import factorize_module, spectrum
from edgekit.nn.surgery import (
    drop_layers,
    ffn_width,
    head_columns,
    head_count,
    head_size,
    merge_low_rank,
    part,
    part_path,
    prune_heads,
    resize_ffn,
    settle,
)
from edgekit.nn.vocabulary import (
    always_kept,
    check_same,
    choose_tokens,
    load_spec,
    prune_embedding,
    seen_tokens,
    tokens_of,
    write_tokenizer,
)
from edgekit.nn.weighting import Weighting
from edgekit.tasks.text_classification import encode
from tests.masking import others, zero_inputs
from tests.tiny_architectures import ARCHITECTURES, random_model, write_architecture

NAMES = sorted(ARCHITECTURES)
FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Model = Any
# every architecture as it is released, then with what its config can also ask for
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("albert", {"num_hidden_groups": 2, "inner_group_num": 2}),
    ("deberta-v2", {"share_att_key": False, "conv_kernel_size": 3, "position_biased_input": True}),
    ("deberta-v2", {"share_att_key": False, "pos_att_type": ["p2c"], "type_vocab_size": 2}),
    ("modernbert", {"attention_bias": True, "mlp_bias": True, "classifier_pooling": "mean"}),
]


def logits(model: Model, seed: int = 0) -> torch.Tensor:
    """Two texts of different length, (2, labels)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, model.config.vocab_size, (2, 11), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    ids[1, 7:] = model.config.pad_token_id or 0
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return found


def some(draw: Callable[..., Any], count: int) -> torch.Tensor:
    return torch.tensor(sorted(draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count))))


def drawn_model(draw: Callable[..., Any], name: str, options: dict[str, Any]) -> Model:
    sizes = {
        "heads": draw(st.integers(1, 5)),
        "head_size": 2 * draw(st.integers(1, 4)),
        "ffn": draw(st.integers(3, 20)),
        "layers": draw(st.integers(options.get("num_hidden_groups", 1), 3)),
    }
    return random_model(name, **sizes, **options).double()


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "")
@FEW
@given(data=st.data())
def test_surgery_computes_what_the_masked_original_computes(
    name: str, options: dict[str, Any], data: st.DataObject
) -> None:
    """Twice, so that what is left is cut once more: positions, buffers and counts must follow."""
    model = drawn_model(data.draw, name, options)
    reference = copy.deepcopy(model)
    left = {i: torch.arange(head_count(model, i)) for i in range(len(encoder_layers(model)))}
    width, total = head_size(model), {i: len(heads) for i, heads in left.items()}
    for _ in range(2):
        for layer in left:
            neurons = some(data.draw, ffn_width(model, layer))
            zero = others(neurons, ffn_width(model, layer))
            heads = some(data.draw, head_count(model, layer))
            left[layer] = left[layer][heads]
            zero_inputs(
                part(reference, layer, "attention_output"), head_columns(others(left[layer], total[layer]), width)
            )
            kept = getattr(reference, "kept", {}).get(layer, torch.arange(ffn_width(reference, layer)))
            zero_inputs(part(reference, layer, "ffn_down"), kept[zero])
            reference.kept = {**getattr(reference, "kept", {}), layer: kept[neurons]}
            prune_heads(model, layer, heads)
            resize_ffn(model, layer, neurons)
    torch.testing.assert_close(logits(model), logits(reference), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_cut_comes_back_from_its_folder(name: str, tmp_path: Path) -> None:
    source = write_architecture(tmp_path / "source", name)
    model = load_classifier(source)
    prune_heads(model, 0, torch.tensor([0, 2]))
    if last := len(encoder_layers(model)) - 1:
        prune_heads(model, last, torch.tensor([1]))
    resize_ffn(model, 0, torch.arange(1, 30, 3))
    for kind in ("query", "attention_output", "ffn_up"):
        path = part_path(model, 0, kind)
        module = model.get_submodule(path)
        model.set_submodule(path, factorize_module(module, spectrum(path, module, Weighting()), 5))
    save_model(model, tmp_path / "cut", tokenizer_from=source, edits=settle(model))
    again = load_classifier(tmp_path / "cut")
    assert torch.equal(logits(model), logits(again))
    prune_heads(again, 0, torch.tensor([1]))
    prune_heads(model, 0, torch.tensor([1]))
    assert torch.equal(logits(model), logits(again))
    drop_layers(model, range(min(2, depth(model))))
    save_model(model, tmp_path / "short", tokenizer_from=source, edits=settle(model))
    again = load_classifier(tmp_path / "short")
    assert depth(again) == 2 and torch.equal(logits(model), logits(again))
    merged, paths = merge_low_rank(model)
    assert len(paths) == 3
    torch.testing.assert_close(logits(merged), logits(again), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_texts_of_kept_tokens_are_answered_as_before(name: str, tmp_path: Path) -> None:
    source, out = write_architecture(tmp_path / "source", name), tmp_path / "out"
    texts, task = ["my card", "where is money"], Task(labels=("a", "b", "c"), max_length=32)
    model, spec = load_classifier(source), load_spec(source)
    before = answers(model, source, texts, task)
    kept = choose_tokens(
        spec, seen_tokens(spec, texts), keep="data", min_count=1, common=0, always=always_kept(model.config.to_dict())
    )
    assert len(kept) < len(tokens_of(spec))
    prune_embedding(model, kept)
    save_model(model, out, tokenizer_from=source, edits=settle(model))
    check_same(spec, write_tokenizer(spec, kept, out), kept, texts)
    again = load_classifier(out)
    assert again.get_input_embeddings().num_embeddings == len(kept)
    torch.testing.assert_close(answers(again, out, texts, task), before)


def answers(model: Model, folder: Path, texts: list[str], task: Task) -> torch.Tensor:
    rows = encode(folder, Table(tuple(texts)), task)
    with torch.inference_mode():
        found: torch.Tensor = model(**rows.batch(range(len(rows)))).logits
    return found
