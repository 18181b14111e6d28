"""Sends text messages through Twilio: what the model wants to send the caller, and a word after the call.

Pages: docs/plugins/sms.md.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import phonenumbers
from pydantic import Field, SecretStr, field_validator

from appliance.api import Arguments, Call, CallSummary, OngoingCall, PluginValues, Tool, ToolError, hookimpl

API = 1
SUMMARY = "Sends callers text messages through Twilio."

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_PAUSE_S = 1.0
_TIMEOUT_S = 8.0
_AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""What Twilio answers where it has certainly sent nothing; anything else is not tried again, lest it be sent twice."""
_MOBILE = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE)
_VARIABLE = re.compile(r"\$\{([a-z]+(?:\.[A-Za-z0-9_.-]+)?)\}")


class Values(PluginValues):
    """What an operator may write below `sms`.

    Attributes:
        account_sid: of the Twilio account, `AC...`.
        auth_token: its token, as `!secret NAME`.
        sender: a number of the account, with country code, or the SID of a messaging service, `MG...`.
        api_url: where Twilio's API is.
        confirm: what the caller is asked before a message of the model is sent; "" asks nothing.
        most: messages that one call may send.
        countries: two letters each, such as `DE`: only numbers of these countries are sent anything. Without any, of
            the sender's own.
        after_call: sent to the caller when a call has ended that was answered; `${slots.NAME}` and `${caller}` stand
            for what was noted, and nothing is sent where one of them is not there. "" sends nothing.
    """

    account_sid: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$")
    auth_token: SecretStr
    sender: str
    api_url: str = Field(default="https://api.twilio.com", pattern=r"^https?://[^/?#]+/?$")
    confirm: str = "Shall I send you a text message?"
    most: int = Field(default=2, ge=1, le=20)
    countries: tuple[str, ...] = ()
    after_call: str = Field(default="", max_length=1000)

    @field_validator("sender")
    @classmethod
    def _is_sender(cls, sender: str) -> str:
        if not re.fullmatch(r"\+[1-9]\d{5,14}|MG[0-9a-fA-F]{32}", sender):
            raise ValueError(f"{sender!r} is no sender; write a number such as +15551234567, or MG and 32 digits")
        return sender

    @field_validator("countries")
    @classmethod
    def _are_countries(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in phonenumbers.SUPPORTED_REGIONS:
                raise ValueError(f"{name!r} is not a country; write its two letters, such as DE")
        return names


class NotSentError(Exception):
    """A message was not sent; says why, in words that a model may be told."""


@hookimpl
def appliance_tools(call: Call) -> Sequence[Tool]:
    if not call.caller:
        return ()
    values: Values = call.values

    def send_sms(arguments: Arguments, ongoing: OngoingCall) -> dict[str, str]:
        sent = call.state["sent"] = call.state.get("sent", 0) + 1
        if sent > values.most:
            raise ToolError(f"{values.most} messages were sent in this call already")
        try:
            send(values, ongoing.caller, arguments["text"])
        except NotSentError as error:
            raise ToolError(str(error)) from error
        return {"status": "sent to the number that the caller is calling from"}

    return [
        Tool(
            name="send_sms",
            description="Sends the caller a text message, to the number that they are calling from.",
            parameters={
                "type": "object",
                "properties": {"text": {"type": "string", "minLength": 1, "maxLength": 600}},
                "required": ["text"],
                "additionalProperties": False,
            },
            run=send_sms,  # type: ignore[arg-type]
            confirm=values.confirm,
            timeout_s=_ATTEMPTS * (_TIMEOUT_S + _PAUSE_S),
        )
    ]


@hookimpl
def appliance_call_ended(call: Call, summary: CallSummary) -> None:
    values: Values = call.values
    if not values.after_call or not call.caller or summary.duration_s <= 0:
        return
    known = {"caller": call.caller, **{f"slots.{name}": str(value) for name, value in summary.slots.items()}}
    missing = [found[1] for found in _VARIABLE.finditer(values.after_call) if found[1] not in known]
    if missing:
        return
    try:
        send(values, call.caller, _VARIABLE.sub(lambda found: known[found[1]], values.after_call))
    except NotSentError as error:
        logger.warning("call %s: no message after the call: %s", call.call_id, error)


def send(values: Values, to: str, text: str) -> str:
    """Send one message; waits until Twilio has taken it.

    Returns:
        Twilio's name for it.

    Raises:
        NotSentError: it was not sent, or nobody knows.
    """
    number = _permitted(values, to)
    form = {
        "To": number,
        "Body": text,
        "MessagingServiceSid" if values.sender.startswith("MG") else "From": values.sender,
    }
    token = base64.b64encode(f"{values.account_sid}:{values.auth_token.get_secret_value()}".encode()).decode()
    url = f"{values.api_url.rstrip('/')}/2010-04-01/Accounts/{values.account_sid}/Messages.json"
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), {"Authorization": f"Basic {token}"})
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _opener.open(request, timeout=_TIMEOUT_S) as answer:
                return str(_json(answer.read(65536)).get("sid", ""))
        except urllib.error.HTTPError as error:
            with error:
                reason = _json(error.read(65536)).get("message") or error.reason
            if error.code not in _AGAIN or attempt == _ATTEMPTS:
                raise NotSentError(f"the message was refused: {reason}") from error
        except (OSError, ValueError) as error:
            refused = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
            if not refused or attempt == _ATTEMPTS:
                raise NotSentError("the service for messages does not answer") from error
        time.sleep(_PAUSE_S * attempt)
    raise AssertionError("unreachable")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A message goes where the operator said, or nowhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _permitted(values: Values, to: str) -> str:
    """The number, with its country code.

    Raises:
        NotSentError: it is none that may be sent anything.
    """
    sender = None if values.sender.startswith("MG") else phonenumbers.parse(values.sender)
    home = phonenumbers.region_code_for_number(sender) if sender is not None else None
    try:
        number = phonenumbers.parse(to, home)
    except phonenumbers.NumberParseException:
        raise NotSentError("the caller's number cannot be sent a message") from None
    countries = values.countries or ((home,) if home else ())
    if countries and phonenumbers.region_code_for_number(number) not in countries:
        raise NotSentError("numbers of that country are not sent messages")
    if phonenumbers.number_type(number) not in _MOBILE:
        raise NotSentError("the caller does not call from a mobile phone")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
