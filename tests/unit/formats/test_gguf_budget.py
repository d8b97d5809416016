"""Types under a budget: as good as trying all, and never above it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.formats.gguf_budget import Choice, choose_types

choices = st.lists(st.tuples(st.integers(1, 60), st.floats(0, 10)), min_size=1, max_size=4)


@given(found=st.lists(choices, min_size=1, max_size=4), extra=st.integers(0, 100))
def test_it_is_as_good_as_trying_all(found: list[list[tuple[int, float]]], extra: int) -> None:
    options = {
        f"t{n}": [Choice(f"c{i}", size, cost) for i, (size, cost) in enumerate(several)]
        for n, several in enumerate(found)
    }
    budget = sum(min(choice.bytes for choice in several) for several in options.values()) + extra
    picked = choose_types(options, budget)
    taken = [next(c for c in options[name] if c.type_name == kind) for name, kind in picked.items()]
    assert list(picked) == list(options)
    assert sum(choice.bytes for choice in taken) <= budget
    every = (mix for mix in product(*options.values()) if sum(choice.bytes for choice in mix) <= budget)
    assert sum(choice.cost for choice in taken) == pytest.approx(min(sum(c.cost for c in mix) for mix in every))


def test_large_sizes_are_counted_in_steps_and_still_fit() -> None:
    options = {f"t{n}": [Choice("q4", 10**8 + n, 4.0), Choice("q8", 2 * 10**8 + n, 1.0 - n / 100)] for n in range(50)}
    picked = choose_types(options, 75 * 10**8)
    assert 23 <= list(picked.values()).count("q8") <= 24
    assert picked["t0"] == "q4"
    assert picked["t49"] == "q8"


def test_a_budget_that_nothing_fits_is_refused() -> None:
    with pytest.raises(UsageError, match="the smallest types take 100"):
        choose_types({"a": [Choice("q4", 100, 1.0)]}, 99)
