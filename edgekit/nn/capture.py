"""Reading what modules take in and put out in a forward pass, whatever the architecture calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

__all__ = ["capture", "capture_inputs", "held"]


@contextmanager
def held(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Hooks that are registered, until the block ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capture(modules: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """A dictionary that each forward pass fills with the modules' outputs (of a tuple, the first), by name."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> RemovableHandle:
        def hook(_: torch.nn.Module, __: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return modules[name].register_forward_hook(hook)

    with held([keep(name) for name in modules]):
        yield seen


@contextmanager
def capture_inputs(modules: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """A dictionary that each forward pass fills with the modules' first inputs, by name."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> RemovableHandle:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[name] = inputs[0]

        return modules[name].register_forward_pre_hook(hook)

    with held([keep(name) for name in modules]):
        yield seen
