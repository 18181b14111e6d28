"""Control's end of the plugin host, against one that a test plays."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.errors import ToolError
from appliance.ipc.channel import Channel, Listener, connect, serve
from appliance.ipc.hook_messages import (
    ForgetPlan,
    ForgetRun,
    HookDone,
    HookOutcome,
    Ping,
    Pong,
    RunHook,
    SetUp,
    SetUpDone,
)
from appliance.ipc.messages import AnyMessage
from appliance.plugins import liveness
from appliance.plugins.discovery import Source
from appliance.plugins.hooks import Hooks
from appliance.plugins.link import SOCKET, PluginLink
from appliance.plugins.marker import MarkerPage, Slot, text_of
from appliance.plugins.plan import Manifest, PluginInfo, PluginPlan, Set
from tests.plugins.real_host import call
from tests.waiting import eventually

SOURCE = Source("p", "file", "p.py")
PLAN = PluginPlan((SOURCE,), (Set({"p": {}}, ("", "a")),))
HOOKS_OF_IT = ("final_transcript", "after_tool", "answered", "before_storing")


class PlayedHost:
    """Gets ready for every plan, answers pings and nothing else."""

    def __init__(self) -> None:
        self.messages: list[AnyMessage] = []
        self.channels: list[Channel] = []
        self.ready = True
        self.answers = False

    def accept(self, sock: socket.socket) -> Channel:
        self.channels.append(Channel(sock, asyncio.get_running_loop(), self._received))
        return self.channels[-1]

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    def _received(self, message: AnyMessage) -> None:
        self.messages.append(message)
        if isinstance(message, Ping):
            self.channels[-1].send(Pong(message.number))
        if isinstance(message, RunHook) and self.answers:
            outcomes = tuple(HookOutcome(plugin, "ok", 0.0) for plugin in message.plugins)
            nothing = msgspec.msgpack.encode(None)
            self.channels[-1].send(HookDone(message.number, message.hook, "c1", "a", nothing, outcomes))
        if isinstance(message, SetUp) and self.ready:
            manifest = Manifest((PluginInfo(name="p", source=SOURCE, hooks=HOOKS_OF_IT),))
            self.channels[-1].send(SetUpDone(message.plan, msgspec.json.encode(manifest), more=False))


class Played:
    def __init__(self, host: PlayedHost, link: PluginLink, listener: Listener, slot: Slot) -> None:
        self.host, self.link, self.listener, self.slot = host, link, listener, slot
        self.troubles: list[HookOutcome] = []
        link.on_trouble = lambda call_id, hook, outcome: self.troubles.append(outcome)

    async def hooks(self) -> Hooks:
        return await self.link.set_up(PLAN)


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    with tempfile.TemporaryDirectory(prefix="link-") as name:
        runtime_dir = Path(name)
        host = PlayedHost()
        page = MarkerPage(runtime_dir)
        listener = await serve(runtime_dir / SOCKET, host.accept)
        link = PluginLink(runtime_dir, 60.0, lambda: None)
        yield Played(host, link, listener, page.slot())
        await link.close()
        listener.close()
        del page


async def test_the_host_is_told_that_a_call_does_not_wait_any_more(played: Played) -> None:
    hooks = await played.hooks()
    asking = asyncio.create_task(hooks.chain("final_transcript", call(), "hello"))
    await eventually(lambda: played.host.of(RunHook))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: played.host.of(ForgetRun))
    assert [one.number for one in played.host.of(ForgetRun)] == [one.number for one in played.host.of(RunHook)]


async def test_a_host_that_lost_the_connection_and_lives_is_connected_to_again(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "_DYING_S", 0.15)
    hooks = await played.hooks()
    played.host.channels[0].close()
    await eventually(lambda: not played.link.up)
    assert await hooks.chain("final_transcript", call(), "hello") == "hello"
    await eventually(lambda: played.link.up)
    assert len(played.host.of(SetUp)) == 2


async def test_who_is_too_late_again_and_again_is_left_alone_and_nobody_who_only_waits_for_it(played: Played) -> None:
    hooks = await played.hooks()
    for _ in range(6):
        assert await hooks.chain("final_transcript", call(line="a"), "hello") == "hello"
    assert played.link.closed("p", "final_transcript", "a"), "none of its code runs: it waits for somebody else's"
    played.slot.set(text_of("p", "final_transcript", "a"))
    for _ in range(5):
        assert await hooks.chain("final_transcript", call(line="a"), "hello") == "hello"
    assert not played.link.closed("p", "final_transcript", "a")
    assert {one.outcome for one in played.troubles} == {"over_budget"}


async def test_a_host_that_answers_hooks_is_not_pinged(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_CALM_S", 0.02)
    hooks = await played.hooks()
    await eventually(lambda: len(played.host.of(Ping)) > 3, "a silent host is not pinged")
    played.host.answers = True
    monkeypatch.setattr(liveness, "_CALM_S", 1000.0)
    before = len(played.host.of(Ping))
    for _ in range(20):
        await hooks.chain("final_transcript", call(), "hello")
    assert len(played.host.of(Ping)) <= before + 1


async def test_a_plan_that_nobody_waits_for_is_forgotten(played: Played) -> None:
    played.host.ready = False
    setting_up = asyncio.create_task(played.hooks())
    await eventually(lambda: played.host.of(SetUp))
    setting_up.cancel()
    await asyncio.gather(setting_up, return_exceptions=True)
    await eventually(lambda: played.host.of(ForgetPlan))


@pytest.mark.parametrize("untellable", [2**70, "\ud800"])
async def test_what_no_message_can_hold_leaves_things_as_they_are(played: Played, untellable: Any) -> None:
    hooks = await played.hooks()
    result = {"found": untellable}
    assert await hooks.chain("after_tool", call(), result, tool="t", arguments={}) is result
    hooks.tell("answered", call(), odd=untellable)
    assert await hooks.chain("before_storing", call(), [untellable, "b"]) == ["[withheld: p failed]"] * 2
    assert [one.outcome for one in played.troubles] == ["failed"] * 3
    assert not played.host.of(RunHook)


async def test_a_tool_whose_arguments_no_message_can_hold_fails(played: Played) -> None:
    class Ongoing:
        idempotency_key = "k"

    hooks = await played.hooks()
    with pytest.raises(ToolError, match="cannot be told"):
        await hooks.run_tool("p", "t", call(), {"n": 2**70}, Ongoing())  # type: ignore[arg-type]


async def test_who_does_not_accept_holds_nobody_up(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="full-") as name,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf,
    ):
        deaf.bind(f"{name}/s")
        deaf.listen(1)
        channels = []
        connecting = asyncio.create_task(connect(Path(name) / "s", lambda message: None))
        while not connecting.cancelled():
            await asyncio.sleep(0.01)
            if connecting.done():
                channels.append(connecting.result())
                assert len(channels) < 10
                connecting = asyncio.create_task(connect(Path(name) / "s", lambda message: None))
            else:  # it waits for room, and this goes on
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
        for channel in channels:
            channel.close()
