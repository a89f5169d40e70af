"""The packet layer, with streams that only a test would make."""

import random
from collections import deque

import pytest

from protocols.errors import ProtocolError
from protocols.srt.pes import MAX_VIDEO_PES, Pes, PesReader
from protocols.srt.psi import ElementaryInfo, ProgrammeMap
from tests.unit.protocols.srt.streams import AUDIO_PID, PMT_PID, VIDEO_PID, packet, packets, pat, pes, pmt

TABLES = pat({1: PMT_PID}) + pmt({VIDEO_PID: 0x1B, AUDIO_PID: 0x0F})


def reader() -> PesReader:
    def take(found: ProgrammeMap) -> list[tuple[int, int]]:
        return [(info.pid, MAX_VIDEO_PES) for info in found.streams]

    def is_video(info: ElementaryInfo) -> bool:
        return info.stream_type == 0x1B

    return PesReader(take, is_video)


def started() -> PesReader:
    layer = reader()
    layer.feed(TABLES, 0)
    return layer


def body(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_pes_of_known_length_leaves_with_its_last_packet() -> None:
    layer, data = started(), body(1000)
    made = packets(AUDIO_PID, pes(data, 900, known=True))
    assert layer.feed(b"".join(made[:-1]), 5) == []
    assert layer.feed(made[-1], 6) == [Pes(AUDIO_PID, data, 900, 900, False, 5)]


def test_stuffing_ends_a_pes_of_unknown_length_once_the_muxer_is_trusted() -> None:
    layer, counter, given = started(), 0, []
    for n in range(6):
        made = packets(VIDEO_PID, pes(body(1000, n), n), counter)
        counter += len(made)
        given.append([unit.data for unit in layer.feed(b"".join(made), 0)])
    # Three leave with the start of the next, then two at once: the last one that waited and its own
    assert [len(units) for units in given] == [0, 1, 1, 2, 1, 1]
    assert [data for units in given for data in units] == [body(1000, n) for n in range(6)]


def test_a_muxer_that_stuffs_inside_is_not_trusted() -> None:
    layer, counter, given = started(), 0, []
    for n in range(6):
        data = pes(body(400, n), n)
        pieces = [data[:100], data[100:284], data[284:]]
        for index, piece in enumerate(pieces):
            given += layer.feed(packet(VIDEO_PID, piece, counter, start=index == 0), 0)
            counter += 1
    assert [unit.data for unit in given] == [body(400, n) for n in range(5)]
    assert layer.counts.ended_wrongly == 0


def test_trust_that_was_wrong_cuts_one_pes_and_loses_nothing() -> None:
    layer, counter, given = started(), 0, []
    for n in range(4):
        made = packets(VIDEO_PID, pes(body(1000, n), n), counter)
        counter += len(made)
        given += layer.feed(b"".join(made), 0)
    for n in range(4, 8):
        data = pes(body(400, n), n)
        for index, piece in enumerate((data[:100], data[100:284], data[284:])):
            given += layer.feed(packet(VIDEO_PID, piece, counter, start=index == 0), 0)
            counter += 1
    whole = [unit.data for unit in given]
    assert layer.counts.ended_wrongly == 1
    assert whole[:4] == [body(1000, n) for n in range(4)]
    assert b"".join(whole[4:6]) == body(400, 4)
    assert whole[6:] == [body(400, n) for n in (5, 6)]
    assert [unit.pts for unit in given[4:6]] == [4, None]


def test_a_lost_packet_marks_its_pes_only() -> None:
    layer = started()
    first, second = packets(AUDIO_PID, pes(body(1000), known=True)), packets(AUDIO_PID, pes(body(400, 2), known=True), 6)
    given = layer.feed(b"".join(first[:2] + first[3:] + second), 0)
    assert [unit.broken for unit in given] == [True, False]
    assert layer.counts.continuity_errors == 1


def test_a_lost_tail_marks_the_pes_before() -> None:
    layer = started()
    first, second = packets(VIDEO_PID, pes(body(1000))), packets(VIDEO_PID, pes(body(400, 2)), 6)
    given = layer.feed(b"".join(first[:-1] + second + packets(VIDEO_PID, pes(b"x"), 9)), 0)
    assert [unit.broken for unit in given] == [True, False]


def test_duplicates_are_dropped() -> None:
    layer, data = started(), body(1000)
    made = packets(AUDIO_PID, pes(data, known=True))
    assert [unit.data for unit in layer.feed(b"".join(twice for one in made for twice in (one, one)), 0)] == [data]
    assert layer.counts.continuity_errors == 0


def test_a_packet_marked_broken_is_not_used() -> None:
    layer = started()
    made = packets(AUDIO_PID, pes(body(1000), known=True))
    made[2] = made[2][:1] + bytes((made[2][1] | 0x80,)) + made[2][2:]
    assert [unit.broken for unit in layer.feed(b"".join(made) + b"".join(packets(AUDIO_PID, pes(b"x"), 6)), 0)] == [True]
    assert layer.counts.transport_errors == 1


def test_an_announced_discontinuity_is_no_loss() -> None:
    layer = started()
    layer.feed(b"".join(packets(AUDIO_PID, pes(body(100), known=True))), 0)
    jump = packet(AUDIO_PID, pes(body(100, 2), known=True), 9, start=True, flags=0x80)
    assert [unit.broken for unit in layer.feed(jump, 0)] == [False]
    assert layer.counts.continuity_errors == 0


def test_garbage_between_packets_is_skipped() -> None:
    layer, data = started(), body(3000)
    made = packets(AUDIO_PID, pes(data, known=True))
    noise = bytes(500)
    given = layer.feed(b"".join(made[:5]) + noise + b"".join(made[5:]), 0)
    assert [unit.data for unit in given] == [data]
    assert layer.counts.sync_lost == 500
    assert layer.counts.packets == 2 + len(made)


def test_bytes_that_are_no_transport_stream_are_refused_early() -> None:
    layer, noise = reader(), random.Random(3)
    messages = (noise.randbytes(1316) for _ in range(400))
    with pytest.raises(ProtocolError, match="not MPEG-TS"):
        deque((layer.feed(message, 0) for message in messages), maxlen=0)
    assert layer.counts.sync_lost < 200_000


def test_the_first_programme_with_video_is_taken() -> None:
    layer = reader()
    layer.feed(pat({2: 0x1002, 1: PMT_PID, 3: 0x1003}), 0)
    layer.feed(pmt({0x200: 0x0F}, 2, 0x1002) + pmt({VIDEO_PID: 0x1B}) + pmt({0x300: 0x1B}, 3, 0x1003), 0)
    data = (
        packets(VIDEO_PID, pes(b"one", known=True))
        + packets(0x200, pes(b"two", known=True))
        + packets(0x300, pes(b"three", known=True))
    )
    assert [unit.pid for unit in layer.feed(b"".join(data), 0)] == [VIDEO_PID]


def test_audio_alone_is_taken_when_no_programme_has_video() -> None:
    layer = reader()
    layer.feed(pat({2: 0x1002, 5: 0x1005}) + pmt({0x200: 0x0F}, 2, 0x1002), 0)
    assert layer.programme is None
    layer.feed(pmt({0x200: 0x0F}, 2, 0x1002, version=1), 2_000_000_000)
    assert layer.programme is not None
    assert layer.programme.programme == 2


def test_a_new_programme_map_takes_over() -> None:
    layer = started()
    layer.feed(pmt({0x120: 0x1B}, version=1), 0)
    data = packets(VIDEO_PID, pes(b"old", known=True)) + packets(0x120, pes(b"new", known=True))
    assert [unit.data for unit in layer.feed(b"".join(data), 0)] == [b"new"]


def test_a_table_with_a_wrong_checksum_is_counted() -> None:
    broken = bytearray(pat({1: PMT_PID}))
    broken[20] ^= 1
    layer = reader()
    layer.feed(bytes(broken), 0)
    assert (layer.counts.section_errors, layer.programmes) == (1, {})


def test_memory_is_bounded_by_payload_and_by_packets() -> None:
    layer = started()
    layer.feed(b"".join(packets(VIDEO_PID, pes(b""))), 0)
    one = b"".join(packet(VIDEO_PID, b"\1" * 184, counter) for counter in range(16))
    for counter in range(0, MAX_VIDEO_PES // 184 + 200, 16):
        layer.feed(one if counter else one[188:], 0)
    assert layer.counts.oversized == 1
    small = b"".join(packet(AUDIO_PID, b"\1", counter) for counter in range(16))
    layer.feed(packet(AUDIO_PID, pes(b"x"), 15, start=True), 0)
    for _ in range(70_000 // 16):
        layer.feed(small, 0)
    assert layer.counts.oversized == 2


def test_tables_that_change_too_often_are_read_when_they_are_repeated() -> None:
    layer = reader()
    for number in range(200):
        layer.feed(pat({1 + number: PMT_PID}), 0)
    last = pat({7: PMT_PID}) + pmt({VIDEO_PID: 0x1B}, programme=7)
    layer.feed(last, 0)
    assert layer.programme is None
    layer.feed(last, 1_000_000_000)
    assert layer.programme is not None
    assert layer.programme.programme == 7


def test_all_programmes_are_read_at_once() -> None:
    layer = reader()
    numbers = range(1, 41)
    layer.feed(pat({number: PMT_PID + number for number in numbers}), 0)
    for number in numbers:
        layer.feed(pmt({0x100 + number: 0x1B if number == 40 else 0x0F}, number, PMT_PID + number), 0)
    assert layer.programme is not None
    assert layer.programme.programme == 40
