"""What a device says of itself, understood."""

from __future__ import annotations

import json

import pytest

from edgekit.errors import DeviceError
from edgekit.machine import describe, physical_in, processor
from edgekit.probe import machine_of

BOARD = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid asimdrdm asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: {first}
CPU revision\t: 1

processor\t: 1
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid asimdrdm asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: {second}

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
PC = (
    "processor: 0\nmodel name: X\nphysical id: 0\ncore id: {}\nflags: fma avx2\n\n"
    "processor: 1\nphysical id: 0\ncore id: {}\n"
)
ANSWER = {
    "arch": "aarch64",
    "system": "Linux 6.6",
    "python": "3.11.2",
    "cpuinfo": BOARD.format(first="0xd0b", second="0xd0b"),
    "logical_cores": 4,
    "allowed_cores": 2,
    "memory_bytes": 8_000_000_000,
    "governor": "ondemand",
    "temperature_c": 48.5,
    "load": [0.5, 0.25, 0.125],
    "packages": {"onnxruntime": "1.24.0"},
    "schema": 1,
    "error": None,
}


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (BOARD.format(first="0xd0b", second="0xd0b"), "cortex-a76"),
        (BOARD.format(first="0xd05", second="0xd41"), "cortex-a55 + cortex-a78"),
        (BOARD.format(first="0xfff", second="0xfff"), "BCM2835"),
        (PC.format(0, 1), "X"),
        ("", ""),
    ],
)
def test_cores_have_their_names(cpuinfo: str, name: str) -> None:
    assert processor(cpuinfo)[0] == name


def test_instruction_sets_of_interest() -> None:
    assert processor(BOARD)[1] == ("asimd", "asimdhp", "asimddp")
    assert processor(PC)[1] == ("avx2", "fma")


def test_hyper_threads_count_once() -> None:
    assert (physical_in(PC.format(0, 0)), physical_in(PC.format(0, 1)), physical_in(BOARD)) == (1, 2, 0)


def test_a_board() -> None:
    machine = machine_of(json.dumps(ANSWER).encode(), "board")
    assert (machine.cpu, machine.cores, machine.logical_cores) == ("cortex-a76", 2, 4)
    assert (machine.governor, machine.temperature_c, machine.int8_dot) == ("ondemand", 48.5, True)
    assert machine.libraries == {"onnxruntime": "1.24.0"}


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"error": {"kind": "bad_input", "message": "x"}}'])
def test_no_answer_is_told(raw: bytes) -> None:
    with pytest.raises(DeviceError, match="board: the probe brought no answer"):
        machine_of(raw, "board")


def test_this_machine() -> None:
    machine = describe()
    assert machine.cpu
    assert machine.temperature_c is None or -40 < machine.temperature_c < 150
