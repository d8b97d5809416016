"""Sentence similarity: two texts and a score of how alike they are; each is embedded alone, the answer is the cosine.

A score is a number, greater where texts are more alike, on any scale: only their order is learned, and judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.errors import DataError
from edgekit.tasks.base import Encoded, EncoderTask, Judged, encoded_of, tokenize
from edgekit.tasks.correlation import correlation, spearman, spearman_of_samples

if TYPE_CHECKING:
    import torch

__all__ = ["SENTENCE_SIMILARITY", "Embedded", "cosent_loss"]

SCALE = 20.0  # of cosines in the loss, as CoSENT has it


@dataclass(frozen=True)
class Embedded:
    """See `Examples`; a unit is a pair of texts, or a single one where the table has no pairs. Rows, which are places
    too, are all first texts, then all second ones."""

    folder: Path
    table: Table
    task: Task

    @cached_property
    def encoded(self) -> Encoded:
        table = self.table.one_by_one()
        return encoded_of(self.folder, tokenize(self.folder, table, self.task), self.task)

    @property
    def sides(self) -> int:
        """Texts of a unit: 2, or 1 where there are no pairs."""
        return 1 if self.table.pairs is None else 2

    @property
    def places(self) -> int:
        return self.sides * len(self.table)

    @property
    def lengths(self) -> list[int]:
        rows = self.encoded.lengths
        return [sum(rows[row] for row in self.fed([unit])) for unit in range(len(self.table))]

    @property
    def classes(self) -> NDArray[np.int64]:
        return np.zeros(0, dtype=np.int64)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Of each unit; NaN where it has none."""
        labels = self.table.labels or [""] * len(self.table)
        return np.asarray([float(label) if label else np.nan for label in labels], dtype=np.float64)

    def fed(self, units: Sequence[int]) -> list[int]:
        return [side * len(self.table) + unit for side in range(self.sides) for unit in units]

    def loss(
        self,
        output: torch.Tensor,
        units: Sequence[int],
        *,
        weights: torch.Tensor | None = None,
        smoothing: float = 0.0,
        own: bool = False,
        summed: bool = False,
    ) -> torch.Tensor:
        import torch

        if own:  # a text is as like itself as can be: how like it is to its neighbour in the batch can change
            found = (output.float() * output.float().roll(1, 0)).sum(-1).mean()
        else:
            self._check_pairs()
            first, second = output.float().chunk(2)
            scores = torch.from_numpy(self.scores[list(units)]).to(output.device)
            found = cosent_loss((first * second).sum(-1), scores)
        return found * len(units) if summed else found

    def follow(
        self, output: torch.Tensor, units: Sequence[int], told: NDArray[np.float32], temperature: float
    ) -> torch.Tensor:
        """Squared distance of the embeddings (Reimers and Gurevych 2020, arXiv 2004.09813); where the teacher's are of
        another width, squared error of the cosines of every two texts of the batch (Tung and Mori 2019, arXiv
        1907.09682)."""
        import torch

        sides = np.split(told[list(units)], self.sides, axis=1)
        mine, theirs = output.float(), torch.from_numpy(np.concatenate(sides)).to(output.device)
        if mine.shape == theirs.shape:
            return (mine - theirs).square().sum(-1).mean()
        return (mine @ mine.T - theirs @ theirs.T).square().mean()

    def read(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """(units, width) embeddings; of pairs (units, 2 * width), the first text's and then the second's."""
        return np.concatenate(np.split(logits, self.sides), axis=1)

    def judge(self, answers: NDArray[np.float32]) -> Judged:
        self._check_pairs()
        cosines = _cosines(answers)
        if self.table.labels is None:
            return Judged(cosines, None, {})
        if np.isnan(self.scores).any():
            raise DataError(f"{self.table.name}: pairs without a score cannot be judged")
        evidence = np.stack([cosines, self.scores], axis=1)
        whole = np.ones((1, len(evidence)), dtype=np.int64)
        pearson = float(correlation(cosines, self.scores, whole)[0])
        return Judged(cosines, self.scores, {"spearman": spearman(cosines, self.scores), "pearson": pearson}, evidence)

    def mean_loss(self, answers: NDArray[np.float32]) -> float:
        import torch

        return float(cosent_loss(torch.from_numpy(_cosines(answers)), torch.from_numpy(self.scores)))

    def _check_pairs(self) -> None:
        if self.table.pairs is None:
            raise DataError(f"{self.table.name}: similarity is of two texts", hint="name the column of the second text")


def cosent_loss(cosines: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """log(1 + sum of exp(20 (c_j - c_i)) over all i and j where i scores more than j), of `cosines` (n,) and `scores`
    (n,), NaN where there is none: how far pairs are from the order of their scores, on whatever scale these are.

    Source: Su 2022, "CoSENT", https://kexue.fm/archives/8847.
    """
    import torch

    apart = SCALE * (cosines[None, :] - cosines[:, None])  # [i, j]: c_j - c_i
    wrong = apart[scores[:, None] > scores[None, :]]
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), dim=0)


def _cosines(answers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of the two embeddings of each row of answers (n, 2 * width), (n,)."""
    first, second = np.split(answers.astype(np.float64), 2, axis=1)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / np.maximum(norms, 1e-12), dtype=np.float64)


def _alike(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean cosine of two models' embeddings (texts, width) of the same texts."""
    return float(_cosines(np.concatenate([first, second], axis=1)).mean())


SENTENCE_SIMILARITY = EncoderTask(
    "sentence-similarity",
    ("spearman", "pearson"),
    lambda table: (),
    Embedded,
    "score",
    spearman_of_samples,
    head=False,
    alike=_alike,
)
