"""When a tool's file counts as better than one of ours: nothing within noise excuses ours."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.encoders_peers import Point, dominates
from edgekit.report.schema import RoundRatio, Speedup
from edgekit.rounds import Measurement

ROWS, ROUNDS = 1000, 12


def point(*, size: int = 1000, time: float = 0.5, right: int = 900) -> Point:
    """A file of `size` bytes that takes `time` as long as the baseline, give or take 2%, and has `right` rows right."""
    wobble = 1 + 0.02 * np.sin(np.arange(ROUNDS) + size)
    rounds = tuple(RoundRatio(p50=t, p90=t, p99=t, cpu=None, pairs=9) for t in time * wobble)
    measured = Measurement(
        id="file",
        format="onnx",
        precision="int8",
        size_bytes=size,
        latency_ms=None,
        speedup=Speedup(value=1 / time, low=1 / time, high=1 / time, against="fp32"),
        rounds=rounds,
        load_ms=None,
        first_ms=None,
        peak_rss_bytes=None,
        runtime=None,
    )
    return Point("file", True, True, np.arange(ROWS) < right, measured)


@pytest.mark.parametrize(
    "theirs",
    [point(size=900), point(time=0.4), point(right=950)],
    ids=["smaller", "faster", "more often right"],
)
def test_better_in_one_and_no_worse_elsewhere_dominates(theirs: Point) -> None:
    assert dominates(theirs, point())
    assert not dominates(point(), theirs)


@pytest.mark.parametrize(
    "theirs",
    [
        point(size=1100, time=0.4, right=950),
        point(size=900, time=0.6, right=950),
        point(size=900, time=0.4, right=850),
    ],
    ids=["larger", "slower", "less often right"],
)
def test_worse_in_one_does_not(theirs: Point) -> None:
    assert not dominates(theirs, point())


def test_a_tie_within_noise_is_no_excuse_for_ours() -> None:
    """A byte less decides where speed and score cannot be told apart."""
    assert dominates(point(size=999, time=0.502, right=899), point())
    assert not dominates(point(time=0.502, right=899), point())
