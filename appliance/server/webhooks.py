"""Webhooks of YAML plugins in the control process: from the events of calls, by the record, to those who want them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from appliance.campaigns.results import CAMPAIGNS
from appliance.clock import Clock
from appliance.events import CallEvent
from appliance.plugins.declarative.delivery import Delivery, WebhookStats
from appliance.plugins.declarative.http_client import HttpClient
from appliance.plugins.declarative.source import Declarative
from appliance.plugins.declarative.webhooks import NewEvent, Target, WebhookEvents
from appliance.plugins.plan import Chosen
from appliance.server.campaigns import Campaigns
from appliance.store.calls import CallStore

logger = logging.getLogger(__name__)


class Webhooks:
    """Keeps what webhooks are to be told, and tells them.

    Args:
        source: the YAML plugins.
        chosen: the plugins of a line with their values, by the line's name.
        store: the call record; open it before :meth:`run`.
        clock: for due times.
    """

    def __init__(self, source: Declarative, chosen: Callable[[str], Chosen], store: CallStore, clock: Clock) -> None:
        self._source = source
        self._chosen = chosen
        self._store = store
        self._clock = clock
        self._events = WebhookEvents(self._targets_of, lambda: f"evt_{uuid.uuid4().hex}", clock.utc)
        self._delivery: Delivery | None = None
        self.campaigns: Campaigns | None = None

    @property
    def stats(self) -> WebhookStats:
        """Counters, and what waits."""
        return self._delivery.stats if self._delivery is not None else WebhookStats()

    def observe(self, event: CallEvent) -> None:
        """Keep what is to be told of ``event``. Call it before the event itself is put on record."""
        if self._delivery is None:
            return
        try:
            made = self._events.events(event)
        except Exception:
            # Whatever a peer managed to put into an event: its record comes first.
            logger.exception("call %s: webhooks are not told of %s", event.call_id, type(event).__name__)
            return
        if made:
            self._store.keep_events([new for target, new in made if self._delivery.room(target, new)])

    def interrupted(self, call: Mapping[str, Any], ended_at: datetime) -> list[NewEvent]:
        """What is to be told of a call that was cut off when the box last stopped."""
        reason = "the appliance stopped without ending the call"
        return [new for _, new in self._events.interrupted(call, ended_at, reason)]

    def open(self) -> None:
        """Take events from now on; the record is open."""
        self._delivery = Delivery(self._store.webhook_queue, self._target_of, self._client, self._clock)

    async def run(self) -> None:
        """Deliver until cancelled. Call :meth:`open` before."""
        assert self._delivery is not None
        await self._delivery.run()

    def _targets_of(self, line: str) -> list[Target]:
        return self._source.targets_of(line, self._chosen(line))

    def of_campaigns(self, events: Sequence[NewEvent]) -> None:
        """Look for events that have been queued with what they tell of."""
        if self._delivery is None or self.campaigns is None:
            return
        for event in events:
            target = self.campaigns.target(event.webhook)
            if target is not None:
                self._delivery.room(target, event)

    def _client(self, plugin: str) -> HttpClient:
        return self.campaigns.client() if plugin == CAMPAIGNS and self.campaigns else self._source.client(plugin)

    def _target_of(self, plugin: str, webhook: str, line: str) -> Target | None:
        if plugin == CAMPAIGNS:
            return self.campaigns.target(webhook) if self.campaigns is not None else None
        return next((one for one in self._targets_of(line) if one.key == (plugin, webhook)), None)
