"""The catalogue is complete and unambiguous."""

from __future__ import annotations

import re

import pytest

from appliance.errors import ModelFileError
from appliance.models.catalogue import MODEL_FILES, PACKAGED_MODELS, SILERO_VAD, model_file


def test_every_file_is_pinned_licensed_and_has_a_source() -> None:
    for entry in MODEL_FILES:
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        assert entry.size_bytes > 0
        assert entry.licence and entry.purpose and entry.sources
        assert "/" not in entry.file_name


def test_names_and_file_names_are_unique() -> None:
    names = [entry.name for entry in MODEL_FILES] + [model.name for model in PACKAGED_MODELS]
    assert len(set(names)) == len(names)
    assert len({entry.file_name for entry in MODEL_FILES}) == len(MODEL_FILES)


def test_a_source_names_an_exact_version() -> None:
    assert str(SILERO_VAD.sources[0]) == "silero-vad==6.2.3:silero_vad/data/silero_vad.onnx"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelFileError, match=r"no model called 'sliero'.*silero_vad, smart_turn"):
        model_file("sliero")


def test_a_packaged_model_says_which_package_carries_it() -> None:
    with pytest.raises(ModelFileError, match="pip install espeakng-loader"):
        model_file("espeak_ng")
