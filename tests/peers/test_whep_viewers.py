"""Viewers by WHEP: real aiortc clients that decode what they are sent."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiortc import RTCRtpReceiver, RTCSessionDescription
from yarl import URL

from protocols.media import Codec
from protocols.webrtc.http import FRAGMENT, SDP
from protocols.webrtc.transport.peer import Limits
from tests.peers.whep_stage import Participant, Stage, Video, pictures, stage, tone
from tests.support.delivery import assert_shown
from tests.support.viewer import watching
from tests.unit.protocols.webrtc.clients import browser, connection_state, within

SECONDS = 8
Media = tuple[Video, tuple[bytes, ...]]


@pytest.fixture(scope="module")
def media() -> Media:
    return pictures(30 * SECONDS), tone(50 * SECONDS)


@asynccontextmanager
async def publishing(served: Stage, participant: Participant) -> AsyncIterator[None]:
    participant.begin()
    served.enter(participant)
    task = asyncio.create_task(participant.publish())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        served.leave(participant)


async def events(http: aiohttp.ClientSession, url: str) -> AsyncIterator[dict[str, Any]]:
    async with http.get(url) as stream:
        assert stream.content_type == "text/event-stream"
        kind = b""
        async for line in stream.content:
            name, _, value = line.partition(b": ")
            if name == b"data" and not kind:
                yield json.loads(value)
            kind = value.strip() if name == b"event" else b""


async def test_pictures_and_sound_arrive_decoded_and_in_order(media: Media) -> None:
    async with stage() as served, publishing(served, Participant("host", *media)), watching(served.url) as viewer:
        await viewer.until(frames=60, audio=60)
        assert_shown(viewer.numbers, viewer.numbers[0], viewer.numbers[-1], served.dropped + viewer.lost())
        assert viewer.loudness > 1000
        assert 950 < viewer.frequency < 1050


async def test_a_codec_that_a_viewer_does_not_take_is_named_and_shown_once_it_is_another(media: Media) -> None:
    first, then = (pictures(900, group=15, codec=codec) for codec in (Codec.AV1, Codec.VP8))
    host = Participant("host", first, media[1], Codec.AV1)
    async with stage() as served, publishing(served, host), watching(served.url) as viewer, aiohttp.ClientSession() as http:
        (there,) = served.viewers
        assert there.takes == {Codec.H264, Codec.VP8}
        await viewer.until(audio=20)
        told = events(http, viewer.resource + "/events")
        (slot,) = (await within(anext(told)))["slots"]
        assert (slot["video"], slot["unplayable"], slot["audio"]) == (False, "av1", True)
        assert viewer.numbers == []
        host.change(Codec.VP8, then)
        served.enter(host)
        (slot,) = (await within(anext(told)))["slots"]
        assert (slot["video"], slot["unplayable"], slot["audio"]) == (True, None, True)
        await viewer.until(frames=30)
        assert_shown(viewer.numbers, viewer.numbers[0], viewer.numbers[-1], served.dropped + viewer.lost())


async def test_a_viewer_that_comes_first_gets_the_stream_when_it_starts(media: Media) -> None:
    async with stage() as served, watching(served.url) as viewer:
        await served.until_viewers(1)
        (waiting,) = served.viewers
        await within(waiting.peer.connected.wait())
        async with publishing(served, Participant("host", *media)):
            await viewer.until(frames=30, audio=30)
            assert viewer.numbers[0] <= 5


async def test_a_viewer_that_joins_amid_a_group_of_pictures_has_it_from_its_key_frame(media: Media) -> None:
    async with stage() as served:
        host = Participant("host", *media)
        async with publishing(served, host), watching(served.url) as first:
            await first.until_number(40)
            async with watching(served.url) as second:
                await second.until(frames=30)
                assert second.numbers[0] == 0  # the key frame of the group, at once
                assert second.in_order


async def test_one_viewer_killed_leaves_the_other_undisturbed(media: Media) -> None:
    async with stage() as served, publishing(served, Participant("host", *media)), watching(served.url) as first:
        async with watching(served.url) as second:
            await second.until(frames=10)
            await served.until_viewers(2)
        await served.until_viewers(1)
        seen = len(first.numbers)
        await first.until(frames=seen + 30)
        totals = {name: value for name, _, value in served.resource.counters()}
        assert totals["frames"] > len(first.numbers) + 10  # those of the viewer that has gone count too
        assert_shown(first.numbers, first.numbers[0], first.numbers[-1], served.dropped + first.lost())


async def test_the_offer_of_who_may_not_watch_is_not_waited_for() -> None:
    async with stage() as served:
        served.token = "right"
        url = URL(served.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            f"POST {url.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {SDP}\r\nContent-Length: 100000\r\n\r\nv=0".encode()
        )
        assert (await within(reader.readline())).startswith(b"HTTP/1.1 401")
        writer.close()


async def test_without_the_token_nobody_watches() -> None:
    async with stage() as served, aiohttp.ClientSession() as http:
        served.token = "right"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
            async with http.post(served.url, data=b"v=0", headers={"Content-Type": SDP, **headers}) as response:
                assert response.status == 401
                assert (await response.json(content_type=None))["detail"] == "show the token of the call"
        async with http.post(served.url + "x", data=b"v=0", headers={"Content-Type": SDP}) as response:
            assert response.status == 404
        async with watching(served.url, token="right"):
            await served.until_viewers(1)
        assert served.mux.peers <= 1


async def post(http: aiohttp.ClientSession, served: Stage, offer: str) -> tuple[str, str, str]:
    """(answer, resource URL, ETag)"""
    async with http.post(served.url, data=offer, headers={"Content-Type": SDP}) as response:
        assert response.status == 201, await response.text()
        return (
            await response.text(),
            str(response.url.join(response.url.with_path(response.headers["Location"]))),
            response.headers["ETag"],
        )


async def test_slots_follow_the_participants_and_the_page_is_told(media: Media) -> None:
    async with stage() as served, aiohttp.ClientSession() as http:
        connection = browser(2, 2)
        await connection.setLocalDescription(await connection.createOffer())
        mids = [transceiver.mid for transceiver in connection.getTransceivers()]
        _, url, _ = await post(http, served, connection.localDescription.sdp)
        told = events(http, url + "/events")

        async def slots() -> list[tuple[object, ...]]:
            state = await within(anext(told))
            assert isinstance(state["slots"], list)
            shown = [(slot["participant"], slot["video"], slot["audio"]) for slot in state["slots"]]
            return [*shown, (state["waiting"],)]

        first = await within(anext(told))
        assert first == {
            "slots": [
                {
                    "slot": number,
                    "video_mid": mids[number],
                    "audio_mid": mids[number + 2],
                    "participant": None,
                    "name": None,
                    "video": False,
                    "audio": False,
                    "muted_video": False,
                    "muted_audio": False,
                    "unplayable": None,
                    "layer": None,
                    "width": None,
                    "height": None,
                }
                for number in range(2)
            ],
            "waiting": 0,
        }
        anna, ben, carl = (Participant(name, *media) for name in ("anna", "ben", "carl"))
        for participant in (anna, ben, carl):
            participant.begin()
        served.enter(anna)
        assert await slots() == [("anna", True, True), (None, False, False), (0,)]
        served.enter(ben)
        assert await slots() == [("anna", True, True), ("ben", True, True), (0,)]
        served.enter(carl)
        assert await slots() == [("anna", True, True), ("ben", True, True), (1,)]
        (viewer,) = served.viewers
        del anna.sources[next(iter(anna.sources))]  # the video has ended
        viewer.show("anna", "anna", anna.sources)
        assert await slots() == [("anna", False, True), ("ben", True, True), (1,)]
        served.leave(ben)
        assert await slots() == [("anna", False, True), ("carl", True, True), (0,)]
        served.leave(anna)
        assert await slots() == [(None, False, False), ("carl", True, True), (0,)]
        async with http.delete(url) as response:
            assert response.status == 200
        assert [state async for state in told] == []  # the stream of events ends with the viewer
        await served.until_viewers(0)
        await connection.close()


async def test_a_viewer_asks_for_a_layer_and_goes_over_to_it_without_missing_a_picture(media: Media) -> None:
    longer = pictures(900, group=15)  # key frames come soon, and pictures last until a slow machine is through
    host = Participant("host", longer, media[1], layers={"h": (1280, 720), "l": (320, 180)})
    async with stage() as served, publishing(served, host), watching(served.url) as viewer, aiohttp.ClientSession() as http:
        await viewer.until(frames=5)
        resource = URL(viewer.resource)

        async def ask(**wish: object) -> int:
            async with http.post(resource / "layer", json=wish) as response:
                return response.status

        told = events(http, str(resource / "events"))

        async def until_layer(name: str) -> None:
            async with asyncio.timeout(40):
                async for state in told:
                    (slot,) = state["slots"]
                    if slot["layer"] == name:
                        return

        await until_layer("h")
        assert await ask(mediaId=0, rid="l") == 200
        await until_layer("l")
        assert await ask(mediaId="0", width=1280, height=720) == 200
        await until_layer("h")
        await viewer.until(frames=len(viewer.numbers) + 10)
        assert sorted(set(viewer.numbers)) == list(range(viewer.numbers[0], viewer.numbers[-1] + 1))
        assert await ask(rid="none of them") == 409
        assert await ask(mediaId="17", height=10) == 422
        assert await ask(maxHeight="tall") == 400
        async with http.post(resource / "layer", data=bytes(5000)) as response:
            assert response.status == 413
        turns = {name: value for name, _, value in served.resource.counters()}["turns"]
        assert turns == 2


async def test_two_participants_reach_one_viewer(media: Media) -> None:
    async with stage() as served, aiohttp.ClientSession() as http:
        connection = browser(2, 2)
        await connection.setLocalDescription(await connection.createOffer())
        answer, _, _ = await post(http, served, connection.localDescription.sdp)
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with (
            publishing(served, Participant("anna", *media)),
            publishing(served, Participant("ben", *media)),
        ):
            for transceiver in connection.getTransceivers():
                for _ in range(20):
                    await within(transceiver.receiver.track.recv())
        await connection.close()


async def test_a_viewer_that_never_connects_leaves_the_call() -> None:
    async with stage(limits=Limits(connect=0.3)) as served, aiohttp.ClientSession() as http:
        connection = browser()
        await connection.setLocalDescription(await connection.createOffer())
        _, url, _ = await post(http, served, connection.localDescription.sdp)
        assert served.resource.viewers == 1
        await served.until_viewers(0)
        async with http.get(f"{url}/events") as response:
            assert response.status == 404
        async with http.delete(url) as response:
            assert response.status == 200  # it may always be repeated: browsers send it after the goodbye of DTLS
        assert (served.resource.viewers, served.resource.joined, served.mux.peers) == (0, 1, 0)
        await connection.close()


async def test_shutting_down_tells_the_viewers() -> None:
    async with stage() as served, aiohttp.ClientSession() as http:
        connection = browser()
        await connection.setLocalDescription(await connection.createOffer())
        answer, _, _ = await post(http, served, connection.localDescription.sdp)
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await connection_state(connection, "connected")
        await within(served.resource.aclose(), 3)
        await connection_state(connection, "closed")
        assert not served.viewers
        await connection.close()


async def test_ice_restart_over_http(media: Media) -> None:
    async with stage() as served, publishing(served, Participant("host", *media)), aiohttp.ClientSession() as http:
        connection = browser()
        await connection.setLocalDescription(await connection.createOffer())
        answer, url, etag = await post(http, served, connection.localDescription.sdp)
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await connection_state(connection, "connected")
        fragment = "a=ice-ufrag:restarted\r\na=ice-pwd:0123456789012345678901\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        async with http.patch(url, data=fragment, headers={"Content-Type": FRAGMENT, "If-Match": "*"}) as response:
            assert response.status == 200
            assert response.headers["ETag"] != etag
            text = await response.text()
        assert "a=ice-ufrag:" in text
        assert f" {served.mux.port} typ host\r\n" in text
        for _ in range(30):  # media goes on meanwhile
            await within(connection.getReceivers()[0].track.recv())
        await connection.close()


async def test_an_offer_without_anything_that_we_send_is_refused_in_words() -> None:
    async with stage() as served, aiohttp.ClientSession() as http:
        connection = browser(0, 0)
        connection.createDataChannel("chat")
        await connection.setLocalDescription(await connection.createOffer())
        async with http.post(served.url, data=connection.localDescription.sdp, headers={"Content-Type": SDP}) as response:
            assert response.status == 415
            assert "H.264" in (await response.json(content_type=None))["detail"]
        assert served.mux.peers == 0
        await connection.close()


async def test_only_so_many_event_streams_of_one_viewer() -> None:
    async with stage() as served, aiohttp.ClientSession() as http:
        connection = browser()
        await connection.setLocalDescription(await connection.createOffer())
        _, url, _ = await post(http, served, connection.localDescription.sdp)
        streams = [await http.get(url + "/events") for _ in range(4)]
        async with http.get(url + "/events") as refused:
            assert refused.status == 429
        for stream in streams:
            stream.close()
        await connection.close()


@pytest.mark.parametrize(
    ("pattern", "replacement", "words"),
    [
        (r"packetization-mode=1", "packetization-mode=0", "packetization-mode=1"),
        (r"a=fmtp:.*packetization.*\r\n", "", "packetization-mode=1"),
        (r"a=group:BUNDLE.*\r\n", "", "BUNDLE"),
        (r"a=group:BUNDLE.*\r\n", "a=group:BUNDLE 0\r\n", "the audio"),
        (r"a=mid:1\r\n", "", "a=mid"),
        (r"a=rtcp-mux\r\n", "", "rtcp-mux"),
        (r"opus/48000/2", "PCMA/8000", "Opus"),
    ],
)
async def test_half_of_what_is_asked_for_is_refused_in_words(pattern: str, replacement: str, words: str) -> None:
    async with stage() as served, aiohttp.ClientSession() as http:
        connection = browser(0, 0)
        picture = connection.addTransceiver("video", "recvonly")
        known = RTCRtpReceiver.getCapabilities("video")
        assert known is not None
        picture.setCodecPreferences([each for each in known.codecs if each.name in ("H264", "rtx")])
        connection.addTransceiver("audio", "recvonly")
        await connection.setLocalDescription(await connection.createOffer())
        offer = connection.localDescription.sdp
        changed = re.sub(pattern, replacement, offer)
        assert changed != offer
        async with http.post(served.url, data=changed, headers={"Content-Type": SDP}) as response:
            assert response.status == 415
            assert words in (await response.json(content_type=None))["detail"]
        assert served.mux.peers == 0
        await post(http, served, offer)
        await connection.close()


async def test_one_picture_needs_no_bundle(media: Media) -> None:
    async with stage() as served, publishing(served, Participant("host", *media)), aiohttp.ClientSession() as http:
        connection = browser(1, 0)
        await connection.setLocalDescription(await connection.createOffer())
        offer = re.sub(r"a=group:BUNDLE.*\r\n", "", connection.localDescription.sdp)
        answer, _, _ = await post(http, served, offer)
        assert "a=group:BUNDLE" not in answer
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        for _ in range(30):
            await within(connection.getReceivers()[0].track.recv())
        await connection.close()
