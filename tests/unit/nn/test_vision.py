"""Models of pictures, at random small shapes: after surgery they compute what the masked originals compute."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import ModelError
from edgekit.nn.architecture import check_architecture, misfits, picture_length
from edgekit.nn.layers import encoder_layers
from edgekit.nn.load import check_folder, is_trained, load_classifier, save_model
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
from edgekit.nn.weighting import Weighting
from tests.conftest import write_tiny
from tests.masking import others, zero_inputs
from tests.tiny_pictures import random_vit, write_vit

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = ["vit", "deit"]


def logits(model: Any, seed: int = 0) -> torch.Tensor:
    """Of two pictures, (2, labels)."""
    config = model.config
    edges = config.image_size if isinstance(config.image_size, list | tuple) else [config.image_size] * 2
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn((2, config.num_channels, *edges), generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        found: torch.Tensor = model(pixel_values=pixels.to(model.dtype)).logits
    return found


def some(data: st.DataObject, count: int) -> torch.Tensor:
    return torch.tensor(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count))))


def drawn(data: st.DataObject) -> Any:
    """Any number of heads of any size, FFN, depth, channels, and shapes of pictures and patches; query, key and value
    with biases or without."""
    draw = data.draw
    patch = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    return random_vit(
        draw(st.sampled_from(NAMES)),
        heads=draw(st.integers(1, 7)),
        head_size=draw(st.integers(1, 9)),
        ffn=draw(st.integers(1, 21)),
        layers=draw(st.integers(1, 3)),
        labels=draw(st.integers(2, 5)),
        num_channels=draw(st.sampled_from([1, 3])),
        image_size=[patch[0] * draw(st.integers(1, 3)), patch[1] * draw(st.integers(1, 3))],
        patch_size=list(patch),
        qkv_bias=draw(st.booleans()),
    ).double()


@FEW
@given(data=st.data())
def test_surgery_computes_what_the_masked_original_computes(data: st.DataObject) -> None:
    """Cut twice, so that what is left is cut once more."""
    model = drawn(data)
    reference = copy.deepcopy(model)
    size, layers = head_size(model), range(len(encoder_layers(model)))
    heads = {i: torch.arange(head_count(model, i)) for i in layers}
    neurons = {i: torch.arange(ffn_width(model, i)) for i in layers}
    for _ in range(2):
        for layer in layers:
            kept, wide = some(data, head_count(model, layer)), some(data, ffn_width(model, layer))
            heads[layer], neurons[layer] = heads[layer][kept], neurons[layer][wide]
            prune_heads(model, layer, kept)
            resize_ffn(model, layer, wide)
    for layer in layers:
        gone = others(heads[layer], head_count(reference, layer))
        zero_inputs(part(reference, layer, "attention_output"), head_columns(gone, size))
        zero_inputs(part(reference, layer, "ffn_down"), others(neurons[layer], ffn_width(reference, layer)))
    torch.testing.assert_close(logits(model), logits(reference), rtol=1e-9, atol=1e-9)


@FEW
@given(data=st.data())
def test_dropped_layers_are_layers_that_add_nothing(data: st.DataObject) -> None:
    model = drawn(data)
    kept = some(data, len(encoder_layers(model))).tolist()
    reference = copy.deepcopy(model)
    for layer in range(len(encoder_layers(model))):
        for name in ("attention_output", "ffn_down") if layer not in kept else ():
            module: Any = part(reference, layer, name)
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    drop_layers(model, kept)
    assert model.config.num_hidden_layers == len(kept)
    torch.testing.assert_close(logits(model), logits(reference), rtol=1e-9, atol=1e-9)


@FEW
@given(data=st.data())
def test_a_full_rank_is_no_change_and_merges_back(data: st.DataObject) -> None:
    model = drawn(data)
    before = logits(model)
    for name in ("query", "ffn_up", "attention_output", "ffn_down"):
        path = part_path(model, 0, name)
        module: Any = model.get_submodule(path)
        rank = min(module.in_features, module.out_features)
        model.set_submodule(path, factorize_module(module, spectrum(path, module, Weighting()), rank).double())
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)  # factors are made in float32
    merged, paths = merge_low_rank(model)
    assert len(paths) == 4
    torch.testing.assert_close(logits(merged.double()), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_cut_comes_back_from_its_folder(name: str, tmp_path: Path) -> None:
    source = write_vit(tmp_path / "source", name)
    model = load_classifier(source, kind="image-classification")
    prune_heads(model, 0, torch.tensor([0, 2]))
    resize_ffn(model, 1, torch.arange(1, 30, 3))
    path = part_path(model, 2, "ffn_up")
    module = model.get_submodule(path)
    model.set_submodule(path, factorize_module(module, spectrum(path, module, Weighting()), 5))
    save_model(model, tmp_path / "cut", tokenizer_from=source, edits=settle(model))
    again = load_classifier(tmp_path / "cut", kind="image-classification")
    assert torch.equal(logits(model), logits(again))
    assert (tmp_path / "cut" / "preprocessor_config.json").read_bytes() == (
        source / "preprocessor_config.json"
    ).read_bytes()


def test_an_even_cut_is_a_plain_checkpoint(tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    source = write_vit(tmp_path / "source")
    model = load_classifier(source, kind="image-classification")
    drop_layers(model, [0, 2])
    for layer in range(2):
        resize_ffn(model, layer, torch.arange(24))
    save_model(model, tmp_path / "cut", tokenizer_from=source, edits=settle(model))
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "cut")
    assert torch.equal(logits(plain), logits(model))


def test_a_folder_needs_the_settings_of_its_pictures(tmp_path: Path) -> None:
    folder = write_vit(tmp_path)
    check_folder(folder)
    assert picture_length(folder) == 10
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json"):
        check_folder(folder)


def test_texts_and_pictures_are_not_taken_for_each_other(tmp_path: Path) -> None:
    vit, bert = write_vit(tmp_path / "vit"), write_tiny(tmp_path / "bert", "bert")
    assert not misfits(vit, 10, segments=False, pictures=True)
    assert "the task is of texts, and vit reads pictures" in str(misfits(vit, 10, segments=False)[0])
    assert "the task is of pictures, and bert reads texts" in str(misfits(bert, 10, segments=False, pictures=True)[0])
    with pytest.raises(ModelError, match="bert reads texts, not pictures"):
        picture_length(bert)


def test_a_head_of_two_parts_is_not_a_trained_one(tmp_path: Path) -> None:
    from transformers import DeiTForImageClassificationWithTeacher

    from edgekit.source import open_model

    folder = write_vit(tmp_path, "deit")
    assert is_trained(folder, "image-classification")
    config = random_vit("deit").config
    DeiTForImageClassificationWithTeacher(config).save_pretrained(folder)
    assert not is_trained(folder, "image-classification")
    assert open_model(str(folder)).task is None


def test_an_architecture_of_pictures_that_is_not_known_is_told_what_is_missing(tmp_path: Path) -> None:
    from transformers import BeitConfig

    BeitConfig(hidden_size=24, num_attention_heads=3, num_hidden_layers=1, intermediate_size=30).save_pretrained(
        tmp_path
    )
    with pytest.raises(ModelError, match="architecture 'beit' is not supported"):
        check_architecture(tmp_path)
