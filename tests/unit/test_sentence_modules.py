from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from edgekit.errors import ModelError
from edgekit.sentence_modules import Pooling, read_pooling, write_modules


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_what_is_written_is_read(tmp_path: Path, pooling: Pooling) -> None:
    assert read_pooling(tmp_path) == "mean"  # a bare encoder
    write_modules(tmp_path, pooling, 32)
    assert read_pooling(tmp_path) == pooling


def test_the_newer_name_of_the_pooling_is_read(tmp_path: Path) -> None:
    write_modules(tmp_path, "mean", 32)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 32, "pooling_mode": "cls"}')
    assert read_pooling(tmp_path) == "cls"


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "the pooling is pooling_mode_max_tokens"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "mean.* and .*cls",
        ),
        ("1_Pooling/config.json", {}, "the pooling is none"),
        ("1_Pooling/config.json", [], "damaged"),
        ("modules.json", {}, "damaged"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "the prompt 'query'"),
    ],
)
def test_what_is_not_computed_is_refused(tmp_path: Path, file: str, content: object, told: str) -> None:
    write_modules(tmp_path, "mean", 32)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=told):
        read_pooling(tmp_path)


def test_a_dense_layer_is_refused(tmp_path: Path) -> None:
    write_modules(tmp_path, "mean", 32)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="Transformer, Pooling, Dense, Normalize"):
        read_pooling(tmp_path)


def test_a_missing_pooling_is_told(tmp_path: Path) -> None:
    write_modules(tmp_path, "mean", 32)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelError, match="no such file"):
        read_pooling(tmp_path)
