from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.nn.calibration import Calibration, calibrate, groups, input_moments, run, taps
from edgekit.nn.importance import choose, gradient_scores, layer_influence, magnitude_scores, spread_layers
from edgekit.nn.load import load_classifier
from edgekit.nn.narrow import narrow
from edgekit.nn.surgery import part, part_path, set_low_rank

LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TASK = Task(labels=LABELS, max_length=16)
TEXTS = ("my card is lost", "where is my money?", "please top up", "cash rate not arrived", "transfer waiting when")
TABLE = Table(TEXTS * 4, labels=("LABEL_0", "LABEL_2", "LABEL_1", "LABEL_0", "LABEL_1") * 4)


def calibration(folder: Path, labels: tuple[str, ...] = LABELS, batch_size: int = 8) -> Calibration:
    return calibrate(folder, TABLE, TASK, model_labels=labels, count=20, batch_size=batch_size, seed=0)


def test_labels_are_used_only_where_they_are_the_models(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    assert calibration(folder).labelled
    assert not calibration(folder, ("x", "y", "z")).labelled
    drawn = calibrate(folder, TABLE, TASK, model_labels=LABELS, count=3, batch_size=2, seed=1)
    assert len(drawn.encoded) == 3 and len(drawn) == 2


def test_taylor_and_fisher_are_the_gradient_of_a_mask(any_family: Path) -> None:
    """Against the definition: multiply one head or neuron by m, differentiate each example's loss at m = 1."""
    model = load_classifier(any_family)
    data = calibration(any_family)
    for kind in ("taylor", "fisher"):
        scores = gradient_scores(model, data, kind)
        for name, columns, found in (
            ("ffn_down", slice(5, 6), scores.ffn[1][5]),
            ("attention_output", slice(8, 16), scores.heads[1][1]),
        ):
            module = part(model, 1, name)
            values = []
            for inputs, measure in Calibration(data.examples, data.labelled, 1):
                mask = torch.ones((), requires_grad=True)

                chosen = torch.zeros(module.in_features, dtype=torch.bool)
                chosen[columns] = True

                def scale(
                    _m: object, args: tuple[torch.Tensor], m: torch.Tensor = mask, at: torch.Tensor = chosen
                ) -> object:
                    return (args[0] * torch.where(at, m, 1.0),)

                handle = module.register_forward_pre_hook(scale)
                loss = measure(model(**inputs).logits)
                handle.remove()
                values.append(float(torch.autograd.grad(loss, mask)[0]))
            wanted = np.abs(values).mean() if kind == "taylor" else np.square(values).mean()
            assert float(found) == pytest.approx(wanted, rel=1e-3)


def test_scores_do_not_depend_on_the_batch_size(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    model = load_classifier(folder)
    one, many = (gradient_scores(model, calibration(folder, batch_size=n), "fisher") for n in (1, 20))
    for a, b in zip((*one.ffn, *one.heads), (*many.ffn, *many.heads), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-9)


def test_magnitude_finds_dead_heads_and_neurons(any_family: Path) -> None:
    model = load_classifier(any_family)
    part(model, 0, "ffn_down").weight.data[:, 7] = 0
    part(model, 1, "value").weight.data[16:24] = 0
    scores = magnitude_scores(model)
    assert int(scores.ffn[0].argmin()) == 7 and float(scores.ffn[0][7]) == 0
    assert int(scores.heads[1].argmin()) == 2 and float(scores.heads[1][2]) == 0
    assert len(scores.heads[0]) == 4 and len(scores.ffn[0]) == 64


def test_a_layer_that_changes_nothing_has_no_influence(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert", layers=3)
    model = load_classifier(folder)
    for name in ("attention_output", "ffn_down"):
        torch.nn.init.zeros_(part(model, 1, name).weight)
        torch.nn.init.zeros_(part(model, 1, name).bias)
    for name in ("attention_norm", "ffn_norm"):
        torch.nn.init.ones_(part(model, 1, name).weight)
        torch.nn.init.zeros_(part(model, 1, name).bias)
    for name in ("attention_norm", "ffn_norm"):  # makes layer 0 end in a plain norm, so that layer 1's norms are idle
        torch.nn.init.ones_(part(model, 0, name).weight)
        torch.nn.init.zeros_(part(model, 0, name).bias)
    influence = layer_influence(model, calibration(folder))
    assert influence[1] == pytest.approx(0, abs=1e-5)
    assert min(influence[0], influence[2]) > 1e-3


@given(count=st.integers(1, 24), data=st.data())
def test_spread_layers(count: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, count))
    kept = spread_layers(count, keep)
    assert len(set(kept)) == keep and kept == sorted(kept) and kept[0] == 0
    assert keep == 1 or kept[-1] == count - 1


@given(
    layers=st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=12), min_size=1, max_size=4),
    share=st.floats(0, 0.99),
    unit=st.integers(1, 4),
    pooled=st.booleans(),
)
def test_choose_keeps_the_best(layers: list[list[float]], share: float, unit: int, pooled: bool) -> None:
    scores = [torch.tensor(values, dtype=torch.float64) for values in layers]
    for values, kept in zip(scores, choose(scores, share, unit, pooled=pooled), strict=True):
        assert 1 <= len(kept) <= len(values) and kept.tolist() == sorted(set(kept.tolist()))
        assert len(kept) % unit == 0 or len(kept) == len(values)
        gone = [i for i in range(len(values)) if i not in kept.tolist()]
        assert not gone or values[gone].max() <= values[kept].min()


