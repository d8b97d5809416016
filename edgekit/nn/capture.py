"""Reading what modules put out in a forward pass, whatever the architecture calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["capture"]


@contextmanager
def capture(modules: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """A dictionary that each forward pass fills with the modules' outputs (of a tuple, the first), by name."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: torch.nn.Module, __: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return modules[name].register_forward_hook(hook)

    handles = [keep(name) for name in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
