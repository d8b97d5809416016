"""What flows through a decoder: the moments of what its matrices read, gradients of what they read, and how much each
layer turns the residual stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from edgekit.nn.decoder_families import decoder_family
from edgekit.progress import Progress, Silent
from edgekit.tasks.language_modeling import Windows

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

__all__ = ["batches", "divergence", "influence", "moments", "squares", "taylor"]


def batches(windows: Windows, size: int) -> list[torch.Tensor]:
    """Token ids (batch, length) int64."""
    import torch

    return [torch.from_numpy(windows.ids[at : at + size]).long() for at in range(0, len(windows), size)]


@contextmanager
def _inputs(model: PreTrainedModel, paths: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """What the modules at `paths` read, by path, refreshed by every forward pass."""
    seen: dict[str, torch.Tensor] = {}

    def keep(path: str) -> RemovableHandle:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[path] = inputs[0]

        module: torch.nn.Module = model.get_submodule(path)
        return module.register_forward_pre_hook(hook)

    handles = [keep(path) for path in paths]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def moments(
    model: PreTrainedModel, paths: Sequence[str], data: Sequence[torch.Tensor], progress: Progress | None = None
) -> dict[str, torch.Tensor]:
    """Second moments E[x x^T] (in, in), float64, of what the modules at `paths` read; a last row and column for a
    constant 1 beside x holds E[x], for the modules that have a bias."""
    import torch

    found: dict[str, torch.Tensor] = {}
    tokens = sum(ids.numel() for ids in data)
    with _inputs(model, paths) as seen, torch.inference_mode():
        for ids in (progress or Silent()).track(data, "activations", len(data)):
            model(input_ids=ids.to(model.device), use_cache=False)
            for path in paths:
                x = seen[path].flatten(0, -2)
                if getattr(model.get_submodule(path), "bias", None) is not None:
                    x = torch.nn.functional.pad(x, (0, 1), value=1.0)
                product = (x.T @ x).double() / tokens
                found[path] = found[path] + product if path in found else product
    return found


def squares(
    model: PreTrainedModel, paths: Sequence[str], data: Sequence[torch.Tensor], progress: Progress | None = None
) -> dict[str, torch.Tensor]:
    """E[x^2] (in,), float64, of what the modules at `paths` read."""
    import torch

    found: dict[str, torch.Tensor] = {}
    tokens = sum(ids.numel() for ids in data)
    with _inputs(model, paths) as seen, torch.inference_mode():
        for ids in (progress or Silent()).track(data, "activations", len(data)):
            model(input_ids=ids.to(model.device), use_cache=False)
            for path in paths:
                energy = seen[path].flatten(0, -2).double().square().sum(0) / tokens
                found[path] = found[path] + energy if path in found else energy
    return found


def divergence(original: PreTrainedModel, model: PreTrainedModel, data: Sequence[torch.Tensor]) -> float:
    """Mean KL divergence (nats a token) of `model` from `original`, which has the same vocabulary."""
    import torch

    total = 0.0
    with torch.inference_mode():
        for ids in data:
            inputs = ids.to(model.device)
            wanted, found = (m(input_ids=inputs, use_cache=False).logits.log_softmax(-1) for m in (original, model))
            total += float(torch.nn.functional.kl_div(found, wanted, reduction="sum", log_target=True))
    return total / sum(ids.numel() for ids in data)


def taylor(
    model: PreTrainedModel, paths: Sequence[str], data: Sequence[torch.Tensor], progress: Progress | None = None
) -> dict[str, torch.Tensor]:
    """E|sum over a window of x dL/dx| (in,), float64, of what the modules at `paths` read: what a column is worth
    (Molchanov et al. 2017), with L the window's cross-entropy in predicting its own text."""
    import torch

    found: dict[str, torch.Tensor] = {}
    windows = sum(len(ids) for ids in data)
    with _inputs(model, paths) as seen, torch.enable_grad():
        for ids in (progress or Silent()).track(data, "gradients", len(data)):
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits
            wanted = ids[:, 1:].to(logits.device)
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted.flatten(), reduction="sum")
            inputs = [seen[path] for path in paths]
            for path, x, slope in zip(paths, inputs, torch.autograd.grad(loss, inputs), strict=True):
                worth = (x.detach() * slope).sum(1).double().abs().sum(0) / windows
                found[path] = found[path] + worth if path in found else worth
    return found


def influence(model: PreTrainedModel, data: Sequence[torch.Tensor], progress: Progress | None = None) -> list[float]:
    """1 - mean cosine of each layer's input and output: "block influence" (Men et al. 2024, ShortGPT)."""
    import torch

    family = decoder_family(model.config.model_type)
    layers = model.config.num_hidden_layers
    paths = [f"{family.layers}.{i}" for i in range(layers)]
    totals = [0.0] * layers
    with _inputs(model, [*paths, family.final_norm]) as seen, torch.inference_mode():
        for ids in (progress or Silent()).track(data, "layer influence", len(data)):
            model(input_ids=ids.to(model.device), use_cache=False)
            states = [seen[path] for path in (*paths, family.final_norm)]
            for i, (before, after) in enumerate(pairwise(states)):
                totals[i] += float((1 - torch.nn.functional.cosine_similarity(before, after, dim=-1)).sum())
    return [total / sum(ids.numel() for ids in data) for total in totals]
