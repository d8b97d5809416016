"""What stands between a transport and Python there: nothing, or an emulator with a core's profile."""

from __future__ import annotations

from edgekit.launchers.base import Launcher
from edgekit.launchers.native import Native

__all__ = ["Launcher", "Native"]
