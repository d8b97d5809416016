"""A picture as the pixels that a model reads. Needs Pillow and numpy; shipped as it is beside models of pictures.

Settings are what `edgekit/pictures.py` reads off a checkpoint: {"mode": "RGB"|"L", "resize": [height, width] or the
shorter edge, "resample": Pillow's number of the filter, "crop": [height, width]|null, "factor": float,
"mean": [...], "std": [...] of each channel}.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

WHOLE_BYTES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa", "HSV", "LAB")
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)  # what Pillow raises for broken files


class PictureError(ValueError):
    """A file that is no picture, or a broken one."""


def sound(data: bytes) -> None:
    """Raises PictureError unless Pillow knows the file's format and finds it whole, as far as it tells without
    decoding: a PNG by its checksums, a JPEG by its beginning."""
    with _told():
        _opened(data).verify()


def pixels(data: bytes, settings: Mapping[str, Any]) -> np.ndarray:
    """An encoded picture (PNG, JPEG, ...) as float32 (channels, height, width), upright as its EXIF data say.

    Raises PictureError for a file that is no picture, breaks off, or has more than a byte for a value.
    """
    from PIL import ImageOps

    with _told():
        image = ImageOps.exif_transpose(_opened(data)).convert(settings["mode"])
    image = image.resize(_size(image.size, settings["resize"]), settings["resample"])
    if settings["crop"]:
        image = image.crop(_box(image.size, settings["crop"]))
    values = np.asarray(image)
    values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    scaled = (values.astype(np.float64) * settings["factor"]).astype(np.float32)
    mean, std = (np.asarray(settings[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))
    return np.ascontiguousarray((scaled - mean) / std)


def batch(pictures: Sequence[bytes], settings: Mapping[str, Any]) -> np.ndarray:
    """Pictures as (batch, channels, height, width) float32. Raises PictureError as `pixels` does."""
    return np.stack([pixels(data, settings) for data in pictures])


def _opened(data: bytes) -> Any:
    """The picture, not decoded yet."""
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    if image.mode not in WHOLE_BYTES:
        raise PictureError(f"a picture of mode {image.mode}, whose values are no bytes")
    return image


@contextmanager
def _told() -> Iterator[None]:
    """Pillow's many errors as one."""
    from PIL import Image

    try:
        yield
    except PictureError:
        raise
    except (*BROKEN, Image.DecompressionBombError) as error:
        name = type(error).__name__
        why = "unknown format" if name == "UnidentifiedImageError" else f"{name}: {error}"
        raise PictureError(f"not a picture that Pillow can read ({why})") from None


def _size(size: tuple[int, int], wanted: int | Sequence[int]) -> tuple[int, int]:
    """Width and height to resize to; of one number, what the shorter edge becomes."""
    if not isinstance(wanted, int):
        return wanted[1], wanted[0]
    short, long = sorted(size)
    rest = int(wanted * long / short)
    return (wanted, rest) if size[0] <= size[1] else (rest, wanted)


def _box(size: tuple[int, int], wanted: Sequence[int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the middle, (height, width) `wanted`."""
    left, top = (size[0] - wanted[1]) // 2, (size[1] - wanted[0]) // 2
    return left, top, left + wanted[1], top + wanted[0]
