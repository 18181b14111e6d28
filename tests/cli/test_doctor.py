"""What ``appliance doctor`` sees, and the remedy it names."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from contextlib import AsyncExitStack
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from appliance.cli import doctor
from appliance.cli.doctor import Verdict
from appliance.cli.main import main
from appliance.config import load_settings
from tests.openai_sim.chat import Answer, ChatSim
from tests.openai_sim.speech import SpeechSim


def test_this_machine_has_its_libraries() -> None:
    assert [finding.verdict for finding in doctor.libraries()] == [Verdict.OK]


def test_every_library_of_the_package_is_looked_for() -> None:
    wanted = (Requirement(text) for text in requires("appliance") or ())
    needed = {one.name.lower() for one in wanted if one.marker is None or "extra" not in str(one.marker)}
    assert needed - {name.lower() for name, _ in doctor._LIBRARIES} <= {"tzdata"}


def test_a_missing_library_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda module: None if module == "soxr" else object())
    findings = {finding.what: finding for finding in doctor.libraries()}
    assert findings["soxr"].verdict is Verdict.PROBLEM
    assert "pip install" in findings["soxr"].remedy


def test_missing_model_files_are_problems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APPLIANCE_MODELS", str(tmp_path))
    findings = {finding.what: finding for finding in doctor.models()}
    assert findings["silero_vad"].verdict is Verdict.PROBLEM
    assert "appliance models pull" in findings["silero_vad"].remedy


def test_a_port_in_use_is_a_problem() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (finding,) = doctor.sockets([("sip udp", socket.SOCK_DGRAM, "127.0.0.1", port)])
    assert finding.verdict is Verdict.PROBLEM
    assert f"sport = :{port}" in finding.remedy
    (finding,) = doctor.sockets([("sip udp", socket.SOCK_DGRAM, "127.0.0.1", port)])
    assert finding.verdict is Verdict.OK


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert doctor.writable("recordings", tmp_path / "new" / "folder").verdict is Verdict.OK
    assert doctor.writable("recordings", tmp_path / "file" / "folder").verdict is Verdict.PROBLEM


def test_little_disk_is_a_warning(tmp_path: Path) -> None:
    finding = doctor.disk(tmp_path, lambda _: (10**9, 9 * 10**8, 10**8))
    assert finding.verdict is Verdict.WARNING
    assert "0.1 GB free, 1 hours" in finding.detail


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [((4096, 4096), Verdict.OK), ((256, 4096), Verdict.WARNING), ((256, 512), Verdict.PROBLEM)],
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], verdict: Verdict) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert doctor.open_files(400).verdict is verdict


def test_json_is_a_list_of_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [doctor.Finding("disk", Verdict.WARNING, "0.1 GB free", "make room")]
    monkeypatch.setattr(doctor, "examine", lambda config, overrides: found)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"what": "disk", "verdict": "warning", "detail": "0.1 GB free", "remedy": "make room"}
    ]


def test_a_problem_is_exit_status_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [doctor.Finding("http", Verdict.PROBLEM, "127.0.0.1:8080: Address already in use", "stop what has it")]
    monkeypatch.setattr(doctor, "examine", lambda config, overrides: found)
    assert main(["doctor"]) == 1
    assert "-> stop what has it" in capsys.readouterr().out


STALLED = Answer(stall_after=0)


async def model_findings(*answers: Answer | None) -> list[doctor.Finding]:
    async with AsyncExitStack() as stack:
        urls = ["http://127.0.0.1:9/v1" for _ in answers]
        for index, answer in enumerate(answers):
            if answer is not None:
                urls[index] = (await stack.enter_async_context(ChatSim(answer))).url
        servers = [
            {"name": f"s{n}", "base_url": url, "model": "sim", "first_token_s": 0.9 if one == STALLED else 30}
            for n, (url, one) in enumerate(zip(urls, answers, strict=True))
        ]
        engine = {"provider": "openai_compatible", "servers": servers}
        settings = load_settings(None, [f"engines.llm={json.dumps(engine)}"])
        return await asyncio.to_thread(lambda: list(doctor.language_models(settings)))


async def test_language_models_are_asked_for_a_token() -> None:
    answers = (Answer(), Answer(first_token_s=0.6), Answer(status=404), STALLED, None)
    findings = await model_findings(*answers)
    assert {finding.what for finding in findings} == {"language model"}
    good, slow, wrong, stalled, gone = findings
    assert good.verdict is not Verdict.PROBLEM
    assert slow.verdict is Verdict.WARNING
    assert "s0: first token after " in good.detail
    assert (wrong.verdict, stalled.verdict, gone.verdict) == (Verdict.PROBLEM,) * 3
    assert wrong.remedy.startswith("check engines.llm.servers.2.base_url")
    assert stalled.detail == "s3 gave no first token within 0.9 s"
    assert gone.remedy == "start it, or check engines.llm.servers.4.base_url"


def test_without_a_language_model_there_is_nothing_to_say() -> None:
    assert list(doctor.language_models(load_settings(None, []))) == []


def test_the_embedded_synthesiser_says_a_sentence() -> None:
    (finding,) = doctor.synthesisers(load_settings(None, []))
    assert finding.what == "speech"
    assert finding.verdict is not Verdict.PROBLEM
    assert finding.detail.startswith("espeak: first audio after ")


async def test_a_speech_server_is_asked_for_a_sentence_and_so_is_who_takes_its_place() -> None:
    async with SpeechSim() as server:
        engine = {"provider": "openai_compatible", "base_url": server.url, "model": "sim"}
        settings = load_settings(None, [f"engines.tts={json.dumps(engine)}"])
        good, second = await asyncio.to_thread(lambda: list(doctor.synthesisers(settings)))
    assert (good.what, second.what) == ("speech", "second voice")
    assert good.verdict is not Verdict.PROBLEM
    (gone, _) = await asyncio.to_thread(lambda: list(doctor.synthesisers(settings)))
    assert gone.verdict is Verdict.PROBLEM
    assert gone.remedy == "start it, or check engines.tts.base_url"


def test_a_folder_without_voices_is_a_problem(tmp_path: Path) -> None:
    engine = {"provider": "piper", "folder": str(tmp_path), "fallback": "none"}
    (finding,) = doctor.synthesisers(load_settings(None, [f"engines.tts={json.dumps(engine)}"]))
    assert finding.verdict is Verdict.PROBLEM
    assert finding.remedy == "put NAME.onnx and NAME.onnx.json there"
