"""Chromium publishes by WHIP from a page of another origin: every codec it has, a simulcast, and over a network that loses packets."""

import asyncio
from itertools import pairwise

import pytest

from protocols.media import EncodedPacket, Kind, Track
from tests.browser.chromium import Chromium
from tests.peers.whip_page import browser_publisher
from tests.peers.whip_stage import whip_stage
from tests.support.relay import relaying
from tests.support.shared import OwnCall
from tests.support.slow import slow
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUND_TRIP_S = 0.02


@pytest.mark.parametrize(
    ("codec", "mode"), [("h264", "passthrough"), slow("vp8", "passthrough"), slow("vp9", "transcode"), ("av1", "transcode")]
)
async def test_a_browser_publishes_and_a_viewer_sees_and_hears_it(
    own: OwnCall, studio: Chromium, codec: str, mode: str
) -> None:
    async with browser_publisher(studio) as browser:
        await browser.publish(own.gateway.url(f"/whip/{own.cid}"), own.key(), codec=codec)
        async with own.watching() as viewer:
            await viewer.until(frames=60, audio=100)
            stream = await own.stream(tracks=2)  # aiortc decodes neither VP9 nor AV1
            assert {track["codec"]: track["mode"] for track in stream["tracks"]} == {"opus": "passthrough", codec: mode}
            assert viewer.sizes == [(640, 360)]
            assert 0 < stream["round_trip_ms"] < 1000
        assert await browser.stop() == 200


async def test_each_layer_of_a_simulcast_is_a_track_and_all_have_one_time(studio: Chromium) -> None:
    async with whip_stage() as stage, browser_publisher(studio) as browser:
        await browser.publish(stage.url(), "key", codec="vp8", layers=3, width=1280, height=720)
        received = await stage.publisher()

        def complete(tracks: tuple[Track, ...]) -> bool:
            return [(track.layer, track.height) for track in tracks if track.layer] == [("h", 720), ("m", 360), ("l", 180)]

        await received.until_tracks(complete, timeout=40)
        await received.until(video=len(received.of(Kind.VIDEO)) + 120)
        by_layer: dict[str, list[EncodedPacket]] = {}
        for packet in received.of(Kind.VIDEO):
            by_layer.setdefault(packet.layer, []).append(packet)
        assert set(by_layer) == {"h", "m", "l"}
        assert all(packets[0].keyframe for packets in by_layer.values())
        assert len({packet.track for packet in received.of(Kind.VIDEO)}) == 3
        newest = [packets[-1].pts for packets in by_layer.values()]
        assert max(newest) - min(newest) < 500_000_000
        rates = [
            each["targetBitrate"] for each in await browser.outbound() if each["kind"] == "video" and each.get("targetBitrate")
        ]
        assert len(rates) == 3


async def test_a_viewers_wish_for_a_key_frame_reaches_the_browser(studio: Chromium) -> None:
    async with whip_stage() as stage, browser_publisher(studio) as browser:
        await browser.publish(stage.url(), "key", codec="h264")
        received = await stage.publisher()
        await received.until(video=60)
        before = len(received.of(Kind.VIDEO))
        for _ in range(10):  # as if ten viewers asked
            assert received.publisher.request_keyframe()
        async with asyncio.timeout(5):
            while not any(packet.keyframe for packet in received.of(Kind.VIDEO)[before:]):
                received.progress.clear()
                await received.progress.wait()
        (video,) = [each for each in await browser.outbound() if each["kind"] == "video"]
        assert video["pliCount"] == 1


async def test_the_stream_goes_on_over_an_ice_restart(studio: Chromium) -> None:
    async with whip_stage() as stage, browser_publisher(studio) as browser:
        await browser.publish(stage.url(), "key", codec="h264")
        received = await stage.publisher()
        await received.until(video=20)
        assert await browser.restart() == 200
        peer = received.publisher.peer
        assert peer is not None
        async with asyncio.timeout(10):
            while peer._former is not None:  # the first check with the new credentials retires the old ones
                await received.until(video=len(received.of(Kind.VIDEO)) + 1)
        await received.until(video=len(received.of(Kind.VIDEO)) + 60)
        assert longest_gap_ms(received.of(Kind.VIDEO)) < 400
        assert not received.ended.is_set()


@pytest.mark.parametrize(
    ("loss", "freeze_ms", "silence_ms"),
    [
        slow(0.02, 400, 60),
        (0.05, 400, 60),
        slow(0.10, 600, 100),
    ],
)
async def test_losses_are_repaired(studio: Chromium, loss: float, freeze_ms: int, silence_ms: int) -> None:
    async with (
        whip_stage() as stage,
        relaying(stage.mux.port, loss=loss, round_trip_s=ROUND_TRIP_S) as relay,
        browser_publisher(studio) as browser,
    ):
        await browser.go_through(relay.through)
        await browser.publish(stage.url(), "key", codec="h264")
        received = await stage.publisher()
        await received.until(video=200, audio=300, timeout=40)
        assert relay.lost > 10
        admission = received.publisher.admission
        assert admission.totals()["repaired"] > 0

        async def round_trip_is_right() -> bool:
            return ROUND_TRIP_S * 1e9 <= received.publisher.stats.round_trip_ns < 10 * ROUND_TRIP_S * 1e9

        await eventually(round_trip_is_right)  # one report of a busy machine may be late
        assert longest_gap_ms(received.of(Kind.VIDEO)) <= freeze_ms
        sound = next(each for each in admission.streams.values() if each.parameters.kind is Kind.AUDIO)
        assert sound.buffer.repaired > sound.buffer.lost
        assert longest_gap_ms(received.of(Kind.AUDIO)) <= silence_ms + 1


def longest_gap_ms(packets: list[EncodedPacket]) -> float:
    """Of media time that is not there."""
    return max(after.pts - before.pts for before, after in pairwise(packets)) / 1e6
