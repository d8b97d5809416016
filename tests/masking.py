"""What a masked original is: the model as it was, with what surgery takes away counting as 0."""

from __future__ import annotations

import torch


def zero_inputs(module: torch.nn.Module, gone: torch.Tensor) -> None:
    """What `module` reads in these columns counts as 0."""

    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        mask = torch.ones_like(inputs[0])
        mask[..., gone] = 0
        return (inputs[0] * mask, *inputs[1:])

    module.register_forward_pre_hook(hook)


def others(keep: torch.Tensor, count: int) -> torch.Tensor:
    return torch.tensor([i for i in range(count) if i not in keep.tolist()], dtype=torch.long)
