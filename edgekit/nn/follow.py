"""Layer by layer, a cut model is made to follow the intact one, by least squares: no labels, no training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from edgekit.nn.calibration import Calibration
from edgekit.nn.capture import capture, capture_inputs, held
from edgekit.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["follow", "writer_paths"]

RIDGE = 1e-2  # of the mean input variance: how strongly the weights hold on to what they were
WRITERS = (("attention_output", "attention_norm"), ("ffn_down", "ffn_norm"))


def follow(
    cut: PreTrainedModel,
    intact: PreTrainedModel,
    calibration: Calibration,
    weights: Mapping[str, Sequence[torch.Tensor]],
    progress: Progress | None = None,
) -> list[float]:
    """Re-solve, in place and in order, what writes to the residual stream of `cut`, so that the stream is `intact`'s.

    Each matrix is fitted to the intact stream less what the cut model's stream holds by then, on the cut model's own
    inputs: what earlier layers lost is made good as far as it can be. The two models have as many layers.
    `weights`: path of a matrix -> weight of each real token (tokens,), by batch of the calibration. Returns for each
    matrix the mean squared error left, relative to the stream's variance.
    """
    from edgekit.nn.load import encoder_layers

    masks = list(calibration.masks())
    ours, theirs = _Stream.of(cut, calibration), _Stream.of(intact, calibration)
    errors = []
    layers = range(len(encoder_layers(cut)))
    for index in (progress or Silent()).track(layers, "repair", len(layers)):
        wanted = [_sums(intact, index, state) for state in theirs.states(index)]
        for place, (writer, _) in enumerate(WRITERS):
            path, normal = _path(cut, index, writer), _Normal()
            for at, state in enumerate(ours.states(index)):
                x, rest = _parts(cut, index, state, place)
                mask = masks[at]
                normal.add(x[mask], (wanted[at][place] - rest)[mask], weights[path][at], wanted[at][place][mask])
            errors.append(_solve(cut.get_submodule(path), normal))
        for stream, model in ((ours, cut), (theirs, intact)):
            stream.advance(model, index)
    return errors


def writer_paths(model: PreTrainedModel) -> list[str]:
    """Paths of all matrices that `follow` re-solves."""
    from edgekit.nn.load import encoder_layers

    return [_path(model, i, writer) for i in range(len(encoder_layers(model))) for writer, _ in WRITERS]


@dataclass
class _Call:
    """What a layer is called with, besides the hidden states."""

    rest: tuple[Any, ...]
    named: dict[str, Any]


@dataclass
class _State:
    """A batch on its way: what the next layer reads, and how every layer is called."""

    hidden: torch.Tensor
    calls: list[_Call] = field(default_factory=list)


@dataclass
class _Stream:
    """All batches, at the input of one layer."""

    batches: list[_State]

    @classmethod
    def of(cls, model: PreTrainedModel, calibration: Calibration) -> _Stream:
        """At the first layer."""
        import torch

        from edgekit.nn.load import encoder_layers

        layers = encoder_layers(model)
        found: list[_State] = []

        def keep(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            if layer is layers[0]:
                found.append(_State(inputs[0]))
            found[-1].calls.append(_Call(inputs[1:], named))

        handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
        with held(handles), torch.inference_mode():
            for inputs, _ in calibration:
                model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
        return cls(found)

    def states(self, layer: int) -> Iterator[tuple[torch.Tensor, _Call]]:
        """Each batch's input of `layer`, and its call."""
        return ((batch.hidden, batch.calls[layer]) for batch in self.batches)

    def advance(self, model: PreTrainedModel, layer: int) -> None:
        """Through `layer`, as it is now."""
        for batch, state in zip(self.batches, self.states(layer), strict=True):
            batch.hidden = _run(model, layer, state)


def _run(model: PreTrainedModel, layer: int, state: tuple[torch.Tensor, _Call]) -> torch.Tensor:
    import torch

    from edgekit.nn.load import encoder_layers

    hidden, call = state
    with torch.inference_mode():
        output = encoder_layers(model)[layer](hidden, *call.rest, **call.named)
    result: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return result


def _sums(model: PreTrainedModel, layer: int, state: tuple[torch.Tensor, _Call]) -> list[torch.Tensor]:
    """The residual stream (batch, length, hidden) after attention and after the FFN."""
    norms = {norm: _path(model, layer, norm) for _, norm in WRITERS if _path(model, layer, norm)}
    with capture_inputs({norm: model.get_submodule(path) for norm, path in norms.items()}) as seen:
        output = _run(model, layer, state)
    return [seen.get(norm, output) for _, norm in WRITERS]


def _parts(
    model: PreTrainedModel, layer: int, state: tuple[torch.Tensor, _Call], place: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the layer's writer number `place` reads, and the residual stream without what it writes."""
    writer = model.get_submodule(_path(model, layer, WRITERS[place][0]))
    with capture({"out": writer}) as written, capture_inputs({"in": writer}) as read:
        stream = _sums(model, layer, state)[place]
    return read["in"], stream - written["out"]


def _path(model: PreTrainedModel, layer: int, name: str) -> str:
    """Path of a layer's part; empty where the family has none."""
    from edgekit.nn.load import backbone
    from edgekit.nn.surgery import part_path

    return part_path(model, layer, name) if getattr(backbone(model)[1], name) else ""


class _Normal:
    """Weighted moments of a matrix' inputs (n, in) and targets (n, out), float64."""

    def __init__(self) -> None:
        self.weight = 0.0
        self.parts: list[torch.Tensor] = []  # E x, E y, E x x^T, E y x^T, E s, E s^2

    def add(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, stream: torch.Tensor) -> None:
        keep = weight > 0
        x, y, stream, weight = x[keep], y[keep], stream[keep], weight[keep][:, None]
        weighted = x * weight
        found = [weighted.sum(0), (y * weight).sum(0), weighted.T @ x, y.T @ weighted]
        found += [(stream * weight).sum(0), (stream.square() * weight).sum(0), (y.square() * weight).sum(0)]
        double = [part.double() for part in found]
        self.parts = [a + b for a, b in zip(self.parts, double, strict=True)] if self.parts else double
        self.weight += float(weight.sum())


def _solve(module: nn.Module, normal: _Normal) -> float:
    """Fit the matrix (its last factor, where it has two) and its bias; the relative error that is left."""
    import torch

    from edgekit.nn.factored import LowRankLinear

    x, y, xx, yx, s, ss, yy = (part / max(normal.weight, 1e-30) for part in normal.parts)
    last = module.up if isinstance(module, LowRankLinear) else cast("nn.Linear", module)
    if isinstance(module, LowRankLinear):
        down = module.down.weight.detach().double()
        x, xx, yx = down @ x, down @ xx @ down.T, yx @ down.T
    if last.bias is not None:
        xx, yx, yy = xx - x[:, None] * x, yx - y[:, None] * x, yy - y.square()
    start = last.weight.detach().double()
    ridge = RIDGE * xx.diagonal().mean().clamp_min(1e-30)
    solved = torch.linalg.solve(
        xx + ridge * torch.eye(len(xx), dtype=xx.dtype, device=xx.device), (yx + ridge * start).T
    ).T
    last.weight.data = solved.to(last.weight.dtype).contiguous()
    if last.bias is not None:
        last.bias.data = (y - solved @ x).to(last.bias.dtype)
    left = yy.sum() - 2 * (solved * yx).sum() + ((solved @ xx) * solved).sum()
    return float(left / (ss - s.square()).sum().clamp_min(1e-30))