def test_a_pooled_budget_goes_where_it_matters() -> None:
    scores = [torch.full((8,), 1.0), torch.full((8,), 5.0)]
    assert [len(k) for k in choose(scores, 0.5, 2, pooled=True)] == [2, 6]
    assert [len(k) for k in choose(scores, 0.5, 2, pooled=False)] == [4, 4]


@pytest.mark.parametrize("name", ["query", "ffn_down"])
def test_moments_leave_padding_out(any_family: Path, name: str) -> None:
    model = load_classifier(any_family)
    path = part_path(model, 1, name)
    one, many = (input_moments(model, [path], calibration(any_family, batch_size=n))[path] for n in (1, 20))
    torch.testing.assert_close(one.second, many.second, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(one.mean, many.mean, rtol=1e-3, atol=1e-5)
    assert one.weight == pytest.approx(many.weight, rel=1e-4)
    if name == "query":
        assert one.weight == sum(map(len, calibration(any_family).encoded.ids))


def test_groups_keep_to_the_room(tiny: Callable[..., Path]) -> None:
    model = load_classifier(tiny("bert"))
    paths = [part_path(model, i, name) for i in range(2) for name in ("attention_output", "ffn_down")]
    assert list(groups(model, paths)) == [paths]
    assert list(groups(model, paths, room=1)) == [[path] for path in paths]


@pytest.mark.parametrize("rank", [0, 24])
def test_repair_lowers_the_error_and_tells_it_right(any_family: Path, rank: int) -> None:
    """Measured on the reader itself, fed with what flowed in before: dense, cut and repaired."""
    model = load_classifier(any_family)
    path = part_path(model, 0, "ffn_down")
    if rank:
        set_low_rank(model, path, rank)
    data = calibration(any_family)
    reader = model.get_submodule(path)
    norm = part_path(model, 0, "ffn_norm")
    with taps(model, [path, norm]) as seen:
        found = [(seen[path][0][0][mask], seen[norm][0][0][mask]) for mask in run(model, data, None, "")]
    x = torch.cat([inputs for inputs, _ in found])
    weight = 1 / torch.cat([state for _, state in found]).var(-1, keepdim=True)  # what the norm divides by
    keep = torch.arange(0, 64, 2)
    with torch.no_grad():
        dense = reader(x)
        cut = torch.zeros_like(x)
        cut[:, keep] = x[:, keep]
        mean = (weight * dense).sum(0) / weight.sum()
        variance = (weight * (dense - mean).square()).sum()
        wanted = (weight * (dense - reader(cut)).square()).sum() / variance
        ((before, after),) = narrow(model, {"ffn": {0: keep}}, data)
        repaired = (weight * (dense - reader(x[:, keep])).square()).sum() / variance
    assert before == pytest.approx(float(wanted), rel=1e-3)
    assert after == pytest.approx(float(repaired), rel=1e-2, abs=1e-6)
    assert after < 0.9 * before
    assert reader.in_features == 32 and part(model, 0, "ffn_up").out_features == 32


def test_repair_is_exact_where_a_kept_neuron_can_stand_in(tiny: Callable[..., Path]) -> None:
    """Neuron 1 is a copy of neuron 0: removing it must cost nothing but the ridge."""
    folder = tiny("bert")
    model, reference = load_classifier(folder), load_classifier(folder)
    for m in (model, reference):
        up = part(m, 0, "ffn_up")
        up.weight.data[1], up.bias.data[1] = up.weight.data[0], up.bias.data[0]
    data = calibration(folder)
    (before, after), *_ = narrow(model, {"ffn": {0: torch.tensor([0, *range(2, 64)])}}, data)
    assert after < 1e-2 * before
    inputs, _ = next(iter(data))
    with torch.inference_mode():
        torch.testing.assert_close(model(**inputs).logits, reference(**inputs).logits, atol=2e-3, rtol=1e-2)
