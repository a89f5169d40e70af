"""The demuxer against real muxers, with libav's as the oracle."""

import io
import itertools
import random
from collections.abc import Callable

import av
import pytest

from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, TracksChanged
from protocols.srt.tracks import Item, TsDemuxer
from tests.unit.protocols.srt.streams import (
    AUDIO_PID,
    PMT_PID,
    TONE,
    VIDEO_PID,
    X264,
    gstreamer_muxed,
    muxed,
    packet,
    packets,
    pat,
    pes,
    pmt,
)  # fmt: skip

X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=30")
SOURCES: dict[str, Callable[[], bytes]] = {
    "h264 aac": lambda: muxed(*X264, "-bf", "0", "-c:a", "aac"),
    "h264 with B-frames, mp2": lambda: muxed("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "30", "-c:a", "mp2"),
    "hevc opus": lambda: muxed(*X265, "-c:a", "libopus", version=9),
    "constant bit rate, ac3": lambda: muxed(
        *X264, "-bf", "0", "-maxrate", "1M", "-bufsize", "1M", "-c:a", "ac3", "-muxrate", "2M"
    ),
    "eac3": lambda: muxed(*X264, "-c:a", "eac3"),
    "latm": lambda: muxed(*X264, "-c:a", "aac", "-mpegts_flags", "latm"),
    "mp3 alone": lambda: muxed("-c:a", "libmp3lame", inputs=TONE),
    "gstreamer": gstreamer_muxed,
    "gstreamer, constant bit rate": lambda: gstreamer_muxed(mux="bitrate=2000000"),
}
CODECS = {
    "h264 aac": {Codec.H264, Codec.AAC},
    "h264 with B-frames, mp2": {Codec.H264, Codec.MP2},
    "hevc opus": {Codec.HEVC, Codec.OPUS},
    "constant bit rate, ac3": {Codec.H264, Codec.AC3},
    "eac3": {Codec.H264, Codec.EAC3},
    "latm": {Codec.H264, Codec.AAC},
    "mp3 alone": {Codec.MP3},
    "gstreamer": {Codec.H264, Codec.AAC},
    "gstreamer, constant bit rate": {Codec.H264, Codec.AAC},
}


def demux(data: bytes, size: Callable[[], int] = lambda: 1316, demuxer: TsDemuxer | None = None) -> list[Item]:
    demuxer = demuxer or TsDemuxer()
    items: list[Item] = []
    at = 0
    while at < len(data):
        step = size()
        items += demuxer.feed(data[at : at + step], 0)
        at += step
    return items


def units(items: list[Item]) -> list[EncodedPacket]:
    return [item for item in items if isinstance(item, EncodedPacket)]


def tracks(items: list[Item]) -> list[set[Codec]]:
    return [{track.codec for track in item.tracks} for item in items if isinstance(item, TracksChanged)]


def nal_units(data: bytes, codec: Codec) -> list[bytes]:
    """Of a byte stream, without those that the gateway leaves out (delimiters, filler), in any order."""
    out = {9, 12} if codec is Codec.H264 else {35, 38}
    found = [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:]]
    return sorted(unit for unit in found if (unit[0] & 31 if codec is Codec.H264 else unit[0] >> 1) not in out)


