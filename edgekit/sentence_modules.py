"""The modules.json of a sentence embedder, as sentence-transformers writes it: which steps follow the encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, cast

from pydantic import JsonValue

from edgekit.errors import ModelError

__all__ = ["MODULES", "Pooling", "read_pooling", "write_modules"]

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
POOLING_FOLDER = "1_Pooling"
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
Pooling = Literal["mean", "cls"]  # over a text's tokens, or the first one's state


def read_pooling(folder: Path) -> Pooling:
    """How the folder's embedder pools its tokens; "mean" for an encoder without a modules.json.

    Raises ModelError for steps that are not computed here: another pooling, several at once, a dense layer, a prompt
    before every text; or damaged files. Embeddings are brought to length 1 whether or not the folder asks for it: their
    cosines are the same.
    """
    if not (folder / MODULES).is_file():
        return "mean"
    modules = _read(folder / MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{folder / MODULES}: damaged (not a list of modules)")
    kinds = [str(module.get("type")).rsplit(".", 1)[-1] for module in modules if isinstance(module, dict)]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        hint = "an encoder, a pooling and a normalization are computed here, and nothing else"
        raise ModelError(f"{folder / MODULES}: the modules are {', '.join(kinds) or 'none'}", hint=hint)
    _refuse_prompt(folder)
    place = folder / str(cast("dict[str, JsonValue]", modules[1]).get("path")) / "config.json"
    settings = _read(place)
    if not isinstance(settings, dict):
        raise ModelError(f"{place}: damaged (not an object)")
    named = settings.get("pooling_mode")
    asked = [str(named)] if named else [key for key, on in settings.items() if key.startswith("pooling_mode_") and on]
    if len(asked) != 1 or (mode := MODES.get(asked[0], asked[0])) not in MODES.values():
        hint = "pooling is the mean of the tokens (mean) or the first token (cls) here"
        raise ModelError(f"{place}: the pooling is {' and '.join(asked) or 'none'}", hint=hint)
    return cast("Pooling", mode)


def write_modules(folder: Path, pooling: Pooling, width: int) -> None:
    """Write what makes a folder with an encoder an embedder, to this package and to sentence-transformers."""
    paths = {"Transformer": "", "Pooling": POOLING_FOLDER, "Normalize": "2_Normalize"}
    modules: JsonValue = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(paths.items())
    ]
    (folder / POOLING_FOLDER).mkdir(exist_ok=True)
    modes: dict[str, JsonValue] = {key: mode == pooling for key, mode in MODES.items()}
    _write(folder / MODULES, modules)
    _write(folder / POOLING_FOLDER / "config.json", {"word_embedding_dimension": width, **modes})


def _refuse_prompt(folder: Path) -> None:
    settings = _read(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    prompt = settings.get("default_prompt_name") if isinstance(settings, dict) else None
    if prompt:
        hint = f"write the prompt into your texts, and set default_prompt_name to null in {SETTINGS}"
        raise ModelError(f"{folder}: the prompt {prompt!r} is put before every text, which is not done here", hint=hint)


def _read(path: Path) -> JsonValue:
    try:
        content: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"no such file: {path}", hint=f"{MODULES} names it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: damaged ({error})") from None
    return content


def _write(path: Path, content: JsonValue) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
