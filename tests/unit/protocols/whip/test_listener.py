"""WHIP as RFC 9725 has it: one test for each rule, named by its section; and what real clients need beside it (facts: clients §10)."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from protocols.errors import ProtocolError, Reason, Rejected
from protocols.publisher import Applicant
from protocols.webrtc.http import FRAGMENT, SDP
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.transport.ice_servers import IceServer
from protocols.webrtc.transport.peer import Limits
from protocols.whip.limits import WhipLimits
from protocols.whip.publisher import WhipPublisher
from tests.peers.whip_stage import Stage, whip_stage
from tests.unit.protocols.webrtc import hostile
from tests.unit.protocols.webrtc.sdp.test_answer import DATA
from tests.unit.protocols.whip.publishers import publisher_of

KEY = "a-stream-key"
OFFER = (DATA / "obs-32.2.2-single.sdp").read_bytes()
NEW_ICE = "a=ice-ufrag:{}\r\na=ice-pwd:0123456789012345678901\r\n"


class Client:
    def __init__(self, stage: Stage, http: aiohttp.ClientSession) -> None:
        self.stage = stage
        self.http = http

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}, key: str | None = KEY
    ) -> tuple[int, Any, bytes]:
        bearer = {"Authorization": f"Bearer {key}"} if key else {}
        url = path if path.startswith("http") else self.stage.url(path)
        async with self.http.request(method, url, data=body or None, headers=bearer | dict(headers)) as response:
            return response.status, response.headers, await response.read()

    async def post(self, body: bytes = OFFER, path: str = "/whip/livestream:demo", **changes: Any) -> tuple[int, Any, bytes]:
        return await self.request("POST", path, body, {"Content-Type": SDP}, **changes)

    async def patch(self, path: str, body: str, match: str | None, **changes: Any) -> tuple[int, Any, bytes]:
        headers = {"Content-Type": FRAGMENT} | ({"If-Match": match} if match else {})
        return await self.request("PATCH", path, body.encode(), headers, **changes)

    async def made(self) -> tuple[str, str, str]:
        """(location, etag, answer) of a new session."""
        status, headers, answer = await self.post()
        assert status == 201
        return headers["Location"], headers["ETag"], answer.decode()


class serving:  # reads as a phrase
    """`async with serving() as client`: an endpoint with a client of it."""

    def __init__(self, **options: Any) -> None:
        self._stage = whip_stage(**options)

    async def __aenter__(self) -> Client:
        stage = await self._stage.__aenter__()
        self._http = aiohttp.ClientSession()
        return Client(stage, self._http)

    async def __aexit__(self, *exc: Any) -> None:
        await self._http.close()
        await self._stage.__aexit__(*exc)


def problem(answer: tuple[int, Any, bytes], status: int) -> str:
    assert answer[0] == status
    assert answer[1]["Content-Type"].startswith("application/problem+json")
    told = json.loads(answer[2])
    assert told["status"] == status
    return str(told["detail"])


async def test_4_2_a_post_of_an_offer_is_answered_201_with_answer_location_and_etag() -> None:
    async with serving() as client:
        status, headers, answer = await client.post()
        assert (status, headers["Content-Type"].partition(";")[0]) == (201, SDP)
        assert headers["Content-Length"] == str(len(answer))
        assert headers["Location"].startswith("/whip/livestream:demo/")
        assert headers["ETag"][0] == headers["ETag"][-1] == '"'
        assert KEY not in str(headers) + answer.decode()
        assert b"a=recvonly\r\n" in answer
        assert b"a=setup:passive\r\n" in answer
        publisher = (await client.stage.publisher()).publisher
        assert (publisher.credential.key, dict(publisher.params)) == (KEY, {"call": "livestream:demo"})
        assert publisher.protocol == "whip"
        assert publisher.remote.startswith("127.0.0.1:")
        assert "aiohttp" in publisher.software
        assert KEY not in repr(publisher.credential)


async def test_4_2_the_call_may_be_left_to_the_key() -> None:
    async with serving() as client:
        status, headers, _ = await client.post(path="/whip")
        assert status == 201
        assert (await client.stage.publisher()).publisher.params == {}
        assert headers["Location"].startswith("/whip/-/")
        assert (await client.request("DELETE", headers["Location"]))[0] == 200


async def test_4_2_another_content_type_is_415_and_another_accept_406() -> None:
    async with serving() as client:
        problem(await client.request("POST", "/whip/x", OFFER, {"Content-Type": "text/plain"}), 415)
        problem(await client.request("POST", "/whip/x", OFFER, {"Content-Type": SDP, "Accept": "text/html"}), 406)


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"v=0\r\n", OFFER[:200], b"\xff" * 100, OFFER.replace(b"a=fingerprint", b"a=fingerprin")]
)
async def test_4_2_a_malformed_offer_is_400_and_makes_nothing(body: bytes) -> None:
    async with serving() as client:
        problem(await client.post(body), 400)
        assert (client.stage.mux.peers, client.stage.received) == (0, [])
        assert client.stage.listener.refusals() == {"bad_request": 1}


async def test_4_2_a_large_offer_is_413() -> None:
    async with serving() as client:
        problem(await client.post(OFFER + b"a=x\r\n" * 50_000), 413)
        assert (await client.post(OFFER + b"a=x:" + b"y" * (sdp.MAX_BYTES - len(OFFER) - 4)))[0] == 201


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_4_2_other_methods_are_405_at_the_endpoint_and_at_the_session(method: str) -> None:
    async with serving() as client:
        location, _, _ = await client.made()
        for path, allow in (("/whip/x", "POST, OPTIONS"), ("/whip", "POST, OPTIONS"), (location, "PATCH, DELETE, OPTIONS")):
            status, headers, _ = await client.request(method, path)
            assert (status, headers["Allow"]) == (405, allow)


async def test_4_2_options_tell_what_is_taken_without_a_token() -> None:
    async with serving() as client:
        preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        status, headers, _ = await client.request("OPTIONS", "/whip/x", headers=preflight, key=None)
        assert (status, headers["Accept-Post"]) == (204, SDP)
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert "Authorization" in headers["Access-Control-Allow-Headers"]
        status, headers, _ = await client.request(
            "POST", "/whip/x", OFFER, {"Content-Type": SDP, "Origin": "https://page.example"}
        )
        assert status == 201
        assert headers["Access-Control-Expose-Headers"] == "Location, Link, ETag"


async def test_4_2_delete_ends_the_session_and_may_be_repeated() -> None:
    async with serving() as client:
        location, _, _ = await client.made()
        received = await client.stage.publisher()
        for _ in range(2):
            assert (await client.request("DELETE", location))[0] == 200  # OBS takes 204 for a failure
        async with asyncio.timeout(10):
            await received.ended.wait()
        assert received.error is None
        problem(await client.patch(location, NEW_ICE.format("wxyz"), "*"), 404)
        assert client.stage.mux.peers == 0


async def test_4_3_1_candidates_by_patch_are_204() -> None:
    async with serving() as client:
        location, etag, _ = await client.made()
        ufrag = sdp.parse_offer(OFFER).ice.ufrag
        trickled = NEW_ICE.format(ufrag) + "m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 UDP 1 192.0.2.2 9 typ host\r\n"
        status, _, body = await client.patch(location, trickled, etag)
        assert (status, body) == (204, b"")


async def test_4_3_1_preconditions() -> None:
    async with serving() as client:
        location, etag, _ = await client.made()
        problem(await client.patch(location, NEW_ICE.format("wxyz"), None), 428)
        problem(await client.patch(location, NEW_ICE.format("wxyz"), '"other"'), 412)
        problem(await client.patch(location, NEW_ICE.format("wxyz"), etag.strip('"')), 412)
        problem(await client.request("PATCH", location, b"x", {"Content-Type": SDP, "If-Match": etag}), 415)


@pytest.mark.parametrize("match", ["*", '"*"'])
async def test_4_3_3_an_ice_restart_is_200_with_a_new_etag_and_our_new_end(match: str) -> None:
    async with serving() as client:
        location, etag, answer = await client.made()
        status, headers, body = await client.patch(location, NEW_ICE.format("wxyz"), match)
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, FRAGMENT)
        fragment = sdp.parse_fragment(body)
        assert fragment.ice is not None
        assert headers["ETag"] == f'"{fragment.ice.ufrag}"' != etag
        assert fragment.ice.ufrag not in answer
        problem(await client.patch(location, NEW_ICE.format("wxyz"), etag), 412)


async def test_4_3_3_a_failed_restart_leaves_the_session() -> None:
    async with serving() as client:
        location, etag, _ = await client.made()
        problem(await client.patch(location, "a=ice-ufrag:?\r\n", "*"), 400)
        received = await client.stage.publisher()
        assert not received.ended.is_set()
        assert (await client.patch(location, "a=end-of-candidates\r\n", etag))[0] == 204


async def test_4_4_1_everything_is_in_one_bundle() -> None:
    async with serving() as client:
        _, _, answer = await client.made()
        assert "a=group:BUNDLE 0 1\r\n" in answer
        problem(await client.post(OFFER.replace(b"a=group:BUNDLE 0 1\r\n", b"")), 422)
        problem(await client.post(OFFER.replace(b"a=rtcp-mux\r\n", b"", 1)), 422)


@pytest.mark.parametrize(
    ("former", "latter", "named"),
    [
        (b"H264/90000", b"MP4V-ES/90000", "video"),
        (b"opus/48000/2", b"PCMU/8000", "audio"),
        (b"packetization-mode=1", b"packetization-mode=2", "video"),
        (b"2399899118", b"2399899117", "the same a=ssrc:2399899117"),
        (b"BUNDLE 0 1", b"BUNDLE 1", "the audio"),
    ],
)
async def test_4_4_3_half_an_answer_is_none(former: bytes, latter: bytes, named: str) -> None:
    async with serving() as client:
        assert named in problem(await client.post(OFFER.replace(former, latter)), 422)
        assert client.stage.mux.peers == 0


async def test_4_4_3_lines_whose_packets_nothing_tells_apart_are_422() -> None:
    async with serving() as client:
        shared = OFFER.replace(b" 111", b" 96").replace(b":111", b":96")
        assert (await client.post(shared))[0] == 201  # by the SSRCs that it announces
        assert "share payload type 96" in problem(await client.post(shared.replace(b"a=ssrc:", b"a=x:")), 422)


async def test_4_4_3_an_offer_that_sends_nothing_is_422() -> None:
    async with serving() as client:
        problem(await client.post(OFFER.replace(b"a=sendonly", b"a=recvonly")), 422)


async def test_4_4_4_the_dtls_role_is_what_the_offer_leaves_us() -> None:
    async with serving() as client:
        for setup, ours in ((b"actpass", b"passive"), (b"active", b"passive"), (b"passive", b"active")):
            _, _, answer = await client.post(OFFER.replace(b"a=setup:actpass", b"a=setup:" + setup))
            assert b"a=setup:" + ours + b"\r\n" in answer


async def test_4_5_overload_is_503_with_retry_after() -> None:
    async with serving(limits=Limits(peers=1)) as client:
        await client.made()
        status, headers, body = await client.post()
        assert problem((status, headers, body), 503)
        assert int(headers["Retry-After"]) > 0


async def test_4_6_ice_servers_are_told_once_authorised() -> None:
    servers = (IceServer("stun:stun.example.org:3478"), IceServer("turn:turn.example.org?transport=udp", "shared secret"))
    async with serving(ice_servers=servers) as client:
        _, headers, _ = await client.post(key=None)
        assert "Link" not in headers
        _, headers, _ = await client.post()
        stun, turn = headers.getall("Link")
        assert stun == '<stun:stun.example.org:3478>; rel="ice-server"'
        assert turn.startswith('<turn:turn.example.org?transport=udp>; rel="ice-server"; username="')
        assert '; credential-type="password"' in turn
        assert "shared secret" not in turn


async def test_4_7_without_a_token_it_is_401_and_costs_nothing() -> None:
    async with serving() as client:
        for key in (None, " "):
            status, headers, body = await client.post(key=key)
            problem((status, headers, body), 401)
            assert headers["WWW-Authenticate"] == "Bearer"
        problem(
            await client.request("POST", "/whip/x", OFFER, {"Content-Type": SDP, "Authorization": "Basic abc"}, key=None), 401
        )
        assert (client.stage.mux.peers, client.stage.received) == (0, [])


@pytest.mark.parametrize(
    "reason", [Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.NOT_FOUND, Reason.CONFLICT, Reason.OVERLOADED]
)
async def test_4_7_the_sessions_refusal_is_the_answer(reason: Reason) -> None:
    async with serving(decide=lambda publisher: Rejected(reason, "because of that")) as client:
        assert problem(await client.post(), reason.status) == "because of that"
        assert client.stage.mux.peers == 0


async def test_4_7_who_changes_or_deletes_a_session_shows_the_token_that_made_it() -> None:
    async with serving() as client:
        location, etag, _ = await client.made()
        problem(await client.request("DELETE", location, key=None), 401)
        problem(await client.request("DELETE", location, key="another"), 403)
        problem(await client.patch(location, NEW_ICE.format("wxyz"), "*", key=None), 401)
        problem(await client.patch(location, NEW_ICE.format("wxyz"), "*", key="another"), 403)
        assert (await client.patch(location, "a=end-of-candidates\r\n", etag))[0] == 204
        assert (await client.request("DELETE", location))[0] == 200


async def test_4_8_simulcast_is_taken_as_offered() -> None:
    async with serving() as client:
        _, _, answer = await client.post((DATA / "obs-32.2.2-simulcast3.sdp").read_bytes())
        assert b"a=simulcast:recv 0;1;2\r\n" in answer


async def test_a_client_that_hangs_up_before_the_decision_leaves_nothing() -> None:
    came: asyncio.Queue[Any] = asyncio.Queue()
    async with serving(decide=lambda publisher: came.put_nowait(publisher)) as client:
        accepting = WhipPublisher.accept

        async def accept_later(publisher: WhipPublisher) -> None:
            await publisher.decided.wait()  # as a session whose authorisation takes its time
            await accepting(publisher)

        client.stage.accept = accept_later
        posting = asyncio.create_task(client.post())
        async with asyncio.timeout(10):
            publisher = await came.get()
            posting.cancel()
            await publisher.decided.wait()
        with pytest.raises(ProtocolError, match="gone"):
            await publisher.accept()
        assert (client.stage.mux.peers, client.stage.received) == (0, [])


async def test_a_client_that_hangs_up_as_it_is_accepted_ends_the_publisher() -> None:
    async with serving(decide=lambda publisher: Rejected(Reason.CONFLICT, "another one")) as client:
        publisher = publisher_of(client.stage.mux, sdp.parse_offer(OFFER))
        deciding = asyncio.create_task(client.stage.listener._decision(publisher))
        await asyncio.sleep(0)
        await publisher.accept()
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding
        with pytest.raises(ProtocolError, match="gone"):
            await anext(aiter(publisher))
        assert publisher.peer is not None
        async with asyncio.timeout(10):
            await publisher.peer.closed.wait()
        assert client.stage.mux.peers == 0


async def test_a_peer_that_never_connects_ends_by_itself() -> None:
    async with serving(limits=Limits(connect=0.3)) as client:
        location, _, _ = await client.made()
        received = await client.stage.publisher()
        async with asyncio.timeout(10):
            await received.ended.wait()
        assert "never connected" in str(received.error)
        assert (await client.request("DELETE", location))[0] == 200


async def test_a_session_that_never_decides_is_503() -> None:
    async with serving(decide=None, whip=WhipLimits(decision_s=0.2)) as client:
        problem(await client.post(), 503)
        assert client.stage.mux.peers == 0


async def test_encoders_that_no_session_takes_are_bounded() -> None:
    async with serving(whip=WhipLimits(waiting=0)) as client:
        problem(await client.post(), 503)


async def test_the_sessions_end_is_the_peers() -> None:
    async with serving() as client:
        location, _, _ = await client.made()
        received = await client.stage.publisher()
        await received.publisher.aclose("another encoder took over")
        assert client.stage.mux.peers == 0
        assert (await client.request("DELETE", location))[0] in (200, 404)


async def test_a_thousand_posts_without_a_key_cost_nothing() -> None:
    async with serving() as client:

        async def many() -> None:
            for _ in range(100):
                assert (await client.post(b"v=0", key=None))[0] == 401

        await asyncio.gather(*(many() for _ in range(10)))
        assert client.stage.listener._publishers.empty()
        assert (await client.post())[0] == 201


async def test_the_offer_of_who_may_not_publish_is_not_read() -> None:
    """128 KB of it took a third of a second, before anybody looked at the key."""
    asked: list[Applicant] = []

    async def nobody(applicant: Applicant) -> None:
        asked.append(applicant)
        raise Rejected(Reason.FORBIDDEN, "not here")

    offer = hostile.offers()["sources"]
    async with serving(authorise=nobody) as client:
        begun = time.process_time()
        for _ in range(20):
            assert problem(await client.post(offer), 403) == "not here"
        assert problem(await client.post(b"no offer at all"), 403) == "not here"
        assert (time.process_time() - begun) / 20 < 0.02  # what reads the answers in it
        assert client.stage.listener._publishers.empty()
        assert (asked[0].credential.key, dict(asked[0].params), asked[0].protocol) == (KEY, {"call": "livestream:demo"}, "whip")
        assert client.stage.listener.refusals() == {}  # who refuses counts


async def test_a_body_that_does_not_come_is_not_waited_for_where_nobody_may_publish() -> None:
    async def nobody(applicant: Applicant) -> None:
        raise Rejected(Reason.FORBIDDEN, "not here")

    async with serving(authorise=nobody) as client:
        host, port = client.stage.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /whip/livestream:demo HTTP/1.1\r\nHost: x\r\nContent-Type: {SDP}\r\nAuthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}Content-Length: 100000\r\n\r\nv=0".encode())
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 403")
        writer.close()
