"""What is lost when the inputs of a matrix are removed group by group, each time repaired by least squares.

Groups are attention heads (their columns of the output projection) or FFN neurons. Structured Optimal Brain Surgeon
(Kurtic et al. 2023, "ZipLM"): with H the covariance of the inputs and G the curvature of the loss in the outputs, the
removal of the columns S of W costs tr(G W_S (H^-1_SS)^-1 W_S^T), and what is left of W and of H^-1 is known in closed
form. So one way down gives the loss at every size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Ladder", "ladder"]

DAMPING = 1e-3  # of the mean input variance, so that directions which were never seen cost something


@dataclass(frozen=True)
class Ladder:
    """`order` (groups,) int64: the first is removed first; `losses[k]`: after the first k are gone."""

    order: torch.Tensor
    losses: tuple[float, ...]

    def keep(self, count: int) -> torch.Tensor:
        """The `count` groups that stay longest, ascending."""
        return self.order[len(self.order) - count :].sort().values

    def loss(self, count: int) -> float:
        """What is lost with `count` groups left."""
        return self.losses[len(self.order) - count]


def ladder(
    weight: torch.Tensor, covariance: torch.Tensor, curvature: torch.Tensor, *, group: int, step: int = 1
) -> Ladder:
    """Remove all groups, `step` at a time, the cheapest first.

    `weight` (out, in), `covariance` (in, in) of what it reads, `curvature` (out, out) of the loss in what it writes,
    all float64; a group is `group` neighbouring inputs. Losses inside a step are interpolated. Time: in^3.
    """
    import torch

    count = weight.shape[1] // group
    values, vectors = torch.linalg.eigh(curvature)
    left = (values.clamp_min(0).sqrt() * vectors).T @ weight  # |left|^2 = tr(W^T G W)
    damping = DAMPING * covariance.diagonal().mean().clamp_min(1e-30)
    inverse = torch.linalg.inv(covariance + damping * torch.eye(len(covariance), dtype=covariance.dtype))
    alive = torch.ones(count, dtype=torch.bool)
    order: list[torch.Tensor] = []
    losses = [0.0]
    for size in _steps(count, step):
        chosen = _scores(left, inverse, group).where(alive, torch.inf).argsort(stable=True)[:size]
        lost = _remove(left, inverse, (chosen[:, None] * group + torch.arange(group)).flatten())
        losses += [losses[-1] + lost * (k + 1) / size for k in range(size)]
        order.append(chosen)
        alive[chosen] = False
    return Ladder(torch.cat(order), tuple(losses))


def _steps(count: int, step: int) -> list[int]:
    """How many go at a time, so that multiples of `step` are left, and the last step leaves none."""
    uneven = count % step
    return [*([uneven] if uneven else []), *[step] * (count // step)]


def _scores(left: torch.Tensor, inverse: torch.Tensor, group: int) -> torch.Tensor:
    """What each group alone would cost, (groups,)."""
    import torch

    if group == 1:
        return left.square().sum(0) / inverse.diagonal()
    count = len(inverse) // group
    blocks = inverse.reshape(count, group, count, group).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    columns = left.T.reshape(count, group, -1)
    scores: torch.Tensor = (torch.linalg.solve(blocks, columns) * columns).sum((1, 2))
    return scores


def _remove(left: torch.Tensor, inverse: torch.Tensor, gone: torch.Tensor) -> float:
    """What the columns `gone` cost together. In place: `left` is repaired, `inverse` becomes that of the rest; what is
    gone stands apart there, with ones on the diagonal."""
    import torch

    rows, columns = inverse[gone], left[:, gone]
    solved = torch.linalg.solve(rows[:, gone], torch.cat([rows, columns.T], dim=1))
    across, mine = solved[:, : len(inverse)], solved[:, len(inverse) :]
    left.addmm_(columns, across, alpha=-1)
    inverse.addmm_(rows.T, across, alpha=-1)
    left[:, gone] = 0
    inverse[gone] = 0
    inverse[:, gone] = 0
    inverse[gone, gone] = 1
    return float((mine * columns.T).sum())
