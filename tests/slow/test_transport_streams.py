"""An hour of a transport stream with foreign bytes between its packets, faster than real time."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from protocols.media import EncodedPacket
from protocols.srt.tracks import TsDemuxer
from tests.unit.protocols.srt.streams import AUDIO_PID, VIDEO_PID, muxed, timestamp
from tests.unit.protocols.srt.test_packet_sync import arrival_times, parity, rtp

HOUR_S = 3600
SECOND = 1_000_000_000
TURN_TICKS = 288_000  # of 90 kHz
UNITS = {VIDEO_PID: 32, AUDIO_PID: 151}  # of a turn: 10 a second; 150 of 1024 samples and the one by which AAC begins earlier
TURNS = HOUR_S * 90_000 // TURN_TICKS
WRAP = 1 << 33
FIRST = WRAP - HOUR_S * 90_000 // 2  # the times wrap half way
PACKETS = 7  # of an SRT message

Frame = Callable[[list[bytes], int], bytes]
FRAMINGS: dict[str, Frame] = {
    "RTP": lambda packets, at: rtp(packets, PACKETS),
    "RTP with an extension": lambda packets, at: rtp(packets, PACKETS, 28),
    "192": lambda packets, at: arrival_times(packets, at * 300 & 0xFFF_FFFF),
    "204": lambda packets, at: parity(packets),
}


def made() -> list[bytes]:
    picture = ("-f", "lavfi", "-i", "testsrc2=size=128x96:rate=10", "-f", "lavfi", "-i", "sine=sample_rate=48000")
    video = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "16", "-b:v", "100k")
    data = muxed(*video, "-c:a", "aac", "-b:a", "48k", "-flush_packets", "1", seconds=TURN_TICKS / 90_000, inputs=picture)
    return [data[at : at + 188] for at in range(0, len(data), 188)]


def hour(packets: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """(ticks, packets) of each turn: times and counters of continuity go on through all of them."""
    steps = Counter(_pid(packet) for packet in packets if packet[3] & 0x10)
    for turn in range(TURNS):
        by = FIRST + turn * TURN_TICKS
        yield by, [_moved(packet, by, turn * steps[_pid(packet)]) for packet in packets]


def _pid(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


def _moved(packet: bytes, ticks: int, counter: int) -> bytes:
    """The packet, later by `ticks`, its counter further by so many (ISO/IEC 13818-1 §2.4.3.2, .5, .7)."""
    moved = bytearray(packet)
    moved[3] = moved[3] & 0xF0 | moved[3] + counter & 0x0F
    payload = 4
    if packet[3] & 0x20:
        payload += 1 + packet[4]
        if packet[4] >= 7 and packet[5] & 0x10:
            clock = int.from_bytes(packet[6:12])
            base = (clock >> 15) + ticks & WRAP - 1
            moved[6:12] = (base << 15 | clock & 0x7FFF).to_bytes(6)
    if packet[1] & 0x40 and packet[payload : payload + 3] == b"\0\0\1":
        stamped = packet[payload + 7]  # 0x80: with a PTS, 0x40: and a DTS
        for at in [payload + 9] * bool(stamped & 0x80) + [payload + 14] * bool(stamped & 0x40):
            moved[at : at + 5] = timestamp(_ticks(packet[at : at + 5]) + ticks & WRAP - 1, packet[at] >> 4)
    return bytes(moved)


def _ticks(field: bytes) -> int:
    return (field[0] >> 1 & 7) << 30 | field[1] << 22 | (field[2] >> 1) << 15 | field[3] << 7 | field[4] >> 1


@pytest.mark.parametrize("name", FRAMINGS)
def test_sixty_minutes_lose_nothing(name: str) -> None:
    demuxer, frame = TsDemuxer(), FRAMINGS[name]
    units: dict[int, list[EncodedPacket]] = {pid: [] for pid in UNITS}
    for ticks, packets in hour(made()):
        data, begun = frame(packets, ticks), (ticks - FIRST) * 100_000 // 9
        for at in range(0, len(data), 1400):
            now = begun + at * TURN_TICKS * 100_000 // 9 // len(data)
            for item in demuxer.feed(data[at : at + 1400], now):
                if isinstance(item, EncodedPacket):
                    units[item.track].append(item)
    counts = demuxer.packets
    assert (counts.continuity_errors, demuxer.counts.broken) == (0, 0)
    assert counts.sync_lost < 1000
    for pid, turn in UNITS.items():
        came = units[pid]
        assert len(came) >= TURNS * turn - turn  # the last of them end with what would follow
        first = [unit.data for unit in came[turn : 2 * turn]]
        assert all(unit.data == first[number % turn] for number, unit in enumerate(came))
        assert came[-1].dts - came[0].dts == pytest.approx(HOUR_S * SECOND, abs=4 * SECOND)
