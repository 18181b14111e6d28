"""Kinds of trunk from plugins: what is taken, what is left out, and what an operator reads about it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import Field, SecretStr, field_validator, model_validator

from appliance.api import Provider, ProviderOptions, StreamKind, hookimpl
from appliance.carriers.audiosocket import AudioSocketStream
from appliance.errors import ApplianceError
from appliance.plugins.registry import CarrierRegistry
from appliance.plugins.streams import stream_kinds
from appliance.signalling.builtin_carriers import carrier_registry


class PigeonOptions(ProviderOptions):
    loft: str
    key: SecretStr = Field(default=SecretStr(""), min_length=8)
    birds: int = Field(default=1, ge=1, le=9)
    ring: str = Field(default="A1", pattern=r"^[A-Z][0-9]$")
    places: tuple[int, ...] = ()

    @field_validator("loft")
    @classmethod
    def _on_a_roof(cls, value: str) -> str:
        if value == "cellar":
            raise ValueError("no bird flies out of a cellar; name one on a roof")
        return value

    @model_validator(mode="after")
    def _enough(self) -> PigeonOptions:
        if len(self.places) > self.birds:
            raise ValueError("more places than birds; add birds")
        return self


STREAM = StreamKind(lambda request: AudioSocketStream())


class Pigeons:
    """Both hooks, under any name."""

    def __init__(self, kind="pigeon", factory=lambda options, box: (options, box)):
        self.kind = kind
        self.factory = factory

    @hookimpl
    def appliance_stream_providers(self):
        return {self.kind: STREAM}

    @hookimpl
    def appliance_carrier_providers(self):
        return {self.kind: Provider(self.factory, "flies", PigeonOptions)}


class OnlyStreams:
    @hookimpl
    def appliance_stream_providers(self):
        return {"smoke": STREAM}


class OnlyCarriers:
    @hookimpl
    def appliance_carrier_providers(self):
        return {"drum": Provider(lambda options, box: None, "drums")}


def test_every_built_in_kind_has_both_its_parts():
    registry = carrier_registry()
    assert registry.problems == []
    assert sorted(registry.streams) == sorted(stream_kinds())
    assert {"twilio", "browser"} <= set(registry.kinds)
    assert set(registry.carriers) <= set(registry.streams)


def test_a_plugin_adds_a_kind_to_both_processes():
    registry = carrier_registry([("loft", Pigeons())])
    assert registry.carriers["pigeon"].plugin == registry.streams["pigeon"].plugin == "loft"
    assert stream_kinds([("loft", Pigeons())])["pigeon"] is STREAM
    assert registry.mistakes("pigeon", {"loft": "north"}) == []
    options, box = registry.create_carrier("pigeon", {"loft": 7, "key": SecretStr("12345678")}, "box", "birds")
    assert (options.loft, options.key.get_secret_value(), box) == ("7", "12345678", "box")


def test_what_an_operator_reads_about_options():
    mistakes = CarrierRegistry([("loft", Pigeons())]).mistakes
    assert mistakes("pigeon", {"lofd": "north"}) == [
        ("loft", "is missing", "add 'loft:'"),
        ("lofd", "unknown key", "did you mean 'loft'?"),
    ]
    assert mistakes("pigeon", {"loft": "north", "allwo": []}) == [("allwo", "unknown key", "did you mean 'allow'?")]
    assert mistakes("pigeon", {"loft": "cellar"}) == [
        ("loft", "no bird flies out of a cellar", "name one on a roof"),
    ]
    assert mistakes("pigeon", {"loft": "n", "places": [1, "x"], "birds": 10, "ring": "a"}) == [
        ("birds", "must be at most 9, not 10", ""),
        ("ring", "'a' is not written as ^[A-Z][0-9]$", ""),
        ("places.1", "must be a whole number, not 'x'", ""),
    ]
    assert mistakes("pigeon", {"loft": "n", "places": [1, 2]}) == [("", "more places than birds", "add birds")]


def test_secrets_are_not_in_what_is_said_about_them():
    mistakes = CarrierRegistry([("loft", Pigeons())]).mistakes
    for wrong in ("hunter2", SecretStr("hunter2"), ["hunter2"], {"a": "hunter2"}):
        found = mistakes("pigeon", {"loft": "n", "key": wrong})
        assert [key for key, *_ in found] == ["key"]
        assert "hunter2" not in str(found)
    assert "hunter2" not in str(mistakes("pigeon", {"loft": "n", "birds": SecretStr("hunter2")}))


def test_an_unknown_kind_is_told_with_those_there_are():
    assert carrier_registry().mistakes("twillio", {"x": 1}) == [
        ("kind", "there is no trunk kind 'twillio'", "did you mean 'twilio'?")
    ]
    assert carrier_registry().mistakes("SIP", {}) == [("kind", "there is no trunk kind 'SIP'", "did you mean 'sip'?")]
    ((_, _, hint),) = CarrierRegistry([("loft", Pigeons())]).mistakes("zebra", {})
    assert hint == "known: sip, pigeon"


def test_a_kind_with_one_part_says_which_is_missing():
    registry = CarrierRegistry([("smoke", OnlyStreams()), ("drum", OnlyCarriers())])
    assert registry.kinds == []
    assert registry.mistakes("smoke", {}) == [
        (
            "kind",
            "nobody controls the calls of kind 'smoke'",
            "plugin 'smoke' needs appliance_carrier_providers beside its streams",
        )
    ]
    assert registry.mistakes("drum", {}) == [
        (
            "kind",
            "nobody reads the audio of kind 'drum'",
            "plugin 'drum' needs appliance_stream_providers beside its carriers",
        )
    ]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("twilio", "plugin 'builtin_{part}s' has the name"),
        ("sip", "the box itself speaks SIP"),
        ("a/b", "a name has letters, digits, - and _"),
    ],
)
def test_a_name_that_nobody_may_take_is_left_out(kind, why):
    registry = carrier_registry([("mine", Pigeons(kind))])
    assert registry.problems == [
        f"{part} provider {kind!r} of plugin 'mine' ({why.format(part=part)})" for part in ("stream", "carrier")
    ]


def test_a_part_that_fails_is_left_out_and_named_where_it_is_missed():
    class Broken(OnlyStreams):
        @hookimpl
        def appliance_carrier_providers(self):
            raise RuntimeError("no licence")

    class Loose:
        @hookimpl
        def appliance_stream_providers(self):
            return {"loose": object}

    registry = carrier_registry([("broken", Broken()), ("loose", Loose())])
    assert "twilio" in registry.kinds
    ((_, _, hint),) = registry.mistakes("smoke", {})
    assert hint.endswith(
        "left out: stream providers of plugin 'loose' (TypeError: 'loose' is a type, not an appliance.api.StreamKind); "
        "left out: carrier providers of plugin 'broken' (RuntimeError: no licence)"
    )


def test_a_carrier_that_cannot_be_made_names_the_trunk_and_the_remedy():
    def imports(options, box):
        import no_such_carrier_package  # noqa: F401

    def fails(options, box):
        raise LookupError("no loft there")

    create = CarrierRegistry(
        [("a", Pigeons("a", imports)), ("b", Pigeons("b", fails)), ("loft", Pigeons())]
    ).create_carrier
    with pytest.raises(ApplianceError, match=r"^trunks\.t\.kind: 'a' needs the Python package 'no_such_carrier_packag"):
        create("a", {"loft": "n"}, None, "t")
    with pytest.raises(ApplianceError, match=r"^trunks\.t: 'b' cannot be used: LookupError: no loft there"):
        create("b", {"loft": "n"}, None, "t")
    with pytest.raises(ApplianceError) as caught:
        create("pigeon", {"birds": 0}, None, "t")
    assert str(caught.value) == ("trunks.t.loft: is missing; add 'loft:'; trunks.t.birds: must be at least 1, not 0")


def test_listing_the_kinds_imports_no_client_of_a_carrier():
    heavy = "{'twilio', 'appliance.signalling.twilio', 'soxr'} & set(sys.modules)"
    code = f"import sys; from appliance.signalling import builtin_carriers as b; b.carrier_registry(); print({heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
