"""What keeps the box from starting, all of it at once."""

from __future__ import annotations

import socket
from pathlib import Path

from appliance.config import load_settings
from appliance.server import preflight


def problems(*overrides: str) -> list[str]:
    return preflight.problems(load_settings(None, [*overrides, "engines.turn.provider=fake"]))


def test_every_problem_is_named_with_its_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = problems(
            "listen.sip=[{host: 192.0.2.1, port: 5060}]",
            "listen.advertised=192.0.2.1",
            f"listen.http.port={port}",
            "listen.media.host=192.0.2.1",
            f"listen.streams=[{{kind: browser, port: {port}, host: 192.0.2.1}}]",
            f"models_dir={tmp_path}",
        )
    model = tmp_path / "silero_vad.onnx"
    assert found == [
        "cannot listen for SIP on 192.0.2.1:5060/udp: Cannot assign requested address; "
        "set listen.sip.0.host to an address of this machine",
        f"cannot listen for HTTP on 127.0.0.1:{port}/tcp: Address already in use; "
        "stop the program that has it, or set another listen.http.port",
        "cannot listen for media streams on 192.0.2.1:8081/tcp: Cannot assign requested address; "
        "set listen.media.host to an address of this machine",
        f"cannot listen for browser streams on 192.0.2.1:{port}/tcp: Cannot assign requested address; "
        "set listen.streams.0.host to an address of this machine",
        f"model file {model} is missing; run 'appliance models pull silero_vad' with --directory {tmp_path}",
    ]


def test_nothing_is_said_where_all_is_well() -> None:
    usual = ("listen.sip=[{port: 0}]", "listen.http.port=0", "listen.media.port=0", "engines.vad.provider=none")
    assert problems(*usual) == []


def test_without_carriers_nothing_listens_for_streams() -> None:
    usual = ("listen.sip=[{port: 0}]", "listen.http.port=0", "listen.media.host=192.0.2.1", "engines.vad.provider=none")
    assert problems(*usual, "trunks={local: {kind: sip}}") == []
