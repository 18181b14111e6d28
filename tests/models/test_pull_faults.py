"""Pulls from a hub that breaks off, stalls, damages and changes what it sends. No partial file is ever loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import ModelFileError
from appliance.models.catalogue import HubSource, ModelFolder, Pin, UrlSource
from appliance.models.download import Patience
from appliance.models.folders import FolderStore
from appliance.models.manifest import MANIFEST
from appliance.models.store import ModelStore, State
from tests.engines.tone_whisper import write_model
from tests.models.hub_server import COMMIT, Fault, Hub, Repository, running
from tests.models.test_cli_models import run
from tests.waiting import block_until

WEIGHTS = bytes(range(256)) * 2048  # 512 KiB
CONFIG = b'{"model_type": "test"}'
NAME = "acme/voice"
ENTRY = ModelFolder(
    name="voice",
    purpose="for tests",
    licence="MIT",
    sources=(HubSource(NAME, include=("model.bin", "config.json")),),
    required=("model.bin", "config.json"),
)
IMPATIENT = Patience(stall_s=0.5, attempts=3, pause_s=0.01)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as server:
        server.repositories[NAME] = Repository(
            {"model.bin": WEIGHTS, "config.json": CONFIG, "README.md": b"# Voice"}, large={"model.bin"}
        )
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "models", patience=IMPATIENT)


def refused(store: FolderStore, entry: ModelFolder = ENTRY, **how: bool) -> str:
    """Why the model cannot be pulled; and nothing of it can be loaded then."""
    with pytest.raises(ModelFileError) as caught:
        store.pull(entry, **how)
    assert not store.path(entry.name).exists()
    assert not [path for path in store.directory.iterdir() if not path.name.startswith(".")]
    loader = ModelStore(store.directory)
    assert not loader.folder(entry.name).exists()
    if store.staging(entry.name).is_dir():
        with pytest.raises(ModelFileError, match="broken off, and no model"):
            loader.folder(str(store.staging(entry.name)))
    return str(caught.value)


def whole(store: FolderStore) -> None:
    folder = store.path("voice")
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == CONFIG
    assert sorted(path.name for path in folder.iterdir()) == sorted(["model.bin", "config.json", MANIFEST])
    assert store.check(ENTRY).state is State.OK
    assert [path.name for path in store.directory.iterdir()] == ["voice"], "nothing is left of the pull"


def test_a_whole_model_comes_and_is_pinned(hub: Hub, store: FolderStore) -> None:
    done = store.pull(ENTRY)
    assert done.fetched and done.newly_pinned and done.manifest is not None
    assert done.manifest.commit == COMMIT
    whole(store)
    assert not hub.asked("README.md")
    before = len(hub.requests)
    assert store.pull(ENTRY).fetched is False
    assert len(hub.requests) == before, "what is here and right asks nobody"


def test_a_broken_connection_is_resumed_within_the_pull(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("cut", 100_000), Fault("cut", 300_000)]
    store.pull(ENTRY)
    whole(store)
    assert [one.range for one in hub.asked("/store/")] == [None, "bytes=100000-", "bytes=300000-"]
    assert hub.asked("/store/")[1].if_range, "what is resumed has to be the same file"


def test_a_pull_that_failed_goes_on_where_it_was_the_next_time(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("cut", 200_000), Fault("status", lasts=3)]
    message = refused(store)
    assert "503" in message and "the first 0.2 MB are kept, and the same command goes on from there" in message
    assert store.check(ENTRY).state is State.PARTIAL
    done = store.pull(ENTRY)
    whole(store)
    assert hub.asked("/store/")[-1].range == "bytes=200000-"
    assert done.resumed_bytes >= 200_000


def test_a_stall_is_given_up_and_resumed(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("stall", 150_000)]
    store.pull(ENTRY)
    whole(store)
    assert [one.range for one in hub.asked("/store/")] == [None, "bytes=150000-"]


def test_a_server_that_only_stalls_is_refused_in_words(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("stall", 130_000, lasts=9)]
    message = refused(store)
    assert "no byte came for 0.5 s at 0.1 MB of 0.5 MB" in message
    assert "are kept" in message


@pytest.mark.parametrize("at", [0, 77_777, len(WEIGHTS) - 1])
def test_a_damaged_file_is_refused_and_removed(hub: Hub, store: FolderStore, at: int) -> None:
    hub.faults["model.bin"] = [Fault("corrupt", at)]
    message = refused(store)
    assert "SHA-256" in message and "damaged on the way" in message and "removed" in message
    assert not list(store.directory.rglob("model.bin*"))
    store.pull(ENTRY)
    whole(store)


def test_a_small_file_is_held_to_what_git_calls_it(hub: Hub, store: FolderStore) -> None:
    hub.faults["config.json"] = [Fault("corrupt", 3)]
    assert "Git checksum" in refused(store)


def test_damage_before_the_break_is_found_and_all_of_it_fetched_again(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("cut", 200_000), Fault("status", lasts=3)]
    refused(store)
    partial = next(store.directory.rglob("model.bin.partial"))
    content = bytearray(partial.read_bytes())
    content[5] ^= 1
    partial.write_bytes(bytes(content))
    store.pull(ENTRY)
    whole(store)
    assert hub.asked("/store/")[-1].range is None


def test_a_server_without_ranges_begins_again(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("cut", 100_000), Fault("no_range")]
    store.pull(ENTRY)
    whole(store)


def test_a_range_elsewhere_than_asked_is_not_taken(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("cut", 100_000), Fault("wrong_range")]
    store.pull(ENTRY)
    whole(store)
    assert hub.asked("/store/")[-1].range is None


def test_more_than_the_file_is_refused(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("longer", lasts=9)]
    assert f"sends more than the {len(WEIGHTS)} bytes" in refused(store)


def test_a_web_page_instead_of_a_file_is_refused(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("page")]
    assert "answers with a web page" in refused(store)


def test_a_busy_server_is_asked_again(hub: Hub, store: FolderStore) -> None:
    hub.faults["model.bin"] = [Fault("status", status=429, retry_after=0), Fault("status", status=503)]
    store.pull(ENTRY)
    whole(store)


def test_nobody_there_is_said(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached (Connection refused)" in refused(store)
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    assert "HF_ENDPOINT=hub.example is no address of a hub" in refused(store)


def test_what_the_hub_does_not_have_is_named(hub: Hub, store: FolderStore) -> None:
    def entry(repository: str, **source: object) -> ModelFolder:
        return ModelFolder("voice", "", "MIT", (HubSource(repository, **source),), required=("model.bin",))  # type: ignore[arg-type]

    assert "there is no such repository (404)" in refused(store, entry("acme/none"))
    assert "there is no such revision (404)" in refused(store, entry(NAME, revision="v9"))
    assert "has no file like *.onnx" in refused(store, entry(NAME, include=("*.onnx",)))
    assert "it has no model.bin, only config.json" in refused(store, entry(NAME, include=("config.json",)))
    hub.repositories[NAME].gated = True
    message = refused(store, entry(NAME))
    assert "accept the model's terms" in message and "HF_TOKEN" in message


def test_a_token_goes_to_the_hub_and_to_nobody_else(
    hub: Hub, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[NAME].gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running() as elsewhere:
        elsewhere.repositories = hub.repositories
        hub.store_url = elsewhere.url
        hub.faults["config.json"] = [Fault("cut", 3), Fault("status", lasts=3)]
        with pytest.raises(ModelFileError):
            store.pull(ENTRY)
        assert not any(b"hf_secret" in path.read_bytes() for path in store.directory.rglob("*") if path.is_file())
        store.pull(ENTRY)
        whole(store)
        assert [one.authorization for one in elsewhere.requests] == [None]
    assert {one.authorization for one in hub.requests} == {"Bearer hf_secret"}


def test_a_path_that_leads_out_of_the_folder_is_refused(hub: Hub, store: FolderStore) -> None:
    hub.repositories[NAME].files["../../etc/model.bin"] = b"x"
    assert "cannot be called '../../etc/model.bin'" in refused(store)


def test_no_room_is_said_before_a_byte_is_fetched(
    hub: Hub, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 64 * 1024 * 1024 + 1000})()
    monkeypatch.setattr("appliance.models.download.shutil.disk_usage", lambda folder: usage)
    message = refused(store)
    assert "there is no room for model 'voice': it needs 0.5 MB" in message and "$APPLIANCE_MODELS" in message
    assert not hub.asked("/resolve/")


def test_what_was_pinned_at_the_first_pull_stays_so(hub: Hub, store: FolderStore) -> None:
    store.pull(ENTRY)
    repository = hub.repositories[NAME]
    newer = b"newer" * 1000
    repository.files = {**repository.files, "model.bin": newer}
    (store.path("voice") / "model.bin").write_bytes(WEIGHTS[:-1])
    assert store.check(ENTRY).state is State.CORRUPT
    with pytest.raises(ModelFileError, match=r"another model\.bin than the one that is pinned .* --repin takes it"):
        store.pull(ENTRY)
    with pytest.raises(ModelFileError, match=r"model\.bin has 524287 bytes instead of 524288.*models pull voice"):
        ModelStore(store.directory).folder("voice")
    repository.commit = "f" * 40
    done = store.pull(ENTRY, repin=True)
    assert done.newly_pinned and done.manifest is not None and done.manifest.commit == "f" * 40
    assert (store.path("voice") / "model.bin").read_bytes() == newer


def test_a_repair_fetches_only_what_is_damaged(hub: Hub, store: FolderStore) -> None:
    store.pull(ENTRY)
    (store.path("voice") / "config.json").write_bytes(b"")
    hub.requests.clear()
    store.pull(ENTRY)
    whole(store)
    assert not hub.asked("/store/") and len(hub.asked("config.json")) == 1


def test_a_hub_that_tells_no_checksums_is_believed_once(hub: Hub, store: FolderStore) -> None:
    hub.repositories[NAME].tells_checksums = False
    store.pull(ENTRY)
    whole(store)
    (store.path("voice") / "model.bin").write_bytes(b"")
    hub.faults["model.bin"] = [Fault("corrupt", 9)]
    with pytest.raises(ModelFileError, match="SHA-256"):
        store.pull(ENTRY)
    store.pull(ENTRY)
    whole(store)


def test_a_file_that_changed_between_two_parts_is_not_pasted_together(hub: Hub, store: FolderStore) -> None:
    entry = ModelFolder("voice", "", "MIT", (UrlSource((("model.bin", f"{hub.url}/files/model.bin"),)),))
    hub.plain["model.bin"] = WEIGHTS
    hub.faults["model.bin"] = [Fault("cut", 100_000), Fault("status", lasts=3)]
    refused(store, entry)
    newer = WEIGHTS[::-1]
    hub.plain["model.bin"] = newer
    store.pull(entry)
    assert (store.path("voice") / "model.bin").read_bytes() == newer
    assert hub.asked("/files/")[-1].range == "bytes=100000-", "it was asked to go on, and did not"


def test_without_etag_and_checksum_nothing_is_resumed(hub: Hub, store: FolderStore) -> None:
    entry = ModelFolder("voice", "", "MIT", (UrlSource((("model.bin", f"{hub.url}/files/model.bin"),)),))
    hub.plain["model.bin"] = WEIGHTS
    hub.etags = False
    hub.faults["model.bin"] = [Fault("cut", 100_000), Fault("status", lasts=3)]
    refused(store, entry)
    store.pull(entry)
    assert hub.asked("/files/")[-1].range is None
    pinned = ModelFolder("voice", "", "MIT", entry.sources, pins=(Pin("model.bin", len(WEIGHTS), "0" * 64),))
    store.remove("voice")
    assert "instead of 000000000000" in refused(store, pinned)


def test_two_pulls_at_once_fetch_it_once(hub: Hub, tmp_path: Path) -> None:
    said: list[str] = []
    hub.faults["model.bin"] = [Fault("stall", 150_000)]
    first = FolderStore(tmp_path / "models", patience=Patience(stall_s=3, attempts=3, pause_s=0.01))
    second = FolderStore(tmp_path / "models", patience=IMPATIENT, say=said.append, lock_wait_s=30)
    done: list[bool] = []
    threads = [threading.Thread(target=lambda: done.append(first.pull(ENTRY).fetched))]
    threads[0].start()
    block_until(hub.stalled.is_set, "nobody has asked for the weights")
    threads.append(threading.Thread(target=lambda: done.append(second.pull(ENTRY).fetched)))
    threads[1].start()
    block_until(lambda: said, "the second pull does not say what it waits for")
    hub.over.set()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == [False, True]
    assert said == [f"model 'voice' is being pulled by process {os.getpid()}; waiting for it"]
    assert len(hub.asked("config.json")) == 1
    whole(second)


def test_one_that_waits_too_long_says_for_whom(hub: Hub, tmp_path: Path) -> None:
    hub.faults["model.bin"] = [Fault("stall", 150_000)]
    first = FolderStore(tmp_path / "models", patience=Patience(stall_s=30, attempts=3, pause_s=0.01))
    thread = threading.Thread(target=lambda: first.pull(ENTRY))
    thread.start()
    block_until(hub.stalled.is_set)
    with pytest.raises(ModelFileError, match=r"being pulled by process \d+, for more than 0.1 s; try later"):
        FolderStore(tmp_path / "models", lock_wait_s=0.1).pull(ENTRY)
    hub.over.set()
    thread.join(30)


def test_a_pull_killed_in_the_middle_is_taken_up_and_never_loaded(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    write_model(made)
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    hub.repositories["Systran/faster-whisper-tiny"] = Repository(files, large={"model.bin"})
    at = len(files["model.bin"]) // 2
    hub.faults["model.bin"] = [Fault("stall", at)]
    models = tmp_path / "models"
    command = [sys.executable, "-m", "appliance.cli.main", "models", "pull", "whisper-tiny", "--directory", str(models)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            block_until(lambda: [path for path in models.rglob("model.bin.partial") if path.stat().st_size >= at])
        finally:
            process.send_signal(signal.SIGKILL)
    loader = ModelStore(models)
    with pytest.raises(ModelFileError, match="whisper-tiny is missing; run 'appliance models pull whisper-tiny'"):
        loader.folder("whisper-tiny")
    assert run("verify", "whisper-tiny", "--directory", str(models)) == 1
    assert run("pull", "whisper-tiny", "--directory", str(models)) == 0
    assert hub.asked("/store/")[-1].range == f"bytes={at}-"

    from appliance.engines.whisper_model import WhisperModel

    WhisperModel(loader.folder("whisper-tiny"), device="cpu")
    (models / "whisper-tiny" / "model.bin").write_bytes(files["model.bin"][:-1] + b"?")
    with pytest.raises(ModelFileError, match=r"whisper-tiny is corrupt \(model.bin has SHA-256"):
        loader.folder("whisper-tiny")


def test_the_command_says_what_happened(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repositories["Systran/faster-whisper-tiny"] = Repository(
        {"model.bin": WEIGHTS, "config.json": CONFIG, "vocabulary.txt": b"a\nb\n"}, large={"model.bin"}
    )
    hub.faults["model.bin"] = [Fault("corrupt", 7)]
    there = ("--directory", str(tmp_path), "--stall", "0.5")
    assert run("pull", "whisper-tiny", *there) == 1
    assert "is not the file that is wanted (its SHA-256 is" in capsys.readouterr().err
    hub.faults["model.bin"] = [Fault("cut", 1000)]
    assert run("pull", "whisper-tiny", *there) == 0
    captured = capsys.readouterr()
    assert "whisper-tiny         pulled:" in captured.out
    assert f"hub Systran/faster-whisper-tiny@{COMMIT}, is pinned from here on (3 files" in captured.out
    assert "\r" not in captured.err, "a bar is for terminals"
    assert run("pull", "whisper-tiny", *there) == 0
    assert "here:" in capsys.readouterr().out
