"""Places the softphone's calls through the appliance's own SIP endpoint."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable

from appliance.cli.rtp_stream import Codecs, family_of
from appliance.cli.softphone import Answered, CallFailed
from appliance.errors import RemoteSipError
from appliance.rtp_params import RtpParams
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import OutgoingCall, SipLeg
from appliance.sip.uri import SipUri, join_host_port


def local_host_towards(uri: str) -> str:
    """Our address on the way to the host of ``uri``; nothing is sent.

    Raises:
        CallFailed: ``uri`` is no SIP URI, or its host cannot be reached.
    """
    try:
        target = SipUri.parse(uri)
        host = target.host.strip("[]")
        with socket.socket(family_of(host), socket.SOCK_DGRAM) as probe:
            probe.connect((host, target.port or 5060))
            return str(probe.getsockname()[0])
    except RemoteSipError as error:
        raise CallFailed(0, f"{uri!r} is not a SIP URI such as sip:100@127.0.0.1: {error}") from error
    except OSError as error:
        raise CallFailed(0, f"{uri}: {error.strerror or error}") from error


class SoftphoneMedia:
    """The softphone's own RTP port, as the endpoint wants to see a media slot."""

    slot = 0
    generation = 0

    def __init__(self, host: str, port: int) -> None:
        self.local_host = host
        self.local_port = port

    def connect(self, params: RtpParams) -> None:
        """The softphone connects itself, from the answer."""


class SipCall:
    """A call that has been answered (:class:`~appliance.cli.softphone.OutgoingCall`)."""

    def __init__(self, call: OutgoingCall, params: RtpParams) -> None:
        dtmf = params.dtmf_payload_type if params.dtmf_payload_type >= 0 else None
        self.answer = Answered((params.remote_host, params.remote_port), Codecs(params.payload_type, dtmf))
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.call_id = call.protocol_call_id
        self._call = call
        self._watcher = asyncio.ensure_future(self._watch(call.wait_ended()))

    async def _watch(self, ended: Awaitable[object]) -> None:
        cause = await ended
        by = getattr(cause, "by", "system")
        if not self.ended.done():
            self.ended.set_result({"caller": "us", "agent": "them"}.get(by, f"it broke: {getattr(cause, 'text', '')}"))

    async def hangup(self) -> None:
        self._call.hangup()
        await self._watcher


class SipDialler:
    """A :class:`~appliance.cli.softphone.Dialler` with a SIP socket of its own; ``async with`` opens and closes it."""

    def __init__(self, host: str, user: str = "softphone") -> None:
        self._endpoint = SipEndpoint(
            [ListenOn("udp", host, 0)], trunks=(), on_call=_refuse, user_agent_name="appliance call"
        )
        self._host = host
        self._user = user

    async def __aenter__(self) -> SipDialler:
        await self._endpoint.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._endpoint.stop()

    async def dial(self, uri: str, rtp: tuple[str, int], timeout_s: float) -> SipCall:
        """Call ``uri``.

        Raises:
            CallFailed: refused, or not answered within ``timeout_s``.
        """
        try:
            call = await self._endpoint.dial(
                uri,
                f"sip:{self._user}@{join_host_port(self._host, None)}",
                SoftphoneMedia(*rtp),
                ring_timeout_s=timeout_s,
            )
        except (RemoteSipError, OSError) as error:
            raise CallFailed(0, str(error)) from error
        try:
            params = await call.wait_answered()
        except asyncio.CancelledError:
            call.cancel()
            raise
        if params is None:
            cause = await call.wait_ended()
            raise CallFailed(cause.code, cause.text)
        return SipCall(call, params)


def _refuse(leg: SipLeg) -> None:
    leg.reject(480, "this phone only calls")
