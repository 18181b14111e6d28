"""One reply of a language model on its way: rounds of words and tools, until there is nothing left to be done.

It runs in a task of its own and puts steps into a queue, so that a tool can speak while it runs, a wait for it can be
bridged, and a tool which asks the caller something can wait for the answer while turns pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from appliance.api.tools import Answer, Question
from appliance.conversation import manners
from appliance.conversation.brain import (
    ALL_KEYS,
    Answered,
    Asked,
    Expectation,
    Gate,
    HangUp,
    Listen,
    Say,
    SendDigits,
    Step,
    Transfer,
    Used,
)
from appliance.conversation.clauses import ClauseCutter, speakable
from appliance.conversation.history import INTERRUPTED, History, fence
from appliance.conversation.tools import MAX_ARGUMENTS, Running, ToolRuns, ToolSet, as_json, is_object
from appliance.errors import EngineError, ToolError
from appliance.events import ToolRun
from appliance.ipc.messages import Generate, Token, ToolCall

MAX_ROUNDS: Final = 6
"""So often a model may be asked for one reply: each time it uses tools, it is asked again."""
MAX_CALLS: Final = 8
"""So many tools may be used at once."""

_CHARACTERS_PER_S: Final = 14.0
_CANCELLED: Final = {"status": "cancelled: the caller went on speaking"}
_GOES_ON: Final = {"status": "still running; its result follows"}


class Model(Protocol):
    """The language model's workers; see :class:`~appliance.engines.client.EnginePool`."""

    def number(self) -> int: ...
    def generate(self, request: Generate) -> AsyncIterator[Token]: ...


@dataclass(frozen=True)
class HandOver:
    """Somebody the caller may be handed on to; ``say`` is said first where the model has said nothing."""

    transfer: Transfer
    say: str = ""
    description: str = ""


@dataclass(frozen=True)
class Manner:
    """How a line's model is asked and its tools are run.

    Attributes:
        timeout_s: the whole answer must have come by then.
        reply_tokens: the longest answer; 0 leaves it to the model.
        session: names the conversation to the model's server.
        language: of the line, for questions of yes or no.
        filler_after_s: a wait for a tool is bridged after this long; 0: never.
        fillers: what bridges it, in turn.
        transfers: who the caller may be handed on to.
    """

    timeout_s: float = 30.0
    reply_tokens: int = 0
    session: str = ""
    language: str = "en"
    filler_after_s: float = 0.8
    fillers: tuple[str, ...] = ()
    transfers: Mapping[str, HandOver] = field(default_factory=dict)


@dataclass
class Piece:
    """Part of a reply: what the model wrote, the clauses it was cut into, and how much of them was ``heard``. Not
    ``complete``: there was to be more of it.

    ``number`` is its place in the history; None for the words of a tool that still runs. ``reworded`` has the
    words of those clauses, by place, that are said in others than the model's.
    """

    number: int | None
    text: str = ""
    clauses: list[str] = field(default_factory=list)
    heard: str = ""
    complete: bool = False
    reworded: dict[int, str] = field(default_factory=dict)

    @property
    def spoken(self) -> str:
        """What is spoken of it, in the words that are spoken."""
        return " ".join(filter(None, (self.reworded.get(at, clause) for at, clause in enumerate(self.clauses))))


