"""Low-rank layers: plain modules that torch.export, state dicts and safetensors know how to handle.

torch is imported at the top because its classes are inherited from: import this module inside functions only.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["LOW_RANK", "LowRankEmbedding", "LowRankLinear", "dense_weight", "densify", "size_of"]


class LowRankLinear(nn.Module):
    """`y = up(down(x))`: `down` is (rank, in) without bias, `up` is (out, rank) and carries the bias."""

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    @property
    def in_features(self) -> int:
        return self.down.in_features

    @property
    def out_features(self) -> int:
        return self.up.out_features

    @property
    def rank(self) -> int:
        return self.down.out_features

    @property
    def bias(self) -> nn.Parameter | None:
        return self.up.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        y: torch.Tensor = self.up(self.down(x))
        return y


class LowRankEmbedding(nn.Module):
    """A narrow table and a projection, as in ALBERT: `codes` is (vocabulary, rank), `up` is (width, rank), no bias."""

    def __init__(self, count: int, width: int, rank: int, *, padding_idx: int | None = None) -> None:
        super().__init__()
        self.codes = nn.Embedding(count, rank, padding_idx=padding_idx)
        self.up = nn.Linear(rank, width, bias=False)

    @property
    def num_embeddings(self) -> int:
        return self.codes.num_embeddings

    @property
    def embedding_dim(self) -> int:
        return self.up.out_features

    @property
    def rank(self) -> int:
        return self.codes.embedding_dim

    @property
    def padding_idx(self) -> int | None:
        return self.codes.padding_idx

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(...) int64 -> (..., width)."""
        y: torch.Tensor = self.up(self.codes(ids))
        return y


LOW_RANK = (LowRankLinear, LowRankEmbedding)


def dense_weight(module: nn.Module) -> torch.Tensor:
    """The weight a plain layer would have: (out, in) for a linear layer, (vocabulary, width) for an embedding."""
    if isinstance(module, LowRankLinear):
        return (module.up.weight @ module.down.weight).detach()
    if isinstance(module, LowRankEmbedding):
        return (module.codes.weight @ module.up.weight.T).detach()
    if isinstance(module, nn.Linear | nn.Embedding):
        return module.weight.detach()
    raise TypeError(f"{type(module).__name__} has no weight matrix")


def densify(module: nn.Module) -> nn.Linear | nn.Embedding:
    """The plain layer with the same function (factors multiplied in float64)."""
    assert isinstance(module, LOW_RANK)
    plain: nn.Linear | nn.Embedding
    if isinstance(module, LowRankLinear):
        plain = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        product = module.up.weight.double() @ module.down.weight.double()
        if module.bias is not None:
            plain.bias.data = module.bias.detach().clone()
    else:
        plain = nn.Embedding(module.num_embeddings, module.embedding_dim, padding_idx=module.padding_idx)
        product = module.codes.weight.double() @ module.up.weight.double().T
    plain.weight.data = product.detach().float().contiguous()
    return plain.train(module.training)


def size_of(module: nn.Module) -> int:
    """Parameters of a module, those of its children included."""
    return sum(p.numel() for p in module.parameters())
