"""Offers and answers for one telephone call's audio (RFC 3264), with SRTP keys where a policy wants them (RFC 4568)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.errors import LocalSipError, RemoteSipError
from appliance.rtp_params import RtpParams
from appliance.sip.sdes import SUITES, Crypto
from appliance.sip.sdp import CODECS, COMFORT_NOISE, TELEPHONE_EVENT, Media, SessionDescription

PACKET_MS: Final = (10, 20, 30, 40, 50, 60)
_OPUS_PACKET_MS: Final = (10, 20, 40, 60)

_PLAIN: Final = ("RTP/AVP", "RTP/AVPF")
_SECURE: Final = ("RTP/SAVP", "RTP/SAVPF")

_NUMBERS: Final = {
    "pcmu/8000": 0,
    "pcma/8000": 8,
    "g722/8000": 9,
    "opus/48000": 111,
    "cn/8000": 13,
    "telephone-event/8000": 101,
    "telephone-event/48000": 102,
}
"""Payload types in our offers, where the peer has not given the format another one."""
_DYNAMIC: Final = range(96, 128)

_OTHER_LAW: Final = {"pcmu": "pcma", "pcma": "pcmu"}
_WRITTEN: Final = {"pcmu": "PCMU", "pcma": "PCMA", "g722": "G722", COMFORT_NOISE: "CN"}
_FMTP: Final = {
    TELEPHONE_EVENT: "0-15",
    "opus": "maxplaybackrate=8000;sprop-maxcapturerate=8000;useinbandfec=1",
}


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """What may be agreed on with a peer; the trunk's settings of the same names.

    ``codecs`` are names of ``sdp.CODECS``, best first. ``srtp`` is "off", "optional" or "required": optional offers
    keys beside plain RTP (RTP/AVP with a=crypto) and takes whichever the peer offers. ``ptime_ms`` is the packet length
    asked for, and sent where the peer asks for none. ``dtmf`` is how keys go; events are agreed on for "rfc4733" and
    "auto" only.
    """

    codecs: tuple[str, ...] = ("pcmu", "pcma")
    srtp: str = "off"
    ptime_ms: int = 20
    dtmf: str = "rfc4733"
    comfort_noise: bool = False


@dataclass(frozen=True, slots=True)
class _Formats:
    """The payload types of one section that are ours to use: encoding ("pcmu/8000") → payload type, each once."""

    codec: str
    numbers: dict[str, int]

    @property
    def voice(self) -> int:
        return self.numbers[_encoding(self.codec)]

    @property
    def events(self) -> str:
        """The telephone-event to use: that of the codec's clock (RFC 4733 §2.1), else what there is, else ""."""
        fitting = f"{TELEPHONE_EVENT}/{CODECS[self.codec]}"
        found = [encoding for encoding in self.numbers if encoding.startswith(TELEPHONE_EVENT)]
        return fitting if fitting in found else found[0] if found else ""

    @property
    def alternative(self) -> str:
        """The other law of G.711, if it is among the formats too."""
        other = _encoding(_OTHER_LAW[self.codec]) if self.codec in _OTHER_LAW else ""
        return other if other in self.numbers else ""

    def chosen(self) -> dict[str, int]:
        """The codec, its telephone-event and its comfort noise."""
        names = [_encoding(self.codec), self.events, "cn/8000" if CODECS[self.codec] == 8000 else ""]
        return {name: self.numbers[name] for name in names if name in self.numbers}


