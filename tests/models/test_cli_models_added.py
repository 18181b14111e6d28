"""``appliance models add`` and ``remove``, and models that come by hand."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.errors import ConfigError
from appliance.models.catalogue import SILERO_VAD, ModelFolder, WheelSource
from appliance.models.folders import FolderStore
from appliance.models.local_catalogue import read_added
from appliance.models.manifest import MANIFEST
from appliance.models.store import ModelStore, model_directory
from tests.engines.tone_whisper import write_model
from tests.models.hub_server import Hub, Repository, running
from tests.models.test_cli_models import run

HELLO = b"hello" * 100


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def brought(tmp_path: Path) -> Path:
    """A folder as a stick has it."""
    folder = tmp_path / "stick" / "voice"
    (folder / "deep").mkdir(parents=True)
    (folder / "voice.onnx").write_bytes(HELLO)
    (folder / "deep" / "voice.onnx.json").write_bytes(b"{}")
    (folder / ".DS_Store").write_bytes(b"no")
    return folder


def added(models: Path, *arguments: str) -> int:
    return run("add", *arguments, "--directory", str(models))


def listed(models: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert run("list", "--json", "--directory", str(models)) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def pack(folder: Path, to: Path) -> Path:
    if to.suffix == ".zip":
        with zipfile.ZipFile(to, "w") as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(to, "w:gz") as tar:
            tar.add(folder, "./" + folder.name)
    return to


@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar.gz"])
def test_a_model_is_brought_in_without_a_network(
    models: Path, brought: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = brought if kind == "folder" else pack(brought, tmp_path / kind)
    assert added(models, "ours", "--from", str(origin), "--licence", "CC0-1.0", "--purpose", "our own voice") == 0
    assert "nobody had stated checksums" in capsys.readouterr().out
    manifest = json.loads((models / "ours" / MANIFEST).read_text())
    assert {one["path"]: one["sha256"] for one in manifest["files"]} == {
        "deep/voice.onnx.json": hashlib.sha256(b"{}").hexdigest(),
        "voice.onnx": hashlib.sha256(HELLO).hexdigest(),
    }
    row = listed(models, capsys)["ours"]
    assert (row["state"], row["licence"], row["purpose"]) == ("ok", "CC0-1.0", "our own voice")
    assert run("verify", "ours", "--directory", str(models)) == 0
    (models / "ours" / "voice.onnx").write_bytes(HELLO[::-1])
    assert run("verify", "ours", "--directory", str(models)) == 1
    assert "voice.onnx has SHA-256" in capsys.readouterr().out
    assert run("pull", "ours", "--directory", str(models)) == 0, "it is fetched again from where it was"
    assert (models / "ours" / "voice.onnx").read_bytes() == HELLO


def test_a_folder_of_another_box_brings_its_list_along(models: Path, brought: Path, tmp_path: Path) -> None:
    assert added(models, "ours", "--from", str(brought)) == 0
    second = tmp_path / "second"
    assert added(second, "ours", "--from", str(models / "ours")) == 0
    (models / "ours" / "voice.onnx").write_bytes(b"damaged")
    third = tmp_path / "third"
    assert added(third, "ours", "--from", str(models / "ours")) == 2
    assert not (third / "ours").exists()
    assert not (third / "catalogue.yaml").exists()


def test_what_is_no_model_is_refused(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def why(*arguments: str) -> str:
        assert added(models, *arguments) == 2
        assert not (models / "ours").exists()
        return capsys.readouterr().err

    empty, text = tmp_path / "empty", tmp_path / "notes.txt"
    empty.mkdir()
    text.write_text("no archive")
    assert "it holds no file" in why("ours", "--from", str(empty))
    assert "does not exist; give a folder, or a .tar" in why("ours", "--from", str(tmp_path / "none"))
    assert "is no model to bring in" in why("ours", "--from", str(text))
    linked = tmp_path / "linked.tar"
    with tarfile.open(linked, "w") as tar:
        info = tarfile.TarInfo("model.bin")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert "is no regular file" in why("ours", "--from", str(linked))
    out = tmp_path / "out.zip"
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../model.bin", b"x")
    assert "cannot be called '../../model.bin'" in why("ours", "--from", str(out))
    cut = tmp_path / "cut.tar.gz"
    whole = pack(write_model(tmp_path / "whole"), tmp_path / "whole.tar.gz").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cannot be brought in" in why("ours", "--from", str(cut))
    assert "choose another name" in why("whisper-tiny", "--hub", "a/b")
    assert "String should match" in why("../ours", "--hub", "a/b")
    assert "go with --hub only" in why("ours", "--url", "http://127.0.0.1/x", "--revision", "v1")
    assert "--sha256 names other" in why("ours", "--url", "http://127.0.0.1/x", "--sha256", f"other={'0' * 64}")


def test_a_known_model_is_brought_in_and_has_to_be_one(
    models: Path, brought: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert added(models, "whisper-base", "--from", str(brought)) == 2
    assert "is no 'whisper-base': it has no model.bin and no config.json" in capsys.readouterr().err
    assert added(models, "whisper-base", "--from", str(write_model(tmp_path / "tones"))) == 0
    assert ModelStore(models).folder("whisper-base") == models / "whisper-base"
    assert not (models / "catalogue.yaml").exists(), "it is in the catalogue already"


def test_a_known_file_is_brought_in_and_has_to_be_it(models: Path, tmp_path: Path) -> None:
    assert added(models, "silero_vad", "--from", str(ModelStore(model_directory()).path(SILERO_VAD))) == 0
    assert ModelStore(models).read("silero_vad")
    (tmp_path / SILERO_VAD.file_name).write_bytes(b"another")
    assert added(models, "silero_vad", "--from", str(tmp_path)) == 2


def test_a_folder_put_there_by_hand_is_told_apart_and_can_be_listed(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(models / "whisper-base")
    row = listed(models, capsys)["whisper-base"]
    assert row["state"] == "unverified"
    assert "'appliance models add whisper-base --from" in row["detail"]
    assert added(models, "whisper-base", "--from", str(models / "whisper-base")) == 0
    assert listed(models, capsys)["whisper-base"]["state"] == "ok"


def test_a_model_of_a_hub_is_added_and_pulled(hub: Hub, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repositories["acme/voices"] = Repository(
        {"en/a/voice.onnx": HELLO, "en/a/voice.onnx.json": b"{}", "en/b/voice.onnx": b"other"},
        large={"en/a/voice.onnx"},
    )
    given = ("--hub", "acme/voices", "--folder", "en/a", "--include", "*.onnx", "--include", "*.onnx.json")
    assert added(models, "ours", *given, "--licence", "MIT", "--no-pull") == 0
    assert listed(models, capsys)["ours"]["state"] == "missing"
    assert run("pull", "ours", "--json", "--directory", str(models)) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["result"] == "pulled" and row["newly_pinned"] is True
    assert row["files"]["voice.onnx"] == hashlib.sha256(HELLO).hexdigest()
    assert yaml.safe_load((models / "catalogue.yaml").read_text())["models"]["ours"]["hub"]["folder"] == "en/a"


def test_files_by_their_addresses_with_and_without_checksums(
    hub: Hub, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.plain = {"voice.onnx": HELLO, "list": b"{}"}
    there = ("--url", f"{hub.url}/files/voice.onnx", "--url", f"deep/voice.onnx.json={hub.url}/files/list")
    right = hashlib.sha256(HELLO).hexdigest()
    assert added(models, "ours", *there, "--sha256", f"voice.onnx={'0' * 64}") == 2
    assert "instead of 000000000000" in capsys.readouterr().err
    assert added(models, "ours", *there, "--sha256", f"voice.onnx={right.upper()}") == 0
    assert (models / "ours" / "deep" / "voice.onnx.json").read_bytes() == b"{}"
    assert json.loads((models / "ours" / MANIFEST).read_text())["pinned_by"] == "catalogue"


def test_a_file_out_of_a_wheel(models: Path) -> None:
    def download(source: object, folder: Path) -> Path:
        path = folder / "voices-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("voices/data/voice.onnx", HELLO)
        return path

    entry = ModelFolder("ours", "", "MIT", (WheelSource("voices", "1.0", "voices/data/voice.onnx"),))
    done = FolderStore(models, download=download).pull(entry)
    assert done.newly_pinned
    assert (models / "ours" / "voice.onnx").read_bytes() == HELLO
    assert added(models, "theirs", "--wheel", "no version", "--no-pull") == 2
    assert added(models, "theirs", "--wheel", "voices==1.0:voices/data/voice.onnx", "--no-pull") == 0


def test_mistakes_in_the_catalogue_are_told_with_their_lines(models: Path) -> None:
    models.mkdir()
    (models / "catalogue.yaml").write_text(
        "models:\n  ours: {licence: MIT}\n  voice:\n    hub: {repository: nonsense}\n"
        "  both: {wheel: 'a==1:b', folder: /x}\n  silero_vad: {folder: /x}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_added(models)
    text = str(caught.value)
    assert "say in one way where it comes from" in text and "has wheel and folder" in text
    assert "catalogue.yaml:4" in text and "silero_vad" in text
    (models / "catalogue.yaml").write_text("")
    assert read_added(models) == ()


def test_a_model_in_use_is_not_removed_unless_forced(
    models: Path, tmp_path: Path, brought: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert added(models, "ours", "--from", str(brought)) == 0
    config = tmp_path / "appliance.yaml"
    config.write_text(f"engines: {{tts: {{provider: piper, folder: {models / 'ours'}}}}}\n")

    def remove(*arguments: str) -> int:
        return run("remove", "ours", *arguments, "-c", str(config), "--directory", str(models))

    assert remove() == 2
    assert "model 'ours' is in use: engines.tts.folder of" in capsys.readouterr().err
    config.write_text("engines: {asr: {provider: whisper, model: ours}}\n")
    assert remove("--json") == 2
    assert "engines.asr.model" in json.loads(capsys.readouterr().out)["error"]
    assert (models / "ours").is_dir()
    assert remove("--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["freed_bytes"] > len(HELLO)
    assert not (models / "ours").exists()
    assert "ours" not in listed(models, capsys)
    assert [path.name for path in models.iterdir()] == ["catalogue.yaml"]
    assert remove("--force") == 2
    assert "there is no model called 'ours'" in capsys.readouterr().err


def test_a_file_of_the_default_is_in_use(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert added(models, "silero_vad", "--from", str(ModelStore(model_directory()).path(SILERO_VAD))) == 0
    config = tmp_path / "appliance.yaml"
    config.write_text("engines: {vad: {provider: silero}}\n")
    given = ("silero_vad", "-c", str(config), "--directory", str(models))
    assert run("remove", *given) == 2
    assert "engines.vad.provider" in capsys.readouterr().err
    config.write_text("engines: {vad: {provider: none}}\n")
    assert run("remove", *given) == 0
    assert run("remove", *given) == 2
    assert "cannot be removed (No such file or directory)" in capsys.readouterr().err
