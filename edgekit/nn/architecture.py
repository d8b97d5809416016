"""A folder's architecture before its weights are read: is its config.json sound, and is it one of `FAMILIES`?

Of one that is not, the error says which of its parts are where a known family has them, and how to add it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Task
from edgekit.errors import ModelError, Problem
from edgekit.model_config import FILE, ModelConfig, number, read_config
from edgekit.nn.families import FAMILIES, Family, family_of
from edgekit.pictures import picture_tokens, settings_of
from edgekit.tasks.encoders import ENCODER_TASKS

if TYPE_CHECKING:
    import torch

__all__ = ["check_architecture", "check_task", "misfits", "open_config", "picture_length", "reads_pictures", "sound"]

OF_LAYER = (
    "attention",
    "query",
    "key",
    "value",
    "attention_output",
    "attention_norm",
    "ffn_up",
    "ffn_down",
    "ffn_norm",
)
OF_BACKBONE = ("layers", "patches", "word_embeddings", "position_embeddings", "type_embeddings", "embedding_norm")


def check_architecture(folder: Path) -> None:
    """Raises ModelError for a config.json whose sizes cannot be, or whose architecture is not known."""
    config = read_config(folder)
    family = FAMILIES.get(str(config["model_type"]))
    if family is None:
        raise _unknown(folder)
    keys = (family.config_hidden, family.config_heads, family.config_layers, family.config_ffn)
    sizes = {key: number(config, key) for key in keys if key in config}
    for key, size in sizes.items():
        if size < 1:
            raise ModelError(f"{folder / FILE}: {key} is {size}")
    hidden, heads = sizes.get(family.config_hidden, 0), sizes.get(family.config_heads, 1)
    if hidden % heads:
        raise ModelError(f"{folder / FILE}: {family.config_hidden} {hidden} is not a multiple of {heads} heads")


def reads_pictures(folder: Path) -> bool:
    """Whether the folder's model is one of `FAMILIES` that reads pictures. Raises ModelError as `read_config` does."""
    family = FAMILIES.get(str(read_config(folder)["model_type"]))
    return family is not None and family.pictures


def picture_length(folder: Path) -> int:
    """How many tokens a picture is to the folder's model. Raises ModelError for a model of texts, or sizes that cannot
    be."""
    config = read_config(folder)
    family = family_of(str(config["model_type"]))
    if not family.pictures:
        known = ", ".join(name for name, family in FAMILIES.items() if family.pictures)
        raise ModelError(f"{folder}: {config['model_type']} reads texts, not pictures", hint=f"of pictures: {known}")
    return picture_tokens(config, family.learned_tokens)


def misfits(folder: Path, max_length: int, *, segments: bool, pictures: bool = False) -> list[Problem]:
    """What a task's texts, or pictures, have that the model does not take. Raises ModelError as `check_architecture`
    does, and for settings of pictures that are not known."""
    check_architecture(folder)
    config = read_config(folder)
    family = family_of(str(config["model_type"]))
    if family.pictures != pictures:
        read, given = ("pictures", "texts") if family.pictures else ("texts", "pictures")
        return [Problem("task.kind", f"the task is of {given}, and {config['model_type']} reads {read}")]
    if pictures:
        settings_of(folder)
        return [Problem("task.segments", "pictures have no second text", "use segments=false")] if segments else []
    found = []
    positions = number(config, "max_position_embeddings") - family.position_offset
    if max_length > positions:
        what = f"texts of {max_length} tokens, but the model has {positions} positions"
        found.append(Problem("task.max_length", what, f"use at most {positions}"))
    kinds = _token_types(config) if family.type_embeddings else 0
    if segments and kinds < 2:
        what = f"texts told apart by token types, but {config['model_type']} here has none for a second text"
        found.append(Problem("task.segments", what, "use segments=false: the tokens between the texts part them"))
    return found


def _token_types(config: ModelConfig) -> int:
    return number(config, "type_vocab_size") if "type_vocab_size" in config else 2  # Transformers' default


def check_task(folder: Path, task: Task) -> None:
    """Raises ModelError for texts that the model does not take."""
    pictures = ENCODER_TASKS[task.kind].pictures
    for problem in misfits(folder, task.max_length, segments=task.segments, pictures=pictures):
        raise ModelError(f"{folder}: {problem.what}", hint=problem.hint)


