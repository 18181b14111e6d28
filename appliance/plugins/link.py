"""Control's link to the plugin host: asks it, watches it, kills it when it hangs, and knows whose fault that was."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from appliance.errors import ChannelClosed, PluginError, ToolError
from appliance.ipc.channel import Channel, connect
from appliance.ipc.hook_messages import (
    TOLD,
    Blamed,
    BodyPart,
    CallOver,
    ForgetPlan,
    ForgetRun,
    HookCall,
    HookDone,
    HookOutcome,
    HttpAnswered,
    Ping,
    Pong,
    RunHook,
    SetUp,
    SetUpDone,
    ToolDone,
    UseCall,
)
from appliance.ipc.messages import AnyMessage
from appliance.plugins.breaker import Breaker, Key
from appliance.plugins.hook_table import HOOKS
from appliance.plugins.hooks import HookRun, Hooks, make_table
from appliance.plugins.http_limits import parts
from appliance.plugins.http_proxy import HttpProxy
from appliance.plugins.liveness import Liveness
from appliance.plugins.marker import Mark
from appliance.plugins.plan import Manifest, PluginPlan
from appliance.plugins.tool_calls import NOT_AVAILABLE, ToolCalls
from appliance.tool_types import OngoingCall

logger = logging.getLogger(__name__)

SOCKET: Final = "plugins.sock"
_SLACK_S: Final = 0.1
"""What messages and a loaded machine may add to budgets."""
_SET_UP_S: Final = 60.0
_MAX_WAITING: Final = 2000
_LOG_AGAIN_S: Final = 10.0
_LEFT_OUT_S: Final = 60.0
_SETTING_UP: Final = frozenset({"import", "describe", "configure", "started"})
_CONNECT_S: Final = 3600.0


class HookMetrics(Protocol):
    """Who counts."""

    def hook_ran(self, hook: str, plugin: str, outcome: str, seconds: float) -> None: ...
    def plugin_host_ended(self, plugin: str, how: str) -> None: ...


@dataclass(eq=False)
class _Plan:
    number: int
    plan: PluginPlan
    done: asyncio.Future[Manifest]
    manifest: Manifest | None = None
    answer: bytearray = field(default_factory=bytearray)
    there: bool = False


@dataclass(eq=False)
class _Waiting:
    """A hook that runs. ``told`` is what becomes of it where the host ends."""

    hook: str
    plugins: tuple[str, ...]
    call_id: str
    line: str
    began_at: float
    done: asyncio.Future[HookDone | None]


class PluginLink:
    """Runs the hooks of :class:`~appliance.plugins.hooks.Hooks` in the plugin host.

    Args:
        runtime_dir: where the host listens.
        hang_s: how long the host may give no sign of life.
        need: has the supervisor start the host and keep it running.
        metrics: told of every hook that ran.

    Attributes:
        on_run: called with every hook that was run or given up, where somebody wants to know.
        on_trouble: called with (call id, hook, how a plugin did) for everything that is no success.
    """

    def __init__(
        self, runtime_dir: Path, hang_s: float, need: Callable[[], None], metrics: HookMetrics | None = None
    ) -> None:
        self._runtime_dir = runtime_dir
        self._need = need
        self._metrics = metrics
        self.on_run: Callable[[HookRun], None] | None = None
        self.on_trouble: Callable[[str, str, HookOutcome], None] = lambda call_id, hook, outcome: None
        self.breaker = Breaker()
        self._numbers = itertools.count(TOLD + 1)
        self._plans: dict[int, _Plan] = {}
        self._plan_numbers = itertools.count(1)
        self._channel: Channel | None = None
        self.liveness = Liveness(runtime_dir, hang_s, lambda: self._send(Ping(next(self._numbers))))
        self._waiting: dict[int, _Waiting] = {}
        self._late: dict[int, str] = {}
        self._tools = ToolCalls(self._send)
        self.http = HttpProxy(self._send, lambda: next(self._numbers))
        self._keeping: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._pong = Pong(0)
        self._closing = False
        self._said: dict[tuple[str, str, str], float] = {}
        self._ends: dict[str, deque[float]] = {}
        self._left_out: dict[str, float] = {}
        self._programs: dict[str, str] = {}
        self.ended: Counter[str] = Counter()
        """How often the host ended, by the plugin to blame ("" for none)."""

    # --- plans ----------------------------------------------------------------------------------------------------

    async def set_up(self, plan: PluginPlan) -> Hooks:
        """Have the host make ready for a plan; what runs by earlier plans goes on.

        Raises:
            PluginError: it cannot, because of a plugin; or the host did not start.
        """
        if plan.empty:
            return Hooks(self)
        for source in plan.sources:
            if self._programs.setdefault(source.name, source.code) != source.code:
                self._programs[source.name] = source.code
                self.breaker.forget(source.name)
                self._left_out.pop(source.name, None)
        number = next(self._plan_numbers)
        wanted = _Plan(number, plan, asyncio.get_running_loop().create_future())
        self._plans[number] = wanted
        if self._keeping is None:
            self._need()
            self._keeping = asyncio.get_running_loop().create_task(self._keep(), name="plugin host")
        elif self._channel is not None:
            self._send_plan(wanted)
        try:
            async with asyncio.timeout(_SET_UP_S):
                manifest = await wanted.done
        except TimeoutError as error:
            self._forget_plan(number)
            raise PluginError(f"the plugin host was not ready within {_SET_UP_S:.0f} s") from error
        except BaseException:
            self._forget_plan(number)
            raise
        hooks = Hooks(self, make_table(plan, manifest), number)
        weakref.finalize(hooks, self._forget_plan, number)
        return hooks

    async def close(self) -> None:
        """Leave the host to the supervisor."""
        self._closing = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()

    @property
    def manifest(self) -> Manifest:
        """What the host says of the plugins of the latest plan."""
        made = [plan.manifest for plan in self._plans.values() if plan.manifest is not None]
        return made[-1] if made else Manifest()

    @property
    def needed(self) -> bool:
        """Whether there are plugins that need a host at all."""
        return self._keeping is not None

    @property
    def up(self) -> bool:
        """Whether hooks can run now."""
        return self._channel is not None and any(plan.there for plan in self._plans.values())

    @property
    def pong(self) -> Pong:
        """What the host said of itself last."""
        return self._pong

    def switched_off(self) -> list[tuple[Key, float]]:
        """Hooks that failed too often, and for how many seconds they are yet left alone."""
        return list(self.breaker.off(time.monotonic()))

    def _forget_plan(self, number: int) -> None:
        self._plans.pop(number, None)
        self._send(ForgetPlan(number))

    def _send_plan(self, wanted: _Plan) -> None:
        now = time.monotonic()
        plan = wanted.plan
        out = {name for name, until in self._left_out.items() if until > now}
        if out:
            kept = tuple(source for source in plan.sources if source.name not in out)
            sets = [
                msgspec.structs.replace(one, plugins={name: v for name, v in one.plugins.items() if name not in out})
                for one in plan.sets
            ]
            plan = PluginPlan(kept, tuple(sets))
        wanted.answer.clear()
        cut = parts(msgspec.json.encode(plan))
        for index, part in enumerate(cut, 1):
            self._send(SetUp(wanted.number, part, more=index < len(cut)))

    def _set_up_done(self, message: SetUpDone) -> None:
        wanted = self._plans.get(message.plan)
        if wanted is None:
            return
        wanted.answer += message.part
        if message.more:
            return
        wanted.manifest = msgspec.json.decode(bytes(wanted.answer), type=Manifest)
        wanted.there = True
        for entry in wanted.manifest.unusable:
            where = "everywhere" if "" in entry.lines else f"on {', '.join(entry.lines[:5])}"
            logger.error("plugin %s is off %s: %s", entry.plugin, where, entry.why)
        if not wanted.done.done():
            wanted.done.set_result(wanted.manifest)

    # --- hooks ----------------------------------------------------------------------------------------------------

    async def run(
        self, plan: int, hook: str, plugins: tuple[str, ...], call: HookCall | None, arguments: bytes
    ) -> HookDone | None:
        """See :class:`~appliance.plugins.hooks.HookHost`."""
        call_id, line = ("", "") if call is None else (call.call_id, call.line)
        if not self._can(plan) or len(self._waiting) >= _MAX_WAITING:
            self._unavailable(call_id, hook, plugins)
            return None
        number = next(self._numbers)
        try:
            sent = self._send(RunHook(number, plan, hook, plugins, call, arguments))
        except ValueError:
            self.trouble(call_id, hook, HookOutcome(plugins[0], "failed", 0.0, "there is too much to tell it"))
            return None
        if not sent:
            self._unavailable(call_id, hook, plugins)
            return None
        loop = asyncio.get_running_loop()
        waiting = self._waiting[number] = _Waiting(hook, plugins, call_id, line, time.monotonic(), loop.create_future())
        timer = loop.call_later(HOOKS[hook].budget_s * len(plugins) + _SLACK_S, self._too_late, number)
        try:
            return await waiting.done
        finally:
            timer.cancel()
            if self._waiting.pop(number, None) is not None:  # nobody has answered: whoever waited was cancelled
                self._send(ForgetRun(number))

    def tell(self, plan: int, hook: str, plugins: tuple[str, ...], call: HookCall | None, arguments: bytes) -> None:
        """See :class:`~appliance.plugins.hooks.HookHost`."""
        call_id = "" if call is None else call.call_id
        if not self._can(plan):
            self._unavailable(call_id, hook, plugins)
            return
        try:
            if not self._send(RunHook(TOLD, plan, hook, plugins, call, arguments)):
                self._unavailable(call_id, hook, plugins)
        except ValueError:
            self.trouble(call_id, hook, HookOutcome(plugins[0], "failed", 0.0, "there is too much to tell it"))

    async def run_tool(
        self, plan: int, plugin: str, tool: str, call: HookCall, arguments: Mapping[str, Any], ongoing: OngoingCall
    ) -> Any:
        """See :class:`~appliance.plugins.hooks.HookHost`."""
        if not self._can(plan):
            raise ToolError(NOT_AVAILABLE)
        return await self._tools.run(next(self._numbers), plan, plugin, tool, call, arguments, ongoing)

    def over(self, call_id: str) -> None:
        """See :class:`~appliance.plugins.hooks.HookHost`."""
        self._send(CallOver(call_id))

    def closed(self, plugin: str, hook: str, line: str) -> bool:
        """See :class:`~appliance.plugins.hooks.HookHost`."""
        return self.breaker.quiet or self.breaker.closed(plugin, hook, line, time.monotonic())

    def trouble(self, call_id: str, hook: str, outcome: HookOutcome) -> None:
        """See :class:`~appliance.plugins.hooks.HookHost`."""
        self._count(hook, outcome)
        self._say(hook, outcome)
        if call_id:
            self.on_trouble(call_id, hook, outcome)

    def _can(self, number: int) -> bool:
        plan = self._plans.get(number)
        return self._channel is not None and plan is not None and plan.there

    def _unavailable(self, call_id: str, hook: str, plugins: tuple[str, ...]) -> None:
        self.trouble(call_id, hook, HookOutcome(plugins[0], "unavailable", 0.0, "the plugin host is being restarted"))

    def _too_late(self, number: int) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.done.done():
            return
        self._send(ForgetRun(number))
        self.liveness.ask()
        # Of several plugins it is the one that runs; where none does, another's hook holds up this one.
        culprit = self.liveness.running(waiting.hook, waiting.plugins)
        outcome = HookOutcome(
            culprit or waiting.plugins[0], "over_budget", 0.0, "the plugin host did not answer in time"
        )
        self.trouble(waiting.call_id, waiting.hook, outcome)
        if culprit:
            self._count_failure(culprit, waiting.hook, waiting.line)
            if len(self._late) < _MAX_WAITING:
                self._late[number] = culprit
        if self.on_run is not None:
            self.on_run(HookRun(waiting.call_id, waiting.hook, waiting.began_at, time.monotonic(), (outcome,)))
        waiting.done.set_result(None)

    def _hook_done(self, message: HookDone) -> None:
        late = self._late.pop(message.number, "") if self._late else ""
        for outcome in message.outcomes:
            if outcome.outcome == "ok":
                self._count(message.hook, outcome)
                if not self.breaker.quiet:
                    line = "" if HOOKS[message.hook].box_wide else message.line
                    self.breaker.worked(outcome.plugin, message.hook, line, time.monotonic())
                continue
            self.trouble(message.call_id, message.hook, outcome)
            if outcome.plugin != late and outcome.outcome != "unavailable":  # which is not the plugin's fault
                self._count_failure(outcome.plugin, message.hook, message.line)
        waiting = self._waiting.pop(message.number, None)
        if self.on_run is not None and (waiting is not None or message.number == TOLD):
            now = time.monotonic()
            took = sum(outcome.seconds for outcome in message.outcomes)
            began_at = waiting.began_at if waiting is not None else now - took
            self.on_run(HookRun(message.call_id, message.hook, began_at, now, message.outcomes))
        if waiting is not None and not waiting.done.done():
            waiting.done.set_result(message)

    def _count_failure(self, plugin: str, hook: str, line: str) -> None:
        line = "" if HOOKS[hook].box_wide else line
        if self.breaker.failed(plugin, hook, line, time.monotonic()):
            logger.error(
                "plugin %s: appliance_%s has failed too often %s and is left alone for a minute",
                plugin, hook, f"on line {line}" if line else "for the whole box",
            )  # fmt: skip

    def _count(self, hook: str, outcome: HookOutcome) -> None:
        if self._metrics is not None:
            self._metrics.hook_ran(hook, outcome.plugin, outcome.outcome, outcome.seconds)

    def _say(self, hook: str, outcome: HookOutcome) -> None:
        """In the log, but not over and over."""
        now = time.monotonic()
        key = (outcome.plugin, hook, outcome.outcome)
        if now - self._said.get(key, -_LOG_AGAIN_S) >= _LOG_AGAIN_S:
            self._said[key] = now
            logger.warning("plugin %s: appliance_%s: %s: %s", outcome.plugin, hook, outcome.outcome, outcome.text)

    # --- the host -------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Stay connected to whichever host there is, and watch it."""
        while True:
            self._gone.clear()
            try:
                self._channel = await connect(
                    self._runtime_dir / SOCKET, self._received, self._lost, timeout_s=_CONNECT_S
                )
            except ChannelClosed:
                continue
            if not self.liveness.attach(self._channel):
                self._channel.close()
                await asyncio.sleep(_SLACK_S)
                continue
            for plan in list(self._plans.values()):
                self._send_plan(plan)
            await self._gone.wait()

    def _lost(self) -> None:
        """The host is gone: what it was at gets its default, and whoever ended it is left alone for a while."""
        self._channel = None
        self._late.clear()
        for plan in self._plans.values():
            plan.there = False
        found = self.liveness.lost()
        if found is not None and not self._closing:
            self._end_of_host(*found)
        self._gone.set()

    def _end_of_host(self, mark: Mark | None, how: str) -> None:
        now = time.monotonic()
        plugin, hook = (mark.plugin, mark.hook) if mark is not None else ("", "")
        self.ended[plugin] += 1
        if self._metrics is not None:
            self._metrics.plugin_host_ended(plugin, how)
        if how == "ended":
            words = f"; plugin {plugin} was in appliance_{hook}" if plugin else ""
            logger.error("the plugin host has ended%s", words)
        if hook in HOOKS and not HOOKS[hook].lifecycle:
            self.breaker.hung(plugin, hook, now)
        if hook in _SETTING_UP:
            self._set_up_failed(plugin, hook, how, now)
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            mine = one.hook == hook and plugin in one.plugins
            outcome = HookOutcome(plugin, how, 0.0, f"the plugin host {how}") if mine else None
            if not one.done.done():
                if outcome is not None:
                    self.trouble(one.call_id, one.hook, outcome)
                else:
                    self._unavailable(one.call_id, one.hook, one.plugins)
                one.done.set_result(None)
        self._tools.lost()
        self.http.lost()

    def _set_up_failed(self, plugin: str, hook: str, how: str, now: float) -> None:
        """A plugin has ended the host before it was ready: the second time, the host does without it for a while."""
        ends = self._ends.setdefault(plugin, deque(maxlen=2))
        ends.append(now)
        if len(ends) == 2 and ends[1] - ends[0] < _LEFT_OUT_S:
            self._left_out[plugin] = now + _LEFT_OUT_S
            logger.error("plugin %s is left out: it has ended the plugin host twice at its start", plugin)
        error = PluginError(f"plugin {plugin!r} {how.replace('ended', 'ends')} the plugin host in {hook}")
        for plan in self._plans.values():
            if plan.manifest is None and not plan.done.done():
                plan.done.set_exception(error)

    def _send(self, message: AnyMessage) -> bool:
        return self._channel is not None and self._channel.send(message)

    def _received(self, message: AnyMessage) -> None:
        self.liveness.heard()
        match message:
            case HookDone():
                self._hook_done(message)
            case ToolDone():
                self._tools.done(message)
            case UseCall():
                self._tools.use(message)
            case Pong():
                self._pong = message
                self.liveness.ponged()
            case SetUpDone():
                self._set_up_done(message)
            case HttpAnswered():
                self.http.answered(message)
            case BodyPart():
                self.http.part(message)
            case Blamed():
                self.liveness.kill(Mark(0, 0.0, message.plugin, message.hook, message.line), message.text)
            case _:
                logger.error("the plugin host sent %s", type(message).__name__)
