"""`/api/streams`: what it shows to whom is bounded, and what it costs, however many streams there are and however often it is asked for."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.framework.middleware import errors
from gateway.api.framework.paging import MAX_ANSWER
from gateway.api.framework.quotas import Quotas
from gateway.api.status import Streams
from gateway.config.quotas import QuotasConfig
from tests.support.api import Stage, api_stage
from tests.support.memory import seated

DEMO, OTHER = "livestream:demo", "livestream:other"
STREAMS = 1000


@dataclass
class Shown:
    stage: Stage
    client: TestClient[Any, Any]

    async def ask(self, query: Mapping[str, str] = MappingProxyType({}), status: int = 200) -> Any:
        async with self.client.get("/api/streams", params=query) as response:
            text = await response.text()
        assert response.status == status, text
        assert len(text) < 1.1 * MAX_ANSWER
        return json.loads(text)


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    async with api_stage(tmp_path) as stage:
        anybody = {"anonymous": ["read-call", "join-call", "list-streams"]}
        await stage.ok("PUT", "/calltypes/livestream", {"grants": anybody})
        for cid in (DEMO, OTHER):
            path = f"/call/{cid.replace(':', '/')}"
            await stage.ok("POST", path, {"data": {"created_by_id": "john"}})
            await stage.ok("POST", f"{path}/go_live")
        streams = Streams(stage.registry, bytes, stage.store_access.authorizer, Quotas(QuotasConfig()), partial(next, count()))
        application = web.Application(middlewares=[errors])
        application.add_routes(streams.routes())
        async with TestClient(TestServer(application)) as client:
            yield Shown(stage, client)


def fill(shown: Shown) -> None:
    for number in range(STREAMS):
        seated(shown.stage.registry, shown.stage.rights, DEMO, f"user-{number:04}")


async def test_what_does_not_fit_is_on_the_next_page(shown: Shown) -> None:
    fill(shown)
    users, cursor = list[str](), dict[str, str]()
    while cursor or not users:
        page = await shown.ask(cursor)
        users += [each["user"] for each in page["streams"]]
        cursor = {"next": page["next"]} if page["next"] else {}
    assert users == [f"user-{number:04}" for number in range(STREAMS)]
    assert "begin without one" in (await shown.ask({"next": "!"}, 400))["detail"]


async def test_a_call_is_asked_for_by_its_name(shown: Shown) -> None:
    fill(shown)
    seated(shown.stage.registry, shown.stage.rights, OTHER, "zoe")
    assert [each["user"] for each in (await shown.ask({"call": OTHER}))["streams"]] == ["zoe"]
    assert (await shown.ask({"call": "livestream:none"}))["streams"] == []


async def test_making_it_takes_a_twentieth_of_the_time_however_often_it_is_asked_for(shown: Shown) -> None:
    """The clock goes on by one with each look at it: making it takes that long, and so does each request for what is still fresh."""
    seen = list[int]()
    for number in range(210):
        seated(shown.stage.registry, shown.stage.rights, DEMO, f"user-{number:04}")
        seen.append(len((await shown.ask())["streams"]))
    assert seen == sorted(seen)
    assert sorted(set(seen)) == list(range(1, 211, 20))


async def test_pages_that_are_asked_for_in_a_loop_are_refused(shown: Shown) -> None:
    fill(shown)
    cursor = (await shown.ask())["next"]
    statuses = list[int]()
    while 429 not in statuses and len(statuses) < 500:
        async with shown.client.get("/api/streams", params={"next": cursor}) as response:
            statuses.append(response.status)
    assert statuses[-1] == 429
