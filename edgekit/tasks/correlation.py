"""How well two rankings agree: Spearman's and Pearson's correlation, also of weighted rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["correlation", "ranks", "spearman", "spearman_of_samples"]


def spearman(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's rank correlation of two (n,); equal values share their mean rank. 0 where either is constant."""
    whole = np.ones((1, len(first)), dtype=np.int64)
    return float(spearman_of_samples(np.stack([first, second], axis=1).astype(np.float64), whole)[0])


def spearman_of_samples(evidence: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Spearman's correlation of samples, (samples,); `evidence` (rows, 2); `counts` (samples, rows): how often each
    holds a row."""
    first, second = (ranks(column, counts) for column in evidence.T)
    return correlation(first, second, counts)


def ranks(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The rank of each of `values` (rows,) among the rows of samples, (samples, rows), from 0; equal values share the
    mean of theirs."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)  # (samples, values)
    ends = np.cumsum(sizes, axis=1)
    found: NDArray[np.float64] = (ends - (sizes + 1) / 2)[:, group]
    return found


def correlation(
    first: NDArray[np.float64], second: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Pearson's correlation, (samples,), of values (rows,) or (samples, rows) that count so often each; 0 where either
    is constant."""
    total = counts.sum(axis=1, keepdims=True)
    x, y = (values - (values * counts).sum(axis=1, keepdims=True) / total for values in (first, second))
    power = (x**2 * counts).sum(axis=1) * (y**2 * counts).sum(axis=1)
    shared = (x * y * counts).sum(axis=1)
    return np.asarray(shared / np.sqrt(np.where(power > 0, power, np.inf)), dtype=np.float64)
