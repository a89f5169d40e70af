"""Every list that the API shows has an end: so many bytes at most, and the rest on the next page."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.api.framework.paging import MAX_ANSWER
from gateway.model.permissions import ALL
from gateway.model.records import MAX_ROLES
from tests.support.api import BASE, Stage, api_stage
from tests.support.memory import seated

STREAMS = 1200
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """With many streams in a call, so many as none has, and some in another one."""
    async with api_stage(tmp_path_factory.mktemp("store")) as stage:
        for name in ("full", "other"):
            await stage.ok("POST", f"/call/livestream/{name}", {"data": {"created_by_id": "john"}})
        for number in range(STREAMS):
            seated(stage.registry, stage.rights, "livestream:full", f"user-{number:04}")
        seated(stage.registry, stage.rights, "livestream:other", "zoe")
        yield stage


async def pages(api: Stage, path: str, field: str) -> list[Any]:
    """The items of each page, of which none is over the bound."""
    found, cursor = list[Any](), ""
    while True:
        headers = {"Authorization": api.token()}
        async with api.client.get(f"{BASE}{path}{cursor}", headers=headers) as response:
            text = await response.text()
        assert response.status == 200, text
        assert len(text) < 1.1 * MAX_ANSWER
        answer = json.loads(text)
        found.append(answer[field])
        if answer["next"] is None:
            return found
        cursor = f"?next={answer['next']}"


@pytest.mark.parametrize(("path", "number"), [("/streams", STREAMS + 1), ("/call/livestream/full/streams", STREAMS)])
async def test_streams_are_shown_in_pages_each_once(api: Stage, path: str, number: int) -> None:
    shown = await pages(api, path, "streams")
    assert len(shown) > 1
    users = [each["user"] for page in shown for each in page]
    assert len(users) == len(set(users)) == number


async def test_who_goes_meanwhile_hides_nobody_else(api: Stage) -> None:
    first = await api.ok("GET", "/streams")
    last = first["streams"][-1]["user"]
    seat = api.registry.seats.pop(("livestream:full", last))
    async with api.client.get(f"{BASE}/streams?next={first['next']}", headers={"Authorization": api.token()}) as response:
        behind = (await response.json())["streams"]
    api.registry.seats["livestream:full", last] = seat
    assert behind[0]["user"] == f"user-{int(last.partition('-')[2]) + 1:04}"


async def test_call_types_with_all_that_they_may_have_are_shown_in_pages(api: Stage) -> None:
    grants = {f"role-{number:02}": sorted(ALL) for number in range(32)}
    for number in range(90):
        await api.ok("POST", "/calltypes", {"name": f"type-{number:02}", "grants": grants})
    shown = await pages(api, "/calltypes", "call_types")
    assert len(shown) > 1
    assert {f"type-{number:02}" for number in range(90)} < {name for page in shown for name in page}


async def test_a_call_type_does_not_gather_roles_without_end(api: Stage) -> None:
    await api.ok("POST", "/calltypes", {"name": "gathering", "grants": {"first": []}})
    for begin in range(0, MAX_ROLES, 32):
        grants: Any = {f"role-{number}": ["read-call"] for number in range(begin, begin + 32)}
        answered = await api.ask("PUT", "/calltypes/gathering", {"grants": grants})
    assert answered.status == 400
    assert str(MAX_ROLES) in answered.body["message"]


@pytest.mark.parametrize("cursor", ["", "!", "A", "_w", "x" * 5000, "Zg==", "Zg%0A", "é"])
@pytest.mark.parametrize("path", ["/streams", "/calltypes"])
async def test_a_cursor_that_is_none_is_refused(api: Stage, path: str, cursor: str) -> None:
    async with api.client.get(f"{BASE}{path}", params={"next": cursor}, headers={"Authorization": api.token()}) as response:
        assert response.status == 400
