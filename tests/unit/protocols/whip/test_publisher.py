"""A publisher with a real peer behind it: aiortc as an encoder that answers feedback."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urljoin

import aiohttp
import pytest
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from protocols.media import Codec, EncodedPacket, Kind, TracksChanged
from protocols.webrtc.http import SDP
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp.unserved import unreceived
from protocols.webrtc.send.packetize import packetize_h264
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whip.limits import WhipLimits
from protocols.whip.publisher import WhipPublisher
from tests.peers.whip_stage import Received, Stage, whip_stage
from tests.support.waiting import eventually
from tests.unit.protocols.bitstream.samples import access_units
from tests.unit.protocols.webrtc.clients import BarePeer, connection_state, within
from tests.unit.protocols.webrtc.receive.test_receiver import rtp
from tests.unit.protocols.whip.publishers import published


@asynccontextmanager
async def aiortc_publisher(stage: Stage, number: int = 0) -> AsyncIterator[tuple[RTCPeerConnection, Received]]:
    """A green picture and silence."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    try:
        await publish(stage, connection)
        yield connection, await stage.publisher(number)
    finally:
        await connection.close()


async def publish(stage: Stage, connection: RTCPeerConnection) -> str:
    """Gives the address of the session."""
    connection.addTransceiver(VideoStreamTrack(), "sendonly")
    connection.addTransceiver(AudioStreamTrack(), "sendonly")
    await connection.setLocalDescription(await connection.createOffer())
    headers = {"Content-Type": SDP, "Authorization": "Bearer key"}
    async with aiohttp.ClientSession() as http:
        async with http.post(stage.url(), data=connection.localDescription.sdp, headers=headers) as response:
            assert response.status == 201
            answer, resource = await response.text(), urljoin(stage.url(), response.headers["Location"])
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    return resource


async def test_media_arrive_in_house_form_with_figures() -> None:
    async with whip_stage() as stage, aiortc_publisher(stage) as (_, received):
        await received.until(video=40, audio=60)
        tracks = {track.kind: track for track in received.tracks}
        assert (tracks[Kind.AUDIO].codec, tracks[Kind.AUDIO].sample_rate) == (Codec.OPUS, 48_000)
        assert (tracks[Kind.VIDEO].codec, tracks[Kind.VIDEO].width, tracks[Kind.VIDEO].height) == (Codec.H264, 640, 480)
        video, audio = received.of(Kind.VIDEO), received.of(Kind.AUDIO)
        assert video[0].keyframe
        assert all(packet.data.startswith(b"\x00\x00\x00\x01") for packet in video)
        for packets in (video, audio):
            assert all(before.dts < after.dts for before, after in itertools.pairwise(packets))
            assert all(packet.begun <= packet.arrival for packet in packets)
        stats = received.publisher.stats
        assert stats.packets_received >= len(video) + len(audio)
        assert stats.bytes_received > sum(len(packet.data) for packet in received.packets)
        assert 0 < stats.round_trip_ns < 1_000_000_000


async def test_a_key_frame_comes_when_it_is_asked_for() -> None:
    async with whip_stage() as stage, aiortc_publisher(stage) as (_, received):
        await received.until(video=10)
        before = len(received.of(Kind.VIDEO))
        assert received.publisher.request_keyframe()
        async with asyncio.timeout(5):
            while not any(packet.keyframe for packet in received.of(Kind.VIDEO)[before:]):
                received.progress.clear()
                await received.progress.wait()


async def test_a_peer_that_says_goodbye_ends_in_order() -> None:
    async with whip_stage() as stage, aiortc_publisher(stage) as (connection, received):
        await received.until(video=3)
        await connection.close()
        await within(received.ended.wait())
        assert received.error is None


@pytest.mark.parametrize("deletes", [True, False])
async def test_who_closes_and_then_deletes_has_stopped_and_who_only_closes_may_come_back(deletes: bool) -> None:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    async with whip_stage() as stage, aiohttp.ClientSession(headers={"Authorization": "Bearer key"}) as http:
        resource = await publish(stage, connection)
        received = await stage.publisher(0)
        await received.until(video=3)
        await connection.close()
        if deletes:
            assert (await http.delete(resource)).status == 200
        await within(received.ended.wait())
        assert received.publisher.stats.stopped is deletes
        assert received.error is None


