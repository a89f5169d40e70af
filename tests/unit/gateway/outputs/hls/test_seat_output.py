"""Streams whose codec HLS players do not take: the picture is made H.264 and the sound AAC, whatever passes to WebRTC viewers meanwhile."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import av
import pytest

from gateway.node.cpu import CpuRoom
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.outputs.hls.broadcasts import HlsBroadcasts
from gateway.outputs.hls.policy import HlsPolicy
from gateway.outputs.hls.rendition import Rendition
from gateway.outputs.hls.seat_output import HlsSeatOutput
from gateway.outputs.hls.signed_urls import SignedUrls
from gateway.outputs.hls.stream import HlsStream
from gateway.sessions.capacity import Capacity, Demand, VideoCost
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat, SeatPolicy
from gateway.sessions.socket_watch import WatchPolicy
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track, TracksChanged
from tests.support.memory import MemoryCall, MemoryPublisher
from tests.unit.transcode.media import SECOND, pictures, shifted, tone
from transcode.host.pool import Workers
from transcode.limits import WorkerLimits
from transcode.plan import Decision, Label, Policy, Refuse, Want, Why, plan

CID = "livestream:demo"
ALL = frozenset({Codec.H264, Codec.OPUS, Codec.VP8, Codec.VP9, Codec.AV1})
LESS = frozenset({Codec.H264, Codec.OPUS})
PATIENT = WorkerLimits(video_queue=2_000, audio_queue=2_000, close=20.0)


def planned(track: Track, want: Want) -> Decision:
    return plan(track, want, Policy())


def sound_alone(track: Track, want: Want) -> Decision:
    """As for a publisher who may not send video."""
    may_not = Refuse(Why(Label.POLICY, "This publisher may send audio only into this call."))
    return planned(track, want) if track.kind is Kind.AUDIO else may_not


async def nobody(cid: str) -> None:
    pass


async def anybody(cid: str, whose: str) -> None:
    pass


class Show:
    """One session in a call that takes every codec (`call.accepts`), watched as HLS."""

    def __init__(self, workers: Workers, capacity: Capacity, decide: Callable[[Track, Want], Decision]) -> None:
        self.registry = Registry(lambda cid, on_empty: EmbeddedCall(cid, max_participants=1, on_empty=on_empty))
        self.capacity = capacity
        self.hls = HlsBroadcasts(
            HlsPolicy(segment=SECOND, window=60 * SECOND, memory=64 << 20, audio_bitrate=96_000),
            capacity,
            SignedUrls(b"secret", lambda cid: True, nobody, 3600, is_over=lambda cid: False, still=anybody),
            base_url="",
        )
        self.call = MemoryCall()
        self.call.accepts = self.call.carries = ALL
        self.publisher = MemoryPublisher(answers_keyframes=True)
        policy = SeatPolicy(
            decide=decide,
            live_edge=LiveEdgePolicy(),
            watch=WatchPolicy(),
            linger_s=1,
            max_bitrate=0,
            on_retired=self.registry.retire,
            room=CpuRoom(capacity, self.registry),
            on_change=lambda seat, change: None,
        )
        self.session = Seat(self.publisher, "ada", CID, [self.call, self.hls], workers, policy)
        self.registry.add(self.session)

    @property
    def stream(self) -> HlsStream:
        (stream,) = self.hls.streams.values()
        return stream

    async def rendition(self, name: str) -> Rendition:
        await soon(lambda: bool(self.hls.streams) and name in self.stream.renditions)
        return self.stream.renditions[name]

    async def publish(self, tracks: Sequence[Track], packets: Sequence[EncodedPacket]) -> None:
        """As fast as they are taken, which is in their own time; when HLS is ready for it."""
        self.publisher.say(TracksChanged(tuple(tracks)), *packets)

    async def until(self, name: str, count: int) -> None:
        """That many seconds of it have come out."""
        rendition = await self.rendition(name)
        await soon(lambda: rendition.last is not None and rendition.last.pts > 10 * SECOND + count * SECOND - 100_000_000)

    async def whole(self, name: str) -> tuple[bytes, int]:
        """The end has come: everything in one file, without the discontinuities, which are counted."""
        rendition = await self.rendition(name)
        async with asyncio.timeout(20):
            while not rendition.playlist.ended:
                await rendition.changed.wait()
        assert not any(segment.gap or any(part.gap for part in segment.parts) for segment in rendition.playlist.segments)
        init, data, cuts = -1, b"", 0
        for segment in rendition.playlist.segments:
            if segment.init != init:
                cuts += init >= 0
                init = segment.init
                data += bytes(await rendition.file(f"init{init}.mp4") or b"")
            data += bytes(await rendition.file(segment.uri) or b"")
        return data, cuts


async def soon(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if what():
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def show(cores: float = 64, decide: Callable[[Track, Want], Decision] = planned) -> AsyncIterator[Show]:
    async with Workers(PATIENT) as workers:
        it = Show(workers, Capacity(cores, 0), decide)
        it.hls.start(CID)
        async with asyncio.TaskGroup() as group:
            group.create_task(it.session.run())
            try:
                yield it
            finally:
                it.session.end("the test is over")


def times(data: bytes) -> list[int]:
    """The pictures' times in ms, by a decoder that must understand every byte."""
    with av.open(io.BytesIO(data), "r") as container:
        container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        return [round(frame.time * 1000) for frame in container.decode(video=0) if frame.time is not None]


