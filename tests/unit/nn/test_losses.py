from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import StageError
from edgekit.nn.losses import (
    UNLABELED,
    hard_loss,
    hidden_loss,
    layer_pairs,
    relation_head_count,
    relation_loss,
    soft_loss,
)


def test_hard_loss_counts_labelled_rows_only() -> None:
    logits = torch.randn(4, 3)
    labels = torch.tensor([0, UNLABELED, 2, UNLABELED])
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(hard_loss(logits, labels), expected)


def test_hard_loss_of_an_unlabelled_batch_is_zero_and_has_a_gradient() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = hard_loss(logits, torch.full((2,), UNLABELED))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_soft_loss_is_the_textbook_sum() -> None:
    student, teacher, t = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[2.0, 0.5, -1.0]]), 2.0
    p = (teacher / t).softmax(-1)
    q = (student / t).softmax(-1)
    expected = t * t * sum(float(p[0, i]) * math.log(float(p[0, i]) / float(q[0, i])) for i in range(3))
    assert soft_loss(student, teacher, t).item() == pytest.approx(expected, rel=1e-5)
    assert soft_loss(teacher, teacher, t).item() == pytest.approx(0.0, abs=1e-6)


def test_soft_loss_gradient_hardly_depends_on_a_high_temperature() -> None:
    """Hinton's T^2 keeps the gradient's size as T grows; without it these two differ fourfold."""
    teacher, sizes = torch.randn(8, 5), []
    for temperature in (20.0, 40.0):
        student = torch.zeros(8, 5, requires_grad=True)
        soft_loss(student, teacher, temperature).backward()
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_hidden_loss_is_relative_and_ignores_padding() -> None:
    teacher = torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert hidden_loss(torch.zeros_like(teacher), teacher, mask).item() == pytest.approx(1.0)
    student = teacher.clone()
    student[0, 3:] = 100.0
    assert hidden_loss(student, teacher, mask).item() == 0.0
    assert hidden_loss(student * 7, teacher * 7, mask * 0).item() == 0.0


def reference_relation(student: torch.Tensor, teacher: torch.Tensor, lengths: list[int], heads: int) -> float:
    """One example, one head, one position at a time, without padding."""
    total, positions = 0.0, 0
    for row, length in enumerate(lengths):
        for head in range(heads):
            sides = []
            for states in (student, teacher):
                width = states.shape[-1] // heads
                part = states[row, :length, head * width : (head + 1) * width]
                sides.append((part @ part.T / math.sqrt(width)).softmax(-1))
            q, p = sides
            total += float((p * (p / q).log()).sum())
        positions += length
    return total / (positions * heads)


def test_relation_loss_agrees_with_a_loop_for_models_of_other_widths() -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 6, 8), torch.randn(2, 6, 24)
    mask = torch.tensor([[1] * 4 + [0] * 2, [1] * 6])
    found = relation_loss(student, teacher, mask, 4).item()
    assert found == pytest.approx(reference_relation(student, teacher, [4, 6], 4), rel=1e-4)
    assert relation_loss(teacher, teacher, mask, 4).item() == pytest.approx(0.0, abs=1e-6)
    assert relation_loss(student, teacher, mask * 0, 4).item() == 0.0


def test_relation_loss_does_not_see_padded_positions() -> None:
    student, teacher = torch.randn(1, 4, 8, requires_grad=True), torch.randn(1, 4, 8)
    relation_loss(student, teacher, torch.tensor([[1, 1, 1, 0]]), 2).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert not student.grad[0, 3].any()
    assert student.grad[0, :3].any()


@given(student=st.integers(1, 24), teacher=st.integers(1, 24), how=st.sampled_from(["uniform", "last"]))
def test_layer_pairs_rise_and_end_at_both_ends(student: int, teacher: int, how: str) -> None:
    pairs = layer_pairs(student, teacher, how)  # type: ignore[arg-type]
    assert pairs[-1] == (student - 1, teacher - 1)
    assert all(0 <= s < student and 0 <= t < teacher for s, t in pairs)
    assert list(pairs) == sorted(pairs)
    assert len({s for s, _ in pairs}) == len(pairs) == (student if how == "uniform" else min(student, teacher))


def test_layer_pairs_of_half_the_layers() -> None:
    assert layer_pairs(3, 6, "uniform") == ((0, 1), (1, 3), (2, 5))
    assert layer_pairs(3, 6, "last") == ((0, 3), (1, 4), (2, 5))


@given(student=st.integers(1, 40).map(lambda n: n * 8), teacher=st.integers(4, 40).map(lambda n: n * 8))
def test_chosen_relation_heads_divide_both_widths(student: int, teacher: int) -> None:
    heads = relation_head_count(0, student, teacher)
    assert student % heads == teacher % heads == 0
    assert teacher // heads >= 32 or heads == 1


def test_relation_heads_of_minilm_and_of_its_pruned_student() -> None:
    assert relation_head_count(0, 384, 384) == 12
    assert relation_head_count(0, 288, 384) == 12
    assert relation_head_count(6, 288, 384) == 6
    with pytest.raises(StageError, match="do not divide"):
        relation_head_count(5, 288, 384)
