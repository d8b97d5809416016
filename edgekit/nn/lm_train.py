"""What training a decoder adds to the one training loop: losses, figures, and layers that learn at their own rate."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgekit.nn.lm_rows import IGNORED, Rows
from edgekit.nn.train import Hooks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Unfreezing", "depth_rates", "evaluating", "evaluator", "perplexity", "token_losses"]

LAYER = re.compile(r"\.(\d+)\.")


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (nats) of each token that counts, (tokens,), of logits (rows, length, vocabulary) and `labels`
    (rows, length): what stands at a place is predicted at the place before it."""
    from torch.nn import functional as F

    wanted = labels[:, 1:]
    counted = wanted != IGNORED
    return F.cross_entropy(logits[:, :-1][counted].float(), wanted[counted], reduction="none")


def evaluator(model: PreTrainedModel, rows: Rows, *, batch_size: int, device: str) -> Callable[[], dict[str, float]]:
    """A function that measures the model as it is then: mean loss (nats a token) in fp32, and its perplexity."""

    def evaluate() -> dict[str, float]:
        total = 0.0
        with evaluating(model):
            for chosen in rows.batches(batch_size):
                batch = rows.batch(chosen, device)
                labels = batch.pop("labels")
                total += token_losses(model(**batch, use_cache=False).logits, labels).double().sum().item()
        loss = total / sum(rows.weights)
        return {"loss": loss, "perplexity": perplexity(loss)}

    return evaluate


def perplexity(loss: float) -> float:
    """exp of a mean loss (nats a token); infinite where that is more than a float holds."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and gradients inside."""
    import torch

    model.eval()
    with torch.no_grad():
        yield


def layer_of(name: str, layers: int) -> int:
    """Depth of a parameter by its name: 0 for the embeddings, 1 to `layers`, and `layers + 1` for what is above."""
    found = LAYER.search(name)
    if found:
        return int(found.group(1)) + 1
    return 0 if "embed" in name or ".wte" in name or ".wpe" in name else layers + 1


def depth_rates(model: PreTrainedModel, decay: float) -> dict[str, float]:
    """Discriminative rates (Howard and Ruder, arXiv 1801.06146): each layer learns `decay` times as fast as the one
    above it; the last layer and the head at the full rate, the embeddings slowest."""
    layers = model.config.get_text_config().num_hidden_layers
    depths = {name: layer_of(name, layers) for name, _ in model.named_parameters()}
    return {name: decay ** max(layers - depth, 0) for name, depth in depths.items()}


class Unfreezing(Hooks):
    """Gradual unfreezing (the same paper): in epoch e, from 1, the last `e * many` layers and what is above them learn;
    the embeddings as soon as all layers do."""

    def __init__(self, model: PreTrainedModel, many: int) -> None:
        self.many = many
        self.layers = model.config.get_text_config().num_hidden_layers
        self.depths = [(parameter, layer_of(name, self.layers)) for name, parameter in model.named_parameters()]

    def epoch(self, number: int) -> None:
        lowest = self.layers - self.many * (number + 1) + 1
        for parameter, depth in self.depths:
            parameter.requires_grad_(depth >= lowest)
