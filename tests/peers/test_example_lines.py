"""Every example line, called over SIP and RTP: a whole box, and around it real servers of HTTP, SMTP and a model.

The files are those that come with the appliance; only what is a site's own (addresses, folders, hours) is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import re
import socket
import wave
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from typing import Any

import icalendar
import numpy as np
import pytest
import yaml
from aiohttp import web
from aiosmtpd.controller import Controller

from appliance.cli.box import HOST, Box, free_port
from appliance.cli.dialler import SipDialler, SoftphoneMedia
from appliance.cli.softphone import CallOver, Softphone, read_wav
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import SipLeg
from appliance.signalling.trunks import TrunkRule
from tests.bench import lines, records
from tests.bench.llm_failures import settings
from tests.openai_sim.chat import Answer, ChatSim
from tests.plugins.declarative.server import HttpServer
from tests.plugins.test_first_plugin import files as first_plugin
from tests.waiting import eventually

pytestmark = [pytest.mark.peer, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "dialplans" / "examples"
CARD = "4111111111111111"
GERMAN, AMERICAN = "+4930555001", "+12175550199"
SALES, ENGLISH_DESK, GERMAN_DESK = "+12175550101", "+493012345601", "+493012345602"
TRANSFERS = 3
SUMMARY = "Somebody wants an oak table."


class Humans:
    """Those whom callers are put through to: they answer, and listen.

    Attributes:
        reached: the numbers that were called.
        packets: how many came, by number; ``heard``: those of them with a sound in them.
    """

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.packets: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self._sockets: list[socket.socket] = []
        self._endpoint = SipEndpoint(
            [ListenOn("udp", HOST, 0)],
            trunks=(TrunkRule("box", (ipaddress.ip_network("127.0.0.0/8"),)),),
            on_call=self._called,
            stop_grace_s=0.2,
        )

    async def __aenter__(self) -> Humans:
        await self._endpoint.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._endpoint.stop()
        for one in self._sockets:
            asyncio.get_running_loop().remove_reader(one)
            one.close()

    @property
    def uri(self) -> str:
        return f"sip:{HOST}:{self._endpoint.port}"

    def _called(self, leg: SipLeg) -> None:
        number = leg.info.called
        mine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mine.setblocking(False)
        mine.bind((HOST, 0))
        self._sockets.append(mine)
        asyncio.get_running_loop().add_reader(mine, self._arrived, mine, number)
        media: Any = SoftphoneMedia(HOST, mine.getsockname()[1])
        leg.answer(media)
        self.reached.append(number)

    def _arrived(self, mine: socket.socket, number: str) -> None:
        payload = mine.recv(2048)[12:]
        self.packets[number] += 1
        self.heard[number] += len(set(payload)) > 8

    @property
    def all_reached(self) -> bool:
        """Everybody has a caller on the line, and whoever is announced one has heard of what."""
        return sum(count > 10 for count in self.packets.values()) == TRANSFERS and self.heard[SALES] > 10


class Mail:
    """Keeps the messages it is sent."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


def monday() -> date:
    """One that is days ahead, wherever the box takes itself to be."""
    soon = datetime.now(UTC).date() + timedelta(days=3)
    return soon + timedelta(days=-soon.weekday() % 7)


def use(round_: int, tool: str, **arguments: object) -> tuple[str, str, str]:
    return (f"call{round_}", tool, json.dumps(arguments))


def script() -> dict[str, list[Answer]]:
    """A part of the line's prompt to what its model answers, by how many results of tools it has seen."""
    start = f"{monday()}T08:20"
    return {
        "Miller and Sons": [
            Answer("", calls=[use(1, "look_up", question="delivery of tables")]),
            Answer("It takes two weeks.", calls=[use(2, "put_through", to="sales", summary=SUMMARY)]),
        ],
        "Doctor Lee": [
            Answer("", calls=[use(1, "free_appointments", date=f"{monday()}")]),
            Answer("", calls=[use(2, "book_appointment", start=start, name="Ann", about="a cough")]),
            Answer("It is booked.", calls=[use(3, "hang_up", reason="booked")]),
        ],
        "where their orders are": [
            Answer("", calls=[use(1, "order_status", number="12345")]),
            Answer("", calls=[use(2, "open_ticket", subject="a late order", text="Order 12345 is late.")]),
            Answer("I have noted it down.", calls=[use(3, "hang_up", reason="noted")]),
        ],
        "callers the weather": [
            Answer("", calls=[use(1, "forecast", city="Paris")]),
            Answer("It is sunny in Paris.", calls=[use(2, "hang_up", reason="told")]),
        ],
    }


def model() -> Callable[[dict[str, Any]], Answer]:
    known = script()

    def answer(body: dict[str, Any]) -> Answer:
        messages = body["messages"]
        steps = next(steps for words, steps in known.items() if words in messages[0]["content"])
        results = sum(1 for message in messages if message["role"] == "tool")
        return steps[min(results, len(steps) - 1)]

    return answer


