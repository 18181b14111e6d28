"""What the browser phone is made of: its page, the list of lines, and a call's events as they happen.

* ``/phone``                       the page; ``?trunk=NAME`` where there are several trunks of kind ``browser``
* ``/phone/FILE``                  its script, style and icon
* ``/phone/lines``                 the lines of the dialplan, with a number each
* ``/phone/calls/CALL/events``     server-sent events of one call, to its end

The calls themselves are the carrier's: :mod:`appliance.signalling.browser`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from importlib.resources import files
from typing import Final

from aiohttp import web

from appliance.admin.phone.lines import reaches
from appliance.admin.phone.told import told
from appliance.calls.watch import CallWatch
from appliance.dialplan.routing import Routing
from appliance.signalling.browser import CALLING, BrowserCarrier, Refused, refusal

PAGE: Final = "index.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEARTBEAT_S: Final = 15.0
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PhonePages:
    """The routes of the page.

    Args:
        carriers: the trunks of kind ``browser``, by name; the first is the one that the page calls on.
        routing: gives the lines that calls are chosen from now.
        watch: has the calls' events.
    """

    def __init__(
        self, carriers: Mapping[str, BrowserCarrier], routing: Callable[[], Routing], watch: CallWatch
    ) -> None:
        self._carriers = carriers
        self._routing = routing
        self._watch = watch
        self._files = _read_files()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/phone", self._page),
            web.get("/phone/", self._moved),
            web.get("/phone/lines", _answering(self._list)),
            web.get("/phone/calls/{call}/events", _answering(self._events)),
            web.get("/phone/{file}", self._file),
        ]

    async def _page(self, request: web.Request) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        sources = sorted({source for carrier in self._carriers.values() for source in carrier.media_sources(host)})
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'; connect-src " + " ".join(("'self'", *sources))
        )
        headers = {
            "Content-Security-Policy": policy,
            "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        }
        return self._send(request, PAGE, headers)

    async def _moved(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPMovedPermanently("../phone" + (f"?{request.query_string}" if request.query_string else ""))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        if name == PAGE or name not in self._files:
            raise web.HTTPNotFound(text=f"the browser phone has no {name[:40]!r}\n")
        return self._send(request, name, {})

    def _send(self, request: web.Request, name: str, headers: Mapping[str, str]) -> web.Response:
        """A file, or that the browser's copy is good: asked for every time, so that an update is seen at once."""
        content, tag = self._files[name]
        told_headers = {**_HEADERS, **headers, "Cache-Control": "no-cache", "ETag": tag}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=told_headers)
        told_headers["Content-Type"] = _TYPES[name.rpartition(".")[2]]
        return web.Response(body=content, headers=told_headers)

    def _carrier(self, request: web.Request) -> BrowserCarrier:
        wanted = request.query.get("trunk")
        if not self._carriers:
            raise Refused(
                404, "there is no trunk of kind browser; add trunks.phone: {kind: browser, allow: [127.0.0.0/8]}"
            )
        if wanted is None:
            return next(iter(self._carriers.values()))
        if wanted not in self._carriers:
            raise Refused(
                404, f"there is no trunk {wanted[:64]!r} of kind browser; there is {', '.join(self._carriers)}"
            )
        return self._carriers[wanted]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        carrier = self._carrier(request)
        carrier.check(request)
        lines = [
            {
                "name": reach.line.name,
                "description": reach.line.description,
                "number": reach.number,
                "why": reach.why,
                "language": reach.line.language,
                "record": reach.line.record.enabled,
            }
            for reach in reaches(self._routing(), carrier.trunk, CALLING, datetime.now().astimezone())
        ]
        return web.json_response({"trunk": carrier.trunk, "lines": lines}, headers={"Cache-Control": "no-store"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        call = self._watch.call(request.match_info["call"])
        carrier = self._carriers.get(call.started.trunk) if call is not None else None
        if call is None or carrier is None:
            raise Refused(404, "there is no such call; it has ended")
        carrier.check(request)
        if call.crowded:
            raise Refused(503, "too many pages follow this call")
        last = request.headers.get("Last-Event-ID", "")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        following = call.follow(
            int(last) if last.isascii() and last.isdecimal() and len(last) < 10 else 0, _HEARTBEAT_S
        )
        try:
            async for number, event in following:
                message = told(event) if event is not None else None
                text = ": still here\n\n" if event is None else ""
                if message is not None:
                    text = f"id: {number}\ndata: {json.dumps(message)}\n\n"
                if text:
                    await response.write(text.encode())
        except ConnectionResetError:
            pass
        finally:
            await following.aclose()
        return response


def _read_files() -> dict[str, tuple[bytes, str]]:
    """The files of the page with their tags."""
    found = {}
    for path in files("appliance.admin.phone").joinpath("static").iterdir():
        if path.name.rpartition(".")[2] in _TYPES:
            content = path.read_bytes()
            found[path.name] = (content, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found


def _answering(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return refusal(refused)

    return answer
