"""Dropout of a model that learns, set from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.nn.dropout import set_dropout
from edgekit.nn.load import load_classifier
from tests.conftest import write_tiny

FAMILIES = ["bert", "distilbert", "electra", "roberta"]


@pytest.mark.parametrize("family", FAMILIES)
def test_without_dropout_training_computes_what_inference_does(tmp_path: Path, family: str) -> None:
    import torch

    model = load_classifier(write_tiny(tmp_path / family, family))
    ids = torch.arange(5, 17).reshape(2, 6)
    whole = model.eval()(input_ids=ids).logits
    model.train()
    assert not torch.equal(model(input_ids=ids).logits, whole)
    set_dropout(model, None)
    assert not torch.equal(model(input_ids=ids).logits, whole)
    set_dropout(model, 0.0)
    assert torch.equal(model(input_ids=ids).logits, whole)
