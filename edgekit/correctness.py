"""Which examples a file answers right, packed for a report: what two reports of one data set are paired by."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from pydantic import field_validator

from edgekit.artifact import Frozen
from edgekit.statistics import Drop, mcnemar, paired_difference

__all__ = ["Correctness"]


class Correctness(Frozen):
    """`n` examples of data with this digest; `bits`: one each, the first example's lowest, little-endian, base64."""

    data: str
    n: int
    bits: str

    @field_validator("bits")
    @classmethod
    def _readable(cls, bits: str) -> str:
        try:
            base64.b64decode(bits, validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
        return bits

    @classmethod
    def pack(cls, flags: Iterable[bool], data: str) -> Correctness:
        """`flags`: whether each example is right, in the order of the data."""
        number = n = 0
        for n, flag in enumerate(flags, 1):
            number |= int(flag) << (n - 1)
        packed = number.to_bytes((n + 7) // 8, "little")
        return cls(data=data, n=n, bits=base64.b64encode(packed).decode("ascii"))

    def drop_to(self, other: Correctness) -> Drop | None:
        """Accuracy of this one minus that of `other`, paired; None where they are not of the same examples."""
        if (self.data, self.n) != (other.data, other.n) or self.n == 0:
            return None
        mine, theirs = self._number(), other._number()
        only_mine, only_theirs = (mine & ~theirs).bit_count(), (theirs & ~mine).bit_count()
        found = paired_difference(only_mine, only_theirs, self.n)
        return Drop(value=found.value, low=found.low, high=found.high, p_value=mcnemar(only_mine, only_theirs))

    def _number(self) -> int:
        return int.from_bytes(base64.b64decode(self.bits), "little")
