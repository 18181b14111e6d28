"""What can be wrong with a line whose every part is right by itself: steps, choices, slots, words. PURE."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from appliance.api.hours import ON_HOLIDAYS
from appliance.config.trunks import NETWORK_VARIABLES
from appliance.config.validation import nearest
from appliance.dialplan.callback_time import WAYS, is_callback_time
from appliance.dialplan.extends import CLOSING_KEYS, OWN_KEYS
from appliance.dialplan.schema import BUILTIN_TOOLS, Line
from appliance.dialplan.steps import (
    AskStep,
    BranchStep,
    CallbackStep,
    ConverseStep,
    GotoStep,
    HangUpStep,
    NoInput,
    NoMatch,
    SayStep,
    Step,
    TransferStep,
    TransferTarget,
)
from appliance.dialplan.text import SUMMARY, normalise, render, variables_in
from appliance.engines.lexicon import PHONES

Path: TypeAlias = tuple[str | int, ...]
MissingWords: TypeAlias = Callable[[str], list[str]]

_FIXED_VARIABLES = (
    "caller.number", "called.number", "line.name", "campaign.owner", "campaign.name", *NETWORK_VARIABLES
)  # fmt: skip
_NAMED_BY_OTHERS = ("header.", "lead.")
"""Begin variables whose names the dialplan does not know."""
_BEFORE_ANY_QUESTION = ("closed",)
_FILTERS = ("digits",)
HAND_BACK = "continue_flow"
"""The tool by which a model gives the caller back to the flow."""
_TEXT_KEYS = ("memory", "private", "context_tokens", "reply_tokens")
_ASKING_TOOLS = ("collect_digits", "collect_private", "remember")
_REFUSING_KEYS = ("name", "description", "match", "refuse", "timezone", "region")
FIXED_KEYS = (*OWN_KEYS, *CLOSING_KEYS, "refuse", "plugins", "timezone", "region")
"""What `closed.instead` cannot change."""
_CONVERSE_KEYS = ("prompt", "transfers", "private", "context_tokens", "reply_tokens")
_MODEL_KEYS = ("prompt", "tools", "transfers", "memory", "private", "context_tokens", "reply_tokens")


@dataclass(frozen=True)
class Problem:
    """One mistake: the path within the line, what is wrong, and what would be right."""

    path: Path
    what: str
    hint: str = ""


@dataclass(frozen=True)
class Draft:
    """A line as far as it could be understood.

    Args:
        line: the line without what was wrong in it.
        order: names of all steps as written, the broken ones too.
        broken: raw data of the steps something is wrong in; of these only the names they mention count.
        wrong_keys: the line's own keys that something is wrong with.
    """

    line: Line
    order: Sequence[str]
    broken: Mapping[str, Any] = field(default_factory=dict)
    wrong_keys: frozenset[str] = frozenset()

    @property
    def start(self) -> str:
        """The step at which the flow begins; "" where none does."""
        if self.line.agent == "flow":
            return self.order[0] if self.order else ""
        step = self.line.on_engine_failure.step if self.line.on_engine_failure is not None else None
        return step or next((target for _, target in _key_targets(self.line)), "")

    @cached_property
    def sound(self) -> dict[str, Step]:
        """The steps that nothing is wrong with, in order."""
        return {name: step for name, step in self.line.flow.items() if name not in self.broken}

    @cached_property
    def targets(self) -> list[tuple[Path, str]]:
        """Every step that is named somewhere, and where."""
        return list(_named_targets(self))

    @cached_property
    def ways(self) -> dict[str, list[str]]:
        """The steps that each step can lead to."""
        return {name: _edges(self, name) for name in self.order}


def problems(draft: Draft, missing_words: MissingWords | None = None) -> list[Problem]:
    """Every mistake in the line that takes more than one key to see.

    Args:
        draft: the line.
        missing_words: tells which words of a phrase the recogniser does not know.
    """
    found = [*_agent(draft), *_closing(draft), *_pronunciations(draft), *_variables(draft)]
    failure = draft.line.on_engine_failure
    if failure is not None and failure.transfer is not None:
        found += _announcement(("on_engine_failure", "transfer", "announce"), failure.transfer)
    if failure is not None and failure.line == draft.line.name:
        found.append(Problem(("on_engine_failure", "line"), f"{failure.line!r} is this line itself", "name another"))
    for key, shortcut in draft.line.keys.items():
        if shortcut.transfer is not None:
            found += _announcement(("keys", key, "transfer", "announce"), shortcut.transfer)
    if draft.order and draft.start:
        found += _targets(draft)
        for name, step in draft.sound.items():
            if isinstance(step, AskStep):
                found += _ask(name, step)
            elif isinstance(step, ConverseStep):
                found += _converse(draft.line, name, step)
            elif isinstance(step, BranchStep):
                found += _branch(draft, name, step)
            elif isinstance(step, CallbackStep):
                found += _callback(draft, name, step)
            elif isinstance(step, TransferStep):
                found += _announcement(("flow", name, "transfer", "announce"), step.transfer)
        found += [*_end(draft), *_loops(draft), *_unreachable(draft)]
        if missing_words is not None:
            found += _words(draft, missing_words)
    return found


def _agent(draft: Draft) -> Iterator[Problem]:
    line, wrong = draft.line, draft.wrong_keys
    if line.refuse is not None:
        for key in sorted(line.model_fields_set - set(_REFUSING_KEYS)):
            yield Problem((key,), "has no effect on a line that refuses calls", "remove it, or refuse")
    elif line.agent == "flow":
        if not draft.order and "flow" not in wrong:
            yield Problem(("flow",), "is missing", "give the line steps, or set agent: llm")
        for key in _MODEL_KEYS:
            if key in line.model_fields_set and not (line.converses and key in _CONVERSE_KEYS):
                yield Problem((key,), "has no effect with agent: flow", "remove it, or set agent: llm")
    else:
        if not line.prompt and "prompt" not in wrong:
            yield Problem(("prompt",), "is missing", "tell the model what it is to do, or set agent: flow")
        for key in _TEXT_KEYS if line.agent == "realtime" else ():
            if key in line.model_fields_set:
                yield Problem((key,), "has no effect with agent: realtime", "remove it, or set agent: llm")
        if draft.order and not draft.start and not {"on_engine_failure", "keys"} & wrong:
            hint = "remove it, set agent: flow, or name the step to go on with in on_engine_failure.step or keys"
            yield Problem(("flow",), f"has no effect with agent: {line.agent}", hint)
        if draft.start and not draft.order and "flow" not in wrong:
            for path, target in _outside(line):
                yield Problem(path, f"there is no step {target!r}", "give the line a flow with it")
        for path, _ in _key_targets(line) if line.agent == "realtime" else ():
            hint = "use say, transfer or hang_up; or set agent: llm"
            yield Problem(path, "a model that hears by itself cannot be left for the flow by a key", hint)
        yield from _tools(line)
        for name, step in draft.sound.items():
            if isinstance(step, ConverseStep):
                hint = "set agent: flow; the flow of this line goes on only when the model has failed"
                yield Problem(("flow", name, "converse"), f"has no effect with agent: {line.agent}", hint)
        if line.agent == "realtime" and line.record.enabled and line.record.consent == "ask":
            hint = "use announce; or set agent: llm"
            yield Problem(("record", "consent"), "a model that hears by itself cannot wait for consent", hint)
    if line.max_duration_warning is not None and line.max_duration_warning.before_s >= line.max_duration_s:
        hint = f"make it less than max_duration_s ({line.max_duration_s:g})"
        yield Problem(("max_duration_warning", "before_s"), "is before the call begins", hint)
    if line.turn.by == "model" and line.agent != "realtime":
        yield Problem(("turn", "by"), f"there is no model that hears with agent: {line.agent}", "use box")


def _tools(line: Line) -> Iterator[Problem]:
    for index, name in enumerate(line.tools or ()):
        path: Path = ("tools", index)
        if name in _ASKING_TOOLS and line.agent == "realtime":
            yield Problem(path, "cannot be used with agent: realtime", "remove it, or set agent: llm")
        elif name == "transfer" and not line.transfers:
            yield Problem(path, "there is nobody to hand on to", "name them under transfers")
        elif name == "collect_private" and not line.private:
            yield Problem(path, "there is nothing to collect", "name it under private")
        elif name == "remember" and not line.memory.enabled:
            yield Problem(path, "nothing is remembered on this line", "set memory.enabled: true")
    for name, choice in line.transfers.items():
        if line.tools is not None and "transfer" not in line.tools and set(line.tools) <= set(BUILTIN_TOOLS):
            yield Problem(("transfers", name), "the model may not hand on", "add transfer to tools")
        yield from _announcement(("transfers", name, "announce"), choice)


def _announcement(path: Path, target: TransferTarget) -> Iterator[Problem]:
    if target.announce and target.kind != "attended":
        yield Problem(path, "nobody hears it with kind: blind", "set kind: attended, or remove it")


def _closing(draft: Draft) -> Iterator[Problem]:
    line, closed = draft.line, draft.line.closed
    if (
        line.hours is not None
        and ON_HOLIDAYS in line.hours
        and not line.holidays
        and "holidays" not in draft.wrong_keys
    ):
        yield Problem(("hours", ON_HOLIDAYS), "has no effect without holidays", "say which: holidays: [DE]")
    if closed is None:
        for key in ("hours", "holidays"):
            if key in line.model_fields_set and not {"closed", key} & draft.wrong_keys:
                hint = f"say what the line does then: closed: We are closed.; or write match: {{{key}: ...}}"
                yield Problem((key,), "has no effect without closed", hint)
        return
    if line.hours is None and not line.holidays and not {"hours", "holidays"} & draft.wrong_keys:
        yield Problem(("closed",), "the line is never closed", "give it hours or holidays")
    if closed.transfer is not None:
        yield from _announcement(("closed", "transfer", "announce"), closed.transfer)
    if closed.line == line.name:
        yield Problem(("closed", "line"), f"{line.name!r} is this line itself", "name another, or write instead")
    for key in closed.instead:
        if key in FIXED_KEYS:
            hint = "remove it; or write a second line, and closed: {line: NAME}"
            yield Problem(("closed", "instead", key), "cannot change while the line is closed", hint)


def _pronunciations(draft: Draft) -> Iterator[Problem]:
    for word, phones in draft.line.pronunciations.items():
        path = ("pronunciations", word)
        if normalise(word) != word or " " in word:
            yield Problem(path, f"{word!r} is not one word in lower case", "write each word by itself, without digits")
        unknown = [phone for phone in phones.split() if phone not in PHONES]
        if not phones.split():
            yield Problem(path, "has no phones", "write ARPAbet phones such as 'P IY T S AH'")
        elif unknown:
            yield Problem(path, f"{unknown[0]!r} is not a phone", f"use {' '.join(sorted(PHONES))}")


def texts(draft: Draft) -> Iterator[tuple[Path, str]]:
    """All that the line says, and where it is written; among it who a transfer goes to."""
    line = draft.line
    if line.disclosure:
        yield ("disclosure",), line.disclosure
    if line.greeting:
        yield ("greeting",), line.greeting.text
    if line.on_engine_failure:
        yield ("on_engine_failure", "say"), line.on_engine_failure.say or ""
        if line.on_engine_failure.transfer:
            yield ("on_engine_failure", "transfer", "to"), line.on_engine_failure.transfer.to
            yield ("on_engine_failure", "transfer", "announce"), line.on_engine_failure.transfer.announce
    for digit, shortcut in line.keys.items():
        yield ("keys", digit, "say"), shortcut.say
        yield ("keys", digit, "hang_up"), shortcut.hang_up or ""
        if shortcut.transfer:
            yield ("keys", digit, "transfer", "to"), shortcut.transfer.to
            yield ("keys", digit, "transfer", "announce"), shortcut.transfer.announce
    if line.closed:
        yield ("closed", "say"), line.closed.say
        yield ("closed", "failed"), line.closed.failed
        if line.closed.transfer:
            yield ("closed", "transfer", "to"), line.closed.transfer.to
            yield ("closed", "transfer", "announce"), line.closed.transfer.announce
    if warning := line.max_duration_warning:
        yield ("max_duration_warning", "text"), warning.text
        yield ("max_duration_warning", "goodbye"), warning.goodbye
    for key in ("announce", "ask", "refused"):
        if text := getattr(line.record, key):
            yield ("record", key), text
    yield from _prompts((), line.no_input, line.no_match)
    for name, choice in line.transfers.items():
        yield from ((("transfers", name, key), getattr(choice, key)) for key in ("to", "announce", "say"))
    for name, step in draft.sound.items():
        if isinstance(step, SayStep):
            yield ("flow", name, "say"), step.say
        elif isinstance(step, HangUpStep):
            yield ("flow", name, "hang_up"), step.hang_up or ""
        elif isinstance(step, TransferStep):
            yield ("flow", name, "say"), step.say
            yield ("flow", name, "transfer", "to"), step.transfer.to
            yield ("flow", name, "transfer", "announce"), step.transfer.announce
        elif isinstance(step, ConverseStep):
            yield ("flow", name, "say"), step.say or ""
            yield ("flow", name, "converse"), step.converse
        elif isinstance(step, CallbackStep):
            yield ("flow", name, "callback"), step.callback
            yield ("flow", name, "say"), step.say
        elif isinstance(step, AskStep):
            yield ("flow", name, "ask"), step.ask
            yield from _prompts(("flow", name), step.no_input, step.no_match)


def _prompts(path: Path, no_input: NoInput | None, no_match: NoMatch | None) -> Iterator[tuple[Path, str]]:
    for key, policy in (("no_input", no_input), ("no_match", no_match)):
        for index, prompt in enumerate(policy.prompts if policy else ()):
            yield (*path, key, "prompts", index), prompt


def _slots(draft: Draft) -> dict[str, AskStep | None]:
    """Each slot and the question that fills it; None where several do, or it can't be told."""
    slots: dict[str, AskStep | None] = {}
    for name, step in draft.sound.items():
        if isinstance(step, AskStep) and step.slot is not None:
            slots[step.slot] = None if step.slot in slots else draft.line.flow[name]  # type: ignore[assignment]
        elif isinstance(step, ConverseStep):
            slots.update(dict.fromkeys(step.slots))
    for raw in draft.broken.values():
        if isinstance(raw, dict) and isinstance(raw.get("slots"), dict):
            slots.update(dict.fromkeys(map(str, raw["slots"])))
        if isinstance(raw, dict) and isinstance(raw.get("slot"), str):
            slots[raw["slot"]] = None
    return slots


