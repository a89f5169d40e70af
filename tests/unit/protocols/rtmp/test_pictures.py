"""Pictures of messages in every framing that encoders use: each whole, in order, and none after one that is missing."""

import time
from collections.abc import Callable, Sequence
from functools import cache

import pytest

from protocols.bitstream.nal import START, split_annexb
from protocols.media import Codec, EncodedPacket, Kind, Lack, TracksChanged
from protocols.rtmp.chunk import RtmpMessage
from protocols.rtmp.tracks import MediaItem, MediaTracks
from tests.unit.transcode.media import pictures

MS = 1_000_000
OPTIONS = {
    Codec.H264: ("x264-params", "keyint=10:scenecut=0"),
    Codec.HEVC: ("x265-params", "log-level=none:repeat-headers=1:keyint=10:min-keyint=10:bframes=0:scenecut=0:open-gop=0"),
}
HEADS = {Codec.H264: 0x27, Codec.HEVC: 0x2C}
CODECS = pytest.mark.parametrize("codec", HEADS)


@cache
def source(codec: Codec, size: tuple[int, int] = (320, 192)) -> tuple[tuple[bytes, ...], ...]:
    """The NAL units of each of 30 pictures of 4 slices, with parameter sets at each 10th, a key frame."""
    name, options = OPTIONS[codec]
    packets = pictures(codec, size, seconds=1, options={name: f"{options}:slices=4"}, gop=10)[1]
    return tuple(tuple(split_annexb(packet.data)) for packet in packets)


def slices(codec: Codec, units: Sequence[bytes]) -> list[bytes]:
    if codec is Codec.H264:
        return [unit for unit in units if unit[0] & 0x1F in (1, 5)]
    return [unit for unit in units if unit[0] >> 1 & 0x3F < 32]


