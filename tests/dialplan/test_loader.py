"""Dialplan files: every mistake at its line, in words that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.config import load_settings, shipped_dir
from appliance.dialplan.flow import Flow
from appliance.dialplan.loader import Dialplan, load_dialplans, load_lines
from appliance.dialplan.steps import AskStep
from appliance.dialplan.surroundings import Surroundings
from appliance.engines.lexicon import Lexicon
from appliance.errors import ConfigError

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def write(**files: str) -> list[Path]:
    folder = Path("dialplans")
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return [folder]


def load(text: str, **options: Any) -> Dialplan:
    return load_dialplans(write(plan=text), Surroundings(**options))


def mistakes(text: str, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, **options)
    return [str(m).removeprefix("dialplans/") for m in caught.value.mistakes]


def in_line(flow: str, rest: str = "") -> str:
    """A line with this flow; the flow begins on line 3."""
    indented = "".join(f"  {line}\n" for line in flow.strip("\n").splitlines())
    return f"name: test\nflow:\n{indented}{rest}"


# --- good files -------------------------------------------------------------------------------------------------------


def test_files_are_tried_by_name_and_lines_from_top_to_bottom() -> None:
    bye = "flow: {bye: {hang_up: Goodbye.}}"
    paths = write(
        b=f"name: last\n{bye}\n",
        a=f"lines:\n- {{name: first, match: {{called: 1}}, {bye}}}\n- {{name: second, match: {{called: 2}}, {bye}}}\n",
    )
    (paths[0] / "notes.txt").write_text("not a dialplan")
    (paths[0] / ".#b.yaml").symlink_to("someone@somewhere.4711:1")
    plan = load_dialplans(paths)
    assert [line.name for line in plan.lines] == ["first", "second", "last"]
    assert plan.sources == {"first": "dialplans/a.yaml:2", "second": "dialplans/a.yaml:3", "last": "dialplans/b.yaml:1"}
    assert plan.warnings == ()
    second = plan.line("second")
    assert second is not None
    assert second.match.called == ("2",)
    assert plan.line("third") is None


def test_yes_and_no_are_words_and_numbers_stay_numbers() -> None:
    plan = load(
        in_line(
            """
sure:
  ask: Sure?
  expect: {yes: yes please, no: [no, off]}
  keys: {1: yes, 0: no}
  next: {yes: bye, no: bye}
bye: {hang_up: }
""",
            "match: {called: [0301234, +4930*, 112]}\n",
        )
    )
    line = plan.lines[0]
    assert line.match.called == ("0301234", "+4930*", "112")
    assert Flow(line).start()[-1].phrases == ("yes please", "no", "off")  # type: ignore[union-attr]


def test_without_a_catch_all_there_is_a_warning() -> None:
    plan = load("name: a\nmatch: {called: 1}\nflow: {bye: {hang_up: Goodbye.}}\n")
    assert [str(warning) for warning in plan.warnings] == [
        "dialplans/plan.yaml:1: match: no line answers every call; others are refused with 404; "
        "add a last line without match"
    ]


def test_the_shipped_dialplans_have_no_mistake_and_answer_every_call() -> None:
    plan = load_lines(load_settings(None, []))
    assert plan.warnings == ()
    assert [line.name for line in plan.lines] == ["reception"]


def test_the_shipped_dialplan_asks_at_least_three_times_and_never_hangs_up_on_a_silent_caller_too_soon() -> None:
    line = load_dialplans([shipped_dir("dialplans")], Surroundings(missing_words=Lexicon().missing)).lines[0]
    assert sum(isinstance(step, AskStep) for step in line.flow.values()) >= 3
    silence_s = line.no_input.after_s * (len(line.no_input.prompts) + 1)
    assert line.no_input.after_s >= 8
    assert silence_s >= 20


# --- ten mistakes -----------------------------------------------------------------------------------------------------


def test_a_dialplan_with_ten_mistakes_gives_ten_lines() -> None:
    text = """\
