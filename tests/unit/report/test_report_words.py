"""One rendering of each quantity."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report import words

UNITS = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "µs": 1e-3, "ms": 1.0, "s": 1e3}


def read(text: str) -> float:
    """A rendered quantity back as a number in its base unit."""
    value, unit = text.split(" ")
    return float(value.replace(",", "").replace("\u2212", "-")) * UNITS[unit]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.00 KB"),
        (1000, "1.00 KB"),
        (999_960, "1.00 MB"),
        (7_430_000, "7.43 MB"),
        (91_445_673, "91.4 MB"),
        (1.2e9, "1.20 GB"),
        (None, words.MISSING),
        (math.nan, words.MISSING),
    ],
)
def test_size(value: float | None, text: str) -> None:
    assert words.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ms"),
        (0.0042, "4.20 µs"),
        (0.0996, "0.0996 ms"),
        (0.814, "0.814 ms"),
        (12.34, "12.3 ms"),
        (999.96, "1.00 s"),
        (None, words.MISSING),
    ],
)
def test_milliseconds(value: float | None, text: str) -> None:
    assert words.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (432, "7 min 12 s"),
        (3599.7, "1 h 00 min"),
    ],
)
def test_duration(value: float, text: str) -> None:
    assert words.duration(value) == text


def test_a_zero_has_no_sign() -> None:
    assert words.points(-0.0001) == "0.0"
    assert words.percent(-0.0001) == "0.0%"
    assert words.signed_points(-0.0001) == "0.0"
    assert words.signed_points(0.004) == "+0.4"
    assert words.points_interval(-0.002, 0.011) == "[\u22120.2, 1.1]"


def test_ratios_are_finer_close_to_one() -> None:
    assert [words.ratio(v) for v in (12.14, 6.28, 1.996, 1.04, 0.92, 120.0)] == [
        "12.1×",
        "6.3×",
        "2.0×",
        "1.04×",
        "0.92×",
        "120×",
    ]
    assert words.ratio_interval(5.9, 6.8) == "[5.9, 6.8]"
    assert words.ratio_interval(0.97, 2.08) == "[0.97, 2.08]"
    assert words.ratio_interval(None, 2.0) == ""


def test_change() -> None:
    rendered = [words.change(91.0, after) for after in (91.0, 7.5, 30.0, 91.2, 1200.0, 200.0, 90.9)]
    assert rendered == ["±0%", "÷12.1", "\u221267%", "+0.2%", "×13.2", "+120%", "\u22120.1%"]
    assert words.change(None, 1.0) == words.change(0.0, 1.0) == words.MISSING


def test_clip_keeps_both_ends() -> None:
    assert [words.clip("abcdefghij", width) for width in (12, 10, 9, 5, 1)] == [
        "abcdefghij",
        "abcdefghij",
        "abcd…ghij",
        "ab…ij",
        "…",
    ]


@given(st.floats(min_value=1, max_value=9e12))
def test_size_reads_back(value: float) -> None:
    assert read(words.size(value)) == pytest.approx(value, rel=0.5 if value < 10 else 0.051 if value < 100 else 0.006)


@given(st.floats(min_value=1e-4, max_value=1e7))
def test_milliseconds_read_back(value: float) -> None:
    assert read(words.milliseconds(value)) == pytest.approx(value, rel=0.006)


@given(st.one_of(st.none(), st.floats()))
def test_any_number_renders_in_one_line(value: float | None) -> None:
    for render in (
        words.size,
        words.milliseconds,
        words.duration,
        words.rate,
        words.percent,
        words.points,
        words.ratio,
        words.number,
    ):
        text = render(value)
        assert text
        assert not re.search(r"nan|inf|\n", text)
        assert not text.startswith("-")


@given(st.text(), st.integers(min_value=1, max_value=30))
def test_clip_never_exceeds(text: str, width: int) -> None:
    assert len(words.clip(text, width)) <= max(width, 1)


def test_the_largest_numbers_do_not_overflow() -> None:
    for render in (words.size, words.milliseconds, words.percent, words.points, words.number, words.rate):
        assert render(1.7976931348623157e308)