class Asking:
    """A question of a tool that the caller has not answered yet."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.pressed = ""
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @property
    def expectation(self) -> Expectation:
        question = self.question
        return Expectation(
            phrases=question.phrases,
            reject=bool(question.phrases) and question.reject,
            key_timeout_s=question.key_timeout_s if question.max_digits else None,
            min_digits=question.min_digits,
            keys=ALL_KEYS,
            private=question.private,
        )

    def key(self, digit: str) -> Answer | None:
        """The answer, where it is complete with this key."""
        if not self.question.max_digits:
            return Answer(keys=digit)
        if digit == "#":
            return self.keys_ended()
        self.pressed += digit
        return self.keys_ended() if len(self.pressed) >= self.question.max_digits else None

    def keys_ended(self) -> Answer:
        pressed, self.pressed = self.pressed, ""
        return Answer(keys=pressed)


@dataclass(frozen=True)
class _Broken:
    """The reply cannot go on."""

    error: BaseException


class _Mark:
    """Between steps: the caller has to answer first, or the reply is over."""


_WAIT, _END = _Mark(), _Mark()


class Thinking:
    """One reply under way.

    Args:
        history: what the model is shown; what it says and the tools give is added.
        recorded: number of the newest message that the record has.
        bridged: waits of this call that were bridged by a filler; each has the next one.
        context: finds what the model is to be shown as data, as (source, text); None for nothing.
    """

    def __init__(
        self,
        model: Model,
        tools: ToolSet,
        runs: ToolRuns,
        manner: Manner,
        history: History,
        *,
        recorded: int,
        bridged: int,
        now: Callable[[], float],
        context: Callable[[], Awaitable[list[tuple[str, str]]]] | None = None,
    ) -> None:
        self._model = model
        self._tools = tools
        self._runs = runs
        self._context = context
        self._manner = manner
        self.history = history
        self._recorded = recorded
        self.taken = 0
        self._asked_up_to = recorded
        self._now = now
        self.pieces: list[Piece] = []
        self.asking: Asking | None = None
        self.asks_privately = False
        """Whether the last question was about something private, and has not been answered."""
        self._asks = asyncio.Lock()
        self._steps: asyncio.Queue[Step | _Mark | _Broken] = asyncio.Queue()
        self._running: list[Running] = []
        self._said = False
        self._told: list[str] = []
        self._ending: HangUp | Transfer | None = None
        self._farewell = ""
        self._gate = Gate()
        self._spoken_until = 0.0
        self.bridged = bridged
        self._task: asyncio.Task[None] | None = None

    @property
    def recorded(self) -> int:
        """Number of the newest message that the record has now."""
        return self._asked_up_to

    def begin(self, gate: Gate) -> None:
        """Start to work it out."""
        self._gate = gate
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def steps(self) -> AsyncGenerator[Step, None]:
        """What there is to do, up to its end or up to a question; :attr:`asking` tells which.

        Raises:
            EngineError: the model failed.
        """
        while True:
            step = await self._steps.get()
            if isinstance(step, _Mark):
                return
            if isinstance(step, _Broken):
                raise step.error
            yield step

    def answered(self, answer: Answer) -> None:
        """The caller has answered the question; :meth:`steps` goes on."""
        asking, self.asking = self.asking, None
        self.asks_privately = False
        self._set_aside()
        self._recorded = self._asked_up_to
        if asking is not None and not asking.answer.done():
            asking.answer.set_result(answer)

    def asked_again(self, clauses: Sequence[str]) -> None:
        """The question is put once more in these words, for the caller has not understood it."""
        self._set_aside()
        self.pieces.append(Piece(None, " ".join(clauses), list(clauses), complete=True))

    def _set_aside(self) -> None:
        """What was said before the caller spoke is known by now; the words of tools find their place later."""
        self._told += [piece.heard for piece in self.pieces if piece.number is None and piece.heard]
        self.pieces = []

    async def give_up(self) -> None:
        """The rest of it is not wanted."""
        if self.asking is not None and not self.asking.answer.done():
            self.asking.answer.set_exception(ToolError("the caller has gone"))
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    # --- rounds ---------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            await self._rounds()
            self._steps.put_nowait(_END)
        except Exception as error:  # whoever awaits the steps is told
            self._steps.put_nowait(_Broken(error))

    async def _rounds(self) -> None:
        if self._context is not None:
            for source, text in await self._context():
                self.history.context(text, source)
            self.history.fit()
        for _ in range(MAX_ROUNDS):
            calls = await self._answer()
            if not calls:
                break
            await self._use(calls)
            if self._ending is not None:
                if not self._said and self._farewell:
                    piece = Piece(self.history.agent(self._farewell), self._farewell, complete=True)
                    self.pieces.append(piece)
                    self._say(piece, self._farewell, interruptible=False)
                self._steps.put_nowait(self._ending)
                return
        else:
            raise EngineError(f"the model asked for tools {MAX_ROUNDS} times and did not answer", retryable=False)
        if not self._said:
            raise EngineError("the model answered nothing", retryable=True)

    async def _answer(self) -> list[ToolCall]:
        """One answer of the model: what it says goes out clause by clause; the tools that it wants."""
        manner, now = self._manner, self._now()
        self._steps.put_nowait(Asked(self.history.since(self._recorded)))
        self._asked_up_to = self.history.count
        request = Generate(
            self._model.number(),
            self.history.messages(),
            now + manner.timeout_s,
            tools=self._tools.specs,
            session=manner.session,
            max_tokens=manner.reply_tokens,
        )
        piece = Piece(self.history.agent(""))
        self.pieces.append(piece)
        cutter, calls = ClauseCutter(), list[ToolCall]()
        tokens = self._model.generate(request)
        try:
            async for token in tokens:
                self.taken += 1
                piece.text += token.text
                for clause in cutter.push(token.text):
                    self._say(piece, clause)
                calls += token.calls
                if token.server:
                    self._steps.put_nowait(Answered(token.server))
            for clause in cutter.finish():
                self._say(piece, clause)
            piece.complete = True
        finally:
            assert piece.number is not None
            calls = _numbered(calls, piece.number)
            self.history.revise(piece.number, piece.text.strip(), ())
            await tokens.aclose()  # type: ignore[attr-defined]  # an async generator; its Protocol has no aclose
        if calls:
            shown = [call if is_object(call.arguments) else ToolCall(call.id, call.name, "{}") for call in calls]
            self.history.revise(piece.number, piece.text.strip(), shown)
        return calls

    async def _use(self, calls: list[ToolCall]) -> None:
        """Run the tools side by side; the model is told the results once all of them are there."""
        results: dict[str, str] = {}
        self._running = []
        for index, call in enumerate(calls):
            try:
                if index >= MAX_CALLS:
                    raise ToolError(f"no more than {MAX_CALLS} tools can be used at once; ask again for the rest")
                tool, arguments = self._tools.read(call)
            except ToolError as error:
                results[call.id] = as_json({"error": str(error)})
                self._steps.put_nowait(Used(self._refused(call, results[call.id], str(error))))
                continue
            self._running.append(self._runs.start(self._tools, tool, call, arguments, self, self._gate))
        bridging = self._manner.filler_after_s > 0 and self._manner.fillers
        bridge = asyncio.get_running_loop().create_task(self._bridge()) if bridging else None
        try:
            waiting = {run.task: run for run in self._running if run.task is not None}
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for run in [run for run in self._running if run.task in done]:
                    assert run.task is not None
                    del waiting[run.task]
                    results[run.call.id] = run.result
                    self._steps.put_nowait(Used(run.record))
        finally:
            if bridge is not None:
                bridge.cancel()
            for run in self._running:
                if run.call.id not in results:
                    results[run.call.id] = as_json(_GOES_ON if self._runs.give_up(run) else _CANCELLED)
            self._running = []
            for call in calls:
                self.history.result(call, results[call.id])
            self._place_words_of_tools()

    def _refused(self, call: ToolCall, result: str, problem: str) -> ToolRun:
        name, at = call.name[:64], self._now()
        source = self._tools.source(call.name)
        return ToolRun(name, call.arguments[:MAX_ARGUMENTS], result, at, at, problem=problem, source=source)

    # --- what is said ---------------------------------------------------------------------------------------------

    def _place_words_of_tools(self) -> None:
        """Between a tool that is asked for and its result there can be no words: they come after it."""
        if self._told:
            self.history.event(f"Meanwhile the caller heard you say: {fence('agent', ' '.join(self._told))}")
            self._told = []
        for piece in self.pieces:
            if piece.number is None:
                piece.number = self.history.agent(piece.text)

    def _say(self, piece: Piece, clause: str, *, interruptible: bool = True) -> None:
        clause = clause.replace(INTERRUPTED, "").strip()
        if not clause:
            return
        self._said = True
        piece.clauses.append(clause)
        self._spoken_until = max(self._spoken_until, self._now()) + len(clause) / _CHARACTERS_PER_S
        self._steps.put_nowait(Say(clause, interruptible))

    async def _bridge(self) -> None:
        """The caller waits for tools: say so once, after what was said before has been said."""
        await self._gate.passed()
        waits_from = max(self._spoken_until, self._now())
        await asyncio.sleep(waits_from + self._manner.filler_after_s - self._now())
        if self.asking is None:
            text = next((run.tool.filler for run in self._running if run.tool.filler), "")
            text = text or self._manner.fillers[self.bridged % len(self._manner.fillers)]
            self.bridged += 1
            self._steps.put_nowait(Say(text, filler=True))

    # --- what tools do --------------------------------------------------------------------------------------------

    def say_for_tool(self, text: str) -> None:
        """Say it at once; what is not speech in it is left out."""
        spoken = speakable(text)
        if spoken:
            piece = Piece(None, spoken, complete=True)
            self.pieces.append(piece)
            self._say(piece, spoken)

    async def ask_for_tool(self, question: Question) -> Answer:
        """One question at a time: ends the reply until the caller has answered."""
        async with self._asks:
            asking = Asking(question)
            if question.text:
                self.say_for_tool(question.text)
            self._steps.put_nowait(Listen(asking.expectation))
            self.asking = asking
            self.asks_privately = question.private
            self._steps.put_nowait(_WAIT)
            try:
                return await asking.answer
            finally:
                if self.asking is asking:
                    self.asking = None

    async def agrees(self, question: str) -> bool:
        """Whether the caller says yes; asked once more where that was not clear."""
        for _ in range(2):
            answer = await self.ask_for_tool(Question(question))
            said = manners.agrees(answer.words, self._manner.language)
            if said is not None:
                return said
        return False

    def press(self, digits: str) -> None:
        self._steps.put_nowait(SendDigits(digits))

    def hand_on(self, target: str) -> None:
        choice = self._manner.transfers.get(target)
        if choice is None:
            raise ToolError(f"there is no {target!r}; there are: {', '.join(self._manner.transfers) or 'none'}")
        self._ends(choice.transfer, choice.say)

    def hang_up(self, reason: str, farewell: str) -> None:
        self._ends(HangUp(reason), speakable(farewell))

    def _ends(self, ending: HangUp | Transfer, farewell: str) -> None:
        if self._ending is not None:
            raise ToolError("the call is being ended or handed on already")
        self._ending, self._farewell = ending, farewell


def _numbered(calls: list[ToolCall], number: int) -> list[ToolCall]:
    """The calls with ids of ours, once in a conversation: some models give none, or always the same. Nine letters and
    digits, as the strictest templates want them."""
    return [ToolCall(f"c{number:05d}{index:03d}", call.name, call.arguments) for index, call in enumerate(calls)]
