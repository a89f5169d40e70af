"""Pictures leave the decoder as soon as they are certain to be next, and never too early: whatever encoders do with B-frames and times."""

import itertools
import random
from collections.abc import Callable

import pytest

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.h264 import WITH_CHROMA_FORMAT
from protocols.bitstream.picture_order import PicturePosition
from protocols.media import Codec, EncodedPacket
from tests.unit.transcode.media import MS, pictures
from transcode.worker.decoder import VideoDecoder
from transcode.worker.presentation import Presentation

FRAME = 33 * MS
START = b"\0\0\0\1"
Times = Callable[[int], int]  # ms from a picture to the next


def x264(b_frames: int, pyramid: str = "normal", more: str = "", adaptive: int = 0) -> dict[str, str]:
    params = f"b-pyramid={pyramid}{more}"
    return {"preset": "veryfast", "bf": str(b_frames), "b_strategy": str(adaptive), "x264-params": params}


STREAMS = {
    "none": x264(0),
    "1": x264(1),
    "2": x264(2),
    "2 as strict pyramid": x264(2, "strict"),
    "2 without pyramid": x264(2, "none"),
    "2 in open groups": x264(2, more=":open-gop=1"),
    "3": x264(3),
    "3 in open groups": x264(3, "none", more=":open-gop=1"),
    "5": x264(5),
    "as many as it likes": x264(3, adaptive=1),
}
LONGEST = {
    "none": 0,
    "1": 2,
    "as many as it likes": 5,
}  # packets that a picture waits for its order; for others B-frames and two
RATES: dict[str, Times] = {
    "steady": lambda number: 33,
    "varying": lambda number: (17, 33, 150, 33, 66, 33, 66)[number * number % 7],
    "suddenly faster": lambda number: 100 if number < 65 else 20,
}


def timed(packets: list[EncodedPacket], step: Times) -> list[EncodedPacket]:
    """With other times: each is decoded when there is nothing left that must come before it, as x264 does it."""
    begins = list(itertools.accumulate((step(number) * MS for number in range(len(packets))), initial=0))
    times = dict(zip(sorted(packet.pts for packet in packets), begins, strict=False))
    depth = max(sum(earlier.pts > packet.pts for earlier in packets[:n]) for n, packet in enumerate(packets))
    decoded = [-(depth - number) * FRAME for number in range(depth)] + begins
    return [packet._replace(pts=times[packet.pts], dts=dts) for packet, dts in zip(packets, decoded, strict=False)]


def waits(packets: list[EncodedPacket]) -> list[tuple[int, int]]:
    """Of each picture that comes out: its pts, and how many packets after its own it came."""
    decoder = VideoDecoder(Codec.H264)
    at = {packet.pts: number for number, packet in enumerate(packets)}
    out = [
        (frame.pts or 0, number - at[frame.pts or 0]) for number, packet in enumerate(packets) for frame in decoder.take(packet)
    ]
    out += [(frame.pts or 0, len(packets) - 1 - at[frame.pts or 0]) for frame in decoder.drain()]
    assert decoder.errors == 0
    return out


@pytest.mark.parametrize("name", STREAMS)
def test_no_picture_is_lost_or_waits_for_more_than_its_order(name: str) -> None:
    _, packets = pictures(options=STREAMS[name], seconds=4)
    b_frames = STREAMS[name]["bf"]
    for rate, step in RATES.items():
        changed = timed(packets, step)
        out = waits(changed)
        assert [pts for pts, _ in out] == sorted(packet.pts for packet in changed), rate
        longest = max(wait for _, wait in out)
        assert longest <= LONGEST.get(name, int(b_frames) + 2), rate
        mean = sum(wait for _, wait in out) / len(out)
        assert mean < 1.25, f"{rate}: it waits {mean:.2f} frames where x264 says that two may have to"