name: reception
langauge: en-us
greeting: Hello ${caller.nmae}.
max_duration_s: soon
flow:
  what:
    ask: A table or our opening hours?
    expect:
      table: [book a table, a table]
      hours: [opening hours, A table!]
    keys: {1: table, 2: huors}
    next: {table: people, hours: tell_hours}
  people:
    ask: How many?
    digits: {min: 3, max: 2}
    no_input: {then: nobody}
  again:
    say: Good.
    nxt: people
  round:
    goto: and_round
  and_round:
    goto: round
  lost:
    say: Nobody ever comes here.
    next: people
"""
    assert mistakes(text) == [
        "plan.yaml:2: langauge: unknown key; did you mean 'language'?",
        "plan.yaml:3: greeting: unknown variable ${caller.nmae}; did you mean 'caller.number'?",
        "plan.yaml:4: max_duration_s: must be a number, not 'soon'",
        "plan.yaml:10: flow.what.expect.hours.1: 'a table' already means 'table'; one phrase can mean only one choice",
        "plan.yaml:11: flow.what.keys.2: there is no choice 'huors'; did you mean 'hours'?",
        "plan.yaml:12: flow.what.next.hours: there is no step 'tell_hours'; "
        "known: what, people, again, round, and_round, lost",
        "plan.yaml:15: flow.people.digits: min 3 is more than max 2; swap them",
        "plan.yaml:19: flow.again.nxt: unknown key; did you mean 'next'?",
        "plan.yaml:20: flow.round: round -> and_round -> round goes round without asking anything; "
        "put a question or a hang_up in between",
        "plan.yaml:24: flow.lost: no step leads to 'lost'; lead to it, or remove it",
    ]


# --- single mistakes --------------------------------------------------------------------------------------------------

BYE = "\nbye: {hang_up: Goodbye.}"


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        ("a: {say: Hello.}", "3: flow.a: the last step leads nowhere; give it next, or end with hang_up"),
        ("a: {say: Hello., next: b}" + BYE, "3: flow.a.next: there is no step 'b'; known: a, bye"),
        ("a: {goto: byee}" + BYE, "3: flow.a.goto: there is no step 'byee'; did you mean 'bye'?"),
        ("a: {ask: What now}" + BYE, "3: flow.a: the question expects no answer; give it expect, keys or digits"),
        ("a: {ask: What now, expect: []}" + BYE, "3: flow.a: the question expects no answer; give it"),
        (
            "a: {ask: What now, expect: {x: []}}" + BYE,
            "3: flow.a.expect.x: has no phrases; list what callers say for it",
        ),
        (
            "a: {ask: What now, expect: ['?!']}" + BYE,
            "3: flow.a.expect.?!.0: '?!' has no words; write what callers say",
        ),
        (
            "a: {ask: What now, expect: [true]}" + BYE,
            "3: flow.a.expect: holds something that is not a phrase; put words",
        ),
        (
            "a: {ask: What now, expect: {default: x}}" + BYE,
            "3: flow.a.expect.default: 'default' cannot be a choice; it",
        ),
        ("a: {ask: What now, expect: [x], keys: {11: x}}" + BYE, "3: flow.a.keys.11: '11' is not a telephone key; use"),
        ("a: {ask: What now, expect: [x], next: {y: bye}}" + BYE, "3: flow.a.next.y: there is no choice 'y'; known: x"),
        (
            "a: {ask: What now, expect: [x, y], next: {x: bye}}" + BYE,
            "3: flow.a.next: choice 'y' has no step; add it, or",
        ),
        (
            "a: {ask: What now, expect: [x], digits: {max: 3}, next: {x: bye}}" + BYE,
            "3: flow.a.next: the digits have no step; add a default",
        ),
        (
            "a: {ask: What now, keys: {1: x}, digits: {max: 3}}" + BYE,
            "3: flow.a.keys: would be taken for digits; set digits.by: voice, or ask in two steps",
        ),
        ("a: {ask: What now, digits: {}}" + BYE, "3: flow.a.digits.max: is missing; add 'max:'"),
        ("a: {ask: What now, digits: {max: 99}}" + BYE, "3: flow.a.digits.max: must be at most 32, not 99"),
        (
            "a: {ask: What now, digits: {max: 4, by: keys}}" + BYE,
            "3: flow.a.digits.by: must be one of key, voice, both, ",
        ),
        (
            "a: {ask: What now, digits: {max: 4, terminator: 5}}" + BYE,
            "3: flow.a.digits.terminator: '5' cannot end a num",
        ),
        (
            "a: {ask: What now, digits: {max: 4}, slot: pin, private: true}\nb: {say: 'It is ${slots.pin}.'}" + BYE,
            "4: flow.b.say: ${slots.pin} is private: it would be recorded, and be on record; do not say it, or remove",
        ),
        ("a: {converse: Help.}" + BYE, "3: flow.a.failed: is missing; add 'failed:'"),
        ("a: {converse: Help., failed: by}" + BYE, "3: flow.a.failed: there is no step 'by'; did you mean 'bye'?"),
        (
            "a: {converse: Help., failed: bye, next: {ok: bye, no: bye}, unfilled: [okay]}" + BYE,
            "3: flow.a.unfilled.0: there is no outcome 'okay'; did you mean 'ok'?",
        ),
        (
            "a: {converse: Help., failed: bye, tools: [transfer]}" + BYE,
            "3: flow.a.tools.0: there is nobody to hand on to; name them under transfers",
        ),
        (
            "a: {converse: Help., failed: bye, slots: {n: {type: integer, choices: [a]}}}" + BYE,
            "3: flow.a.slots.n: has choices, and is of type integer; set type: string, or remove them",
        ),
        ("a: {branch: x, when: {y: bye}, default: bye}" + BYE, "3: flow.a.branch: no question fills slot 'x'"),
        (
            "a: {ask: What now, expect: [x], slot: s}\nb: {branch: s, when: {z: bye}, default: bye}" + BYE,
            "4: flow.b.when.z: slot 's' never holds 'z'; known: x",
        ),
        ("a: {branch: s, when: {y: bye}}" + BYE, "3: flow.a.default: is missing; add 'default:'"),
        ("a: {say: 'Hi ${slots.x}.'}" + BYE, "3: flow.a.say: unknown variable ${slots.x}; known: caller.number"),
        ("a: {say: 'Hi ${caller.number | words}.'}" + BYE, "3: flow.a.say: unknown filter 'words'; the only one is"),
        ("a: {say: Hello., ask: What now}" + BYE, "3: flow.a: the step has both say and ask; make two steps of it"),
        ("a: {text: Hello.}" + BYE, "3: flow.a: the step does nothing; give it one of say, ask, branch, hang_up, goto"),
        ("a: bye" + BYE, "3: flow.a: is not a step; give it one of say, ask, branch, hang_up, goto"),
        ("a: {say: Hello., nxt: bye}" + BYE, "3: flow.a.nxt: unknown key; did you mean 'next'?"),
        ("a: {say: Hello., expect: [x]}" + BYE, "3: flow.a.expect: unknown key; known: say, interruptible, next"),
        ("a: {say: }" + BYE, "3: flow.a.say: has no value; it must be text; give it one or remove the key"),
        ("a b: {say: Hello.}" + BYE, "3: flow.a b: 'a b' is not a name; use letters, digits, - and _"),
        ("a: {goto: a}" + BYE, "3: flow.a: a -> a goes round without asking anything; put a question or a hang_up"),
        ("a: {say: x}\na: {say: y}" + BYE, "4: flow.a: is given twice; the first is on line 3; keep one"),
    ],
)
def test_a_mistake_in_a_flow(flow: str, expected: str) -> None:
    found = mistakes(in_line(flow))
    assert [line for line in found if line.startswith(f"plan.yaml:{expected}")], found


def test_a_broken_step_does_not_make_its_neighbours_wrong() -> None:
    flow = """
