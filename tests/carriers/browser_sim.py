"""The browser phone without its page: the call asked for over HTTP, then its stream, as the page's script does."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from appliance.api import Message
from appliance.cli.carrier_caller import CarrierCaller
from appliance.cli.playout import Codec
from appliance.cli.stream_caller import connect
from appliance.errors import CarrierError


class BrowserCaller(CarrierCaller):
    """One call of the page.

    Attributes:
        call_id: as the box names it.
    """

    name = "browser"

    def __init__(self, token: str, rate_hz: int = 48_000, call_id: str = "") -> None:
        super().__init__(Codec("l16", rate_hz))
        self.call_id = call_id
        self._token = token

    @classmethod
    async def call(cls, box_url: str, called: str, **more: Any) -> BrowserCaller:
        """Ask the box for a call, and open its stream.

        Raises:
            CarrierError: it is refused.
        """
        async with (
            aiohttp.ClientSession(headers={"Origin": box_url}) as session,
            session.post(f"{box_url}/browser/calls", json={"called": called}) as reply,
        ):
            told = await reply.json()
        if reply.status != 200:
            raise CarrierError(f"{reply.status}: {told}")
        caller = cls(told["token"], call_id=told["call"], **more)
        caller.begin(await connect(told["media_url"], headers={"Origin": box_url}))
        return caller

    def hello(self) -> list[Message]:
        return [json.dumps({"event": "start", "token": self._token, "rate": self.codec.rate_hz})]

    def audio(self, payload: bytes, number: int) -> list[Message]:
        return [payload]

    def key(self, digit: str) -> list[Message]:
        return [json.dumps({"event": "dtmf", "digit": digit})]

    def marked(self, name: str) -> list[Message]:
        return [json.dumps({"event": "mark", "name": name})]

    def goodbye(self) -> list[Message]:
        return [json.dumps({"event": "stop"})]

    def take(self, message: Message, now: float) -> None:
        if isinstance(message, bytes):
            self.heard_audio(message, now)
            return
        told = json.loads(message)
        match told:
            case {"event": "mark", "name": str(name)}:
                self.heard_mark(name, now)
            case {"event": "clear"}:
                self.heard_clear(now)
            case {"event": "goodbye"}:
                pass
            case _:
                raise CarrierError(f"a message of no use: {message[:80]}")
