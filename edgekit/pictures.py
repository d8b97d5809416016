"""What a model of pictures reads: how many tokens a picture is, and how its file becomes pixels.

The latter is what the checkpoint's own preprocessor_config.json says, done by one script for training, runtimes and
the shipped example: `runtimes/workers/pixels.py`. A deployable holds the settings in pixels.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from edgekit.errors import MissingExtraError, ModelError
from edgekit.jobs import WORKERS
from edgekit.model_config import ModelConfig, number, read_config

__all__ = ["PIXELS", "PREPROCESSOR", "SCRIPT", "Settings", "picture_shape", "picture_tokens", "pixels", "settings_of"]

PREPROCESSOR = "preprocessor_config.json"
PIXELS = "pixels.json"
SCRIPT = WORKERS / "pixels.py"
Settings = Mapping[str, Any]
HALF, IMAGENET = ([0.5] * 3, [0.5] * 3), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
# by image_processor_type: what a file that leaves it out means. Source: transformers, `ViTImageProcessorPil`, ...
DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {"size": 224, "resample": 2, "do_center_crop": False, "image_mean": HALF[0], "image_std": HALF[1]},
    "DeiT": {
        "size": 256,
        "resample": 3,
        "do_center_crop": True,
        "crop_size": 224,
        "image_mean": IMAGENET[0],
        "image_std": IMAGENET[1],
    },
}
KINDS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
UNKNOWN = ("do_pad", "do_flip_channel_order", "do_reduce_labels", "do_thumbnail", "do_align_long_axis")


@cache
def pixels() -> Any:
    """The module `runtimes/workers/pixels.py`. Raises MissingExtraError without Pillow."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise MissingExtraError("Pillow", "images") from None
    spec = spec_from_file_location("edgekit_pixels", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture_shape(config: ModelConfig) -> tuple[int, int, int]:
    """Channels, height and width of a picture. Raises ModelError where the config does not say."""
    height, width = _two(config, "image_size")
    return number(config, "num_channels"), height, width


def picture_tokens(config: ModelConfig, learned: int) -> int:
    """How many tokens a picture is: its patches, and the `learned` ones beside them. Raises ModelError for sizes that
    are missing, or patches that do not fill a picture."""
    (height, width), (tall, wide) = _two(config, "image_size"), _two(config, "patch_size")
    if height % tall or width % wide:
        raise ModelError(f"config.json: patches of {tall} x {wide} do not fill a picture of {height} x {width}")
    return (height // tall) * (width // wide) + learned


def settings_of(folder: Path) -> dict[str, Any]:
    """How pictures become pixels for the model in `folder`: an `hf` one, or a deployable.

    Raises ModelError for a file that is missing or damaged, or asks for what edgekit does not do.
    """
    if (folder / PIXELS).is_file():
        return _read(folder / PIXELS)
    found = _read(folder / PREPROCESSOR)
    where, given = folder / PREPROCESSOR, _with_defaults(folder / PREPROCESSOR, found)
    channels, *size = picture_shape(read_config(folder))
    if channels not in (1, 3):
        raise ModelError(f"{folder}: pictures of {channels} channels", hint="1 (gray) and 3 (RGB) are known")
    for name in UNKNOWN:
        if given.get(name):
            raise ModelError(
                f"{where}: {name} is not supported", hint=f"set it to false, if the model allows it: {name}"
            )
    if not given.get("do_resize", True):
        raise ModelError(f"{where}: do_resize is false", hint="pictures of any size come in: set it to true")
    resize = _size(where, given["size"])
    crop = _size(where, given["crop_size"]) if given.get("do_center_crop") else None
    _check_sizes(where, resize, crop, size)
    plain = ([0.0] * channels, [1.0] * channels)
    mean, std = plain
    if given.get("do_normalize", True):
        mean, std = (_by_channel(where, name, given[name], channels) for name in ("image_mean", "image_std"))
    return {
        "mode": "RGB" if channels == 3 else "L",
        "resize": resize,
        "resample": int(given["resample"]),
        "crop": crop,
        "factor": float(given.get("rescale_factor", 1 / 255)) if given.get("do_rescale", True) else 1.0,
        "mean": mean,
        "std": std,
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}", hint="it says how pictures become pixels") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: damaged ({error})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: damaged (not an object)")
    return content


def _with_defaults(where: Path, found: dict[str, Any]) -> dict[str, Any]:
    """What the file says, and what it means by leaving something out."""
    kind = str(found.get("image_processor_type") or found.get("feature_extractor_type") or "")
    name = next((name for name in DEFAULTS for end in KINDS if kind == name + end), None)
    if name is None:
        known = ", ".join(f"{name}ImageProcessor" for name in DEFAULTS)
        raise ModelError(f"{where}: a processor of type {kind or 'unknown'!r} is not supported", hint=f"known: {known}")
    return {**DEFAULTS[name], **{key: value for key, value in found.items() if value is not None}}


def _size(where: Path, value: Any) -> int | list[int]:
    """[height, width], or the shorter edge alone."""
    if isinstance(value, int):
        return [value, value]
    if isinstance(value, dict) and isinstance(value.get("height"), int) and isinstance(value.get("width"), int):
        return [value["height"], value["width"]]
    if isinstance(value, dict) and isinstance(value.get("shortest_edge"), int) and not value.get("longest_edge"):
        return int(value["shortest_edge"])
    raise ModelError(f"{where}: the size {value!r} is not supported", hint="known: height and width, or shortest_edge")


def _check_sizes(where: Path, resize: int | list[int], crop: int | list[int] | None, size: list[int]) -> None:
    """Raises ModelError unless what comes out is as large as the model's pictures."""
    last = resize if crop is None else crop
    if last != size:
        raise ModelError(f"{where}: pictures become {last}, the model's are {size} (height, width)")
    edges = [resize, resize] if isinstance(resize, int) else resize
    if any(edge < wanted for edge, wanted in zip(edges, size, strict=True)):
        raise ModelError(f"{where}: pictures are resized to {resize}, less than the {size} that are cut out of them")


def _by_channel(where: Path, name: str, value: Any, channels: int) -> list[float]:
    values = value if isinstance(value, list) else [value] * channels
    if len(values) != channels or not all(isinstance(v, int | float) for v in values):
        raise ModelError(f"{where}: {name} is {value!r}, the model's pictures have {channels} channels")
    return [float(v) for v in values]


def _two(config: ModelConfig, key: str) -> tuple[int, int]:
    """Height and width of a size that may be one number."""
    value = config.get(key)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(edge, int) and edge > 0 for edge in value):
        return int(str(value[0])), int(str(value[1]))
    edge = number(config, key)
    if edge < 1:
        raise ModelError(f"config.json: {key} is {edge}")
    return edge, edge
