"""A narrower student's first weights: the same products along the directions that the hidden state lies in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from edgekit.nn.carry import carry_over, origin, principal_directions
from tests.tiny_architectures import random_model
from tests.tiny_pictures import random_vit

HEAD, LAYERS, LABELS = 4, 3, 3


def bert(hidden: int, ffn: int, layers: int = LAYERS, heads: int = 0) -> Any:
    sizes = {"hidden_size": hidden, "num_attention_heads": heads or hidden // HEAD, "intermediate_size": ffn}
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


def test_directions_are_those_of_all_layers_and_of_what_every_token_has() -> None:
    torch.manual_seed(3)
    model = bert(24, 16)
    write_inside(model, 3)  # what the layers write lies elsewhere, and what the last norm adds is not in either
    constant = torch.nn.functional.normalize(torch.randn(24, dtype=torch.float64), dim=0)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[4:6] += torch.randn(2, 16, dtype=torch.float64)
        model.bert.encoder.layer[-1].output.LayerNorm.bias += constant
    basis = principal_directions(model, 10)
    torch.testing.assert_close(basis.T @ basis, torch.eye(10, dtype=torch.float64))
    states = model.bert(torch.randint(50, (4, 8)), output_hidden_states=True).hidden_states
    for state in states:  # 3 of the subspace, 2 of the layers, 1 of the mean, 1 of the norm
        assert (state @ basis @ basis.T - state).norm() < 1e-6 * state.norm()
    assert (states[-1] @ basis[:, :2] @ basis[:, :2].T - states[-1]).norm() > 0.1 * states[-1].norm()


def test_each_kind_of_tensor_is_projected_or_cut_where_it_has_to_be() -> None:
    torch.manual_seed(4)
    model, fresh = bert(24, 20), bert(16, 12)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    carry_over(model, fresh)
    basis = principal_directions(model, 16)
    old, new = model.bert.encoder.layer[1], fresh.bert.encoder.layer[1]
    close = torch.testing.assert_close
    close(new.attention.self.value.weight, (old.attention.self.value.weight @ basis)[:16])  # 4 of 6 heads
    close(new.attention.output.dense.weight, basis.T @ old.attention.output.dense.weight[:, :16])
    close(new.output.dense.weight, basis.T @ old.output.dense.weight[:, :12])
    close(new.output.dense.bias, basis.T @ old.output.dense.bias)
    close(new.output.LayerNorm.weight, basis.square().T @ old.output.LayerNorm.weight)
    close(new.output.LayerNorm.bias, basis.T @ old.output.LayerNorm.bias)
    close(fresh.bert.pooler.dense.weight, (model.bert.pooler.dense.weight @ basis)[:16])  # units, as neurons
    close(fresh.bert.pooler.dense.bias, model.bert.pooler.dense.bias[:16])
    close(fresh.classifier.weight, model.classifier.weight[:, :16])


def test_smaller_heads_keep_the_first_rows_of_each() -> None:
    torch.manual_seed(5)
    model, fresh = bert(24, 8), bert(12, 8, heads=6)
    carry_over(model, fresh)
    basis = principal_directions(model, 12)
    rows = [head * HEAD + row for head in range(6) for row in range(2)]
    old, new = (m.bert.encoder.layer[0].attention for m in (model, fresh))
    torch.testing.assert_close(new.self.query.weight, (old.self.query.weight @ basis)[rows])
    torch.testing.assert_close(new.output.dense.weight, basis.T @ old.output.dense.weight[:, rows])


def test_fused_and_gated_matrices_are_cut_in_each_of_their_parts() -> None:
    model = random_model("modernbert", heads=3, head_size=8, ffn=10, layers=2)
    fresh = random_model("modernbert", heads=2, head_size=8, ffn=6, layers=2)
    carry_over(model, fresh)
    basis = principal_directions(model, 16).float()
    old, new = (m.model.layers[0] for m in (model, fresh))
    rows = [24 * part + row for part in range(3) for row in range(16)]
    torch.testing.assert_close(new.attn.Wqkv.weight, old.attn.Wqkv.weight[rows] @ basis)
    neurons = [10 * part + row for part in range(2) for row in range(6)]
    torch.testing.assert_close(new.mlp.Wi.weight, old.mlp.Wi.weight[neurons] @ basis)
    torch.testing.assert_close(fresh.classifier.weight, model.classifier.weight[:, :16])
    torch.testing.assert_close(fresh.head.norm.weight, model.head.norm.weight[:16])


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


def test_pictures_need_not_be_square() -> None:
    sizes = {"image_size": [16, 8], "head_size": 8, "ffn": 12, "layers": 2}
    model, fresh = (random_vit(heads=heads, **sizes) for heads in (3, 2))
    assert len(carry_over(model, fresh)) == len(fresh.state_dict())
