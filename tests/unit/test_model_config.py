"""config.json: what it says, and how it may be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.errors import ModelError
from edgekit.model_config import label_names, number, pad_id, read_config


def write(folder: Path, text: str | bytes) -> Path:
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_labels_come_in_the_heads_order(tmp_path: Path) -> None:
    names = {str(at): f"label {at}" for at in (10, 2, 0)}
    config = read_config(write(tmp_path, json.dumps({"model_type": "bert", "id2label": names, "pad_token_id": 3})))
    assert label_names(config) == ("label 0", "label 2", "label 10")
    assert pad_id(config) == 3
    assert (label_names({}), pad_id({"pad_token_id": None})) == ((), 0)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "damaged"),
        ("[]", "not an object"),
        (b"\xff\xfe", "damaged"),
        ("{}", "no model_type"),
        ('{"model_type": 3}', "no model_type"),
    ],
)
def test_a_broken_file_is_told(tmp_path: Path, text: str | bytes, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        read_config(write(tmp_path, text))


def test_values_of_another_kind_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no config"):
        read_config(tmp_path)
    with pytest.raises(ModelError, match="hidden_size is 'wide'"):
        number({"hidden_size": "wide"}, "hidden_size")
    with pytest.raises(ModelError, match="not a list of numbered names"):
        label_names({"id2label": {"a": "b"}})
