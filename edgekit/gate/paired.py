"""What a rule about accuracy can be sure of: whether the paired sample bears out what the value says."""

from __future__ import annotations

from edgekit.report.schema import BaselineEntry, Deployable
from edgekit.sample_size import disagreement_of, rows_needed
from edgekit.sequential import Verdict
from edgekit.statistics import Drop

__all__ = ["accuracy_note", "drop_of", "paired_verdict"]


def drop_of(entry: Deployable, earlier: BaselineEntry | None) -> Drop | None:
    """The paired drop from the report's own baseline, or from an earlier file of this one; None where not paired."""
    if earlier is None:
        return entry.accuracy_drop
    if earlier.correctness is None or entry.correctness is None:
        return None
    return earlier.correctness.drop_to(entry.correctness)


def paired_verdict(verdict: Verdict, drop: Drop | None, margin: float) -> Verdict:
    """A file whose value lies beyond the limit fails where the paired interval does too; else nobody can tell.

    One whose value lies within passes: what is lost is then as likely less than it seems as more. Asked to prove that,
    no small test set could pass anything.
    """
    return "inconclusive" if verdict == "fail" and drop is not None and drop.low <= margin else verdict


def accuracy_note(
    verdict: Verdict, drop: Drop | None, margin: float, rows: int | None, metric: str = "accuracy"
) -> str:
    """How far the verdict is from chance. `margin`: how much of the main `metric` the rule lets a file lose."""
    if drop is None:
        return "not paired, so chance is not ruled out"
    told = f"lost {drop.value * 100:.2f}pt [{drop.low * 100:.2f}, {drop.high * 100:.2f}]"
    exact = metric == "accuracy"  # an answer is right or wrong
    told += f", {'McNemar' if exact else 'bootstrap'} p = {drop.p_value:.2g}" if drop.p_value is not None else ""
    if drop.high <= margin if verdict == "pass" else drop.low > margin:
        return f"{told}: the sample tells"
    share = disagreement_of(drop, rows) if exact and rows else 0.0
    needed = rows_needed(margin, share) if share > 0 and margin > 0 else 0
    if rows and needed > rows:
        return f"{told}: {rows:,} examples cannot tell, a margin of {margin * 100:.2g}pt takes about {needed:,}"
    return f"{told}: too close to the limit for this sample to tell"
