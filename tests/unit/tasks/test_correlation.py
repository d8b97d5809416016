from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.tasks.correlation import correlation, ranks, spearman, spearman_of_samples


def test_equal_values_share_their_mean_rank() -> None:
    values = np.array([3.0, 1.0, 3.0, 7.0])
    assert ranks(values, np.array([[1, 1, 1, 1], [2, 0, 1, 1]])).tolist() == [[1.5, 0, 1.5, 3], [1, -0.5, 1, 3]]


def test_spearman_by_hand_with_ties() -> None:
    # ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: sum of squares 4.5 and 5, of products 4.5
    assert spearman(np.array([1.0, 2, 2, 9]), np.array([0.1, 0.3, 0.2, 0.4])) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_what_is_constant_correlates_with_nothing() -> None:
    assert spearman(np.ones(3), np.arange(3.0)) == 0.0
    assert correlation(np.ones(3), np.arange(3.0), np.ones((1, 3), dtype=np.int64)).tolist() == [0.0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=3, max_size=12))
def test_a_row_that_counts_twice_is_two_rows(rows: list[tuple[int, int, int]]) -> None:
    counts = np.array([[count + (at == 0) for at, (_, _, count) in enumerate(rows)]])
    evidence = np.array([row[:2] for row in rows], dtype=np.float64)
    repeated = np.repeat(evidence, counts[0], axis=0)
    assert spearman_of_samples(evidence, counts)[0] == pytest.approx(spearman(*repeated.T))


@pytest.mark.parametrize("seed", range(20))
def test_spearman_is_scipys(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = np.random.default_rng(seed).integers(0, 6, (2, 5 + seed)).astype(np.float64)
    if len(set(first)) > 1 and len(set(second)) > 1:
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
        whole = np.ones((1, len(first)), dtype=np.int64)
        assert correlation(first, second, whole)[0] == pytest.approx(stats.pearsonr(first, second).statistic)