def open_config(folder: Path) -> Any:
    """Transformers' config object. Raises ModelError for what it refuses, an architecture it does not know included."""
    from transformers import AutoConfig

    with sound(folder):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def sound(folder: Path) -> Iterator[None]:
    """Raises ModelError where Transformers cannot make a config or a model of the folder's config.json."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        reason = f"{error} is not known" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
        raise ModelError(f"{folder / FILE}: {reason}", hint="save the model again with save_pretrained") from None


def _unknown(folder: Path) -> ModelError:
    """The error for an architecture that is not in `FAMILIES`, after a look at what it is built of."""
    config = read_config(folder)
    kind = str(config["model_type"])
    if any(name in str(config.get("architectures")) for name in ("ForCausalLM", "LMHeadModel")):
        hint = "for language models: edgekit run llm-quantize --model FOLDER --help, and the other llm- recipes"
        return ModelError(f"architecture {kind!r} is a language model's, not an encoder's", hint=hint)
    if not _in_transformers(kind):
        return _foreign(folder, kind)
    model = _skeleton(folder)
    prefix = str(getattr(model, "base_model_prefix", ""))
    missing = {name: _missing(model, replace(family, backbone=prefix)) for name, family in FAMILIES.items()}
    closest = min(missing, key=lambda name: len(missing[name]))
    lost = missing[closest]
    hint = f"add a Family with its paths to edgekit/nn/families.py, and {kind!r} to FAMILIES there; {_supported()}"
    what = f"architecture {kind!r} is not supported. "
    if not lost:
        what += f"All parts that {closest} has were found by name, but the family is not known: "
        others = _others(model, replace(FAMILIES[closest], backbone=prefix))
        shown = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        if others:
            return ModelError(f"{what}its layers hold {len(others)} more, which would be ignored ({shown})", hint=hint)
        return ModelError(f"{what}what it computes otherwise would be ignored", hint=hint)
    wanted = [part for part in (*OF_BACKBONE, *OF_LAYER) if getattr(FAMILIES[closest], part)]
    found = [part for part in wanted if part not in lost]
    what += f"Where {closest} has them, it has {', '.join(found) or 'no parts'}; not found: {', '.join(lost)}"
    return ModelError(what, hint=hint)


def _supported() -> str:
    return f"supported: {', '.join(sorted(FAMILIES))}"


def _in_transformers(kind: str) -> bool:
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING


def _foreign(folder: Path, kind: str) -> ModelError:
    """The error for an architecture that is in the folder's own code, or in a newer Transformers."""
    from transformers import __version__

    what = f"{folder / FILE}: model_type {kind!r} is not one of Transformers {__version__}"
    if "auto_map" in read_config(folder):
        what += ", and code that comes with a model (auto_map) is never run"
    return ModelError(
        what,
        hint="use a checkpoint converted to an architecture that Transformers has, or a release that has this one; "
        "then add a Family with its paths to edgekit/nn/families.py, and its model_type to FAMILIES there; "
        f"{_supported()}",
    )


def _skeleton(folder: Path) -> torch.nn.Module:
    """The classifier, of texts or else of pictures, without memory for its weights. Raises ModelError where
    Transformers has none."""
    import torch
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    config = open_config(folder)
    of_pictures = type(config) in AutoModelForImageClassification._model_mapping
    classifier = AutoModelForImageClassification if of_pictures else AutoModelForSequenceClassification
    with sound(folder), torch.device("meta"):
        model: torch.nn.Module = classifier.from_config(config)
    return model


def _first_layer(family: Family) -> str:
    return f"{family.backbone}.{family.layers}.0" + (f".{family.group_layers}.0" if family.group_layers else "")


def _others(model: torch.nn.Module, family: Family) -> list[str]:
    """Modules with parameters of their own in the first layer of `model` that are no part of `family`."""
    layer = _first_layer(family)
    known = {f"{layer}.{getattr(family, name)}" for name in OF_LAYER if getattr(family, name)}
    holders = [
        path for path, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None
    ]
    return [path.removeprefix(f"{layer}.") for path in holders if path.startswith(f"{layer}.") and path not in known]


def _missing(model: torch.nn.Module, family: Family) -> list[str]:
    """Parts of `family` that `model` does not have, by their names in `Family`."""
    paths = {path for path, _ in model.named_modules()}
    layer = _first_layer(family)
    places = {name: f"{family.backbone}.{getattr(family, name)}" for name in OF_BACKBONE if getattr(family, name)}
    places |= {name: f"{layer}.{getattr(family, name)}" for name in OF_LAYER if getattr(family, name)}
    return [name for name, path in places.items() if path not in paths]
