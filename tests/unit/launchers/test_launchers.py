"""What a launcher says of itself, and how it reads counts; that it starts anything, tests/device shows."""

from __future__ import annotations

import pytest

from edgekit.errors import DeviceError
from edgekit.launchers.bundle import Bundle
from edgekit.launchers.qemu import Qemu
from edgekit.transports import Local


def test_what_is_emulated_is_not_called_measured() -> None:
    assert (Qemu("cortex-a53").fidelity, Bundle().fidelity) == ("emulated", "measured")
    assert Local(Qemu("cortex-a53")).fidelity == "emulated"
    assert Local(Qemu("cortex-a53")).name == "local, cortex-a53"
    assert (Qemu("cortex-a53").counts, Qemu("cortex-a53", count=False).counts, Bundle().counts) == (
        "instructions.txt",
        "",
        "",
    )


def test_counts_are_one_a_line() -> None:
    assert Qemu("cortex-a76").instructions(b"1200\n1300\n") == (1200, 1300)
    assert Qemu("cortex-a76").instructions(b"") == ()
    with pytest.raises(DeviceError, match=r"instructions\.txt: broken"):
        Qemu("cortex-a76").instructions(b"12\nmany\n")
