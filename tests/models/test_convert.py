"""Whisper from the format of ``transformers`` to CTranslate2's."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from appliance.errors import ModelFileError
from appliance.models.catalogue import WHISPER_REQUIRED, FolderSource, ModelFolder
from appliance.models.convert import convert_whisper
from appliance.models.folders import FolderStore
from appliance.models.store import ModelStore
from tests.engines.tone_whisper import write_model

CAN = all(importlib.util.find_spec(name) for name in ("ctranslate2", "torch", "transformers"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def entry(source: Path, convert: str = "int8") -> ModelFolder:
    return ModelFolder("ours", "", "MIT", (FolderSource(source),), required=WHISPER_REQUIRED, convert=convert)


def script(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "converter.py"
    path.write_text("import sys, pathlib\nout = pathlib.Path(sys.argv[sys.argv.index('--output_dir') + 1])\n" + text)
    return (sys.executable, str(path))


def test_what_is_converted_is_what_is_kept(source: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def converter(origin: Path, target: Path, quantization: str) -> None:
        assert (origin / "model.safetensors").read_bytes() == b"weights"
        asked.append(quantization)
        write_model(target)

    store = FolderStore(tmp_path / "models", converter=converter)
    done = store.pull(entry(source))
    assert asked == ["int8"]
    assert done.manifest is not None and done.manifest.origin.endswith("converted to int8")
    assert ModelStore(tmp_path / "models").folder("ours") == done.path
    assert not (done.path / "model.safetensors").exists()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["ours"]
    assert store.pull(entry(source)).fetched is False


def test_a_model_that_wants_conversion_says_so(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="in the format of transformers; add --convert int8"):
        FolderStore(tmp_path / "models").install(entry(source, convert=""), source)


def test_a_converter_that_fails_leaves_nothing(source: Path, tmp_path: Path) -> None:
    failing = script(tmp_path, "print('first', file=sys.stderr); sys.exit('the weights are not a tensor')")

    def converter(origin: Path, target: Path, quantization: str) -> None:
        convert_whisper(origin, target, quantization, command=failing)

    with pytest.raises(ModelFileError, match="cannot be converted: the weights are not a tensor"):
        FolderStore(tmp_path / "models", converter=converter).pull(entry(source))
    assert not (tmp_path / "models" / "ours").exists()


def test_a_converter_that_hangs_or_is_not_there(source: Path, tmp_path: Path) -> None:
    hanging = script(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(ModelFileError, match="the conversion took longer than 0 s"):
        convert_whisper(source, tmp_path / "out", "int8", command=hanging, timeout_s=0.1)
    with pytest.raises(ModelFileError, match="cannot be started"):
        convert_whisper(source, tmp_path / "out", "int8", command=(str(tmp_path / "none"),))
    (source / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="holds no Whisper model in the format of transformers"):
        convert_whisper(source, tmp_path / "out", "int8")


@pytest.mark.skipif(CAN, reason="the converter is installed")
def test_without_the_converter_the_message_says_what_to_install(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"pip install 'appliance\[convert\]'"):
        FolderStore(tmp_path / "models").pull(entry(source))


@pytest.mark.skipif(not CAN, reason="needs torch and transformers")
def test_a_real_model_is_converted_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # it would leave a thread behind
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

    from appliance.engines.whisper_model import WhisperModel
    from tests.engines.tone_whisper import vocabulary

    words = vocabulary()
    folder = tmp_path / "source"
    config = WhisperConfig(
        vocab_size=len(words),
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=1500,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    done = FolderStore(tmp_path / "models").pull(entry(folder))
    assert done.manifest is not None and "model.bin" in [file.path for file in done.manifest.files]
    WhisperModel(ModelStore(tmp_path / "models").folder("ours"), device="cpu")
