"""One decoder layer after the other: what its matrices read, with the layers before it as they are by then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.nn.capture import held
from edgekit.nn.decoder_families import DecoderFamily, decoder_family
from edgekit.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["LayerInputs", "layer_by_layer"]


@dataclass(frozen=True)
class LayerInputs:
    """`moments`: module path -> E[x x^T] (in, in) float32 of what it reads; modules with the same input share one."""

    path: str
    moments: dict[str, torch.Tensor]


def layer_by_layer(
    model: PreTrainedModel, batches: Sequence[torch.Tensor], progress: Progress | None = None
) -> Iterator[LayerInputs]:
    """The layers in their order, then the final norm's output as what `lm_head` reads.

    `batches`: token ids (batch, length) of one shape. What the caller makes of a layer's weights before it asks for the
    next one is what that one's inputs come from. Memory: the hidden states of all batches and one layer's moments.
    """
    family = decoder_family(model.config.model_type)
    layers = model.get_submodule(family.layers)
    states, calls = _first_inputs(model, layers, batches)
    for index in (progress or Silent()).track(range(len(calls)), "layers", len(calls)):
        layer, path = layers.get_submodule(str(index)), f"{family.layers}.{index}"
        yield LayerInputs(path, _moments(family, layer, path, states, calls[index]))
        states = [_run(layer, state, calls[index]) for state in states]
    norm = model.get_submodule(family.final_norm)
    yield LayerInputs("lm_head", {"lm_head": _head_moments(norm, states)})


@dataclass(frozen=True)
class Call:
    """What a layer is called with besides the hidden states; batches of one shape share it."""

    rest: tuple[Any, ...]
    named: dict[str, Any]


def _first_inputs(
    model: PreTrainedModel, layers: torch.nn.Module, batches: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[Call]]:
    """The first layer's hidden states for each batch, and every layer's call."""
    import torch

    states: list[torch.Tensor] = []
    calls: list[Call] = []

    def keep(layer: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if layer is layers.get_submodule("0"):
            states.append(inputs[0])
            calls.clear()
        calls.append(Call(inputs[1:], named))

    handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers.children()]
    with held(handles), torch.no_grad():
        for ids in batches:
            model(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=1)
    return states, calls


def _moments(
    family: DecoderFamily, layer: torch.nn.Module, path: str, states: list[torch.Tensor], call: Call
) -> dict[str, torch.Tensor]:
    readers = {matrix: family.reads.get(matrix, matrix) for matrix in family.matrices}
    sums = {site: Moment() for site in readers.values()}
    handles = [layer.get_submodule(site).register_forward_pre_hook(moment.hook) for site, moment in sums.items()]
    with held(handles):
        for state in states:
            _run(layer, state, call)
    return {f"{path}.{matrix}": sums[site].mean() for matrix, site in readers.items()}


def _head_moments(norm: torch.nn.Module, states: list[torch.Tensor]) -> torch.Tensor:
    import torch

    moment = Moment()
    with torch.no_grad():
        for state in states:
            moment.add(norm(state))
    return moment.mean()


class Moment:
    """A running E[x x^T]."""

    def __init__(self) -> None:
        self.total: torch.Tensor | None = None
        self.tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Inputs (..., in)."""
        x = inputs.flatten(0, -2).float()
        self.total = x.T @ x if self.total is None else self.total.addmm_(x.T, x)
        self.tokens += len(x)

    def hook(self, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.add(inputs[0])

    def mean(self) -> torch.Tensor:
        """(in, in). Something was added before."""
        assert self.total is not None
        return self.total / self.tokens


def _run(layer: torch.nn.Module, state: torch.Tensor, call: Call) -> torch.Tensor:
    import torch

    with torch.no_grad():
        output = layer(state, *call.rest, **call.named)
    result: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return result
