from __future__ import annotations

import numpy as np
import pytest

from edgekit.answers import Answers, at_chance, same_label


def made(labels: list[int], truth: list[int] | None = None) -> Answers:
    return Answers(np.array(labels), None if truth is None else np.array(truth), {})


def test_agreement_is_of_what_they_say_not_of_what_is_right() -> None:
    assert same_label(made([0, 1, 2, 1]), made([0, 2, 2, 0])) == 0.5
    with pytest.raises(ValueError, match="4 and 3 rows"):
        same_label(made([0, 1, 2, 1]), made([0, 2, 2]))


def test_whoever_always_says_the_commonest_is_at_chance() -> None:
    truth = [0, 1, 2, 1] * 30
    lazy = at_chance(made([1] * 120, truth))
    assert lazy is not None
    assert (lazy.at_chance, lazy.accuracy, lazy.majority_share) == (True, 0.5, 0.5)
    good = at_chance(made(truth, truth))
    assert good is not None
    assert not good.at_chance


def test_without_labels_nothing_is_right_or_wrong() -> None:
    assert made([0, 1]).correct is None
    assert at_chance(made([0, 1])) is None
