"""Reading what modules take in and put out in a forward pass, whatever the architecture calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

__all__ = ["Site", "capture", "capture_inputs", "held"]


class Site(NamedTuple):
    """What to watch: a module that is called `turns` times in a forward pass, in its `turn`-th call."""

    module: torch.nn.Module
    turn: int = 0
    turns: int = 1


@contextmanager
def held(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Hooks that are registered, until the block ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capture(sites: Mapping[str, torch.nn.Module | Site]) -> Iterator[dict[str, torch.Tensor]]:
    """A dictionary that each forward pass fills with the outputs (of a tuple, the first) of modules, or of one of their
    calls, by name."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, what: torch.nn.Module | Site) -> RemovableHandle:
        site, calls = what if isinstance(what, Site) else Site(what), count()

        def hook(_: torch.nn.Module, __: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            if next(calls) % site.turns == site.turn:
                seen[name] = output[0] if isinstance(output, tuple) else output

        return site.module.register_forward_hook(hook)

    with held([keep(name, site) for name, site in sites.items()]):
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