class LocalDescription:
    """Our side of one session: writes its offers and answers and keeps the o= version (RFC 3264 §5, §8).

    Once a session is agreed on, its later offers keep its payload types, its sections and its keys, and name its codec
    first. Nothing changes when an offer or answer of the peer is refused.

    Args:
        session_id: a number the peer has not seen from us before.
        host: where our media is received.
        port: the RTP port there.
        policy: what may be agreed on; a bare list of codecs for plain RTP.
        random_octets: gives that many random octets, for our SRTP keys; needed unless the policy says "off".

    Attributes:
        direction: what we want: "sendrecv", or "sendonly", "recvonly" or "inactive" while we hold the call.
    """

    def __init__(
        self,
        session_id: int,
        host: str,
        port: int,
        policy: MediaPolicy | Sequence[str],
        random_octets: Callable[[int], bytes] | None = None,
    ) -> None:
        self.policy = as_policy(policy)
        if self.policy.srtp != "off" and random_octets is None:
            raise LocalSipError("SRTP needs a source of keys; give random_octets")
        self.host = host
        self.port = port
        self.direction = "sendrecv"
        self._random_octets = random_octets
        self._session_id = session_id
        self._version = 0
        self._last = ""
        self._keys: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._agreed: RtpParams | None = None
        self._protocol = ""
        self._sections: list[str] = []
        """The refused sections of the session, as m= lines, with "" in the place of the audio."""
        self._offered: dict[str, int] = {}
        self._offered_crypto: tuple[Crypto, ...] = ()
        self._offered_direction = "sendrecv"

    def offer(self) -> bytes:
        """A description with every codec: for a call of ours, an INVITE that came without an offer, or a change."""
        secure = self.policy.srtp != "off" if self._agreed is None else bool(self._agreed.srtp_tx)
        protocol = self._protocol or ("RTP/SAVP" if self.policy.srtp == "required" else "RTP/AVP")
        self._offered = self._numbering(self._offered_encodings())
        self._offered_crypto = tuple(self._own_crypto(tag, suite) for tag, suite in self._suites()) if secure else ()
        self._offered_direction = self.direction
        audio = self._audio(protocol, self._offered, self._offered_crypto, self.direction, mux=True)
        return self._render(self._sections or [""], audio)

    def accept_answer(self, answer: SessionDescription) -> RtpParams:
        """What the peer's answer to :meth:`offer` means. It may come again, or differently, until the call is up.

        Raises:
            RemoteSipError: 488 where it accepts nothing of what was offered, or no SRTP where that is required.
        """
        at = self._sections.index("") if self._sections else 0
        audio = answer.media[at] if at < len(answer.media) else None
        if audio is None or audio.kind != "audio" or not audio.port or audio.protocol not in _PLAIN + _SECURE:
            raise RemoteSipError("the answer refuses the audio", status_hint=488)
        formats = _formats(audio, self._offered)
        if formats is None:
            raise RemoteSipError("the answer accepts none of the codecs offered", status_hint=488)
        _check_reachable(audio, self.host)
        theirs = next((c for c in audio.crypto if self._offered_as(c) is not None), None)
        ours = self._offered_as(theirs) if theirs is not None else None
        if ours is None and (self.policy.srtp == "required" or (self._offered_crypto and audio.protocol in _SECURE)):
            raise RemoteSipError("the answer accepts none of the SRTP keys offered", status_hint=488)
        chosen = formats.chosen()
        incoming = {encoding: self._offered[encoding] for encoding in chosen}
        agreed = self._agreement(audio, formats.codec, chosen, incoming, self._offered_direction, ours, theirs)
        if formats.alternative:
            # The peer may send any format of its answer, from one packet to the next (RFC 3264 §7).
            agreed = replace(agreed, alternative_in=self._offered[formats.alternative])
        self._numbers = dict(self._offered)
        self._settle(agreed, audio.protocol, self._sections or [""])
        return agreed

    def answer(self, offer: SessionDescription) -> tuple[bytes, RtpParams]:
        """The answer to an offer: one audio section with one codec; every other section is refused.

        Raises:
            RemoteSipError: 488 where there is no audio we can take part in.
        """
        audio, formats, theirs = _choose(offer, self.policy)
        _check_reachable(audio, self.host)
        if theirs is not None and self._agreed is not None and self._agreed.srtp_rx not in ("", theirs.params):
            # Whoever has a new key may be new to the stream, and cannot know how often our packet numbers wrapped.
            self._keys.clear()
        ours = self._own_crypto(theirs.tag, theirs.suite) if theirs is not None else None
        chosen = formats.chosen()
        agreed = self._agreement(audio, formats.codec, chosen, chosen, self.direction, ours, theirs)
        sections = ["" if m is audio else f"m={m.kind} 0 {m.protocol} {' '.join(m.formats)}" for m in offer.media]
        direction = _direction(agreed.send, agreed.receive)
        crypto = (ours,) if ours is not None else ()
        body = self._render(sections, self._audio(audio.protocol, chosen, crypto, direction, mux=audio.rtcp_mux))
        kept = {encoding: n for encoding, n in self._numbers.items() if n not in chosen.values()}
        self._numbers = kept | chosen
        self._settle(agreed, audio.protocol, sections)
        return body, agreed

    # --- what is agreed -----------------------------------------------------------------------------------------

    def _agreement(
        self,
        audio: Media,
        codec: str,
        outgoing: dict[str, int],
        incoming: dict[str, int],
        own_direction: str,
        ours: Crypto | None,
        theirs: Crypto | None,
    ) -> RtpParams:
        events = next((encoding for encoding in outgoing if encoding.startswith(TELEPHONE_EVENT)), "")
        direction = audio.effective_direction
        return RtpParams(
            remote_host="" if audio.held else audio.host,
            remote_port=audio.port,
            codec=codec,
            payload_type=outgoing[_encoding(codec)],
            dtmf_payload_type=outgoing.get(events, -1),
            ptime_ms=_packet_ms(audio, codec, self.policy.ptime_ms),
            send=direction in ("sendrecv", "recvonly") and own_direction in ("sendrecv", "sendonly"),
            receive=direction in ("sendrecv", "sendonly") and own_direction in ("sendrecv", "recvonly"),
            payload_type_in=incoming[_encoding(codec)],
            dtmf_payload_type_in=incoming.get(events, -1),
            dtmf_clock_hz=int(events.partition("/")[2]) if events else CODECS[codec],
            cn_payload_type=outgoing.get("cn/8000", -1),
            dtmf=self.policy.dtmf,
            srtp_tx=ours.params if ours is not None else "",
            srtp_rx=theirs.params if theirs is not None else "",
            rtcp_port=audio.rtcp_port,
            rtcp_mux=audio.rtcp_mux,
        )

    def _settle(self, agreed: RtpParams, protocol: str, sections: list[str]) -> None:
        self._agreed, self._protocol, self._sections = agreed, protocol, sections

    # --- what is offered ----------------------------------------------------------------------------------------

    def _offered_encodings(self) -> list[str]:
        codecs = list(self.policy.codecs)
        if self._agreed is not None:
            agreed = self._agreed.codec
            codecs.sort(key=lambda codec: codec != agreed)
        encodings = [_encoding(codec) for codec in codecs]
        clocks = dict.fromkeys(CODECS[codec] for codec in codecs)
        if self.policy.comfort_noise and 8000 in clocks:
            encodings.append("cn/8000")
        if self.policy.dtmf in ("rfc4733", "auto"):
            encodings += [f"{TELEPHONE_EVENT}/{clock}" for clock in clocks]
        return encodings

    def _numbering(self, encodings: Sequence[str]) -> dict[str, int]:
        """A payload type for each: the one it has in this session, else ours, else one that is free."""
        numbers = {encoding: self._numbers[encoding] for encoding in encodings if encoding in self._numbers}
        used = set(numbers.values())
        for encoding in encodings:
            if encoding not in numbers:
                usual = _NUMBERS[encoding]
                numbers[encoding] = usual if usual not in used else next(n for n in _DYNAMIC if n not in used)
                used.add(numbers[encoding])
        return {encoding: numbers[encoding] for encoding in encodings}

    def _suites(self) -> list[tuple[int, str]]:
        if self._agreed is not None:
            return [(1, self._agreed.srtp_tx.partition(" ")[0])]
        return list(enumerate(SUITES, 1))

    def _own_crypto(self, tag: int, suite: str) -> Crypto:
        if suite not in self._keys:
            assert self._random_octets is not None
            self._keys[suite] = base64.b64encode(self._random_octets(SUITES[suite])).decode()
        return Crypto(tag, suite, self._keys[suite])

    def _offered_as(self, theirs: Crypto) -> Crypto | None:
        return next((c for c in self._offered_crypto if (c.tag, c.suite) == (theirs.tag, theirs.suite)), None)

    # --- writing ------------------------------------------------------------------------------------------------

    def _audio(
        self, protocol: str, numbers: dict[str, int], crypto: Sequence[Crypto], direction: str, *, mux: bool
    ) -> list[str]:
        lines = [f"m=audio {self.port} {protocol} {' '.join(str(number) for number in numbers.values())}"]
        for encoding, number in numbers.items():
            name, _, clock = encoding.partition("/")
            channels = "/2" if name == "opus" else ""
            lines.append(f"a=rtpmap:{number} {_WRITTEN.get(name, name)}/{clock}{channels}")
            if name in _FMTP:
                lines.append(f"a=fmtp:{number} {_FMTP[name]}")
        lines += [one.line for one in crypto]
        if mux:
            lines.append("a=rtcp-mux")
        return [*lines, f"a=ptime:{self.policy.ptime_ms}", f"a={direction}"]

    def _render(self, sections: Sequence[str], audio: list[str]) -> bytes:
        content = "\r\n".join(line for section in sections for line in ([section] if section else audio))
        if content != self._last:
            self._version += 1
            self._last = content
        family = "IP6" if ":" in self.host else "IP4"
        return (
            f"v=0\r\no=- {self._session_id} {self._version} IN {family} {self.host}\r\ns=-\r\n"
            f"c=IN {family} {self.host}\r\nt=0 0\r\n{content}\r\n"
        ).encode("utf-8", "replace")


