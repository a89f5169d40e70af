"""Payloads into access units, against our own packetizer, ffmpeg's, and payloads that nobody may send."""

import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from protocols.bitstream.av1 import Av1Stream
from protocols.errors import ProtocolError
from protocols.media import Codec
from protocols.webrtc.receive import depacketize
from protocols.webrtc.receive.depacketize import FORMATS
from protocols.webrtc.send.packetize import packetize_h264
from tests.unit.protocols.bitstream.samples import FOLDER, access_units, ivf_frames, nal_type, nals, sample
from tests.unit.protocols.webrtc.rtp_capture import frames, rtp_of

UNSENT = {9, 12}


@pytest.mark.parametrize("name", ["h264_baseline.h264", "h264_high_b2.h264", "h264_1080p.h264", "h264_main.h264"])
@pytest.mark.parametrize("limit", [60, 1180])
def test_what_our_packetizer_made_comes_back(name: str, limit: int) -> None:
    for unit in access_units(name):
        payloads = packetize_h264(unit, limit)
        depacketize.check(payloads)
        assert nals(depacketize.h264_frame(payloads)) == [nal for nal in nals(unit) if nal_type(nal, hevc=False) not in UNSENT]
        assert FORMATS[Codec.H264].begins(payloads[0])


@pytest.mark.parametrize(
    ("name", "codec"), [("h264_main.h264", Codec.H264), ("h264_high_b3.h264", Codec.H264), ("hevc_b3.hevc", Codec.HEVC)]
)
async def test_nal_units_of_ffmpeg(name: str, codec: Codec) -> None:
    packets = await rtp_of("-i", str(FOLDER / name), "-c", "copy", packet_size=200)
    hevc = codec is Codec.HEVC
    left_out = {35} if hevc else UNSENT
    expected = [[nal for nal in nals(unit) if nal_type(nal, hevc=hevc) not in left_out] for unit in access_units(name)]
    got = [nals(FORMATS[codec].frame(payloads)) for payloads in frames(packets)]
    assert [[nal for nal in unit if nal_type(nal, hevc=hevc) not in left_out] for unit in got] == expected
    assert begins_where_frames_begin(codec, frames(packets))


@pytest.mark.parametrize(("name", "codec"), [("vp8.ivf", Codec.VP8), ("vp9.ivf", Codec.VP9)])
async def test_vpx_of_ffmpeg(name: str, codec: Codec) -> None:
    packets = await rtp_of("-i", str(FOLDER / name), "-c", "copy", "-strict", "experimental", packet_size=200)
    got = [FORMATS[codec].frame(payloads) for payloads in frames(packets)]
    assert got == ivf_frames(sample(name))
    assert max(map(len, frames(packets))) > 1
    assert begins_where_frames_begin(codec, frames(packets))


async def test_av1_of_ffmpeg() -> None:
    sample = str(FOLDER / "av1_main.obu")
    packets = await rtp_of("-i", sample, "-c", "copy", "-strict", "experimental", packet_size=300)
    direct, through = Av1Stream(0), Av1Stream(0)
    units = [through.temporal_unit(depacketize.av1_frame(payloads)) for payloads in frames(packets)]
    assert max(map(len, frames(packets))) > 1
    assert through.track == direct_track(direct, FOLDER / "av1_main.obu")
    assert units[0].keyframe
    assert all(unit.data for unit in units)
    # Every OBU of the file but delimiters and padding, in its order.
    whole = b"".join(obu for obu in obus((FOLDER / "av1_main.obu").read_bytes()) if obu[0] >> 3 & 15 not in (2, 15))
    assert b"".join(unit.data for unit in units) == whole


