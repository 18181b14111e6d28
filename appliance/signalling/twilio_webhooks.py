"""Is a webhook Twilio's? The form it brings, once its signature has been checked.

The signature is over the address that Twilio asked, as the configuration names it (``public_url``), and over the form.
What ``Host`` and ``X-Forwarded-*`` say plays no part: behind a proxy that ends TLS they name another address, and
anybody can write them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import MultiDict, MultiDictProxy
from twilio.request_validator import RequestValidator

from appliance.api.streams import printable
from appliance.api.web_carrier import read_body

logger = logging.getLogger(__name__)

SIGNATURE: Final = "X-Twilio-Signature"
Form = MultiDictProxy[str]

_FORM_TYPE: Final = "application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 256
_LOG_EVERY_S: Final = 10.0
_CALL: Final = re.compile(r"[A-Za-z0-9]{1,64}")


class Webhooks:
    """Takes the webhooks of one trunk.

    Args:
        trunk: its name, for the log.
        now: seconds of a clock that never steps.
    """

    def __init__(
        self, trunk: str, account_sid: str, auth_token: str, public_url: str, now: Callable[[], float]
    ) -> None:
        self._trunk = trunk
        self._account_sid = account_sid
        self._public_url = public_url
        self._validator = RequestValidator(auth_token)
        self._now = now
        self._quiet_until = 0.0
        self._unsaid = 0
        self.refused = 0
        """How many requests were not Twilio's."""

    async def form(self, request: web.Request) -> Form:
        """The form of a request of Twilio's, with a CallSid.

        Raises:
            HTTPForbidden: it is not signed as this account's are; said in the log, but not every time.
            HTTPBadRequest, HTTPRequestEntityTooLarge, HTTPRequestTimeout, HTTPUnsupportedMediaType: it is no form.
        """
        signatures = request.headers.getall(SIGNATURE, [])
        if len(signatures) != 1:
            raise self._refusal(request, f"has {'more than one' if signatures else 'no'} {SIGNATURE}")
        target = request.raw_path
        if not target.startswith("/"):
            raise self._refusal(request, "asks for an address instead of a path")
        form = await _form(request)
        if not self._validator.validate(self._public_url + target, form, signatures[0]):
            raise self._refusal(
                request,
                f"has a wrong {SIGNATURE}; if it is Twilio's, public_url ({self._public_url}) is not what the "
                "webhook's address begins with, or auth_token is not the account's",
            )
        if form.get("AccountSid") != self._account_sid:
            raise self._refusal(request, f"is of account {printable(form.get('AccountSid', ''))[:40]!r}")
        if not _CALL.fullmatch(form.get("CallSid", "")):
            raise web.HTTPBadRequest(text="a CallSid is missing")
        return form

    def _refusal(self, request: web.Request, what: str) -> web.HTTPForbidden:
        """The answer, and now and then a line in the log: whoever reaches the port can make as many as it likes."""
        self.refused += 1
        now = self._now()
        if now < self._quiet_until:
            self._unsaid += 1
        else:
            more = f" ({self._unsaid} more since the last such line)" if self._unsaid else ""
            where = f"{printable(request.path)[:80]} from {request.remote or 'nowhere'}"
            logger.warning("trunk %s: refused with 403: a webhook at %s %s%s", self._trunk, where, what, more)
            self._unsaid = 0
            self._quiet_until = now + _LOG_EVERY_S
        return web.HTTPForbidden(text="not signed by Twilio for this account")


async def _form(request: web.Request) -> Form:
    if request.content_type != _FORM_TYPE:
        raise web.HTTPUnsupportedMediaType(text=f"send {_FORM_TYPE}")
    body = await read_body(request)
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS, separator="&"
        )
    except ValueError:
        raise web.HTTPBadRequest(text="the form cannot be read") from None
    return MultiDictProxy(MultiDict(pairs))
