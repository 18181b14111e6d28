"""Bar 1 of the second part: the torture messages of RFC 4475 on the UDP socket of a running daemon.

Each message is sent as it lies in the corpus, from an address of its own, and what comes back to the place where
RFC 3261 §18.2.2 sends answers is held against ``expected.tsv``. After each, a plain OPTIONS must be answered: the
daemon lives. ``python -m tests.bench.torture`` prints one line a message.
"""

from __future__ import annotations

import re
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from appliance.cli.box import HOST, Box
from tests.bench.report import Bar

CORPUS = Path(__file__).parents[2] / ".." / "shared" / "sip-torture"
SENDER = "127.0.0.77"
"""The address all messages come from: the ports that their Via headers name must be free on it."""
ANSWER_S = 2.0
TRANSACTION_S = 33.0
"""How long a server remembers a request over UDP: a message with the same branch waits until that is over."""
QUIET_S = 0.4
"""How long nothing must come for a message to count as dropped."""


@dataclass(frozen=True)
class Message:
    """One message: its section of RFC 4475, and what that asks, in our words."""

    name: str
    section: str
    asks: str

    def read(self) -> bytes:
        return (CORPUS / f"{self.name}.dat").read_bytes()

    def transaction(self) -> tuple[str, ...]:
        """What makes it the same request again (RFC 3261 §17.2.3): some messages share branch, sent-by and method."""
        text = self.read().decode("latin-1")
        found = re.search(r"branch\s*=\s*(z9hG4bK[^;,\s]+)", text)
        sent_by = re.search(r"/\s*(?:UDP|TCP|TLS)\s+([^;\s]+)", text)
        return (text.split()[0], found.group(1), sent_by.group(1)) if found and sent_by else (self.name,)


@dataclass(frozen=True)
class Seen:
    """What the daemon did with a message. ``status`` is its final answer, 0 for none."""

    message: Message
    allowed: str
    status: int
    reason: str
    strays: int
    alive: bool

    @property
    def right(self) -> bool:
        return self.alive and any(self._meets(verdict) for verdict in self.allowed.split(" or "))

    def _meets(self, verdict: str) -> bool:
        if verdict == "A":
            return self.status >= 200 and self.status not in (400, 505)
        return self.status == (0 if verdict == "D" else int(verdict))

    @property
    def words(self) -> str:
        """What happened, for the table."""
        if self.status:
            return f"answers {self.status} {self.reason}".rstrip()
        return "drops it, counted as a stray response" if self.strays else "drops it"


