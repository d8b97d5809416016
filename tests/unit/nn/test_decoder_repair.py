from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from edgekit.errors import StageError
from edgekit.nn.decoder_budget import by_budget, by_share, options
from edgekit.nn.decoder_families import decoder_family, split_layer, tensor_axes
from edgekit.nn.decoder_importance import best, score
from edgekit.nn.decoder_repair import RIDGE, repair, repair_by_parts, sites, solve
from edgekit.nn.decoder_sizes import Sizes, parameters, sizes_of
from edgekit.nn.decoder_statistics import divergence, influence, moments
from edgekit.nn.decoder_surgery import Keep, indices, keep_all, shrink
from tests.unit.nn.tiny_decoders import FAMILIES, tiny_decoder

DATA = [torch.randint(0, 50, (4, 24), generator=torch.Generator().manual_seed(i)) for i in range(3)]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(2, 8), st.integers(0, 99))
def test_no_other_matrix_has_a_lower_error(outputs: int, width: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, width, dtype=torch.float64, generator=draw)
    x = torch.randn(40, width, dtype=torch.float64, generator=draw)
    keep, second = torch.arange(0, width, 2), x.T @ x / 40
    found = solve(weight, second, keep)
    ridge = RIDGE * second[keep][:, keep].diagonal().mean()

    def objective(kept: torch.Tensor) -> torch.Tensor:
        return (x @ weight.T - x[:, keep] @ kept.T).square().sum() / 40 + ridge * (
            kept - weight[:, keep]
        ).square().sum()

    least = objective(found[:, keep])
    for _ in range(5):
        step = 1e-3 * torch.randn(outputs, len(keep), dtype=torch.float64, generator=draw)
        assert objective(found[:, keep] + step) > least
    untouched = torch.ones(width, dtype=torch.bool)
    untouched[keep] = False
    assert torch.equal(found[:, untouched], weight[:, untouched])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dimension", ["ffn", "groups"])
def test_what_is_redundant_is_removed_almost_without_loss(family: str, dimension: str) -> None:
    if family == "gpt2" and dimension == "groups":
        pytest.skip("GPT-2's config.json cannot say it")
    model = tiny_decoder(family, ffn=12, tied=False)
    keep = doubled(model, dimension)
    before = divergence(model, shrink(model, keep), DATA)
    assert divergence(model, shrink(model, keep, repair_by_parts(model, keep, DATA)), DATA) < 1e-2 * before


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
def test_fewer_channels_are_repaired_too(family: str, tied: bool) -> None:
    model = tiny_decoder(family, tied=tied)
    keep = replace(keep_all(sizes_of(model.config)), hidden=torch.arange(20))
    repaired = repair(model, keep, moments(model, sites(model), DATA))
    assert divergence(model, shrink(model, keep, repaired), DATA) < divergence(model, shrink(model, keep), DATA)


def doubled(model: PreTrainedModel, dimension: str) -> Keep:
    """Make the second half of the neurons or groups copies of the first, in place; returns the first half."""
    family, sizes = decoder_family(model.config.model_type), sizes_of(model.config)
    half = int(getattr(sizes, dimension)) // 2
    first, second = (
        replace(keep_all(sizes), **{dimension: dict.fromkeys(range(3), torch.arange(start, start + half))})
        for start in (0, half)
    )
    readers = (family.ffn_output, family.attention_output)  # these stay: the copies are weighed differently
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            layer, rest = split_layer(family, name)
            if layer is None or rest.startswith(readers):
                continue
            for at, axes in enumerate(tensor_axes(family, name)):
                one, two = (indices(axes, keep, sizes, layer) for keep in (first, second))
                if len(one) < tensor.shape[at]:
                    tensor.index_copy_(at, two, tensor.index_select(at, one))
    return first


def test_influence_is_zero_for_a_layer_that_does_nothing() -> None:
    model = tiny_decoder("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    found = influence(model, DATA)
    assert abs(found[1]) < 1e-6 < min(found[0], found[2])
    sizes = sizes_of(model.config)
    keep = best(score(model, DATA, "activation"), sizes, replace(sizes, layers=2))
    assert keep.layers == [0, 2]
    assert divergence(model, shrink(model, keep), DATA) < 1e-9


@pytest.mark.parametrize("importance", ["activation", "taylor"])
@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_what_adds_nothing_goes_first(family: str, importance: str) -> None:
    model = tiny_decoder(family)
    sizes = sizes_of(model.config)
    weight = dict(model.named_parameters())[
        {"gpt2": "transformer.h.1.mlp.c_proj.weight"}.get(family, "model.layers.1.mlp.down_proj.weight")
    ]
    with torch.no_grad():
        (weight if family == "gpt2" else weight.T)[[3, 8]] = 0
    keep = best(score(model, DATA, importance), sizes, replace(sizes, ffn=sizes.ffn - 2))  # type: ignore[arg-type]
    assert set(range(sizes.ffn)) - set(keep.ffn[1].tolist()) == {3, 8}


def test_shares_become_sizes_that_can_be_had() -> None:
    model = tiny_decoder("llama", hidden=96, groups=3, ffn=320, head=8)
    sizes, reasons = by_share(model, {"ffn": 0.15, "layers": 0.4, "hidden": 0.3}, 0)
    assert (sizes.ffn, sizes.layers, sizes.hidden) == (256, 2, 96)
    assert reasons == {"hidden": "96 is the nearest to 67.2 that can be had"}, (
        "64 and 32 are no multiples of the 6 heads"
    )
    assert options(model, "groups", 1) == [3, 2, 1]
    assert options(model, "ffn", 100) == [320, 300, 200, 100]


def test_a_budget_goes_where_it_costs_least() -> None:
    model = tiny_decoder("llama", ffn=40, layers=4)
    full = sizes_of(model.config)
    allowed = 0.7 * parameters(model, full)

    def damage(sizes: Sizes) -> float:
        return 10.0 * (full.layers - sizes.layers) + 0.01 * (full.ffn - sizes.ffn)

    sizes, measured = by_budget(model, allowed, ("layers", "ffn"), 1, damage)
    assert sizes.layers == 4 and sizes.ffn < 40 and parameters(model, sizes) <= allowed
    assert measured["layers 4"] == 0 and measured["layers 3"] == 10
    assert by_budget(model, 1e9, ("ffn",), 1, damage)[0] == full
    with pytest.raises(StageError, match="cannot reach"):
        by_budget(model, 10, ("ffn",), 1, damage)
