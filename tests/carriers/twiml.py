"""TwiML as Twilio takes it, strictly: what it would only warn of in its debugger is a mistake here."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_BODY = 64 * 1024
"""Error 11750."""
MAX_INLINE = 4000
"""Of the ``Twiml`` parameter of the REST API (error 32018)."""
MAX_PARAMETER = 500
"""Characters of a parameter's name and value together."""

_CALLBACK = {"statusCallback", "statusCallbackMethod", "statusCallbackEvent"}
_RECORDING = {"record", "trim", "recordingStatusCallback", "recordingStatusCallbackMethod",
              "recordingStatusCallbackEvent", "recordingTrack"}  # fmt: skip
_VERBS = {"Connect", "Dial", "Hangup", "Pause", "Play", "Redirect", "Reject", "Say"}
# Element -> (attributes, children, whether there is text in it).
_ELEMENTS: dict[str, tuple[set[str], set[str], bool]] = {
    "Response": (set(), _VERBS, False),
    "Connect": ({"action", "method"}, {"Stream"}, False),
    "Stream": ({"url", "name", "track", "statusCallback", "statusCallbackMethod"}, {"Parameter"}, False),
    "Parameter": ({"name", "value"}, set(), False),
    "Dial": (
        {"action", "answerOnBridge", "callerId", "callReason", "hangupOnStar", "method", "referUrl", "referMethod",
         "ringTone", "sequential", "timeLimit", "timeout", "events"} | _RECORDING,
        {"Number", "Conference", "Sip", "Client"}, True,
    ),
    "Number": (
        {"byoc", "method", "sendDigits", "url", "machineDetection", "amdStatusCallback", "amdStatusCallbackMethod",
         "machineDetectionTimeout", "machineDetectionSpeechThreshold", "machineDetectionSpeechEndThreshold",
         "machineDetectionSilenceTimeout"} | _CALLBACK,
        set(), True,
    ),
    "Sip": ({"username", "password", "url", "method"} | _CALLBACK, set(), True),
    "Client": ({"url", "method"} | _CALLBACK, {"Identity", "Parameter"}, True),
    "Identity": (set(), set(), True),
    "Conference": (
        {"muted", "beep", "startConferenceOnEnter", "endConferenceOnExit", "participantLabel", "jitterBufferSize",
         "waitUrl", "waitMethod", "maxParticipants", "region", "coach", "eventCallbackUrl"} | _CALLBACK | _RECORDING,
        set(), True,
    ),
    "Hangup": (set(), {"Parameter"}, False),
    "Pause": ({"length"}, set(), False),
    "Play": ({"loop", "digits"}, set(), True),
    "Redirect": ({"method"}, set(), True),
    "Reject": ({"reason"}, {"Parameter"}, False),
    "Say": ({"voice", "language", "loop"}, set(), True),
}  # fmt: skip
_VALUES: dict[tuple[str, str], set[str]] = {
    ("Reject", "reason"): {"rejected", "busy"},
    ("Conference", "beep"): {"true", "false", "onEnter", "onExit"},
    ("Dial", "answerOnBridge"): {"true", "false"},
    ("Conference", "startConferenceOnEnter"): {"true", "false"},
    ("Conference", "endConferenceOnExit"): {"true", "false"},
    ("Conference", "muted"): {"true", "false"},
    ("Stream", "track"): {"inbound_track"},
}
_NUMBER_EVENTS = {"initiated", "ringing", "answered", "completed"}
_CONFERENCE_EVENTS = {"start", "end", "join", "leave", "mute", "hold", "modify", "speaker", "announcement"}
_NUMBERS = {("Dial", "timeout"): (1, 600), ("Dial", "timeLimit"): (1, 86_400), ("Pause", "length"): (1, 180)}


class BadTwiml(Exception):
    """It is not what Twilio's documents allow."""


