"""Control's end of the HTTP routes of plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.ipc.hook_messages import BodyPart, ForgetRun, HttpAnswered, HttpAsked
from appliance.ipc.messages import AnyMessage
from appliance.plugins.http_limits import HANDLER_S, MAX_BODY, parts

_SLACK_S: Final = 0.5
_MAX_REQUESTS: Final = 64


@dataclass(frozen=True)
class Answered:
    """What a plugin's route answered, or what is answered in its place."""

    status: int
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(eq=False)
class _Waiting:
    done: asyncio.Future[Answered]
    head: HttpAnswered | None = None
    body: bytearray = field(default_factory=bytearray)


class HttpProxy:
    """Passes requests on to the plugin host.

    Args:
        send: to the host; False where it is not there.
        number: gives each request its own.
    """

    def __init__(self, send: Callable[[AnyMessage], bool], number: Callable[[], int]) -> None:
        self._send = send
        self._number = number
        self._waiting: dict[int, _Waiting] = {}

    async def ask(
        self,
        plugin: str,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        peer: str,
        body: bytes,
    ) -> Answered:
        """The plugin's answer; 503 and 504 where there is none. Never raises."""
        if len(self._waiting) >= _MAX_REQUESTS:
            return Answered(503, body=b"too many requests at once\n")
        number = self._number()
        waiting = self._waiting[number] = _Waiting(asyncio.get_running_loop().create_future())
        first, *rest = parts(body)
        try:
            asked = HttpAsked(number, plugin, method, path, query, headers, peer, first, more=bool(rest))
            if not self._send(asked):
                return Answered(503, body=b"the plugin host is being restarted\n")
            for index, one in enumerate(rest, 1):
                self._send(BodyPart(number, one, more=index < len(rest)))
            async with asyncio.timeout(HANDLER_S + _SLACK_S):
                return await waiting.done
        except TimeoutError:
            self._send(ForgetRun(number))
            return Answered(504, body=b"the plugin takes too long\n")
        except ValueError:
            return Answered(431, body=b"the headers are too long\n")
        finally:
            del self._waiting[number]

    def answered(self, message: HttpAnswered) -> None:
        waiting = self._waiting.get(message.number)
        if waiting is not None:
            waiting.head = message
            self._more(waiting, message.body, message.more)

    def part(self, message: BodyPart) -> None:
        waiting = self._waiting.get(message.number)
        if waiting is not None and waiting.head is not None:
            self._more(waiting, message.body, message.more)

    def lost(self) -> None:
        """The host is gone."""
        for waiting in self._waiting.values():
            if not waiting.done.done():
                waiting.done.set_result(Answered(503, body=b"the plugin host is being restarted\n"))

    def _more(self, waiting: _Waiting, body: bytes, more: bool) -> None:
        waiting.body += body
        head = waiting.head
        if waiting.done.done() or head is None:
            return
        if len(waiting.body) > MAX_BODY:
            waiting.done.set_result(Answered(502, body=b"the plugin's answer is too long\n"))
        elif not more:
            status = head.status if 200 <= head.status <= 599 else 502
            waiting.done.set_result(Answered(status, head.content_type, head.headers, bytes(waiting.body)))