a: {ask: What now, expect: [x], slot: s, next: {x: b}, oops: 1, digits: 5}
b: {say: "You said ${slots.s}.", next: c}
c: {branch: s, when: {x: bye}, default: bye}
bye: {hang_up: Goodbye.}
"""
    assert mistakes(in_line(flow)) == [
        "plan.yaml:3: flow.a.digits: must be a mapping (key: value), not 5",
        "plan.yaml:3: flow.a.oops: unknown key; known: ask, expect, keys, digits, slot, next, interruptible, "
        "no_input, no_match, private",
    ]


LLM = "name: x\nagent: llm\nprompt: y\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: file: is empty; begin with `lines:` and a list, or with `name:`; see docs/dialplans.md"),
        ("[1]", "1: file: is not a dialplan; begin with `lines:`"),
        ("lines: 5", "1: lines: must be a list of lines; write each as `- name: ...`"),
        ("lines: [5]", "1: lines.0: is not a line; write `name:` and the other keys below it"),
        ("lines: []\nname: x", "2: name: unknown key beside lines; indent it, if it belongs to a line"),
        ("flow: {a: {hang_up: x}}", "1: name: is missing; add 'name:'"),
        ("name: a b\nflow: {a: {say: x}}", "1: name: 'a b' is not a name; use letters, digits, - and _"),
        ("name: a b\nflow: {a: {say: x}}", "2: flow.a: the last step leads nowhere"),
        ("name: x", "1: flow: is missing; give the line steps, or set agent: llm"),
        ("name: x\nagent: llm", "1: prompt: is missing; tell the model what it is to do, or set agent: flow"),
        ("name: x\nprompt: y\nflow: {a: {hang_up: x}}", "2: prompt: has no effect with agent: flow; remove it"),
        ("name: x\nagent: llm\nprompt: y\nflow: {a: {hang_up: x}}", "4: flow: has no effect with agent: llm"),
        (
            f"{LLM}on_engine_failure: {{step: a}}",
            "4: on_engine_failure.step: there is no step 'a'; give the line a flow with it",
        ),
        (
            f"{LLM}on_engine_failure: {{step: b}}\nflow: {{a: {{hang_up: x}}}}",
            "4: on_engine_failure.step: there is no step 'b'; known: a",
        ),
        (
            f"{LLM}on_engine_failure: {{step: b}}\nflow: {{a: {{say: x}}, b: {{hang_up: x}}}}",
            "5: flow.a: no step leads to 'a'",
        ),
        (
            f"{LLM}on_engine_failure: {{step: a, transfer: 7}}\nflow: {{a: {{hang_up: x}}}}",
            "4: on_engine_failure: has both transfer and",
        ),
        (
            f"{LLM}on_engine_failure: {{transfer: {{to: 7, announce: x}}}}",
            "4: on_engine_failure.transfer.announce: nobody hears it",
        ),
        (f"{LLM}on_engine_failure: {{say: '${{b}}'}}", "4: on_engine_failure.say: unknown variable ${b}"),
        (f"{LLM}tools: [hang_up, trnsfer]", "4: tools.1: there is no tool 'trnsfer'; did you mean 'transfer'?"),
        (f"{LLM}tools: [transfer]", "4: tools.0: there is nobody to hand on to; name them under transfers"),
        (f"{LLM}tools: [remember]", "4: tools.0: nothing is remembered on this line; set memory.enabled: true"),
        (f"{LLM}tools: []\ntransfers: {{a: 7}}", "5: transfers.a: the model may not hand on; add transfer to tools"),
        (f"{LLM}transfers: {{a: {{to: 7, announce: x}}}}", "4: transfers.a.announce: nobody hears it"),
        (f"{LLM}transfers: {{a: '${{b}}'}}", "4: transfers.a.to: unknown variable ${b}"),
        (f"{LLM}timezone: Mars/Base", "4: timezone: 'Mars/Base' is not a time zone; write one such as Europe/Berlin"),
        (f"{LLM}manners: [bow]", "4: manners.0:"),
        (f"{LLM}turn: {{min_silence_s: 2}}", "4: turn: min_silence_s 2 is more than max_silence_s 1.55; set"),
        (f"{LLM}turn: {{max_silence_s: 4}}", "4: turn.max_silence_s: must be at most 3, not 4"),
        ("name: x\ntools: []\nflow: {a: {hang_up: x}}", "2: tools: has no effect with agent: flow; remove it"),
        (f"{LLM}on_engine_failure: {{after: 0}}", "4: on_engine_failure.after: must be at least 1, not 0"),
        ("name: x\nmatch: {called: '*49'}", "2: match.called: '*49' is not a number or a prefix; write it in full, or"),
        ("name: x\nmatch: {called: []}", "2: match.called: must not be empty"),
        ("name: x\npronunciations: {chaya: CH EE}", "2: pronunciations.chaya: 'EE' is not a phone; use AA AE"),
        ("name: x\npronunciations: {chaya: ''}", "2: pronunciations.chaya: has no phones; write ARPAbet phones"),
        ("name: x\npronunciations: {Cha ya: CH}", "2: pronunciations.Cha ya: 'Cha ya' is not one word in lower case"),
        ("name: x\nno_input: {then: z}\nflow: {a: {hang_up: x}}", "2: no_input.then: there is no step 'z'; known: a"),
        (
            "name: x\nno_input: {prompts: [a, '${b}']}",
            "2: no_input.prompts.1: unknown variable ${b}; known: caller.num",
        ),
        ("name: x\npassword: !secret y", "2: password: !secret cannot be used here; secrets belong in appliance.yaml"),
    ],
)
def test_a_mistake_in_a_line(text: str, expected: str) -> None:
    found = mistakes(text)
    assert [line for line in found if line.startswith(f"plan.yaml:{expected}")], found


def test_a_model_that_could_hear_nothing_is_warned_about() -> None:
    plan = load_dialplans(write(a=f"{LLM}match: {{}}\n"), Surroundings(open_vocabulary=False))
    (warning,) = plan.warnings
    assert str(warning).startswith("dialplans/a.yaml:2: agent: the recogniser understands expected phrases only")
    assert load_dialplans(write(a=f"{LLM}match: {{}}\n")).warnings == ()


def test_lines_are_compared_across_files() -> None:
    bye = "flow: {bye: {hang_up: Goodbye.}}"
    paths = write(a=f"name: x\n{bye}\n", b=f"name: x\n{bye}\n", c=f"name: y\nmatch: {{called: 1}}\n{bye}\n")
    with pytest.raises(ConfigError) as caught:
        load_dialplans(paths)
    assert [str(m) for m in caught.value.mistakes] == [
        "dialplans/b.yaml:1: name: 'x' is already the line at dialplans/a.yaml:1; give each line a name of its own",
        "dialplans/c.yaml:2: match: line 'y' never answers: 'x' above it matches every call; "
        "move the line that matches all to the end",
    ]


def test_lines_are_checked_against_the_rest_of_the_box() -> None:
    text = "name: x\nlanguage: de-de\nagent: llm\nprompt: y\nmatch:\n  trunk: [pbx, locl]\n"
    assert mistakes(text, trunks=["local", "pbx"], languages=["en"], llm=False) == [
        "plan.yaml:2: language: the recogniser does not understand 'de-de'; it understands en; "
        "or name another engines.asr.provider in appliance.yaml",
        "plan.yaml:3: agent: there is no language model; set engines.llm.provider in appliance.yaml, or agent: flow",
        "plan.yaml:6: match.trunk.1: there is no trunk 'locl'; did you mean 'local'?",
    ]


def test_words_that_the_recogniser_does_not_know() -> None:
    text = in_line(
        """
