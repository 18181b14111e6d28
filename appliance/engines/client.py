"""Control's side of the engine workers: requests out, answers back, and another worker when one dies."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from appliance.errors import ChannelClosed, EngineError
from appliance.ipc.channel import LAST_BREATH_S, Channel, connect
from appliance.ipc.messages import (
    AddToTalk,
    AnyMessage,
    CallerSilent,
    CallerTurn,
    CallerWords,
    Cancel,
    Converse,
    CutShort,
    Failed,
    Generate,
    GiveRoom,
    HearCaller,
    JudgeTurn,
    Recognise,
    Recognised,
    ReplyDone,
    ReplySpoken,
    ReplyWords,
    Respond,
    Spoken,
    Synthesise,
    Token,
    TurnVerdict,
    WorkerStats,
)

logger = logging.getLogger(__name__)

Request: TypeAlias = Recognise | JudgeTurn | Synthesise | Generate | Converse
Heard: TypeAlias = ReplySpoken | ReplyWords | ReplyDone | CallerWords | CallerTurn
"""What comes of a conversation."""
Answer: TypeAlias = Recognised | TurnVerdict | Spoken | Token | Heard | Failed
Told: TypeAlias = HearCaller | CallerSilent | Respond | GiveRoom | CutShort | AddToTalk
"""What is said about a conversation that is under way."""
OnAnswer: TypeAlias = Callable[[Answer], None]

_ATTEMPTS: Final = 3
_RECONNECT_S: Final = 60.0
_MAX_WAITING: Final = 2000


@dataclass
class _Pending:
    request: Request
    on_answer: OnAnswer
    worker: int
    attempts: int = 1
    streamed: bool = False
    told: list[Told] = field(default_factory=list)
    """What was said about it while no worker had it."""


class EnginePool:
    """The workers of one engine kind.

    A request goes to the connected worker with the fewest in flight, or, with ``sticky`` (synthesis: two requests for
    one slot must not write at once), to the one its slot belongs to. So does recognition with ``partials``, where a
    worker remembers the utterance under way. What a dying worker had not begun to answer is asked of another, or waits
    for its restart; what was half answered fails.

    Attributes:
        partials: the engine answers ``Recognise`` with ``final`` false, while the caller still speaks.
    """

    def __init__(
        self, kind: str, names: list[str], runtime_dir: Path, *, sticky: bool = False, partials: bool = False
    ) -> None:
        self.kind = kind
        self.partials = partials
        self._names = names
        self._paths = [runtime_dir / f"{name}.sock" for name in names]
        self._sticky = sticky
        self._channels: list[Channel | None] = [None] * len(names)
        self._in_flight = [0] * len(names)
        self._pending: dict[int, _Pending] = {}
        self._waiting: deque[int] = deque()
        self._numbers = itertools.count(1)
        self._keepers: list[asyncio.Task[None]] = []
        self.on_stats: Callable[[WorkerStats], None] = lambda stats: None
        self.on_worker_back: Callable[[int], None] = lambda index: None
        """Called with the number of a worker that was started again: what it knew is lost."""

    @property
    def workers(self) -> int:
        """Workers there are, numbered from 0."""
        return len(self._names)

    @property
    def connected(self) -> int:
        """Workers that can be asked now."""
        return sum(channel is not None and not channel.closed for channel in self._channels)

    async def start(self) -> None:
        """Connect to every worker; from now on reconnect by itself."""
        up = [asyncio.Event() for _ in self._names]
        self._keepers = [asyncio.create_task(self._keep(index, up[index])) for index in range(len(self._names))]
        await asyncio.gather(*(event.wait() for event in up))

    async def stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for channel in self._channels:
            if channel is not None:
                channel.close()

    def number(self) -> int:
        """A request number for the next message."""
        return next(self._numbers)

    def ask(self, request: Request, on_answer: OnAnswer) -> None:
        """Send a request; every answer to it is passed to ``on_answer``, a Failed at the worst."""
        if len(self._pending) >= _MAX_WAITING:
            on_answer(Failed(request.request, f"{len(self._pending)} {self.kind} requests are waiting", True))
            return
        self._pending[request.request] = _Pending(request, on_answer, -1)
        self._dispatch(request.request)

    def cancel(self, number: int) -> None:
        """Forget the request; a worker that runs it is told to stop."""
        pending = self._pending.pop(number, None)
        if pending is not None and pending.worker >= 0:
            self._in_flight[pending.worker] -= 1
            channel = self._channels[pending.worker]
            if channel is not None:
                channel.send(Cancel(number))

    def tell(self, message: Told) -> None:
        """Say something about a conversation under way to the worker that holds it.

        While none does, it is kept for the one that will; but who wants a reply then is told at once that there is
        nobody to give it.
        """
        pending = self._pending.get(message.request)
        if pending is None:
            return
        channel = self._channels[pending.worker] if pending.worker >= 0 else None
        if channel is not None:
            pending.streamed = True  # another worker would not know of it
            channel.send(message)
        elif isinstance(message, Respond):
            del self._pending[message.request]
            pending.on_answer(Failed(message.request, f"no {self.kind} worker is up", True))
        else:
            pending.told.append(message)

    async def recognise(self, request: Recognise) -> Recognised:
        """Raises EngineError where no worker could."""
        answer = await self._once(request)
        assert isinstance(answer, Recognised)
        return answer

    async def judge_turn(self, request: JudgeTurn) -> TurnVerdict:
        """Raises EngineError where no worker could."""
        answer = await self._once(request)
        assert isinstance(answer, TurnVerdict)
        return answer

    async def synthesise_ahead(self, request: Synthesise) -> None:
        """Have a phrase put into a worker's cache; ``request.slot`` is the worker's number less that of all workers.

        Raises:
            EngineError: it could not be synthesised.
        """
        await self._once(request)

    async def generate(self, request: Generate) -> AsyncIterator[Token]:
        """The reply, token by token; the last one has ``last``. Closing the iterator cancels the request.

        Raises:
            EngineError: the model failed; tokens already yielded stand.
        """
        answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.ask(request, answers.put_nowait)
        try:
            while True:
                answer = await answers.get()
                if isinstance(answer, Failed):
                    raise EngineError(answer.reason, retryable=answer.retryable)
                assert isinstance(answer, Token)
                yield answer
                if answer.last:
                    return
        finally:
            self.cancel(request.request)

    async def _once(self, request: Request) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        self.ask(request, answered)
        try:
            answer = await future
        finally:
            self.cancel(request.request)
        if isinstance(answer, Failed):
            raise EngineError(answer.reason, retryable=answer.retryable)
        return answer

    # --- workers --------------------------------------------------------------------------------------------------

    def _dispatch(self, number: int) -> None:
        pending = self._pending[number]
        worker = self._choose(pending.request)
        if worker is None:
            pending.worker = -1
            self._waiting.append(number)
            return
        channel = self._channels[worker]
        assert channel is not None
        try:
            channel.send(pending.request)
        except ValueError as error:
            del self._pending[number]
            pending.on_answer(Failed(number, str(error), False))
            return
        pending.worker = worker
        self._in_flight[worker] += 1
        for message in pending.told:
            self.tell(message)
        pending.told.clear()

    def _choose(self, request: Request) -> int | None:
        up = [index for index, channel in enumerate(self._channels) if channel is not None and not channel.closed]
        if not up:
            return None
        if (self._sticky and isinstance(request, Synthesise)) or (self.partials and isinstance(request, Recognise)):
            return up[request.slot % len(up)]
        return min(up, key=lambda index: self._in_flight[index])

    async def _keep(self, index: int, up: asyncio.Event) -> None:
        while True:
            lost = asyncio.Event()
            try:
                channel = await connect(self._paths[index], self._received, lost.set, timeout_s=_RECONNECT_S)
            except ChannelClosed as error:
                logger.error("%s: %s", self._names[index], error)
                continue
            self._channels[index] = channel
            self._in_flight[index] = 0
            if up.is_set():
                self.on_worker_back(index)
            up.set()
            self._flush_waiting()
            await lost.wait()
            self._channels[index] = None
            self._fail_over(index)
            await asyncio.sleep(LAST_BREATH_S)

    def _flush_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for number in waiting:
            if number in self._pending:
                self._dispatch(number)

    def _fail_over(self, index: int) -> None:
        orphans = [number for number, pending in self._pending.items() if pending.worker == index]
        if orphans:
            logger.warning("%s died with %d requests; they are asked again", self._names[index], len(orphans))
        for number in orphans:
            pending = self._pending[number]
            pending.attempts += 1
            if pending.streamed or pending.attempts > _ATTEMPTS:
                del self._pending[number]
                pending.on_answer(Failed(number, f"{self._names[index]} died while answering", True))
            else:
                self._dispatch(number)

    def _received(self, message: AnyMessage) -> None:
        if isinstance(message, WorkerStats):
            self.on_stats(message)
            return
        if not isinstance(message, Answer):
            logger.error("an %s worker sent %s", self.kind, type(message).__name__)
            return
        pending = self._pending.get(message.request)
        if pending is None:
            return
        last = message.last if isinstance(message, Spoken | Token) else not isinstance(message, Heard)
        if last:
            del self._pending[message.request]
            if pending.worker >= 0:
                self._in_flight[pending.worker] -= 1
        else:
            pending.streamed = True
        with suppress(asyncio.InvalidStateError):
            pending.on_answer(message)
