from __future__ import annotations

import asyncio
import json
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cli.call_bundle import waterfall
from appliance.cli.calls import printable
from appliance.cli.main import main
from appliance.events import (
    CallTraced,
    Confirmed,
    Consent,
    Disposition,
    HangupBy,
    InputBy,
    RecordingConsent,
    RecordingPaused,
    Speculation,
    ToolRun,
)
from appliance.store.calls import CallStore
from tests.store import facts


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'appliance.db'}"


@pytest.fixture
def record(url: str) -> str:
    """Three calls; gives back the option that names their database."""

    async def write() -> None:
        async with CallStore(url, box="here") as store:
            await store.call_started(facts.started("abc1"))
            for event in (
                facts.ringing("abc1"),
                facts.answered("abc1"),
                facts.recording("abc1", "/var/r/abc1.wav"),
                RecordingConsent(call_id="abc1", consent=Consent.ANNOUNCED),
                RecordingPaused(call_id="abc1", parts=((100, 250), (500, None))),
                facts.turn("abc1", 0, by=InputBy.NONE, speech_start_at=None, speech_end_at=None, interrupted=False),
                facts.turn("abc1", 1),
                facts.turn("abc1", 2, by=InputBy.KEY, caller_text="3", confidence=None, interrupted=False),
                facts.measured("abc1"),
                facts.ended("abc1"),
                facts.recorded("abc1"),
            ):
                store.observe(event)
            await store.call_started(facts.started("abc2", at=60, calling="sip:\x1b[31mevil@10.0.0.9", line=""))
            store.call_ended(
                facts.ended(
                    "abc2",
                    at=61,
                    disposition=Disposition.REJECTED,
                    hangup_by=HangupBy.BOX,
                    hangup_code=404,
                    hangup_text="no line",
                    slots={},
                )
            )
            await store.call_started(facts.started("xyz", at=120, calling_name=""))

    asyncio.run(write())
    return f"store.url={url}"


def test_list_shows_the_newest_first_in_columns(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "list", "--set", record]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ID    STARTED              FROM                TO             LINE       DISPOSITION  TALK",
        "xyz   2026-03-02 12:02:00  anna@10.0.0.9       100@127.0.0.1  reception  in_progress  -",
        "abc2  2026-03-02 12:01:00  \ufffd[31mevil@10.0.0.9  100@127.0.0.1  -          rejected     -",
        "abc1  2026-03-02 12:00:00  anna@10.0.0.9       100@127.0.0.1  reception  completed    19.0 s",
    ]


def test_list_takes_a_limit_and_speaks_json(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "list", "--limit", "2", "--json", "--set", record]) == 0
    calls = json.loads(capsys.readouterr().out)
    assert [call["id"] for call in calls] == ["xyz", "abc2"]
    assert calls[0]["started_at"] == "2026-03-02T12:02:00+00:00"
    assert "turns" not in calls[0]


def test_show_prints_the_conversation_and_where_the_time_went(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "show", "abc1", "--set", record]) == 0
    assert (
        capsys.readouterr().out
        == """\
call       abc1, inbound, completed
from       Anna <sip:anna@10.0.0.9>
to         sip:100@127.0.0.1
line       reception on trunk local
protocol   sip abc1@10.0.0.9
started    2026-03-02 12:00:00
answered   after 1.00 s
ended      2026-03-02 12:00:20 after 19.0 s of talk, by caller (200 BYE)
slots      day = tuesday, count = 3
recording  /var/r/abc1.wav, 18.0 s
consent    announced
silent     from 2.0 s to 5.0 s, from 10.0 s to its end
quality    heard MOS 4.30, 0.5 % lost, jitter 1.2 ms, round trip 40 ms

         agent   We open at nine. Anything else?

 0:02.0  caller  opening hours (confidence 0.90)
 0:03.6  agent   We open at nine. (after 600 ms, interrupted)
                 asr         |       ######                            | 100 to 200 ms
                 endpointing |       #############                     | 100 to 300 ms
                 tts         |                    #################    | 300 to 550 ms
                 playout     |                                     ### | 550 to 600 ms

 0:02.0  caller  3 (by key)
 0:03.6  agent   We open at nine. Anything else? (after 600 ms)
                 asr         |       ######                            | 100 to 200 ms
                 endpointing |       #############                     | 100 to 300 ms
                 tts         |                    #################    | 300 to 550 ms
                 playout     |                                     ### | 550 to 600 ms
"""
    )


def test_show_takes_the_beginning_of_an_id(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "show", "x", "--json", "--set", record]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "xyz"


@pytest.mark.parametrize(
    ("prefix", "message"), [("abc", "several calls begin with abc: abc2, abc1"), ("q", "no call begins with q")]
)
def test_show_says_what_is_wrong_with_an_id(
    record: str, prefix: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calls", "show", prefix, "--set", record]) == 1
    assert message in capsys.readouterr().err


def test_a_box_that_never_ran_has_no_record(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "list", "--set", f"store.url={url}"]) == 2
    assert "there is no call record at" in capsys.readouterr().err


def test_an_empty_record_is_no_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def create() -> None:
        async with CallStore(url):
            pass

    asyncio.run(create())
    assert main(["calls", "list", "--set", f"store.url={url}"]) == 0
    assert "no calls yet" in capsys.readouterr().out


