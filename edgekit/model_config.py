"""Reading what a model folder says of itself, in config.json or a deployable's labels.json: the one place that does."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import JsonValue

from edgekit.errors import ModelError

__all__ = ["SPAN", "ModelConfig", "label_names", "number", "pad_id", "padding_of", "positions", "read_config"]

FILE = "config.json"
SPAN = ("start", "end")  # what the two outputs of a question answerer are of, whatever its config calls them
POSITIONS = ("max_position_embeddings", "n_positions")  # GPT-2 has the second
ModelConfig = dict[str, JsonValue]


def read_config(folder: Path) -> ModelConfig:
    """The parsed config.json. Raises ModelError where it is missing or damaged, or names no model_type."""
    path = folder / FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {FILE}", hint="give a Transformers model folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: damaged ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: damaged (not an object)")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{path}: no model_type", hint="save the model with save_pretrained")
    return config


def number(config: ModelConfig, key: str) -> int:
    """A whole number of the config. Raises ModelError where it is missing or something else."""
    value = config.get(key)
    if not isinstance(value, int):
        raise ModelError(f"{FILE}: {key} is {value!r}, not a number")
    return value


def positions(config: ModelConfig) -> int | None:
    """How many positions the model has; None where the config does not say. Raises ModelError as `number` does."""
    key = next((key for key in POSITIONS if key in config), None)
    return number(config, key) if key else None


def pad_id(config: ModelConfig) -> int:
    """The padding token's id; 0 where none is named (it is masked). Raises ModelError as `number` does."""
    return number(config, "pad_token_id") if config.get("pad_token_id") is not None else 0


def padding_of(folder: Path) -> int:
    """The padding id, as an `hf` folder's config.json or a deployable's labels.json has it; else 0 (it is masked)."""
    if (folder / FILE).is_file():
        return pad_id(read_config(folder))
    labels = folder / "labels.json"
    return int(json.loads(labels.read_text(encoding="utf-8")).get("pad_id") or 0) if labels.is_file() else 0


def label_names(config: ModelConfig) -> tuple[str, ...]:
    """Label names in the head's order, of a question answerer SPAN; () where there are none. Raises ModelError where
    they are not numbered."""
    if "ForQuestionAnswering" in str(config.get("architectures")):
        return SPAN
    names = config.get("id2label") or {}
    if not isinstance(names, dict) or not all(key.isdigit() for key in names):
        raise ModelError(f"{FILE}: id2label is not a list of numbered names")
    return tuple(str(names[key]) for key in sorted(names, key=int))
