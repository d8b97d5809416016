from __future__ import annotations

import math

import pytest
import torch

from edgekit.nn.lm_train import Unfreezing, depth_rates, layer_of, perplexity
from tests.unit.nn.tiny_decoders import FAMILIES, tiny_decoder


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_learns_slower_than_the_one_above_it(family: str) -> None:
    model = tiny_decoder(family, layers=3, tied=False)
    rates = depth_rates(model, 0.5)
    assert set(rates) == {name for name, _ in model.named_parameters()}
    depths = {name: layer_of(name, 3) for name in rates}
    assert {rates[name] for name in rates if depths[name] == 3} == {1.0}
    assert {rates[name] for name in rates if depths[name] == 1} == {0.25}
    embeddings = {name for name, p in model.named_parameters() if p is model.get_input_embeddings().weight}
    assert {rates[name] for name in embeddings} == {0.125}
    assert rates["lm_head.weight"] == 1.0
    assert set(depth_rates(model, 1.0).values()) == {1.0}


def test_layers_begin_to_learn_from_the_last() -> None:
    model = tiny_decoder("llama", layers=4)
    hooks = Unfreezing(model, 2)

    def learning() -> set[int]:
        return {layer_of(name, 4) for name, p in model.named_parameters() if p.requires_grad}

    hooks.epoch(0)
    assert learning() == {3, 4, 5}  # 5: the last norm
    hooks.epoch(1)
    assert learning() == {1, 2, 3, 4, 5}
    hooks.epoch(2)
    assert learning() == {0, 1, 2, 3, 4, 5}


def test_perplexity() -> None:
    assert perplexity(math.log(25.0)) == pytest.approx(25.0)
    assert perplexity(1e4) == math.inf
    assert torch.tensor(perplexity(0.0)).item() == 1.0
