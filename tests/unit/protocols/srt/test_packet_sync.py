"""Foreign bytes between the packets of a transport stream: headers that every sender of a kind puts there cost nothing, for ever."""

import random
from collections.abc import Callable

import pytest

from protocols.errors import ProtocolError
from protocols.srt.tracks import TsDemuxer
from tests.support.transport_stream import NULL, Framing, messages
from tests.unit.protocols.srt.streams import X264, muxed
from tests.unit.protocols.srt.test_tracks import demux, units


def rtp(packets: list[bytes], each: int, header: int = 12) -> bytes:
    """A header before each so many packets; its SSRC has a sync byte in it."""
    bundles = [packets[at : at + each] for at in range(0, len(packets), each)]
    extension = b"\x47\x47" + ((header - 16) // 4).to_bytes(2) + b"\x47" * (header - 16) if header > 12 else b""
    first = b"\x90\x21" if extension else b"\x80\x21"
    made = [first + number.to_bytes(2) + b"\x47\x01\x02\x47\x47\0\0\x01" + extension for number in range(len(bundles))]
    return b"".join(head + b"".join(bundle) for head, bundle in zip(made, bundles, strict=True))


def arrival_times(packets: list[bytes], first: int) -> bytes:
    """4 bytes before each packet (192 in all), which begin with a sync byte for a while."""
    return b"".join((first + 25_000 * number).to_bytes(4) + packet for number, packet in enumerate(packets))


def parity(packets: list[bytes]) -> bytes:
    """16 bytes behind each packet (204 in all): any."""
    chance = random.Random(4)
    return b"".join(packet + (b"\x47" if chance.random() < 0.1 else b"").ljust(16, b"\x9c") for packet in packets)


FRAMINGS: dict[str, Callable[[list[bytes]], bytes]] = {
    "RTP before seven": lambda packets: rtp(packets, 7),
    "RTP before each": lambda packets: rtp(packets, 1),
    "RTP with an extension": lambda packets: rtp(packets, 7, 28),
    "RTP before one to seven": lambda packets: b"".join(
        rtp(packets[at : at + 28], 1 + at // 28 % 7) for at in range(0, len(packets), 28)
    ),
    "other headers": lambda packets: b"".join(b"HDR." * 5 + b"".join(packets[at : at + 7]) for at in range(0, len(packets), 7)),
    "192": lambda packets: arrival_times(packets, 0x46F0_0000),
    "204": parity,
}


def source() -> list[bytes]:
    data = muxed(*X264, "-bf", "0", "-c:a", "aac")
    return [data[at : at + 188] for at in range(0, len(data), 188)]


@pytest.mark.parametrize("name", FRAMINGS)
@pytest.mark.parametrize("size", [204 * 7, 1000, 93_184])
def test_every_unit_is_given(name: str, size: int) -> None:
    packets = source()
    demuxer = TsDemuxer()
    given = units(demux(FRAMINGS[name](packets), lambda: size, demuxer=demuxer))
    assert given == units(demux(b"".join(packets)))
    assert demuxer.packets.sync_lost < 1000
    assert demuxer.packets.continuity_errors == 0


def test_headers_are_taken_for_ever() -> None:
    """120 bundles of nothing after each message: 132 KB of headers."""
    framing = Framing(before_message=12)
    demuxer, sequence, given = TsDemuxer(), 0, 0
    for message in messages("srt-rtp-headers.bin", framing):
        now = round(message.due * 1e9)
        for body in (message.data[12:], *[NULL * 7] * 120):
            header = message.data[:2] + (sequence & 0xFFFF).to_bytes(2) + message.data[4:12]
            given += len([unit for unit in units(demuxer.feed(header + body, now)) if unit.track == 256])
            sequence += 1
    assert given >= 74
    assert demuxer.packets.sync_lost < 100
    assert sequence * 12 > 128 << 10


def test_noise_between_right_packets_does_not_end_the_stream() -> None:
    packets, chance = source() * 4, random.Random(6)
    demuxer = TsDemuxer()
    for at in range(0, len(packets), 7):
        demuxer.feed(b"".join(packets[at : at + 7]) + bytes(chance.randrange(1, 900)), 0)
    assert demuxer.packets.sync_lost > 128 << 10


def test_more_noise_than_packets_ends_it() -> None:
    demuxer = TsDemuxer()
    noisy = b"".join(packet + bytes(600) for packet in source() * 4)
    with pytest.raises(ProtocolError, match="not MPEG-TS"):
        demux(noisy, demuxer=demuxer)
