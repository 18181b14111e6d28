"""Digest authentication in both roles (RFC 3261 §22, RFC 7616, RFC 8760).

The client answers every challenge of a response with the first algorithm it knows, keeps what each realm of each peer
last challenged, and so can send credentials unasked until the nonce is stale. Not every server says that it is, so only
the refusal of an answer to a challenge means a wrong password, not that of credentials sent unasked. The server keeps
nothing per nonce it gives out: a nonce carries its time and a keyed hash, and only those that were used are remembered,
to see a replay.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from appliance.errors import RemoteSipError
from appliance.sip.headers import is_number, is_token, parse_params, split_quoted
from appliance.sip.message import Request, Response
from appliance.sip.uri import Peer, SipUri

ALGORITHMS = {"md5": "md5", "sha-256": "sha256", "sha-512-256": "sha512_256"}
"""Algorithm names as they are compared, and what hashlib calls them."""

OFFERED = ("MD5", "SHA-256")
"""What our own challenges offer, in this order. MD5 stands first although peers are to take the first they know
(RFC 8760 §2.4): many look at the first line only, and know nothing else. Offer SHA-256 alone to have it used.
"""

MAX_CHALLENGES = 8
"""Challenges read of one response; more than a chain of proxies has."""

MAX_LINE = 8192
"""Characters of one header line of challenges or credentials that are read."""

MAX_SESSIONS = 512
"""Realms remembered by a client; the one used longest ago is forgotten."""

MAX_ANSWERS = 4096
"""Answers a client knows again when they are refused; the one given longest ago is forgotten."""

MAX_NONCES = 4096
"""Used nonces remembered by a server; the nonces made before a forgotten one count as stale."""

NONCE_LIFE_S = 300.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and its password.

    ``realm`` limits them to challenges of that realm, "" to none. ``algorithms`` are what we ask a peer for, in order.
    """

    username: str
    password: str
    realm: str = ""
    algorithms: tuple[str, ...] = OFFERED

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ***)"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One WWW-Authenticate or Proxy-Authenticate line. ``algorithm`` as written, "MD5" where there is none."""

    realm: str
    nonce: str
    opaque: str | None = None
    algorithm: str = "MD5"
    qop: tuple[str, ...] = ()
    stale: bool = False

    @classmethod
    def parse(cls, text: str) -> Challenge:
        """Read one line.

        Raises:
            RemoteSipError: where it is no Digest challenge.
        """
        params = _digest_params(text)
        if not params.get("nonce"):
            raise RemoteSipError("a digest challenge without a nonce")
        qop = tuple(part.strip().lower() for part in params.get("qop", "").split(",") if part.strip())
        return cls(
            params.get("realm", ""),
            params["nonce"],
            params.get("opaque"),
            params.get("algorithm") or "MD5",
            qop,
            params.get("stale", "").lower() == "true",
        )

    @property
    def usable(self) -> bool:
        """Whether we know the algorithm and one of the qualities of protection."""
        return _hash_name(self.algorithm) is not None and (not self.qop or "auth" in self.qop or "auth-int" in self.qop)


def _digest_params(text: str) -> dict[str, str]:
    """The parameters of ``Digest a=b, c="d"`` with lower-case names and unquoted values.

    Raises:
        RemoteSipError: where the scheme is another or the parameters are broken.
    """
    if len(text) > MAX_LINE:
        raise RemoteSipError(f"a digest of more than {MAX_LINE} characters")
    scheme, _, rest = text.strip().partition(" ")
    if scheme.lower() != "digest":
        raise RemoteSipError(f"cannot use {scheme[:20]!r} authentication")
    parts = [part for part in split_quoted(rest, ",") if part]
    if len(parts) > 32:
        raise RemoteSipError("a digest of more than 32 parameters")
    return {name: _unquote(value or "") for name, value in parse_params(parts).items()}


def _unquote(text: str) -> str:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    inner = text[1:-1]
    if "\\" not in inner:
        return inner
    out, escaped = [], False
    for c in inner:
        if c == "\\" and not escaped:
            escaped = True
        else:
            out.append(c)
            escaped = False
    return "".join(out)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _hash_name(algorithm: str) -> str | None:
    return ALGORITHMS.get(algorithm.lower().removesuffix("-sess"))


