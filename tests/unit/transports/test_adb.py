"""adb's command, and what its complaints become. The complaints are adb's own (34.0.5)."""

from __future__ import annotations

import pytest

from edgekit.errors import UsageError
from edgekit.transports.adb import Adb


@pytest.mark.parametrize("serial", ["-a", "a b"])
def test_serials_that_would_be_options_are_refused(serial: str) -> None:
    with pytest.raises(UsageError):
        Adb(serial)


def test_the_line_is_one_argument() -> None:
    assert Adb("R58").open_shell().command("a 'b'; c") == ["adb", "-s", "R58", "shell", "-T", "a 'b'; c"]
    assert Adb().open_shell().command("a") == ["adb", "shell", "-T", "a"]


@pytest.mark.parametrize(
    ("stderr", "what", "hint"),
    [
        ("adb: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n", "does not trust", "accept"),
        ("adb: more than one device/emulator\n", "several devices", "serial"),
        ("adb: no devices/emulators found\n", "no such device", "adb devices -l"),
        ("adb: device 'R58' not found\n", "no such device", "plug it in"),
        ("adb: device offline\n", "offline", "adb reconnect"),
        ("* failed to start daemon\nadb: cannot connect to daemon\n", "own server", "adb start-server"),
        ("", "went away (adb ended without a word)", "killed by the device itself"),
    ],
)
def test_each_complaint_has_its_words_and_its_remedy(stderr: str, what: str, hint: str) -> None:
    error = Adb("R58").open_shell().failure(stderr)
    assert what in error.what
    assert hint in error.hint
