"""Requests to the HTTP routes of plugins, which control passes on."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from appliance.api import HttpRequest, HttpResponse
from appliance.ipc.hook_messages import BodyPart, HttpAnswered, HttpAsked
from appliance.ipc.messages import AnyMessage
from appliance.plugins.host.context import CURRENT, Marked, Running
from appliance.plugins.host.runs import HookRuns, in_thread, within
from appliance.plugins.http_limits import HANDLER_S, MAX_BODY, parts

logger = logging.getLogger(__name__)

_MAX_REQUESTS: Final = 64


class HttpRuns:
    """Answers requests with what plugins' handlers return.

    Args:
        runs: where hooks run; shares its threads.
        send: to control.
    """

    def __init__(self, runs: HookRuns, send: Callable[[AnyMessage], object]) -> None:
        self._runs = runs
        self._send = send
        self._begun: dict[int, tuple[HttpAsked, bytearray]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def asked(self, message: HttpAsked) -> None:
        """A request, or its first part."""
        if len(self._begun) + len(self._tasks) >= _MAX_REQUESTS:
            self._answer(message.number, HttpResponse("too many requests at once\n", 503))
        elif message.more:
            self._begun[message.number] = (message, bytearray(message.body))
        else:
            self._run(message, message.body)

    def part(self, message: BodyPart) -> None:
        """The next part of a request."""
        begun = self._begun.get(message.number)
        if begun is None:
            return
        asked, body = begun
        body += message.body
        if len(body) > MAX_BODY:
            del self._begun[message.number]
        elif not message.more:
            del self._begun[message.number]
            self._run(asked, bytes(body))

    def forget(self, number: int) -> None:
        """Nobody waits for the answer."""
        self._begun.pop(number, None)
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    def clear(self) -> None:
        self._begun.clear()
        for task in list(self._tasks.values()):
            task.cancel()

    def _run(self, message: HttpAsked, body: bytes) -> None:
        task = self._runs.loop.create_task(self._serve(message, body))
        self._tasks[message.number] = task
        task.add_done_callback(lambda _: self._tasks.pop(message.number, None))

    async def _serve(self, message: HttpAsked, body: bytes) -> None:
        try:
            response = await self._handled(message, body)
        except TimeoutError:
            response = HttpResponse("the plugin takes too long\n", 504)
        except Exception as error:
            self._runs.failures.say(message.plugin, f"http_routes: {message.method} {message.path}", error)
            response = HttpResponse("the plugin failed\n", 500)
        self._answer(message.number, response)

    async def _handled(self, message: HttpAsked, body: bytes) -> HttpResponse:
        handler = self._runs.plugins.handler(message.plugin, message.method, message.path)
        if handler is None:
            return HttpResponse("there is no such route\n", 404)
        request = HttpRequest(message.method, message.path, message.query, message.headers, body, message.peer)
        running = Running(message.plugin, f"http {message.path}", "")
        if inspect.iscoroutinefunction(handler):
            inner: Any = handler(request)
            context = copy_context()
            context.run(CURRENT.set, running)
            task = self._runs.loop.create_task(Marked(inner, self._runs.slot, running.text), context=context)
            response = await within(task, HANDLER_S)
        else:
            response = await in_thread(self._runs, running, lambda: handler(request), HANDLER_S)
        if not isinstance(response, HttpResponse):
            raise TypeError(f"the handler returns {type(response).__name__}, not an appliance.api.HttpResponse")
        return response

    def _answer(self, number: int, response: HttpResponse) -> None:
        body = response.body.encode() if isinstance(response.body, str) else bytes(response.body)
        if len(body) > MAX_BODY:
            response, body = HttpResponse(status=500), b"the plugin's answer is too long\n"
        first, *rest = parts(body)
        headers = {str(name): str(value) for name, value in response.headers.items()}
        self._send(
            HttpAnswered(number, int(response.status), str(response.content_type), headers, first, more=bool(rest))
        )
        for index, one in enumerate(rest, 1):
            self._send(BodyPart(number, one, more=index < len(rest)))
