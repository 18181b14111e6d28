"""One caller, whichever way its call comes: SIP, a carrier's stream, a PBX's, or the browser phone's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import aiohttp
import numpy as np

from appliance.cli.box import HOST, Box, free_port
from appliance.cli.carrier_caller import CarrierCaller
from appliance.cli.dialler import SipDialler
from appliance.cli.playout import Pcm
from appliance.cli.softphone import Softphone
from tests.carriers import at_telnyx, at_twilio
from tests.carriers.audiosocket_sim import AudioSocketCaller
from tests.carriers.browser_sim import BrowserCaller
from tests.carriers.pbx_sim import AsteriskCaller, FreeSwitchCaller

CALLING: Final = "+491701234567"
_HEARD_S: Final = 20.0


class Caller(Protocol):
    """What a caller does, by the clock of ``time.monotonic``."""

    async def say(self, speech: Pcm) -> None:
        """Until all of it has been said."""
        ...

    async def wait_heard(self) -> None:
        """Until a sound comes that begins after now."""
        ...

    async def wait_quiet(self, quiet_s: float = 0.8) -> None:
        """Until nothing has been heard for so long."""
        ...

    def press(self, digits: str) -> None: ...

    def received(self) -> Pcm:
        """All that was heard so far, int16 at 8 kHz."""
        ...

    async def hang_up(self) -> None: ...

    def check(self) -> None:
        """Raises: AssertionError where the box broke the protocol."""
        ...


class StreamedCaller:
    """One on a media stream.

    Args:
        stream: the stream.
        hang_up: how the person at it hangs up.
        check: what else is to be found right at the end.
    """

    def __init__(
        self, stream: CarrierCaller, hang_up: Callable[[], Any] | None = None, check: Callable[[], None] | None = None
    ) -> None:
        self.stream = stream
        self._hang_up = hang_up or stream.hang_up
        self._check = check

    async def say(self, speech: Pcm) -> None:
        await self.stream.say(speech)

    async def wait_heard(self) -> None:
        await self.stream.wait_heard(timeout_s=_HEARD_S)

    async def wait_quiet(self, quiet_s: float = 0.8) -> None:
        await self.stream.wait_quiet(quiet_s)

    def press(self, digits: str) -> None:
        self.stream.press(digits)

    def received(self) -> Pcm:
        return self.stream.heard()

    async def hang_up(self) -> None:
        await self._hang_up()

    def check(self) -> None:
        assert not self.stream.violations, "\n".join(self.stream.violations)
        if self._check is not None:
            self._check()


class SipCaller:
    """One on a softphone."""

    def __init__(self, phone: Softphone) -> None:
        self._phone = phone

    async def say(self, speech: Pcm) -> None:
        await self._phone.play(speech)

    async def wait_heard(self) -> None:
        await self._phone.wait_agent_speech(_HEARD_S)

    async def wait_quiet(self, quiet_s: float = 0.8) -> None:
        began = time.time()
        while time.time() - max(began, self._phone.rtp.last_speech_at) < quiet_s:
            await asyncio.sleep(0.05)

    def press(self, digits: str) -> None:
        self._phone.send_digits(digits)

    def received(self) -> Pcm:
        return self._phone.received()

    async def hang_up(self) -> None:
        await self._phone.hangup()

    def check(self) -> None:
        """RTP is judged elsewhere."""


Way = Callable[[Box, str], AbstractAsyncContextManager[Caller]]


@contextlib.asynccontextmanager
async def by_sip(box: Box, number: str) -> AsyncIterator[Caller]:
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(box.uri(number))
        yield SipCaller(phone)


class Ways:
    """Every way to one box: its trunks' settings, and the calls.

    An asynchronous context manager, since carriers have servers of their own.
    """

    def __init__(self) -> None:
        self.twilio = at_twilio.twilio_account()
        self.telnyx = at_telnyx.telnyx_account()
        self.audiosocket_port = free_port()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Ways:
        await self._stack.enter_async_context(self.twilio)
        await self._stack.enter_async_context(self.telnyx)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.aclose()

    def settings(self) -> dict[str, object]:
        """Of a box with a trunk of each kind."""
        here = ["127.0.0.0/8"]
        return {
            "listen.streams": [{"kind": "audiosocket", "host": HOST, "port": self.audiosocket_port}],
            "trunks": {
                "local": {"kind": "sip", "allow": here},
                "twilio": at_twilio.trunk(self.twilio.api_url),
                "telnyx": at_telnyx.trunk(self.telnyx),
                "asterisk": {"kind": "audiosocket", "allow": here},
                "pbx": {"kind": "pbx", "allow": here},
                "phone": {"kind": "browser", "allow": here},
            },
        }

    def find(self, name: str) -> Way:
        """The way of that name: sip, twilio, telnyx, audiosocket, asterisk, freeswitch or browser."""
        return by_sip if name == "sip" else getattr(self, f"_{name}")  # type: ignore[no-any-return]

    @contextlib.asynccontextmanager
    async def _twilio(self, box: Box, number: str) -> AsyncIterator[Caller]:
        at_twilio.reach(self.twilio, box)
        call = await self.twilio.call(number, CALLING)
        yield StreamedCaller(await call.streaming(), call.hang_up, self.twilio.check)

    @contextlib.asynccontextmanager
    async def _telnyx(self, box: Box, number: str) -> AsyncIterator[Caller]:
        at_telnyx.reach(self.telnyx, box)
        call = await self.telnyx.call(number, CALLING)
        yield StreamedCaller(await call.streaming(), call.hang_up, self.telnyx.check)

    @contextlib.asynccontextmanager
    async def _audiosocket(self, box: Box, number: str) -> AsyncIterator[Caller]:
        url = f"http://{HOST}:{box.http_port}/audiosocket/calls"
        announced = {"called": number, "calling": CALLING}
        async with aiohttp.ClientSession() as session, session.post(url, data=announced) as reply:
            call_id = (await reply.text()).strip()
            assert reply.status == 200, call_id
        caller = await AudioSocketCaller.open(HOST, self.audiosocket_port, rate_hz=16_000, call_id=call_id)
        async with contextlib.aclosing(_Closing(caller)):
            yield StreamedCaller(caller)

    @contextlib.asynccontextmanager
    async def _asterisk(self, box: Box, number: str) -> AsyncIterator[Caller]:
        caller = await AsteriskCaller.open(_pbx_url(box, number))
        async with contextlib.aclosing(_Closing(caller)):
            yield StreamedCaller(caller)

    @contextlib.asynccontextmanager
    async def _freeswitch(self, box: Box, number: str) -> AsyncIterator[Caller]:
        caller = await FreeSwitchCaller.open(_pbx_url(box, number, rate="16000"), rate_hz=16_000)
        async with contextlib.aclosing(_Closing(caller)):
            yield StreamedCaller(caller)

    @contextlib.asynccontextmanager
    async def _browser(self, box: Box, number: str) -> AsyncIterator[Caller]:
        caller = await BrowserCaller.call(f"http://{HOST}:{box.http_port}", number)
        async with contextlib.aclosing(_Closing(caller)):
            yield StreamedCaller(caller)


def _pbx_url(box: Box, number: str, **more: str) -> str:
    query = urlencode({"called": number, "calling": CALLING, **more})
    return f"ws://{HOST}:{box.settings['listen.media.port']}/pbx/media?{query}"


class _Closing:
    """Hangs up in any case."""

    def __init__(self, caller: CarrierCaller) -> None:
        self._caller = caller

    async def aclose(self) -> None:
        await self._caller.hang_up()


def tone(frequency_hz: float, seconds: float) -> Pcm:
    """A loud one."""
    at = np.arange(int(seconds * 8000)) / 8000
    return (8000 * np.sin(2 * np.pi * frequency_hz * at)).astype(np.int16)