def _variables(draft: Draft) -> Iterator[Problem]:
    slots = _slots(draft)
    private = {step.slot for step in draft.sound.values() if isinstance(step, AskStep) and step.private}
    asked = [*_FIXED_VARIABLES, *(f"slots.{slot}" for slot in slots)]
    for path, text in texts(draft):
        known = _FIXED_VARIABLES if path[0] in _BEFORE_ANY_QUESTION else asked
        for name, spoken in variables_in(text):
            if path[0] == "transfers" and path[-1] == "announce" and name.startswith("slots."):
                continue  # noted by tools, under names of their own
            if name == SUMMARY and path[-1] == "announce" and path[0] != "closed":
                continue
            if name not in known and not (name.startswith(_NAMED_BY_OTHERS) and name not in _NAMED_BY_OTHERS):
                yield Problem(path, f"unknown variable ${{{name}}}", nearest(name, known))
            elif name.removeprefix("slots.") in private and name.startswith("slots."):
                hint = "do not say it, or remove private from its question"
                yield Problem(path, f"${{{name}}} is private: it would be recorded, and be on record", hint)
            if spoken and spoken not in _FILTERS:
                yield Problem(path, f"unknown filter {spoken!r}", "the only one is digits: ${slots.number | digits}")


def _named_targets(draft: Draft) -> Iterator[tuple[Path, str]]:
    line = draft.line
    for key, policy in (("no_input", line.no_input), ("no_match", line.no_match)):
        if policy.then is not None:
            yield (key, "then"), policy.then
    yield from _outside(line)
    for name, step in draft.sound.items():
        path: Path = ("flow", name)
        if isinstance(step, SayStep | CallbackStep) and step.next is not None:
            yield (*path, "next"), step.next
        elif isinstance(step, GotoStep):
            yield (*path, "goto"), step.goto
        elif isinstance(step, TransferStep) and step.failed is not None:
            yield (*path, "failed"), step.failed
        elif isinstance(step, BranchStep):
            yield from (((*path, "when", value), target) for value, target in step.when.items())
            yield (*path, "default"), step.default
        elif isinstance(step, ConverseStep):
            yield from (((*path, "next", outcome), target) for outcome, target in step.next.items())
            yield (*path, "failed"), step.failed
        elif isinstance(step, AskStep):
            yield from (((*path, "next", choice), target) for choice, target in step.next.items())
            for key, own in (("no_input", step.no_input), ("no_match", step.no_match)):
                if own is not None and own.then is not None:
                    yield (*path, key, "then"), own.then


