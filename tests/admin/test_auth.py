"""The API's door: nobody without a token, and all of ``/api/``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from appliance.admin.auth import Tokens, protect
from appliance.config import load_settings
from appliance.errors import ConfigError

TOKEN = "correct-horse-battery-staple"


async def _answers(tokens: list[str], headers: dict[str, str], path: str = "/api/v1/calls") -> tuple[int, Any]:
    async def hello(request: web.Request) -> web.Response:
        return web.json_response({"hello": "there"})

    app = web.Application()
    protect(app, Tokens(tokens))
    app.router.add_get("/api/v1/calls", hello)
    app.router.add_get("/healthz", hello)
    async with (
        TestServer(app) as server,
        ClientSession() as client,
        client.get(server.make_url(path), headers=headers) as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"bearer  {TOKEN} "}, 200),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer \u00e4\u00f6"}, 401),
    ],
)
def test_a_token_opens_the_api(headers: dict[str, str], status: int) -> None:
    answered, told = asyncio.run(_answers(["another-token-of-the-box", TOKEN], headers))
    assert answered == status
    assert ("api.tokens" in told.get("error", "")) == (status == 401)


def test_without_tokens_the_api_is_off() -> None:
    status, told = asyncio.run(_answers([], {"Authorization": "Bearer "}))
    assert (status, told["error"]) == (401, "the API is off: list a token under api.tokens")


def test_health_needs_no_token_and_what_is_not_there_tells_nothing() -> None:
    assert asyncio.run(_answers([TOKEN], {}, "/healthz"))[0] == 200
    assert asyncio.run(_answers([TOKEN], {}, "/api/v1/nothing"))[0] == 401


def test_tokens_are_secrets_and_not_short() -> None:
    settings = load_settings(None, [f"api.tokens={TOKEN}"])
    assert [token.get_secret_value() for token in settings.api.tokens] == [TOKEN]
    assert TOKEN not in str(settings)
    with pytest.raises(ConfigError, match="shorter than 16 characters"):
        load_settings(None, ["api.tokens=[abc]"])