def _hash(name: str, text: str) -> str:
    return hashlib.new(name, text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def digest_response(
    algorithm: str,
    credentials: Credentials,
    realm: str,
    nonce: str,
    method: str,
    uri: str,
    *,
    qop: str = "",
    cnonce: str = "",
    nc: str = "",
    body: bytes = b"",
) -> str:
    """The value of ``response`` (RFC 7616 §3.4.1).

    Args:
        algorithm: MD5, SHA-256 or SHA-512-256, each also with ``-sess``, in any case.
        qop: "auth", "auth-int", or "" for a challenge without one (RFC 2069).

    Raises:
        RemoteSipError: for an algorithm we do not know.
    """
    name = _hash_name(algorithm)
    if name is None:
        raise RemoteSipError(f"cannot use the digest algorithm {algorithm[:20]!r}")
    secret = _hash(name, f"{credentials.username}:{realm}:{credentials.password}")
    if algorithm.lower().endswith("-sess"):
        secret = _hash(name, f"{secret}:{nonce}:{cnonce}")
    request = f"{method}:{uri}"
    if qop == "auth-int":
        request += f":{hashlib.new(name, body, usedforsecurity=False).hexdigest()}"
    middle = f"{nonce}:{nc}:{cnonce}:{qop}" if qop else nonce
    return _hash(name, f"{secret}:{middle}:{_hash(name, request)}")


# --- the client ------------------------------------------------------------------------------------------------------

_ANSWERS = {401: ("www-authenticate", "Authorization"), 407: ("proxy-authenticate", "Proxy-Authorization")}


@dataclass(slots=True)
class _Session:
    """What one realm last challenged, and how often its nonce has been used."""

    challenge: Challenge
    header: str
    count: int = 0


class DigestClient:
    """Answers challenges. Keeps the last challenge of every realm of every peer, at most :data:`MAX_SESSIONS`.

    Args:
        new_token: unguessable text for cnonces.
    """

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._sessions: OrderedDict[tuple[str, str, str, str], _Session] = OrderedDict()
        self._answers: OrderedDict[tuple[str, int, str, str, str], None] = OrderedDict()

    def answer(
        self, request: Request, response: Response, peer: Peer, credentials: Credentials
    ) -> list[tuple[str, str]] | None:
        """The header lines with which to send a challenged request again; None where that is of no use.

        It must be sent with the next CSeq number (RFC 3261 §22.2). It is of no use where no challenge can be met, or
        where every realm that challenges refuses what answered its last challenge, and does not call that stale.
        Lines for other realms that the request carried are renewed.
        """
        carried = _carried(request)
        call_id, cseq = request.call_id, request.cseq.number
        wrong = {key for key, nonce in carried if (call_id, cseq, *key, nonce) in self._answers}
        fresh = False
        seen: set[tuple[str, str]] = set()
        for source, header in _ANSWERS.values():
            for line in response.headers.get_all(source)[:MAX_CHALLENGES]:
                for text in _challenges_in(line):
                    try:
                        challenge = Challenge.parse(text)
                    except RemoteSipError:
                        continue
                    key = (header, challenge.realm)
                    wrong_realm = credentials.realm not in ("", challenge.realm)
                    if key in seen or not challenge.usable or wrong_realm:
                        continue
                    seen.add(key)
                    fresh = fresh or key not in wrong or challenge.stale
                    self._keep(peer, credentials, _Session(challenge, header))
                    self._answers[call_id, cseq + 1, header, challenge.realm, challenge.nonce] = None
        while len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        if not fresh:
            return None
        return self._lines(request, peer, credentials, seen.union(key for key, _ in carried))

    def unasked(self, request: Request, peer: Peer, credentials: Credentials) -> list[tuple[str, str]]:
        """Credentials for the realms this peer has challenged before, so that it need not challenge again."""
        keys = {key[2:] for key in self._sessions if key[:2] == (peer.host, credentials.username)}
        return self._lines(request, peer, credentials, keys)

    def note(self, response: Response, peer: Peer, credentials: Credentials) -> None:
        """Take over the ``nextnonce`` of a response (RFC 7616 §3.5)."""
        for source, header in (
            ("authentication-info", "Authorization"),
            ("proxy-authentication-info", "Proxy-Authorization"),
        ):
            line = response.headers.get(source)
            if line is None:
                continue
            try:
                nonce = _digest_params(f"Digest {line}").get("nextnonce")
            except RemoteSipError:
                continue
            for key, session in self._sessions.items():
                if nonce and key[:3] == (peer.host, credentials.username, header):
                    old = session.challenge
                    session.challenge = Challenge(old.realm, nonce, old.opaque, old.algorithm, old.qop)
                    session.count = 0

    def _keep(self, peer: Peer, credentials: Credentials, session: _Session) -> None:
        key = (peer.host, credentials.username, session.header, session.challenge.realm)
        old = self._sessions.pop(key, None)
        if old is not None and old.challenge.nonce == session.challenge.nonce:
            session.count = old.count
        self._sessions[key] = session
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _lines(
        self, request: Request, peer: Peer, credentials: Credentials, keys: set[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        lines = []
        for header, realm in sorted(keys):
            session = self._sessions.get((peer.host, credentials.username, header, realm))
            if session is not None:
                lines.append((header, self._line(session, request, credentials)))
        return lines

    def _line(self, session: _Session, request: Request, credentials: Credentials) -> str:
        challenge = session.challenge
        session.count += 1
        qop = "" if not challenge.qop else "auth" if "auth" in challenge.qop else "auth-int"
        needs_cnonce = bool(qop) or challenge.algorithm.lower().endswith("-sess")
        cnonce = self._new_token() if needs_cnonce else ""
        nc = f"{session.count:08x}" if qop else ""
        answer = digest_response(
            challenge.algorithm, credentials, challenge.realm, challenge.nonce, request.method, request.uri,
            qop=qop, cnonce=cnonce, nc=nc, body=request.body,
        )  # fmt: skip
        parts = [
            f"Digest username={_quote(credentials.username)}",
            f"realm={_quote(challenge.realm)}",
            f"nonce={_quote(challenge.nonce)}",
            f"uri={_quote(request.uri)}",
            f'response="{answer}"',
            f"algorithm={challenge.algorithm}",
        ]
        if cnonce:
            parts.append(f'cnonce="{cnonce}"')
        if qop:
            parts += [f"qop={qop}", f"nc={nc}"]
        if challenge.opaque is not None:
            parts.append(f"opaque={_quote(challenge.opaque)}")
        return ", ".join(parts)


def _challenges_in(line: str) -> list[str]:
    """The challenges of one header line: usually one, but a proxy may have joined several with commas."""
    try:
        parts = split_quoted(line[:MAX_LINE], ",")
    except RemoteSipError:
        return []
    found: list[str] = []
    for part in parts[:256]:
        scheme, space, rest = part.partition(" ")
        if space and is_token(scheme) and "=" in rest:
            found.append(part)
        elif found:
            found[-1] += f", {part}"
    return found[:MAX_CHALLENGES]


def _carried(request: Request) -> list[tuple[tuple[str, str], str]]:
    """((header, realm), nonce) of the credentials in a request."""
    found = []
    for header in ("Authorization", "Proxy-Authorization"):
        for line in request.headers.get_all(header)[:MAX_CHALLENGES]:
            try:
                params = _digest_params(line)
            except RemoteSipError:
                continue
            found.append(((header, params.get("realm", "")), params.get("nonce", "")))
    return found


# --- the server ------------------------------------------------------------------------------------------------------


class Verdict(StrEnum):
    """What became of the credentials of a request."""

    GOOD = "good"
    MISSING = "missing"
    STALE = "stale"
    WRONG = "wrong"


class DigestServer:
    """Challenges requests and checks what comes back.

    A nonce knows the host it was given to. Good credentials may come from any other (a peer may have several), but what
    is wrong counts against a sender only under a nonce of its own: whoever forges an address has never seen one.

    Args:
        realm: told to the peers; the name under which they keep their password.
        secret: key of the nonces; unguessable, and new at each start.
        new_token: text no nonce has held yet.
        life_s: how long a nonce may be used.
    """

    def __init__(self, realm: str, secret: str, new_token: Callable[[], str], *, life_s: float = NONCE_LIFE_S) -> None:
        self._realm = realm
        self._key = secret.encode()
        self._new_token = new_token
        self._life_s = life_s
        self._used: OrderedDict[str, int] = OrderedDict()
        self._forgotten_ms = -1

    def challenges(
        self, now: float, *, host: str = "", algorithms: Sequence[str] = OFFERED, stale: bool = False
    ) -> list[str]:
        """The values of WWW-Authenticate lines for this host, one for each algorithm."""
        nonce = self._nonce(host, now)
        tail = ", stale=true" if stale else ""
        return [
            f'Digest realm={_quote(self._realm)}, nonce="{nonce}", algorithm={algorithm}, qop="auth"{tail}'
            for algorithm in algorithms
        ]

    def check(self, request: Request, credentials: Credentials, now: float, *, host: str = "") -> Verdict:
        """Judge the Authorization of a request from this host.

        A nonce counts as used only by credentials that are good. What is wrong under another host's is STALE.
        """
        for line in request.headers.get_all("authorization")[:MAX_CHALLENGES]:
            try:
                params = _digest_params(line)
            except RemoteSipError:
                continue
            if params.get("realm") == self._realm:
                verdict = self._judge(params, request, credentials, now)
                proven = verdict is not Verdict.WRONG or self._given_to(host, params.get("nonce", ""))
                return verdict if proven else Verdict.STALE
        return Verdict.MISSING

    def _judge(self, params: dict[str, str], request: Request, credentials: Credentials, now: float) -> Verdict:
        nonce, nc, qop = params.get("nonce", ""), params.get("nc", ""), params.get("qop", "")
        algorithm = params.get("algorithm") or "MD5"
        made_ms = self._made_ms(nonce)
        if made_ms is None:
            return Verdict.STALE
        counted = len(nc) == 8 and all(c in "0123456789abcdefABCDEF" for c in nc)
        if qop != "auth" or not counted or not params.get("cnonce"):
            return Verdict.WRONG
        if algorithm.upper() not in credentials.algorithms or not _same_target(params.get("uri", ""), request.uri):
            return Verdict.WRONG
        expected = digest_response(
            algorithm, credentials, self._realm, nonce, request.method, params.get("uri", ""),
            qop=qop, cnonce=params["cnonce"], nc=nc,
        )  # fmt: skip
        name_right = hmac.compare_digest(_octets(params.get("username", "")), _octets(credentials.username))
        right = hmac.compare_digest(_octets(params.get("response", "").lower()), _octets(expected))
        if not (name_right and right):
            return Verdict.WRONG
        return self._use(nonce, made_ms, int(nc, 16), now)

    def _use(self, nonce: str, made_ms: int, count: int, now: float) -> Verdict:
        if now * 1000 - made_ms > self._life_s * 1000:
            return Verdict.STALE
        last = self._used.get(nonce)
        if last is None and made_ms <= self._forgotten_ms:
            return Verdict.STALE
        if last is not None and count <= last:
            return Verdict.STALE
        self._used[nonce] = count
        if len(self._used) > MAX_NONCES:
            oldest, _ = self._used.popitem(last=False)
            self._forgotten_ms = max(self._forgotten_ms, self._made_ms(oldest) or 0)
        return Verdict.GOOD

    def _nonce(self, host: str, now: float) -> str:
        stamp = f"{int(now * 1000)}.{self._new_token()}"
        stamp = f"{stamp}.{self._seal(f'{stamp} {host}')}"
        return f"{stamp}.{self._seal(stamp)}"

    def _given_to(self, host: str, nonce: str) -> bool:
        """Whether a nonce of ours was made for this host."""
        stamp, _, mark = nonce.rpartition(".")[0].rpartition(".")
        return hmac.compare_digest(_octets(mark), _octets(self._seal(f"{stamp} {host}")))

    def _seal(self, stamp: str) -> str:
        return hmac.new(self._key, stamp.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:24]

    def _made_ms(self, nonce: str) -> int | None:
        """When we made this nonce, None where we did not."""
        stamp, _, seal = nonce.rpartition(".")
        when = stamp.partition(".")[0]
        if len(nonce) > 200 or not is_number(when, 2**53):
            return None
        return int(when) if hmac.compare_digest(_octets(seal), _octets(self._seal(stamp))) else None


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _same_target(claimed: str, uri: str) -> bool:
    """Whether the URI in the credentials names what the request asks for; proxies may have touched the rest.

    Some peers, SIPp among them, name only the host.
    """
    if claimed == uri:
        return True
    try:
        one, other = SipUri.parse(claimed), SipUri.parse(uri)
    except RemoteSipError:
        return False
    return one.user in ("", other.user) and one.host.lower() == other.host.lower()
