"""The command line itself: what it lists, and how it reports what went wrong."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from appliance.cli.main import COMMANDS, main
from appliance.errors import ConfigError, MediaError, Mistake


def use_command(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> None:
    """Let ``appliance doctor`` do nothing but raise ``error``."""

    def run(_: object) -> int:
        if error is not None:
            raise error
        return 0

    module = ModuleType("appliance.cli.doctor")
    module.add_parser = lambda subparsers: subparsers.add_parser("doctor").set_defaults(run=run)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "appliance.cli.doctor", module)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"appliance {command}" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("appliance ")


def test_a_command_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    use_command(monkeypatch, None)
    assert main(["doctor"]) == 0


def test_our_errors_have_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use_command(monkeypatch, MediaError("no RTP port is free; widen listen.rtp_ports"))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "appliance doctor: no RTP port is free; widen listen.rtp_ports\n"


def test_every_mistake_is_printed_in_file_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mistakes = [
        Mistake("a.yaml", 9, "listen.http.port", "is not a number", "8080, say"),
        Mistake("a.yaml", 2, "trunk", "is not known", "trunks"),
    ]
    use_command(monkeypatch, ConfigError(mistakes))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "a.yaml:2: trunk: is not known; trunks",
        "a.yaml:9: listen.http.port: is not a number; 8080, say",
        "appliance doctor: 2 mistakes",
    ]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use_command(monkeypatch, ModuleNotFoundError("No module named 'soxr'", name="soxr"))
    assert main(["doctor"]) == 2
    assert "soxr is not installed" in capsys.readouterr().err


def test_control_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use_command(monkeypatch, KeyboardInterrupt())
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == ""
