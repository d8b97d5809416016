"""ALBERT: one set of weights (or a few) that is computed again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import ModelError
from edgekit.nn.calibration import Calibration, calibrate, input_moments
from edgekit.nn.capture import Site, capture
from edgekit.nn.importance import gradient_scores
from edgekit.nn.layers import depth, encoder_layers, layer_calls
from edgekit.nn.load import load_classifier, save_model
from edgekit.nn.narrow import narrow
from edgekit.nn.surgery import drop_layers, part, part_path, settle
from tests.tiny_architectures import TEXTS, random_model, write_architecture

IDS = torch.tensor([[4, 7, 9, 12, 15, 11], [5, 6, 8, 10, 1, 2]])


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    return found


def examples(folder: Path) -> Calibration:
    task = Task(labels=("a", "b", "c"), max_length=32)
    table = Table(tuple(TEXTS[:6]), name="sample")
    return calibrate(folder, table, task, model_labels=(), count=6, batch_size=2, seed=0)


@pytest.fixture
def albert(tmp_path: Path) -> Path:
    return write_architecture(tmp_path / "albert", "albert", layers=5)


@pytest.mark.parametrize(("groups", "inner"), [(1, 1), (2, 1), (2, 2)])
def test_layers_are_seen_in_the_order_they_are_computed(groups: int, inner: int) -> None:
    model = random_model("albert", layers=5, num_hidden_groups=groups, inner_group_num=inner)
    assert depth(model) == 5 and len(encoder_layers(model)) == groups * inner
    sites = {str(i): Site(model.get_submodule(c.path), c.turn, c.turns) for i, c in enumerate(layer_calls(model))}
    with capture(sites) as seen, torch.inference_mode():
        for _ in range(2):  # turns are counted anew in each pass
            every = model(input_ids=IDS, output_hidden_states=True).hidden_states
    states = every[1:][inner - 1 :: inner]  # Transformers tells every inner layer's
    assert len(states) == len(seen) == 5
    for i, state in enumerate(states):
        torch.testing.assert_close(seen[str(i)], state)


def test_fewer_layers_are_fewer_repetitions(albert: Path, tmp_path: Path) -> None:
    model = load_classifier(albert)
    before = logits(model)
    drop_layers(model, range(2))
    assert depth(model) == 2 and not torch.equal(logits(model), before)
    save_model(model, tmp_path / "out", tokenizer_from=albert, edits=settle(model))
    assert torch.equal(logits(load_classifier(tmp_path / "out")), logits(model))


def test_every_group_is_computed_at_least_once() -> None:
    model = random_model("albert", layers=4, num_hidden_groups=2)
    with pytest.raises(ModelError, match="2 groups"):
        drop_layers(model, [0])


def test_importance_is_that_of_a_mask_in_all_repetitions(albert: Path) -> None:
    model, data = load_classifier(albert), examples(albert)
    found = gradient_scores(model, data, "taylor").ffn[0]
    wanted = torch.zeros_like(found)
    for inputs, _ in Calibration(**{**vars(data), "batch_size": 1}):
        mask = torch.ones(len(found), requires_grad=True)
        handle = part(model, 0, "ffn_down").register_forward_pre_hook(lambda _, x, mask=mask: (x[0] * mask,))
        output = model(**inputs).logits
        torch.nn.functional.cross_entropy(output, output.argmax(-1), reduction="sum").backward()
        handle.remove()
        assert mask.grad is not None
        wanted += mask.grad.abs().double()
    torch.testing.assert_close(found, wanted / len(data.encoded), rtol=1e-4, atol=1e-6)


def test_repair_counts_every_repetition(albert: Path) -> None:
    model, data = load_classifier(albert), examples(albert)
    path = part_path(model, 0, "query")  # no norm weighs its inputs
    moments = input_moments(model, [path], data)[path]
    assert moments.weight == 5 * sum(len(ids) for ids in data.encoded.ids)
    ((before, after),) = narrow(model, {"heads": {0: torch.tensor([0, 2])}}, data)
    assert after < before
