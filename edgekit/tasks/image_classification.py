"""Image classification: pictures in, one row of logits a picture out. Labels and figures are those of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from edgekit.data.pictures import encoded_picture
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.pictures import Settings, pixels, settings_of
from edgekit.tasks.base import EncoderTask
from edgekit.tasks.text_classification import Texts, label_names

if TYPE_CHECKING:
    import torch

__all__ = ["IMAGE_CLASSIFICATION", "Images", "Pictures"]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a table as rows to feed, see `Encoded`: decoded when their batch is asked for, so that memory
    holds no more than that. `length`: tokens of each."""

    table: Table
    settings: Settings
    length: int

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def lengths(self) -> list[int]:
        return [self.length] * len(self)

    def batch(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """`pixel_values` (batch, channels, height, width) float32. Raises DataError for a picture that breaks off."""
        import torch

        made = [self._pixels(row) for row in rows]
        return {"pixel_values": torch.stack(made)}

    def mask(self, rows: Sequence[int]) -> torch.Tensor:
        import torch

        return torch.ones((len(rows), self.length), dtype=torch.bool)

    def pick(self, rows: Sequence[int | None]) -> Pictures:
        """All pictures are as long, so that None stands for none of them."""
        return replace(self, table=self.table.take(row for row in rows if row is not None))

    def _pixels(self, row: int) -> torch.Tensor:
        import torch

        try:
            return torch.from_numpy(pixels().pixels(encoded_picture(self.table, row), self.settings))
        except ValueError as error:
            where = self.table.pictures[self.table.texts[row]]
            which = f"row {row + 1}" if isinstance(where, bytes) else str(where)
            raise DataError(f"{self.table.name}: {which}: {error}") from None


@dataclass(frozen=True)
class Images(Texts):
    """See `Examples`; a unit is a picture. `folder`: where the settings of its pixels are."""

    @cached_property
    def encoded(self) -> Pictures:
        return Pictures(self.table, settings_of(self.folder), self.task.max_length)


IMAGE_CLASSIFICATION = EncoderTask("image-classification", ("accuracy", "macro_f1"), label_names, Images, pictures=True)
