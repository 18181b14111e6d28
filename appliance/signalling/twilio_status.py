"""What Twilio's words for the end of a call, and its API's for a refusal, are in terms of SIP. PURE tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from appliance.errors import DialError

UNSURE: Final = "unsure"
"""Cause of a DialError after which nobody knows whether Twilio did what was asked."""

UNDER_WAY: Final = ("queued", "initiated", "ringing", "in-progress")
OVER: Final = ("completed", "busy", "no-answer", "failed", "canceled")

_ENDS: Final = {"busy": 486, "no-answer": 480, "canceled": 487}

_FAILED_BECAUSE: Final = {
    # ErrorCode of a call that failed, where it says more than that.
    13223: 404,  # the number is malformed
    13224: 404,  # the number is not a telephone number
    13225: 403,  # the number may not be called
    13226: 404,  # there is no such country code
    13227: 403,  # no permission for the country
    21211: 404,
    21215: 403,
    21216: 403,
    32205: 403,  # no permission for the country, of calls over SIP
}


def final_status(params: Mapping[str, str], *, status_key: str = "CallStatus", answered: bool = True) -> int:
    """The status of SIP for the end of a call: 200 for a goodbye.

    Args:
        params: the form of the callback.
        status_key: where in it the status stands.
        answered: whether the call had been; one that is "completed" without that found nobody.
    """
    status = params.get(status_key, "")
    if status in ("completed", "answered") and answered:
        return 200
    if status in _ENDS:
        return _ENDS[status]
    because = _FAILED_BECAUSE.get(_number(params.get("ErrorCode", "")))
    if because:
        return because
    code = _number(params.get("SipResponseCode", "") or params.get("DialSipResponseCode", ""))
    if 400 <= code <= 699:
        return code
    return 480 if status == "completed" else 503


class _Remedy(NamedTuple):
    status: int
    cause: str
    text: str


_AUTH = _Remedy(503, "auth", "auth_token is not that of account_sid; copy both from the console's first page")
_CALLER = _Remedy(
    403,
    "caller_id",
    "caller_id must be a number of the account, or one verified in the console under Verified Caller IDs",
)
_NUMBER = _Remedy(404, "malformed", "the number is not one that can be called; write it in full, such as +4930123456")
_COUNTRY = _Remedy(
    403, "country", "calls to that country are switched off; allow it in the console under Voice, Geo permissions"
)
_BUSY = _Remedy(503, "rate", "Twilio takes no more requests for now; lower max_cps, or have the account's limit raised")
_REMEDIES: Final = {
    20003: _AUTH,
    20005: _Remedy(503, "auth", "the account is not active; see the console"),
    10001: _Remedy(503, "auth", "the account is not active; see the console"),
    10002: _Remedy(403, "trial", "a trial account may not do that; upgrade it"),
    10004: _Remedy(
        503, "rate", "the account's limit of calls at a time is reached; lower max_calls, or have it raised"
    ),
    20429: _BUSY,
    21201: _NUMBER,
    21211: _NUMBER,
    21214: _NUMBER,
    21217: _NUMBER,
    21213: _CALLER,
    21210: _CALLER,
    21212: _CALLER,
    21215: _COUNTRY,
    13227: _COUNTRY,
    21216: _Remedy(403, "forbidden", "Twilio does not let this account call that number; ask its support"),
    21219: _Remedy(403, "trial", "a trial account calls verified numbers only; verify the number, or upgrade"),
    21205: _Remedy(503, "failed", "Twilio does not take public_url; it must be an https address with a public name"),
    21220: _Remedy(481, "gone", "the call has ended"),
    20404: _Remedy(481, "gone", "it knows no such call"),
}
_BY_HTTP_STATUS: Final = {401: _AUTH, 404: _REMEDIES[20404], 429: _BUSY}


def refusal(code: int, http_status: int, message: str) -> DialError:
    """What the API's refusal is for the operator.

    Args:
        code: the API's own number of the error; 0 where it gives none.
        http_status: of its answer.
        message: its words; bounded and printable.
    """
    remedy = _REMEDIES.get(code)
    if remedy is None and http_status in _BY_HTTP_STATUS:
        remedy = _BY_HTTP_STATUS[http_status]
    if remedy is None:
        remedy = _Remedy(503, "failed", f"see https://www.twilio.com/docs/errors/{code}" if code else "no reason given")
    return DialError(
        f"Twilio refuses ({code or http_status}: {message}): {remedy.text}", status=remedy.status, cause=remedy.cause
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