def obus(data: bytes) -> list[bytes]:
    """Of a low-overhead stream: each has its size in one or two bytes here."""
    found, position = [], 0
    while position < len(data):
        at, size, shift = position + 1, 0, 0
        while True:
            byte = data[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if not byte & 0x80:
                break
        found.append(data[position : at + size])
        position = at + size
    return found


def direct_track(stream: Av1Stream, path: Path) -> object:
    stream.temporal_unit(path.read_bytes())
    return stream.track


async def test_opus_of_ffmpeg() -> None:
    packets = await rtp_of("-f", "lavfi", "-i", "sine=sample_rate=48000:duration=0.5", "-c:a", "libopus", "-ac", "2")
    assert len(packets) == 25 or len(packets) == 26
    assert [depacketize.opus_frame([packet.payload]) for packet in packets] == [packet.payload for packet in packets]


def begins_where_frames_begin(codec: Codec, made: Sequence[list[bytes]]) -> bool:
    """Of every frame the first payload, and no other of a frame in fragments."""
    begins = FORMATS[codec].begins
    first = all(begins(payloads[0]) for payloads in made)
    later = [begins(payload) for payloads in made for payload in payloads[1:]]
    return first and not all(later)


def test_packetization_mode_0_is_nal_units_one_by_one() -> None:
    assert depacketize.h264_frame([b"\x67\x42", b"\x68\xce", b"\x65\x88\x80"]) == (
        b"\0\0\0\1\x67\x42\0\0\0\1\x68\xce\0\0\0\1\x65\x88\x80"
    )


@pytest.mark.parametrize(
    ("codec", "payloads"),
    [
        (Codec.H264, [b"\x7c\x05rest"]),  # a fragment without its beginning
        (Codec.H264, [b"\x7c\x85begin"]),  # without its end
        (Codec.H264, [b"\x7c\x85begin", b"\x41next"]),
        (Codec.H264, [b"\x7c\x85begin", b"\x7c\x85begin"]),
        (Codec.H264, [b"\x7c\x85"]),
        (Codec.H264, [b"\x7c"]),
        (Codec.H264, [b"\x78\x00\x09\x67"]),  # a STAP-A that leads out
        (Codec.H264, [b"\x78\x00\x00\x67"]),
        (Codec.H264, [b"\x79interleaved"]),
        (Codec.H264, [b"\x00zero"]),
        (Codec.HEVC, [b"\x62\x01\x13rest"]),
        (Codec.HEVC, [b"\x62\x01\x93"]),
        (Codec.HEVC, [b"\x60\x01\x00\x09\x40"]),
        (Codec.HEVC, [b"\x64\x01paci"]),
        (Codec.VP8, [b"\x00no beginning"]),
        (Codec.VP8, [b"\x10"]),
        (Codec.VP8, [b"\x90\x80"]),
        (Codec.VP9, [b"\x00no beginning"]),
        (Codec.VP9, [b"\x08no end"]),
        (Codec.VP9, [b"\x0e\xff"]),
        (Codec.AV1, [b"\x90continues nothing"]),
        (Codec.AV1, [b"\x50never ends"]),
        (Codec.AV1, [b"\x00\xff\xff\xff\xff\xff"]),
        (Codec.AV1, [b"\x20\x7fshort"]),
        (Codec.AV1, [b"\x00"]),
        (Codec.OPUS, [b"one", b"two"]),
    ],
)
def test_what_is_broken_is_a_protocol_error(codec: Codec, payloads: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        FORMATS[codec].frame(payloads)


@pytest.mark.parametrize("payloads", [[], [b""], [b"x", b""], [b"x"] * 9000])
def test_a_frame_of_nothing_or_too_much_is_refused(payloads: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        depacketize.check(payloads)


@pytest.mark.parametrize("codec", list(FORMATS))
def test_random_payloads_raise_nothing_else(codec: Codec) -> None:
    generator = random.Random(codec.value)
    for _ in range(4000):
        payloads = [generator.randbytes(generator.choice((1, 2, 3, 5, 40))) for _ in range(generator.randrange(1, 5))]
        for payload in payloads:
            FORMATS[codec].begins(payload)
        try:
            data = FORMATS[codec].frame(payloads)
        except ProtocolError:
            continue
        assert len(data) <= sum(map(len, payloads)) + 8 * sum(map(len, payloads))


def test_an_aggregate_of_a_slice_for_each_row_is_taken_and_dust_is_not() -> None:
    slices = [b"\x41" + bytes((row, 7, 7, 7, 7, 7, 9)) for row in range(68)]
    packet = b"\x78" + b"".join([len(unit).to_bytes(2, "big") + unit for unit in slices])
    assert nals(depacketize.h264_frame([packet])) == slices
    with pytest.raises(ProtocolError, match="too many"):
        depacketize.h264_frame([b"\x78" + b"\x00\x01\x41" * 399])


MANY_UNITS = {
    Codec.H264: b"\x78" + b"\x00\x01\x41" * 399,
    Codec.HEVC: b"\x60\x01" + b"\x00\x03\x02\x01\x80" * 239,
    Codec.AV1: b"\x00" + b"\x02\x10\x00" * 399,
}


@pytest.mark.parametrize("codec", MANY_UNITS)
def test_frames_of_tiny_units_are_refused_before_they_are_all_taken_apart(codec: Codec) -> None:
    """8000 packets of aggregated units of one byte took more than a second."""
    payloads = [MANY_UNITS[codec]] * 3000
    begun = time.process_time()
    with pytest.raises(ProtocolError, match="too many"):
        FORMATS[codec].frame(payloads)
    assert time.process_time() - begun < 0.02