@dataclass(frozen=True)
class Element:
    """One element, its text stripped."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: tuple[Element, ...] = ()
    text: str = ""

    def get(self, name: str, default: str = "") -> str:
        return self.attributes.get(name, default)

    def parameters(self) -> dict[str, str]:
        """What its ``<Parameter>`` say."""
        return {child.get("name"): child.get("value") for child in self.children if child.name == "Parameter"}


def parse(text: str, *, tls_only: bool = False) -> tuple[Element, ...]:
    """The verbs of a document.

    Args:
        tls_only: ``<Stream>`` must be wss, as at Twilio; else ws is taken too.

    Raises:
        BadTwiml: anything that Twilio does not take, or takes for something else than was meant.
    """
    if len(text.encode()) > MAX_BODY:
        raise BadTwiml("more than 64 kB (11750)")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadTwiml("a document type")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise BadTwiml(f"not XML (12100): {error}") from None
    if root.tag != "Response":
        raise BadTwiml(f"the root is <{root.tag}>, not <Response> (12100)")
    return _element(root, tls_only).children


def _element(found: ET.Element, tls_only: bool) -> Element:
    if found.tag not in _ELEMENTS:
        raise BadTwiml(f"<{found.tag}> is unknown (12200)")
    attributes, children, has_text = _ELEMENTS[found.tag]
    for name, value in found.attrib.items():
        if name not in attributes:
            raise BadTwiml(f"<{found.tag} {name}> is unknown (12200)")
        _value(found.tag, name, value)
    for child in found:
        if child.tag not in children:
            raise BadTwiml(f"<{child.tag}> in <{found.tag}> (12200)")
        if child.tail and child.tail.strip():
            raise BadTwiml(f"text in <{found.tag}>")
    text = (found.text or "").strip()
    if text and not has_text:
        raise BadTwiml(f"text in <{found.tag}>")
    made = Element(found.tag, dict(found.attrib), tuple(_element(child, tls_only) for child in found), text)
    _meaning(made, tls_only)
    return made


def _value(tag: str, name: str, value: str) -> None:
    allowed = _VALUES.get((tag, name))
    if allowed is not None and value not in allowed:
        raise BadTwiml(f"<{tag} {name}={value!r}> is none of {sorted(allowed)}")
    if (tag, name) in _NUMBERS:
        least, most = _NUMBERS[tag, name]
        if not value.isdecimal() or not least <= int(value) <= most:
            raise BadTwiml(f"<{tag} {name}={value!r}> is not {least} to {most}")
    if name.lower().endswith("method") and value not in ("GET", "POST"):
        raise BadTwiml(f"<{tag} {name}={value!r}> is neither GET nor POST")
    if name == "statusCallbackEvent":
        events = _CONFERENCE_EVENTS if tag == "Conference" else _NUMBER_EVENTS
        if not value.split() or set(value.split()) - events:
            raise BadTwiml(f"<{tag} {name}={value!r}>: events are {sorted(events)}")
    if name in ("action", "statusCallback", "url", "referUrl", "amdStatusCallback") and not value.strip():
        raise BadTwiml(f"<{tag} {name}> is empty")


def _meaning(made: Element, tls_only: bool) -> None:
    if made.name == "Connect" and len(made.children) != 1:
        raise BadTwiml("<Connect> holds one <Stream>")
    if made.name == "Stream":
        url = made.get("url")
        if not url.startswith("wss://") and (tls_only or not url.startswith("ws://")):
            raise BadTwiml(f"<Stream url={url!r}> is not wss (31920)")
        if "?" in url or "#" in url:
            raise BadTwiml("<Stream url> has a query, which Twilio does not take (31920)")
        names = [child.get("name") for child in made.children]
        if len(set(names)) != len(names):
            raise BadTwiml("two <Parameter> of one name")
    if made.name == "Parameter":
        if not made.get("name") or "value" not in made.attributes:
            raise BadTwiml("<Parameter> needs a name and a value")
        if len(made.get("name")) + len(made.get("value")) > MAX_PARAMETER:
            raise BadTwiml(f"<Parameter name={made.get('name')!r}> is longer than {MAX_PARAMETER} characters")
    if made.name == "Dial" and not made.text and not made.children:
        raise BadTwiml("<Dial> of nobody (13201)")
    if made.name == "Dial" and any(child.name == "Conference" for child in made.children) and len(made.children) > 1:
        raise BadTwiml("<Conference> beside others in <Dial>")
    if made.name in ("Number", "Conference", "Sip", "Redirect") and not made.text:
        raise BadTwiml(f"<{made.name}> is empty")
    if made.name == "Number":
        digits = made.text.replace("-", "").replace(" ", "").removeprefix("+")
        if not digits.isdecimal():
            raise BadTwiml(f"<Number>{made.text}</Number> is no number (13223)")
    if made.name == "Play" and not made.text and not made.get("digits"):
        raise BadTwiml("<Play> of nothing")
