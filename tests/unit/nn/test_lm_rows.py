from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.nn.lm_rows import IGNORED, Rows, joined, one_a_row, packed, pieces, stream
from edgekit.nn.lm_train import token_losses
from edgekit.tasks.chat import Document
from tests.unit.nn.tiny_decoders import FAMILIES, tiny_decoder


def document(*ids: int, counted: tuple[int, ...] | None = None) -> Document:
    mask = np.ones(len(ids), dtype=bool) if counted is None else np.isin(np.arange(len(ids)), counted)
    return Document(np.asarray(ids, dtype=np.int32), mask)


def random_documents(lengths: list[int]) -> list[Document]:
    rng = np.random.default_rng(0)
    return [document(*rng.integers(0, 50, length).tolist()) for length in lengths]


def losses(model: torch.nn.Module, rows: Rows, size: int) -> torch.Tensor:
    found = []
    for chosen in rows.batches(size):
        batch = rows.batch(chosen)
        labels = batch.pop("labels")
        with torch.no_grad():
            logits = model(**batch, use_cache=False).logits
        wanted = labels[:, 1:]
        every = torch.nn.functional.cross_entropy(logits[:, :-1].mT, wanted, reduction="none", ignore_index=IGNORED)
        found.append(every[wanted != IGNORED])
    return torch.cat(found).sort().values


@pytest.mark.parametrize("family", FAMILIES)
def test_packing_changes_no_token_of_any_family(family: str) -> None:
    """Documents side by side (and padding behind them) are predicted as each alone, sliding windows too."""
    model = tiny_decoder(family)
    documents = random_documents([9, 7, 5, 5, 3, 2, 1, 12])
    side_by_side, alone = packed(documents, 16), one_a_row(documents)
    assert len(side_by_side) < len(alone)
    torch.testing.assert_close(losses(model, side_by_side, 2), losses(model, alone, 1), rtol=1e-6, atol=1e-6)


def test_a_batch_is_padded_where_nothing_looks() -> None:
    model, rows = tiny_decoder("llama"), one_a_row(random_documents([12, 5, 3]))
    torch.testing.assert_close(losses(model, rows, 3), losses(model, rows, 1), rtol=1e-6, atol=1e-6)


def test_what_is_not_counted_is_not_in_the_loss_and_gets_no_gradient() -> None:
    rows = one_a_row([document(3, 4, 5, 6, 7, 8, counted=(3, 5))])
    batch = rows.batch([0])
    labels = batch.pop("labels")
    logits = tiny_decoder("llama")(**batch, use_cache=False).logits
    logits.retain_grad()
    token_losses(logits, labels).sum().backward()
    moved = logits.grad[0].abs().sum(-1) > 0
    assert moved.tolist() == [False, False, True, False, True, False]  # each predicts the next
    assert torch.equal(logits.grad[0, ~moved], torch.zeros_like(logits[0, ~moved]))


def test_the_models_own_loss_is_the_mean_of_the_tokens_that_count() -> None:
    model, rows = tiny_decoder("llama"), packed(random_documents([5, 4, 3, 2]), 8)
    batch = rows.batch(range(len(rows)))
    whole = model(**batch, use_cache=False).loss
    labels = batch.pop("labels")
    each = token_losses(model(**batch, use_cache=False).logits, labels)
    assert len(each) == sum(rows.weights) == 10
    torch.testing.assert_close(whole.double(), each.double().mean(), rtol=1e-6, atol=0.0)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(20, 40))
def test_packing_loses_and_splits_nothing_and_fills_the_rows(lengths: list[int], size: int) -> None:
    rows = packed(random_documents(lengths), size)
    assert all(length <= size for length in rows.lengths)
    assert sum(rows.weights) == sum(lengths) - len(lengths)
    assert sum(length > size / 2 for length in rows.lengths) >= len(rows) - 1


def test_a_stream_is_cut_into_full_rows_and_its_end_is_kept() -> None:
    rows = stream([document(1, 2, 3), document(4, 5), document(6, 7)], 3)
    assert [ids.tolist() for ids in rows.ids] == [[1, 2, 3], [4, 5, 6]]  # one token left over predicts nothing
    assert rows.labels[1].tolist() == [IGNORED, 5, 6]
    assert [len(piece) for piece in pieces([document(*range(7))], 3)] == [3, 3, 1]


def test_the_digest_tells_rows_apart() -> None:
    a, b, c = document(1, 2, 3), document(4, 5), document(4, 5, counted=())
    digests = [one_a_row([a, b]).digest, packed([a, b], 8).digest, packed([a, c], 8).digest, one_a_row([a]).digest]
    assert len(set(digests)) == 4
    assert joined([one_a_row([a]), one_a_row([b])]).digest == digests[0]