@pytest.mark.parametrize("name", ["2", "3 in open groups", "5"])
def test_a_stream_that_does_not_say_how_many_wait_loses_none(name: str) -> None:
    _, packets = pictures(options=STREAMS[name], seconds=4)
    for step in RATES.values():
        silent = [packet._replace(data=without_vui(packet.data)) for packet in timed(packets, step)]
        out = waits(silent)
        assert [pts for pts, _ in out] == sorted(packet.pts for packet in silent)
        assert sum(wait for _, wait in out) / len(out) < 1.25


def test_packets_lost_on_the_way_cost_no_others() -> None:
    _, packets = pictures(options=STREAMS["2"], seconds=4)
    dice = random.Random(3)
    for _ in range(20):
        gone = set(dice.sample(range(10, len(packets)), 5))
        left = [packet for number, packet in enumerate(packets) if number not in gone]
        out = [pts for pts, _ in waits(left)]
        assert out == sorted(packet.pts for packet in left)


def test_decoding_times_after_the_pictures_own_are_not_believed() -> None:
    _, packets = pictures(options=STREAMS["2"], seconds=4)
    late = [
        packet._replace(dts=packet.dts + 3 * FRAME) for packet in packets
    ]  # an encoder whose composition times are negative
    assert [pts for pts, _ in waits(late)][3:] == sorted(packet.pts for packet in packets)[3:]


def test_what_is_due() -> None:
    order = Presentation()
    assert not order.due
    order.decoded(0, -2 * FRAME, PicturePosition(True, 0))
    assert order.due, "an IDR picture"
    order.shown(0)
    order.decoded(3 * FRAME, -FRAME, PicturePosition(False, 6))
    order.decoded(1 * FRAME, 0, PicturePosition(False, 2))
    assert not order.due, "nothing is known of the distance yet"
    order.decoded(2 * FRAME, FRAME, PicturePosition(False, 4))
    assert order.due, "what comes now is decoded after it is shown"
    for number in (1, 2, 3):
        order.shown(number * FRAME)
    order.decoded(6 * FRAME, 2 * FRAME, PicturePosition(False, 12))
    order.decoded(4 * FRAME, 3 * FRAME, PicturePosition(False, 8))
    assert not order.due, "three distances"
    order.decoded(5 * FRAME, 4 * FRAME, PicturePosition(False, 10))
    for number in (4, 5, 6):
        order.shown(number * FRAME)
    order.decoded(9 * FRAME, 5 * FRAME, PicturePosition(False, 18))
    assert not order.due
    order.decoded(7 * FRAME, 6 * FRAME, PicturePosition(False, 14))
    assert order.due, "the neighbour"
    order.shown(7 * FRAME)
    assert not order.due, "one is missing before the next"


def without_vui(data: bytes) -> bytes:
    return b"".join(
        START + (_cut(unit) if unit[0] & 0x1F == 7 else unit)
        for unit in data.replace(START, START[1:]).split(START[1:])
        if unit
    )


def _cut(sps: bytes) -> bytes:
    """An SPS (H.264 §7.3.2.1.1) up to its VUI."""
    raw = unescape(sps, len(sps))
    bits = BitReader(raw[1:])
    profile = bits.bits(8)
    bits.skip(16)
    values = 1 + 3 * (profile in WITH_CHROMA_FORMAT)  # id, chroma format, depths
    for _ in range(values):
        bits.ue()
    if profile in WITH_CHROMA_FORMAT:
        bits.skip(2)
    for _ in range(4):  # frame number bits, order count type and bits, reference frames
        bits.ue()
    bits.skip(1)
    bits.ue()
    bits.ue()
    bits.skip(2)
    if bits.flag():  # cropping
        for _ in range(4):
            bits.ue()
    kept = 8 + bits.position
    value = int.from_bytes(raw) >> (8 * len(raw) - kept) << 2 | 1  # no VUI, and the stop bit
    length = (kept + 2 + 7) // 8
    return (value << (8 * length - kept - 2)).to_bytes(length)
