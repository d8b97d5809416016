"""Checkpoints of a training run: one safetensors file, its state as JSON in the header, replaced in one rename."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from edgekit.errors import StageError

if TYPE_CHECKING:
    import torch

__all__ = ["read_checkpoint", "write_checkpoint"]

S = TypeVar("S", bound=BaseModel)


def write_checkpoint(path: Path, tensors: dict[str, torch.Tensor], state: BaseModel) -> None:
    """Write `tensors` and `state` to `path`; a kill at any moment leaves the old file or the new one, never a mixture.

    Raises StageError where the disk is full or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({n: t.detach().contiguous() for n, t in tensors.items()}, partial, {"state": state.model_dump_json()})
        with partial.open("rb+") as file:  # a rename may reach the disk before the bytes do
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink()
        hint = "free some space; the same command goes on from the last checkpoint"
        raise StageError(f"cannot write {path}: {error}", hint=hint) from None


def read_checkpoint(path: Path, kind: type[S]) -> tuple[dict[str, torch.Tensor], S] | None:
    """The tensors (on the CPU) and the state; None where there is no file, or one that cannot be used."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = kind.model_validate_json((file.metadata() or {}).get("state", ""))
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, ValidationError):
        return None