MESSAGES = tuple(
    Message(*row)
    for row in (
        ("TC_WSINV", "3.1.1.1", "accept: legal, however folded, spaced, compact and mixed in case"),
        ("TC_INTMETH", "3.1.1.2", "parse every character a method, header or display name may hold; then not know it"),
        ("TC_ESC01_V", "3.1.1.3", "accept escapes in a user part and take none of them for a separator"),
        ("TC_ESCNULL_V", "3.1.1.4", "accept: %00 is a legal part of a user name and does not end it"),
        ("TC_ESC02_V", "3.1.1.5", "leave a % alone in a method, which is no URI: RE%47IST%45R is not REGISTER"),
        ("TC_LWSDISP_V", "3.1.1.6", "accept a display name that < follows without a space"),
        ("TC_LONGREQ_V", "3.1.1.7", "accept: long names, values and URIs are legal"),
        ("TC_DBLREQ", "3.1.1.8", "serve the first request of the datagram and ignore what follows its body"),
        ("TC_SEMIURI_V", "3.1.1.9", "accept: a semicolon in the user part begins no URI parameter"),
        ("TC_TRANSPORTS_V", "3.1.1.10", "accept Via lines of transports that are unknown here"),
        ("TC_MPART01", "3.1.1.11", "accept a body of several MIME parts that holds binary data"),
        ("TC_UNREASON_V", "3.1.1.12", "parse a reason phrase of any characters; nobody waits for this response"),
        ("TC_NOREASON_V", "3.1.1.13", "parse a response with an empty reason phrase; nobody waits for it"),
        ("TC_BADINV01_I", "3.1.2.1", "refuse with 400: separators with nothing between them in Via and Contact"),
        ("TC_CLERR_I", "3.1.2.2", "refuse with 400: Content-Length promises more than the datagram holds"),
        ("TC_NCL_I", "3.1.2.3", "refuse with 400: a negative Content-Length"),
        ("TC_SCALAR02_V", "3.1.2.4", "refuse with 400: numbers beyond what their headers may hold"),
        ("TC_SCALARLG_V", "3.1.2.5", "drop a response with numbers out of range; never answer it"),
        ("TC_QUOTBAL_I", "3.1.2.6", "refuse with 400: a quoted display name that is never closed"),
        ("TC_LTGTRURI_I", "3.1.2.7", "refuse a Request-URI in angle brackets, or be liberal and read it"),
        ("TC_LWSRURI_I", "3.1.2.8", "refuse with 400: white space inside the Request-URI"),
        ("TC_LWSSTART_V", "3.1.2.9", "refuse with 400: more than one space between the parts of the request line"),
        ("TC_TRWS_I", "3.1.2.10", "refuse spaces at the end of the request line, or be liberal and trim them"),
        ("TC_ESCRURI_V", "3.1.2.11", "refuse headers in a Request-URI, or ignore them; never obey the Route in it"),
        ("TC_BADDATE_V", "3.1.2.12", "refuse a Date in a zone other than GMT, or ignore the header"),
        ("TC_REGBADCT_I", "3.1.2.13", "refuse a Contact with URI headers but no angle brackets, or ignore it"),
        ("TC_BADASPEC_I", "3.1.2.14", "refuse spaces inside an address, or be liberal"),
        ("TC_BADDN_I", "3.1.2.15", "refuse a display name of characters that need quotes, or be liberal"),
        ("TC_BADVERS_V", "3.1.2.16", "refuse with 505: a version that is not 2.0"),
        ("TC_MISMATCH01_V", "3.1.2.17", "refuse with 400: CSeq names another method than the request line"),
        ("TC_MISMATCH02_V", "3.1.2.18", "the same with a method nobody knows: 400, or refuse the method"),
        ("TC_BIGCODE_V", "3.1.2.19", "drop a response whose status is no three digits"),
        ("TC_BADBRANCH_V", "3.2.1", "a branch of the magic cookie alone identifies nothing: refuse or match otherwise"),
        ("TC_INSUF_I", "3.3.1", "refuse with 400: Call-ID, From and To are missing"),
        ("TC_UNKSCM_V", "3.3.2", "refuse with 416: a scheme nobody knows"),
        ("TC_NOVELSC_V", "3.3.3", "refuse with 416: a registered scheme that is not served here"),
        ("TC_UNKSM2_V", "3.3.4", "accept unknown schemes in To, From and Contact of a REGISTER, or refuse it"),
        ("TC_BEXT01_V", "3.3.5", "refuse with 420 and list the extensions that are not supported"),
        ("TC_INVUT_V", "3.3.6", "refuse with 415 and say in Accept what would be read"),
        ("TC_REGAUT01_V", "3.3.7", "survive an unknown authorisation scheme: challenge again, or refuse REGISTER"),
        ("TC_MULTI01_I", "3.3.8", "refuse with 400: headers twice that may come once"),
        ("TC_MCL01_I", "3.3.9", "refuse with 400: two Content-Length headers that differ"),
        ("TC_BCAST_V", "3.3.10", "drop a response whose Via is not ours; never send it on to a broadcast address"),
        ("TC_ZEROMF_V", "3.3.11", "answer as the one meant, or refuse with 483; never forward"),
        ("TC_CPARAM01_V", "3.3.12", "keep a parameter of Contact apart from one of its URI"),
        ("TC_CPARAM02_V", "3.3.13", "keep a parameter of the Contact's URI with the URI"),
        ("TC_REGESCRT_V", "3.3.14", "accept a Contact whose URI carries an escaped Route header"),
        ("TC_SDP01_V", "3.3.15", "honour an Accept that leaves out SDP: 406, or an answer without it"),
        ("TC_INV2543_I", "3.4.1", "serve an INVITE of the older RFC 2543, which has neither branch nor magic cookie"),
        ("TC_TEST_I", "not in it", "an INVITE with nothing behind the URI, not even a version: refuse it"),
    )
)  # fmt: skip


