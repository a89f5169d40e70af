"""The chunk stream: every header, the odd ones of real encoders, and its bounds."""

import pytest

from protocols.errors import ProtocolError
from protocols.rtmp.buffer import ReceiveBuffer
from protocols.rtmp.chunk import ChunkReader, ChunkWriter, RtmpMessage
from tests.unit.protocols.rtmp.peer import message, read_messages, reader


def header(kind: int, chunk_stream: int = 4, *, time: int = 0, length: int = 0, type_: int = 8, stream_id: int = 1) -> bytes:
    extended = time >= 0xFFFFFF
    fields = (0xFFFFFF if extended else time).to_bytes(3, "big")
    if kind < 2:
        fields += length.to_bytes(3, "big") + bytes([type_])
    if kind == 0:
        fields += stream_id.to_bytes(4, "little")
    return bytes([kind << 6 | chunk_stream]) + fields + (time.to_bytes(4, "big") if extended else b"")


def times(data: bytes) -> list[int]:
    return [got.timestamp for got in read_messages(data)]


def test_all_four_headers() -> None:
    data = (
        header(0, time=1000, length=1)
        + b"a"
        + header(1, time=20, length=2, type_=9)
        + b"bb"
        + header(2, time=30)
        + b"cc"
        + b"\xc4dd"
    )
    assert [(got.timestamp, got.type, bytes(got.payload), got.stream_id) for got in read_messages(data)] == [
        (1000, 8, b"a", 1),
        (1020, 9, b"bb", 1),
        (1050, 9, b"cc", 1),
        (1080, 9, b"dd", 1),
    ]


def test_type_3_after_type_0_repeats_its_timestamp_as_delta() -> None:
    assert times(header(0, time=33, length=1) + b"a\xc4b\xc4c") == [33, 66, 99]


def test_but_not_one_of_a_clock_that_does_not_begin_at_0() -> None:
    assert times(header(0, time=900_000, length=1) + b"a\xc4b") == [900_000, 900_000]


@pytest.mark.parametrize("chunk_stream", [2, 63])
def test_one_byte_chunk_streams(chunk_stream: int) -> None:
    assert len(read_messages(header(0, chunk_stream, length=1) + b"a")) == 1


def test_two_and_three_byte_chunk_streams_are_little_endian() -> None:
    """Chunk stream 320 = 64 + 0 + 1 * 256 in both forms is one stream: its type 3 header finds the message."""
    rest = header(0, length=1)[1:] + b"a"
    assert len(read_messages(b"\x01\x00\x01" + rest + b"\xc1\x00\x01b")) == 2
    assert len(read_messages(b"\x00\xff" + rest + b"\xc0\xffb")) == 2
    with pytest.raises(ProtocolError):
        read_messages(b"\x01\x00\x01" + rest + b"\xc1\x01\x00b")


def test_interleaved_messages() -> None:
    video, audio = bytes(range(200)), b"x" * 150
    data = (
        header(0, 6, length=200, type_=9) + video[:128]
        + header(0, 4, length=150) + audio[:128]
        + b"\xc6" + video[128:]
        + b"\xc4" + audio[128:]
    )  # fmt: skip
    assert [bytes(got.payload) for got in read_messages(data)] == [video, audio]


@pytest.mark.parametrize("chunk", [1, 2, 127, 128, 4096, 65536])
@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 256, 5000])
def test_chunk_sizes_and_lengths(chunk: int, length: int) -> None:
    payload = bytes(index & 0xFF for index in range(length))
    chunks = reader(message(9, payload, chunk=chunk) + message(8, b"next", chunk=chunk))
    chunks.set_chunk_size(chunk)
    first, second = chunks.next(0), chunks.next(0)
    assert first is not None
    assert bytes(first.payload) == payload
    assert second is not None
    assert bytes(second.payload) == b"next"
    assert chunks.next(0) is None
    assert chunks.partial == 0


def test_a_run_of_chunks_with_a_foreign_header_inside_is_read_one_by_one() -> None:
    """0xC6 where chunk stream 4's header would be: it is another stream's chunk, and no payload may be lost."""
    data = header(0, 6, length=200, type_=9) + b"v" * 128
    data += header(0, 4, length=300) + b"a" * 128 + b"\xc6" + b"v" * 72 + b"\xc4" + b"a" * 128 + b"\xc4" + b"a" * 44
    assert [(got.type, len(got.payload), set(got.payload)) for got in read_messages(data)] == [(9, 200, {118}), (8, 300, {97})]


def test_extended_timestamp_repeated_in_each_chunk() -> None:
    """ffmpeg and FMLE repeat it."""
    time = 20_000_000
    data = header(0, time=time, length=300) + b"a" * 128 + (b"\xc4" + time.to_bytes(4, "big") + b"a" * 128)
    data += b"\xc4" + time.to_bytes(4, "big") + b"a" * 44
    assert [(got.timestamp, bytes(got.payload)) for got in read_messages(data)] == [(time, b"a" * 300)]


def test_extended_timestamp_left_out_within_a_message() -> None:
    """OBS of before 2024 and rtmpdump leave it out."""
    data = (
        header(0, time=20_000_000, length=300)
        + b"a" * 128
        + b"\xc4"
        + b"a" * 128
        + b"\xc4"
        + b"a" * 44
        + header(2, time=5)
        + b"b" * 128
    )
    assert [bytes(got.payload) for got in read_messages(data)] == [b"a" * 300]


