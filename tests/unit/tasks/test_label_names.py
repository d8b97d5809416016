from __future__ import annotations

import pytest

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.tasks.text_classification import by_number, label_ids

NAMELESS = ("LABEL_0", "LABEL_1", "LABEL_2")


def test_numbers_are_those_of_a_nameless_heads_labels() -> None:
    table = Table(("a", "b", "c", "d"), labels=("2", "0", "", "1"))
    assert label_ids(table, Task(labels=NAMELESS, max_length=8)).tolist() == [2, 0, -100, 1]


def test_a_head_whose_labels_are_in_another_order_is_read_by_name() -> None:
    table = Table(("a", "b"), labels=("2", "0"))
    assert label_ids(table, Task(labels=("LABEL_2", "LABEL_1", "LABEL_0"), max_length=8)).tolist() == [0, 2]


@pytest.mark.parametrize("names", [{"0", "3"}, {"0", "LABEL_1"}, {"00"}, {"-1"}, {"0.0"}])
def test_other_names_are_not_taken_for_numbers(names: set[str]) -> None:
    assert by_number(names, Task(labels=NAMELESS, max_length=8)) == {}


def test_a_head_with_names_is_not_read_by_number() -> None:
    table = Table(("a",), labels=("0",), name="data")
    with pytest.raises(DataError, match=r"does not know: '0'; it knows 'lost', 'rate'"):
        label_ids(table, Task(labels=("lost", "rate"), max_length=8))


def test_labels_of_words_have_no_numbers() -> None:
    assert by_number({"0", "1"}, Task(kind="token-classification", labels=NAMELESS, max_length=8)) == {}
