"""Which server gives a reply: the first that has begun it.

Servers are asked in their order: the next one as soon as the one before has failed, and beside it once that has been
silent for ``hedge_after_s``. When all have failed, those that may manage are asked again. Nobody has heard anything
yet, so that none of this can be noticed but by the time it takes.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from appliance.engines.chat_reply import Calls, Finished, Piece, Words
from appliance.engines.chat_server import ChatServer, ChatStream
from appliance.engines.server_fault import ServerFault
from appliance.errors import EngineError

MAX_JITTER_S: Final = 0.15


@dataclass(frozen=True)
class Begun:
    """A reply with its first words."""

    stream: ChatStream
    pieces: list[Piece]


Ask: TypeAlias = Callable[[ChatServer], ChatStream]


@dataclass
class Race:
    """One reply's.

    Attributes:
        servers: in their order.
        ask: makes a stream of this reply at a server.
        by: when somebody has to have begun, on the clock ``now``.
        jitter: 0 to 1, how long a second attempt is put off.
        causes: what was wrong with those that have failed.
    """

    servers: Sequence[ChatServer]
    ask: Ask
    by: float
    hedge_after_s: float
    retries: int
    now: Callable[[], float]
    jitter: Callable[[], float]
    _running: dict[asyncio.Task[Begun], ChatServer] = field(default_factory=dict)
    _tried: Counter[str] = field(default_factory=Counter)
    _later: list[tuple[float, ChatServer]] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)

    async def run(self) -> Begun:
        """The reply of the first that has begun it; the others are cancelled.

        Raises:
            EngineError: nobody has; says what was wrong with each.
        """
        waiting = deque(server for server in self.servers if server.circuit.usable)
        if not waiting:
            causes = "; ".join(f"{server.name} {server.circuit.cause}" for server in self.servers)
            raise EngineError(f"no language model is in use: {causes}", retryable=False)
        hedge_at = math.inf
        try:
            while True:
                if not self._running:
                    await self._start(waiting)
                    hedge_at = self._hedge_at(waiting)
                wake_at = min(self.by, hedge_at)
                done, _ = await asyncio.wait(
                    self._running, timeout=max(wake_at - self.now(), 0.0), return_when=asyncio.FIRST_COMPLETED
                )
                winner = self._sort_out(done)
                if winner is not None:
                    return winner
                if self.now() >= self.by:
                    self._blame_the_silent("gave no first token in time")
                    raise self._nobody()
                if self.now() >= hedge_at and self._running and waiting:
                    self._begin(waiting.popleft())
                    hedge_at = self._hedge_at(waiting)
        finally:
            await self._stop()

    def _hedge_at(self, waiting: deque[ChatServer]) -> float:
        return self.now() + self.hedge_after_s if waiting and self.hedge_after_s else math.inf

    async def _start(self, waiting: deque[ChatServer]) -> None:
        """Ask the next server, or one again."""
        if waiting:
            self._begin(waiting.popleft())
            return
        if not self._later:
            raise self._nobody()
        at, server = min(self._later, key=lambda entry: entry[0])
        self._later.remove((at, server))
        if at >= self.by:
            raise self._nobody()
        await asyncio.sleep(max(at - self.now(), 0.0))
        self._begin(server)

    def _begin(self, server: ChatServer) -> None:
        self._tried[server.where] += 1
        self._running[asyncio.create_task(_begin_reply(self.ask(server)))] = server

    def _sort_out(self, done: set[asyncio.Task[Begun]]) -> Begun | None:
        winner: Begun | None = None
        for task in [task for task in self._running if task in done]:
            if winner is not None:
                break  # it stays among those that are stopped
            server = self._running.pop(task)
            error = task.exception()
            if error is None:
                winner = task.result()
                self._blame_the_slow(server)
                server.answered()
            elif isinstance(error, ServerFault):
                self._failed(server, error)
            else:
                raise error
        return winner

    def _failed(self, server: ChatServer, fault: ServerFault) -> None:
        server.note(fault)
        self.causes.append(f"{server.name} {fault}")
        if fault.again and self._tried[server.where] <= self.retries:
            wait_s = fault.wait_s if fault.wait_s is not None else (0.3 + 0.7 * self.jitter()) * MAX_JITTER_S
            self._later.append((self.now() + wait_s, server))

    def _blame_the_slow(self, winner: ChatServer) -> None:
        """Those before the winner were asked first, and have said nothing."""
        for server in self._running.values():
            if self.servers.index(server) < self.servers.index(winner):
                fault = ServerFault(f"was silent until {winner.name} answered")
                server.note(fault)
                self.causes.append(f"{server.name} {fault}")

    def _blame_the_silent(self, what: str) -> None:
        for server in self._running.values():
            fault = ServerFault(what)
            server.note(fault)
            self.causes.append(f"{server.name} {fault}")

    def _nobody(self) -> EngineError:
        causes = "; ".join(dict.fromkeys(self.causes)) or "there was no time for an attempt"
        return EngineError(f"no language model answered: {causes}", retryable=False)

    async def _stop(self) -> None:
        """Cancel the others. A connection closes at once; this waits until it has."""
        for task in self._running:
            task.cancel()
        results = await asyncio.gather(*self._running, return_exceptions=True)
        for result in results:
            if isinstance(result, Begun):
                result.stream.close()


async def _begin_reply(stream: ChatStream) -> Begun:
    """Ask, and wait for the first words or tools.

    Raises:
        ServerFault: there were none, or not in time.
    """
    options = stream.server.options
    try:
        thinking = False
        pieces: list[Piece] = []
        async with asyncio.timeout(options.first_token_s) as limit:
            await stream.open()
            while True:
                read = await stream.read()
                pieces += [piece for piece in read if isinstance(piece, Words | Calls | Finished)]
                if pieces:
                    break
                if read:  # it thinks, and may take its time as long as that goes on
                    thinking = True
                    limit.reschedule(asyncio.get_running_loop().time() + options.stall_s)
        if stream.fault is not None:
            raise stream.fault
        if isinstance(pieces[0], Finished):
            raise _empty(pieces[0])
    except TimeoutError:
        stream.close()
        what = "stopped thinking" if thinking else f"gave no first token within {options.first_token_s:g} s"
        raise ServerFault(what, again=True) from None
    except BaseException:
        stream.close()
        raise
    return Begun(stream, pieces)


def _empty(end: Finished) -> ServerFault:
    if end.reason == "length":
        return ServerFault("used up its max_tokens before the first word; raise max_tokens", blame=False)
    if end.reason == "content_filter":
        return ServerFault("withheld its reply (content filter)", blame=False)
    return ServerFault("gave an empty reply", again=True, blame=False)
