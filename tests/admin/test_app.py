from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from appliance.admin.app import make_app
from appliance.admin.metrics import Metrics
from appliance.admin.status import BoxStatus
from appliance.ipc.messages import ProcessState
from appliance.signalling.trunks import TrunkRule, TrunkTable


@pytest.fixture
def box() -> BoxStatus:
    return BoxStatus(["media", "asr-0"], Metrics())


@pytest.fixture
async def client(box: BoxStatus) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(make_app(box))) as client:
        yield client


async def test_health_is_there_before_anything_is_ready(client: TestClient) -> None:
    response = await client.get("/healthz")
    assert response.status == 200
    assert (await response.json())["status"] == "alive"


async def test_readiness_names_what_is_missing(client: TestClient, box: BoxStatus) -> None:
    box.process_state(ProcessState("media", "ready", 1, 0))
    response = await client.get("/readyz")
    assert response.status == 503
    assert await response.json() == {"ready": False, "not_ready": {"asr-0": "starting"}}


async def test_ready_when_every_process_is(client: TestClient, box: BoxStatus) -> None:
    for name in ("media", "asr-0"):
        box.process_state(ProcessState(name, "ready", 1, 0))
    response = await client.get("/readyz")
    assert response.status == 200
    assert await response.json() == {"ready": True, "not_ready": {}}
    box.process_state(ProcessState("asr-0", "restarting", 1, 1))
    assert (await client.get("/readyz")).status == 503


async def test_what_somebody_should_see_to_is_told_by_a_box_that_is_ready(client: TestClient, box: BoxStatus) -> None:
    for name in ("media", "asr-0"):
        box.process_state(ProcessState(name, "ready", 1, 0))
    wrong = ["the files were not in order"]
    box.add_warning("dialplans", lambda: "; ".join(wrong))
    response = await client.get("/readyz")
    assert (response.status, (await response.json())["warnings"]) == (200, {"dialplans": wrong[0]})
    wrong.clear()
    assert "warnings" not in await (await client.get("/readyz")).json()


async def test_a_draining_box_is_not_ready(client: TestClient, box: BoxStatus) -> None:
    for name in ("media", "asr-0"):
        box.process_state(ProcessState(name, "ready", 1, 0))
    box.draining = True
    response = await client.get("/readyz")
    assert (response.status, list((await response.json())["not_ready"])) == (503, ["drain"])


async def test_a_check_of_our_own_can_stand_in_the_way(client: TestClient, box: BoxStatus) -> None:
    for name in ("media", "asr-0"):
        box.process_state(ProcessState(name, "ready", 1, 0))
    reason = ""
    box.add_check("record", lambda: reason)
    assert (await client.get("/readyz")).status == 200
    reason = "database or disk is full"
    assert (await (await client.get("/readyz")).json())["not_ready"] == {"record": "database or disk is full"}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("*/*", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_speak_both_dialects(client: TestClient, accept: str, kind: str) -> None:
    response = await client.get("/metrics", headers={"Accept": accept})
    assert response.status == 200
    assert response.headers["Content-Type"].startswith(kind)
    assert "appliance_calls_active 0.0" in await response.text()


async def test_how_the_trunks_are(client: TestClient, box: BoxStatus) -> None:
    assert await (await client.get("/trunks")).json() == {}
    box.trunks = TrunkTable([TrunkRule("carrier", register=True)])
    state = box.trunks.state("carrier")
    state.registration = "refused: 403 Forbidden"
    box.trunks.take("carrier", 0.0)
    shown = (await (await client.get("/trunks")).json())["carrier"]
    assert (shown["registered"], shown["registration"], shown["reachable"]) == (False, "refused: 403 Forbidden", None)
    assert (shown["calls"], shown["events"]["calls_in"]) == (1, 1)
