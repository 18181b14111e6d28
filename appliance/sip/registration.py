"""Keeping one address registered with a registrar (RFC 3261 §10.2), as a machine without sockets or clock.

The machine says when a REGISTER is due, at which of several proxies, and for how long; who drives it sends that and
reports what came back. Digest challenges are answered below it, so a 401 here means that the password is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.headers import NameAddr, is_number, split_values
from appliance.sip.message import Request, Response

REFRESH_EARLIEST, REFRESH_LATEST = 0.8, 0.9
"""Between which shares of its life a binding is refreshed."""

BACKOFF_BASE_S = 30.0
BACKOFF_MAX_S = 1800.0
"""The wait after a failure doubles from the first to the second (RFC 5626 §4.5); half of it is left to chance."""

MAX_RETRY_AFTER_S = 3600.0

MAX_EXPIRES_S = 7 * 24 * 3600
"""No Min-Expires beyond this is followed."""


class RegistrationState(StrEnum):
    IDLE = "idle"
    TRYING = "trying"
    REGISTERED = "registered"
    WAITING = "waiting"
    STOPPING = "stopping"
    LEAVING = "leaving"
    GONE = "gone"


class RegistrationEvent(StrEnum):
    START = "start"
    DUE = "due"
    ACCEPTED = "2xx"
    TOO_BRIEF = "423"
    NEXT_PROXY = "no use, another proxy is left"
    FAILED = "no use, none is left"
    STOP = "stop"


RegistrationTable: TypeAlias = dict[tuple[RegistrationState, RegistrationEvent], RegistrationState]

REGISTRATION_TABLE: RegistrationTable = {
    (RegistrationState.IDLE, RegistrationEvent.START): RegistrationState.TRYING,
    (RegistrationState.IDLE, RegistrationEvent.STOP): RegistrationState.GONE,
    (RegistrationState.TRYING, RegistrationEvent.ACCEPTED): RegistrationState.REGISTERED,
    (RegistrationState.TRYING, RegistrationEvent.TOO_BRIEF): RegistrationState.TRYING,
    (RegistrationState.TRYING, RegistrationEvent.NEXT_PROXY): RegistrationState.TRYING,
    (RegistrationState.TRYING, RegistrationEvent.FAILED): RegistrationState.WAITING,
    (RegistrationState.TRYING, RegistrationEvent.STOP): RegistrationState.STOPPING,
    (RegistrationState.REGISTERED, RegistrationEvent.DUE): RegistrationState.TRYING,
    (RegistrationState.REGISTERED, RegistrationEvent.STOP): RegistrationState.LEAVING,
    (RegistrationState.WAITING, RegistrationEvent.DUE): RegistrationState.TRYING,
    (RegistrationState.WAITING, RegistrationEvent.STOP): RegistrationState.GONE,
    (RegistrationState.STOPPING, RegistrationEvent.ACCEPTED): RegistrationState.LEAVING,
    (RegistrationState.STOPPING, RegistrationEvent.TOO_BRIEF): RegistrationState.GONE,
    (RegistrationState.STOPPING, RegistrationEvent.NEXT_PROXY): RegistrationState.GONE,
    (RegistrationState.STOPPING, RegistrationEvent.FAILED): RegistrationState.GONE,
    (RegistrationState.LEAVING, RegistrationEvent.ACCEPTED): RegistrationState.GONE,
    (RegistrationState.LEAVING, RegistrationEvent.TOO_BRIEF): RegistrationState.GONE,
    (RegistrationState.LEAVING, RegistrationEvent.NEXT_PROXY): RegistrationState.GONE,
    (RegistrationState.LEAVING, RegistrationEvent.FAILED): RegistrationState.GONE,
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A REGISTER to be sent now: to the proxy with this index, for so long; 0 ends the registration."""

    proxy: int
    expires_s: int