def _outside(line: Line) -> Iterator[tuple[Path, str]]:
    """The steps at which the flow can be entered other than from a step or by its beginning."""
    if line.on_engine_failure is not None and line.on_engine_failure.step is not None:
        yield ("on_engine_failure", "step"), line.on_engine_failure.step
    yield from _key_targets(line)


def _key_targets(line: Line) -> Iterator[tuple[Path, str]]:
    for digit, shortcut in line.keys.items():
        for name in ("goto", "failed"):
            step = getattr(shortcut, name)
            if step is not None:
                yield ("keys", digit, name), step


def _targets(draft: Draft) -> Iterator[Problem]:
    for path, target in draft.targets:
        if target not in draft.order:
            yield Problem(path, f"there is no step {target!r}", nearest(target, draft.order))


def _ask(name: str, step: AskStep) -> Iterator[Problem]:
    path: Path = ("flow", name)
    if not step.choices and step.digits is None:
        yield Problem(path, "the question expects no answer", "give it expect, keys or digits")
    if step.digits is not None and step.digits.by != "voice" and step.keys:
        yield Problem((*path, "keys"), "would be taken for digits", "set digits.by: voice, or ask in two steps")
    meant: dict[str, str] = {}
    for choice, phrases in step.expect.items():
        if choice == "default":
            yield Problem(
                (*path, "expect", choice), "'default' cannot be a choice", "it stands for any other; rename it"
            )
        if not phrases:
            yield Problem((*path, "expect", choice), "has no phrases", "list what callers say for it")
        for index, phrase in enumerate(phrases):
            spoken, where = normalise(phrase), (*path, "expect", choice, index)
            if not spoken:
                yield Problem(where, f"{phrase!r} has no words", "write what callers say")
            elif meant.setdefault(spoken, choice) != choice:
                what = f"{spoken!r} already means {meant[spoken]!r}"
                yield Problem(where, what, "one phrase can mean only one choice")
    for key, choice in step.keys.items():
        if choice not in step.choices:
            yield Problem((*path, "keys", key), f"there is no choice {choice!r}", nearest(choice, step.choices))
    named = [choice for choice in step.next if choice != "default"]
    for choice in named:
        if choice not in step.choices:
            yield Problem((*path, "next", choice), f"there is no choice {choice!r}", nearest(choice, step.choices))
    if named and "default" not in step.next:
        for choice in step.choices:
            if choice not in step.next:
                yield Problem((*path, "next"), f"choice {choice!r} has no step", "add it, or a default")
        if step.digits is not None:
            yield Problem((*path, "next"), "the digits have no step", "add a default")


