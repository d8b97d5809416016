from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import StageError
from edgekit.nn.allocate import allocate
from edgekit.nn.calibration import Calibration, calibrate
from edgekit.nn.follow import follow, writer_paths
from edgekit.nn.ladder import ladder
from edgekit.nn.load import encoder_layers, load_classifier
from edgekit.nn.narrow import narrow
from edgekit.nn.sensitivity import sensitivities, token_weights
from edgekit.nn.structure import Structure, Widths, best_structure, find_ladders, widths_of
from edgekit.nn.surgery import part, part_path, prune_heads, resize_ffn
from tests.tiny_architectures import write_architecture

Tiny = Callable[..., Path]
LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")
TEXTS = ("my card is lost", "where is my money?", "please top up", "cash rate not arrived", "transfer waiting when")
IDS = torch.tensor([[2, 7, 9, 12, 15, 3], [2, 6, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def calibration(folder: Path) -> Calibration:
    table = Table(tuple(f"{a} {b}" for a in TEXTS for b in TEXTS), name="train")
    task = Task(labels=LABELS, max_length=16)
    return calibrate(folder, table, task, model_labels=LABELS, count=25, batch_size=8, seed=0)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, attention_mask=MASK).logits


def masked(model: PreTrainedModel, keep: dict[str, dict[int, torch.Tensor]], size: int) -> PreTrainedModel:
    """The model with all its parts, of which those that do not stay reach nobody."""
    made = deepcopy(model)
    for layer, kept in keep["heads"].items():
        columns = torch.ones_like(part(made, layer, "attention_output").weight)
        columns[:, (kept[:, None] * size + torch.arange(size)).flatten()] = 0
        part(made, layer, "attention_output").weight.data.masked_fill_(columns.bool(), 0)
    for layer, kept in keep["ffn"].items():
        gone = torch.ones(part(made, layer, "ffn_down").in_features, dtype=torch.bool)
        gone[kept] = False
        part(made, layer, "ffn_down").weight.data[:, gone] = 0
    return made


@pytest.mark.parametrize(("group", "step"), [(1, 1), (3, 1), (1, 4), (2, 2), (1, 5)])
def test_a_ladder_foretells_the_best_repair_at_every_size(group: int, step: int) -> None:
    generator = torch.Generator().manual_seed(group + step)
    x = torch.randn(300, 12, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(12, 12, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    root = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    covariance, curvature = x.T @ x / 300, root.T @ root
    found = ladder(weight, covariance, curvature, group=group, step=step)
    assert sorted(found.order.tolist()) == list(range(12 // group))
    damped = covariance + 1e-3 * covariance.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    for count in range(0, 12 // group + 1, step):
        columns = (found.keep(count)[:, None] * group + torch.arange(group)).flatten()
        lost = weight.clone()
        if count:
            lost[:, columns] -= torch.linalg.solve(damped[columns][:, columns], (weight @ damped[:, columns]).T).T
            others = torch.tensor([i for i in range(12) if i not in columns.tolist()], dtype=torch.long)
            lost[:, others] = weight[:, others]
        wanted = float(torch.trace(curvature @ lost @ damped @ lost.T))
        assert found.loss(count) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_a_ladder_takes_first_what_others_can_replace() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([x, x[:, :1]], dim=1)  # the last input is the first once more
    found = ladder(torch.eye(4, dtype=torch.float64), x.T @ x / 200, torch.eye(4, dtype=torch.float64), group=1)
    assert found.order[0] in (0, 3)
    assert found.loss(3) < 0.01 < found.loss(2)


def test_the_best_of_all_choices_within_the_budget() -> None:
    dice = np.random.default_rng(0)
    for _ in range(20):
        losses, costs = dice.random((3, 4)), dice.random((3, 4))
        budget = float(costs.min(1).sum() + dice.random())
        chosen = allocate(losses.tolist(), costs.tolist(), budget)
        everything = np.array(np.meshgrid(*[range(4)] * 3)).reshape(3, -1).T
        cost = costs[np.arange(3), everything].sum(1)
        best = losses[np.arange(3), everything].sum(1)[cost <= budget * 0.998].min()
        assert costs[np.arange(3), chosen].sum() <= budget + 1e-12
        assert losses[np.arange(3), chosen].sum() <= best + 1e-12


def test_a_budget_below_the_smallest_is_refused() -> None:
    with pytest.raises(StageError, match="smallest sizes still take 50%"):
        allocate([[0.0, 1.0]], [[4.0, 2.0]], 1.0)


def test_sensitivity_foretells_the_squared_change_of_the_logits(tiny: Tiny) -> None:
    folder = tiny("bert")
    model, examples = load_classifier(folder), calibration(folder)
    path = part_path(model, 1, "ffn_down")  # of its output, the classifier reads the first token's
    tries = [sensitivities(model, [path], examples, seed=seed)[path].outputs for seed in range(30)]
    error = 1e-2 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    foretold = float(error.double() @ torch.stack(tries).mean(0) @ error.double())
    other = deepcopy(model)
    part(other, 1, "ffn_down").bias.data += error
    with torch.inference_mode():
        moved = torch.cat([other(**inputs).logits - model(**inputs).logits for inputs, _ in examples])
    centred = moved - moved.mean(1, keepdim=True)
    assert float(centred.square().sum(1).mean()) == pytest.approx(foretold, rel=0.15)


@pytest.mark.parametrize("seed", range(4))
def test_after_surgery_the_model_computes_what_the_masked_one_computes(any_family: Path, seed: int) -> None:
    model = load_classifier(any_family).double()
    widths = widths_of(model)
    dice = np.random.default_rng(seed)

    def some(count: int) -> torch.Tensor:
        return torch.from_numpy(np.sort(dice.choice(count, dice.integers(1, count), replace=False)))

    keep = {"heads": {0: some(widths.heads), 1: some(widths.heads)}, "ffn": {0: some(widths.ffn), 1: some(widths.ffn)}}
    cut = deepcopy(model)
    narrow(cut, keep)
    torch.testing.assert_close(logits(cut), logits(masked(model, keep, widths.head_size)), rtol=0, atol=1e-12)


def test_a_model_that_lost_nothing_needs_no_repair(any_family: Path) -> None:
    model, examples = load_classifier(any_family).double(), calibration(any_family)
    copy = deepcopy(model)
    errors = follow(copy, model, examples, token_weights(model, writer_paths(model), examples))
    assert max(errors) < 1e-6
    torch.testing.assert_close(logits(copy), logits(model), rtol=1e-6, atol=1e-6)  # in float32 rounding would tell


def test_following_brings_the_answers_back(any_family: Path) -> None:
    model, examples = load_classifier(any_family), calibration(any_family)
    widths = widths_of(model)
    ladders = find_ladders(model, examples, unit=8)
    structure = Structure(heads=(2, 2), ffn=(24, 24))
    keep = ladders.keep(structure)
    cut = deepcopy(model)
    narrow(cut, keep)
    before = float((logits(cut) - logits(model)).square().mean())
    follow(cut, model, examples, token_weights(model, writer_paths(model), examples))
    assert float((logits(cut) - logits(model)).square().mean()) < before
    assert ladders.loss(widths.whole) == 0 < ladders.loss(structure)


def test_the_structure_keeps_what_matters(tiny: Tiny) -> None:
    folder = tiny("bert")
    model, examples = load_classifier(folder), calibration(folder)
    part(model, 0, "ffn_down").weight.data[:, :32] *= 1e-3
    widths, ladders = widths_of(model), find_ladders(model, examples, unit=8)
    sizes = {"heads": 8.0 * 4, "ffn": 2.0}
    whole = sum(sizes["heads"] * widths.heads + sizes["ffn"] * widths.ffn for _ in range(widths.layers))
    found = best_structure(ladders, widths, lambda width, _, size: sizes[width] * size, 0.85 * whole, 8)
    assert found.ffn[0] <= 40
    assert set(ladders.keep(found)["ffn"][0].tolist()) <= set(range(24, 64))


def test_uneven_layers_are_refused(tiny: Tiny) -> None:
    model = load_classifier(tiny("bert"))
    assert widths_of(model) == Widths(layers=2, hidden=32, heads=4, head_size=8, ffn=64)
    resize_ffn(model, 1, torch.arange(8))
    with pytest.raises(StageError, match="different widths"):
        widths_of(model)
    prune_heads(model, 0, torch.arange(2))
    assert len(encoder_layers(model)) == 2 and part_path(model, 1, "ffn_down").endswith("1.output.dense")


@pytest.mark.parametrize("groups", [1, 2])
def test_layers_that_share_their_weights_are_refused(tmp_path: Path, groups: int) -> None:
    model = load_classifier(write_architecture(tmp_path / "albert", "albert", layers=4, num_hidden_groups=groups))
    with pytest.raises(StageError, match="share their weights"):
        widths_of(model)


def test_a_layer_that_reads_positions_too_is_seen_at_the_text(tmp_path: Path) -> None:
    """DeBERTa makes keys a second time, of relative positions; of the text they read what values read."""
    folder = write_architecture(tmp_path / "deberta", "deberta-v2")
    model, examples = load_classifier(folder), calibration(folder)
    key, value = part_path(model, 0, "key"), part_path(model, 0, "value")
    tokens = [len(weight) for weight in token_weights(model, [key, value], examples)[key]]
    assert tokens == [int(mask.sum()) for mask in examples.masks()]
