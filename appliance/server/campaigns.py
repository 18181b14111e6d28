"""Campaigns in the control process: the runner, what it needs of the box, and the webhooks of leads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from pydantic import SecretStr

from appliance.calls.outgoing import Originator
from appliance.campaigns.results import CAMPAIGNS, LEAD_DONE
from appliance.campaigns.runner import CampaignRunner
from appliance.campaigns.stats import CampaignStats
from appliance.clock import Clock
from appliance.config import Settings
from appliance.config.egress import Hosts
from appliance.config.load import secrets_of
from appliance.hook_types import CampaignEvent
from appliance.plugins.declarative.http_client import HttpClient
from appliance.plugins.declarative.webhooks import NewEvent, Target
from appliance.plugins.hooks import Hooks
from appliance.signalling import dial_policy
from appliance.signalling.trunks import TrunkTable
from appliance.store.campaigns import CampaignStore

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 10.0
_ATTEMPTS: Final = 12
_CONCURRENCY: Final = 4
_MAX_WAITING: Final = 1_000_000
"""No result of a lead is dropped: there are no more than leads."""


class Campaigns:
    """The campaigns of the box.

    Args:
        settings: of the box.
        clock: of the machine.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._secrets = secrets_of(settings)
        self._store = CampaignStore(settings.store.url, box=settings.store.box or None, clock=clock)
        self._runner: CampaignRunner | None = None
        self._task: asyncio.Task[None] | None = None
        self._client: HttpClient | None = None

    @property
    def stats(self) -> CampaignStats:
        """Counters, and what holds campaigns back."""
        return self._runner.stats if self._runner is not None else CampaignStats()

    async def open(
        self,
        originator: Originator,
        trunks: TrunkTable,
        hooks: Callable[[], Hooks],
        has_line: Callable[[str], bool],
        sent: Callable[[Sequence[NewEvent]], None],
    ) -> None:
        """Know the campaigns; nobody is called yet.

        Args:
            originator: places calls.
            trunks: of the box.
            hooks: of the plugins there are now.
            has_line: whether the dialplan has a line of that name.
            sent: events for webhooks have been queued.

        Raises:
            StoreError: the database does not answer.
        """

        def tell(event: CampaignEvent) -> None:
            hooks().tell("campaign_event", None, event=event)

        def refuses(number: str, trunk: str) -> str:
            rule = trunks.by_name(trunk) if trunk else None
            if rule is None:
                return f"there is no trunk {trunk!r}" if trunk else ""  # the routes choose, and refuse
            refusal = dial_policy.refusal(number, rule)
            return refusal.text if refusal is not None else ""

        def cps(trunk: str) -> float | None:
            rule = trunks.by_name(trunk) if trunk else None
            return rule.max_cps if rule is not None else None

        self._client = HttpClient(
            Hosts.of(self._settings.plugins.allow_hosts),
            None if self._settings.egress is None else Hosts.of(self._settings.egress),
        )
        await self._store.open()
        self._runner = CampaignRunner(
            self._store,
            originator,
            self._clock,
            owned=lambda trunk: self._owned(trunks, trunk),
            refuses=refuses,
            has_line=has_line,
            trunk_cps=cps,
            tell=tell,
            sent=sent,
        )
        await self._runner.know()

    def start(self) -> None:
        """Call whom there is to call, from now on."""
        if self._runner is not None:
            self._task = asyncio.create_task(self._runner.run(), name="campaigns")

    async def wind_down(self) -> None:
        """Begin no call any more: the box is about to end those that there are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._runner is not None:
            await self._runner.wind_down()

    async def close(self) -> None:
        """Write down what the last calls came to."""
        await self.wind_down()
        if self._runner is not None:
            await self._runner.close()
        if self._client is not None:
            await self._client.close()
        await self._store.close()

    # --- webhooks -------------------------------------------------------------------------------------------------

    def client(self) -> HttpClient:
        """How results are sent: as plugins' are, to no private host that is not listed."""
        assert self._client is not None
        return self._client

    def target(self, campaign_id: str) -> Target | None:
        """Where the results of a campaign go; None where nobody knows any more."""
        definition = self._runner.definition(campaign_id) if self._runner is not None else None
        if definition is None or not definition.webhook.url:
            return None
        secret = self._secrets(definition.webhook.secret)
        if not isinstance(secret, SecretStr):
            logger.error("campaign %s: webhook.secret %s: %s", definition.name, definition.webhook.secret, secret)
            return None
        return Target(
            plugin=CAMPAIGNS,
            webhook=campaign_id,
            url=definition.webhook.url,
            events=frozenset({LEAD_DONE}),
            secret=secret,
            headers={},
            timeout_s=_TIMEOUT_S,
            attempts=_ATTEMPTS,
            concurrency=_CONCURRENCY,
            max_waiting=_MAX_WAITING,
        )

    def _owned(self, trunks: TrunkTable, trunk: str) -> AbstractSet[str]:
        """The numbers that may be shown on a trunk; on any, where the routes choose."""
        rules = [rule for rule in trunks if trunk in ("", rule.name)]
        return {number for rule in rules for number in (*rule.caller_ids, rule.caller_id) if number}