def by_length(units: Sequence[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(4) + unit for unit in units)


def by_start_code(units: Sequence[bytes], code: bytes = START) -> bytes:
    return b"".join(code + unit for unit in units)


class Encoder:
    """What becomes of messages, sent one after the other; each 40 ms later than the one before, or at a time of its own."""

    def __init__(self, codec: Codec, *, patient: bool = True) -> None:
        self.tracks = MediaTracks(patient)
        self.items: list[MediaItem] = []
        self.head = HEADS[codec]

    def send(self, body: bytes, time: int, *, kind: int = 1) -> None:
        head = bytes([self.head, kind, 0, 0, 0])
        self.items += self.tracks.video(RtmpMessage(9, 1, time, head + body, time * MS, time * MS))

    def end(self) -> list[EncodedPacket]:
        self.items += self.tracks.settle(None)
        return [item for item in self.items if isinstance(item, EncodedPacket)]

    def told(self) -> list[tuple[Lack, Kind | None]]:
        return [(item.lack, item.kind) for item in self.tracks.left_out.take()]


def whole(codec: Codec) -> list[bytes]:
    """What comes of a message for each picture, by lengths."""
    encoder = Encoder(codec)
    for number, units in enumerate(source(codec)):
        encoder.send(by_length(units), 40 * number)
    found = encoder.end()
    assert len(found) == 30
    assert [packet.keyframe for packet in found] == [number % 10 == 0 for number in range(30)]
    return [packet.data for packet in found]


@CODECS
@pytest.mark.parametrize("code", [START, START[1:]], ids=["4 bytes", "3 bytes"])
def test_start_codes_are_taken_for_what_they_are(codec: Codec, code: bytes) -> None:
    encoder = Encoder(codec)
    for number, units in enumerate(source(codec)):
        encoder.send(by_start_code(units, code), 40 * number)
    assert [packet.data for packet in encoder.end()] == whole(codec)
    assert encoder.told() == []


@CODECS
def test_a_header_of_start_codes(codec: Codec) -> None:
    encoder = Encoder(codec)
    sets = [unit for unit in source(codec)[0] if unit not in slices(codec, source(codec)[0])]
    encoder.send(by_start_code(sets), 0, kind=0)
    (change,) = encoder.items
    assert isinstance(change, TracksChanged)
    assert (change.tracks[0].width, change.tracks[0].height) == (320, 192)
    for number, units in enumerate(source(codec)):
        encoder.send(by_start_code(slices(codec, units)), 40 * number)
    assert len(encoder.end()) == 30


def test_lengths_that_look_like_start_codes() -> None:
    """A unit of 256 to 511 bytes has 00 00 01 in its length."""
    small = source(Codec.H264, (64, 64))
    assert any(256 <= len(units[0]) < 512 for units in small)
    encoder = Encoder(Codec.H264)
    for number, units in enumerate(small):
        encoder.send(by_length(units), 40 * number)
    assert [packet.data for packet in encoder.end()] == [by_start_code(units) for units in small]


@CODECS
@pytest.mark.parametrize("framing", [by_length, by_start_code])
def test_a_message_for_each_slice(codec: Codec, framing: Callable[[Sequence[bytes]], bytes]) -> None:
    encoder = Encoder(codec)
    for number, units in enumerate(source(codec)):
        cut = slices(codec, units)
        before = [unit for unit in units if unit not in cut]
        assert len(cut) == 4
        for message in ([*before, cut[0]], *([unit] for unit in cut[1:])):
            encoder.send(framing(message), 40 * number)
    found = encoder.end()
    assert [packet.data for packet in found] == whole(codec)
    assert [packet.dts // MS for packet in found] == [40 * number for number in range(30)]
    assert encoder.told() == []


@CODECS
def test_a_message_for_each_unit(codec: Codec) -> None:
    encoder = Encoder(codec)
    for number, units in enumerate(source(codec)):
        for unit in units:
            encoder.send(by_length([unit]), 40 * number)
    assert [packet.data for packet in encoder.end()] == whole(codec)


def test_slices_that_come_unexpected_cost_up_to_the_next_key_frame() -> None:
    encoder = Encoder(Codec.H264, patient=False)
    for number, units in enumerate(source(Codec.H264)):
        cut = slices(Codec.H264, units)
        messages = [units] if number < 5 else [[cut[0]], *([unit] for unit in cut[1:])]
        for message in messages if number % 10 else [units]:
            encoder.send(by_length(message), 40 * number)
    found = encoder.end()
    assert [packet.data for packet in found if packet.dts >= 400 * MS] == whole(Codec.H264)[10:]
    assert [packet.dts // 40 // MS for packet in found if packet.dts < 400 * MS] == [0, 1, 2, 3, 4, 5], "the 6th came in parts"
    assert encoder.told() == [(Lack.UNREADABLE, Kind.VIDEO)]


def test_messages_go_on_at_once_where_a_picture_is_one() -> None:
    encoder = Encoder(Codec.H264)
    for number, units in enumerate(source(Codec.H264)[:3]):
        encoder.send(by_length(units), 40 * number)
        assert encoder.tracks.due == (100 * MS if number == 0 else None), "the first waits to see whether more of it comes"
    assert len(encoder.items) == 1 + 3


def test_the_first_picture_waits_no_longer_than_it_must() -> None:
    encoder = Encoder(Codec.H264)
    encoder.send(by_length(source(Codec.H264)[0]), 0)
    assert list(encoder.tracks.settle(99 * MS)) == []
    change, packet = encoder.tracks.settle(100 * MS)
    assert isinstance(change, TracksChanged)
    assert isinstance(packet, EncodedPacket)
    assert encoder.tracks.due is None


@CODECS
@pytest.mark.parametrize("behind", [bytes(4), bytes(1), bytes(2), bytes(8), bytes(9)], ids=len)
def test_zeros_behind_a_picture_cost_nothing(codec: Codec, behind: bytes) -> None:
    encoder = Encoder(codec)
    for number, units in enumerate(source(codec)):
        encoder.send(by_length(units) + (behind if number % 3 == 0 else b""), 40 * number)
    assert [packet.data for packet in encoder.end()] == whole(codec)
    assert encoder.told() == [(Lack.UNREADABLE, Kind.VIDEO)]
    assert encoder.tracks.left_out.unreadable == 10


@CODECS
def test_a_picture_that_is_cut_costs_the_rest_of_its_group(codec: Codec) -> None:
    encoder = Encoder(codec)
    for number, units in enumerate(source(codec)):
        encoder.send(by_length(units)[: -7 if number == 13 else None], 40 * number)
    shown = [packet.dts // 40 // MS for packet in encoder.end()]
    assert shown == [*range(13), *range(20, 30)]


def test_a_lost_picture_is_known_by_the_next_ones_number() -> None:
    """A message of one byte was a picture, or none: H.264 counts its pictures."""
    for missing, shown in ((True, [*range(13), *range(20, 30)]), (False, [*range(30)])):
        encoder = Encoder(Codec.H264)
        for number, units in enumerate(source(Codec.H264)):
            if number == 13:
                encoder.tracks.broken(Kind.VIDEO, 1, "a tag of one byte")
            if number != 13 or not missing:
                encoder.send(by_length(units), 40 * number)
        assert [packet.dts // 40 // MS for packet in encoder.end()] == shown


@CODECS
def test_a_broken_parameter_set_leaves_the_one_before(codec: Codec) -> None:
    encoder = Encoder(codec)
    broken = {Codec.H264: b"\x67\x42", Codec.HEVC: b"\x42\x01\x01"}[codec]
    for number, units in enumerate(source(codec)):
        encoder.send(by_length([broken, *units] if number == 10 else units), 40 * number)
    assert [packet.data for packet in encoder.end()] == whole(codec)
    assert encoder.told() == [(Lack.UNREADABLE, Kind.VIDEO)]


@CODECS
def test_another_codec_among_the_messages_costs_that_message(codec: Codec) -> None:
    other = HEADS[Codec.HEVC if codec is Codec.H264 else Codec.H264]
    encoder = Encoder(codec)
    for number, units in enumerate(source(codec)):
        if number == 5:
            for head in (other, 0x22, 0x24):
                junk = bytes([head, 1, 0, 0, 0]) + bytes(range(12))
                encoder.items += encoder.tracks.video(RtmpMessage(9, 1, 200, junk, 200 * MS, 200 * MS))
        encoder.send(by_length(units), 40 * number)
    shown = [packet.dts // 40 // MS for packet in encoder.end()]
    assert shown == ([*range(30)] if codec is Codec.H264 else [*range(5), *range(10, 30)])
    assert encoder.tracks.left_out.unreadable == 3


@CODECS
@pytest.mark.parametrize("patient", [True, False])
def test_another_codec_in_band_takes_over_at_its_key_frame(codec: Codec, patient: bool) -> None:
    other = Codec.HEVC if codec is Codec.H264 else Codec.H264
    encoder = Encoder(codec, patient=patient)
    for number, units in enumerate(source(codec)[:5]):
        encoder.send(by_length(units), 40 * number)
    encoder.head = HEADS[other]
    for number, units in enumerate(source(other)[:5], 5):
        encoder.send(by_length(units), 40 * number)
    assert [packet.data for packet in encoder.end()] == whole(codec)[:5] + whole(other)[:5]
    assert [item.tracks[0].codec for item in encoder.items if isinstance(item, TracksChanged)] == [codec, other]
    assert encoder.told() == []


@CODECS
def test_what_lacks_its_header_is_told_in_time_and_heals(codec: Codec) -> None:
    encoder = Encoder(codec)
    for number, units in enumerate(source(codec) * 2):
        encoder.send(by_length(units if number >= 50 else slices(codec, units)), 40 * number)
        if number == 37:
            assert encoder.told() == []
    assert encoder.told() == [(Lack.NO_HEADER, Kind.VIDEO)]
    assert len(encoder.end()) == 10


def test_slices_without_end_are_bounded() -> None:
    first, second = slices(Codec.H264, source(Codec.H264)[0])[:2]
    encoder = Encoder(Codec.H264)
    encoder.send(by_length(source(Codec.H264)[0][:-3]), 0)
    assert first
    for _ in range(6000):
        encoder.send(by_length([second]), 0)
    assert encoder.end() == []
    assert encoder.told() == [(Lack.UNREADABLE, Kind.VIDEO)]


@pytest.mark.parametrize("filling", [bytes(8 << 20), (bytes(3) + b"\x01") * (2 << 20)], ids=["zeros", "start codes"])
def test_a_message_of_nothing_costs_little(filling: bytes) -> None:
    encoder = Encoder(Codec.H264)
    began = time.thread_time()
    encoder.send(by_length(source(Codec.H264)[0]) + filling, 0)
    assert time.thread_time() - began < 0.5, "in one pass of C, not in Python for each of two million units"
    assert encoder.told() == [(Lack.UNREADABLE, Kind.VIDEO)]


def test_a_key_frame_that_is_cut_is_waited_for() -> None:
    """Whatever its pictures' numbers say."""
    encoder = Encoder(Codec.H264)
    for number, units in enumerate(source(Codec.H264)):
        encoder.send(by_length(units)[: -7 if number == 10 else None], 40 * number)
    assert [packet.dts // 40 // MS for packet in encoder.end()] == [*range(10), *range(20, 30)]