async def shop(request: web.Request) -> web.StreamResponse:
    """The customer system."""
    if request.method == "POST":
        return web.json_response({"ticket": {"number": "T-9"}}, status=201)
    return web.json_response({"order": {"state": "sent", "items": [{"name": "hat"}], "arrives": "Tuesday"}})


def box_of(folder: Path, model_url: str, shop_url: str, mail_port: int, desk: str) -> Box:
    """A box with every example. ``desk`` is where callers are put through to."""
    plans = folder / "plans"
    plans.mkdir()
    (folder / "handbook").mkdir()
    (folder / "handbook" / "tables.md").write_text("# Tables\n\n## Delivery\n\nOak tables take two weeks.\n")
    sites = {
        "/srv/handbook": str(folder / "handbook"),
        "/srv/calendars": str(folder),
        "https://crm.example.com": shop_url,
        "host: mail.example.com, port: 25": f"host: {HOST}, port: {mail_port}",
        'hours: {mon-fri: "08:00-18:00", sat: "09:00-13:00"}\n    holidays: [US]': 'hours: {mon-sun: "00:00-24:00"}',
        'hours: {mon-fri: "09:00-17:00"}': 'hours: {sun: "03:00-03:01"}',
    }
    for path in EXAMPLES.glob("*.yaml"):
        text = path.read_text()
        for example, own in sites.items():
            text = text.replace(example, own)
        (plans / path.name).write_text(text)
    weather = yaml.safe_load(first_plugin()["dialplans/weather.yaml"])
    (plans / "weather.yaml").write_text(yaml.safe_dump({**weather, "match": {"called": "2008"}}))
    (folder / "plugins").mkdir()
    (folder / "plugins" / "weather.py").write_text(first_plugin()["plugins/weather.py"])
    (folder / "secrets.yaml").write_text("crm_token: top\n")
    box = Box(
        folder / "box",
        {
            **settings(folder, [model_url]),
            "engines.tts": lines.STANDARD_FAKES["engines.tts"],
            "dialplans.paths": [str(plans)],
            "plugins.paths": [str(folder / "plugins")],
            "plugins.allow_hosts": [HOST],
            "plugins.hang_s": 20,
            "secrets_file": str(folder / "secrets.yaml"),
            "routes": [{"to": "*", "trunks": ["desk"]}],
        },
    )
    trunks: dict[str, object] = {
        "local": {"kind": "sip", "allow": ["127.0.0.0/8"], "transfer": "bridge"},
        "desk": {"kind": "sip", "proxy": desk, "allow_prefixes": ["+1217", "+4930"], "transfer": "bridge"},
    }
    box.settings["trunks"] = trunks
    return box


class Callers:
    """Who calls the lines, each with a telephone of their own."""

    def __init__(self, box: Box, clip: Path, humans: Humans) -> None:
        self._box = box
        self._humans = humans
        self._speech = read_wav(clip)

    async def call(self, line: str, number: str, talk: Callable[[Softphone], Awaitable[None]]) -> None:
        async with SipDialler(HOST, number) as dialler, Softphone(dialler) as phone:
            await phone.dial(self._box.uri(line))
            # Between disclosure and greeting nobody listens yet.
            await phone.wait_agent_silent(60.0, quiet_s=1.5)
            await talk(phone)

    async def says(self, phone: Softphone) -> None:
        """Says yes to whatever the agent says, until it hangs up."""
        with contextlib.suppress(CallOver):
            for _ in range(5):
                await phone.play(self._speech)
                await phone.wait_agent_speech(20.0)
                await phone.wait_agent_silent(30.0, quiet_s=0.8)
        await phone.wait_hangup(60.0)

    async def presses(self, phone: Softphone, *keys: str) -> None:
        """Presses keys, each time that the agent has finished."""
        for one in keys:
            phone.send_digits(one)
            await phone.wait_agent_speech(20.0)
            await phone.wait_agent_silent(30.0, quiet_s=0.8)

    async def is_put_through(self, phone: Softphone, *keys: str) -> None:
        """Speaks with a human in the end, and hangs up."""
        for _ in range(0 if keys else 4):
            await phone.play(self._speech)
            with contextlib.suppress(AssertionError):
                await eventually(lambda: SALES in self._humans.reached, "not put through", 15.0)
                break
        for one in keys:
            phone.send_digits(one)
            await phone.wait_agent_speech(20.0)
            await phone.wait_agent_silent(30.0, quiet_s=0.8)
        await eventually(lambda: self._humans.all_reached, lambda: f"reached: {dict(self._humans.packets)}", 120.0)
        await phone.hangup()