class Registration:
    """Registers, refreshes, fails over, backs off and at the end unregisters.

    Args:
        proxies: how many proxies there are, the first being the best.
        expires_s: how long a binding is asked for.
        chance: a number from 0 up to 1, new at each call.

    Attributes:
        state: under :data:`REGISTRATION_TABLE`.
        proxy: index of the proxy that was last tried.
        until: when the last binding we know of ends; None where there was none.
        last_status: the last final status that came, 408 where none came; 0 before.
        last_reason: its words.
    """

    def __init__(self, proxies: int, expires_s: int, chance: Callable[[], float]) -> None:
        if proxies < 1 or expires_s < 1:
            raise LocalSipError("a registration needs a proxy and a positive time; set both")
        self._proxies = proxies
        self._wanted_s = expires_s
        self._expires_s = expires_s
        self._chance = chance
        self.state = RegistrationState.IDLE
        self.proxy = 0
        self.until: float | None = None
        self.last_status = 0
        self.last_reason = ""
        self._outstanding = False
        self._due: float | None = None
        self._failures = 0
        self._tried = 0
        self._too_brief = 0

    def registered(self, now: float) -> bool:
        """Whether a binding holds, also while it is being refreshed."""
        return self.until is not None and now < self.until and self.state is not RegistrationState.GONE

    def start(self, now: float) -> None:
        """Begin; :meth:`poll` gives the first attempt."""
        self._move(RegistrationEvent.START)

    def stop(self, now: float) -> None:
        """End the registration. Done when :attr:`state` is GONE; an attempt under way is waited for first."""
        self._due = None
        was_held = self.registered(now)
        self._move(RegistrationEvent.STOP)
        if self.state is RegistrationState.GONE and was_held:
            self.state = RegistrationState.LEAVING

    def get_timer(self) -> float | None:
        """When :meth:`poll` must be called next; None while only an answer can change anything."""
        return self._due

    def poll(self, now: float) -> Attempt | None:
        """The attempt to be made now, None where there is none. Report on it before the next one."""
        if self._due is not None and now >= self._due:
            self._due = None
            self._tried = 0
            self._move(RegistrationEvent.DUE)
        if self._outstanding or self.state not in (RegistrationState.TRYING, RegistrationState.LEAVING):
            return None
        self._outstanding = True
        return Attempt(self.proxy, 0 if self.state is RegistrationState.LEAVING else self._expires_s)

    def on_response(self, request: Request, response: Response, now: float) -> None:
        """A final response to the attempt. ``request`` is what was sent last, credentials included."""
        self._note(response.status, response.reason)
        if response.status < 300:
            self._accepted(request, response, now)
        elif response.status == 423:
            self._on_too_brief(response, now)
        elif response.status in (408, 480) or response.status >= 500 or response.status < 400:
            self._failed(now, another_may_do=True, retry_after_s=_retry_after_s(response))
        else:
            self._failed(now, another_may_do=False, retry_after_s=_retry_after_s(response))

    def on_failure(self, reason: str, now: float) -> None:
        """Nothing came: a time-out, a name that does not resolve, a connection that cannot be made."""
        self._note(408, reason)
        self._failed(now, another_may_do=True, retry_after_s=0.0)

    def _accepted(self, request: Request, response: Response, now: float) -> None:
        granted_s = granted_expires_s(request, response, self._expires_s)
        leaving = self.state is RegistrationState.LEAVING
        if not leaving and granted_s <= 0:
            self._failed(now, another_may_do=False, retry_after_s=0.0)
            return
        self._move(RegistrationEvent.ACCEPTED)
        self._failures = self._tried = self._too_brief = 0
        if self.state is RegistrationState.GONE:
            self.until = None
            return
        self.until = now + granted_s
        if self.state is RegistrationState.REGISTERED:
            share = REFRESH_EARLIEST + (REFRESH_LATEST - REFRESH_EARLIEST) * self._chance()
            self._due = now + share * granted_s

    def _on_too_brief(self, response: Response, now: float) -> None:
        """Ask for what the registrar wants at least (§10.2.8), a few times."""
        least = response.headers.get("min-expires") or ""
        self._too_brief += 1
        if self._too_brief > 2 or not is_number(least, MAX_EXPIRES_S) or int(least) <= self._expires_s:
            self._failed(now, another_may_do=False, retry_after_s=0.0)
            return
        self._expires_s = int(least)
        self._move(RegistrationEvent.TOO_BRIEF)

    def _failed(self, now: float, *, another_may_do: bool, retry_after_s: float) -> None:
        self._tried += 1
        self._too_brief = 0
        if another_may_do:
            self.proxy = (self.proxy + 1) % self._proxies
            if self._tried < self._proxies:
                self._move(RegistrationEvent.NEXT_PROXY)
                return
        self._failures += 1
        self._expires_s = self._wanted_s
        self._move(RegistrationEvent.FAILED)
        if self.state is RegistrationState.WAITING:
            longest = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0 ** min(self._failures - 1, 16))
            self._due = now + max(longest * (0.5 + 0.5 * self._chance()), retry_after_s)

    def _note(self, status: int, reason: str) -> None:
        self._outstanding = False
        self.last_status, self.last_reason = status, reason

    def _move(self, event: RegistrationEvent) -> None:
        self.state = REGISTRATION_TABLE.get((self.state, event), self.state)


def granted_expires_s(request: Request, response: Response, asked_s: int) -> int:
    """How long the binding holds: by our Contact in the answer, else by its Expires, else as asked (§10.2.4).

    A registrar behind a NAT may have rewritten our Contact; where none is ours, one of the same user is taken.
    """
    default = response.headers.get("expires") or ""
    otherwise = int(default) if is_number(default, 2**31) else asked_s
    try:
        ours = request.contact.sip_uri() if request.contact is not None else None
        bindings = [NameAddr.parse(value) for value in split_values(response.headers.get_all("contact"))[:64]]
    except RemoteSipError:
        return otherwise
    best: NameAddr | None = None
    for binding in bindings:
        try:
            uri = binding.sip_uri()
        except RemoteSipError:
            continue
        if ours is not None and uri.user == ours.user:
            best = binding
            if (uri.host, uri.port) == (ours.host, ours.port):
                break
    if best is None:
        return otherwise
    expires = (best.params.get("expires") or "").strip('"')
    return int(expires) if is_number(expires, 2**31) else otherwise


def _retry_after_s(response: Response) -> float:
    text = (response.headers.get("retry-after") or "").split(";")[0].split("(")[0].strip()
    return min(float(text), MAX_RETRY_AFTER_S) if is_number(text, 2**31) else 0.0