async def test_what_passes_to_viewers_is_h264_in_hls() -> None:
    async with asyncio.TaskGroup() as group:
        for codec in (Codec.VP8, Codec.VP9, Codec.AV1):
            group.create_task(passing(codec))


async def passing(codec: Codec) -> None:
    track, packets = pictures(codec, seconds=3.0, gop=30)
    async with show() as it:
        await it.publish([track], packets)
        await it.until("video", 3)
        assert it.session.pipeline is not None
        assert it.session.pipeline.track_pipelines[1].mode == "passthrough"
        it.hls.stop(CID)
        data, cuts = await it.whole("video")
    assert cuts == 0
    shown = times(data)
    assert len(shown) >= len(packets) - 1
    assert all(0 < later - earlier <= 40 for earlier, later in pairwise(shown))


async def test_it_goes_on_when_the_treatment_changes_and_changes_back() -> None:
    track, packets = pictures(Codec.VP8, seconds=2.0, gop=30)
    async with show() as it:
        for number, (accepts, mode) in enumerate(((ALL, "passthrough"), (LESS, "transcode"), (ALL, "passthrough"))):
            it.call.accepts = accepts
            it.call.changed()
            await it.publish([replace(track, frame_rate=30 - number)], shifted(packets, 2 * SECOND * number))
            await it.until("video", 2 * number + 2)
            assert it.session.pipeline is not None
            assert it.session.pipeline.track_pipelines[1].mode == mode
        it.hls.stop(CID)
        data, cuts = await it.whole("video")
    assert set(it.stream.renditions) == {"video"}
    assert cuts <= 2
    shown = times(data)
    assert len(shown) >= 3 * len(packets) - 6
    assert all(0 < later - earlier <= 200 for earlier, later in pairwise(shown))


async def test_a_picture_that_the_publisher_may_not_send_is_in_hls_neither() -> None:
    track, packets = pictures(Codec.H264, seconds=3.5, gop=30)
    sound, tones = tone(Codec.AAC, seconds=3.5)
    async with show(decide=sound_alone) as it:
        await it.publish([track, sound], sorted([*packets, *tones], key=lambda each: each.dts))
        await it.until("audio", 3)
    assert set(it.stream.renditions) == {"audio"}


async def test_where_no_video_is_transcoded_it_is_said_once_why_hls_has_no_picture(caplog: pytest.LogCaptureFixture) -> None:
    track, packets = pictures(Codec.VP8, (320, 180), seconds=1.0, gop=5)
    async with show(decide=lambda track, want: plan(track, want, Policy(policy="never"))) as it:
        await it.publish([track], packets)
        await (await it.call.sink(Kind.VIDEO)).until(len(packets))
    told = [record.message for record in caplog.records if "hls: video refuse" in record.message]
    assert len(told) == 1
    assert "transcode.video = never" in told[0]


async def test_of_several_layers_the_largest_is_made_and_another_when_it_is_silent() -> None:
    large, packets = pictures(Codec.VP8, (320, 180), seconds=6.0, gop=30)
    small, fewer = pictures(Codec.VP8, (160, 90), seconds=6.0, gop=30)
    layers = [replace(large, id=1, layer="f"), replace(small, id=2, layer="h")]
    lower = [each._replace(track=2, layer="h") for each in fewer]
    upper = [each._replace(layer="f") for each in packets[:90]]  # then it is silent
    async with show() as it:
        await it.publish(layers, sorted([*upper, *lower], key=lambda each: each.dts))
        await it.until("video", 6)
        rendition = await it.rendition("video")
        assert (rendition.track.width, rendition.track.height) == (160, 90)
        it.hls.stop(CID)
        _, cuts = await it.whole("video")
    assert set(it.stream.renditions) == {"video"}
    assert cuts == 1


async def test_what_hls_takes_is_counted_and_refused_where_there_is_no_room() -> None:
    track, packets = pictures(Codec.VP8, (320, 180), seconds=3.0, gop=30)
    sound, tones = tone(Codec.OPUS, seconds=3.0)
    media = sorted([*packets, *tones], key=lambda each: each.dts)
    async with show() as it:
        await it.publish([track, sound], media)
        await it.until("video", 2)
        assert it.session.optional is not None
        assert it.session.optional.demand == Demand(1, (VideoCost(320, 180, 30.0),)).plus(HlsSeatOutput.overhead)
    async with show(cores=0.04) as it:  # room to mux, not to encode
        it.publisher.say(TracksChanged((track,)), *packets[:10])
        await (await it.call.sink(track.kind)).until(10)
        await soon(lambda: it.hls.totals.refused > 0)
        assert it.hls.totals.refused == 1
        assert it.session.optional is None
        it.hls.stop(CID)
        with pytest.raises(Rejected, match="HLS takes about") as refusal:
            it.hls.check(CID)
        assert refusal.value.reason is Reason.OVERLOADED
