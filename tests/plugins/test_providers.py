"""Engines of operators' plugins: found, checked, and imported only where they are needed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from appliance.cli.check import examine
from appliance.config import load_settings
from appliance.config.settings import Plugins
from appliance.engines.builtin import provider_registry
from appliance.errors import EngineError, PluginError
from appliance.plugins.providers import trunk_plugins, with_own
from tests.carriers import acme

ECHO = '''
"""Says back what it was told to."""

from appliance.api import Provider, ProviderOptions, hookimpl


class Options(ProviderOptions):
    words: int = 1


@hookimpl
def appliance_asr_providers():
    return {"echo": Provider(lambda options, resources: ["engine", options.words], "an echo", Options)}


@hookimpl
def appliance_denoise_providers():
    return {"hush": Provider(lambda options, resources: None, "silence")}
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "echo.py").write_text(ECHO)
    return tmp_path


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "appliance.yaml"
    path.write_text(text)
    return [f"{mistake.line}: {mistake.key}: {mistake.what}" for mistake in examine(path, []).mistakes]


def test_an_engine_of_a_plugin_is_made_with_its_options(folder: Path) -> None:
    settings = Plugins(paths=(folder / "plugins",), enabled={"echo": {}})
    registry = with_own(provider_registry(), settings, "asr", ["echo"])
    assert registry.create("asr", "echo", {"words": 3}, None) == ["engine", 3]


def test_nothing_is_imported_for_an_engine_that_is_built_in(folder: Path) -> None:
    (folder / "plugins" / "echo.py").write_text("raise RuntimeError('imported')\n")
    settings = Plugins(paths=(folder / "plugins",), enabled={"echo": {}})
    builtin = provider_registry()
    assert with_own(builtin, settings, "asr", ["fake"]) is builtin
    with pytest.raises(EngineError, match=r"'echo'.*RuntimeError: imported"):
        with_own(builtin, settings, "asr", ["echo"])


def test_beside_the_audio_only_those_are_imported_that_may_be(folder: Path) -> None:
    settings = Plugins(paths=(folder / "plugins",), enabled={"echo": {}})
    assert "hush" not in with_own(provider_registry(), settings, "denoise", ["hush"], only=()).offers("denoise")
    assert "hush" in with_own(provider_registry(), settings, "denoise", ["hush"], only=("echo",)).offers("denoise")


def test_check_knows_engines_of_plugins_and_their_options(folder: Path) -> None:
    before = set(sys.modules)
    plugins = "plugins: {paths: [plugins], enabled: [echo]}\n"
    assert problems(folder, plugins + "engines:\n  asr: {provider: echo, words: 2}\n") == []
    assert problems(folder, plugins + "engines:\n  asr: {provider: echo, word: 2}\n") == [
        "3: engines.asr.word: unknown option"
    ]
    assert problems(folder, plugins + "engines:\n  denoise: {provider: hush}\n") == [
        "3: engines.denoise.provider: plugin 'echo' may not run beside the audio"
    ]
    assert problems(folder, "engines:\n  asr: {provider: echo}\n") == [
        "2: engines.asr.provider: there is no asr provider 'echo'"
    ]
    assert not [name for name in set(sys.modules) - before if name.startswith("appliance_plugin_")]


# --- kinds of trunk -------------------------------------------------------------------------------------------------

ACME = "plugins: {paths: [plugins], enabled: [acme], media: [acme]}\ntrunks:\n  a: {kind: acme, api_key: k, %s}\n"
URL = "public_url: 'https://voice.example.com'"


@pytest.fixture
def acme_folder(folder: Path) -> Path:
    shutil.copy(Path(acme.__file__), folder / "plugins" / "acme.py")
    return folder


def test_check_knows_kinds_of_trunk_of_plugins_and_their_keys(acme_folder: Path) -> None:
    assert problems(acme_folder, ACME % URL) == []
    assert problems(acme_folder, ACME % f"{URL}, api_ulr: x") == ["3: trunks.a.api_ulr: unknown key"]
    assert problems(acme_folder, ACME % "max_calls: 3") == ["3: trunks.a.public_url: is missing"]
    assert problems(acme_folder, (ACME % URL).replace("media: [acme]", "media: []")) == [
        "3: trunks.a.kind: plugin 'acme' may not run beside the audio"
    ]
    assert problems(acme_folder, (ACME % URL).replace("enabled: [acme]", "enabled: []")) == [
        "3: trunks.a.kind: there is no trunk kind 'acme'"
    ]


def test_check_says_where_a_kind_that_comes_by_tcp_has_no_socket(acme_folder: Path) -> None:
    plugin = acme_folder / "plugins" / "acme.py"
    plugin.write_text(plugin.read_text().replace("StreamKind(open_stream,", 'StreamKind(open_stream, "tcp", (), True,'))
    assert problems(acme_folder, ACME % URL) == [
        "3: trunks.a.allow: is empty: nobody's streams would be taken",
        "3: trunks.a.kind: has no socket for its audio",
    ]
    listening = "listen: {streams: [{kind: acme, port: 9092}]}\n"
    assert problems(acme_folder, ACME % f"{URL}, allow: 10.0.0.5" + listening) == []


def test_a_kind_of_trunk_is_imported_where_a_trunk_is_of_it_and_it_is_trusted(
    acme_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(acme_folder)
    path = acme_folder / "appliance.yaml"
    path.write_text(ACME % URL)
    ((name, plugin),) = trunk_plugins(load_settings(path, []))
    assert name == "plugin:acme"
    assert plugin.appliance_stream_providers()["acme"].summary == "Acme Voice"  # type: ignore[attr-defined]
    assert trunk_plugins(load_settings(path, ["plugins.media=[]"])) == []
    (acme_folder / "plugins" / "acme.py").write_text("raise RuntimeError('imported')\n")
    with pytest.raises(PluginError, match=r"'acme'.*RuntimeError: imported"):
        trunk_plugins(load_settings(path, []))
    assert trunk_plugins(load_settings(path, ["trunks={b: {kind: browser}}"])) == []
