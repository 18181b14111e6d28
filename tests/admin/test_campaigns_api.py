"""Campaigns over HTTP: every route, with the processes that do the long work."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from appliance.admin import campaigns_api
from appliance.admin.auth import Tokens, protect
from appliance.admin.campaigns_api import CampaignsApi
from appliance.campaigns import jobs
from appliance.config import Settings
from appliance.dialplan.schema import Line

LINE = Line.model_validate({"name": "recall", "greeting": "Hello ${lead.first_name}."})
TOKEN = "correct-horse-battery-staple"
RECALL = {
    "name": "recall",
    "line": "recall",
    "trunk": "carrier",
    "caller_ids": ["+12025550100"],
    "owner": "Acme",
    "region": "US",
    "consent": {"required": False},
    "windows": {"default": {"days": "mon-sun", "hours": "00:00-24:00"}},
}
LEADS = "Phone,name\n(212) 555-1234,Zoë\n12,Max\n2125551235,Eve\n"


class Client:
    """Asks one server, with the token."""

    def __init__(self, server: TestServer, session: ClientSession) -> None:
        self._server = server
        self._session = session

    async def __call__(self, method: str, path: str, body: Any = None, **params: str) -> tuple[int, Any]:
        data = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
        url = self._server.make_url(f"/api/v1/{path}")
        async with self._session.request(method, url, data=data, params=params) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long work is done here, without a process of its own: that takes a second to start."""

    async def here(settings: Settings, job: str, arguments: Mapping[str, Any], *, timeout_s: float) -> Any:
        told = {"settings": settings.dump_json(), "job": job, "arguments": dict(arguments)}
        return jobs.result_of(await jobs.done(told))

    monkeypatch.setattr(campaigns_api, "in_a_process", here)


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Client]:
    trunk = {"kind": "sip", "proxy": "sip:127.0.0.1:5099", "allow_prefixes": ["+1"], "caller_ids": "+12025550100"}
    settings = Settings.model_validate({"state_dir": str(tmp_path), "trunks": {"carrier": trunk}})
    api = CampaignsApi(settings, lambda: [LINE])
    app = web.Application()
    protect(app, Tokens([TOKEN]))
    app.router.add_routes(api.routes())
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with TestServer(app) as server, ClientSession(headers=headers) as session:
        yield Client(server, session)
    await api.close()


async def test_a_campaign_from_its_definition_to_its_results(ask: Client, at_once: None) -> None:
    assert (await ask("POST", "campaigns", RECALL))[0] == 201
    assert (await ask("POST", "campaigns", RECALL))[0] == 409
    status, found = await ask("POST", "campaigns/recall/leads", LEADS, dry_run="1")
    assert (status, found["imported"], found["dry_run"]) == (200, 2, True)
    assert found["unmapped"] == ["first_name"]
    assert (await ask("GET", "campaigns/recall"))[1]["leads"] == 0

    status, found = await ask("POST", "campaigns/recall/leads", LEADS)
    assert (found["imported"], found["errors_by_kind"]) == (2, {"number": 1})
    status, errors = await ask("GET", found["errors_url"].removeprefix("/api/v1/"))
    assert (status, [row["Phone"] for row in csv.DictReader(errors.lstrip("\ufeff").splitlines())]) == (200, ["12"])
    assert (await ask("GET", "campaigns/recall/imports/0123456789abcdef"))[0] == 404

    assert (await ask("GET", "campaigns/recall/check"))[1]["now"] == 2
    assert (await ask("GET", "campaigns/recall/check", limit="1"))[1]["leads"] == 1
    assert (await ask("POST", "campaigns/recall/simulate", {"runs": 1}))[1]["leads"] == 2
    assert (await ask("PATCH", "campaigns/recall", {"pacing": {"max_calls": 20}}))[1]["revision"] == 2
    assert (await ask("GET", "campaigns/recall"))[1]["definition"]["pacing"]["max_calls"] == 20

    for verb, state in (("start", "running"), ("pause", "paused"), ("resume", "running"), ("drain", "draining")):
        status, found = await ask("POST", f"campaigns/recall/{verb}", {"reason": "lunch"})
        assert (status, found["state"]) == (200, state)
    assert (await ask("POST", "campaigns/recall/stop"))[1]["state"] == "stopped"
    assert [one["name"] for one in (await ask("GET", "campaigns"))[1]["campaigns"]] == ["recall"]

    status, text = await ask("GET", "campaigns/recall/export", format="jsonl")
    assert [json.loads(line)["variables"]["name"] for line in text.splitlines()] == ["Zoë", "Eve"]
    assert (await ask("GET", "campaigns/recall/export", what="attempts"))[1].startswith("call_id,")
    assert (await ask("DELETE", "campaigns/recall"))[1] == {"name": "recall", "leads": 2}
    assert (await ask("GET", "campaigns/recall"))[0] == 404


