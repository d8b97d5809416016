"""Low-rank factorization of linear layers and embeddings: W (out, in) becomes up (out, r) times down (r, in).

All methods are one formula. For a weighting M of the inputs, the best W_r of rank r under |(W - W_r) M|^2 is
U_r U_r^T W, with U_r the first r left singular vectors of W M (Eckart-Young on W M; M cancels, so that it is never
inverted and may be singular). M is the identity (truncated SVD), diagonal (FWSVD, Hsu et al. 2022), or the Cholesky
factor of the inputs' covariance (SVD-LLM, Wang et al. 2024). With a weighting L of the outputs too, it is
L^-1 U_r U_r^T L W, of L W M. An embedding is the same with one-hot inputs: its W is the
table transposed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import StageError
from edgekit.nn.weighting import Weighting

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Spectrum", "factorize_module", "ranks_by_budget", "ranks_by_energy", "spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """A layer's decomposition in float64: `basis` (out, k), best first, and `dual` (k, out), so that W_r = basis_r
    dual_r W; `energy` (k,), squared singular values. `absolute`: energies of layers compare as they are, not as shares.
    """

    path: str
    basis: torch.Tensor
    dual: torch.Tensor
    energy: torch.Tensor
    size: int  # weights the layer has now (biases aside)
    per_rank: int  # weights that one rank costs: in + out
    absolute: bool = False

    @property
    def total(self) -> float:
        return max(float(self.energy.sum()), 1e-30)

    def error(self, rank: int) -> float:
        """|(W - W_r) M|^2 / |W M|^2."""
        return float(self.energy[rank:].sum()) / self.total

    def gain(self, rank: int, after: int) -> float:
        """What is won by more ranks."""
        won = float(self.energy[rank:after].sum())
        return won if self.absolute else won / self.total

    def shrinks(self, rank: int) -> bool:
        """Whether that rank needs fewer weights than the layer has now."""
        return rank * self.per_rank < self.size


def spectrum(path: str, module: nn.Module, weighting: Weighting) -> Spectrum:
    """Decompose a linear layer or an embedding (either may be low rank already)."""
    import torch
    from torch import nn

    from edgekit.nn.factored import LOW_RANK, LowRankEmbedding, dense_weight

    weight = dense_weight(module)
    if isinstance(module, nn.Embedding | LowRankEmbedding):
        weight = weight.T
    scaled = weight if weighting.outputs is None else weighting.outputs.to(weight.device) @ weight.double()
    basis, energy = _left_basis(scaled, weighting.root)
    dual = basis.T
    if weighting.outputs is not None:
        basis, dual = torch.linalg.solve(weighting.outputs.to(basis), basis), dual @ weighting.outputs.to(basis)
    out, inner = weight.shape
    size = module.rank * (out + inner) if isinstance(module, LOW_RANK) else out * inner
    return Spectrum(path, basis, dual, energy, size, out + inner, weighting.outputs is not None)


def _left_basis(weight: torch.Tensor, root: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Left singular vectors (out, k) and squared singular values (k,) of `weight @ root`, float64."""
    import torch

    out, inner = weight.shape
    if inner > out and (root is None or root.ndim == 1):  # wide: the small Gram matrix, a slice of columns at a time
        gram = torch.zeros(out, out, dtype=torch.float64, device=weight.device)
        for start in range(0, inner, 8192):
            part = weight[:, start : start + 8192].double()
            if root is not None:
                part = part * root[start : start + 8192].to(part.device)
            gram += part @ part.T
        values, vectors = torch.linalg.eigh(gram)
        return vectors.flip(1), values.flip(0).clamp_min(0)
    product = weight.double()
    if root is not None:
        root = root.to(product.device)
        product = product * root if root.ndim == 1 else product @ root
    basis, singular, _ = torch.linalg.svd(product, full_matrices=False)
    return basis, singular.square()


def factorize_module(module: nn.Module, found: Spectrum, rank: int, mean: torch.Tensor | None = None) -> nn.Module:
    """The low-rank layer of that rank; given the inputs' `mean` (in,), the bias takes what is lost of it."""
    from torch import nn

    from edgekit.nn.factored import LowRankEmbedding, LowRankLinear, dense_weight

    weight = dense_weight(module).double()
    basis, dual = found.basis[:, :rank], found.dual[:rank]
    made: LowRankEmbedding | LowRankLinear
    if isinstance(module, nn.Embedding | LowRankEmbedding):
        made = LowRankEmbedding(weight.shape[0], weight.shape[1], rank, padding_idx=module.padding_idx)
        made.codes.weight.data = (weight @ dual.T).float()
        made.up.weight.data = basis.float().contiguous()
    else:
        assert isinstance(module, nn.Linear | LowRankLinear)
        made = LowRankLinear(weight.shape[1], weight.shape[0], rank, bias=module.bias is not None)
        made.down.weight.data = (dual @ weight).float()
        made.up.weight.data = basis.float().contiguous()
        if module.bias is not None:
            lost = 0.0 if mean is None else (weight - basis @ (dual @ weight)) @ mean
            made.up.bias.data = (module.bias.detach().double() + lost).float()
    return made.train(module.training)


def ranks_by_energy(spectra: Sequence[Spectrum], energy: float, unit: int) -> list[int]:
    """Per layer the smallest multiple of `unit` that keeps the share `energy` (0 to 1) of its weighted energy."""
    ranks = []
    for found in spectra:
        kept = found.energy.cumsum(0) / found.total
        needed = int((kept < energy - 1e-12).sum()) + 1
        ranks.append(min(-(-needed // unit) * unit, len(found.energy)))
    return ranks


def ranks_by_budget(spectra: Sequence[Spectrum], budget: float, unit: int) -> list[int]:
    """Ranks, in steps of `unit`, so that the layers together keep at most the share `budget` of their weights.

    Greedy: the next step goes where it wins most per weight it costs (of a layer's own energy, or as it is). A layer
    whose next step would no longer be smaller than the layer itself may be left whole (rank: all). Raises StageError
    where even one step for each layer is over the budget.
    """
    allowed = budget * sum(s.size for s in spectra)
    ranks = [min(unit, len(s.energy)) for s in spectra]
    spent = sum(min(r * s.per_rank, s.size) for r, s in zip(ranks, spectra, strict=True))
    if spent > allowed:
        least = spent / max(1, sum(s.size for s in spectra))
        raise StageError(
            f"a budget of {budget:g} is too small: rank {unit} for every layer needs {least:.3f}",
            hint="raise `budget`, or lower `round_to`",
        )
    heap: list[tuple[float, int, int, int]] = []

    def offer(at: int) -> None:
        """Queue the layer's next step, if there is one: (-gain per weight, layer, new rank, cost)."""
        found, rank = spectra[at], ranks[at]
        now = min(rank * found.per_rank, found.size)
        after = min(rank + unit, len(found.energy))
        if not found.shrinks(after):
            after = len(found.energy)
        cost = min(after * found.per_rank, found.size) - now
        if cost > 0:
            heapq.heappush(heap, (-found.gain(rank, after) / cost, at, after, cost))

    for at in range(len(spectra)):
        offer(at)
    while heap:
        _, at, after, cost = heapq.heappop(heap)
        if spent + cost <= allowed:
            spent += cost
            ranks[at] = after
            offer(at)
    return ranks
