"""The sequential test: it seldom errs however often one looks, and decides what it can, wild rounds or not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.sequential import GATE_ALPHA, decide, sequence

MARGIN, ROUNDS, RUNS = 1.02, 28, 1500
SPREAD = 0.007  # standard deviation of a round's log ratio
Noise = Callable[[np.random.Generator], NDArray[np.float64]]
LOGS = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=40)


def normal(dice: np.random.Generator) -> NDArray[np.float64]:
    return dice.normal(0, SPREAD, ROUNDS)


def heavy(dice: np.random.Generator) -> NDArray[np.float64]:
    """One round in twenty is 10% off, to either side."""
    wild = dice.random(ROUNDS) < 0.05
    return normal(dice) + wild * dice.choice([-0.1, 0.1], ROUNDS)


def drifting(dice: np.random.Generator) -> NDArray[np.float64]:
    """The spread changes from round to round: rounds need not be alike, only fair."""
    return dice.normal(0, 1, ROUNDS) * dice.uniform(0.001, 0.03, ROUNDS)


def shares(ratio: float, noise: Noise, runs: int = RUNS) -> dict[str, float]:
    """How often each verdict is met when one looks after every round and stops at the first decision."""
    dice = np.random.default_rng(7)
    found = [decide((math.log(ratio) + noise(dice)).tolist(), MARGIN).verdict for _ in range(runs)]
    return {verdict: found.count(verdict) / runs for verdict in ("pass", "fail", "inconclusive")}


@pytest.mark.parametrize("noise", [normal, heavy, drifting])
def test_at_the_margin_itself_it_errs_as_seldom_as_it_says(noise: Noise) -> None:
    found = shares(MARGIN, noise, 4000)
    slack = 3 * math.sqrt(GATE_ALPHA * (1 - GATE_ALPHA) / 4000)
    assert found["fail"] <= GATE_ALPHA + slack
    assert found["pass"] <= GATE_ALPHA + slack


@pytest.mark.parametrize("noise", [normal, heavy])
def test_a_slowdown_of_three_percent_is_found(noise: Noise) -> None:
    found = shares(1.03, noise)
    assert found["fail"] >= 0.95
    assert found["pass"] <= GATE_ALPHA


@pytest.mark.parametrize("noise", [normal, heavy])
def test_the_same_file_passes_and_raises_no_alarm(noise: Noise) -> None:
    found = shares(1.0, noise)
    assert found["pass"] >= 0.99
    assert found["fail"] < GATE_ALPHA


@pytest.mark.parametrize("noise", [normal, heavy, drifting])
def test_the_interval_covers_at_every_look(noise: Noise) -> None:
    dice, runs, missed = np.random.default_rng(3), 150, 0
    for _ in range(runs):
        logs = noise(dice).tolist()
        looks = [sequence(logs[: n + 1]) for n in range(3, ROUNDS, 8)]
        missed += any(not look.low <= 1.0 <= look.high for look in looks)
    assert missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_it_takes_nine_rounds_at_the_least_and_one_wild_round_convinces_nobody() -> None:
    assert decide([0.5] * 8, MARGIN).verdict == "inconclusive"
    assert decide([0.5] * 12, MARGIN).verdict == "fail"
    assert decide([100.0], MARGIN).above < 2
    assert decide([-0.02] * 11 + [10.0] + [-0.02] * 8, MARGIN).verdict == "pass"


def test_a_decision_once_made_stays_made() -> None:
    logs = [-0.02] * 14
    first = decide(logs, MARGIN)
    later = decide(logs + [0.2] * 30, MARGIN)
    assert (first.verdict, later.verdict, later.rounds) == ("pass", "pass", first.rounds)


def test_no_rounds_decide_nothing() -> None:
    found = decide([], MARGIN)
    assert (found.verdict, found.below, found.above, found.rounds) == ("inconclusive", 1.0, 1.0, 0)


@given(LOGS, st.floats(0.5, 2.0))
def test_it_is_symmetric(logs: list[float], margin: float) -> None:
    """Baseline and candidate exchanged: the opposite verdict on the opposite margin."""
    here, there = decide(logs, margin), decide([-x for x in logs], 1 / margin)
    assert here.below == pytest.approx(there.above, rel=1e-6)
    assert here.above == pytest.approx(there.below, rel=1e-6)


@given(LOGS, st.floats(0.9, 1.1), st.floats(0.0, 0.1))
def test_slower_rounds_are_more_evidence_of_being_slower(logs: list[float], margin: float, slower: float) -> None:
    here, there = decide(logs, margin), decide([x + slower for x in logs], margin)
    assert there.above >= here.above * (1 - 1e-9)
    assert there.below <= here.below * (1 + 1e-9)


@given(LOGS)
def test_the_interval_holds_the_median_and_moves_with_its_rounds(logs: list[float]) -> None:
    found, moved = sequence(logs), sequence([x + 0.1 for x in logs])
    assert found.low <= found.value <= found.high
    assert moved.value == pytest.approx(found.value * math.exp(0.1))
    if math.isfinite(found.high):
        assert moved.high == pytest.approx(found.high * math.exp(0.1), rel=1e-6)


@given(LOGS, st.floats(0.5, 2.0))
def test_what_the_interval_leaves_out_is_decided(logs: list[float], margin: float) -> None:
    found = sequence(logs, alpha=2 * GATE_ALPHA)
    if found.high < margin * (1 - 1e-9):
        assert decide(logs, margin).below >= 1 / GATE_ALPHA * (1 - 1e-6)
    if found.low > margin * (1 + 1e-9):
        assert decide(logs, margin).above >= 1 / GATE_ALPHA * (1 - 1e-6)


@pytest.mark.parametrize("logs", [[math.nan], [0.0, math.inf]])
def test_what_is_not_a_number_is_refused(logs: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        decide(logs, MARGIN)
    with pytest.raises(ValueError, match="finite"):
        sequence(logs)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_is_a_ratio(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        decide([0.0], margin)
    with pytest.raises(ValueError, match="no rounds"):
        sequence([])