def expected() -> dict[str, str]:
    """The verdicts that are allowed, by message."""
    rows = [line.split("\t") for line in (CORPUS / "expected.tsv").read_text().splitlines() if not line.startswith("#")]
    return {row[0].removesuffix(".dat"): row[1] for row in rows if len(row) > 1}


class Sender:
    """Sockets on :data:`SENDER`: one that sends, and one on every port that answers may be sent to."""

    def __init__(self, box: tuple[str, int]) -> None:
        self._box = box
        self._stack = ExitStack()
        self._served: set[str] = set()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        ports = {5060}
        for message in MESSAGES:
            head = message.read().partition(b"\r\n\r\n")[0].decode("latin-1")
            via = re.search(r"^(?:via|v)\s*:([^,]*)", head, re.MULTILINE | re.IGNORECASE)
            found = re.search(r":\s*(\d{4,5})\s*(?:;|\Z)", via.group(1)) if via else None
            if found:
                ports.add(int(found.group(1)))
        self._sockets = {port: self._open(port) for port in sorted(ports)}

    def _open(self, port: int) -> socket.socket:
        made = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.bind((SENDER, port))
        self._selector.register(made, selectors.EVENT_READ)
        return made

    def close(self) -> None:
        self._stack.close()

    def send(self, data: bytes) -> None:
        self._sockets[5060].sendto(data, self._box)

    def answers(self, until: float) -> Iterator[str]:
        """What comes before ``until`` (monotonic), as text."""
        while (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                yield key.fileobj.recv(65536).decode("latin-1")

    def final(self, data: bytes, wait_s: float) -> tuple[int, str]:
        """Send a message and give the status and reason of its final answer, (0, "") for none.

        An INVITE's answer is acknowledged, and a call that was set up is ended.
        """
        own = _value(data.decode("latin-1"), "call-id|i")
        earlier = self._served - {own}
        self._served.add(own)
        self.send(data)
        for text in self.answers(time.monotonic() + wait_s):
            found = re.match(r"SIP/2\.0 (\d{3}) ?([^\r\n]*)", text)
            if found is None or int(found.group(1)) < 200 or _value(text, "call-id") in earlier:
                continue
            if re.search(r"^CSeq:.*INVITE\s*$", text, re.MULTILINE | re.IGNORECASE):
                self._close_call(text, int(found.group(1)))
            return int(found.group(1)), found.group(2)
        return 0, ""

    def _close_call(self, answer: str, status: int) -> None:
        contact = re.search(r"<([^>]*)>", _value(answer, "Contact"))
        uri = contact.group(1) if contact else f"sip:user@{HOST}"
        number = _value(answer, "CSeq").split()[0]
        via = re.sub(r";received=[^;,\s]*", "", _value(answer, "Via").partition(",")[0])
        methods = [("ACK", number)] + ([("BYE", str(int(number) + 1))] if status < 300 else [])
        for method, sequence in methods:
            own = f"SIP/2.0/UDP {SENDER};branch=z9hG4bK{method}{time.monotonic_ns()}"
            head = [f"{method} {uri} SIP/2.0", f"Via: {via if status >= 300 else own}", "Max-Forwards: 70"]
            head += [f"{name}: {_value(answer, name)}" for name in ("From", "To", "Call-ID")]
            head += [f"CSeq: {sequence} {method}", "Content-Length: 0"]
            self.send(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))

    def drain(self, seconds: float) -> None:
        """Throw away what comes in that time."""
        for _ in self.answers(time.monotonic() + seconds):
            pass