a:
  ask: What?
  expect:
    pizza: [a pizza zugzwang, zugzwang]
    tea:
      - a chaya please
b: {ask: And then, expect: [qwertz please]}
bye: {hang_up: Goodbye.}
""",
        "pronunciations: {chaya: CH AY AH}\n",
    )
    assert mistakes(text, missing_words=Lexicon().missing) == [
        "plan.yaml:6: flow.a.expect.pizza.0: the recogniser does not know 'zugzwang'; "
        "reword it, or add the phones under pronunciations: {zugzwang: ...}",
        "plan.yaml:9: flow.b.expect.qwertz please.0: the recogniser does not know 'qwertz'; "
        "reword it, or add the phones under pronunciations: {qwertz: ...}",
    ]


def test_folders_and_files_that_are_not_there() -> None:
    Path("empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_dialplans([Path("empty"), Path("absent")])
    assert [str(m) for m in caught.value.mistakes] == [
        "absent:1: file: cannot be read: no such file or directory; check its path",
        "empty:1: file: the folder holds no *.yaml file; add one, or name another folder under dialplans.paths",
    ]


# --- anything at all --------------------------------------------------------------------------------------------------

_KEYS = "a b c name flow say ask expect keys digits slot next branch when default goto hang_up no_input then lines"
_words = st.sampled_from(_KEYS.split())
_scalars = st.none() | st.booleans() | st.integers(0, 12) | st.text(max_size=5) | _words
_steps = st.dictionaries(
    _words,
    st.recursive(_scalars, lambda s: st.lists(s, max_size=3) | st.dictionaries(_words, s, max_size=3)),
    max_size=5,
)
_likely_steps = (
    st.fixed_dictionaries({"say": _words}, optional={"next": _words})
    | st.fixed_dictionaries({"goto": _words})
    | st.fixed_dictionaries({"hang_up": _words})
    | st.fixed_dictionaries({"branch": _words, "when": st.dictionaries(_words, _words), "default": _words})
    | st.fixed_dictionaries({"ask": _words, "expect": st.lists(_words)}, optional={"next": _words, "slot": _words})
)
_lines = st.fixed_dictionaries(
    {"name": _words, "flow": st.dictionaries(_words, _likely_steps | _steps, max_size=5)},
    optional={"match": _steps, "no_input": _steps, "greeting": _scalars, "pronunciations": _steps},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_lines | st.fixed_dictionaries({"lines": st.lists(_lines | _scalars, max_size=3)}))
def test_any_data_loads_or_is_a_config_error(data: Any) -> None:
    try:
        plan = load(yaml.safe_dump(data, sort_keys=False))
    except ConfigError as error:
        assert error.mistakes
    else:
        for line in plan.lines:
            if line.agent == "flow":
                Flow(line).start()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="aflow: {}[]-\n\t&*!'\"|>#name", max_size=80))
def test_any_text_loads_or_is_a_config_error(text: str) -> None:
    try:
        load(text)
    except ConfigError as error:
        assert error.mistakes


def test_a_line_without_a_name_is_checked_against_the_box_all_the_same() -> None:
    found = mistakes("match: {trunk: locla}\ngreeting: 7\nflow: {bye: {hang_up: Bye.}}\n", trunks=["local"])
    assert found == [
        "plan.yaml:1: match.trunk: there is no trunk 'locla'; did you mean 'local'?",
        "plan.yaml:1: name: is missing; add 'name:'",
        "plan.yaml:2: greeting: must be text, not 7; write the words to say, in quotes if they look like a number",
    ]


def test_transfers_that_lead_nowhere() -> None:
    text = """\
