"""Profiles name what there is, and the settings they stand for are valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from appliance.config import load_settings
from appliance.engines.builtin import provider_registry
from appliance.models.catalogue import MODEL_FILES, MODEL_FOLDERS, PACKAGED_MODELS
from appliance.models.local_catalogue import FileKeys, HubKeys, ModelKeys
from appliance.models.profiles import PROFILES, Profile, profile
from tests.models.test_cli_models import run


@pytest.mark.parametrize("one", PROFILES, ids=lambda one: one.name)
def test_the_settings_of_a_profile_are_valid(one: Profile, tmp_path: Path) -> None:
    file = tmp_path / "appliance.yaml"
    file.write_text(one.yaml(tmp_path / "models", name_directory=True))
    settings = load_settings(file, [])
    registry = provider_registry()
    for part in one.parts:
        engine = getattr(settings.engines, part.kind)
        assert engine.provider == part.provider
        assert registry.validate_options(part.kind, engine.provider, engine.options) == []
        assert set(registry.provider(part.kind, part.provider).models) <= {part.model}
    assert settings.models_dir == tmp_path / "models"


@pytest.mark.parametrize("one", PROFILES, ids=lambda one: one.name)
def test_a_profile_fits_its_box(one: Profile) -> None:
    assert one.ram_mb > 0
    assert all(entry.licence for entry in one.models)
    if one.device_gb is None:
        assert one.device_mb == 0
    else:
        assert one.device_mb <= 0.95 * 1000 * one.device_gb[0], "it has to fit into the smallest one"


def test_what_is_planned_is_of_the_catalogue() -> None:
    names = {entry.name for known in (MODEL_FILES, MODEL_FOLDERS, PACKAGED_MODELS) for entry in known}
    assert {later.model for one in PROFILES for later in one.later if later.model} <= names


def test_profiles_are_listed_with_memory_and_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("profiles") == 0
    out = capsys.readouterr().out
    for one in PROFILES:
        assert one.name in out
    assert "GB of memory" in out and "Apache-2.0" in out
    assert run("profiles", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["gpu"]["device_mb"] == profile("gpu").device_mb
    assert {model["licence"] for model in rows["embedded"]["models"]} >= {"MIT", "GPL-3.0-or-later"}


def test_a_profile_is_shown_in_words_and_as_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("profile", "cpu") == 0
    out = capsys.readouterr().out
    assert "whisper-base" in out and "llama-server" in out and "licences:" in out
    assert run("profile", "cpu", "--yaml", "--directory", str(tmp_path)) == 0
    assert yaml.safe_load(capsys.readouterr().out)["engines"]["asr"]["model"] == "whisper-base"
    assert run("profile", "gpus") == 2
    assert "there is no profile called 'gpus'; did you mean 'gpu'?" in capsys.readouterr().err


def test_the_models_of_a_profile_are_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("appliance.models.store.ModelStore.pull", lambda self, entry, **how: True)
    assert run("pull", "--profile", "embedded", "--json", "--directory", str(tmp_path)) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["silero_vad", "smart_turn"]


def test_the_page_tells_what_profiles_take_and_what_the_catalogue_knows() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    for one in PROFILES:
        gpu = f"{one.device_mb / 1000:.1f} GB" if one.device_mb else "-"
        assert f"| {one.ram_mb / 1000:.1f} GB, {gpu} |" in page, one.name
    for prefix, model in (("", ModelKeys), ("hub.", HubKeys), ("files[].", FileKeys)):
        for name, field in model.model_fields.items():
            assert f"| `{prefix}{name}` | {field.description} |" in page
