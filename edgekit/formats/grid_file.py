"""`grids.safetensors`: the integers and scales behind a quantized checkpoint's weights, by module name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from edgekit.errors import ModelError
from edgekit.nn.grid import Grid, GridKind

if TYPE_CHECKING:
    from safetensors import safe_open

__all__ = ["GRIDS", "GridFile", "write_grids"]

GRIDS = "grids.safetensors"
KINDS = TypeAdapter(dict[str, GridKind])


def write_grids(folder: Path, grids: Mapping[str, Grid]) -> None:
    """Write the grids (by module name, as in `model.layers.0.mlp.up_proj`) beside a checkpoint. 4-bit integers lie two
    to a byte, the first in its lower half."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[np.generic]] = {}
    for name, grid in grids.items():
        codes = grid.codes if grid.kind.bits == 8 else grid.codes[:, 0::2] | (grid.codes[:, 1::2] << 4)
        tensors |= {f"{name}.codes": codes, f"{name}.scales": grid.scales}
        if grid.zeros is not None:
            tensors[f"{name}.zeros"] = grid.zeros
    kinds = KINDS.dump_json({name: grid.kind for name, grid in grids.items()}).decode()
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}  # it writes memory as it lies
    save_file(whole, folder / GRIDS, {"grids": kinds})


class GridFile(Mapping[str, Grid]):
    """The grids of a checkpoint folder by module name, read one at a time; empty where the folder has none."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError for a damaged file."""
        self.path = folder / GRIDS
        self.kinds: dict[str, GridKind] = {}
        if not self.path.is_file():
            return
        try:
            with _opened(self.path) as file:
                self.kinds = KINDS.validate_json((file.metadata() or {}).get("grids", ""))
        except ValidationError as error:
            raise ModelError(f"{self.path}: damaged ({error.errors()[0]['msg']})") from None

    def __getitem__(self, name: str) -> Grid:
        kind = self.kinds[name]
        with _opened(self.path) as file:
            codes, scales = file.get_tensor(f"{name}.codes"), file.get_tensor(f"{name}.scales")
            zeros = None if kind.symmetric else file.get_tensor(f"{name}.zeros")
        if kind.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)
        return Grid(kind, codes, scales, zeros)

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)


def _opened(path: Path) -> safe_open:
    """Raises ModelError for a file that is no safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ModelError(f"{path}: damaged ({error})") from None
