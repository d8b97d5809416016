from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification

from edgekit.errors import ModelError
from edgekit.nn.architecture import check_architecture
from edgekit.nn.load import load_classifier

Tiny = Callable[..., Path]


def changed(folder: Path, **keys: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


def test_an_unknown_architecture_says_what_was_found_and_how_to_add_it(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "ernie", hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20, vocab_size=30
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as found:
        check_architecture(tmp_path)
    assert "'ernie' is not supported" in str(found.value)
    assert "All parts that bert has were found by name, but the family is not known" in str(found.value)
    assert "families.py" in found.value.hint


def test_parts_that_no_known_family_has_are_named(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "mobilebert", num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, vocab_size=30, embedding_size=16
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"found by name, .* its layers hold \d+ more, which would be ignored \(.*bottle"
    ):
        check_architecture(tmp_path)


def test_parts_that_are_elsewhere_are_named(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt2", n_embd=24, n_layer=1, n_head=3, vocab_size=30, pad_token_id=0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"not found: .*layers.*query"):
        check_architecture(tmp_path)


def test_an_architecture_that_transformers_does_not_know(tiny: Tiny) -> None:
    folder = changed(tiny("bert"), model_type="newest-bert")
    with pytest.raises(ModelError, match="model_type 'newest-bert' is not one of Transformers") as found:
        check_architecture(folder)
    assert "families.py" in found.value.hint and "save_pretrained" not in found.value.hint
    with pytest.raises(ModelError, match=r"code that comes with a model \(auto_map\) is never run"):
        check_architecture(changed(folder, auto_map={"AutoConfig": "configuration_newest.NewestConfig"}))


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"hidden_size": "wide"}, "hidden_size is 'wide'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 5}, "not a multiple of 5 heads"),
        ({"hidden_act": "gelulu"}, "gelulu"),
        ({"vocab_size": None}, "vocab_size"),
    ],
)
def test_a_damaged_config_is_named(tiny: Tiny, keys: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what):
        load_classifier(changed(tiny("bert"), **keys))
