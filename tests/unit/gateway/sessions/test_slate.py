"""The slate of a seat: what its outputs are given while the encoder is silent or away, and how they go on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import av
import pytest
from av.video.codeccontext import VideoCodecContext

from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.seat import Seat, SeatPolicy
from gateway.sessions.seat_state import InterruptionCause, SeatChange, SeatState
from gateway.sessions.slate import SlatePolicy
from gateway.sessions.slate_pictures import SlatePictures, form_of
from gateway.sessions.socket_watch import WatchPolicy
from protocols.bitstream.silence import silence
from protocols.media import Codec, EncodedPacket, Kind, Track, TracksChanged
from tests.support.memory import OPUS, EnoughRoom, MemoryCall, MemoryPublisher, MemorySink, packet
from tests.unit.transcode.media import pictures
from transcode.host.pool import Workers
from transcode.plan import Policy, plan

SECOND = 1_000_000_000


@dataclass
class Shown:
    """A seat with a call, and what becomes of it."""

    seat: Seat
    call: MemoryCall
    source: Track
    media: list[EncodedPacket]
    states: list[SeatState]
    changed: asyncio.Event

    def live(self, publisher: MemoryPublisher, *, sound: bool = True, picture: bool = True, frames: int = 15) -> None:
        """Half a second of media from a key frame on, stamped as an encoder does that has just begun."""
        tracks = (*((self.source,) if picture else ()), *((OPUS,) if sound else ()))
        publisher.say(TracksChanged(tracks))
        for number in range(frames):
            if picture:
                coded = self.media[number]
                publisher.say(packet(self.source.id, number * 33, keyframe=coded.keyframe, data=coded.data))
            if sound:
                publisher.say(packet(2, number * 33, data=b"sound"))

    async def until(self, *states: SeatState) -> None:
        async with asyncio.timeout(20):
            while self.states[-len(states) :] != list(states):
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def shown(publisher: MemoryPublisher, *, codec: Codec = Codec.H264, stop_linger_s: float = 0) -> AsyncIterator[Shown]:
    source, media = pictures(codec, seconds=1.0)
    call, states, changed = MemoryCall(), list[SeatState](), asyncio.Event()
    call.accepts = frozenset({codec, Codec.H264, Codec.OPUS})

    def note(seat: Seat, change: SeatChange) -> None:
        states.append(seat.state)
        changed.set()

    async with Workers() as workers:
        policy = SeatPolicy(
            decide=lambda track, want: plan(track, want, Policy()),
            live_edge=LiveEdgePolicy(),
            watch=WatchPolicy(),
            linger_s=20,
            stop_linger_s=stop_linger_s,
            max_bitrate=0,
            on_retired=lambda _, totals: None,
            room=EnoughRoom(),
            on_change=note,
            slate=SlatePolicy(SlatePictures(workers, {}, "")),
        )
        seat = Seat(publisher, "ada", "livestream:demo", [call], workers, policy)
        task = asyncio.create_task(seat.run())
        source = replace(source, id=1, frame_rate=30.0, reorder=0)
        try:
            yield Shown(seat, call, source, media, states, changed)
        finally:
            seat.end("the test is over")
            async with asyncio.timeout(10):
                await task


async def more(sink: MemorySink, count: int) -> list[EncodedPacket]:
    """What comes next, so many."""
    before = len(sink.packets)
    await sink.until(before + count)
    return sink.packets[before:]


def decoded(packets: list[EncodedPacket]) -> Iterator[av.VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    for each in packets:
        yield from decoder.decode(av.Packet(each.data))
    yield from decoder.decode(None)


def freezes(apart: list[int]) -> int:
    """How many of these times between pictures (ns) count as one (W3C webrtc-stats, freezeCount)."""
    means = [sum(last) / len(last) for last in (apart[max(0, n - 29) : n + 1] for n in range(len(apart)))]
    return sum(each >= max(3 * mean, mean + 0.15 * SECOND) for each, mean in zip(apart, means, strict=True))


def rising(packets: list[EncodedPacket]) -> bool:
    return all(one.dts < two.dts for one, two in pairwise(packets))


async def test_one_that_breaks_off_is_stood_in_for_and_the_next_goes_on_with_its_key_frame() -> None:
    first, second = MemoryPublisher(), MemoryPublisher()
    async with shown(first) as it:
        it.live(first)
        video, sound = await it.call.sink(Kind.VIDEO), await it.call.sink(Kind.AUDIO)
        await video.until(15)
        first.say(None)
        await it.until(SeatState.SLATE)
        silent = await more(sound, 20)
        assert {each.data for each in silent} == {(silence(OPUS) or (b"", 0))[0]}
        await video.until(15 + 16)
        slates = video.packets[15:]
        assert slates[0].keyframe
        apart = [two.begun - one.begun for one, two in pairwise(slates)]
        assert min(apart[13:]) >= 0.2 * SECOND, "five a second at most"
        punctual = [each for each in apart if each < 0.25 * SECOND]  # others are a busy machine's
        assert len(punctual) >= len(apart) - 3
        assert freezes([*[SECOND // 60] * 30, *punctual]) == 0, "which is no surprise"
        assert {(frame.width, frame.height) for frame in decoded(slates)} == {(320, 180)}
        await it.seat.take_over(second)
        it.live(second)
        await it.until(SeatState.LIVE)
        await more(video, 10)
        second.say(packet(2, 700, data=b"sound"))  # what came before it at once may be of the past
        await more(sound, 1)
        back = next(each for each in video.packets[15:] if each.data in [coded.data for coded in it.media])
        assert (back.data, back.keyframe) == (it.media[0].data, True)
        heard = [each.data == b"sound" for each in sound.packets]
        assert heard.index(False) < len(heard) - heard[::-1].index(True), "sound, silence, sound"
        assert rising(video.packets)
        assert rising(sound.packets)
        assert len(it.call.all) == 2, "no other track was ever made"
        assert len(list(decoded(video.packets))) == len(video.packets), "to a decoder it is one stream"


async def test_what_is_not_worth_showing_is_held_back_and_goes_on_with_a_key_frame() -> None:
    publisher = MemoryPublisher()
    async with shown(publisher) as it:
        it.live(publisher)
        video, sound = await it.call.sink(Kind.VIDEO), await it.call.sink(Kind.AUDIO)
        await video.until(15)
        it.seat._continuity.judged(InterruptionCause.BLACK)
        await it.until(SeatState.SLATE)
        for number in range(15):
            coded = it.media[number]
            publisher.say(
                packet(1, 600 + number * 33, keyframe=coded.keyframe, data=coded.data),
                packet(2, 600 + number * 33, data=b"sound"),
            )
        held = await more(video, 6)
        assert held[0].keyframe
        assert not {each.data for each in held} & {each.data for each in it.media}
        assert {each.data for each in await more(sound, 10)} == {(silence(OPUS) or (b"", 0))[0]}
        assert it.states[-1] is SeatState.SLATE, "media that come are no end of it"
        it.seat._continuity.judged(None)
        publisher.say(packet(1, 2000, data=it.media[1].data), packet(1, 2033, keyframe=True, data=it.media[0].data))
        publisher.say(packet(2, 2033, data=b"sound"))
        await it.until(SeatState.LIVE)
        assert video.packets[-1].data == it.media[0].data
        assert it.media[1].data not in [each.data for each in video.packets[15:]]
        assert rising(video.packets)
        assert rising(sound.packets)


async def test_a_short_silence_is_heard_and_the_picture_stays() -> None:
    publisher = MemoryPublisher()
    async with shown(publisher) as it:
        it.live(publisher)
        video, sound = await it.call.sink(Kind.VIDEO), await it.call.sink(Kind.AUDIO)
        await it.until(SeatState.STALLED)
        pictures_so_far = len(video.packets)
        assert (await more(sound, 5))[-1].data != b"sound"
        assert len(video.packets) == pictures_so_far
        publisher.say(packet(1, 1200, data=it.media[15].data), packet(2, 1200, data=b"sound"))
        await it.until(SeatState.LIVE)
        await video.until(pictures_so_far + 1)
        assert video.packets[pictures_so_far].data == it.media[15].data, (
            "it follows from what was shown: no key frame is awaited"
        )
        assert rising(sound.packets)


async def test_who_needs_a_picture_while_nothing_comes_is_given_the_slate() -> None:
    publisher = MemoryPublisher()
    async with shown(publisher) as it:
        it.live(publisher)
        video = await it.call.sink(Kind.VIDEO)
        await it.until(SeatState.STALLED)
        assert video.feedback.keyframe()
        (slate, *_) = await more(video, 1)
        assert slate.keyframe
        assert slate.data not in [each.data for each in it.media]
        publisher.say(packet(1, 1300, data=it.media[15].data), packet(2, 1300, data=b"sound"))
        await more(video, 2)
        assert it.media[15].data not in [each.data for each in video.packets], "nothing shows it any more"
        publisher.say(packet(1, 2300, keyframe=True, data=it.media[0].data), packet(2, 2300, data=b"sound"))
        await it.until(SeatState.LIVE)
        assert publisher.keyframe_requests >= 1


async def test_what_an_encoder_comes_back_without_ends() -> None:
    first, second = MemoryPublisher(), MemoryPublisher()
    async with shown(first) as it:
        it.live(first)
        video = await it.call.sink(Kind.VIDEO)
        sound = await it.call.sink(Kind.AUDIO)
        await video.until(15)
        first.say(None)
        await it.until(SeatState.SLATE)
        await more(video, 2)
        await it.seat.take_over(second)
        second.say(TracksChanged((OPUS,)))
        for number in range(160):
            second.say(packet(2, number * 20, data=b"sound"))
        async with asyncio.timeout(10):
            while not video.closed:
                await more(sound, 1)
        await it.until(SeatState.LIVE)
        assert not sound.closed


async def test_of_what_is_muted_no_slate_is_shown() -> None:
    publisher = MemoryPublisher()
    async with shown(publisher) as it:
        it.live(publisher)
        video, sound = await it.call.sink(Kind.VIDEO), await it.call.sink(Kind.AUDIO)
        await it.until(SeatState.SLATE)
        it.seat.withhold(frozenset({Kind.VIDEO}), frozenset())
        assert video.closed
        shown_so_far = len(video.packets)
        await more(sound, 30)
        assert len(video.packets) == shown_so_far
        it.seat.withhold(frozenset(), frozenset())
        for number in range(30):
            publisher.say(packet(1, 3000 + number * 33, keyframe=number == 0, data=it.media[number % 15].data))
        async with asyncio.timeout(10):
            while it.call.sinks[Kind.VIDEO] is video:
                await more(sound, 1)
        await it.call.sinks[Kind.VIDEO].until(5)


@pytest.mark.parametrize(
    ("codec", "made"),
    [
        (Codec.H264, Codec.H264),
        (Codec.VP8, Codec.VP8),
        (Codec.AV1, Codec.AV1),
        (Codec.VP9, Codec.H264),
        (Codec.HEVC, Codec.H264),
    ],
)
def test_a_slate_is_of_the_streams_codec_where_that_is_made_here(codec: Codec, made: Codec) -> None:
    form = form_of(Track(1, codec, width=640, height=360, layer="h"))
    assert (form.codec, form.width, form.height) == (made, 640, 360)


async def test_a_slate_of_another_codec_is_followed_by_the_streams_own() -> None:
    first, second = MemoryPublisher(), MemoryPublisher()
    async with shown(first, codec=Codec.VP9) as it:
        it.live(first, sound=False)
        vp9 = await it.call.sink(Kind.VIDEO)
        await vp9.until(15)
        first.say(None)
        async with asyncio.timeout(10):
            await it.until(SeatState.SLATE)
            while not vp9.closed:
                it.call.published.clear()
                await it.call.published.wait()
        h264 = it.call.sinks[Kind.VIDEO]
        await h264.until(2)
        assert (h264.track.codec, h264.packets[0].keyframe) == (Codec.H264, True)
        await it.seat.take_over(second)
        it.live(second, sound=False)
        await it.until(SeatState.LIVE)
        assert h264.closed
        again = it.call.sinks[Kind.VIDEO]
        await again.until(10)
        assert (again.track.codec, again.packets[0].data) == (Codec.VP9, it.media[0].data)