def _converse(line: Line, name: str, step: ConverseStep) -> Iterator[Problem]:
    path: Path = ("flow", name)
    for index, outcome in enumerate(step.unfilled):
        if outcome not in step.outcomes:
            hint = nearest(outcome, step.outcomes) if step.outcomes else "name outcomes in next, or remove it"
            yield Problem((*path, "unfilled", index), f"there is no outcome {outcome!r}", hint)
    for index, tool in enumerate(step.tools):
        if tool == HAND_BACK:
            yield Problem((*path, "tools", index), f"{tool} is always there", "remove it")
        elif tool == "transfer" and not line.transfers:
            yield Problem((*path, "tools", index), "there is nobody to hand on to", "name them under transfers")
        elif tool == "remember":
            yield Problem((*path, "tools", index), "cannot be used in a flow", "remove it")


def _branch(draft: Draft, name: str, step: BranchStep) -> Iterator[Problem]:
    slots = _slots(draft)
    path: Path = ("flow", name)
    if step.branch not in slots:
        yield Problem((*path, "branch"), f"no question fills slot {step.branch!r}", nearest(step.branch, slots))
        return
    question = slots[step.branch]
    if question is None or question.digits is not None:
        return
    for value in step.when:
        if value not in question.choices:
            hint = nearest(value, question.choices)
            yield Problem((*path, "when", value), f"slot {step.branch!r} never holds {value!r}", hint)


