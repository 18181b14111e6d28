"""Every exception the appliance raises on purpose.

    ApplianceError
    ├── ConfigError              a file an operator wrote is wrong; carries every mistake at once
    ├── SipError
    │   ├── LocalSipError        our own code broke the protocol (a bug)
    │   ├── RemoteSipError       the peer did; ``status_hint`` becomes the response
    │   └── SipUnreachable       no way to the peer: its name, the connection or TLS failed (an OSError too)
    ├── CarrierError             a carrier's media stream or webhook broke its protocol
    │   └── CarrierApiError      its API refused a request or did not answer; ``status`` is HTTP's, 0 for no answer
    ├── RtpError                 a packet that is not RTP, or not for us
    ├── IpcError
    │   ├── ChannelClosed        the process at the other end is gone
    │   └── StaleSlot            the call that owned this media slot is over, or its audio has been overwritten
    ├── EngineError              an engine could not do what was asked; ``retryable`` says whether another worker may
    ├── ToolError                a tool could not do what the model asked; the model is told the message
    ├── PluginError              a plugin cannot be imported or used
    ├── ModelFileError           a model file is missing, corrupt or cannot be fetched
    ├── MediaError               no RTP port, no free slot
    ├── DialError                a number may not be dialled, or the call did not come about; ``status`` as SIP says it
    ├── StoreError               the record could not be written or read
    └── CampaignError            a campaign cannot do what was asked, or there is none of that name
        └── LeadFileError        a file of leads or numbers is refused as a whole; nothing of it was taken

Messages say how to fix what is wrong, in the operator's words.
"""

from __future__ import annotations

from dataclasses import dataclass


class ApplianceError(Exception):
    """Base of the tree."""


@dataclass(frozen=True, order=True)
class Mistake:
    """One thing wrong in a file an operator wrote.

    ``str()`` gives ``file:line: key: what is wrong; what would be right``.
    """

    file: str
    line: int
    key: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        tail = f"; {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}: {self.key}: {self.what}{tail}"


class ConfigError(ApplianceError):
    """A configuration or dialplan file is wrong. ``mistakes`` holds every mistake found, in file order."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(mistakes)
        super().__init__("\n".join(str(m) for m in self.mistakes))


class SipError(ApplianceError):
    """Something about SIP went wrong; see the two subclasses for whose fault it is."""


class LocalSipError(SipError):
    """We were about to break the protocol. A bug in the caller of the SIP core."""


class RemoteSipError(SipError):
    """The peer broke the protocol.

    ``status_hint`` is the response to send, or None where the message must be dropped in silence (a malformed
    response, or a request too broken to answer).
    """

    def __init__(self, message: str, status_hint: int | None = 400) -> None:
        self.status_hint = status_hint
        super().__init__(message)


class SipUnreachable(SipError, OSError):
    """A SIP peer cannot be reached: its name is unknown, nothing answers, or TLS with it failed."""


class CarrierError(ApplianceError):
    """A carrier, PBX or browser sent what its protocol does not have; its connection is closed with these words."""


class CarrierApiError(CarrierError):
    """A carrier's API has refused a request, or cannot be reached.

    ``status`` is HTTP's, 0 where nothing that can be read came back; ``sure``: what was asked for has not been done.
    """

    def __init__(self, message: str, *, status: int, sure: bool = True) -> None:
        self.status = status
        self.sure = sure
        super().__init__(message)


class RtpError(ApplianceError):
    """A datagram on an RTP port that is not a packet of this call."""


class IpcError(ApplianceError):
    """Two processes of the box could not talk."""


class ChannelClosed(IpcError):
    """The process at the other end is gone."""


class StaleSlot(IpcError):
    """The audio asked for is no longer there: the slot has a new owner, or the ring has wrapped past it."""


class EngineError(ApplianceError):
    """An engine could not do what was asked."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        self.retryable = retryable
        super().__init__(message)


class ToolError(ApplianceError):
    """A tool could not do what the language model asked. The message is for the model: what is wrong, what would do."""


class PluginError(ApplianceError):
    """A plugin cannot be imported, or its host cannot be reached."""


class ModelFileError(ApplianceError):
    """A model file is missing, corrupt or cannot be fetched. The message names the file and the remedy."""


class MediaError(ApplianceError):
    """The media process could not open or change a leg."""


class DialError(ApplianceError):
    """A call could not be placed.

    ``status`` is the SIP status that says why (403: not allowed, 404: no route, 486: busy ...); ``cause`` is a word
    for the metrics; the message says how to fix it. ``code`` and ``text`` are what the one called has said, 0 and ""
    where it is this side that knows why.
    """

    def __init__(self, message: str, *, status: int, cause: str, code: int = 0, text: str = "") -> None:
        self.status = status
        self.cause = cause
        self.code = code
        self.text = text
        super().__init__(message)


class StoreError(ApplianceError):
    """The call record could not be written or read."""


class CampaignError(ApplianceError):
    """A campaign cannot do what was asked, or there is none of that name."""


class LeadFileError(CampaignError):
    """A file of leads, or of numbers not to be called, is refused as a whole; nothing of it was taken."""
