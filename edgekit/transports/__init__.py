"""Where a file is executed: one small file each. `LOCAL` is a fresh process on this machine."""

from __future__ import annotations

from edgekit.transports.base import Transport
from edgekit.transports.local import LOCAL, Local

__all__ = ["LOCAL", "Local", "Transport"]
