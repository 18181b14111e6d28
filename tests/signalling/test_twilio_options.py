"""What a trunk of Twilio's is told, and what is said to one who told it wrong."""

from __future__ import annotations

import sys

import pytest
from pydantic import SecretStr

from appliance.errors import ApplianceError
from appliance.signalling.builtin_carriers import carrier_registry
from appliance.signalling.twilio_options import TwilioOptions
from tests.signalling.twilio_edge import ACCOUNT

GOOD = {"account_sid": ACCOUNT, "auth_token": SecretStr("t"), "public_url": "https://voice.example.com"}


def options(**changed: object) -> TwilioOptions:
    return TwilioOptions.model_validate({**GOOD, **changed})


def test_the_rest_is_derived() -> None:
    found = options(public_url="https://Voice.example.com/")
    assert found.public_url == "https://Voice.example.com", "as Twilio's console has it: signatures are over it"
    assert found.media_origin(8081) == "wss://Voice.example.com"
    assert found.api_url == "https://api.twilio.com"
    assert options(public_url="https://voice.example.com:8443").media_origin(8081) == "wss://voice.example.com:8443"
    assert options(media_url="wss://media.example.com").media_origin(8081) == "wss://media.example.com"
    assert options(public_url="http://127.0.0.1:8080").media_origin(8081) == "ws://127.0.0.1:8081"
    assert options(public_url="http://[::1]:8080").media_origin(8081) == "ws://[::1]:8081"
    assert "secret of ours" not in repr(options(auth_token=SecretStr("secret of ours")))


@pytest.mark.parametrize(("written", "meant"), [(False, "off"), ("off", "off"), (True, "enable"), ("enable", "enable")])
def test_off_is_a_boolean_in_yaml(written: object, meant: str) -> None:
    assert options(machine_detection=written).machine_detection == meant


@pytest.mark.parametrize(
    ("key", "value", "what", "hint"),
    [
        ("account_sid", "SK" + "0" * 32, "what begins with SK is an API key", ""),
        ("account_sid", "AC123", "'AC123' is not an Account SID", "32 characters"),
        ("auth_token", SecretStr(" "), "is empty", "!secret"),
        ("public_url", "voice.example.com", "is not of the form https://HOST", "https://voice.example.com"),
        ("public_url", "https://", "is not of the form", ""),
        ("public_url", "https://[::1", "is not of the form", ""),
        ("public_url", "https://voice.example.com:99999", "is not of the form", ""),
        ("public_url", "https://voice.example.com/twilio", "is more than scheme and host", "nothing behind it"),
        ("public_url", "https://user@voice.example.com", "is more than scheme and host", ""),
        ("public_url", "http://voice.example.com", "http:// is for this machine alone", "reverse proxy"),
        ("media_url", "https://voice.example.com", "is not of the form wss://HOST", "wss://voice.example.com"),
        ("media_url", "ws://10.0.0.1:8081", "ws:// is for this machine alone", ""),
        ("api_url", "ftp://x", "is not of the form", "https://api.twilio.com"),
        ("machine_detection", "yes", "must be one of", ""),
        ("machine_detection_timeout_s", 60, "must be at most 59", ""),
        ("publicurl", "x", "unknown key", "public_url"),
    ],
)
def test_a_mistake_is_said_with_what_would_be_right(key: str, value: object, what: str, hint: str) -> None:
    ((found, said, right),) = carrier_registry().mistakes("twilio", {**GOOD, key: value})
    assert found == key
    assert what in said and hint in right


@pytest.mark.parametrize("key", GOOD)
def test_what_it_cannot_do_without(key: str) -> None:
    ((found, _, _),) = carrier_registry().mistakes("twilio", {name: GOOD[name] for name in GOOD if name != key})
    assert found == key


class NotInstalled:
    """An environment without Twilio's package."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "twilio":
            raise ModuleNotFoundError("No module named 'twilio'", name="twilio")


def test_without_twilio_s_package_the_trunk_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(sys.modules):
        if name.partition(".")[0] == "twilio" or name.startswith("appliance.signalling.twilio"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(), *sys.meta_path])
    with pytest.raises(ApplianceError, match=r"trunks.pstn.kind: 'twilio' needs the Python package 'twilio'"):
        carrier_registry().create_carrier("twilio", GOOD, object(), "pstn")  # type: ignore[arg-type]
    assert carrier_registry().mistakes("twilio", GOOD) == [], "a configuration can be checked without it"
