"""Access units however the PES are cut: all pictures of a real encoder, equal to the byte."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest

from protocols.bitstream.nal import split_annexb
from protocols.media import Codec, EncodedPacket, TracksChanged
from protocols.srt.tracks import TsDemuxer
from tests.support.transport_stream import PLAIN, Framing, messages, packets
from tests.unit.protocols.srt.streams import PMT_PID, VIDEO_PID, X264, muxed, pat, pes, pmt
from tests.unit.protocols.srt.streams import packets as ts_packets
from tests.unit.protocols.srt.test_tracks import X265, demux, nal_units, units

STEP = 3000  # ticks: 30 pictures a second
SLICES = ("-x264-params", "slices=4", "-bf", "0", "-an")
H264, HEVC = 0x1B, 0x24


class Piece(NamedTuple):
    """What becomes a PES. `length`: what its header says, None: as it is, 0: nothing."""

    data: bytes
    pts: int | None
    length: int | None = 0


Cut = Callable[[Sequence[bytes], random.Random], Iterator[Piece]]


def stamps(count: int) -> Iterator[int]:
    return itertools.islice(itertools.count(90_000, STEP), count)


def whole(pictures: Sequence[bytes], _: random.Random) -> Iterator[Piece]:
    for picture, pts in zip(pictures, stamps(len(pictures)), strict=True):
        yield Piece(picture, pts)


def lengths_modulo_65536(pictures: Sequence[bytes], _: random.Random) -> Iterator[Piece]:
    for piece in whole(pictures, _):
        yield piece._replace(length=(len(piece.data) + 8) % 65536)


def lengths_too_long(pictures: Sequence[bytes], chance: random.Random) -> Iterator[Piece]:
    for piece in whole(pictures, chance):
        yield piece._replace(length=min(65535, len(piece.data) + chance.randrange(9, 5000)))


def lengths_too_short(pictures: Sequence[bytes], chance: random.Random) -> Iterator[Piece]:
    for piece in whole(pictures, chance):
        yield piece._replace(length=chance.randrange(9, min(65535, len(piece.data) + 7)))


def several(pictures: Sequence[bytes], chance: random.Random) -> Iterator[Piece]:
    at = 0
    while at < len(pictures):
        count = chance.randint(1, 5)
        yield Piece(b"".join(pictures[at : at + count]), 90_000 + at * STEP)
        at += count


def slices(pictures: Sequence[bytes], _: random.Random) -> Iterator[Piece]:
    for picture, pts in zip(pictures, stamps(len(pictures)), strict=True):
        starts = [at for at in range(len(picture)) if picture.startswith(b"\0\0\1", at)]
        for begin, end in itertools.pairwise([0, *starts[1:], len(picture)]):
            yield Piece(picture[begin:end], pts)


def at_a_largest_size(pictures: Sequence[bytes], _: random.Random) -> Iterator[Piece]:
    for piece in whole(pictures, _):
        for at in range(0, len(piece.data), 2000):
            yield Piece(piece.data[at : at + 2000], None if at else piece.pts, None)


def anywhere(pictures: Sequence[bytes], chance: random.Random) -> Iterator[Piece]:
    """The stamp of a PES is that of the first picture that begins in it."""
    data = b"".join(pictures)
    begins = dict(zip(itertools.accumulate(map(len, pictures), initial=0), stamps(len(pictures)), strict=False))
    at = 0
    while at < len(data):
        size = chance.choice((chance.randint(1, 20), chance.randint(100, 3000), 20_000))
        stamp = next((begins[begin] for begin in range(at, min(len(data), at + size)) if begin in begins), None)
        yield Piece(data[at : at + size], stamp, chance.choice((0, None)))
        at += size


CUTS: Sequence[Cut] = (
    *(whole, lengths_modulo_65536, lengths_too_long, lengths_too_short),
    *(several, slices, at_a_largest_size, anywhere),
)


def source(kind: int, *more: str) -> list[bytes]:
    """The pictures of an encoder as byte streams, with delimiters as the muxer puts them."""
    encoder = X264 if kind == H264 else X265
    reader = TsDemuxer()
    found: list[bytes] = []
    for unit in units(demux(muxed(*encoder, "-bf", "0", *more, seconds=2), demuxer=reader)):
        delimiter = b"\0\0\0\1\x09\xf0" if kind == H264 else b"\0\0\0\1\x46\x01\x50"
        found.append(delimiter + unit.data)
    return found


def stream(pieces: Iterator[Piece], kind: int) -> bytes:
    made, counter = [pat({1: PMT_PID}), pmt({VIDEO_PID: kind})], 0
    for piece in pieces:
        body = pes(piece.data, piece.pts, known=piece.length is None)
        if piece.length:
            body = body[:4] + piece.length.to_bytes(2) + body[6:]
        cut = ts_packets(VIDEO_PID, body, counter)
        counter += len(cut)
        made += cut
    return b"".join(made)


@pytest.mark.parametrize("cut", CUTS, ids=[cut.__name__ for cut in CUTS])
@pytest.mark.parametrize("kind", [H264, HEVC], ids=["h264", "hevc"])
@pytest.mark.parametrize("seed", range(3))
def test_all_pictures_are_given_to_the_byte(cut: Cut, kind: int, seed: int) -> None:
    pictures = source(kind, *(SLICES if kind == H264 else ("-an",)))
    large = pictures[0] + b"\0\0\0\1" + (b"\x0c" if kind == H264 else b"\x4c\x01") + b"\xff" * 70_000 + b"\x80"  # filler
    chance = random.Random(seed)
    given = units(demux(stream(cut([*pictures[:9], large, *pictures[1:]], chance), kind)))
    codec = Codec.H264 if kind == H264 else Codec.HEVC
    wanted = [nal_units(picture, codec) for picture in [*pictures[:9], large, *pictures[1:]]]
    assert len(wanted) - 1 <= len(given) <= len(wanted), "the last has no next to show its end"
    for unit, other in zip(given, wanted, strict=False):
        assert nal_units(unit.data, codec) == other
    assert [unit.dts for unit in given] == pytest.approx([pts * 100_000 // 9 for pts in stamps(len(given))], abs=1_000_000)


def test_pictures_without_delimiters_and_sei_between_slices() -> None:
    pictures = [picture[6:] for picture in source(H264, *SLICES)]
    given = units(demux(stream(anywhere(pictures, random.Random(3)), H264)))
    assert [unit.data for unit in given] == pictures[: len(given)]
    assert len(given) >= len(pictures) - 1


def test_a_stream_of_whole_pes_is_not_held() -> None:
    pictures = source(H264, "-an")
    data = stream(whole(pictures, random.Random(1)), H264)
    demuxer, given, begun = TsDemuxer(), 0, 0
    behind: list[int] = []
    for at in range(0, len(data), 188):
        packet = data[at : at + 188]
        begun += packet[1] & 0x40 != 0 and packet[1] & 0x1F == VIDEO_PID >> 8
        given += len(units(demuxer.feed(packet, 0)))
        behind.append(begun - given)
    assert behind[-1] == 0


FAULTS = {
    "srt-two-pictures-a-pes.ts": (PLAIN, 74, 141),
    "srt-pes-per-slice.ts": (PLAIN, 75, 141),
    "srt-picture-cut-at-2000.ts": (PLAIN, 50, 94),
    "srt-rtp-headers.bin": (Framing(before_message=12), 75, 141),
    "srt-192-byte-packets.bin": (Framing(before_packet=4), 75, 141),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_streams_are_whole(name: str) -> None:
    framing, pictures, sound = FAULTS[name]
    demuxer = TsDemuxer()
    items = [item for message in messages(name, framing) for item in demuxer.feed(message.data, round(message.due * 1e9))]
    video = [item for item in items if isinstance(item, EncodedPacket) and item.track == 256]
    assert pictures - 1 <= len(video) <= pictures
    assert sum(isinstance(item, EncodedPacket) for item in items) - len(video) >= sound - 6
    steps = [b.dts - a.dts for a, b in itertools.pairwise(video)]
    assert steps == pytest.approx([40_000_000] * len(steps), abs=100_000)
    assert [unit.data for unit in video] == [unit.data for unit in units(demux(packets(name, framing))) if unit.track == 256]
    assert demuxer.counts.broken == 0
    assert demuxer.packets.sync_lost < 200
    assert [len(split_annexb(unit.data)) for unit in video if not unit.keyframe].count(4) == (
        len(video) - 3 if name == "srt-pes-per-slice.ts" else 0
    )
    assert sum(isinstance(item, TracksChanged) for item in items) == 1


def test_a_picture_that_is_held_goes_out_where_nothing_follows() -> None:
    demuxer = TsDemuxer()
    data = b"".join(message.data for message in messages("srt-picture-cut-at-2000.ts", PLAIN))
    pictures = [unit for unit in units(demuxer.feed(data, 5)) if unit.track == 256]
    assert demuxer.settle(200_000_000) == []
    assert len(pictures) == 49
    (last,) = units(demuxer.settle(300_000_000))
    assert last.dts - pictures[-1].dts == pytest.approx(40_000_000, abs=100)


def test_a_picture_that_takes_long_to_come_is_not_cut() -> None:
    """All but the first key frame at five packets a second."""
    pictures = source(H264, "-an")
    data = stream(whole(pictures[:12], random.Random(1)), H264)
    given: list[EncodedPacket] = []
    demuxer = TsDemuxer()
    for number, at in enumerate(range(0, len(data), 188)):
        given += units(demuxer.feed(data[at : at + 188], max(0, number - 150) * 200_000_000))
    assert [unit.data for unit in given] == [picture[6:] for picture in pictures[: len(given)]]
    assert len(given) >= 11
    assert demuxer.counts.broken == 0


REORDERED = {
    "x264": (H264, (*X264, "-bf", "3", "-x264-params", "b-adapt=0")),
    "x264 in pyramids": (H264, (*X264, "-preset", "fast", "-bf", "5", "-x264-params", "b-pyramid=normal:keyint=20:ref=4")),
    "x264 with open groups": (H264, (*X264, "-bf", "2", "-x264-params", "open-gop=1:keyint=25")),
    "x264 of long groups": (H264, (*X264, "-bf", "2", "-g", "1000")),  # the order's own counter wraps
    "x265": (HEVC, (*X265, "-bf", "3")),
    "x265 with open groups": (HEVC, (*X265, "-x265-params", "log-level=none:open-gop=1:keyint=20:bframes=4:b-adapt=0")),
}


@pytest.mark.parametrize("name", REORDERED)
@pytest.mark.parametrize("seed", range(3))
def test_reordered_pictures_without_times_are_shown_when_they_were_meant_to_be(name: str, seed: int) -> None:
    kind, encoder = REORDERED[name]
    originals = units(demux(muxed(*encoder, "-an", seconds=6)))
    assert any(a.pts > b.pts for a, b in itertools.pairwise(originals))
    delimiter = b"\0\0\0\1\x09\xf0" if kind == H264 else b"\0\0\0\1\x46\x01\x50"
    chance, at = random.Random(seed), 0
    made = [pat({1: PMT_PID}), pmt({VIDEO_PID: kind})]
    counter = 0
    while at < len(originals):
        together = originals[at : at + chance.randint(1, 7)]
        first, data = together[0], b"".join(delimiter + unit.data for unit in together)
        cut = ts_packets(VIDEO_PID, pes(data, ticks(first.pts), dts=ticks(first.dts)), counter)
        made += cut
        counter += len(cut)
        at += len(together)
    given = units(demux(b"".join(made)))
    assert len(originals) - 1 <= len(given) <= len(originals)
    for unit, original in zip(given, originals, strict=False):
        assert unit.dts == pytest.approx(original.dts, abs=1_000_000)
        assert unit.pts == pytest.approx(original.pts, abs=1_000_000)


def ticks(ns: int) -> int:
    return round(ns * 9 / 100_000)
