"""The tools that every box has: hand the caller on, hang up, keys, messages, and wishes about later calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from appliance.calls.tool_sources import Callbacks, CallInBox, DoNotCall
from appliance.conversation.memory import MAX_FACT, CallerMemory
from appliance.conversation.private_numbers import NOTHING_PRIVATE, PrivateNumbers
from appliance.conversation.thinking import HandOver
from appliance.dialplan.callback_time import WAYS, callback_time
from appliance.dialplan.schema import Line, PrivateNumber
from appliance.dialplan.text import DIGITS_PHRASE, SUMMARY, normalise, spoken_digits, variables_in
from appliance.errors import StoreError, ToolError
from appliance.hook_types import Call
from appliance.hookspecs import hookimpl
from appliance.tool_types import Arguments, OngoingCall, Question, Tool

_ATTEMPTS: Final = 3
_SUMMARY: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": 300,
    "description": "For the human who answers: who calls, what they want, what is known so far. It is spoken.",
}
CALLBACK_SLOT: Final = "callback_at"
"""Says when to call again, as ISO 8601 in UTC."""
_MAX_MESSAGE: Final = 2000
_CONVERSATION_S: Final = 30.0
"""Time-out of a tool that talks with the caller; what it waits for answers does not count."""
_NOT_IN_NUMBER: Final = re.compile(r"[\s()./-]")


class BuiltinTools:
    """The plugin that offers them."""

    @hookimpl
    def appliance_tools(self, call: Call) -> Sequence[Tool] | None:
        if not isinstance(call, CallInBox):
            return None
        return builtin_tools(call.plan, call.hand_overs, call.memory, call.do_not_call, call.private, call.callbacks)


def tool_names(line: Line) -> tuple[str, ...]:
    """What the model of ``line`` may do."""
    if line.tools is not None:
        return tuple(dict.fromkeys((*line.tools, "hang_up")))
    names = ["hang_up", "collect_digits", "take_message", "stop_calling", "callback"]
    if line.agent == "realtime":
        names.remove("collect_digits")
    names += ["transfer"] if line.transfers else []
    names += ["collect_private"] if line.private and line.agent != "realtime" else []
    return (*names, "remember") if line.memory.enabled else tuple(names)


def builtin_tools(
    line: Line,
    hand_overs: Mapping[str, HandOver],
    memory: CallerMemory | None,
    do_not_call: DoNotCall | None,
    private: PrivateNumbers = NOTHING_PRIVATE,
    callbacks: Callbacks | None = None,
) -> list[Tool]:
    """The built-in tools of ``line``, made for one call. Those that could do nothing in it are left out."""
    makers: dict[str, Callable[[], Tool | None]] = {
        "transfer": lambda: _transfer(hand_overs) if hand_overs else None,
        "hang_up": _hang_up,
        "collect_digits": lambda: _collect_digits(line.no_match.prompts),
        "take_message": _take_message,
        "stop_calling": lambda: _stop_calling(do_not_call) if do_not_call is not None else None,
        "callback": lambda: _callback(callbacks) if callbacks is not None else None,
        "remember": lambda: _remember(memory) if memory is not None else None,
        "send_digits": _send_digits,
        "collect_private": lambda: _collect_private(line.private, private) if line.private else None,
    }
    made = [makers[name]() for name in tool_names(line) if name in makers]
    return [tool for tool in made if tool is not None]


def _schema(required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _transfer(hand_overs: Mapping[str, HandOver]) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        if SUMMARY in arguments:
            call.note(SUMMARY, arguments[SUMMARY])
        call.hand_on(arguments["to"])
        return {"status": "the caller is handed on when you have finished speaking"}

    announced = [name for choice in hand_overs.values() for name, _ in variables_in(choice.transfer.announce)]
    told = {SUMMARY: _SUMMARY} if SUMMARY in announced else {}
    who = "; ".join(
        f"{name}: {choice.description}" if choice.description else name for name, choice in hand_overs.items()
    )
    return Tool(
        name="transfer",
        description=f"Hand the caller on to somebody else. Say so in the same answer. There are: {who}.",
        parameters=_schema(["to", *told], to={"type": "string", "enum": list(hand_overs)}, **told),
        run=run,
    )


def _hang_up() -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        call.hang_up(arguments.get("reason", "goodbye"), arguments.get("farewell", ""))
        return {"status": "the call ends when you have finished speaking"}

    return Tool(
        name="hang_up",
        description="End the call, once the caller needs nothing more. Say goodbye in the same answer.",
        parameters=_schema(
            farewell={"type": "string", "maxLength": 300, "description": "Your goodbye, unless you have said it."},
            reason={"type": "string", "maxLength": 100, "description": "Why, in a few words, for the record."},
        ),
        run=run,
    )


def _send_digits() -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        call.press(arguments["digits"])
        return {"status": "pressed when you have finished speaking"}

    return Tool(
        name="send_digits",
        description="Press telephone keys on the line, to get through another machine's menu.",
        parameters=_schema(["digits"], digits={"type": "string", "pattern": "^[0-9*#A-D]{1,32}$"}),
        run=run,
    )


def _collect_digits(prompts: Sequence[str]) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        fewest, most = arguments["min"], arguments["max"]
        if fewest > most:
            raise ToolError("min is more than max")
        luhn = arguments.get("check") == "luhn"
        phrase = DIGITS_PHRASE.format(min=fewest, max=most)
        said = ""
        for attempt in range(_ATTEMPTS):
            again = prompts[min(attempt, len(prompts)) - 1] if attempt and prompts else arguments["question"]
            answer = await call.ask(Question(again, (phrase,), min_digits=fewest, max_digits=most))
            digits = answer.keys or _digits_in(answer.words)
            if digits.isdecimal() and fewest <= len(digits) <= most and (not luhn or passes_luhn(digits)):
                return {"digits": digits, "by": "keys" if answer.keys else "voice"}
            said = answer.words
            if said and answer.accepted and not digits:
                break  # words, not a number: whoever leads the conversation has to answer them
        raise ToolError(f"no valid number was given; the caller's last words were: {said!r}" if said else "no answer")

    return Tool(
        name="collect_digits",
        description="Ask the caller for a number, spoken digit by digit or typed, and have it checked. Use it for "
        "every number that matters, and read the number back.",
        parameters=_schema(
            ["question", "min", "max"],
            question={"type": "string", "minLength": 1, "maxLength": 300, "description": "What the caller is asked."},
            min={"type": "integer", "minimum": 1, "maximum": 32, "description": "Fewest digits."},
            max={"type": "integer", "minimum": 1, "maximum": 32, "description": "Most digits."},
            check={"enum": ["none", "luhn"], "description": "luhn: the last digit is that of a card number."},
        ),
        run=run,
        cancellable=True,
        timeout_s=_CONVERSATION_S,
    )


def _collect_private(wanted: Mapping[str, PrivateNumber], held: PrivateNumbers) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        name = arguments["name"]
        rule = wanted[name]
        for _ in range(_ATTEMPTS):
            question = Question(arguments["question"], min_digits=rule.min, max_digits=rule.max, private=True)
            digits = (await call.ask(question)).keys
            right = rule.check == "none" or passes_luhn(digits)
            if digits.isdecimal() and rule.min <= len(digits) <= rule.max and right:
                return {"pass_on_as": held.keep(name, digits), "digits": len(digits)}
        raise ToolError("the caller has pressed no number that is right")

    names = "; ".join(f"{name}, for {', '.join(rule.tools)}" for name, rule in wanted.items())
    return Tool(
        name="collect_private",
        description="Ask the caller to press a number that you do not learn. You are told what stands for it: pass "
        f"that on to the tool that needs the number. There are: {names}.",
        parameters=_schema(
            ["name", "question"],
            name={"type": "string", "enum": list(wanted)},
            question={"type": "string", "minLength": 1, "maxLength": 300, "description": "What the caller is asked."},
        ),
        run=run,
        cancellable=True,
        timeout_s=_CONVERSATION_S,
    )


def _digits_in(words: str) -> str:
    """The number that ``words`` end in ("my number is four two"); "" where there is none."""
    spoken = normalise(words).split()
    return next((digits for at in range(len(spoken)) if (digits := spoken_digits(" ".join(spoken[at:])))), "")


def _take_message() -> Tool:
    taken: list[str] = []

    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        number = _NOT_IN_NUMBER.sub("", arguments.get("number", ""))
        if number and not re.fullmatch(r"\+?\d{3,20}", number):
            raise ToolError("number: not a telephone number; ask for it again, or leave it out")
        taken.append(arguments["message"])
        call.note("message", "\n".join(taken))
        for key, value in (("message.name", arguments.get("name", "")), ("message.number", number or call.caller)):
            if value:
                call.note(key, value)
        return {"status": "the message has been taken down"}

    return Tool(
        name="take_message",
        description="Take down a message for the people behind this line. They read it after the call.",
        parameters=_schema(
            ["message"],
            message={"type": "string", "minLength": 1, "maxLength": _MAX_MESSAGE},
            name={"type": "string", "maxLength": 200, "description": "Who it is from."},
            number={"type": "string", "maxLength": 40, "description": "Where to call back, if not the caller's own."},
        ),
        run=run,
    )


def _stop_calling(do_not_call: DoNotCall) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        if not call.caller:
            raise ToolError("the caller's number is withheld, so it cannot be put on the list")
        try:
            await do_not_call.refuse_calls(
                call.caller, reason=arguments.get("reason", ""), call_id=call.call_id, line=call.line
            )
        except StoreError as error:
            raise ToolError("it could not be written down just now; offer to take a message") from error
        call.note("do_not_call", call.caller)
        return {"status": "this number will not be called again"}

    return Tool(
        name="stop_calling",
        description="The caller does not want to be called any more: never have this number called again. Use it "
        "whenever that is asked for, without arguing, and say that it has been done.",
        parameters=_schema(reason={"type": "string", "maxLength": 300, "description": "In the caller's words."}),
        run=run,
    )


def _callback(callbacks: Callbacks) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        try:
            at = callback_time(arguments["when"], callbacks.utc(), callbacks.zone)
        except ValueError as error:
            raise ToolError(str(error)) from error
        call.note(CALLBACK_SLOT, at.isoformat())
        return {
            "status": "they will be called again then",
            "when": f"{at.astimezone(callbacks.zone):%A %Y-%m-%d %H:%M}",
        }

    return Tool(
        name="callback",
        description="The person wants to be called at another time: agree on one, and have them called again then. Say "
        "the day and the time back to them.",
        parameters=_schema(
            ["when"],
            when={
                "type": "string",
                "minLength": 1,
                "maxLength": 60,
                "description": f"Their local time: {WAYS}. Within 30 days.",
            },
        ),
        run=run,
    )


def _remember(memory: CallerMemory) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        try:
            await memory.add(arguments["fact"])
        except StoreError as error:
            raise ToolError("it could not be written down just now") from error
        return {"status": "remembered for the next call"}

    return Tool(
        name="remember",
        description="Remember something about this caller for the next call: a preference, an agreement. No secrets.",
        parameters=_schema(["fact"], fact={"type": "string", "minLength": 1, "maxLength": MAX_FACT}),
        run=run,
    )


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
