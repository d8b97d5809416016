"""Intervals must cover, tests must not cry wolf: checked by simulation against what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.statistics import (
    binomial_lower_tail,
    chance_check,
    mcnemar,
    mean_interval,
    median_interval,
    paired_difference,
)


@pytest.mark.parametrize("draw", ["normal", "lognormal", "spikes"])
@pytest.mark.parametrize("n", [6, 8, 15])
def test_median_interval_covers(draw: str, n: int) -> None:
    dice = np.random.default_rng(1)
    truth, hits, runs = (1.0 if draw == "lognormal" else 0.0), 0, 3000
    for _ in range(runs):
        values = dice.lognormal(0, 0.3, n) if draw == "lognormal" else dice.normal(0, 1, n)
        if draw == "spikes":  # one sample in ten is a neighbour's doing, on either side
            values = np.where(dice.random(n) < 0.1, values * 50, values)
        found = median_interval(values)
        hits += found.low <= truth <= found.high
    assert 0.94 <= hits / runs <= 0.975


def test_median_interval_by_hand() -> None:
    """n = 6: the range covers with 1 - 2/64, one step inside with 1 - 14/64; the weight is 5 I / (1 + 4 I)."""
    share = (0.96875 - 0.95) / (0.96875 - 0.78125)
    weight = 5 * share / (1 + 4 * share)
    found = median_interval([6, 1, 5, 2, 4, 3])
    assert (found.low, found.value, found.high) == pytest.approx((1 + weight, 3.5, 6 - weight))


def test_median_of_few_is_the_range() -> None:
    found = median_interval([3.0, 1.0, 2.0])
    assert (found.low, found.value, found.high) == (1.0, 2.0, 3.0)
    single = median_interval([2.0])
    assert (single.low, single.high) == (2.0, 2.0)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_median_refuses_nothing_and_nan(values: list[float]) -> None:
    with pytest.raises(ValueError, match="median"):
        median_interval(values)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e3, 1e3))
def test_median_interval_moves_with_its_values(values: list[float], shift: float) -> None:
    found, moved = median_interval(values), median_interval([v + shift for v in values])
    assert found.low <= found.value <= found.high
    assert math.isclose(moved.low, found.low + shift, abs_tol=1e-6)
    assert math.isclose(moved.high, found.high + shift, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "n"), [(0.02, 0.01, 300), (0.1, 0.1, 100), (0.002, 0.002, 500), (0.05, 0, 80)]
)
def test_paired_difference_covers(first: float, second: float, n: int) -> None:
    dice = np.random.default_rng(2)
    counts = dice.multinomial(n, [first, second, 1 - first - second], size=3000)
    hits = 0
    for b, c, _ in counts:
        found = paired_difference(int(b), int(c), n)
        hits += found.low <= first - second <= found.high
    assert hits / len(counts) >= 0.94


def test_no_disagreement_is_not_certainty() -> None:
    found = paired_difference(0, 0, 100)
    assert found.value == 0
    assert found.low < -0.01 < 0.01 < found.high
    assert paired_difference(0, 0, 10_000).high < 0.001


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_paired_difference_is_antisymmetric_and_holds_its_value(b: int, c: int, rest: int) -> None:
    n = max(1, b + c + rest)
    found, mirrored = paired_difference(b, c, n), paired_difference(c, b, n)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert math.isclose(found.low, -mirrored.high, abs_tol=1e-12)


def test_paired_difference_refuses_no_examples() -> None:
    with pytest.raises(ValueError, match="no examples"):
        paired_difference(0, 0, 0)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 22 / 1024), (9, 1, 22 / 1024), (0, 10, 2 / 1024), (0, 5, 0.0625)],
)
def test_mcnemar_exact(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p)


@given(st.integers(0, 200), st.integers(0, 200))
def test_binomial_tail_is_the_sum(k: int, n: int) -> None:
    expected = sum(math.comb(n, i) for i in range(min(k, n) + 1)) / 2**n
    assert binomial_lower_tail(k, n) == pytest.approx(expected)


def test_large_counts_do_not_overflow() -> None:
    assert 0 < mcnemar(4800, 5200) < 1e-4


def test_chance_is_told_from_skill() -> None:
    dice = np.random.default_rng(3)
    labels = dice.choice(4, size=400, p=[0.4, 0.2, 0.2, 0.2])
    lazy = chance_check(labels == 0, labels)
    assert lazy.at_chance
    assert lazy.accuracy == lazy.majority_share
    assert not chance_check(dice.random(400) < 0.9, labels).at_chance


def test_chance_check_seldom_praises_noise() -> None:
    """Guessing by the labels' own shares is no better than the majority: praised in at most 5% of draws."""
    dice = np.random.default_rng(4)
    praised = 0
    for _ in range(400):
        labels = dice.choice(2, size=200)
        praised += not chance_check(dice.choice(2, size=200) == labels, labels).at_chance
    assert praised / 400 <= 0.05


def test_the_interval_of_a_mean_is_students() -> None:
    # quantiles of t from its table: 12.7062, 4.30265, 2.77645, 2.26216 for 1, 2, 4, 9 degrees of freedom
    for values, quantile in (([0, 2], 12.7062), ([1, 2, 3], 4.30265), (range(5), 2.77645), (range(10), 2.26216)):
        found = mean_interval(list(map(float, values)))
        half = quantile * np.std(list(values), ddof=1) / np.sqrt(len(values))
        assert found.value == pytest.approx(np.mean(list(values)))
        assert found.high - found.value == pytest.approx(half, rel=2e-3)
        assert found.value - found.low == pytest.approx(half, rel=2e-3)
    one = mean_interval([3.0])
    assert (one.value, one.low, one.high) == (3.0, -math.inf, math.inf)
    for bad in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="a mean needs values"):
            mean_interval(bad)