def tools(call: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """What was used in the call: name, source, arguments."""
    used = [tool for turn in call["turns"] for tool in json.loads(turn["tools"] or "[]")]
    assert [tool["problem"] for tool in used if tool["problem"]] == []
    return [(tool["name"], tool["source"], json.loads(tool["arguments"])) for tool in used]


async def test_every_example_line_does_what_it_is_for(tmp_path: Path) -> None:
    mail, mail_port = Mail(), free_port()
    post = Controller(mail, hostname=HOST, port=mail_port)
    await asyncio.to_thread(post.start)
    try:
        async with ChatSim(model()) as chat, HttpServer(shop) as server, Humans() as humans:
            box = box_of(tmp_path, chat.url, server.url, mail_port, humans.uri)
            callers = Callers(box, lines.question(tmp_path), humans)
            try:
                await asyncio.to_thread(box.start, 120.0)
                await everybody(
                    callers.call("2001", AMERICAN, callers.is_put_through),
                    callers.call("2002", AMERICAN, callers.says),
                    callers.call("2003", AMERICAN, callers.says),
                    callers.call("2004", AMERICAN, lambda phone: leaves_a_message(callers, phone)),
                    callers.call("2005", GERMAN, lambda phone: callers.is_put_through(phone, "2")),
                    callers.call("2005", AMERICAN, lambda phone: callers.is_put_through(phone, "1", "1")),
                    callers.call("2006", AMERICAN, lambda phone: pays(callers, phone)),
                    callers.call("2008", AMERICAN, callers.says),
                )
                found = await asyncio.to_thread(records.wait_settled, box.database, 8)
                await eventually(lambda: bool(mail.messages), box.log_tail)
            finally:
                code = await asyncio.to_thread(box.stop)
        assert code == 0, box.log_tail()
        assert chat.problems == []
    finally:
        await asyncio.to_thread(post.stop)

    calls = {call["line"]: call for call in found}
    assert sorted(humans.reached) == sorted([SALES, ENGLISH_DESK, GERMAN_DESK])

    front = calls["front_desk"]
    assert tools(front) == [
        ("look_up", "knowledge", {"question": "delivery of tables"}),
        ("put_through", "transfer", {"to": "sales", "summary": SUMMARY}),
    ]
    assert json.loads(front["slots"])["summary"] == SUMMARY
    assert "Oak tables take two weeks." in json.dumps([asked.body for asked in chat.asked])

    booked = tools(calls["appointments"])
    assert [name for name, _, _ in booked] == ["free_appointments", "book_appointment", "hang_up"]
    (event,) = icalendar.Calendar.from_ical((tmp_path / "practice.ics").read_bytes()).walk("VEVENT")
    assert (str(event["SUMMARY"]), f"{event['DTSTART'].dt:%Y-%m-%dT%H:%M}") == ("Ann: a cough", f"{monday()}T08:20")

    assert [(one.method, one.path) for one in server.asked] == [("GET", "/api/orders/12345"), ("POST", "/api/tickets")]
    ticket = json.loads(server.asked[1].body)
    assert (ticket["subject"], ticket["phone"]) == ("a late order", AMERICAN)
    used = [tool for turn in calls["order_status"]["turns"] for tool in json.loads(turn["tools"] or "[]")]
    assert [tool["confirmed"] for tool in used] == ["", "caller", ""]

    (message,) = mail.messages
    assert message["Subject"] == f"A message from {AMERICAN}"
    (audio,) = message.iter_attachments()
    with wave.open(BytesIO(audio.get_content())) as recording:
        heard = np.frombuffer(recording.readframes(recording.getnframes()), np.int16).reshape(-1, 2)[:, 0]
    assert np.abs(heard).max() > 1000, "the caller is on the recording"

    assert json.loads(calls["german"]["slots"])["department"] == "workshop"
    assert json.loads(calls["english"]["slots"]).items() >= {"language": "english", "department": "sales"}.items()

    paid = calls["payment"]
    slots = json.loads(paid["slots"])
    assert (slots["invoice"], slots["ending"], slots["card"]) == ("4711", "paid", "[private]")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "box").rglob("*") if path.is_file())
    assert CARD.encode() not in kept
    assert not re.search(rb"4.?1.?1.?1.?1.?1.?1.?1.?1.?1.?1.?1.?1.?1.?1.?1", kept.replace(b"\0", b""))

    assert tools(calls["weather"])[0] == ("forecast", "weather", {"city": "Paris"})


async def everybody(*calls: Coroutine[Any, Any, None]) -> None:
    """All of them at once; where one fails, the others end."""
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(call)


async def leaves_a_message(callers: Callers, phone: Softphone) -> None:
    await phone.play(callers._speech)
    await phone.wait_agent_speech(20.0)
    await phone.wait_agent_silent(30.0, quiet_s=0.8)
    phone.send_digits("#")
    await phone.wait_hangup(60.0)


async def pays(callers: Callers, phone: Softphone) -> None:
    await callers.presses(phone, "4711#", f"{CARD}#", "1227")
    phone.send_digits("1")
    await phone.wait_hangup(60.0)
