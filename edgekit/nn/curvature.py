"""How much an error in each matrix of a decoder costs: the curvature of the KL divergence, and llama.cpp's importance.

For small errors D of a matrix that reads x and whose output has gradient g (of the log probability of tokens drawn from
the model itself), the KL divergence per token is about sum_i E[g_i^2] D_i E[x x^T] D_i^T / 2 over the rows D_i: the
Fisher information with its two factors taken as independent (Martens and Grosse 2015, K-FAC), and rows that are rounded
one by one with errors that do not depend on each other. The diagonal of E[x x^T] is llama.cpp's importance matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.nn.capture import held
from edgekit.progress import Progress, Silent
from edgekit.tasks.language_modeling import Windows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

See = Callable[[str, "torch.Tensor"], None]

__all__ = ["Curvature", "importance", "linear_paths", "measure_curvature"]


@dataclass
class Curvature:
    """`inputs` (in, in) E[x x^T], `outputs` (out,) E[g^2], per token. Of an embedding, whose rows are looked up:
    E[g g^T] and how often each row is."""

    inputs: torch.Tensor
    outputs: torch.Tensor

    def cost(self, error: torch.Tensor, rows: NDArray[np.intp] | None = None) -> float:
        """KL divergence per token (nats), to second order, for an error (out, in) of the matrix; or for one whose
        errors in `rows` are these, and in the other rows like them."""
        weights = self.outputs if rows is None else self.outputs[rows]
        squares = ((error @ self.inputs) * error).sum(1) @ weights
        return float(squares * self.outputs.sum() / weights.sum().clamp_min(1e-30)) / 2

    @property
    def importance(self) -> NDArray[np.float32]:
        """Weight of each column (in,); those that never count get a little, so that no block is without weight."""
        squares = self.inputs.diagonal()
        return squares.clamp_min(1e-6 * float(squares.mean())).numpy().astype(np.float32)

    def together(self, other: Curvature) -> Curvature:
        """Of a matrix that is used twice, such as tied embeddings: the sum, with the rows of each taken as alike."""
        shares = self.outputs.mean(), other.outputs.mean()
        joint = self.inputs * shares[0] + other.inputs * shares[1]
        return Curvature(joint, self.outputs.new_ones(len(self.outputs)))


def linear_paths(model: PreTrainedModel) -> list[str]:
    """Module paths of the matrices that multiply activations, the output layer last (its matrix may be tied)."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    paths = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    return sorted(paths, key=lambda path: model.get_submodule(path) is head)


def importance(model: PreTrainedModel, windows: Windows, batch: int = 8) -> dict[str, NDArray[np.float32]]:
    """Mean square (in,) of what each matrix reads, by module path: llama.cpp's importance matrix, with no gradients."""
    import torch

    sums: dict[str, torch.Tensor] = {}
    paths = linear_paths(model)

    def see(path: str, x: torch.Tensor) -> None:
        sums[path] = sums.get(path, torch.zeros(())) + x.square().sum(0, dtype=torch.float64)

    with _inputs(model, paths, see), torch.inference_mode():
        for ids in windows.batches(batch):
            model(input_ids=ids.to(model.device), use_cache=False)
    return {path: (total / windows.ids.size).float().cpu().numpy() for path, total in sums.items()}


def measure_curvature(
    model: PreTrainedModel,
    windows: Windows,
    paths: Sequence[str],
    *,
    batch: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Curvature]:
    """The curvature of the matrices (or the input embeddings) at `paths`, one pass forward and back over the windows.

    Memory: in^2 floats for each path, beside what a training step without optimizer takes.
    """
    import torch

    looked_up = model.get_input_embeddings()
    sums = {path: [torch.zeros(()), torch.zeros(())] for path in paths}

    def see(path: str, x: torch.Tensor) -> None:
        if model.get_submodule(path) is looked_up:
            sums[path][1] = sums[path][1] + torch.bincount(x, minlength=looked_up.num_embeddings).float().cpu()
        else:
            sums[path][0] = sums[path][0] + (x.T @ x).cpu()

    def back(path: str, g: torch.Tensor) -> None:
        if model.get_submodule(path) is looked_up:
            sums[path][0] = sums[path][0] + (g.T @ g).cpu()
        else:
            sums[path][1] = sums[path][1] + g.square().sum(0).cpu()

    generator = torch.Generator().manual_seed(seed)
    with _frozen(model), _inputs(model, paths, see), _gradients(model, paths, back):
        batches = windows.batches(batch)
        for ids in (progress or Silent()).track(batches, "curvature", len(batches)):
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits.flatten(0, 1)
            drawn = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=generator)[:, 0]
            torch.nn.functional.cross_entropy(logits, drawn.to(logits.device), reduction="sum").backward()  # type: ignore[no-untyped-call]
    tokens = windows.ids.size
    return {path: Curvature(inputs / tokens, outputs / tokens) for path, (inputs, outputs) in sums.items()}


def _by_token(x: torch.Tensor) -> torch.Tensor:
    """(tokens, in) of activations (batch, length, in); (tokens,) of token ids (batch, length)."""
    return x.detach().flatten(0, -2) if x.is_floating_point() else x.detach().flatten()


@contextmanager
def _inputs(model: PreTrainedModel, paths: Sequence[str], see: See) -> Iterator[None]:
    """Show what each module reads, (tokens, in), in every forward pass."""

    def hook(path: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, inputs: see(path, _by_token(inputs[0]))

    with held([model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]):
        yield


@contextmanager
def _gradients(model: PreTrainedModel, paths: Sequence[str], see: See) -> Iterator[None]:
    """Show the gradient (tokens, out) of each module's output, in every backward pass."""

    def hook(path: str) -> Callable[[torch.nn.Module, object, torch.Tensor], None]:
        def watch(_: torch.nn.Module, __: object, output: torch.Tensor) -> None:
            output.register_hook(lambda g: see(path, _by_token(g)))  # type: ignore[no-untyped-call]

        return watch

    with held([model.get_submodule(path).register_forward_hook(hook(path)) for path in paths]):
        yield


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """Gradients flow from the embeddings on, none is kept for a parameter."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    embeddings = model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, __, output: output.requires_grad_())
    try:
        yield
    finally:
        handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
