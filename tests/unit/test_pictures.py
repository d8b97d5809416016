"""Pixels as the checkpoint's own processor makes them; what it asks for and is not known is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import ModelError
from edgekit.pictures import picture_tokens, pixels, settings_of
from tests.tiny_pictures import write_vit


def picture(mode: str = "RGB", size: tuple[int, int] = (37, 21), kind: str = "PNG", **options: Any) -> bytes:
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["ViT", "DeiT"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.3, 0.4, 0.5]},
        {"do_normalize": False},
        {"do_rescale": False},
        {"size": {"height": 16, "width": 15}, "do_center_crop": True, "crop_size": {"height": 12, "width": 12}},
        {"size": {"shortest_edge": 14}, "do_center_crop": True, "crop_size": {"height": 12, "width": 12}},
    ],
    ids=["plain", "bicubic", "not normalized", "not rescaled", "cropped", "by the shorter edge"],
)
def test_pixels_are_transformers_own(kind: str, mode: str, changes: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    settings = {"image_processor_type": f"{kind}ImageProcessor", "do_center_crop": False, **changes}
    folder = write_vit(tmp_path, processor=settings)
    data = picture(mode)
    theirs = {"ViT": ViTImageProcessorPil, "DeiT": DeiTImageProcessorPil}[kind].from_pretrained(folder)
    wanted = theirs(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="np")["pixel_values"]
    found = pixels().batch([data, data], settings_of(folder))
    assert found.shape == (2, 3, 12, 12) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.concatenate([wanted, wanted]), rtol=0, atol=1e-6)


def test_what_a_file_leaves_out_is_the_processors_default(tmp_path: Path) -> None:
    folder = write_vit(tmp_path)
    where = folder / "preprocessor_config.json"
    where.write_text(json.dumps({"feature_extractor_type": "ViTFeatureExtractor", "size": 12}))
    found = settings_of(folder)
    assert found["mean"] == found["std"] == [0.5] * 3
    assert (found["factor"], found["resample"], found["crop"]) == (1 / 255, 2, None)


def test_gray_models_read_gray_pictures_and_phones_hold_them_upright(tmp_path: Path) -> None:
    from PIL import Image

    folder = write_vit(tmp_path, num_channels=1)
    assert pixels().pixels(picture(), settings_of(folder)).shape == (1, 12, 12)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: to be turned by a quarter
    plain, told = picture(kind="TIFF"), picture(kind="TIFF", exif=turned)
    upright = pixels().pixels(told, settings_of(folder))
    square = Image.open(io.BytesIO(plain)).transpose(Image.Transpose.ROTATE_270)
    file = io.BytesIO()
    square.save(file, "PNG")
    np.testing.assert_allclose(upright, pixels().pixels(file.getvalue(), settings_of(folder)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "'CLIPImageProcessor' is not supported"),
        ({"image_processor_type": None}, "'unknown' is not supported"),
        ({"do_pad": True}, "do_pad is not supported"),
        ({"do_resize": False}, "do_resize is false"),
        ({"size": {"height": 24, "width": 24}}, r"become \[24, 24\], the model's are \[12, 12\]"),
        ({"size": {"longest_edge": 12}}, "is not supported"),
        ({"size": 10, "do_center_crop": True, "crop_size": 12}, "less than the"),
        ({"image_mean": [0.5]}, "image_mean is"),
    ],
)
def test_unknown_settings_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = write_vit(tmp_path, processor=changes)
    with pytest.raises(ModelError, match=words):
        settings_of(folder)


def test_damaged_or_missing_settings_are_told(tmp_path: Path) -> None:
    folder = write_vit(tmp_path)
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        settings_of(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json"):
        settings_of(folder)


def test_tokens_are_patches_and_those_that_are_learned() -> None:
    assert picture_tokens({"image_size": 224, "patch_size": 16}, 1) == 197
    assert picture_tokens({"image_size": [28, 14], "patch_size": [7, 14]}, 2) == 6
    with pytest.raises(ModelError, match="do not fill"):
        picture_tokens({"image_size": 28, "patch_size": 16}, 1)
    with pytest.raises(ModelError, match="image_size"):
        picture_tokens({"patch_size": 16}, 1)


@pytest.mark.parametrize("data", [b"", b"text", picture()[:60], picture(kind="JPEG")[:300]])
def test_broken_pictures_are_one_kind_of_error(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a picture that Pillow can read"):
        pixels().pixels(data, settings_of(write_vit(tmp_path)))


def test_pictures_of_wider_values_are_refused() -> None:
    with pytest.raises(ValueError, match="mode I"):
        pixels().sound(picture("I", kind="TIFF"))
