"""A small random ViT or DeiT, and pictures to train it on: digits where they are on this machine, else made ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["DIGITS", "SIZES", "random_vit", "write_digits", "write_pictures", "write_vit"]

SIZES: dict[str, int] = {"heads": 3, "head_size": 8, "ffn": 40, "layers": 3}
DIGITS = Path(__file__).resolve().parents[2] / "shared" / "data" / "sets" / "mnist"
EDGE = 12  # of pictures
ARCHITECTURES = {"vit": "ViTForImageClassification", "deit": "DeiTForImageClassification"}


def random_vit(name: str = "vit", *, labels: int = 3, **sizes: Any) -> Any:
    """A classifier of pictures in eval mode with random weights. `sizes`: those of `SIZES`; the rest are keys of the
    config."""
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    shape = {**SIZES, **sizes}
    heads, size = shape.pop("heads"), shape.pop("head_size")
    config = AutoConfig.for_model(
        name,
        **{
            "hidden_size": heads * size,
            "num_attention_heads": heads,
            "intermediate_size": shape.pop("ffn"),
            "num_hidden_layers": shape.pop("layers"),
            "image_size": EDGE,
            "patch_size": 4,
            "num_labels": labels,
            "architectures": [ARCHITECTURES[name]],
            **shape,
        },
    )
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(config).eval()
    with torch.no_grad():  # the stock initialization is so small that every logit is the bias
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def write_vit(folder: Path, name: str = "vit", *, processor: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """A folder with a random classifier of pictures and its processor's settings."""
    model = random_vit(name, **sizes)
    model.save_pretrained(folder)
    channels, edge = model.config.num_channels, model.config.image_size
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": edge, "width": edge},
        "resample": 2,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * channels,
        "image_std": [0.5] * channels,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | (processor or {})), encoding="utf-8")
    return folder


def write_pictures(folder: Path, labels: int = 3, count: int = 8, *, edge: int = 14, seed: int = 0) -> Path:
    """`count` PNG files in a sub-folder for each label: a bright stripe whose place is the label's, and noise."""
    from PIL import Image

    dice = np.random.default_rng(seed)
    for label in range(labels):
        inner = folder / f"kind{label}"
        inner.mkdir(parents=True)
        for number in range(count):
            picture = dice.integers(0, 90, (edge, edge, 3))
            picture[:, label * edge // labels : (label + 1) * edge // labels] += 120
            Image.fromarray(picture.astype(np.uint8)).save(inner / f"{number}.png")
    return folder


def write_digits(folder: Path, rows: range) -> Path:
    """These rows of MNIST's test set as PNG files, a sub-folder for each digit; made pictures where it is not here."""
    from PIL import Image

    if not DIGITS.is_dir():
        return write_pictures(folder, labels=10, count=max(1, len(rows) // 10), seed=rows.start)
    with gzip.open(DIGITS / "t10k-images-idx3-ubyte.gz") as file:
        pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(DIGITS / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    for row in rows:
        inner = folder / str(labels[row])
        inner.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[row]).save(inner / f"{row:05}.png")
    return folder