async def test_closing_tells_the_peer_at_once() -> None:
    async with whip_stage() as stage, aiortc_publisher(stage) as (connection, received):
        await received.until(video=3)
        await received.publisher.aclose("another encoder took over")
        await connection_state(connection, "closed")
        await within(received.ended.wait())
        assert stage.mux.peers == 0


async def test_a_peer_that_sends_nothing_ends() -> None:
    async with whip_stage(whip=WhipLimits(idle_s=0.5)) as stage, aiortc_publisher(stage) as (connection, received):
        await received.until(video=3)
        for sender in connection.getSenders():
            sender.replaceTrack(None)
        await within(received.ended.wait())
        assert "no media for 0.5 s" in str(received.error)


async def test_a_session_that_does_not_read_goes_on_at_the_newest_key_frame() -> None:
    async with whip_stage() as stage:
        going_on = asyncio.Event()

        async def accept_and_wait(publisher: WhipPublisher) -> None:
            await publisher.accept()
            accepted.append(publisher)
            await going_on.wait()

        accepted: list[WhipPublisher] = []
        stage.accept = accept_and_wait
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        try:
            await publish(stage, connection)
            (publisher,) = accepted

            async def dropped() -> bool:
                return publisher.dropped >= 20

            await eventually(dropped)
            going_on.set()
            received = await stage.publisher()
            await received.until(video=5, audio=5)
            assert received.of(Kind.VIDEO)[0].keyframe
            assert publisher.admission.totals()["plis"] > 0
        finally:
            await connection.close()


async def test_publishers_do_not_disturb_each_other() -> None:
    async with whip_stage() as stage, aiortc_publisher(stage) as (first, one):
        async with aiortc_publisher(stage, 1) as (_, other):
            await one.until(video=5)
            await other.until(video=5)
            await first.close()
            await within(one.ended.wait())
            seen = len(other.of(Kind.VIDEO))
            await other.until(video=seen + 10)
            assert not other.ended.is_set()


class OneTypeForBoth(BarePeer):
    """Its lines share a payload type, and are told apart by what it announces."""

    media = """m=video 9 UDP/TLS/RTP/SAVPF 96
a=mid:0
a=sendonly
a=rtcp-mux
a=rtpmap:96 H264/90000
a=ssrc:1 cname:x
m=audio 9 UDP/TLS/RTP/SAVPF 96
a=mid:1
a=sendonly
a=rtcp-mux
a=rtpmap:96 opus/48000/2
a=ssrc:2 cname:x"""


async def test_one_payload_type_for_picture_and_sound_reaches_both_tracks() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with OneTypeForBoth(mux) as bare:
            assert unreceived(bare.offer(), answer.receiving(bare.offer())) == ""
            publisher = await published(mux, bare)
            living = asyncio.create_task(publisher.run(bare.peer))
            unit = next(access_units("h264_baseline.h264"))
            for number, payload in enumerate(payloads := packetize_h264(unit)):
                protect(bare, rtp(96, number, 0, 1, payload, marker=number == len(payloads) - 1))
            protect(bare, rtp(96, 0, 0, 2, b"\xfcsound"))
            came = dict[Kind, EncodedPacket]()
            kinds = dict[int, Kind]()
            async with asyncio.timeout(10):
                async for item in publisher:
                    if isinstance(item, TracksChanged):
                        kinds = {track.id: track.kind for track in item.tracks}
                    elif isinstance(item, EncodedPacket):
                        came[kinds[item.track]] = item
                    if len(came) == 2:
                        break
            assert came[Kind.AUDIO].data == b"\xfcsound"
            assert came[Kind.VIDEO].keyframe
            bare.peer.close()
            await within(living)


def protect(bare: BarePeer, packet: bytes) -> None:
    bare.send(bare.outbound.protect(packet))
