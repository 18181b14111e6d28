"""What was said in SIP for each call, for the record: without keys and credentials, and never more than fits.

Every message goes by here, of strangers too, so little is done to it before its call is asked for: the Call-ID is found
and the bytes are kept. What is kept is bounded in messages, in bytes and in dialogs; dialogs that nobody has said are
calls are the first to be forgotten.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

_CALL_ID: Final = re.compile(rb"^(?:call-id|i)[ \t]*:[ \t]*([^\s]{1,256})", re.IGNORECASE | re.MULTILINE)
_HEAD_BYTES: Final = 4096
_MAX_NEW: Final = 256
_MAX_NEW_MESSAGES: Final = 8
_MAX_CALLS: Final = 4096
_MAX_MESSAGES: Final = 100
_MAX_MESSAGE_BYTES: Final = 8192
_MAX_BYTES: Final = 32 * 1024 * 1024
_REMOVED: Final = "(removed)"
_SECRET_HEADER: Final = re.compile(
    r"^((?:proxy-)?authorization|(?:proxy-)?authentication-info|[^:\s]{0,64}(?:token|secret|passw|credential|cookie|api-?key|auth)[^:\s]{0,64})"
    r"([ \t]*:)[^\n]*(?:\n[ \t][^\n]*)*",
    re.IGNORECASE | re.MULTILINE,
)
_SDES_KEY: Final = re.compile(r"(inline:)[^\s|]+", re.IGNORECASE)
_SDP_KEY: Final = re.compile(r"^(k=|a=key-mgmt:|a=ice-pwd:)[^\n]*", re.MULTILINE)
_URI_PASSWORD: Final = re.compile(r"(sips?:[^\s:@;<>]{1,256}):[^\s@<>]{1,256}@", re.IGNORECASE)
_PARAMETER: Final = re.compile(
    r"([;?&][^=;?&<>\s]{0,32}(?:token|secret|passw|api-?key|auth)[^=;?&<>\s]{0,32}=)(?:\"[^\"\n]*\"|[^;?&<>\s,]+)",
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Dialog:
    messages: list[tuple[float, bool, str, bytes]] = field(default_factory=list)
    size: int = 0


class SipTrace:
    """The messages of the newest dialogs, by Call-ID."""

    def __init__(self) -> None:
        self._new: OrderedDict[str, _Dialog] = OrderedDict()
        self._calls: OrderedDict[str, _Dialog] = OrderedDict()
        self._size = 0

    def note(self, data: bytes, *, sent: bool, peer: str, at: float) -> None:
        """A message has come or gone at ``at`` (seconds on the loop's clock); what is no SIP is passed over."""
        match = _CALL_ID.search(data, 0, _HEAD_BYTES)
        if match is None:
            return
        call_id = match.group(1).decode("utf-8", "replace")
        dialog = self._calls.get(call_id)
        size = 0
        if dialog is None:
            dialog = self._new.setdefault(call_id, _Dialog())
            if len(self._new) > _MAX_NEW:
                self._new.popitem(last=False)
        else:
            size = min(len(data), _MAX_MESSAGE_BYTES)
        if len(dialog.messages) < (_MAX_MESSAGES if size else _MAX_NEW_MESSAGES):
            dialog.messages.append((at, sent, peer, data[:_MAX_MESSAGE_BYTES]))
            dialog.size += min(len(data), _MAX_MESSAGE_BYTES)
            self._size += size
            self._forget()

    def keep(self, call_id: str) -> None:
        """This dialog is one of our calls."""
        if call_id not in self._calls:
            dialog = self._calls[call_id] = self._new.pop(call_id, _Dialog())
            self._size += dialog.size
            self._forget()

    def _forget(self) -> None:
        while self._size > _MAX_BYTES or len(self._calls) > _MAX_CALLS:
            _, oldest = self._calls.popitem(last=False)
            self._size -= oldest.size

    def take(self, call_id: str, since: float) -> list[dict[str, Any]]:
        """The messages of one call, and forget them.

        Args:
            call_id: the SIP Call-ID.
            since: what the times are counted from, seconds on the loop's clock.

        Returns:
            In order: ``at_s`` after ``since``, ``sent`` by us or not, ``peer``, and the ``text`` without secrets.
        """
        dialog = self._calls.pop(call_id, None)
        if dialog is None:
            return []
        self._size -= dialog.size
        return [
            {"at_s": round(at - since, 4), "sent": sent, "peer": peer, "text": without_secrets(data)}
            for at, sent, peer, data in dialog.messages
        ]


def without_secrets(data: bytes) -> str:
    """A SIP message as text, with SRTP keys, credentials and passwords taken out."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    text = _SECRET_HEADER.sub(rf"\1\2 {_REMOVED}", text)
    text = _SDES_KEY.sub(rf"\1{_REMOVED}", text)
    text = _SDP_KEY.sub(rf"\1{_REMOVED}", text)
    text = _PARAMETER.sub(rf"\1{_REMOVED}", text)
    return _URI_PASSWORD.sub(rf"\1:{_REMOVED}@", text)
