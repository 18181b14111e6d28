"""How the box is, as /readyz tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.ipc.messages import ProcessState


@dataclass
class Status:
    """Every process as the supervisor last described it; satisfies admin's BoxStatus."""

    draining: bool = False
    processes: dict[str, ProcessState] = field(default_factory=dict)

    def process(self, state: ProcessState) -> None:
        self.processes[state.name] = state

    @property
    def ready(self) -> bool:
        """Every process is ready and calls are taken."""
        states = self.processes.values()
        return bool(states) and not self.draining and all(process.state == "ready" for process in states)
