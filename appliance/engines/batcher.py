"""Which requests an engine runs next: one policy, without a clock, for every engine of the box.

A request waits in a bounded queue until its batch is *ripe*: the batch is full, or its oldest member has waited long
enough for company, or nobody else could join in time. Ripe batches leave in the order priority, deadline, arrival;
a request that has waited ``starvation_s`` goes before all priorities, so that none waits for ever. What could not
be started before its deadline is dropped and reported, never run: an answer that comes too late costs the others
time and is worth nothing.

Time is a parameter (seconds on any clock that never steps); :meth:`Batcher.get_timer` says when to come back.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final

_HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to run.

    Attributes:
        id: unique among the requests that are queued or running.
        arrival: when it was asked for, seconds.
        deadline: when its answer stops being of use, seconds; ``math.inf`` for never.
        shape: only requests of equal shape share a batch (language, padded length...).
        priority: the smaller, the earlier.
        cost: its share of a batch's budget (seconds of audio, tokens...); see ``BatchPolicy.max_cost``.
    """

    id: int
    arrival: float
    deadline: float = math.inf
    shape: Hashable = None
    priority: int = 0
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests of one shape to be run together; given back with :meth:`Batcher.finished`."""

    id: int
    requests: tuple[Request, ...]
    formed_at: float


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """An engine's limits.

    Attributes:
        max_batch: requests run together at most.
        max_wait_s: how long a request waits for company while the engine has room; 0 runs what there is at once.
        max_running: batches under way at the same time.
        max_queue: requests that may wait; one more is refused.
        max_cost: the sum of costs in a batch; a single dearer request still runs, alone.
        starvation_s: after this wait a request goes before every priority.
    """

    max_batch: int = 1
    max_wait_s: float = 0.0
    max_running: int = 1
    max_queue: int = 256
    max_cost: float = math.inf
    starvation_s: float = 2.0

    def __post_init__(self) -> None:
        if min(self.max_batch, self.max_running, self.max_queue) < 1:
            raise ValueError("max_batch, max_running and max_queue must be at least 1")
        if self.max_wait_s < 0 or self.starvation_s < 0:
            raise ValueError("max_wait_s and starvation_s must not be negative")


@dataclass(slots=True)
class BatcherStats:
    """Counts since the start. added = refused-free adds = cancelled + dropped + dispatched + still queued."""

    added: int = 0
    refused: int = 0
    cancelled: int = 0
    dropped: int = 0
    dispatched: int = 0
    batches: int = 0
    queue_s_total: float = 0.0
    queue_s_max: float = 0.0


@dataclass(slots=True)
class _Group:
    """The waiting requests of one shape."""

    requests: dict[int, Request] = field(default_factory=dict)
    ripe_at: float = math.inf


class Batcher:
    """The queue and the choice. Not thread-safe; no request is ever lost, run twice or run after its deadline."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self.stats = BatcherStats()
        self._groups: dict[Hashable, _Group] = {}
        self._shapes: dict[int, Hashable] = {}
        self._running: dict[int, Batch] = {}
        self._dropped: list[Request] = []
        self._next_batch = 1

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return len(self._shapes)

    @property
    def running(self) -> int:
        """Requests in batches under way."""
        return sum(len(batch.requests) for batch in self._running.values())

    def add(self, request: Request, now: float) -> bool:
        """Take a request in; False where the queue is full (the caller answers that another worker may manage).

        Raises:
            ValueError: the id is queued already.
        """
        if request.id in self._shapes:
            raise ValueError(f"request {request.id} is queued already")
        self._expire(now)
        if len(self._shapes) >= self.policy.max_queue:
            self.stats.refused += 1
            return False
        self.stats.added += 1
        group = self._groups.setdefault(request.shape, _Group())
        group.requests[request.id] = request
        group.ripe_at = min(group.ripe_at, self._ripe_at(request))
        self._shapes[request.id] = request.shape
        return True

    def cancel(self, request_id: int) -> bool:
        """Forget a waiting request. False where it is not waiting (running, done or unknown)."""
        if request_id not in self._shapes:
            return False
        self._remove([request_id])
        self.stats.cancelled += 1
        return True

    def next_batch(self, now: float) -> Batch | None:
        """The batch to start now, if any is ripe and the engine has room. Ask again until None."""
        self._expire(now)
        if len(self._running) >= self.policy.max_running:
            return None
        best: tuple[bool, int, float, float, int] | None = None
        chosen: _Group | None = None
        for group in self._groups.values():
            if not self._is_ripe(group, now):
                continue
            key = min(self._order(request, now) for request in group.requests.values())
            if best is None or key < best:
                best, chosen = key, group
        if chosen is None:
            return None
        return self._form(chosen, now)

    def finished(self, batch: Batch) -> None:
        """The engine is through with ``batch``, whatever became of it.

        Raises:
            ValueError: it was not under way.
        """
        if self._running.pop(batch.id, None) is None:
            raise ValueError(f"batch {batch.id} is not under way")

    def handle_timer(self, now: float) -> None:
        """Drop what is past its deadline; see :meth:`take_dropped`."""
        self._expire(now)

    def take_dropped(self) -> list[Request]:
        """The requests dropped since the last call because their deadline passed, each exactly once."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def get_timer(self) -> float | None:
        """When to call :meth:`handle_timer` and :meth:`next_batch` next, if nothing else happens before.

        While every running place is taken only deadlines count; :meth:`finished` opens the next chance.
        """
        times = [r.deadline for g in self._groups.values() for r in g.requests.values() if r.deadline < math.inf]
        if len(self._running) < self.policy.max_running:
            times += [-math.inf if self._is_full(g) else g.ripe_at for g in self._groups.values()]
        return min(times, default=None)

    def _ripe_at(self, request: Request) -> float:
        """Waiting for company never uses up more than half of what is left until the deadline."""
        slack = max(request.deadline - request.arrival, 0.0)
        return request.arrival + min(self.policy.max_wait_s, slack * _HALF)

    def _is_ripe(self, group: _Group, now: float) -> bool:
        return self._is_full(group) or now >= group.ripe_at

    def _is_full(self, group: _Group) -> bool:
        if len(group.requests) >= self.policy.max_batch:
            return True
        return self.policy.max_cost < math.inf and sum(r.cost for r in group.requests.values()) >= self.policy.max_cost

    def _order(self, request: Request, now: float) -> tuple[bool, int, float, float, int]:
        if now - request.arrival >= self.policy.starvation_s:
            return (False, 0, 0.0, request.arrival, request.id)
        return (True, request.priority, request.deadline, request.arrival, request.id)

    def _form(self, group: _Group, now: float) -> Batch:
        taken: list[Request] = []
        cost = 0.0
        for request in sorted(group.requests.values(), key=lambda r: self._order(r, now)):
            if taken and cost + request.cost > self.policy.max_cost:
                continue
            taken.append(request)
            cost += request.cost
            if len(taken) == self.policy.max_batch:
                break
        self._remove(request.id for request in taken)
        batch = Batch(self._next_batch, tuple(taken), now)
        self._next_batch += 1
        self._running[batch.id] = batch
        waits = [max(now - request.arrival, 0.0) for request in taken]
        self.stats.dispatched += len(taken)
        self.stats.batches += 1
        self.stats.queue_s_total += sum(waits)
        self.stats.queue_s_max = max(self.stats.queue_s_max, *waits)
        return batch

    def _expire(self, now: float) -> None:
        late = [r for g in self._groups.values() for r in g.requests.values() if r.deadline <= now]
        if not late:
            return
        self._remove(request.id for request in late)
        self._dropped += late
        self.stats.dropped += len(late)

    def _remove(self, request_ids: Iterable[int]) -> None:
        touched: dict[Hashable, None] = {}
        for request_id in request_ids:
            shape = self._shapes.pop(request_id)
            del self._groups[shape].requests[request_id]
            touched[shape] = None
        for shape in touched:
            group = self._groups[shape]
            if group.requests:
                group.ripe_at = min(self._ripe_at(request) for request in group.requests.values())
            else:
                del self._groups[shape]
