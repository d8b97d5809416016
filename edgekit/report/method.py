"""How the figures came about and what they do not say: the same paragraphs on the page and in Markdown."""

from __future__ import annotations

from edgekit.report import words
from edgekit.report.schema import Report

__all__ = ["method"]


def method(report: Report) -> list[tuple[str, str]]:
    """Titled paragraphs; only what holds for this report."""
    c = report.conditions
    text = [
        (
            "What is measured.",
            "The exported file, in the runtime that will execute it, in a fresh process. Nothing is taken from a "
            "stand-in, and a figure that was not measured is left blank. Latency is that of one inference after "
            "warm-up; turning text into tokens is not in it.",
        ),
        (
            "Speed-up.",
            "Baseline and candidate take turns in the same run, round by round, so that a machine that slows "
            "down slows both. The figure is the median over rounds of the time of the baseline over the time of the "
            "file, with its 95% interval. It can differ a little from the ratio of the two p50 columns.",
        ),
        (
            "Accuracy.",
            "Points lost are paired: the same test examples through both files. The 95% interval covers which examples "
            "happened to be in the test set. An interval that holds 0 means that no difference was shown, not that "
            "there is none."
            + (
                f" With {words.plural(c.n, 'example')}, a single one is worth {words.number(100 / c.n, 2)} points."
                if c and c.n
                else ""
            ),
        ),
        (
            "Size and memory.",
            "Size is the model file alone, in decimal units (1 MB is 1,000,000 bytes). Peak memory is that of the "
            "whole process, with the runtime and its libraries.",
        ),
    ]
    if report.control:
        text.append(
            (
                "The control.",
                "The baseline is also timed against itself, in the same rounds. Its interval is the noise of this "
                "machine: a speed-up nearer to 1 than that shows nothing.",
            )
        )
    if report.gate and any(r.interval and (r.relative or r.rule.startswith("speedup")) for r in report.gate.rules):
        text.append(
            (
                "The gate.",
                "A speed-up, or a latency that a rule holds against the baseline, is decided round by round, by a test "
                "that errs in at most one of 200 cases however often one looks; so the interval in its sentence is "
                "wider than the table's. Where the rounds do not suffice, or the control is "
                "wider than the rule's margin, it is inconclusive.",
            )
        )
    limits = (
        "These figures hold for this machine, these threads and texts of this length; another processor may rank "
        "the files differently. The test data decide what accuracy means: texts of another kind may lose more."
    )
    return [*text, ("Limits.", limits)]
