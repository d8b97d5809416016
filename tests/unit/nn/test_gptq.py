"""GPTQ: what it rounds to lies on the grid, and the outputs stay closer than with plain rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.errors import StageError
from edgekit.nn.gptq import OpenBlock, RoundColumn, gptq, inverse_factor

Floats = NDArray[np.float32]
STEP = 0.5


def to_grid(_: int, column: Floats) -> Floats:
    return np.asarray(np.round(column / STEP) * STEP, dtype=np.float32)


def fixed_grid(_start: int, _values: Floats) -> RoundColumn[Floats]:
    return to_grid


def factor_of(second: Floats, damp: float = 0.01) -> Floats:
    return np.asarray(inverse_factor(torch.from_numpy(second), damp).numpy())


def rounded(weight: Floats, factor: Floats, open_block: OpenBlock[Floats], block: int, lazy: int = 32) -> Floats:
    left = weight.copy()
    gptq(left, factor, open_block, block, lazy)
    return left


def moments(cols: int, seed: int, rank: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((4 * cols, rank or cols)) @ random.standard_normal((rank or cols, cols))
    return np.asarray(inputs.T @ inputs / len(inputs), dtype=np.float32)


def output_error(error: Floats, second: Floats) -> float:
    return float(((error @ second) * error).sum())


def test_the_factor_is_that_of_the_inverse() -> None:
    second = moments(48, 0)
    factor = factor_of(second, damp=0.1).astype(np.float64)
    damped = second + 0.1 * np.diag(second).mean() * np.eye(48)
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(48), atol=1e-4)
    assert (np.tril(factor, -1) == 0).all()


def test_moments_that_are_not_finite_are_refused_and_missing_rank_is_not() -> None:
    with pytest.raises(StageError, match="NaN or infinite"):
        factor_of(np.full((4, 4), np.nan, dtype=np.float32))
    with pytest.raises(StageError, match="no positive matrix"):
        factor_of(np.diag(np.array([1, -1], dtype=np.float32)))
    assert np.isfinite(factor_of(moments(32, 0, rank=5))).all()
    assert np.isfinite(factor_of(np.zeros((8, 8), dtype=np.float32))).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), block=st.sampled_from([16, 32, 64]), lazy=st.sampled_from([1, 8, 24, 64]))
def test_outputs_stay_closer_than_with_plain_rounding(seed: int, block: int, lazy: int) -> None:
    second = moments(64, seed)
    weight = np.random.default_rng(seed + 1).standard_normal((40, 64)).astype(np.float32)
    stored = rounded(weight, factor_of(second), fixed_grid, block, lazy)
    np.testing.assert_array_equal(stored, to_grid(0, stored))
    assert output_error(stored - weight, second) < 0.8 * output_error(to_grid(0, weight) - weight, second)


def test_how_far_errors_are_put_off_changes_nothing() -> None:
    weight, factor = (
        np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32),
        factor_of(moments(64, 0)),
    )
    stored = [rounded(weight, factor, fixed_grid, 32, lazy) for lazy in (1, 32)]
    assert np.mean(stored[0] == stored[1]) > 0.99  # sums in another order may tip a value over


def test_inputs_that_have_nothing_in_common_leave_plain_rounding() -> None:
    weight = np.random.default_rng(1).standard_normal((8, 32)).astype(np.float32)
    stored = rounded(weight, factor_of(np.eye(32, dtype=np.float32)), fixed_grid, 32)
    np.testing.assert_array_equal(stored, to_grid(0, weight))


def test_a_block_is_opened_with_the_weights_as_they_stand_by_then() -> None:
    weight, second = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32), moments(64, 0)
    seen: dict[int, Floats] = {}

    def open_block(start: int, values: Floats) -> RoundColumn[Floats]:
        seen[start] = values.copy()
        return to_grid

    rounded(weight, factor_of(second), open_block, 32)
    np.testing.assert_array_equal(seen[0], weight[:, :32])
    assert not np.allclose(seen[32], weight[:, 32:])
