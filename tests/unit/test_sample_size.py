"""Sample sizes: what is promised holds in simulation, and is told in words."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.rules import parse_rule, parse_rules
from edgekit.sample_size import accuracy_margin, disagreement_of, rows_needed, sample_notes
from edgekit.statistics import Drop, paired_difference


def test_the_rows_that_are_asked_for_suffice() -> None:
    """Two files that are alike and disagree on 4%: in about 80% of the samples the interval ends within the margin."""
    margin, share, dice = 0.01, 0.04, np.random.default_rng(5)
    rows = rows_needed(margin, share)
    shown, runs = 0, 1000
    for _ in range(runs):
        first, second, _ = dice.multinomial(rows, [share / 2, share / 2, 1 - share])
        shown += paired_difference(int(first), int(second), rows).high <= margin
    assert 0.74 <= shown / runs <= 0.86


def test_a_smaller_margin_takes_more_rows() -> None:
    assert rows_needed(0.01, 0.03) == 2355
    assert rows_needed(0.005, 0.03) == pytest.approx(4 * 2355, abs=4)
    assert rows_needed(0.01, 0.06) == pytest.approx(2 * 2355, abs=2)


@pytest.mark.parametrize(("margin", "share"), [(0.0, 0.1), (-0.01, 0.1), (0.01, 0.0), (0.01, 1.1)])
def test_what_cannot_be_is_refused(margin: float, share: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        rows_needed(margin, share)


def test_disagreement_is_read_from_an_interval() -> None:
    found = paired_difference(40, 20, 2000)
    drop = Drop(value=found.value, low=found.low, high=found.high)
    assert disagreement_of(drop, 2000) == pytest.approx(60 / 2000, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "margin"),
    [
        ("accuracy_drop <= 1pt", 0.01),
        ("accuracy >= baseline - 0.5pt", 0.005),
        ("accuracy >= baseline", 0.0),
        ("accuracy_drop >= 1pt", None),
        ("accuracy >= 90%", None),
        ("size <= 1MB", None),
        ("accuracy_drop == 1pt", None),
    ],
)
def test_margins(rule: str, margin: float | None) -> None:
    assert accuracy_margin(parse_rule(rule)) == (pytest.approx(margin) if margin is not None else None)


def test_too_few_rows_are_told_before_a_run() -> None:
    rules = parse_rules(["accuracy_drop <= 1pt", "accuracy >= baseline - 4pt", "accuracy >= baseline", "size <= 1MB"])
    (note,) = sample_notes(rules, "accuracy", 500)
    assert note.startswith("accuracy_drop <= 1pt: 500 test examples are few for a margin of 1 points")
    assert "about 2,355" in note
    assert sample_notes(rules, "accuracy", 5000) == ()


def test_a_rule_on_the_tasks_own_score_is_one_on_accuracy_where_that_is_it() -> None:
    rules = parse_rules(["score_drop <= 1pt"])
    assert len(sample_notes(rules, "accuracy", 500)) == 1
    assert sample_notes(rules, "entity_f1", 500) == ()
