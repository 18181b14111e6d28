"""Configuration files in the working directory, for tests of what is read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config import Settings, load_settings
from appliance.errors import ConfigError


def write(text: str, name: str = "appliance.yaml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(text: str, *overrides: str, environ: dict[str, str] | None = None) -> Settings:
    return load_settings(write(text), list(overrides), environ=environ or {})


def mistakes(text: str, *overrides: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides, environ=environ)
    assert str(caught.value) == "\n".join(str(m) for m in caught.value.mistakes)
    return [str(m) for m in caught.value.mistakes]
