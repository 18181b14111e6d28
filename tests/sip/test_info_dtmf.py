from __future__ import annotations

import pytest

from appliance.errors import LocalSipError
from appliance.sip.info_dtmf import CONTENT_TYPE, KEYS, dtmf_from_info, dtmf_to_info


@pytest.mark.parametrize(
    ("kind", "body", "digit"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", "5"),
        ("application/dtmf-relay;x=y", b"Signal= #\nDuration=100", "#"),
        ("Application/DTMF", b"*", "*"),
        ("application/dtmf-relay", b"Signal=11\r\n", "#"),
        ("application/dtmf", b"55", ""),
        ("text/plain", b"5", ""),
        ("application/dtmf", b"\xff", ""),
    ],
)
def test_keys_in_info(kind: str, body: bytes, digit: str) -> None:
    assert dtmf_from_info(kind, body) == digit


@pytest.mark.parametrize("key", KEYS)
def test_what_is_written_is_read(key: str) -> None:
    assert dtmf_from_info(CONTENT_TYPE, dtmf_to_info(key)) == key
    assert dtmf_to_info("5", 160) == b"Signal=5\r\nDuration=160\r\n"


@pytest.mark.parametrize("key", ["", "x", "12", "\u0665"])
def test_only_keys_are_written(key: str) -> None:
    with pytest.raises(LocalSipError, match="is not a key"):
        dtmf_to_info(key)
