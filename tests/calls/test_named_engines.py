"""A line's own engines: configured by name, run by workers of their own, checked, and used by its calls alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.calls.services import NamedEngine, Services
from appliance.calls.warm_up import WarmUp
from appliance.cli.check import examine
from appliance.dialplan.schema import Line
from appliance.dialplan.surroundings import Recogniser, Surroundings, misfits
from appliance.engines.worker import make_engine
from appliance.server.plan import plan, pool_of, worker_names
from tests.calls.test_warm_up import Pool, run_for
from tests.calls.virtual_call import VirtualCall, flow_line
from tests.config_files import load, mistakes
from tests.engines.virtual_time import run_virtual

pytestmark = pytest.mark.usefixtures("in_tmp_path")

NAMED = """
engines:
  llm: {provider: fake, text: One.}
  named:
    llm: {clever: {provider: fake, text: Two., timeout_s: 3}}
    tts: {warm: {provider: fake, workers: 2, fallback: none}}
    asr: {free-speech: {provider: fake}}
"""


def clever_line(**changes: Any) -> Line:
    data = {"name": "x", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello.", "engines": {"llm": "clever"}}
    return Line.model_validate(data | changes)


def test_each_named_engine_has_workers_of_its_own() -> None:
    settings = load(NAMED)
    workers = {spec.name: spec.arguments for spec in plan(frozenset({0, 1}), settings) if "--kind" in spec.arguments}
    assert workers["llm-0"] == ("--name", "llm-0", "--kind", "llm")
    assert workers["llm.clever-0"] == ("--name", "llm.clever-0", "--kind", "llm", "--engine", "clever")
    assert worker_names("tts", settings, 2, "warm") == ["tts.warm-0", "tts.warm-1"]
    assert [pool_of(name) for name in ("asr.free-speech-0", "asr-1")] == ["asr.free-speech", "asr"]
    texts = [make_engine(settings, "llm", name).options.text for name in ("", "clever")]  # type: ignore[attr-defined]
    assert texts == ["One.", "Two."]
    assert settings.engines.voice("warm").fallback.provider == "none"


def test_wrong_settings_of_a_named_engine_are_told_where_they_stand() -> None:
    for text, said in (
        ("llm: {clever: {provider: none}}", "engines.named.llm.clever.provider: is none: a line that names it has nob"),
        ("llm: {clever: {}}", "engines.named.llm.clever.provider: is missing"),
        ("tts: {'a b': espeak}", "engines.named.tts"),
        ("vad: {x: {provider: silero}}", "engines.named.vad: unknown key"),
    ):
        (mistake, *_) = mistakes(f"engines: {{named: {{{text}}}}}\n")
        assert said in mistake
    (away,) = mistakes("egress: []\nengines: {named: {llm: {far: {provider: fake, url: 'https://far.example'}}}}\n")
    assert "engines.named.llm.far.options.url: is at far.example, which egress does not list" in away
    Path("box.yaml").write_text("engines: {named: {llm: {a: {provider: fakee}, b: {provider: fake, txt: x}}}}\n")
    found = "\n".join(map(str, examine(Path("box.yaml"), []).mistakes))
    assert "engines.named.llm.a.provider: " in found
    assert "engines.named.llm.b.txt: " in found


def test_a_line_that_names_no_such_engine_is_told_the_nearest() -> None:
    around = Surroundings(recognisers={}, models=("clever",), voices={})
    (wrong,) = misfits(clever_line(engines={"llm": "cleverer"}), {}, around)
    assert (wrong.path, wrong.hint) == (("engines", "llm"), "did you mean 'clever'?")
    (none,) = misfits(clever_line(engines={"asr": "free"}), {}, around)
    assert none.hint == "add it to engines.named.asr in appliance.yaml"
    (flow,) = misfits(flow_line(engines={"llm": "clever"}), {}, around)
    assert "has no effect without a language model" in flow.what
    (realtime,) = misfits(clever_line(agent="realtime"), {}, around)
    assert "has no effect with agent: realtime" in realtime.what


def test_a_line_is_checked_against_the_engines_that_it_names() -> None:
    said: list[str] = []
    around = Surroundings(
        languages=("en",),
        llm=False,
        open_vocabulary=False,
        missing_words=lambda phrase: ["x"],
        recognisers={"free": Recogniser()},
        models=("clever",),
        voices={"warm": lambda name, language: f"there is no voice {said.append(name) or name}"},
    )
    assert len(misfits(clever_line(engines={}, language="de"), {}, around)) == 2
    line = clever_line(engines={"asr": "free", "llm": "clever", "tts": "warm"}, language="de", voice={"name": "Anna"})
    (voice,) = misfits(line, {}, around)
    assert (voice.path, said) == (("voice", "name"), ["Anna"])
    assert (around.of(line).missing_words, around.of(line).open_vocabulary) == (None, True)


def test_a_call_uses_the_engines_of_its_line() -> None:
    async def call() -> None:
        made = VirtualCall(clever_line(), llm=True)
        other = VirtualCall(clever_line(), llm=True)
        other.task.cancel()
        await asyncio.gather(other.task, return_exceptions=True)
        made.session._services = services = with_named(made.session._services, other.engines)
        other.engines.tokens = ["I am ", "clever."]
        assert services.llm_timeout_s == 3.0
        await made.until_quiet()
        made.speaks(1.0, "hello")
        await made.until_says("I am clever.")
        await made.ends()
        assert (len(made.engines.prompts), len(other.engines.prompts) > 0) == (0, True)

    run_virtual(call())


def with_named(services: Services, engines: Any) -> Services:
    from dataclasses import replace

    named = {("llm", "clever"): NamedEngine(engines, 3.0)}
    line = clever_line(engines={"llm": "clever", "asr": "gone"})
    return replace(services, named=named).on(line)


def test_what_a_line_says_is_prepared_by_the_synthesiser_that_it_names() -> None:
    usual, warm = Pool(), Pool()
    lines = (flow_line(greeting="Usual."), flow_line(greeting="Warm.", engines={"tts": "warm"}))

    async def both() -> None:
        pools: list[Any] = [usual, warm]
        await asyncio.gather(run_for(WarmUp(pools[0], lines), 5), run_for(WarmUp(pools[1], lines, "warm"), 5))

    run_virtual(both())
    assert ("Usual." in usual.texts, "Warm." in usual.texts) == (True, False)
    assert ("Usual." in warm.texts, "Warm." in warm.texts) == (False, True)
