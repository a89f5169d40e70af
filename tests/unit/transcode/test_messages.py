"""The messages between gateway and worker survive any split, and what a broken worker sends is refused within bounds."""

import random
import struct
from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Track
from transcode import messages
from transcode.adaptation import Effort
from transcode.messages import MAX_BODY, MessageReader, StreamReport, Usage, WorkerMessage
from transcode.plan import AudioTarget, VideoTarget

PACKET = EncodedPacket(7, -5, 2**62, True, b"data", 3, 4)
TRACK = Track(7, Codec.H264, extradata=b"\0\1\2", width=1920, height=1080, frame_rate=29.97, reorder=2)
LAYERS = (replace(TRACK, layer="f"), replace(TRACK, layer="h", width=640))
VIDEO = VideoTarget(1280, 720, 1920, 1080, 30.0, 60.0, 2_500_000, 6_000_000)
TEXT: Any = "1"  # where a number is due


def feed(inbox: MessageReader, data: bytes, split: int) -> list[tuple[int, int, int, bytes]]:
    frames = []
    at = 0
    while at < len(data):
        room = inbox.room()
        count = min(split, len(room), len(data) - at)
        room[:count] = data[at : at + count]
        at += count
        frames += [(frame.kind, frame.stream, frame.taken, bytes(frame.body)) for frame in inbox.received(count)]
    return frames


@pytest.mark.parametrize("split", [1, 7, 11, 12, 13, 1000, 1 << 24])
def test_messages_come_out_the_same_in_any_split(split: int) -> None:
    sizes = [0, 1, 500, 33] if split < 100 else [0, 1, 300_000, 33, 0, 2_000_000, 5, 262_132, 262_133, 9]
    sent = [(WorkerMessage.OUTPUT, number, 2**32 - 1 - number, bytes([number]) * size) for number, size in enumerate(sizes)]
    data = b"".join(messages.pack(*message) for message in sent)
    inbox = MessageReader()
    assert feed(inbox, data, split) == sent
    assert len(inbox.room()) <= 3 << 20


def test_the_buffer_falls_back_after_a_large_message() -> None:
    inbox = MessageReader()
    feed(inbox, messages.pack(WorkerMessage.OUTPUT, body=bytes(MAX_BODY)), 1 << 20)
    feed(inbox, messages.pack(WorkerMessage.PROGRESS), 1 << 20)
    assert len(inbox.room()) < 1 << 20


def test_a_message_that_is_too_long_is_refused_by_its_header() -> None:
    with pytest.raises(ProtocolError):
        feed(MessageReader(), struct.pack("<IBxHI", MAX_BODY + 1, 16, 0, 0), 100)


def body(data: bytes) -> memoryview:
    return memoryview(data)[12:]


@pytest.mark.parametrize("silent", [False, True])
def test_a_packet_comes_back_whole(silent: bool) -> None:
    data = messages.pack_packet(3, PACKET, silent, 2**60) + PACKET.data
    assert messages.read_packet(body(data), 7) == (PACKET, silent, 2**60)


def test_what_comes_out_comes_back_with_its_layer() -> None:
    for track in LAYERS:
        packet = PACKET._replace(layer=track.layer)
        data = messages.pack_output(3, 5, packet, LAYERS) + packet.data
        assert messages.read_output(body(data), LAYERS) == packet
    with pytest.raises(ProtocolError):
        messages.read_output(body(data), LAYERS[:1])


@pytest.mark.parametrize(
    "tracks", [[TRACK] * 4, [replace(TRACK, layer="x")], [replace(TRACK, width=TEXT)], [{"codec": "h264"}]], ids=str
)
def test_tracks_that_cannot_be_are_refused(tracks: list[Track]) -> None:
    with pytest.raises(ProtocolError):
        messages.read_tracks(body(messages.pack_tracks(1, 0, tracks)) if isinstance(tracks[0], Track) else memoryview(b"[{}]"))


@pytest.mark.parametrize("target", [VIDEO, replace(VIDEO, layers=3, passed=True), AudioTarget(96_000)])
def test_track_and_target_come_back_whole(target: VideoTarget | AudioTarget) -> None:
    assert messages.read_open(body(messages.pack_open(1, TRACK, target, 7))) == (TRACK, target, 7)
    assert messages.read_tracks(body(messages.pack_tracks(1, 0, [TRACK]))) == (TRACK,)


def test_small_messages_come_back_whole() -> None:
    assert messages.read_bitrate(body(messages.pack_bitrate(1, 5_000_000))) == 5_000_000
    assert messages.read_bitrate(body(messages.pack_bitrate(1, -1))) == 0
    report = StreamReport(1, 2, 3, 4, 5)
    assert messages.read_stats(body(messages.pack_stats(3, 9, report))) == report
    assert messages.read_usage(body(messages.pack_usage(9, Usage(7, 8)))) == Usage(7, 8)


def test_a_packet_too_large_for_a_message_is_known_beforehand() -> None:
    assert messages.fits(PACKET)
    assert not messages.fits(EncodedPacket(1, 0, 0, True, bytes(MAX_BODY), 0, 0))


def test_random_bodies_give_only_protocol_errors() -> None:
    source = random.Random(1)
    good = [
        bytes(body(messages.pack_tracks(1, 0, LAYERS))),
        b'{"codec": "h264", "extradata": "zz"}',
        b"[" * 5000,
        b"{}",
        b"[]",
        b"1",
    ]
    good.append(good[0].replace(b"1920", b'"1920"'))
    for _ in range(3000):
        data = bytearray(source.choice(good) if source.random() < 0.7 else source.randbytes(60))
        for _ in range(source.randrange(4)):
            if data:
                data[source.randrange(len(data))] = source.randrange(256)
        for read in (
            messages.read_tracks,
            messages.read_stats,
            messages.read_usage,
            lambda view: messages.read_output(view, LAYERS),
        ):
            try:
                result = read(memoryview(bytes(data)))
            except ProtocolError:
                continue
            if isinstance(result, EncodedPacket):
                assert result.layer in ("f", "h")
            elif isinstance(result, tuple) and not isinstance(result, Usage):
                assert len(result) <= 3
                assert all(type(track.width) is int and type(track.extradata) is bytes for track in result)


def test_words_of_a_worker_are_bounded_and_printable() -> None:
    assert messages.read_text(memoryview(b"NVENC has failed\n\x1b[31m" + b"x" * 5000)) == "NVENC has failed  [31m" + "x" * 278
    assert messages.read_text(memoryview(b"\xff")) == "\ufffd"


def test_the_effort_comes_back_whole() -> None:
    effort = Effort(lower=2, shed=1, scale=0.5)
    assert messages.read_effort(body(messages.pack_effort(3, effort))) == effort
