"""What every simulated carrier has: an account with a REST API that sends webhooks, and calls that a test waits for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import aiohttp
from aiohttp import web

from appliance.cli.carrier_caller import CarrierCaller
from appliance.errors import CarrierError
from tests.waiting import LIMIT_S

Stream = TypeVar("Stream", bound=CarrierCaller)


class SimLeg(Generic[Stream]):
    """One leg of a call at a carrier, as a test waits for it.

    Args:
        name: what the carrier calls it.

    Attributes:
        streams: every stream that was opened for it, in order; the last may be live.
        ended: set when it is over.
        changed: set by whatever happens to it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.streams: list[Stream] = []
        self.ended = asyncio.Event()
        self.changed = asyncio.Event()

    @property
    def stream(self) -> Stream | None:
        """The live stream."""
        return self.streams[-1] if self.streams and not self.streams[-1].ended.is_set() else None

    def outcome(self) -> str:
        """What the carrier says of how it ended."""
        raise NotImplementedError

    def story(self) -> str:
        """For messages of tests: what has happened."""
        raise NotImplementedError

    async def streaming(self, timeout_s: float = LIMIT_S, number: int = 1) -> Stream:
        """Wait for the ``number``-th stream. Raises: CarrierError, as :meth:`until`."""
        await self.until(lambda: len(self.streams) >= number, f"stream {number}", timeout_s)
        return self.streams[number - 1]

    async def until(self, met: Callable[[], bool], what: str, timeout_s: float = LIMIT_S) -> None:
        """Wait for something about this leg; what changes wakes it.

        Raises:
            CarrierError: not in time, or not before it ended.
        """
        deadline = time.monotonic() + timeout_s
        while not met():
            if self.ended.is_set() or time.monotonic() > deadline:
                why = "before the call ended" if self.ended.is_set() else f"in {timeout_s:.0f} s"
                raise CarrierError(f"{self._name}: no {what} {why}; {self.story()}")
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 0.2)

    async def wait_ended(self, timeout_s: float = LIMIT_S) -> str:
        """Wait until it is over; gives its outcome. Raises: CarrierError, where it is not."""
        try:
            await asyncio.wait_for(self.ended.wait(), timeout_s)
        except TimeoutError:
            raise CarrierError(f"{self._name}: not over after {timeout_s:.0f} s; {self.story()}") from None
        return self.outcome()


class SimAccount(Generic[Stream]):
    """One account at a carrier. An asynchronous context manager; ``api_url`` is its REST API.

    Args:
        reach: public origins and where they really are: ``{"https://voice.example.com": "http://127.0.0.1:8080"}``.
            Webhooks are signed for the former and sent to the latter, as behind a proxy that ends TLS.

    Attributes:
        streams: every stream there has been.
        mistakes: what the box did against the carrier's documents.
    """

    def __init__(self, reach: Mapping[str, str] | None = None) -> None:
        self.reach = dict(reach or {})
        self.streams: list[Stream] = []
        self.stream_errors: list[str] = []
        self.mistakes: list[str] = []
        self.api_url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    def routes(self) -> list[web.RouteDef]:
        """Of the REST API."""
        raise NotImplementedError

    @property
    def http(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError(f"use `async with {type(self).__name__}(...)`")
        return self._http

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        app = web.Application()
        app.router.add_routes(self.routes())
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.api_url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for caller in self.streams:
            await caller.hang_up()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.http.close()

    def check(self) -> None:
        """Raises: AssertionError where the box did anything against the carrier's documents."""
        found = self.mistakes + [what for caller in self.streams for what in caller.violations]
        assert not found, "\n".join(dict.fromkeys(found))

    def spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def reached(self, url: str) -> str:
        """Where an address really is."""
        for public, actual in self.reach.items():
            if url.startswith(public):
                return actual + url[len(public) :]
        return url
