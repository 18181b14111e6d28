"""``/api/v1/calls``: have the box place a call, follow it, and hang it up."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web
from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from appliance.calls.orders import OutgoingOrder, OutgoingResult
from appliance.calls.outgoing import Originator
from appliance.config.fields import Name, WholeNumber
from appliance.config.validation import Section, fault
from appliance.conversation.answering import Answering

logger = logging.getLogger(__name__)

_MAX_BODY: Final = 64 * 1024
_KEPT: Final = 1000
"""Calls whose end is remembered for whoever asks."""
_MAX_UNDER_WAY: Final = 2000
_LAST_S: Final = 8.0

Text: Final = StringConstraints(max_length=2048)
VariableName: Final = StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")


def _key(value: str) -> str:
    if value and (len(value) != 1 or value not in "0123456789*#"):
        raise fault(f"{value!r} is not a telephone key", "use one of 0-9, * and #, or '' for none")
    return value


class AnsweringRequest(Section):
    """What is done about answering machines."""

    on_machine: Literal["hang_up", "message", "talk"] = Field(
        default="hang_up", description="Hang up, leave `message` after the beep, or talk as with a person."
    )
    message: Annotated[str, Text] = Field(default="", description="What is left on a machine.")
    on_screening: Literal["answer", "hang_up"] = Field(
        default="answer", description="Tell a call-screening assistant who calls and why, or hang up."
    )


class CallRequest(Section):
    """The body of ``POST /api/v1/calls``."""

    number: Annotated[str, StringConstraints(min_length=1, max_length=256, strip_whitespace=True)] = Field(
        description="Whom to call: with + and country code, or a name or SIP URI that the routes allow."
    )
    line: Name = Field(description="The line whose agent speaks.")
    trunk: str = Field(default="", max_length=64, description="The trunk to use; empty: the routes choose.")
    caller_id: WholeNumber | Literal[""] = Field(
        default="", description="Number shown, one of the trunk's `caller_ids`; empty: the trunk's `caller_id`."
    )
    ring_timeout_s: float = Field(default=30.0, ge=5, le=300, description="It rings for so long at most.")
    owner: str = Field(default="", max_length=200, description="On whose behalf: said first, before all else.")
    zone: str = Field(default="", max_length=64, description="Time zone of the one called, such as Europe/Berlin.")
    opt_out_key: Annotated[str, AfterValidator(_key)] = Field(
        default="9", description="Key by which the one called asks not to be called again; empty for none."
    )
    variables: dict[Annotated[str, VariableName], Annotated[str, Text]] = Field(
        default={}, max_length=64, description="What is known of the one called: `${lead.NAME}` on the line."
    )
    answering: AnsweringRequest | None = Field(
        default=None, description="What is done about answering machines; without it, nobody looks for one."
    )

    def order(self, call_id: str) -> OutgoingOrder:
        """The order."""
        wanted = self.answering
        return OutgoingOrder(
            call_id=call_id,
            number=self.number,
            line=self.line,
            trunk=self.trunk,
            caller_id=self.caller_id,
            ring_timeout_s=self.ring_timeout_s,
            variables=self.variables,
            owner=self.owner,
            zone=self.zone,
            opt_out_key=self.opt_out_key,
            answering=None if wanted is None else Answering(
                on_machine=wanted.on_machine, message=wanted.message, on_screening=wanted.on_screening
            ),
        )  # fmt: skip


@dataclass
class _Placed:
    number: str
    state: str = "asked"
    task: asyncio.Task[None] | None = None
    result: OutgoingResult | None = None
    began_at: float = 0.0


class CallsApi:
    """The routes.

    * ``POST /api/v1/calls``         place a call: 202 with its ``call_id``; with ``?wait=true`` 200 when it is over
    * ``GET /api/v1/calls``          those that are under way
    * ``GET /api/v1/calls/ID``       how it goes, or what came of it; ``?wait=S`` waits for its end for so many seconds
    * ``DELETE /api/v1/calls/ID``    hang it up

    Args:
        originator: places the calls.
    """

    def __init__(self, originator: Originator) -> None:
        self._originator = originator
        self._calls: OrderedDict[str, _Placed] = OrderedDict()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/calls", self._post),
            web.get("/api/v1/calls", self._list),
            web.get("/api/v1/calls/{call_id}", self._get),
            web.delete("/api/v1/calls/{call_id}", self._delete),
        ]

    async def close(self) -> None:
        """Nobody follows the calls any more; whoever ends the box hangs them up."""
        tasks = [placed.task for placed in self._calls.values() if placed.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_S)

    async def _post(self, request: web.Request) -> web.Response:
        try:
            wanted = CallRequest.model_validate(await _json(request))
        except ValidationError as error:
            mistakes = [
                {"key": ".".join(map(str, one["loc"])), "what": one["msg"]} for one in error.errors(include_url=False)
            ]
            return web.json_response({"error": "the call cannot be placed", "mistakes": mistakes}, status=422)
        if sum(placed.task is not None for placed in self._calls.values()) >= _MAX_UNDER_WAY:
            return web.json_response({"error": "too many calls are under way; try again later"}, status=503)
        call_id = secrets.token_hex(8)
        placed = self._calls[call_id] = _Placed(wanted.number, began_at=asyncio.get_running_loop().time())
        placed.task = asyncio.create_task(self._place(wanted.order(call_id), placed), name=f"API call {call_id}")
        self._forget()
        if request.query.get("wait") in ("true", "1"):
            await asyncio.wait({placed.task})
            return web.json_response(_told(call_id, placed))
        return web.json_response({"call_id": call_id}, status=202, headers={"Location": f"/api/v1/calls/{call_id}"})

    async def _list(self, request: web.Request) -> web.Response:
        calls = [
            {"call_id": call_id, "number": placed.number, "state": placed.state}
            for call_id, placed in self._calls.items()
            if placed.task is not None
        ]
        return web.json_response({"calls": calls})

    async def _get(self, request: web.Request) -> web.Response:
        placed = self._of(request)
        wait = request.query.get("wait", "")
        if placed.task is not None and wait.isdecimal():
            await asyncio.wait({placed.task}, timeout=min(int(wait), 60))
        return web.json_response(_told(request.match_info["call_id"], placed))

    async def _delete(self, request: web.Request) -> web.Response:
        placed = self._of(request)
        if placed.task is not None:
            placed.task.cancel()
            await asyncio.wait({placed.task}, timeout=_LAST_S)
        return web.json_response(_told(request.match_info["call_id"], placed))

    def _of(self, request: web.Request) -> _Placed:
        placed = self._calls.get(request.match_info["call_id"])
        if placed is None:
            text = '{"error": "no such call was placed here of late; see the call record"}'
            raise web.HTTPNotFound(text=text, content_type="application/json")
        return placed

    async def _place(self, order: OutgoingOrder, placed: _Placed) -> None:
        def progress(what: str, at: float) -> None:
            placed.state = what

        try:
            placed.result = await self._originator.call(order, progress)
        except asyncio.CancelledError:
            placed.result = OutgoingResult(problem="hung up as asked for")
        finally:
            placed.state = "over"
            placed.task = None

    def _forget(self) -> None:
        over = [call_id for call_id, placed in self._calls.items() if placed.task is None]
        for call_id in over[: max(0, len(over) - _KEPT)]:
            del self._calls[call_id]


async def _json(request: web.Request) -> Any:
    """The body.

    Raises:
        aiohttp.web.HTTPException: it is too long, or no JSON.
    """
    if (request.content_length or 0) > _MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(_MAX_BODY, request.content_length or 0)
    body = await request.content.read(_MAX_BODY + 1)
    if len(body) > _MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(_MAX_BODY, len(body))
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = msgspec.json.encode({"error": f"the body is not JSON: {error}"}).decode()
        raise web.HTTPBadRequest(text=text, content_type="application/json") from error


def _told(call_id: str, placed: _Placed) -> dict[str, Any]:
    told: dict[str, Any] = {"call_id": call_id, "state": placed.state}
    if placed.result is not None:
        told["result"] = result_told(placed.result, placed.began_at)
    return told


def result_told(result: OutgoingResult, began_at: float) -> dict[str, Any]:
    """A result as JSON tells it: times are seconds after ``began_at`` (CLOCK_MONOTONIC)."""
    told = asdict(result)
    for name in ("ringing_at", "answered_at", "greeted_at", "ended_at"):
        at = told.pop(name)
        told[f"{name.removesuffix('_at')}_after_s"] = None if at is None else round(at - began_at, 3)
    told["talk_s"] = round(result.talk_s, 3)
    callback = result.callback_at
    told["callback_at"] = callback.astimezone(UTC).isoformat() if isinstance(callback, datetime) else None
    return told
