"""Answers packed into a report: they read back, and pair as the arrays they came from do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgekit.correctness import Correctness
from edgekit.evaluate import paired_drop

FLAGS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=70)


@given(FLAGS)
def test_it_pairs_as_the_arrays_do(flags: list[tuple[bool, bool]]) -> None:
    first, second = ([pair[side] for pair in flags] for side in (0, 1))
    packed = Correctness.pack(first, "data").drop_to(Correctness.pack(second, "data"))
    assert packed == paired_drop(np.array(first), np.array(second))


def test_only_the_same_examples_are_paired() -> None:
    here = Correctness.pack([True, False], "data")
    assert here.drop_to(Correctness.pack([True, False], "other")) is None
    assert here.drop_to(Correctness.pack([True, False, True], "data")) is None
    assert Correctness.pack([], "data").drop_to(Correctness.pack([], "data")) is None


def test_a_thousand_answers_are_small() -> None:
    assert len(Correctness.pack([True] * 1000, "d").bits) < 200


def test_damage_is_told() -> None:
    with pytest.raises(ValidationError, match="not base64"):
        Correctness(data="d", n=3, bits="!")