def _value(message: str, names: str) -> str:
    """The value of the first header of these names; an empty string where there is none."""
    found = re.search(rf"^(?:{names})\s*:\s*(.*?)\s*$", message, re.MULTILINE | re.IGNORECASE)
    return found.group(1) if found else ""


def run(box: Box) -> list[Seen]:
    """Send every message and look after each whether the box lives."""
    verdicts = expected()
    sender = Sender((HOST, box.sip_port))
    seen: dict[str, Seen] = {}
    sent: dict[tuple[str, ...], float] = {}
    order = {message.transaction(): message for message in reversed(MESSAGES)}
    try:
        for message in sorted(MESSAGES, key=lambda one: order[one.transaction()] is not one):
            before = sent.setdefault(message.transaction(), time.monotonic())
            if order[message.transaction()] is not message:
                time.sleep(max(0.0, before + TRANSACTION_S - time.monotonic()))
            seen[message.name] = _one(box, sender, message, verdicts[message.name])
    finally:
        sender.close()
    return [seen[message.name] for message in MESSAGES]


def _one(box: Box, sender: Sender, message: Message, allowed: str) -> Seen:
    sender.drain(0.05)
    before = strays(box)
    status, reason = sender.final(message.read(), QUIET_S if allowed == "D" else ANSWER_S)
    counted = strays(box) - before
    return Seen(message, allowed, status, reason, counted, _alive(sender, message.name))


def strays(box: Box) -> int:
    """What the box has dropped without an answer so far, by its own metrics."""
    text = box.get("/metrics")[1]
    found = re.findall(r'^appliance_sip_events_total\{event="(?:strays|malformed|garbage)"\} (\S+)', text, re.MULTILINE)
    return int(sum(float(value) for value in found))


def _alive(sender: Sender, name: str) -> bool:
    sender.drain(0.05)
    token = f"{name.lower().replace('_', '')}{time.monotonic_ns()}"
    options = [
        f"OPTIONS sip:{HOST} SIP/2.0", f"Via: SIP/2.0/UDP {SENDER}:5060;branch=z9hG4bK{token}", "Max-Forwards: 70",
        f"From: <sip:alive@{SENDER}>;tag={token}", f"To: <sip:{HOST}>", f"Call-ID: {token}", "CSeq: 1 OPTIONS",
        "Content-Length: 0",
    ]  # fmt: skip
    return sender.final(("\r\n".join(options) + "\r\n\r\n").encode(), ANSWER_S)[0] == 200


def main() -> int:
    if not CORPUS.exists():
        print("skipped: the torture messages (../shared/sip-torture) are not beside this clone")
        return 77
    bar = Bar(1, "RFC 4475 torture messages")
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, Box(Path(folder)) as box:
        seen = run(box)
        for one in seen:
            mark = "  " if one.right else "! "
            bar.note(f"{mark}{one.message.name:16} {one.allowed:26} {one.words}{'' if one.alive else ', THEN DEAD'}")
        left = box.stop()
    wrong = [one.message.name for one in seen if not one.right]
    silent = [one for one in seen if one.allowed == "D"]
    bar.figure(f"{len(seen) - len(wrong)} of {len(seen)} as the RFC asks")
    bar.figure(f"{sum(one.strays > 0 for one in silent)} of {len(silent)} strays counted")
    bar.require(not wrong, f"wrong: {', '.join(wrong)}")
    bar.require(all(one.strays for one in silent), "a dropped message was not counted")
    bar.require(left == 0, f"the box left with {left}")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
