"""What waits between a socket and its session: bounded, and what gives way when it is full."""

import asyncio
from collections.abc import Iterable

import pytest

from protocols.errors import ProtocolError
from protocols.inbox import MAX_ITEMS, DropToKeyframe, Inbox, Item, PauseSender
from protocols.media import Codec, EncodedPacket, Kind, Lack, LeftOut, Track, TracksChanged

MS = 1_000_000
BOTH = TracksChanged((Track(1, Codec.H264), Track(2, Codec.AAC)))


def packet(ms: int, track: int = 1, key: bool = False, size: int = 10) -> EncodedPacket:
    return EncodedPacket(track, ms * MS, ms * MS, key or track == 2, bytes(size), ms * MS, ms * MS)


async def through(given: Iterable[Item], max_bytes: int = 1 << 20) -> tuple[list[Item], int]:
    """What is left of these for a reader who comes late, and how many packets were dropped."""
    dropped: list[int] = []
    inbox = Inbox(1000, max_bytes, DropToKeyframe(dropped.append))
    for item in given:
        inbox.put(item)
    inbox.end(None)
    return [item async for item in inbox], sum(dropped)


async def test_nothing_is_lost_within_the_bound() -> None:
    given: list[TracksChanged | EncodedPacket] = [BOTH, packet(0, key=True), packet(5, 2), packet(900)]
    assert await through(given) == (given, 0)


async def test_an_overflow_drops_both_tracks_to_the_newest_key_frame() -> None:
    given = (BOTH, packet(0, key=True), packet(10, 2), packet(500), packet(600, key=True), packet(610, 2), packet(1100))
    assert await through(given) == ([BOTH, packet(600, key=True), packet(610, 2), packet(1100)], 3)


async def test_without_a_key_frame_everything_is_dropped_until_the_next() -> None:
    lost = (packet(0, key=True), packet(500), packet(1100), packet(1200), packet(1210, 2))
    given = (BOTH, *lost, packet(1300, key=True), packet(1310, 2))
    assert await through((BOTH, *lost)) == ([BOTH], len(lost))
    assert await through(given) == ([BOTH, packet(1300, key=True), packet(1310, 2)], len(lost))


async def test_sound_alone_keeps_its_newer_half() -> None:
    tracks = TracksChanged((Track(2, Codec.AAC),))
    left, dropped = await through([tracks, *(packet(ms, 2) for ms in range(0, 3000, 20))])
    assert left[0] == tracks
    assert left[-1] == packet(2980, 2)
    assert 20 <= len(left) <= 52
    assert dropped + len(left) - 1 == 150


async def test_the_newest_tracks_survive_an_overflow() -> None:
    other = TracksChanged((Track(1, Codec.HEVC),))
    given = (BOTH, packet(0, key=True), other, packet(500), packet(1500, key=True))
    assert await through(given) == ([other, packet(1500, key=True)], 2)


async def test_bytes_are_bounded() -> None:
    given = (BOTH, packet(0, key=True, size=600), packet(1, size=600), packet(2, key=True, size=300))
    assert await through(given, max_bytes=1000) == ([BOTH, packet(2, key=True, size=300)], 2)


async def test_what_is_told_of_the_stream_is_never_dropped() -> None:
    told = LeftOut(Lack.CODEC, Kind.AUDIO, "it is ADPCM")
    given: list[Item] = [BOTH, told, packet(0, key=True), packet(500), packet(1100), told, packet(1200), packet(1300, key=True)]
    assert await through(given) == ([BOTH, told, told, packet(1300, key=True)], 4)


async def test_items_are_bounded() -> None:
    left, dropped = await through([BOTH, packet(0, key=True), *[packet(1, size=0)] * (2 * MAX_ITEMS)])
    assert left == [BOTH]
    assert dropped == 2 * MAX_ITEMS + 1


async def test_after_an_overflow_each_layer_goes_on_with_a_key_frame_of_its_own() -> None:
    layers = TracksChanged((Track(1, Codec.H264, layer="h"), Track(3, Codec.H264, layer="l"), Track(2, Codec.AAC)))
    given = (
        layers,
        packet(0, key=True),
        packet(0, 3, key=True),
        packet(500),
        packet(600, key=True),
        packet(610, 3),
        packet(620, 2),
        packet(1100),
        packet(1110, 3),
        packet(1120, 3, key=True),
        packet(1130, 3),
    )
    assert await through(given) == ([layers, given[4], given[6], given[7], given[9], given[10]], 5)


@pytest.mark.parametrize(("span_ms", "max_bytes"), [(1000, 1 << 20), (1 << 20, 1000)])
async def test_a_sender_that_can_wait_waits_from_half_of_a_bound_to_a_quarter(span_ms: int, max_bytes: int) -> None:
    """Packets of 10 bytes every 10 ms: whether time or bytes are bounded, a hundred of them fill the inbox."""
    relieved: list[int] = []
    taken = 0
    filling = PauseSender(lambda: relieved.append(taken))
    inbox = Inbox(span_ms, max_bytes, filling)
    given = [packet(10 * n) for n in range(200)]
    for n, item in enumerate(given[:60]):
        assert filling.high == (n > 50 if span_ms == 1000 else n >= 50)
        inbox.put(item)
    for item in given[60:]:  # what one read of the socket gave is taken, whatever it was
        inbox.put(item)
    inbox.end(None)
    left = []
    async for each in inbox:
        left.append(each)
        taken += 1
    assert left == given
    assert not filling.high
    assert len(relieved) == 1
    assert 173 <= relieved[0] <= 176


async def test_the_time_of_a_sender_that_waits_is_the_media_s() -> None:
    """What waited in the socket arrives at once."""
    filling = PauseSender(lambda: None)
    inbox = Inbox(1000, 1 << 20, filling)
    for ms in (0, 499, 500):
        assert not filling.high
        inbox.put(EncodedPacket(1, ms * MS, ms * MS, True, b"", 0, 0))
    assert filling.high


async def test_the_reader_waits_for_what_comes_and_hears_how_it_ended() -> None:
    inbox = Inbox(1000, 1 << 20, PauseSender(lambda: None))
    got: list[Item] = []

    async def read() -> None:
        async for item in inbox:
            got.append(item)
            inbox.put(packet(len(got))) if len(got) < 3 else inbox.end(ProtocolError("it broke"))

    reading = asyncio.create_task(read())
    inbox.put(BOTH)
    with pytest.raises(ProtocolError, match="it broke"):
        await reading
    assert got == [BOTH, packet(1), packet(2)]
    inbox.put(packet(3))
    inbox.end(None)
    with pytest.raises(ProtocolError, match="it broke"):
        await anext(aiter(inbox))
