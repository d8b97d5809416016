from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgekit.nn.load import load_classifier
from edgekit.nn.sparsity import encoder_linears, n_of_m, parse_n_of_m, sparsify
from edgekit.nn.surgery import resize_ffn


def test_each_layer_loses_its_smallest_weights(any_family: Path) -> None:
    model, reference = load_classifier(any_family), load_classifier(any_family)
    zeros = sparsify(model, 0.25)
    assert len(zeros) == 12 and all(share == pytest.approx(0.25, abs=0.01) for share in zeros.values())
    for path, before in encoder_linears(reference).items():
        after = encoder_linears(model)[path].weight
        assert before.weight[after == 0].abs().max() <= before.weight[after != 0].abs().min()
    assert not (model.get_input_embeddings().weight == 0).all()


def test_two_of_four(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert")
    model, reference = load_classifier(folder), load_classifier(folder)
    zeros = n_of_m(model, 2, 4)
    assert set(zeros.values()) == {0.5}
    path = next(iter(zeros))
    kept = encoder_linears(model)[path].weight.view(-1, 4)
    before = encoder_linears(reference)[path].weight.view(-1, 4)
    assert ((kept != 0).sum(1) == 2).all()
    torch.testing.assert_close(kept.abs().sum(1), before.abs().topk(2, dim=1).values.sum(1))


def test_a_width_that_does_not_divide_is_left_alone(tiny: Callable[..., Path]) -> None:
    model = load_classifier(tiny("bert"))
    resize_ffn(model, 0, torch.arange(30))
    zeros = n_of_m(model, 2, 4)
    left = encoder_linears(model).keys() - zeros.keys()
    assert left == {"bert.encoder.layer.0.output.dense"}


@pytest.mark.parametrize("text", ["4:2", "0:4", "2", "2:2", "a:b", "2:4:8", "-1:4"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="N:M"):
        parse_n_of_m(text)
    assert parse_n_of_m("2:4") == (2, 4)