def _callback(draft: Draft, name: str, step: CallbackStep) -> Iterator[Problem]:
    """It must be a time, whatever is answered."""
    path: Path = ("flow", name, "callback")
    slots = _slots(draft)
    written = [step.callback]
    for variable, _ in variables_in(step.callback):
        question = slots.get(variable.removeprefix("slots.")) if variable.startswith("slots.") else None
        if question is None or question.digits is not None:
            hint = "ask for it with expect, or keys, whose choices are times: `tomorrow 09:30`"
            yield Problem(path, f"${{{variable}}} may be no time", hint)
            return
        written = [render(text, {variable: choice}) for text in written for choice in question.choices]
    for text in written:
        if not is_callback_time(text):
            yield Problem(path, f"{text!r} is no time to call again", f"write it as {WAYS}")


def _falls_through(step: Step) -> bool:
    if isinstance(step, SayStep | CallbackStep):
        return step.next is None
    return isinstance(step, AskStep | ConverseStep) and not step.next


def _end(draft: Draft) -> Iterator[Problem]:
    last = draft.sound.get(draft.order[-1])
    if last is not None and _falls_through(last):
        yield Problem(("flow", draft.order[-1]), "the last step leads nowhere", "give it next, or end with hang_up")


def _edges(draft: Draft, name: str) -> list[str]:
    """Steps that ``name`` can lead to. A broken step may lead to any step it mentions, and to the one below."""
    below = list(draft.order[draft.order.index(name) + 1 :][:1])
    if name in draft.broken:
        mentioned = set(_strings(draft.broken[name]))
        return [step for step in draft.order if step in mentioned] + below
    step = draft.line.flow[name]
    targets = [target for path, target in draft.targets if path[1] == name and path[0] == "flow"]
    return targets + (below if _falls_through(step) else [])


