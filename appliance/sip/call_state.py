"""What a call can be in, what can happen to it, and which state follows (RFC 3261 §13-§15)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias


class Role(StrEnum):
    UAS = "UAS"
    UAC = "UAC"


class CallState(StrEnum):
    INVITED = "invited"
    RINGING = "ringing"
    ACCEPTED = "accepted"
    CLOSING = "closing"
    CALLING = "calling"
    PROCEEDING = "proceeding"
    CANCEL_WAITS = "cancel waits"
    CANCELLING = "cancelling"
    CONFIRMED = "confirmed"
    ENDING = "ending"
    TERMINATED = "terminated"


class CallEvent(StrEnum):
    RING = "send 18x"
    ACCEPT = "send 2xx"
    REFUSE = "send 300-699"
    CANCELLED = "CANCEL"
    ACKED = "ACK"
    LOST = "peer lost"
    BYE_RECEIVED = "BYE"
    HANGUP = "hang up"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    NO_ANSWER = "nobody answered in time"
    RETRY = "refused, sent again"
    GIVE_UP = "64*T1 after giving up"
    BYE_DONE = "BYE answered or given up"


CallTable: TypeAlias = dict[tuple[CallState, CallEvent], CallState]

UAS_TABLE: CallTable = {
    (CallState.INVITED, CallEvent.RING): CallState.RINGING,
    (CallState.INVITED, CallEvent.ACCEPT): CallState.ACCEPTED,
    (CallState.INVITED, CallEvent.REFUSE): CallState.TERMINATED,
    (CallState.INVITED, CallEvent.CANCELLED): CallState.TERMINATED,
    (CallState.INVITED, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.INVITED, CallEvent.NO_ANSWER): CallState.TERMINATED,
    (CallState.RINGING, CallEvent.RING): CallState.RINGING,
    (CallState.RINGING, CallEvent.ACCEPT): CallState.ACCEPTED,
    (CallState.RINGING, CallEvent.REFUSE): CallState.TERMINATED,
    (CallState.RINGING, CallEvent.CANCELLED): CallState.TERMINATED,
    (CallState.RINGING, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.RINGING, CallEvent.NO_ANSWER): CallState.TERMINATED,
    (CallState.ACCEPTED, CallEvent.ACKED): CallState.CONFIRMED,
    (CallState.ACCEPTED, CallEvent.LOST): CallState.ENDING,
    (CallState.ACCEPTED, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.ACCEPTED, CallEvent.HANGUP): CallState.CLOSING,
    (CallState.CLOSING, CallEvent.ACKED): CallState.ENDING,
    (CallState.CLOSING, CallEvent.LOST): CallState.ENDING,
    (CallState.CLOSING, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.CONFIRMED, CallEvent.LOST): CallState.ENDING,
    (CallState.CONFIRMED, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.CONFIRMED, CallEvent.HANGUP): CallState.ENDING,
    (CallState.ENDING, CallEvent.BYE_RECEIVED): CallState.ENDING,
    (CallState.ENDING, CallEvent.BYE_DONE): CallState.TERMINATED,
}

UAC_TABLE: CallTable = {
    (CallState.CALLING, CallEvent.PROVISIONAL): CallState.PROCEEDING,
    (CallState.CALLING, CallEvent.SUCCESS): CallState.CONFIRMED,
    (CallState.CALLING, CallEvent.FAILURE): CallState.TERMINATED,
    (CallState.CALLING, CallEvent.RETRY): CallState.CALLING,
    (CallState.CALLING, CallEvent.HANGUP): CallState.CANCEL_WAITS,
    (CallState.CALLING, CallEvent.NO_ANSWER): CallState.CANCEL_WAITS,
    (CallState.PROCEEDING, CallEvent.PROVISIONAL): CallState.PROCEEDING,
    (CallState.PROCEEDING, CallEvent.SUCCESS): CallState.CONFIRMED,
    (CallState.PROCEEDING, CallEvent.FAILURE): CallState.TERMINATED,
    (CallState.PROCEEDING, CallEvent.RETRY): CallState.CALLING,
    (CallState.PROCEEDING, CallEvent.HANGUP): CallState.CANCELLING,
    (CallState.PROCEEDING, CallEvent.NO_ANSWER): CallState.CANCELLING,
    (CallState.PROCEEDING, CallEvent.BYE_RECEIVED): CallState.CANCELLING,
    (CallState.CANCEL_WAITS, CallEvent.PROVISIONAL): CallState.CANCELLING,
    (CallState.CANCEL_WAITS, CallEvent.SUCCESS): CallState.ENDING,
    (CallState.CANCEL_WAITS, CallEvent.FAILURE): CallState.TERMINATED,
    (CallState.CANCEL_WAITS, CallEvent.GIVE_UP): CallState.TERMINATED,
    (CallState.CANCELLING, CallEvent.SUCCESS): CallState.ENDING,
    (CallState.CANCELLING, CallEvent.FAILURE): CallState.TERMINATED,
    (CallState.CANCELLING, CallEvent.BYE_RECEIVED): CallState.CANCELLING,
    (CallState.CANCELLING, CallEvent.GIVE_UP): CallState.TERMINATED,
    (CallState.CONFIRMED, CallEvent.LOST): CallState.ENDING,
    (CallState.CONFIRMED, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.CONFIRMED, CallEvent.HANGUP): CallState.ENDING,
    (CallState.ENDING, CallEvent.BYE_RECEIVED): CallState.ENDING,
    (CallState.ENDING, CallEvent.BYE_DONE): CallState.TERMINATED,
}


class CallTimer(StrEnum):
    RESEND_2XX = "2xx again"
    NO_ACK = "no ACK"
    RING = "180 again"
    NO_ANSWER = "no answer"
    GIVE_UP = "give up"
    RESEND_1XX = "reliable 1xx again"
    NO_PRACK = "no PRACK"
    NO_FINAL = "re-INVITE never answered"
    TRY_AGAIN = "re-INVITE or UPDATE again"
    REFRESH = "refresh the session"
    EXPIRY = "session expires"
    REFER_WAITS = "REFER waits for the application"
    REFER_SILENT = "no report on our REFER"


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How calls with one peer are held. Times in seconds.

    Attributes:
        session_expires_s: the session interval we ask for (RFC 4028); 0 asks for none, a peer's wish is still met.
        min_se_s: the smallest session interval taken; less is refused with 422.
        reliable: "supported" confirms the peer's reliable provisional responses, and sends ours reliably where the peer
            asks for it or they carry SDP; "required" insists on it in our INVITEs; "off" does without (RFC 3262).
    """

    session_expires_s: int = 1800
    min_se_s: int = 90
    reliable: Literal["off", "supported", "required"] = "supported"
