"""RFC 9725's resource behaviour, over a real HTTP server, with sessions that only remember what they were told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from protocols.errors import ProtocolError, Reason, Rejected
from protocols.webrtc.http import FRAGMENT, SDP, HttpSession, Resources, SubResource, bearer, read_body
from protocols.webrtc.sdp import description as sdp

NEW_ICE = "a=ice-ufrag:{}\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"


class Remembering:
    """A session without media."""

    def __init__(self) -> None:
        self.answer = "v=0\r\n"
        self.etag = "first"
        self.remote_ufrag = "abcd"
        self.why = ""
        self.ended = asyncio.Event()

    def restart(self, fragment: sdp.Fragment) -> str:
        assert fragment.ice is not None
        self.remote_ufrag, self.etag = fragment.ice.ufrag, "second"
        return "a=ice-lite\r\n"

    def close(self, why: str) -> None:
        self.why = self.why or why
        self.ended.set()

    async def run(self) -> None:
        await self.ended.wait()
        if self.why == "defect":
            raise RuntimeError


class Endpoint:
    def __init__(self, origins: tuple[str, ...] = ("*",)) -> None:
        self.session = Remembering()
        self.refusal: Exception | None = None
        self.offer = b""
        self.token: str | None = None
        self.resources = Resources(
            "/whip/{call}", self.create, origins=origins, extra=[SubResource("more", 'rel="urn:more"', "GET", self.more)]
        )

    async def create(self, request: web.Request) -> HttpSession:
        self.offer, self.token = await read_body(request), bearer(request)
        if self.refusal is not None:
            raise self.refusal
        self.session = Remembering()
        return self.session

    async def more(self, request: web.Request, session: HttpSession) -> web.StreamResponse:
        return web.Response(text=session.etag)


@asynccontextmanager
async def serving(endpoint: Endpoint) -> AsyncIterator[TestClient[Any, Any]]:
    app = web.Application()
    app.add_routes(endpoint.resources.routes())
    async with TestClient(TestServer(app)) as client:
        yield client
        await endpoint.resources.aclose("over")


async def post(client: TestClient[Any, Any], body: bytes = b"v=0\r\n", **headers: str) -> aiohttp.ClientResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/whip/livestream:demo", data=body, headers={"Content-Type": SDP} | named)


async def patch(
    client: TestClient[Any, Any], location: str, body: str | bytes, match: str | None, kind: str = FRAGMENT
) -> aiohttp.ClientResponse:
    headers = {"Content-Type": kind} | ({} if match is None else {"If-Match": match})
    return await client.patch(location, data=body, headers=headers)


async def assert_problem(response: aiohttp.ClientResponse, status: int) -> str:
    assert response.status == status
    assert response.content_type == "application/problem+json"
    assert "Transfer-Encoding" not in response.headers
    told = json.loads(await response.text())
    assert told["status"] == status
    assert told["title"]
    detail: str = told["detail"]
    return detail


async def test_a_post_makes_a_resource_with_an_address_that_holds_no_secret() -> None:
    endpoint = Endpoint()
    async with serving(endpoint) as client:
        response = await post(client, b"offer", Authorization="Bearer s3cret")
        assert response.status == 201
        assert (endpoint.offer, endpoint.token) == (b"offer", "s3cret")
        assert (response.content_type, await response.text()) == (SDP, "v=0\r\n")
        assert response.headers["Content-Length"] == "5"
        assert "Transfer-Encoding" not in response.headers
        assert response.headers["ETag"] == '"first"'
        location = response.headers["Location"]
        assert location.startswith("/whip/livestream:demo/")
        assert len(location.rpartition("/")[2]) == 32
        assert "s3cret" not in str(response.headers)
        assert response.headers["Link"] == f'<{location}/more>; rel="urn:more"'
        assert await (await client.get(location + "/more")).text() == "first"
        assert (await post(client)).headers["Location"] != location


async def test_what_is_not_an_offer_is_told_so() -> None:
    async with serving(Endpoint()) as client:
        response = await client.post("/whip/x", data=b"{}", headers={"Content-Type": "application/json"})
        await assert_problem(response, 415)
        assert response.headers["Accept-Post"] == SDP
        await assert_problem(await post(client, Accept="text/html, image/*;q=0.5"), 406)
        for accept in ("application/sdp", "text/html, */*;q=0.1", "application/*"):
            assert (await post(client, Accept=accept)).status == 201


async def test_a_body_is_bounded_before_it_is_read_and_while_it_is() -> None:
    endpoint = Endpoint()
    async with serving(endpoint) as client:
        await assert_problem(await post(client, bytes(sdp.MAX_BYTES + 1)), 413)

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(4096)

        with_chunks = {"Content-Type": SDP}
        try:
            response = await client.post("/whip/x", data=endless(), headers=with_chunks)
        except aiohttp.ClientConnectionError:
            pass  # the answer may be lost behind what the client still writes
        else:
            await assert_problem(response, 413)
        assert endpoint.offer == b""
        assert (await post(client, bytes(sdp.MAX_BYTES))).status == 201


@pytest.mark.parametrize(
    ("refusal", "status", "header"),
    [
        (Rejected(Reason.UNAUTHORIZED, "show a token"), 401, ("WWW-Authenticate", "Bearer")),
        (Rejected(Reason.NOT_FOUND, "no such call"), 404, None),
        (Rejected(Reason.OVERLOADED, "full"), 503, ("Retry-After", "2")),
        (Rejected(Reason.TOO_MANY_REQUESTS, "too many"), 429, ("Retry-After", "2")),
        (ProtocolError("no m-line"), 400, None),
    ],
)
async def test_refusals_are_problems_in_words(refusal: Exception, status: int, header: tuple[str, str] | None) -> None:
    endpoint = Endpoint()
    endpoint.refusal = refusal
    async with serving(endpoint) as client:
        response = await post(client)
        detail = await assert_problem(response, status)
        assert detail == (refusal.detail if isinstance(refusal, Rejected) else str(refusal))
        if header is not None:
            assert response.headers[header[0]] == header[1]
        assert "Location" not in response.headers
        assert not endpoint.resources.sessions


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_the_endpoint_takes_only_post(method: str) -> None:
    async with serving(Endpoint()) as client:
        response = await client.request(method, "/whip/x")
        assert response.status == 405
        assert response.headers["Allow"] == "POST, OPTIONS"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_a_resource_takes_only_patch_and_delete(method: str) -> None:
    async with serving(Endpoint()) as client:
        location = (await post(client)).headers["Location"]
        response = await client.request(method, location)
        await assert_problem(response, 405)
        assert response.headers["Allow"] == "PATCH, DELETE, OPTIONS"


async def test_delete_is_200_and_may_be_repeated() -> None:
    endpoint = Endpoint()
    async with serving(endpoint) as client:
        location = (await post(client)).headers["Location"]
        for _ in range(2):
            response = await client.delete(location)
            assert (response.status, response.headers["Content-Length"]) == (200, "0")
        assert endpoint.session.why == "deleted by the peer"
        await assert_problem(await patch(client, location, "a=end-of-candidates\r\n", "*"), 404)
        await assert_problem(await client.delete("/whip/livestream:demo/never"), 404)


async def test_what_was_deleted_is_forgotten_after_a_while() -> None:
    endpoint = Endpoint()
    async with serving(endpoint) as client:
        first = (await post(client)).headers["Location"]
        await client.delete(first)
        for number in range(2000):
            endpoint.resources._gone(str(number))
        await assert_problem(await client.delete(first), 404)
        assert len(endpoint.resources._deleted) <= 1024


async def test_candidates_are_acknowledged() -> None:
    async with serving(Endpoint()) as client:
        location = (await post(client)).headers["Location"]
        response = await patch(
            client, location, NEW_ICE.format("abcd") + "a=candidate:1 1 UDP 1 192.0.2.2 9 typ host\r\n", '"first"'
        )
        assert (response.status, await response.read()) == (204, b"")
        assert (await patch(client, location, "a=end-of-candidates\r\n", '"other", "first"')).status == 204
        assert (await patch(client, location, "a=end-of-candidates\r\n", "*")).status == 204


async def test_preconditions() -> None:
    async with serving(Endpoint()) as client:
        location = (await post(client)).headers["Location"]
        await assert_problem(await patch(client, location, NEW_ICE.format("abcd"), None), 428)
        for mismatch in ('"second"', "first", 'W/"first"', '""'):
            await assert_problem(await patch(client, location, NEW_ICE.format("abcd"), mismatch), 412)
        response = await patch(client, location, NEW_ICE.format("abcd"), '"first"', kind=SDP)
        await assert_problem(response, 415)
        assert response.headers["Accept-Patch"] == FRAGMENT


@pytest.mark.parametrize("match", ["*", '"*"', '"first"'])
async def test_a_new_ufrag_is_an_ice_restart(match: str) -> None:
    endpoint = Endpoint()
    async with serving(endpoint) as client:
        location = (await post(client)).headers["Location"]
        response = await patch(client, location, NEW_ICE.format("wxyz"), match)
        assert (response.status, response.content_type, await response.text()) == (200, FRAGMENT, "a=ice-lite\r\n")
        assert response.headers["ETag"] == '"second"'
        await assert_problem(await patch(client, location, NEW_ICE.format("wxyz"), '"first"'), 412)
        assert (await patch(client, location, NEW_ICE.format("wxyz"), '"second"')).status == 204


@pytest.mark.parametrize(
    "body", [b"a=ice-ufrag:wxyz\r\n", b"a=ice-ufrag:?\r\na=ice-pwd:x\r\n", b"\xff", b"a=candidate:x\r\n" * 200]
)
async def test_a_failed_restart_leaves_the_session(body: bytes) -> None:
    endpoint = Endpoint()
    async with serving(endpoint) as client:
        location = (await post(client)).headers["Location"]
        await assert_problem(await patch(client, location, body, "*"), 400)
        assert endpoint.session.etag == "first"
        assert not endpoint.session.ended.is_set()
        assert (await patch(client, location, NEW_ICE.format("abcd"), '"first"')).status == 204


@pytest.mark.parametrize("why", ["gone", "defect"])
async def test_a_session_that_has_ended_is_404_and_may_still_be_deleted(why: str, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint()
    async with serving(endpoint) as client:
        location = (await post(client)).headers["Location"]
        endpoint.session.close(why)
        async with asyncio.timeout(10):
            await asyncio.wait(endpoint.resources._tasks)
        await assert_problem(await patch(client, location, NEW_ICE.format("abcd"), "*"), 404)
        assert (await client.delete(location)).status == 200  # whoever hears the goodbye of DTLS deletes
        await assert_problem(await client.delete(location + "x"), 404)
        assert ("defect of ours" in caplog.text) == (why == "defect")


async def test_options_tell_what_is_taken_and_let_pages_of_any_origin_in() -> None:
    async with serving(Endpoint()) as client:
        plain = await client.options("/whip/x")
        assert (plain.status, plain.headers["Accept-Post"], plain.headers["Allow"]) == (204, SDP, "POST, OPTIONS")
        assert "Access-Control-Allow-Origin" not in plain.headers
        resource = await client.options("/whip/x/any")
        assert (resource.headers["Accept-Patch"], resource.headers["Allow"]) == (FRAGMENT, "PATCH, DELETE, OPTIONS")
        asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        preflight = await client.options("/whip/x", headers=asked)
        assert preflight.headers["Access-Control-Allow-Origin"] == "*"
        assert preflight.headers["Access-Control-Allow-Methods"] == "POST, OPTIONS"
        assert preflight.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, If-Match"
        response = await post(client, Origin="https://page.example")
        assert response.headers["Access-Control-Expose-Headers"] == "Location, Link, ETag"
        refused = await client.put("/whip/x", headers={"Origin": "https://page.example"})
        assert refused.headers["Access-Control-Allow-Origin"] == "*"  # so that the page can read why


async def test_origins_may_be_listed() -> None:
    async with serving(Endpoint(origins=("https://ours.example",))) as client:
        ours = await post(client, Origin="https://ours.example")
        assert (ours.headers["Access-Control-Allow-Origin"], ours.headers["Vary"]) == ("https://ours.example", "Origin")
        theirs = await post(client, Origin="https://theirs.example")
        assert "Access-Control-Allow-Origin" not in theirs.headers


async def test_closing_ends_every_session_and_takes_no_more() -> None:
    endpoint = Endpoint()
    async with serving(endpoint) as client:
        await post(client)
        session = endpoint.session
        await endpoint.resources.aclose("the gateway is shutting down")
        assert session.why == "the gateway is shutting down"
        assert not endpoint.resources.sessions
        response = await post(client)
        await assert_problem(response, 503)
        assert response.headers["Retry-After"] == "2"


class Slow(Endpoint):
    """What it makes takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.made = asyncio.Event(), asyncio.Event()

    async def create(self, request: web.Request) -> HttpSession:
        self.asked.set()
        await self.made.wait()
        return await super().create(request)


async def test_what_is_made_while_all_are_ended_is_ended_as_well() -> None:
    endpoint = Slow()
    async with serving(endpoint) as client, asyncio.TaskGroup() as group:
        posted = group.create_task(post(client))
        await endpoint.asked.wait()
        await endpoint.resources.aclose("the gateway is shutting down")
        endpoint.made.set()
        await assert_problem(await posted, 503)
        assert endpoint.session.ended.is_set()
        assert endpoint.session.why == "the gateway is shutting down"