def test_left_out_before_a_last_chunk_shorter_than_itself() -> None:
    """The message must not wait for bytes of the next to be told from an extended timestamp."""
    data = header(0, time=20_000_000, length=130) + b"a" * 128 + b"\xc4" + b"bb"
    assert [bytes(got.payload) for got in read_messages(data)] == [b"a" * 128 + b"bb"]


def test_extended_delta_repeated_for_a_new_message() -> None:
    delta = 0x01000000
    data = (
        header(0, time=10, length=1) + b"a" + header(1, time=delta, length=1) + b"b" + b"\xc4" + delta.to_bytes(4, "big") + b"c"
    )
    assert times(data) == [10, 10 + delta, 10 + 2 * delta]


def test_negative_delta() -> None:
    """librtmp, audio 20 ms behind video on the same chunk stream: a delta of 0xFFFFFFEC."""
    assert times(header(0, time=1000, length=1) + b"a" + header(1, time=0xFFFFFFEC, length=1) + b"b") == [1000, 980]


def test_timestamp_wraps_at_32_bits() -> None:
    assert times(header(0, time=0xFFFFFFF0, length=1) + b"a" + header(1, time=32, length=1) + b"b") == [0xFFFFFFF0, 16]


def test_absolute_time_may_reach_the_mark_of_extended_by_deltas() -> None:
    assert times(header(0, time=0xFFFFFE, length=1) + b"a" + header(2, time=1) + b"b" + b"\xc4c") == [
        0xFFFFFE,
        0xFFFFFF,
        0x1000000,
    ]


def test_a_new_header_gives_up_the_unfinished_message() -> None:
    chunks = reader(header(0, length=300) + b"a" * 128 + header(0, length=2) + b"bb")
    got = chunks.next(0)
    assert got is not None
    assert bytes(got.payload) == b"bb"
    assert chunks.partial == 0


def test_abort_drops_the_unfinished_message() -> None:
    chunks = reader(header(0, length=300) + b"a" * 128)
    assert chunks.next(0) is None
    assert chunks.partial == 128
    chunks.abort(4)
    chunks.abort(99)
    assert chunks.partial == 0


def test_chunk_size_may_change_within_a_message() -> None:
    change = message(1, (200).to_bytes(4, "big"), 2, 0)
    data = header(0, length=300) + b"a" * 128 + change + b"\xc4" + b"a" * 172
    assert [len(got.payload) for got in read_messages(data)] == [4, 300]


@pytest.mark.parametrize("size", [0, 0x80000000, 0xFFFFFFFF])
def test_chunk_sizes_that_are_none(size: int) -> None:
    with pytest.raises(ProtocolError):
        reader(b"").set_chunk_size(size)


def test_a_chunk_stream_cannot_begin_without_a_length() -> None:
    for kind in (2, 3):
        with pytest.raises(ProtocolError):
            read_messages(bytes([kind << 6 | 9]) + bytes(8))


def test_bounds() -> None:
    with pytest.raises(ProtocolError, match="chunk streams"):
        drain(reader(b"".join(header(0, stream, length=0) for stream in range(2, 40))))
    with pytest.raises(ProtocolError, match="bytes"):
        reader(header(0, length=1000), otherwise=999).next(0)
    with pytest.raises(ProtocolError, match="unfinished"):
        drain(reader(b"".join(header(0, stream, length=200) + bytes(128) for stream in range(2, 12)), partial=1000))


def test_a_length_is_checked_again_when_repeated() -> None:
    chunks = reader(header(0, length=100, type_=9) + bytes(100) + b"\xc4" + bytes(100))
    assert chunks.next(0) is not None
    chunks.allow({9: 99}, 1000)
    with pytest.raises(ProtocolError):
        chunks.next(0)


def test_work_is_bounded_by_steps() -> None:
    chunks = reader(header(0, length=0) + b"\xc4" * 1000)
    chunks.steps = 10
    assert len(drain(chunks)) == 10
    chunks.steps = 5
    assert len(drain(chunks)) == 5


def test_begun_and_arrival() -> None:
    data = message(9, bytes(300))
    buffer = ReceiveBuffer(64)
    chunks = ChunkReader(buffer, streams=32, otherwise=1000, partial=1000)
    got: list[RtmpMessage] = []
    for now, byte in enumerate(data, start=1):
        buffer.space()[:1] = bytes([byte])
        buffer.filled(1)
        chunks.steps = 10
        got += drain(chunks, now)
    assert [(one.begun, one.arrival, len(one.payload)) for one in got] == [(12, len(data), 300)]


def drain(chunks: ChunkReader, now: int = 0) -> list[RtmpMessage]:
    messages: list[RtmpMessage] = []
    while (got := chunks.next(now)) is not None:
        messages.append(got)
    return messages


def test_the_writer_begins_each_message_with_a_whole_header() -> None:
    writer = ChunkWriter()
    first = writer.write(20, bytes(130), chunk_stream=3, stream_id=1)
    assert first[0] == 3
    assert first[12 + 128] == 0xC3
    assert writer.write(20, b"", chunk_stream=3)[0] == 3
    assert len(writer.write(20, bytes(130), chunk_stream=3)) == 12 + 130 + 1
