"""VP8, VP9 and AV1 into payloads and back: by our own depacketizers, by aiortc's, and by GStreamer's."""

import asyncio
from pathlib import Path

import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from protocols.bitstream.av1 import Av1Stream
from protocols.bitstream.obu import Obu
from protocols.media import WEBRTC_VIDEO, Codec
from protocols.webrtc.receive import depacketize
from protocols.webrtc.receive.depacketize import FORMATS
from protocols.webrtc.send.packetize import PACKETIZERS, PAYLOAD_LIMIT, packetize_av1, packetize_vp8, packetize_vp9
from tests.unit.protocols.bitstream.samples import FOLDER, ivf_frames, sample
from tests.unit.protocols.webrtc.receive.test_depacketize import obus

VP8_KEY, VP9_KEY, VP9_INTER, VP9_SHOWN_AGAIN = b"\x10", b"\x82", b"\x86", b"\x88"
FRAME, SEQUENCE_HEADER, DELIMITER, PADDING = 6, 1, 2, 15


@pytest.mark.parametrize("codec", [Codec.VP8, Codec.VP9])
@given(data=st.binary(min_size=1, max_size=6000), limit=st.integers(2, PAYLOAD_LIMIT))
def test_a_frame_of_any_size_comes_back_whole_out_of_equal_fragments(codec: Codec, data: bytes, limit: int) -> None:
    payloads = PACKETIZERS[codec](data, limit)
    depacketize.check(payloads)
    assert FORMATS[codec].frame(payloads) == data
    assert {len(payload) for payload in payloads[:-1]} <= {limit}
    assert len(payloads[-1]) <= limit
    assert [FORMATS[codec].begins(payload) for payload in payloads] == [True] + [False] * (len(payloads) - 1)


def test_a_vp8_frame_begins_once() -> None:
    assert [payload[0] for payload in packetize_vp8(VP8_KEY * 3000)] == [0x10, 0, 0]


@pytest.mark.parametrize(("first", "inter"), [(VP9_KEY, 0), (VP9_INTER, 0x40), (VP9_SHOWN_AGAIN, 0x40)])
def test_a_vp9_frame_says_whether_it_is_a_key_frame_and_where_it_begins_and_ends(first: bytes, inter: int) -> None:
    assert [payload[0] for payload in packetize_vp9(first * 3000)] == [inter | 0x08, inter, inter | 0x04]
    assert packetize_vp9(first) == [bytes((inter | 0x0C,)) + first]


def sized(kind: int, size: int) -> bytes:
    """An OBU of `size` bytes without its size field, with it."""
    return Obu(bytes((kind << 3,)), b"\x55" * (size - 1)).sized


@given(
    shape=st.lists(st.tuples(st.sampled_from([SEQUENCE_HEADER, 3, 4, 5, FRAME]), st.integers(2, 3000)), min_size=1, max_size=9),
    limit=st.integers(40, PAYLOAD_LIMIT),
)
def test_any_obus_come_back_and_no_packet_but_the_last_ends_with_one(shape: list[tuple[int, int]], limit: int) -> None:
    unit = b"".join(sized(kind, size) for kind, size in shape)
    payloads = packetize_av1(unit, limit)
    depacketize.check(payloads)
    assert depacketize.av1_frame(payloads) == unit
    assert max(map(len, payloads)) <= limit
    assert [payload[0] & 0xC0 for payload in payloads] == [0x40, *[0xC0] * (len(payloads) - 2), 0x80][: len(payloads)] or (
        len(payloads) == 1 and payloads[0][0] & 0xC0 == 0
    )
    assert [payload[0] & 0x08 for payload in payloads] == [0x08 * (shape[0][0] == SEQUENCE_HEADER)] + [0] * (len(payloads) - 1)
    assert [FORMATS[Codec.AV1].begins(payload) for payload in payloads] == [True] + [False] * (len(payloads) - 1)


def test_a_large_obu_leaves_in_equal_fragments() -> None:
    for begins in (sized(SEQUENCE_HEADER, 12) + sized(FRAME, 30_000), sized(FRAME, 30_000)):
        payloads = packetize_av1(begins)
        assert {len(payload) for payload in payloads[:-1]} == {PAYLOAD_LIMIT}
        assert len(payloads) == 26
        assert payloads[1][0] == 0xD0  # one element that goes on both ways, without its length


