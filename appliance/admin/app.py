"""The HTTP application of the control process: health, readiness, metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from appliance.admin.status import BoxStatus

BOX: Final = web.AppKey("box", BoxStatus)


def make_app(box: BoxStatus) -> web.Application:
    """The application; other packages add their routes to it before it is started.

    * ``/healthz``  200 while the event loop of the control process turns
    * ``/readyz``   200 when calls are taken, else 503; JSON says what stands in the way, and ``warnings``
    * ``/trunks``   how each trunk is, as JSON: registered, reachable, calls, what happened
    * ``/metrics``  Prometheus, text or OpenMetrics as asked for
    """
    app = web.Application()
    app[BOX] = box
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/trunks", _trunks)
    app.router.add_get("/metrics", _metrics)
    return app


async def _healthz(request: web.Request) -> web.Response:
    box = request.app[BOX]
    return web.json_response({"status": "alive", "version": _version(), "uptime_s": round(box.uptime_s, 1)})


async def _readyz(request: web.Request) -> web.Response:
    box = request.app[BOX]
    reasons = box.not_ready()
    told: dict[str, object] = {"ready": not reasons, "not_ready": reasons}
    if warnings := box.warnings():
        told["warnings"] = warnings
    return web.json_response(told, status=503 if reasons else 200)


async def _trunks(request: web.Request) -> web.Response:
    return web.json_response(request.app[BOX].trunk_states())


async def _metrics(request: web.Request) -> web.Response:
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(request.app[BOX].metrics.registry), headers={"Content-Type": content_type})


def _version() -> str:
    try:
        return version("appliance")
    except PackageNotFoundError:
        return ""