name: x
flow:
  a: {transfer: {to: "200", trunk: pbxx}, failed: b}
  b: {transfer: "${slots.who}", failed: c, say: hi}
  c: {transfer: {to: "sip:1@pbx", announce: hello}, failed: a}
"""
    assert mistakes(text, trunks=["pbx"], routes=False) == [
        "plan.yaml:3: flow.a: a -> b -> c -> a goes round without asking anything; "
        "put a question or a hang_up in between",
        "plan.yaml:3: flow.a.transfer.trunk: there is no trunk 'pbxx'; did you mean 'pbx'?",
        "plan.yaml:4: flow.b.transfer: nothing says by which trunk; name a trunk here, or add routes to appliance.yaml",
        "plan.yaml:4: flow.b.transfer.to: unknown variable ${slots.who}; known: caller.number, called.number, "
        "line.name, campaign.owner, campaign.name, caller.asserted, caller.asserted_name, caller.verstat, "
        "caller.privacy, diverted.number, call.reason, call.user_to_user",
        "plan.yaml:5: flow.c.transfer.announce: nobody hears it with kind: blind; set kind: attended, or remove it",
    ]


def test_a_line_whose_model_hears_needs_one_and_takes_no_keys_of_text() -> None:
    text = """
    name: talk
    agent: realtime
    prompt: Be brief.
    tools: [collect_digits]
    context_tokens: 2000
    """
    told = mistakes(text, speech=False)
    assert [one.partition(": ")[2] for one in told] == [
        "agent: there is no model that hears and speaks; set engines.speech.provider in appliance.yaml, or agent: flow",
        "tools.0: cannot be used with agent: realtime; remove it, or set agent: llm",
        "context_tokens: has no effect with agent: realtime; remove it, or set agent: llm",
    ]


def test_only_a_model_that_hears_can_find_the_ends_of_turns() -> None:
    text = """
    name: desk
    turn: {by: model}
    flow: {bye: {hang_up: Goodbye.}}
    """
    (told,) = mistakes(text)
    assert told.endswith("turn.by: there is no model that hears with agent: flow; use box")


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("record: {ask: May we?}", "record: ask is never said with consent: none; set consent: ask, or remove it"),
        ("record: {consent: asks}", "record.consent: must be one of none, announce, ask"),
        (
            "agent: realtime\nprompt: Be brief.\nrecord: {consent: ask}",
            "record.consent: a model that hears by itself cannot wait for consent; use announce; or set agent: llm",
        ),
    ],
)
def test_a_mistake_in_a_rule_for_recording(rest: str, expected: str) -> None:
    text = f"name: test\n{rest}\n" + ("" if "realtime" in rest else f"flow:{BYE.replace(chr(10), chr(10) + '  ')}\n")
    assert any(expected in mistake for mistake in mistakes(text, speech=True))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("{x: {say: Hi}}", "'x' is not a telephone key; use one of 0-9, * and #"),
        ('{"0": {}}', "keys.0: the key does nothing; give it one of say, transfer, goto, hang_up"),
        ('{"0": {goto: bye, hang_up: Bye}}', "keys.0: the key has both goto and hang_up; keep one of them"),
        ('{"0": {say: Hi, hang_up: Bye}}', "keys.0: the key has both say and hang_up; write what is said as hang_up"),
        ('{"0": {say: Hi, failed: bye}}', "keys.0: failed has no effect without transfer"),
        ('{"0": {goto: by}}', "keys.0.goto: there is no step 'by'; did you mean 'bye'?"),
        ('{"0": {transfer: 100, failed: byes}}', "keys.0.failed: there is no step 'byes'; did you mean 'bye'?"),
        ('{"0": {transfer: {to: 100, announce: Hi}}}', "keys.0.transfer.announce: nobody hears it with kind: blind"),
        ('{"0": {transfer: {to: 100, trunk: carier}}}', "keys.0.transfer.trunk: there is no trunk 'carier'"),
        ('{"0": {say: "${callr.number}"}}', "unknown variable ${callr.number}; did you mean 'caller.number'?"),
        ('{"0": {gto: bye}}', "did you mean 'goto'?"),
    ],
)
@pytest.mark.parametrize("agent", ["flow", "llm"])
def test_a_mistake_in_a_key_that_does_something_at_any_time(agent: str, keys: str, expected: str) -> None:
    leads = "agent: llm\nprompt: Be brief.\non_engine_failure: {step: bye}\n" if agent == "llm" else ""
    text = f"name: test\n{leads}keys: {keys}\nflow: {{bye: {{hang_up: Goodbye.}}}}\n"
    told = mistakes(text, llm=True, trunks=["carrier"], routes=True)
    assert any(expected in mistake for mistake in told), told


def test_a_step_may_be_there_only_for_a_key() -> None:
    steps = "keys: {'0': {goto: menu}}\nflow: {bye: {hang_up: Goodbye.}, menu: {hang_up: The menu.}}\n"
    assert load(f"name: test\n{steps}").lines[0].keys["0"].goto == "menu"
    load(f"name: test\nagent: llm\nprompt: Be brief.\n{steps.replace('bye: {hang_up: Goodbye.}, ', '')}", llm=True)
    (told,) = mistakes("name: test\nagent: llm\nprompt: Be brief.\nkeys: {'0': {goto: menu}}\n", llm=True)
    assert told.endswith("keys.0.goto: there is no step 'menu'; give the line a flow with it")
    told, *_ = mistakes(
        f"name: test\nagent: realtime\nprompt: Be brief.\n{steps.replace('bye: {hang_up: Goodbye.}, ', '')}",
        speech=True,
    )
    assert "cannot be left for the flow by a key; use say, transfer or hang_up; or set agent: llm" in told
