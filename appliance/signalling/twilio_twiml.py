"""The documents that tell Twilio what to do with a call, built by its own package."""

from __future__ import annotations

from typing import Final

from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

from appliance.api import StreamAddress

TOKEN: Final = "token"
"""Name of the custom parameter by which a stream is known (appliance/carriers/twilio.py)."""

_BUSY: Final = (486, 600)
_STAY_S: Final = 2


def connect(stream: StreamAddress, action: str, status_callback: str) -> str:
    """Take the call and open a stream; when that ends ``action`` is asked what next."""
    verb = Connect(action=action, method="POST")
    noun = verb.stream(url=stream.url, status_callback=status_callback, status_callback_method="POST")
    noun.parameter(name=TOKEN, value=stream.token)
    return _document(verb)


def reject(status: int) -> str:
    """Refuse a call that has not been answered: the caller hears "busy" for 486 and 600, else "not in service"."""
    response = VoiceResponse()
    response.reject(reason="busy" if status in _BUSY else None)
    return str(response)


def hangup() -> str:
    """End the call."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def stay(action: str) -> str:
    """Nothing for a moment; then ask again: what is to become of the call is being decided elsewhere."""
    response = VoiceResponse()
    response.pause(length=_STAY_S)
    response.redirect(action, method="POST")
    return str(response)


def dial(number: str, action: str, status_callback: str, caller_id: str | None, ring_s: int) -> str:
    """Call ``number`` and join the caller with it; ``action`` hears how it ended, ``status_callback`` of the answer."""
    verb = Dial(action=action, method="POST", timeout=ring_s, caller_id=caller_id)
    told = {"status_callback": status_callback, "status_callback_event": "answered", "status_callback_method": "POST"}
    if number.lower().startswith(("sip:", "sips:")):
        verb.sip(number, **told)
    else:
        verb.number(number, **told)
    return _document(verb)


def conference(name: str) -> str:
    """Join the conference, without a sound of its own; it ends when anybody leaves it."""
    verb = Dial()
    verb.conference(
        name,
        beep="false",
        wait_url="",
        start_conference_on_enter=True,
        end_conference_on_exit=True,
        max_participants=2,
    )
    return _document(verb)


def _document(verb: Connect | Dial) -> str:
    response = VoiceResponse()
    response.append(verb)
    return str(response)
