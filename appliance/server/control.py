"""The control process: signalling, dialplan, conversations, the record and HTTP, wired together."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop
from aiohttp import web

from appliance.admin.app import make_app
from appliance.admin.auth import Tokens, protect
from appliance.admin.calls_api import CallsApi
from appliance.admin.campaigns_api import CampaignsApi
from appliance.admin.metrics import Metrics
from appliance.admin.phone import PhonePages
from appliance.admin.plugin_routes import PluginRoutes
from appliance.admin.status import BoxStatus
from appliance.calls.builtin_tools import BuiltinTools
from appliance.calls.declarative_tools import DeclarativeTools
from appliance.calls.outgoing import BoxOriginator
from appliance.calls.recording import RecorderClient
from appliance.calls.registry import CallRegistry
from appliance.calls.services import NamedEngine, Services
from appliance.calls.tool_sources import ToolSources
from appliance.calls.traces import CallTraces
from appliance.calls.transfer import Transfers
from appliance.calls.warm_up import WarmUp
from appliance.calls.watch import CallWatch
from appliance.clock import SystemClock
from appliance.config import Settings
from appliance.conversation.budget import VerdictBudget
from appliance.conversation.speculation import SpeculationBudget
from appliance.engines.builtin import provider_registry
from appliance.engines.client import EnginePool
from appliance.errors import ApplianceError, ConfigError
from appliance.events import CallEvent, CallStarted
from appliance.ipc.child import EXIT_UNUSABLE, SupervisorLink, allow_open_files
from appliance.ipc.logs import configure_logging
from appliance.ipc.messages import AnyMessage, Drain, Drained, LegClosed, Need, ProcessState
from appliance.ipc.rings import AudioRings
from appliance.ipc.settings import read_settings
from appliance.media.client import MediaClient
from appliance.plugins.declarative.source import Declarative
from appliance.plugins.link import PluginLink
from appliance.plugins.plan import Chosen, effective
from appliance.plugins.providers import trunk_plugins
from appliance.server.campaigns import Campaigns
from appliance.server.compiling import Plan, compiled
from appliance.server.kept import KeptPlan
from appliance.server.plan import pool_name, pool_of
from appliance.server.reload import Commit, Outcome, Reloader, listen, watch
from appliance.server.spans import CallSpans, call_spans
from appliance.server.webhooks import Webhooks
from appliance.signalling.browser import BrowserCarrier
from appliance.signalling.builtin_carriers import carrier_registry
from appliance.signalling.leg import MediaSlot, PlacedCall
from appliance.signalling.routes import Attempt, Dialler, Router
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import OutgoingCall
from appliance.signalling.stream_desk import StreamDesk
from appliance.signalling.tls import TlsServer
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.sip.useragent import Limits
from appliance.store.calls import CallStore
from appliance.store.retention import keep_expiring

logger = logging.getLogger(__name__)

_TIDY_EVERY_S: Final = 15.0
_CAME_TO: Final = {"refused": "was refused", "failed": "has failed"}
_SHUTDOWN_S: Final = 2.0
"""How long requests that are being answered may take once the box stops."""


class EventLog:
    """Every event of every call: the record first, then the metrics, then whoever watches."""

    def __init__(self, store: CallStore, metrics: Metrics, watch: CallWatch) -> None:
        self._store = store
        self._metrics = metrics
        self._watch = watch
        self.traces: CallTraces | None = None
        self.webhooks: Webhooks | None = None
        self.spans: CallSpans | None = None

    def started(self, event: CallStarted) -> asyncio.Future[None]:
        if self.traces is not None:
            self.traces.observe(event)
        if self.spans is not None:
            self.spans.observe(event)
        self._metrics.observe(event)
        self._watch.observe(event)
        committed = self._store.call_started(event)
        if self.webhooks is not None:
            self.webhooks.observe(event)
        return committed

    def say(self, event: CallEvent) -> None:
        if self.webhooks is not None:
            self.webhooks.observe(event)
        self._store.observe(event)
        self._metrics.observe(event)
        self._watch.observe(event)
        if self.traces is not None:
            self.traces.observe(event)
        if self.spans is not None:
            self.spans.observe(event)

    def leg_closed(self, leg: LegClosed) -> None:
        self._metrics.leg_closed(leg)


class Control:
    """Everything the control process holds, from start to stop."""

    def __init__(self, settings: Settings, rings: AudioRings, workers: list[str], kept: KeptPlan) -> None:
        self._settings = settings
        self._workers = workers
        self._rings = rings
        self._kept = kept
        self._outdated = ""
        self._metrics = Metrics()
        self._status = BoxStatus(["media", "recorder", "control", *workers], self._metrics)
        self._clock = SystemClock()
        self._watch = CallWatch(frozenset({"browser"}))
        self._draining: asyncio.Task[None] | None = None
        self._link = SupervisorLink("control", self._from_supervisor)

    async def run(self) -> None:
        """Start in the order that nothing is offered before it works; stop in the reverse order."""
        settings = self._settings
        await self._link.open(settings.runtime_dir)
        reading = asyncio.create_task(self._first_plan(), name="dialplans")
        store = CallStore(settings.store.url, box=settings.store.box or None)
        await store.open()
        plan = self._plan = await reading
        for warning in plan.warnings:
            logger.warning("%s", warning)
        declarative = Declarative.of(settings, plan.yaml)
        webhooks = Webhooks(declarative, self._chosen, store, self._clock)
        webhooks.open()
        reason = "the appliance stopped without ending the call"
        interrupted = await store.interrupt_open_calls(reason, webhooks.interrupted)
        self._metrics.calls_recovered(interrupted)
        if interrupted:
            logger.warning("%d calls were cut off when the appliance last stopped; they are marked so", interrupted)
        media = MediaClient(settings.runtime_dir, self._rings.capacity, self._media_host())
        media.on_stats = self._metrics.media_stats
        recorder = RecorderClient(settings.runtime_dir, self._rings) if settings.recording.enabled else None
        pools = self._pools()
        await asyncio.gather(
            media.start(), *(pool.start() for pool in pools.values()), *([recorder.start_up()] if recorder else [])
        )
        tts = pools.get("tts")
        if tts is None:
            raise ApplianceError("engines.tts.provider is none: nothing could be said; set one, espeak for instance")
        plugins = self._plugins = PluginLink(
            settings.runtime_dir, settings.plugins.hang_s, lambda: self._link.send(Need("plugins")), self._metrics
        )
        self._metrics.watch_plugins(plugins.switched_off, lambda: plugins.pong)
        hooks = await plugins.set_up(plan.plugins)
        voices = {"": tts} | {name: pools[pool_name("tts", name)] for name in settings.engines.named.tts}
        warm_ups = {
            name: WarmUp(voice, plan.lines.distinct if settings.engines.voice(name).cache_mb else (), name)
            for name, voice in voices.items()
        }
        trunks = TrunkTable(TrunkRule.of(name, trunk) for name, trunk in settings.trunks.items())
        router = Router(trunks, settings.routes)
        dialler = Dialler(router, trunks, self._dial, self._clock.monotonic, self._place)
        self._metrics.watch_trunks(trunks, router)
        self._status.trunks = trunks
        verdicts = VerdictBudget()
        speculation = SpeculationBudget(strained=lambda: verdicts.strained)
        self._metrics.watch_budgets(lambda: {"verdict": verdicts.refused, "speculation": speculation.refused})
        log = EventLog(store, self._metrics, self._watch)
        log.webhooks = webhooks
        log.spans = call_spans(settings.traces.endpoint) if settings.traces.endpoint is not None else None
        plugins.on_run = log.spans.hook_ran if log.spans is not None else None
        services = Services(
            clock=self._clock,
            rings=self._rings,
            media=media,
            recorder=recorder,
            log=log,
            asr=pools.get("asr"),
            turn=pools.get("turn"),
            verdicts=verdicts,
            speculation=speculation,
            tts=tts,
            llm=pools.get("llm"),
            speech=pools.get("speech"),
            asr_timeout_s=settings.engines.asr.timeout_s,
            llm_timeout_s=settings.engines.llm.timeout_s,
            recordings=settings.store.recordings.absolute(),
            callers=store.callers,
            trunks=trunks,
            transfers=Transfers(dialler, trunks, media, self._metrics.leg_closed),
            warm_up=warm_ups[""],
            named={
                (kind, name): NamedEngine(
                    pools[pool_name(kind, name)], settings.engines.of(kind, name).timeout_s, warm_ups.get(name)
                )
                for kind, name in settings.engines.all_named()
            },
            hooks=hooks,
            records=store,
            tools=ToolSources(
                [
                    ("builtin", BuiltinTools()),
                    ("declarative", DeclarativeTools(declarative, settings.plugins.chosen)),
                ]
            ),
        )
        plan.routing.prepare(self._clock.utc())
        registry = CallRegistry(
            plan.routing,
            services,
            max_calls=settings.limits.max_calls,
            max_cps=settings.limits.max_cps,
        )
        self._metrics.watch_refusals(lambda: registry.refused)
        self._registry = registry
        originator = BoxOriginator(registry, dialler, trunks, self._clock.monotonic)
        campaigns = Campaigns(settings, self._clock)
        webhooks.campaigns = campaigns
        await campaigns.open(
            originator,
            trunks,
            lambda: registry.hooks,
            lambda line: registry.routing.line(line) is not None,
            webhooks.of_campaigns,
        )
        calls_api = CallsApi(originator)
        campaigns_api = CampaignsApi(settings, lambda: registry.routing.lines)
        plugins.on_trouble = registry.trouble
        endpoint = self._endpoint = await self._listen(registry, trunks)
        log.traces = CallTraces(endpoint.trace, store.observe)
        desk = self._desk = self._carriers(registry, trunks, media)
        http = await self._serve_http(desk, registry, [*calls_api.routes(), *campaigns_api.routes()])
        await desk.start()
        self._status.add_check("record", lambda: store.stats.failing)
        self._status.add_warning("dialplans", lambda: self._outdated)
        self._metrics.watch_dialplans(lambda: bool(self._outdated))
        self._metrics.watch_store(lambda: store.stats)
        self._metrics.watch_webhooks(lambda: webhooks.stats)
        self._metrics.watch_campaigns(lambda: campaigns.stats)
        self._status.add_warning("campaigns", lambda: campaigns.stats.problem)
        self._metrics.watch_sip(lambda: endpoint.counters)
        forgetting = asyncio.create_task(
            keep_expiring(settings.store.url, settings.store.retention_days, self._clock, settings.store.box or None),
            name="retention",
        )
        tidying = asyncio.create_task(_keep_tidy(), name="memory")
        warming = [asyncio.create_task(one.run(), name="warm-up") for one in warm_ups.values()]
        telling = asyncio.create_task(webhooks.run(), name="webhooks")
        reloader = Reloader(
            plan,
            partial(compiled, settings),
            [partial(self._other_plan, registry, plugins, declarative, [*warm_ups.values()]), self._keep],
            self._reloaded,
        )
        orders = await listen(settings.runtime_dir, reloader.reload)
        watching = asyncio.create_task(self._watch_files(reloader), name="watch files")
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up, endpoint, reloader)
        registry.accepting = True
        campaigns.start()
        self._link.ready()
        await self._link.stopping.wait()
        orders.close()
        await campaigns.wind_down()
        await registry.end_all("the appliance is stopping")
        await campaigns.close()
        await calls_api.close()
        await campaigns_api.close()
        forgetting.cancel()
        tidying.cancel()
        for task in warming:
            task.cancel()
        telling.cancel()
        watching.cancel()
        await asyncio.gather(forgetting, tidying, *warming, telling, watching, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in warm_ups.values()))
        await declarative.close()
        await endpoint.stop()
        log.traces.close()
        await desk.close()
        await http.cleanup()
        await plugins.close()
        if log.spans is not None:
            await asyncio.to_thread(log.spans.close)
        for pool in pools.values():
            await pool.stop()
        if recorder is not None:
            await recorder.shut_down()
        await media.stop()
        await store.close()
        self._link.close()

    async def _first_plan(self) -> Plan:
        """What the files hold; after a restart and where they are not in order, what they held before.

        Raises:
            ConfigError: with every mistake in them.
            ApplianceError: they cannot be read.
        """
        try:
            plan = await compiled(self._settings)
        except ApplianceError as error:
            last = await asyncio.to_thread(self._kept.last, self._settings)
            if last is None:
                raise
            for line in error.mistakes if isinstance(error, ConfigError) else [error]:
                logger.error("%s", line)
            self._outdated = "the files were not in order at the restart: calls are answered by what they held before"
            logger.error("dialplans: %s; mend them, and reload", self._outdated)
            return last
        await asyncio.to_thread(self._kept.keep, plan)
        return plan

    async def _keep(self, plan: Plan) -> Commit:
        """Keep the plan for a restart. The last thing that is made ready: nothing can be wrong with it any more."""
        await asyncio.to_thread(self._kept.keep, plan)
        return lambda: None

    def _reloaded(self, outcome: Outcome) -> None:
        self._metrics.reloaded(outcome.what)
        taken = outcome.what in ("changed", "unchanged")
        self._outdated = (
            "" if taken else f"the last reload {_CAME_TO[outcome.what]}: calls are answered by what was before"
        )

    async def _other_plan(
        self,
        registry: CallRegistry,
        plugins: PluginLink,
        declarative: Declarative,
        warm_ups: Sequence[WarmUp],
        plan: Plan,
    ) -> Commit:
        """Make everything ready that goes with a dialplan.

        Raises:
            ApplianceError: a plugin cannot be used any more.
        """
        await asyncio.to_thread(plan.routing.prepare, self._clock.utc())
        hooks = registry.hooks if plan.plugins == self._plan.plugins else await plugins.set_up(plan.plugins)

        before = {source.name: source.code for source in self._plan.plugins.sources}
        for source in plan.plugins.sources:
            if before.get(source.name, source.code) != source.code:
                logger.info("the program of plugin %s has changed: later calls go by the new one", source.name)

        def commit() -> None:
            self._plan = plan
            registry.take_over(plan.routing, hooks)
            self._retiring = asyncio.gather(*(client.retire() for client in declarative.take(plan.yaml)))
            for warm_up in warm_ups:
                warm_up.take_over(plan.lines.distinct)

        return commit

    async def _watch_files(self, reloader: Reloader) -> None:
        """Reload when a file has changed, where that is wanted."""
        settings = self._settings
        if not settings.dialplans.watch:
            return
        beside = [settings.secrets_file] if settings.secrets_file is not None else []
        fixed = (*settings.dialplans.paths, *settings.plugins.paths, *beside)

        def watched() -> Iterable[Path]:
            sources = reloader.plan.plugins.sources
            packages = (Path(source.where).parent for source in sources if source.kind == "package")
            return (*fixed, *map(Path, reloader.plan.files), *packages)

        await watch(watched, reloader.reload)

    def _hang_up(self, endpoint: SipEndpoint, reloader: Reloader) -> None:
        """SIGHUP: read everything again that can be read again."""
        endpoint.reload()
        self._reloading = asyncio.create_task(reloader.reload("SIGHUP"), name="reload")

    def _chosen(self, line: str) -> Chosen:
        """The plugins of a line, with their values."""
        found = self._plan.routing.line(line)
        return effective(self._settings.plugins.chosen, found.plugins if found is not None else {})

    def _pools(self) -> dict[str, EnginePool]:
        registry, engines = provider_registry(), self._settings.engines
        pools: dict[str, EnginePool] = {}
        for pool in dict.fromkeys(map(pool_of, self._workers)):
            names = [name for name in self._workers if pool_of(name) == pool]
            kind, _, engine_name = pool.partition(".")
            engine = engines.of(kind, engine_name)
            pools[pool] = EnginePool(
                kind,
                names,
                self._settings.runtime_dir,
                sticky=kind == "tts",
                partials=kind == "asr"
                and engine.provider in registry.offers(kind)  # of a plugin's, control knows no more than the name
                and registry.partials(kind, engine.provider, engine.options),
            )
            pools[pool].on_stats = self._metrics.worker_stats
        return pools

    async def _dial(self, target_uri: str, from_uri: str, media: MediaSlot, **how: Any) -> OutgoingCall:
        """Place a call; only after the endpoint has been started."""
        return await self._endpoint.dial(target_uri, from_uri, media, **how)

    async def _place(self, attempt: Attempt, media: MediaSlot, **how: Any) -> PlacedCall:
        """Have a carrier place a call; only after the desk has been made."""
        return await self._desk.place(attempt, media, **how)

    async def _listen(self, registry: CallRegistry, trunks: TrunkTable) -> SipEndpoint:
        listen = self._settings.listen
        endpoint = SipEndpoint(
            [
                ListenOn(one.transport, one.host, one.port, TlsServer(one.cert, one.key) if one.cert else None)
                for one in listen.sip
            ],
            trunks=trunks,
            on_call=registry.admit,
            user_agent_name="appliance",
            advertised_host=listen.advertised,
            media_host=self._media_host(),
            limits=Limits(half_open=max(50, self._settings.limits.max_calls * 3 // 4)),
        )
        await endpoint.start()
        return endpoint

    def _carriers(self, registry: CallRegistry, trunks: TrunkTable, media: MediaClient) -> StreamDesk:
        """The carriers of the trunks that are not SIP's.

        Raises:
            ApplianceError: the settings of one are wrong, or its plugin cannot be imported.
        """
        kinds = carrier_registry(trunk_plugins(self._settings))
        desk = StreamDesk(
            list(trunks),
            kinds.create_carrier,
            on_call=registry.admit,
            send=media.send,
            media_port=self._settings.listen.media.port,
            proxies=self._settings.listen.proxies,
            refused=lambda trunk: trunks.state(trunk).counters.update(("refused_webhook",)),
        )
        media.on_stream_offered = desk.offered
        return desk

    async def _serve_http(self, desk: StreamDesk, registry: CallRegistry, api: list[web.RouteDef]) -> web.AppRunner:
        where = self._settings.listen.http
        app = make_app(self._status)
        protect(app, Tokens([token.get_secret_value() for token in self._settings.api.tokens]))
        app.router.add_routes(api)
        desk.add_routes(app)
        phones = {name: one for name in self._settings.trunks if isinstance(one := desk.carrier(name), BrowserCarrier)}
        app.router.add_routes(PluginRoutes(self._plugins).routes())
        app.router.add_routes(PhonePages(phones, lambda: registry.routing, self._watch).routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, where.host, where.port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ApplianceError(
                f"cannot listen for HTTP on {where.host}:{where.port}/tcp: {reason}; stop the program that has it, or "
                "set another listen.http.port"
            ) from error
        return runner

    def _media_host(self) -> str:
        listen = self._settings.listen
        return listen.advertised or listen.rtp_host

    def _from_supervisor(self, message: AnyMessage) -> None:
        match message:
            case ProcessState():
                self._status.process_state(message)
            case Drain():
                self._status.draining = True
                self._draining = asyncio.create_task(self._drain(message.deadline_s))
            case _:
                logger.error("the supervisor sent %s", type(message).__name__)

    async def _drain(self, deadline_s: float) -> None:
        await self._registry.drain(deadline_s)
        self._link.send(Drained())


async def _keep_tidy() -> None:
    """Keep memory at what the calls need: what was made at start is left out of every collection, cycles of finished
    calls are collected now and then, and what the C library holds on to is given back."""
    gc.collect()
    gc.freeze()
    library = ctypes.CDLL(None)
    while True:
        await asyncio.sleep(_TIDY_EVERY_S)
        gc.collect()
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="appliance-control", description="Started by `appliance serve`.")
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("--rings-fd", type=int, required=True)
    parser.add_argument("--capacity", type=int, required=True)
    parser.add_argument("--kept-fd", type=int, required=True)
    parser.add_argument("--workers", required=True, help="names of the engine workers, comma-separated")
    arguments = parser.parse_args()
    settings = read_settings(arguments.settings_fd)
    configure_logging("control", settings.log.level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    allow_open_files()
    rings = AudioRings.attach(arguments.rings_fd, arguments.capacity)
    control = Control(settings, rings, arguments.workers.split(","), KeptPlan(arguments.kept_fd))
    try:
        uvloop.run(control.run())
    except (ApplianceError, OSError) as error:
        logger.error("%s", error)
        sys.exit(EXIT_UNUSABLE)


if __name__ == "__main__":
    main()