async def test_the_do_not_call_list(ask: Client, at_once: None) -> None:
    await ask("POST", "campaigns", RECALL)
    assert (await ask("POST", "do-not-call", {"numbers": ["+1 212 555 1234"]}))[1] == {"added": 1}
    assert (await ask("POST", "do-not-call", {"numbers": ["212 555 1235"]}, campaign="recall"))[1] == {"added": 1}
    assert (await ask("POST", "do-not-call/import", "2125551236\n", region="US"))[1]["added"] == 1
    _, text = await ask("GET", "do-not-call")
    assert [json.loads(line)["number"] for line in text.splitlines()] == ["+12125551234", "+12125551236"]
    assert (await ask("POST", "campaigns/recall/leads", LEADS))[1]["errors_by_kind"] == {"do_not_call": 2, "number": 1}
    assert (await ask("DELETE", "do-not-call/+12125551234"))[1] == {"removed": 1}
    assert (await ask("DELETE", "do-not-call/+12125551234"))[0] == 404
    assert (await ask("POST", "do-not-call", {"numbers": ["555"]}))[0] == 400
    assert (await ask("POST", "do-not-call", {"numbers": []}))[0] == 400


async def test_what_is_wrong_is_told(ask: Client, at_once: None) -> None:
    status, found = await ask("POST", "campaigns", RECALL | {"line": "recal", "region": "USA"})
    assert status == 400
    assert any("'USA' is not a country" in mistake for mistake in found["mistakes"])
    assert (await ask("POST", "campaigns", RECALL | {"line": "recal"}))[0] == 400
    assert (await ask("POST", "campaigns", b"\xff"))[0] == 400
    assert (await ask("POST", "campaigns", RECALL | {"dnc": {"lists": ["/etc/passwd"]}}))[0] == 409
    await ask("POST", "campaigns", RECALL)
    assert (await ask("PATCH", "campaigns/recall", {"pacing": {"max_calls": 0}}))[0] == 400
    assert (await ask("PATCH", "campaigns/recall", "[1]"))[0] == 400
    assert (await ask("POST", "campaigns/recall/start"))[0] == 409, "it has no leads"
    assert (await ask("POST", "campaigns/recall/pause"))[0] == 409, "it does not run"
    assert (await ask("POST", "campaigns/nobody/start"))[0] == 404
    status, found = await ask("POST", "campaigns/recall/leads", 'number,name\n+12125551234,"x')
    assert (status, "breaks off" in found["error"]) == (400, True)
    assert (await ask("POST", "campaigns/recall/leads", LEADS, mapp="x"))[0] == 400
    assert (await ask("POST", "campaigns/recall/leads", LEADS, format="xml"))[0] == 400
    assert (await ask("POST", "campaigns/recall/leads", LEADS, map="number=Fone"))[0] == 400
    assert (await ask("GET", "campaigns/recall/export", format="xml"))[0] == 400
    assert (await ask("GET", "campaigns/recall/check", limit="-1"))[0] == 400
    assert (await ask("POST", "campaigns/recall/simulate", {"mixx": 1}))[0] == 400
    assert (await ask("POST", "campaigns/recall/simulate", {"start": "noon"}))[0] == 400
    assert (await ask("POST", "campaigns/recall/simulate", {"mix": {"outcomes": {"gone": {"share": 1}}}}))[0] == 400


async def test_long_work_is_done_in_a_process_of_its_own(ask: Client) -> None:
    await ask("POST", "campaigns", RECALL)
    assert (await ask("POST", "campaigns/recall/leads", LEADS))[1]["imported"] == 2
    status, found = await ask("POST", "campaigns/recall/leads", 'number,name\n+12125551234,"x')
    assert (status, "breaks off" in found["error"]) == (400, True)


async def test_uploads_are_bounded(ask: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await ask("POST", "campaigns", RECALL)
    monkeypatch.setattr(campaigns_api, "MAX_UPLOAD", 1000)
    assert (await ask("POST", "campaigns/recall/leads", "x" * 1001))[0] == 413
    monkeypatch.setattr(campaigns_api, "MAX_BODY", 1000)
    assert (await ask("POST", "campaigns", "x" * 1001))[0] == 413


async def test_only_so_much_is_done_at_a_time(ask: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await ask("POST", "campaigns", RECALL)
    monkeypatch.setattr(campaigns_api, "_JOBS", 0)
    assert (await ask("GET", "campaigns/recall/check"))[0] == 429


async def test_a_job_that_takes_too_long_is_ended(ask: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await ask("POST", "campaigns", RECALL)
    monkeypatch.setattr(campaigns_api, "_JOB_S", 0.01)
    status, found = await ask("GET", "campaigns/recall/check")
    assert (status, "was ended" in found["error"]) == (409, True)
