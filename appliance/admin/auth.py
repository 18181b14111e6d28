"""Who may use the HTTP API: whoever knows a token of ``api.tokens``."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from aiohttp import web

logger = logging.getLogger(__name__)

PREFIX: Final = "/api/"
_SCHEME: Final = "bearer"
_MAX_TOKEN: Final = 512

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Tokens:
    """The tokens that are known, as digests: how long a comparison takes tells nothing about them.

    Args:
        tokens: each at least one character.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._digests = [_digest(token) for token in tokens]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def known(self, token: str) -> bool:
        """Whether it is one of them; all are compared, whichever it is."""
        given = _digest(token[:_MAX_TOKEN])
        found = [hmac.compare_digest(given, digest) for digest in self._digests]
        return any(found)


def protect(app: web.Application, tokens: Tokens) -> None:
    """Have every request below ``/api/`` bring ``Authorization: Bearer TOKEN``; else it is answered 401.

    Without any tokens nothing is answered there.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(PREFIX) and not _admitted(request, tokens):
            text = "send `Authorization: Bearer TOKEN` with a token of api.tokens"
            if not tokens:
                text = "the API is off: list a token under api.tokens"
            logger.warning("%s %s from %s: no token, or an unknown one", request.method, request.path, request.remote)
            return web.json_response(
                {"error": text}, status=401, headers={"WWW-Authenticate": 'Bearer realm="appliance"'}
            )
        return await handler(request)

    app.middlewares.append(check)


def _admitted(request: web.Request, tokens: Tokens) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == _SCHEME and bool(token.strip()) and tokens.known(token.strip())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
