from __future__ import annotations

import pytest

from edgekit.data.load import Columns, load_table
from edgekit.errors import DataError
from edgekit.tasks.token_classification import label_names

datasets = pytest.importorskip("datasets")
TAGS = ["O", "B-x", "I-x"]
WORDS = Columns(text="tokens", label="ner_tags", label_kind="words")


def serve(monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[object]], **features: object) -> None:
    """The hub has this one data set."""
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: data)


@pytest.mark.parametrize("kind", ["Sequence", "List", "LargeList"])
def test_labels_of_words_come_by_their_names(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    listed = getattr(datasets, kind)
    columns = {"tokens": [["New", "York", "!"], ["hi"]], "ner_tags": [[1, 2, 0], [0]]}
    serve(
        monkeypatch,
        columns,
        tokens=listed(datasets.Value("string")),
        ner_tags=listed(datasets.ClassLabel(names=TAGS)),
    )
    table = load_table("hub:owner/name", WORDS)
    assert (table.texts, table.labels) == (("New York !", "hi"), ("B-x I-x O", "O"))


def test_labels_of_texts_come_by_their_names_and_none_as_minus_one(monkeypatch: pytest.MonkeyPatch) -> None:
    label = datasets.ClassLabel(names=["off", "on"])
    serve(monkeypatch, {"text": ["a", "b", "c"], "label": [1, 0, -1]}, text=datasets.Value("string"), label=label)
    assert load_table("hub:owner/name", Columns(label="label")).labels == ("on", "off", "-1")


def test_a_missing_label_is_told_by_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    label = datasets.ClassLabel(names=["off", "on"])
    serve(monkeypatch, {"text": ["a", "b"], "label": [1, None]}, text=datasets.Value("string"), label=label)
    with pytest.raises(DataError, match="row 2: column 'label' is empty"):
        load_table("hub:owner/name", Columns(label="label"))


def test_a_data_set_that_is_a_script_is_an_error_without_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, config: str | None, split: str) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found foo.py")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match="Dataset scripts are no longer supported"):
        load_table("hub:owner/name", Columns(label="label"))


def test_numbers_without_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"tokens": [["New", "York"]], "ner_tags": [[1, 2]]}
    serve(
        monkeypatch,
        columns,
        tokens=datasets.List(datasets.Value("string")),
        ner_tags=datasets.List(datasets.Value("int64")),
    )
    with pytest.raises(DataError, match="numbers without names"):
        label_names(load_table("hub:owner/name", WORDS))
