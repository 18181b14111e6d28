"""An event loop whose clock jumps; see :mod:`appliance.testing.virtual_time`."""

from __future__ import annotations

from appliance.testing.virtual_time import VirtualLoop, run_virtual

__all__ = ["VirtualLoop", "run_virtual"]
