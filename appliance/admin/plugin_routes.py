"""``/plugins``: how the plugins are, and the HTTP routes of plugins below it."""

from __future__ import annotations

from aiohttp import web

from appliance.plugins.http_limits import MAX_BODY
from appliance.plugins.link import PluginLink
from appliance.plugins.plan import BOX

_HOP_BY_HOP = frozenset(
    ("connection", "content-length", "date", "keep-alive", "server", "te", "trailer", "transfer-encoding", "upgrade")
)


class PluginRoutes:
    """The routes.

    * ``/plugins``            the plugins that are enabled, as JSON: what each is, where it is off and why, which of its
                              hooks failed too often, and whether the plugin host runs
    * ``/plugins/NAME/...``   a plugin's own, answered by the plugin host; who may call them is the plugin's to check

    Args:
        link: to the plugin host.
    """

    def __init__(self, link: PluginLink) -> None:
        self._link = link

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/plugins", self._state), web.route("*", "/plugins/{name}{path:/.*}", self._passed_on)]

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(plugin_states(self._link))

    async def _passed_on(self, request: web.Request) -> web.Response:
        name, path = request.match_info["name"], request.match_info["path"]
        method = "GET" if request.method == "HEAD" else request.method
        wanted = f"{method} /plugins/{name}{path}"
        if not any(wanted in info.routes for info in self._link.manifest.plugins if info.name == name):
            raise web.HTTPNotFound(text="there is no such route\n")
        if (request.content_length or 0) > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
        body = await _body(request)
        headers = {key.lower(): value for key, value in request.headers.items()}
        peer = request.remote or ""
        answer = await self._link.http.ask(name, method, path, dict(request.query), headers, peer, body)
        given = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP_BY_HOP}
        given["Content-Type"] = answer.content_type
        try:
            return web.Response(status=answer.status, body=answer.body, headers=given)
        except ValueError:
            return web.Response(status=502, text="the plugin's headers cannot be sent\n")


async def _body(request: web.Request) -> bytes:
    """At most ``MAX_BODY`` bytes.

    Raises:
        aiohttp.web.HTTPRequestEntityTooLarge: there are more.
    """
    body = bytearray()
    async for chunk in request.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, len(body))
    return bytes(body)


def plugin_states(link: PluginLink) -> dict[str, object]:
    """How the plugins are, for ``/plugins``."""
    manifest = link.manifest
    off = [
        {"plugin": entry.plugin, "lines": [line or "*" for line in entry.lines], "why": entry.why}
        for entry in manifest.unusable
    ]
    left_alone = [
        {"plugin": key.plugin, "hook": key.hook, "line": key.line or BOX, "for_s": round(left_s, 1)}
        for key, left_s in link.switched_off()
    ]
    return {
        "host": ("ready" if link.up else "restarting") if link.needed else "not needed",
        "host_ended": {plugin or "(nobody)": count for plugin, count in link.ended.items()},
        "plugins": [
            {
                "name": info.name,
                "version": info.version,
                "summary": info.summary,
                "from": info.source.where,
                "hooks": list(info.hooks),
                "routes": list(info.routes),
                "problem": info.problem,
            }
            for info in manifest.plugins
        ],
        "off": off,
        "switched_off": left_alone,
    }