def test_delimiters_and_padding_stay_here() -> None:
    header, frame = sized(SEQUENCE_HEADER, 5), sized(FRAME, 40)
    payloads = packetize_av1(sized(DELIMITER, 1) + header + frame + sized(PADDING, 9))
    assert payloads == [bytes((0x28, 5)) + bytes((header[0] & 0xFD,)) + header[2:] + bytes((frame[0] & 0xFD,)) + frame[2:]]
    assert packetize_av1(sized(DELIMITER, 1)) == []


@pytest.mark.parametrize("data", [b"\x32\x09short", b"\x32\xff\xff\xff\xff\xff", b"\x36", b"\x32"])
def test_what_is_not_made_of_obus_gives_nothing(data: bytes) -> None:
    assert packetize_av1(data) == []


def test_all_that_viewers_are_sent_can_be_packetized() -> None:
    assert PACKETIZERS.keys() == WEBRTC_VIDEO | {Codec.OPUS}


@pytest.mark.parametrize("codec", [Codec.VP8, Codec.VP9, Codec.AV1])
def test_no_data_gives_nothing(codec: Codec) -> None:
    assert PACKETIZERS[codec](b"", PAYLOAD_LIMIT) == []


@given(st.binary(max_size=400), st.integers(4, 40))
def test_any_bytes_give_av1_payloads_within_the_limit(data: bytes, limit: int) -> None:
    assert all(1 < len(payload) <= limit for payload in packetize_av1(data, limit))


@pytest.mark.parametrize("limit", [60, PAYLOAD_LIMIT])
def test_av1_of_an_encoder_comes_back(limit: int) -> None:
    whole = (FOLDER / "av1_main.obu").read_bytes()
    frames: list[bytes] = []
    for each in obus(whole):
        if each[0] >> 3 & 15 == DELIMITER:
            frames.append(b"")
        frames[-1] += each
    sent, received = Av1Stream(0), Av1Stream(0)
    units = [sent.temporal_unit(frame) for frame in frames]
    again = [received.temporal_unit(depacketize.av1_frame(packetize_av1(unit.data, limit))) for unit in units]
    assert len(units) > 5
    assert again == units
    assert [packetize_av1(unit.data)[0][0] & 0x08 != 0 for unit in units] == [unit.keyframe for unit in units]
    assert received.track == sent.track


def test_aiortc_reads_our_vp8() -> None:
    for frame in ivf_frames(sample("vp8.ivf")):
        read = [VpxPayloadDescriptor.parse(payload) for payload in packetize_vp8(frame, 200)]
        assert b"".join(data for _, data in read) == frame
        assert [(descriptor.partition_start, descriptor.partition_id, descriptor.picture_id) for descriptor, _ in read] == [
            (1, 0, None),
            *[(0, 0, None)] * (len(read) - 1),
        ]


@pytest.mark.parametrize(("name", "codec"), [("vp8.ivf", Codec.VP8), ("vp9.ivf", Codec.VP9)])
async def test_gstreamer_reads_our_vpx(name: str, codec: Codec, tmp_path: Path) -> None:
    frames = ivf_frames(sample(name))
    received, written = tmp_path / "rtp", tmp_path / "frames"
    with received.open("wb") as file:
        sequence = 65_530
        for number, frame in enumerate(frames):
            payloads = PACKETIZERS[codec](frame, 200)
            for payload in payloads:
                packet = RtpPacket(
                    marker=int(payload is payloads[-1]),
                    payload_type=96,
                    sequence_number=sequence & 0xFFFF,
                    timestamp=3000 * number,
                    ssrc=7,
                    payload=payload,
                ).serialize()
                file.write(len(packet).to_bytes(2, "big") + packet)  # RFC 4571
                sequence += 1
    process = await asyncio.create_subprocess_exec(
        "gst-launch-1.0", "-q",
        "filesrc", f"location={received}",
        "!", f"application/x-rtp-stream,media=video,clock-rate=90000,encoding-name={codec.upper()},payload=96",
        "!", "rtpstreamdepay", "!", f"rtp{codec}depay", "!", "filesink", f"location={written}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert written.read_bytes() == b"".join(frames)
