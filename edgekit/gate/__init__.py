"""The gate: rules against a report. Pure: nothing is measured, read or written here."""

from edgekit.gate.judge import judge
from edgekit.gate.turns import settled

__all__ = ["judge", "settled"]
