from __future__ import annotations

from pathlib import Path

import torch

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.nn.mlm import load_masked, masked_loss, masked_rows

TEXTS = ("where is my card please", "the transfer is lost", "my top up is still waiting where", "cash")


def test_a_head_that_reads_only_masked_tokens_has_the_same_loss_and_gradients(any_family: Path) -> None:
    rows = masked_rows(any_family, [Table(TEXTS)], Task(max_length=16).max_length, rate=0.3, seed=0)
    batch = rows.batch(range(len(TEXTS)), 1, "cpu")
    model = load_masked(any_family)[0].double().eval()
    whole = model(**batch).loss
    whole.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = masked_loss(model, batch)
    found.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(found, whole, rtol=1e-12)
    for name, parameter in model.named_parameters():
        if name in expected:
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, expected[name], rtol=1e-9, atol=1e-12), name


def test_the_head_reads_only_masked_tokens(any_family: Path) -> None:
    rows = masked_rows(any_family, [Table(TEXTS)], 16, rate=0.3, seed=0)
    batch, model, widths = rows.batch(range(len(TEXTS)), 1, "cpu"), load_masked(any_family)[0], list[int]()
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[:-1].numel()))
    masked_loss(model, batch)
    handle.remove()
    model(**batch)
    assert widths == [sum(rows.weights)]