async def test_calls_are_listed_while_the_box_writes(url: str) -> None:
    async with CallStore(url) as store:
        await store.call_started(facts.started("running"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "appliance.cli.main", "calls", "list", "--set", f"store.url={url}"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    assert b"running" in out


def test_a_stage_before_speech_end_moves_the_scale() -> None:
    assert waterfall({"vad": [-100.0, 0.0], "asr": [0.0, 100.0]}) == [
        "vad |####################                     | -100 to 0 ms",
        "asr |                    #################### | 0 to 100 ms",
    ]
    assert waterfall({}) == []


def test_a_peer_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\r\n") == "a\ufffd[2Jb\ufffd\ufffd"


@pytest.fixture
def full_record(url: str, tmp_path: Path) -> str:
    """A call with all there can be; gives back the option that names its database."""
    wav = tmp_path / "full.wav"
    wav.write_bytes(b"RIFF")

    async def write() -> None:
        async with CallStore(url, box="here") as store:
            await store.call_started(facts.started("full"))
            turn = facts.turn(
                "full",
                1,
                ended_by="verdict",
                probability=0.97,
                pauses=1,
                speculation=Speculation(2, True, 9, 0.6, 0.31),
                tools=(
                    ToolRun("look_up", '{"id": 7}', '{"name": "Ann"}', 1003.0, 1003.2, "", "builtin"),
                    ToolRun("pay", "{}", "1", 1003.0, 1003.1, "", "shop", Confirmed.CALLER, "call-2"),
                ),
                asked='[{"role": "user", "content": "hello"}]',
                server="vllm-1",
                problem="the first server was away",
            )
            trace = [{"at_s": 0.0, "sent": False, "peer": "udp:10.0.0.9:5060", "text": "INVITE sip:100 SIP/2.0\n\n"}]
            for event in (
                facts.answered("full"),
                facts.recording("full", str(wav)),
                turn,
                facts.ended("full"),
                CallTraced(call_id="full", messages=trace),
            ):
                store.observe(event)

    asyncio.run(write())
    return f"store.url={url}"


def test_a_turn_shows_how_it_came_about(full_record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "show", "full", "--set", full_record]) == 0
    page = capsys.readouterr().out
    for words in (
        "over by verdict",
        "end of turn 0.97",
        "paused once",
        "by vllm-1",
        'tool    look_up {"id": 7} gave {"name": "Ann"} (200 ms)',
        "tool    pay of shop {}, confirmed by caller gave 1 (100 ms)",
        "problem the first server was away",
        "begun in advance 2 times, used, heard 310 ms earlier; 9 tokens and 0.6 s of speech for nothing",
    ):
        assert words in page


def test_a_call_is_exported_as_one_file(full_record: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "call.zip"
    assert main(["calls", "export", "fu", "-o", str(output), "--set", full_record]) == 0
    assert "recording.wav" in capsys.readouterr().out
    assert output.stat().st_mode & 0o007 == 0, "as the recording in it, not for everybody"
    with zipfile.ZipFile(output) as bundle:
        assert bundle.read("recording.wav") == b"RIFF"
        assert json.loads(bundle.read("call.json"))["turns"][0]["server"] == "vllm-1"
        assert json.loads(bundle.read("prompts.json")) == [
            {"turn": 1, "messages": [{"role": "user", "content": "hello"}]}
        ]
        look_up, pay = json.loads(bundle.read("tools.json"))
        assert (look_up["name"], look_up["source"], look_up["confirmed"]) == ("look_up", "builtin", "")
        assert (pay["source"], pay["confirmed"], pay["key"]) == ("shop", "caller", "call-2")
        assert "from udp:10.0.0.9:5060\nINVITE sip:100 SIP/2.0" in bundle.read("sip.txt").decode()
        assert "caller: " in bundle.read("transcript.txt").decode()
        timeline = json.loads(bundle.read("timeline.json"))
    assert [event["at_s"] for event in timeline] == sorted(event["at_s"] for event in timeline)
    assert {"started", "answered", "ended", "caller begins", "caller ends", "stage", "tool", "turn over", "sip"} <= {
        event["what"] for event in timeline
    }
    assert not list(tmp_path.glob("*.part"))


def test_an_export_that_cannot_be_written_says_so(full_record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "export", "full", "-o", "/proc/nowhere/call.zip", "--set", full_record]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_an_export_needs_one_call(full_record: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calls", "export", "nobody", "--set", full_record]) == 1
    assert "no call begins with nobody" in capsys.readouterr().err


def test_what_is_remembered_of_a_caller_is_erased_on_request(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def write() -> None:
        async with CallStore(url) as store:
            await store.callers.keep("+49301234", "desk", "Ann.", days=30)
            await store.callers.keep("+49301234", "sales", "Tea.", days=30)

    asyncio.run(write())
    option = ["--set", f"store.url={url}"]
    assert main(["calls", "forget", "+49 30 1234", *option]) == 0
    assert capsys.readouterr().out == "2 notes about +49301234 erased\n"
    assert main(["calls", "forget", "0049301234", "--json", *option]) == 0
    assert json.loads(capsys.readouterr().out) == {"number": "+49301234", "erased": 0}
    assert main(["calls", "forget", "+49301234", *option]) == 0
    assert capsys.readouterr().out == "nothing was remembered of +49301234\n"
    assert main(["calls", "forget", "Ann", *option]) == 2
    assert "no telephone number" in capsys.readouterr().err