def as_policy(policy: MediaPolicy | Sequence[str]) -> MediaPolicy:
    """A policy that has been looked at; a list of codecs means plain RTP with them.

    Raises:
        LocalSipError: for codecs, packet lengths or SRTP modes that there are not.
    """
    if not isinstance(policy, MediaPolicy):
        policy = MediaPolicy(tuple(policy))
    unknown = [codec for codec in policy.codecs if codec not in CODECS]
    if unknown or not policy.codecs:
        raise LocalSipError(f"codecs must be some of {', '.join(CODECS)}, not {', '.join(unknown) or 'none'}")
    if policy.srtp not in ("off", "optional", "required"):
        raise LocalSipError(f"srtp must be off, optional or required, not {policy.srtp!r}")
    if policy.ptime_ms not in PACKET_MS:
        raise LocalSipError(f"packets are 10, 20, 30, 40, 50 or 60 ms, not {policy.ptime_ms}")
    return policy


def check_offer(offer: SessionDescription, policy: MediaPolicy | Sequence[str], host: str = "") -> None:
    """Tell whether an offer can be answered by one whose media is received at ``host``; "" where that is not known.

    Raises:
        RemoteSipError: 488 where there is nothing in common.
    """
    audio, _, _ = _choose(offer, as_policy(policy))
    if host:
        _check_reachable(audio, host)


