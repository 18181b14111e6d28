"""Whether the box can take calls, and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from appliance.admin.metrics import Metrics
from appliance.clock import Clock, SystemClock
from appliance.ipc.messages import ProcessState
from appliance.signalling.trunks import COUNTED, TrunkTable


class BoxStatus:
    """What the control process knows of the whole box.

    Args:
        expected: names of the processes that must be ready, as the supervisor calls them.
        metrics: told about every process state too, and shown at /metrics.
    """

    def __init__(self, expected: Iterable[str], metrics: Metrics, clock: Clock | None = None) -> None:
        self.metrics = metrics
        self.draining = False
        """Set while no new calls are taken and the running ones end."""
        self._clock = clock or SystemClock()
        self._started_at = self._clock.monotonic()
        self._states = dict.fromkeys(expected, "starting")
        self._checks: dict[str, Callable[[], str]] = {}
        self._warnings: dict[str, Callable[[], str]] = {}
        self.trunks: TrunkTable | None = None
        """Shown at /trunks."""

    @property
    def uptime_s(self) -> float:
        return self._clock.monotonic() - self._started_at

    def process_state(self, state: ProcessState) -> None:
        """Take the supervisor's word on a process."""
        if state.name in self._states:
            self._states[state.name] = state.state
        self.metrics.process_state(state)

    def add_check(self, name: str, check: Callable[[], str]) -> None:
        """``check`` returns "" or, in words, why ``name`` keeps the box from taking calls (the record, say)."""
        self._checks[name] = check

    def add_warning(self, name: str, check: Callable[[], str]) -> None:
        """``check`` returns "" or, in words, what is wrong with ``name`` although calls are taken."""
        self._warnings[name] = check

    def warnings(self) -> dict[str, str]:
        """What somebody should see to although calls are taken: name to what it is."""
        return {name: warning for name, check in self._warnings.items() if (warning := check())}

    def trunk_states(self) -> dict[str, dict[str, object]]:
        """How each trunk is now, by name; what it does not do (register, be asked) is None."""
        if self.trunks is None:
            return {}
        found: dict[str, dict[str, object]] = {}
        for rule in self.trunks:
            state = self.trunks.state(rule.name)
            found[rule.name] = {
                "kind": rule.kind,
                "registered": state.registered,
                "registration": state.registration,
                "reachable": state.reachable,
                "round_trip_ms": state.round_trip_ms,
                "calls": state.calls,
                "events": {name: state.counters[name] for name in COUNTED},
            }
        return found

    def not_ready(self) -> dict[str, str]:
        """What keeps the box from taking calls: name to reason. Empty: it takes them."""
        reasons = {name: state for name, state in self._states.items() if state != "ready"}
        reasons |= {name: reason for name, check in self._checks.items() if (reason := check())}
        if self.draining:
            reasons["drain"] = "no new calls are taken, the running ones end"
        return reasons