@pytest.mark.parametrize("name", SOURCES)
def test_units_are_those_of_libav(name: str) -> None:
    data = SOURCES[name]()
    items = demux(data)
    assert tracks(items) == [CODECS[name]]
    ours = units(items)
    codecs = {track.id: track.codec for item in items if isinstance(item, TracksChanged) for track in item.tracks}
    with av.open(io.BytesIO(data), "r", format="mpegts") as container:
        theirs = [(packet.stream.id, packet) for packet in container.demux() if packet.size]
    assert {pid for pid, _ in theirs} == set(codecs)
    for pid, codec in codecs.items():
        mine = [unit for unit in ours if unit.track == pid]
        others = [packet for stream, packet in theirs if stream == pid]
        # The end of the file has no next PES: a unit whose end cannot be known may stay inside
        assert len(others) - 1 <= len(mine) <= len(others)
        for unit, other in zip(mine, others, strict=False):
            assert other.pts is not None
            assert other.dts is not None
            assert abs(unit.pts - other.pts * 100_000 // 9) <= 12_000  # libav counts in ticks of 11 us
            assert abs(unit.dts - other.dts * 100_000 // 9) <= 12_000
            if codec in (Codec.H264, Codec.HEVC):
                assert unit.keyframe == other.is_keyframe
                assert nal_units(unit.data, codec) == nal_units(bytes(other), codec)
            elif name == "latm":
                assert 0 < len(unit.data) < other.size
            else:
                framing = 7 if codec is Codec.AAC else 0  # ADTS
                assert unit.data == bytes(other)[framing:]


@pytest.mark.parametrize("name", SOURCES)
def test_any_split_gives_the_same(name: str) -> None:
    data = SOURCES[name]()
    whole = demux(data, lambda: len(data))
    sizes = random.Random(5)
    assert demux(data, lambda: sizes.randint(1, 4000)) == whole
    assert demux(data[:60_000], lambda: 1) == demux(data[:60_000], lambda: 60_000)


def test_aac_in_latm_decodes_like_aac_in_adts() -> None:
    def pictures(data: bytes) -> list[int]:
        items = demux(data)
        track = next(t for item in items if isinstance(item, TracksChanged) for t in item.tracks if t.codec is Codec.AAC)
        decoder = av.CodecContext.create("aac", "r")
        decoder.extradata = track.extradata
        return [
            frame.samples for unit in units(items) if unit.track == track.id for frame in decoder.decode(av.Packet(unit.data))
        ]

    latm = pictures(SOURCES["latm"]())
    assert len(latm) > 130
    assert latm == pictures(SOURCES["h264 aac"]())[: len(latm)]


def test_most_frames_leave_with_their_own_last_packet() -> None:
    """No frame of delay: once trusted, a frame is out before the first packet of the next is fed."""
    data = SOURCES["h264 aac"]()
    demuxer, early, frames, begun = TsDemuxer(), 0, 0, 0
    for at in range(0, len(data), 188):
        piece = data[at : at + 188]
        starts = piece[1] & 0x5F == 0x40 | VIDEO_PID >> 8 and piece[2] == VIDEO_PID & 255
        begun += starts
        out = [unit for unit in units(demuxer.feed(piece, 0)) if unit.track == VIDEO_PID]
        frames += len(out)
        early += len(out) if not starts else 0
    assert begun - 1 <= frames <= begun
    assert early >= 0.9 * frames


def test_a_second_of_lost_packets_leaves_only_whole_units() -> None:
    data = SOURCES["h264 aac"]()
    lost = random.Random(9)
    messages = [data[at : at + 1316] for at in range(0, len(data), 1316)]
    kept = b"".join(message for index, message in enumerate(messages) if index < 3 or lost.random() > 0.05)
    demuxer = TsDemuxer()
    whole = {unit.data for unit in units(demux(data))}
    given = units(demux(kept, demuxer=demuxer))
    assert demuxer.packets.continuity_errors > 10
    assert demuxer.counts.broken > 5
    assert len(given) > 0.5 * len(whole)
    assert {unit.data for unit in given} <= whole


def test_times_go_on_over_the_wrap_of_33_bits() -> None:
    demuxer, counter = TsDemuxer(), 0
    aac = bytes.fromhex("fff14c4001bffc") + b"\x21\x00\x49\x90\x02\x19"  # one ADTS frame of 13 bytes
    times = []
    demuxer.feed(pat({1: PMT_PID}) + pmt({AUDIO_PID: 0x0F}), 0)
    for n in range(6):
        ticks = ((1 << 33) - 5760 + n * 1920) % (1 << 33)
        made = packets(AUDIO_PID, pes(aac, ticks, stream_id=0xC0, known=True), counter)
        counter += len(made)
        times += [unit.pts for unit in units(demuxer.feed(b"".join(made), 0))]
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) == 6
    assert all(abs(step - 21_333_333) <= 1 for step in steps)


def test_an_adts_frame_across_two_pes_keeps_the_time_of_the_first() -> None:
    frame = bytes.fromhex("fff14c4001bffc") + b"\x21\x00\x49\x90\x02\x19"
    demuxer = TsDemuxer()
    demuxer.feed(pat({1: PMT_PID}) + pmt({AUDIO_PID: 0x0F}), 0)
    first = pes(frame + frame[:5], 90_000, stream_id=0xC0, known=True)
    second = pes(frame[5:] + frame, 93_840, stream_id=0xC0, known=True)
    given = units(demuxer.feed(b"".join(packets(AUDIO_PID, first) + packets(AUDIO_PID, second, 1)), 0))
    assert [unit.data for unit in given] == [frame[7:]] * 3
    assert [unit.pts for unit in given] == [1_000_000_000, 1_021_333_333, 1_042_666_666]


def test_a_changed_programme_map_announces_the_new_tracks() -> None:
    with_video, alone = SOURCES["h264 aac"](), muxed("-c:a", "libmp3lame", "-streamid", "0:512", inputs=TONE)
    items = demux(with_video + alone)
    assert tracks(items)[0] == {Codec.H264, Codec.AAC}
    assert tracks(items)[-1] == {Codec.MP3}
    assert units(items)[-1].track == 512


def test_a_new_picture_size_is_announced_before_its_key_frame() -> None:
    small = muxed(*X264, "-bf", "0", "-an", seconds=1)
    large = muxed(*X264, "-bf", "0", "-an", "-s", "640x480", seconds=1)
    items = demux(small + large)
    sizes = [item.tracks[0].width for item in items if isinstance(item, TracksChanged)]
    assert sizes == [320, 640]
    index = max(index for index, item in enumerate(items) if isinstance(item, TracksChanged))
    following = items[index + 1]
    assert isinstance(following, EncodedPacket)
    assert following.keyframe


def test_a_stream_that_never_speaks_is_not_waited_for() -> None:
    """The map promises audio that does not come: the picture is announced after a second."""
    data = muxed(*X264, "-bf", "0", "-an", seconds=2)
    demuxer = TsDemuxer()
    promise = pmt({VIDEO_PID: 0x1B, AUDIO_PID: 0x0F}, version=9)
    data = data[:564] + b"".join(data[at : at + 188] for at in range(564, len(data), 188) if data[at + 1] & 0x1F != 0x10)
    items: list[Item] = demuxer.feed(data[:376] + pat({1: PMT_PID}) + promise, 0)
    for at in range(564, len(data), 1316):
        items += demuxer.feed(data[at : at + 1316], at * 2_000_000_000 // len(data))
    assert tracks(items) == [{Codec.H264}]
    assert len(units(items)) >= 58


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"", "nothing arrived"),
        (packet(0x1FFF, bytes(184), 0) * 20, "no programme table"),
        (pat({1: PMT_PID}), "no programme map"),
        (pat({1: PMT_PID}) + pmt({0x102: 0x02, 0x103: 0x86}), "MPEG-2 video, SCTE-35"),
        (pat({1: PMT_PID}) + pmt({VIDEO_PID: 0x1B}), "key frame"),
    ],
)
def test_nothing_to_take_within_ten_seconds_is_said_with_advice(data: bytes, advice: str) -> None:
    demuxer = TsDemuxer()
    demuxer.feed(data, 0)
    demuxer.check(9_900_000_000)
    with pytest.raises(ProtocolError, match=advice):
        demuxer.check(10_100_000_000)


def test_unknown_streams_are_counted() -> None:
    demuxer = TsDemuxer()
    demuxer.feed(pat({1: PMT_PID}) + pmt({VIDEO_PID: 0x1B, 0x102: 0x86}) + packet(0x102, bytes(184), 0) * 5, 0)
    assert demuxer.packets.ignored == 5