def _check_reachable(audio: Media, host: str) -> None:
    if audio.host and not audio.held and (":" in audio.host) != (":" in host):
        problem = f"media cannot go from {host} to {audio.host}: one is IPv4 and the other IPv6"
        raise RemoteSipError(problem, status_hint=488)


def _choose(offer: SessionDescription, policy: MediaPolicy) -> tuple[Media, _Formats, Crypto | None]:
    """The audio section we take part in, what of it, and the peer's key (None: plain RTP).

    An offer may name the same audio twice, with and without SRTP; the one with it is taken unless our policy is "off".
    """
    encodings = [_encoding(codec) for codec in policy.codecs]
    if policy.dtmf in ("rfc4733", "auto"):
        encodings += [f"{TELEPHONE_EVENT}/{clock}" for clock in (8000, 48000)]
    if policy.comfort_noise:
        encodings.append("cn/8000")
    plain: tuple[Media, _Formats, Crypto | None] | None = None
    problem = f"no common codec: we speak {', '.join(policy.codecs)} over RTP"
    for media in offer.media:
        formats = _formats(media, encodings)
        if media.kind != "audio" or not media.port or media.protocol not in _PLAIN + _SECURE or formats is None:
            continue
        if policy.srtp != "off" and media.crypto:
            return media, formats, media.crypto[0]
        if media.protocol in _SECURE:
            problem = "SRTP is off for this trunk" if policy.srtp == "off" else "no SRTP suite in common"
        elif policy.srtp == "required":
            problem = "this trunk requires SRTP (srtp: required), and none is offered"
        elif plain is None:
            plain = media, formats, None
    if plain is None:
        raise RemoteSipError(problem, status_hint=488)
    return plain


def _formats(media: Media, allowed: Sequence[str] | dict[str, int]) -> _Formats | None:
    """The formats of a section that are among ``allowed``, with its first codec; None where it has no codec of ours."""
    codec = ""
    numbers: dict[str, int] = {}
    for number in media.payload_types:
        name, clock = media.encoding(number)
        encoding = f"{name}/{clock}"
        if encoding in allowed and encoding not in numbers:
            numbers[encoding] = number
            codec = codec or (name if name in CODECS else "")
    return _Formats(codec, numbers) if codec else None


def _encoding(codec: str) -> str:
    return f"{codec}/{CODECS[codec]}"


def _direction(send: bool, receive: bool) -> str:
    return {(True, True): "sendrecv", (True, False): "sendonly", (False, True): "recvonly"}.get(
        (send, receive), "inactive"
    )


def _packet_ms(media: Media, codec: str, usual_ms: int) -> int:
    """The packet length to send: what the peer asks for, or the next shorter one that there is, else the usual."""
    wanted = media.ptime_ms or usual_ms
    if media.maxptime_ms:
        wanted = min(wanted, media.maxptime_ms)
    lengths = _OPUS_PACKET_MS if codec == "opus" else PACKET_MS
    return max((length for length in lengths if length <= wanted), default=lengths[0])
