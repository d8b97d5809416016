"""A narrower student's first weights: the same products along the directions that the hidden state lies in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from edgekit.nn.carry import carry_over, origin

HEAD, LAYERS, LABELS = 4, 3, 3


def bert(hidden: int, ffn: int, layers: int = LAYERS) -> Any:
    sizes = {"hidden_size": hidden, "num_attention_heads": hidden // HEAD, "intermediate_size": ffn}
    config = BertConfig(vocab_size=50, num_hidden_layers=layers, num_labels=LABELS, max_position_embeddings=12, **sizes)
    return BertForSequenceClassification(config).eval().double()


def write_inside(model: Any, width: int) -> None:
    """All that writes the hidden state writes inside a random subspace `width` wide, where norms leave it: its mean is
    0 there."""
    hidden, embeddings = model.config.hidden_size, model.bert.embeddings
    constant = torch.ones(hidden, 1, dtype=torch.float64)
    inside = torch.linalg.qr(torch.cat([constant, torch.randn(hidden, width, dtype=torch.float64)], dim=1))[0][:, 1:]
    projector = inside @ inside.T
    with torch.no_grad():
        for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings):
            table.weight.copy_(torch.randn_like(table.weight) @ projector)
        for layer in model.bert.encoder.layer:
            for dense in (layer.attention.output.dense, layer.output.dense):
                dense.weight.copy_(projector @ torch.randn_like(dense.weight) * 0.3)


@settings(deadline=None, max_examples=15)
@given(wide=st.integers(3, 6), narrow=st.integers(1, 5), ffn=st.integers(5, 12), seed=st.integers(0, 999))
def test_products_are_the_same_where_the_hidden_state_lies(wide: int, narrow: int, ffn: int, seed: int) -> None:
    narrow = min(narrow, wide - 1)
    torch.manual_seed(seed)
    model, fresh = bert(wide * HEAD, ffn), bert(narrow * HEAD, ffn - 1)
    write_inside(model, narrow * HEAD)
    assert len(carry_over(model, fresh)) == len(fresh.state_dict())
    few, all_ = (m.bert.embeddings.word_embeddings.weight for m in (fresh, model))
    torch.testing.assert_close(few @ few.T, all_ @ all_.T)
    last, source = fresh.bert.encoder.layer[-1], model.bert.encoder.layer[-1]
    torch.testing.assert_close(
        last.attention.self.query(few), source.attention.self.query(all_)[:, : narrow * HEAD], rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(
        last.intermediate.dense(few), source.intermediate.dense(all_)[:, : ffn - 1], rtol=1e-6, atol=1e-9
    )
    inner = torch.randn(5, ffn - 1, dtype=torch.float64)  # written back: as much, where the first neurons alone speak
    written = torch.nn.functional.pad(inner, (0, 1)) @ source.output.dense.weight.T
    torch.testing.assert_close((inner @ last.output.dense.weight.T).norm(dim=1), written.norm(dim=1))


def test_as_wide_a_student_keeps_its_layers_as_they_are() -> None:
    torch.manual_seed(1)
    model, fresh = bert(12, 10, layers=4), bert(12, 10, layers=2)
    carry_over(model, fresh)
    for layer, source in zip(fresh.bert.encoder.layer, (1, 3), strict=True):
        for name, tensor in layer.state_dict().items():
            torch.testing.assert_close(tensor, model.bert.encoder.layer[source].state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize(("count", "kept", "taken"), [(6, 3, [1, 3, 5]), (6, 1, [5]), (4, 4, [0, 1, 2, 3])])
def test_layers_are_spread_and_the_last_is_the_last(count: int, kept: int, taken: list[int]) -> None:
    assert origin(count, kept) == taken
