"""What flows through a decoder: the moments of what its matrices read, gradients of what they read, and how much each
layer turns the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from edgekit.nn.capture import capture_inputs
from edgekit.nn.decoder_families import decoder_family
from edgekit.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["divergence", "influence", "moments", "squares", "taylor"]


def moments(
    model: PreTrainedModel, paths: Sequence[str], data: Sequence[torch.Tensor], progress: Progress | None = None
) -> dict[str, torch.Tensor]:
    """Second moments E[x x^T] (in, in), float64, of what the modules at `paths` read; a last row and column for a
    constant 1 beside x holds E[x], for the modules that have a bias."""
    import torch

    found: dict[str, torch.Tensor] = {}
    tokens = sum(ids.numel() for ids in data)
    with capture_inputs({path: model.get_submodule(path) for path in paths}) as seen, torch.inference_mode():
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
    with capture_inputs({path: model.get_submodule(path) for path in paths}) as seen, torch.inference_mode():
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
    with capture_inputs({path: model.get_submodule(path) for path in paths}) as seen, torch.enable_grad():
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
    sites = {path: model.get_submodule(path) for path in (*paths, family.final_norm)}
    with capture_inputs(sites) as seen, torch.inference_mode():
        for ids in (progress or Silent()).track(data, "layer influence", len(data)):
            model(input_ids=ids.to(model.device), use_cache=False)
            states = [seen[path] for path in sites]
            for i, (before, after) in enumerate(pairwise(states)):
                totals[i] += float((1 - torch.nn.functional.cosine_similarity(before, after, dim=-1)).sum())
    return [total / sum(ids.numel() for ids in data) for total in totals]
