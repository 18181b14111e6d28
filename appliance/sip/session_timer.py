"""Session timers: a call whose peer has vanished without a BYE ends by itself (RFC 4028).

One of the two sides, the refresher, repeats the offer or sends an UPDATE every half interval; the other hangs up when
that stops. :class:`SessionTimer` does the arithmetic and the headers; the
two deadlines are the call's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import RemoteSipError
from appliance.sip.call_state import CallTimer
from appliance.sip.headers import is_number, parse_params, split_quoted, tokens
from appliance.sip.in_dialog import Outgoing, Purpose
from appliance.sip.message import Request, Response

if TYPE_CHECKING:
    from appliance.sip.call import Call

DEFAULT_MIN_SE_S = 90
"""The smallest interval where nobody names another (§5), and the least we accept unless configured otherwise."""

LARGEST_INTERVAL_S = 2**31 - 1
MARGIN_S = 32.0


@dataclass(frozen=True, slots=True)
class SessionExpires:
    """The Session-Expires header. ``refresher`` is "uac", "uas" (of this very transaction) or "" where left open."""

    interval_s: int
    refresher: str = ""

    @classmethod
    def parse(cls, text: str) -> SessionExpires:
        """Read the value.

        Raises:
            RemoteSipError: where it is not ``delta-seconds`` with parameters.
        """
        head, *rest = split_quoted(text, ";")
        if not is_number(head, LARGEST_INTERVAL_S):
            raise RemoteSipError(f"a broken Session-Expires: {text[:80]!r}")
        refresher = (parse_params(rest).get("refresher") or "").lower()
        return cls(int(head), refresher if refresher in ("uac", "uas") else "")

    def __str__(self) -> str:
        return f"{self.interval_s};refresher={self.refresher}" if self.refresher else str(self.interval_s)


def min_se_of(message: Request | Response) -> int:
    """The Min-SE of a message in seconds, the RFC's default where it has none.

    Raises:
        RemoteSipError: where it is no number.
    """
    value = message.headers.get("min-se")
    if value is None:
        return DEFAULT_MIN_SE_S
    head = value.partition(";")[0].strip()
    if not is_number(head, LARGEST_INTERVAL_S):
        raise RemoteSipError(f"a broken Min-SE: {value[:80]!r}")
    return int(head)


def session_expires_of(message: Request | Response) -> SessionExpires | None:
    """The Session-Expires of a message, None where it has none.

    Raises:
        RemoteSipError: where it is broken.
    """
    value = message.headers.get("session-expires")
    return SessionExpires.parse(value) if value is not None else None


def supports_timer(message: Request | Response) -> bool:
    """Whether the sender of ``message`` knows session timers."""
    return "timer" in (tag.lower() for tag in tokens(message.headers.get_all("supported")))


class SessionTimer:
    """Interval and refresher of one call.

    Args:
        wanted_s: the interval we ask for; 0 asks for none (a peer that asks for one still gets it).
        min_se_s: the smallest interval we take from a peer.

    Attributes:
        interval_s: the agreed interval, 0 while there is none.
        we_refresh: whether the refreshing is ours.
    """

    def __init__(self, wanted_s: int, min_se_s: int) -> None:
        self.interval_s = 0
        self.we_refresh = False
        self._wanted_s = wanted_s
        self._accepted_min_s = min_se_s
        self._asked_min_s = 0
        self._by_reinvite = False
        self._due_at = 0.0

    def too_small(self, request: Request) -> int | None:
        """The Min-SE to refuse an INVITE or UPDATE with (422), None where its interval will do (§9).

        Raises:
            RemoteSipError: where its headers are broken.
        """
        asked = session_expires_of(request)
        min_se_of(request)  # read here, so that a broken one is refused before anybody answers
        if asked is None or not supports_timer(request) or asked.interval_s >= self._accepted_min_s:
            return None
        return self._accepted_min_s

    def ask(self) -> list[tuple[str, str]]:
        """The headers of our INVITE or UPDATE (§7.1, §7.4)."""
        interval_s = max(self.interval_s or self._wanted_s, self._asked_min_s)
        if not self.interval_s and not self._wanted_s:
            return []
        refresher = ("uac" if self.we_refresh else "uas") if self.interval_s else ""
        headers = [("Session-Expires", str(SessionExpires(interval_s, refresher)))]
        if self._asked_min_s > DEFAULT_MIN_SE_S:
            headers.append(("Min-SE", str(self._asked_min_s)))
        return headers

    def refused(self, response: Response) -> bool:
        """Take a 422; whether asking again can help (§7.3)."""
        try:
            least = min_se_of(response)
        except RemoteSipError:
            return False
        if "min-se" not in response.headers or least <= max(self.interval_s or self._wanted_s, self._asked_min_s):
            return False
        self._asked_min_s = least
        return True

    def answered(self, response: Response) -> None:
        """Take the 2xx to our INVITE or UPDATE: without Session-Expires there is no timer from now on (§7.2)."""
        try:
            agreed = session_expires_of(response)
        except RemoteSipError:
            agreed = None
        self.interval_s = agreed.interval_s if agreed is not None else 0
        self.we_refresh = agreed is not None and agreed.refresher != "uas"

    def answer(self, request: Request) -> list[tuple[str, str]]:
        """The headers of our 2xx to an INVITE or UPDATE; the timer follows them (§9).

        The interval is never longer than the peer asks for and never shorter than its Min-SE. Who refreshes is up to
        the peer; where it leaves that open it stays as it was, and is the peer to begin with. A peer that neither asks
        nor knows of timers gets none: its calls would only be disturbed.
        """
        asked, knows = session_expires_of(request), supports_timer(request)
        if asked is None and not (knows and self._wanted_s):
            self.interval_s, self.we_refresh = 0, False
            return []
        interval_s = self._wanted_s or (asked.interval_s if asked is not None else 0)
        if asked is not None:
            interval_s = min(interval_s, asked.interval_s)
        interval_s = max(interval_s, min_se_of(request) if "min-se" in request.headers else 0, self._accepted_min_s)
        if not knows:
            refresher = "uas"
        elif asked is not None and asked.refresher:
            refresher = asked.refresher
        else:
            refresher = "uas" if self.interval_s and self.we_refresh else "uac"
        self.interval_s, self.we_refresh = interval_s, refresher == "uas"
        headers = [("Session-Expires", str(SessionExpires(interval_s, refresher)))]
        return [*headers, ("Require", "timer")] if knows else headers

    # --- in a call --------------------------------------------------------------------------------------------------

    def agreed(self, call: Call, response: Response, now: float) -> None:
        """Take the timer, abilities and target of a 2xx to an INVITE or UPDATE of ours."""
        self.answered(response)
        call.note_allow(response)
        if call.dialog is not None:
            call.dialog.take_target(response)
        self.restart(call, now)

    def restart(self, call: Call, now: float) -> None:
        """The session has just been agreed on or refreshed."""
        self._due_at = now + (self.refresh_after_s or 0.0)
        for timer, after_s in ((CallTimer.REFRESH, self.refresh_after_s), (CallTimer.EXPIRY, self.ends_after_s)):
            if after_s is None or call.ended:
                call.cancel_timer(timer)
            else:
                call.set_timer(timer, now + after_s)

    def refresh(self, call: Call, now: float) -> None:
        """Refresh the session by UPDATE, or by a re-INVITE with the same description where the peer has none (§7.4).

        An offer of ours that is not settled yet refreshes the session too, if it is accepted.
        """
        if call.queue.waits_for(Purpose.OFFER) or call.queue.waits_for(Purpose.REFRESH):
            self._try_later(call, now)
        elif not call.ended:
            updates = "UPDATE" in call.remote_allows and not self._by_reinvite
            call.queue.submit(call, Outgoing(Purpose.REFRESH, "UPDATE" if updates else "INVITE"), now)

    def offer_failed(self, call: Call, now: float) -> None:
        """An offer of ours did not refresh the session: that is to be done when it is due, or was."""
        if self.refresh_after_s is not None:
            call.set_timer(CallTimer.REFRESH, max(now, self._due_at))

    def refresh_failed(self, call: Call, now: float, status: int) -> None:
        """A refresh was refused: try again while there is time; the session's end is not put off.

        A peer that says UPDATE in Allow and then does not know it is asked by re-INVITE at once.
        """
        if self.refresh_after_s is not None and status in (405, 501) and not self._by_reinvite:
            self._by_reinvite = True
            call.set_timer(CallTimer.REFRESH, now)
        else:
            self._try_later(call, now)

    def _try_later(self, call: Call, now: float) -> None:
        if self.refresh_after_s is not None and not call.ended:
            call.set_timer(CallTimer.REFRESH, now + max(1.0, self.refresh_after_s / 4))

    @property
    def refresh_after_s(self) -> float | None:
        """How long after a refresh the next is ours to send; None where it is not (§10)."""
        return self.interval_s / 2 if self.interval_s and self.we_refresh else None

    @property
    def ends_after_s(self) -> float | None:
        """How long after the last refresh the call is given up; None without a timer (§10)."""
        return self.interval_s - min(MARGIN_S, self.interval_s / 3) if self.interval_s else None
