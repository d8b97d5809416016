"""adb: which device, and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import DeviceError
from edgekit.transports.adb import Adb

pytestmark = pytest.mark.adb


def test_the_only_device_needs_no_serial(adbd: Any, root: Path) -> None:
    adbd.connect(root=str(root)).probe()  # which connects
    assert Adb(root=str(root), python=sys.executable).probe().arch


def test_no_device_is_told(adbd: Any) -> None:
    with pytest.raises(DeviceError, match="no such device is there"):
        Adb().probe()


def test_an_unknown_serial_is_told(adbd: Any) -> None:
    with pytest.raises(DeviceError, match="adb R58M123: no such device is there"):
        Adb("R58M123").probe()


def test_several_devices_want_a_serial(adbd: Any, root: Path) -> None:
    adbd.connect(root=str(root)).probe()
    Adb("localhost:5655", root=str(root)).device.ask("true")
    with pytest.raises(DeviceError, match="several devices are there"):
        Adb(root=str(root)).probe()


def test_nobody_listening_is_told(adbd: Any) -> None:
    with pytest.raises(DeviceError, match="unreachable"):
        Adb("127.0.0.1:5").probe()


def test_adb_that_is_missing_is_told(adbd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for serial in ("", "127.0.0.1:5655"):
        with pytest.raises(DeviceError, match="adb is not installed here"):
            Adb(serial).probe()


def test_a_device_is_found_again_after_it_was_gone(adbd: Any, root: Path) -> None:
    device = adbd.connect(root=str(root))
    device.probe()
    adbd.cut()
    with pytest.raises(DeviceError):
        device.probe(("numpy",))
    adbd.stop()
    adbd.start()
    assert adbd.connect(root=str(root)).probe().arch