def _strings(raw: Any) -> Iterator[str]:
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, dict | list):
        for item in raw.values() if isinstance(raw, dict) else raw:
            yield from _strings(item)


def _loops(draft: Draft) -> Iterator[Problem]:
    """Cycles of steps without a question: a call would go round for ever."""
    silent = {
        name: step for name, step in draft.sound.items() if not isinstance(step, AskStep | ConverseStep | HangUpStep)
    }
    edges = {name: [target for target in draft.ways[name] if target in silent] for name in silent}
    reported: set[str] = set()
    for start in silent:
        cycle = [] if start in reported else _way_back(edges, start)
        if cycle:
            what = f"{' -> '.join(cycle)} goes round without asking anything"
            yield Problem(("flow", start), what, "put a question or a hang_up in between")
            reported.update(cycle)


def _way_back(edges: Mapping[str, list[str]], start: str) -> list[str]:
    """The shortest way from ``start`` to itself; empty where there is none."""
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for target in edges[here]:
            if target == start:
                way = [start]
                while here != start:
                    way.append(here)
                    here = came_from[here]
                return [start, *reversed(way)]
            if target not in came_from:
                came_from[target] = here
                waiting.append(target)
    return []


def _reach(edges: Mapping[str, list[str]], start: str) -> set[str]:
    seen = {start}
    waiting = [start]
    while waiting:
        for target in edges.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def _unreachable(draft: Draft) -> Iterator[Problem]:
    known = set(draft.order)
    if draft.start not in known:
        return
    edges = {name: [target for target in draft.ways[name] if target in known] for name in draft.order}
    line_level = [policy.then for policy in (draft.line.no_input, draft.line.no_match) if policy.then in known]
    by_key = [target for _, target in _outside(draft.line) if target in known]
    edges[draft.start] = edges[draft.start] + [then for then in line_level if then is not None] + by_key
    reached = _reach(edges, draft.start)
    for name in draft.order:
        if name not in reached:
            yield Problem(("flow", name), f"no step leads to {name!r}", "lead to it, or remove it")


def _words(draft: Draft, missing_words: MissingWords) -> Iterator[Problem]:
    said: set[str] = set()
    for name, step in draft.sound.items():
        if not isinstance(step, AskStep):
            continue
        for choice, phrases in step.expect.items():
            for index, phrase in enumerate(phrases):
                unknown = [
                    word
                    for word in missing_words(normalise(phrase))
                    if word not in draft.line.pronunciations and word not in said
                ]
                said.update(unknown)
                if unknown:
                    words = ", ".join(repr(word) for word in unknown)
                    hint = f"reword it, or add the phones under pronunciations: {{{unknown[0]}: ...}}"
                    what = f"the recogniser does not know {words}"
                    yield Problem(("flow", name, "expect", choice, index), what, hint)
