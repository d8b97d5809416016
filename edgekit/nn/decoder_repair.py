"""Least-squares repair: matrices that read what is cut are solved again for what is left, on calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.nn.decoder_families import DecoderFamily, decoder_family, module_axes, split_layer
from edgekit.nn.decoder_sizes import sizes_of
from edgekit.nn.decoder_statistics import moments
from edgekit.nn.decoder_surgery import Keep, indices
from edgekit.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["moments_fit", "repair", "repair_by_parts", "site", "sites", "solve"]

ROOM = 2**30  # bytes of second moments held at once
RIDGE = 1e-3  # of the mean variance of what is read: keeps the solution near the old weights where nothing was seen


def site(family: DecoderFamily, path: str) -> str | None:
    """The module whose input stands for that of the matrix at `path`; None for what is no matrix of a layer."""
    layer, matrix = split_layer(family, path)
    if layer is None or matrix not in family.matrices:
        return None
    return f"{family.layers}.{layer}.{family.reads.get(matrix, matrix)}"


def sites(model: PreTrainedModel) -> list[str]:
    """All that the matrices of the layers read, in order, and what `lm_head` reads."""
    family = decoder_family(model.config.model_type)
    found = dict.fromkeys(site(family, path) for path, _ in model.named_modules())
    return [*(path for path in found if path is not None), "lm_head"]


def _parts(model: PreTrainedModel, paths: Sequence[str]) -> Iterator[list[str]]:
    """`paths` in runs whose second moments take at most `ROOM` bytes (a run has at least one)."""
    family, sizes = decoder_family(model.config.model_type), sizes_of(model.config)
    part: list[str] = []
    used = 0
    for path in paths:
        axes = module_axes(family, split_layer(family, path)[1])[1]
        need = 8 * sum(sizes.axis(axis) for axis in axes) ** 2
        if part and used + need > ROOM:
            yield part
            part, used = [], 0
        part.append(path)
        used += need
    yield part


def moments_fit(model: PreTrainedModel) -> bool:
    """Whether the second moments of all sites may be held at once."""
    return len(list(_parts(model, sites(model)))) == 1


def repair_by_parts(
    model: PreTrainedModel, keep: Keep, data: Sequence[torch.Tensor], progress: Progress | None = None
) -> dict[str, torch.Tensor]:
    """As `repair`; the moments are found on the way, by as many runs over the data as memory asks for."""
    found: dict[str, torch.Tensor] = {}
    for part in _parts(model, sites(model)):
        found |= repair(model, keep, moments(model, part, data, progress))
    return found


def solve(weight: torch.Tensor, second: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`weight` (out, in) with its columns `keep` (k,) solved again, the others untouched: float64.

    Minimizes E|W x - W' x_keep|^2 + ridge |W' - W_keep|^2, given E[x x^T] = `second` (in, in).
    """
    import torch

    weight = weight.double()
    inner = second[keep][:, keep]
    ridge = RIDGE * inner.diagonal().mean().clamp_min(1e-30)
    left = inner + ridge * torch.eye(len(keep), dtype=inner.dtype, device=inner.device)
    right = weight @ second[:, keep] + ridge * weight[:, keep]
    found = weight.clone()
    found[:, keep] = torch.linalg.solve(left, right.T).T
    return found


def repair(model: PreTrainedModel, keep: Keep, second: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """New tensors, by name and in their old shape, for all that reads an axis of which `keep` cuts something.

    `second`: what `moments` found, by `site` (and, where hidden channels are cut, of `lm_head`).
    """
    import torch

    family, sizes = decoder_family(model.config.model_type), sizes_of(model.config)
    found: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules():
        source = site(family, path)
        layer, matrix = split_layer(family, path)
        if source is None or source not in second or layer not in keep.layers:
            continue
        kept = indices(module_axes(family, matrix)[1], keep, sizes, layer)
        moment = second[source]
        width = module.weight.shape[0 if family.inputs_first else 1]
        if len(kept) == width:
            continue
        weight = module.weight.detach()
        weight = weight.T if family.inputs_first else weight
        if module.bias is None:
            solved = solve(weight, moment[:width, :width], kept)
        else:  # the constant 1 that the bias multiplies is one more column
            whole = torch.cat([weight, module.bias.detach()[:, None]], dim=1)
            solved = solve(whole, moment, torch.cat([kept, torch.tensor([width])]))
            found[f"{path}.bias"] = solved[:, width].to(weight.dtype)
        solved = solved[:, :width].to(weight.dtype)
        found[f"{path}.weight"] = solved.T if family.inputs_first else solved
    return found | _norms(model, keep, second)


def _norms(model: PreTrainedModel, keep: Keep, second: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the norms before the matrices in `second`, times the root of the share of the energy that stays.

    A norm divides by the energy of what is left; so what it gives is as large as before. What it reads is x, and its
    output is w x / rms(x): the share of channel j is E[output_j^2] / (w_j^2 d).
    """
    family, sizes = decoder_family(model.config.model_type), sizes_of(model.config)
    if len(keep.hidden) == sizes.hidden:
        return {}
    readers = {family.final_norm: "lm_head"}
    for layer in keep.layers:
        first = list(dict.fromkeys(family.reads.values()))
        readers |= {
            f"{family.layers}.{layer}.{norm}": f"{family.layers}.{layer}.{matrix}"
            for norm, matrix in zip(family.norms, first, strict=True)
        }
    found = {}
    for norm, reader in readers.items():
        if reader not in second:
            continue
        scale = model.get_submodule(norm).weight.detach().double() + family.norm_offset
        shares = second[reader].diagonal()[: sizes.hidden] / scale.square().clamp_min(1e-12) / sizes.hidden
        gain = shares[keep.hidden].sum().sqrt()
        found[f"{norm}.weight"] = (scale * gain - family.norm_offset).to(model.dtype)
    return found
