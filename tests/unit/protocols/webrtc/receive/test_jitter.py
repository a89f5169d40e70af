"""Packets in any order, some of them missing, into frames: when each leaves, what is asked for, and what is given up."""

import random
import tracemalloc

import pytest

from protocols.media import Codec
from protocols.webrtc.receive import jitter
from protocols.webrtc.receive.depacketize import FORMATS
from protocols.webrtc.receive.jitter import MARGIN_NS, NEVER, REORDERING_NS, JitterBuffer, ReceivedFrame, patience
from tests.unit.protocols.webrtc.loopback import MS

TRIP = 20 * MS
BEGIN, MORE = b"B", b"m"


def begins(payload: bytes) -> bool:
    return payload.startswith(BEGIN)


class Feed:
    """A buffer and its clock. Packets are named by sequence number; frame n has the packets 3n to 3n + 2 and the timestamp 3000 n."""

    def __init__(self, *, repairable: bool = True, single: bool = False, first: int = 0) -> None:
        self.buffer = JitterBuffer(begins, repairable=repairable, single=single)
        self.single = single
        self.first = first
        self.now = 1000 * MS
        self.frames: list[ReceivedFrame] = []

    def push(self, *numbers: int, marker: bool = True) -> list[int]:
        """The frames that came out, by number."""
        before = len(self.frames)
        for number in numbers:
            frame, part = (number, 0) if self.single else divmod(number, 3)
            payload = (BEGIN if part == 0 else MORE) + number.to_bytes(4, "big")
            packet = 96, frame * 3000 & 0xFFFFFFFF, marker and part == 2, payload, self.now
            self.frames += self.buffer.push(self.first + number & 0xFFFF, packet)
        return [each.timestamp // 3000 for each in self.frames[before:]]

    def poll(self, after: int = 0) -> list[int]:
        self.now += after
        freed = self.buffer.poll(self.now, TRIP)
        self.frames += freed
        return [each.timestamp // 3000 for each in freed]

    def wanted(self, after: int = 0) -> list[int]:
        self.now += after
        return [number - self.first & 0xFFFF for number in self.buffer.wanted(self.now, TRIP)]


def test_a_frame_leaves_with_its_marker() -> None:
    feed = Feed()
    assert feed.push(0, 1) == []
    assert feed.push(2) == [0]
    assert feed.push(3, 4, 5) == [1]
    assert feed.buffer.due(TRIP) == NEVER


def test_without_a_marker_it_leaves_with_the_next_timestamp() -> None:
    feed = Feed()
    assert feed.push(0, 1, 2, marker=False) == []
    assert feed.push(3, marker=False) == [0]
    assert [payload[1:] for payload in feed.frames[0].payloads] == [
        (0).to_bytes(4, "big"),
        (1).to_bytes(4, "big"),
        (2).to_bytes(4, "big"),
    ]


def test_sound_leaves_packet_by_packet_whatever_its_marker() -> None:
    feed = Feed(single=True, repairable=False)
    assert feed.push(0, 1, 2) == [0, 1, 2]


def test_reordered_packets_are_sorted() -> None:
    feed = Feed()
    assert feed.push(0, 2, 1) == [0]
    assert feed.push(5, 4, 8, 7, 6, 3) == [1, 2]
    assert all(frame.continuous for frame in feed.frames)
    assert (feed.buffer.lost, feed.buffer.repaired, feed.buffer.gaps) == (0, 0, {})


def test_begun_and_arrival_are_of_the_first_and_last_packet_received() -> None:
    feed = Feed()
    start = feed.now
    feed.push(0)
    feed.now += 5 * MS
    feed.push(2)
    feed.now += 7 * MS
    feed.push(1)
    assert (feed.frames[0].begun, feed.frames[0].arrival) == (start, start + 12 * MS)


def test_a_gap_is_asked_for_at_once_and_after_each_round_trip_three_times() -> None:
    feed = Feed()
    feed.push(0, 1, 3, 6)
    assert feed.buffer.due(TRIP) == feed.now
    assert feed.wanted() == [2, 4, 5]
    assert feed.wanted(TRIP - 1) == []
    assert feed.buffer.due(TRIP) == feed.now + 1
    assert feed.wanted(1) == [2, 4, 5]
    assert feed.wanted(TRIP) == [2, 4, 5]
    assert feed.wanted(TRIP) == []
    assert feed.buffer.due(TRIP) == feed.now - 3 * TRIP + patience(TRIP, True)


def test_a_repair_is_as_good_as_no_loss_and_tells_the_round_trip() -> None:
    feed = Feed()
    feed.push(0, 2, 3, 4, 5)
    feed.wanted()
    feed.now += 17 * MS
    assert feed.push(1) == [0, 1]
    assert all(frame.continuous for frame in feed.frames)
    assert (feed.buffer.repaired, feed.buffer.repair_time, feed.buffer.lost) == (1, 17 * MS, 0)
    assert feed.buffer.due(TRIP) == NEVER


def test_a_gap_is_given_up_in_time_and_the_next_whole_frame_says_so() -> None:
    feed = Feed()
    feed.push(0, 2, 3, 4, 5, 6, 7, 8)
    assert feed.poll(patience(TRIP, True) - 1) == []
    assert feed.poll(1) == [1, 2]
    assert [frame.continuous for frame in feed.frames] == [False, True]
    assert feed.buffer.lost == 1
    assert feed.push(1) == []
    assert feed.buffer.late == 1


def test_a_frame_whose_beginning_is_lost_does_not_leave() -> None:
    feed = Feed()
    feed.push(0, 1, 2, 4, 5, 6, 7, 8)
    assert feed.poll(patience(TRIP, True)) == [2]
    assert not feed.frames[1].continuous


def test_what_is_lost_between_two_frames_costs_no_third() -> None:
    feed = Feed()
    assert feed.push(0, 1, 2, 6, 7, 8) == [0]
    assert feed.poll(patience(TRIP, True)) == [2]


def test_a_stream_begins_with_a_frame_that_can_begin() -> None:
    feed = Feed()
    assert feed.push(1, 2, 3, 4, 5) == [1]
    assert not feed.frames[0].continuous


@pytest.mark.parametrize("trip", [0, MS, 20 * MS, 100 * MS, 10_000 * MS])
def test_patience_is_the_round_trip_and_30_ms_and_bounded(trip: int) -> None:
    assert patience(trip, False) == REORDERING_NS
    assert patience(trip, True) >= min(trip, 400 * MS) + MARGIN_NS
    assert patience(trip, True) <= max(jitter.REPAIR_NS, 400 * MS + MARGIN_NS)


def test_lost_sound_that_cannot_be_repaired_is_skipped_soon() -> None:
    feed = Feed(single=True, repairable=False)
    assert feed.push(0, 2) == [0]
    assert feed.wanted() == []
    assert feed.poll(REORDERING_NS) == [2]


def test_a_packet_twice_is_one() -> None:
    feed = Feed()
    assert feed.push(0, 0, 1, 2, 2) == [0]
    feed.push(4, 4, 3, 5)
    assert [frame.timestamp for frame in feed.frames] == [0, 3000]
    assert feed.buffer.late == 3


def test_padding_takes_its_number_and_nothing_else() -> None:
    feed = Feed()
    feed.push(0, 1, 2)
    assert feed.buffer.push(3, (96, 0, False, b"", feed.now)) == []
    assert feed.buffer.push(4, (96, 9000, True, BEGIN, feed.now))[0].continuous


@pytest.mark.parametrize("first", [0, 65_530, 65_535, 32_768])
@pytest.mark.parametrize("seed", range(5))
def test_any_reordering_gives_the_same_frames(first: int, seed: int) -> None:
    generator = random.Random(seed)
    numbers = list(range(900))
    for index in range(1, 900):
        other = min(899, index + generator.randrange(6))
        numbers[index], numbers[other] = numbers[other], numbers[index]
    feed = Feed(first=first)
    assert feed.push(*numbers) == list(range(300))
    assert all(frame.continuous and len(frame.payloads) == 3 for frame in feed.frames)


@pytest.mark.parametrize("seed", range(8))
def test_losses_at_random_cost_their_frames_and_no_others(seed: int) -> None:
    generator = random.Random(seed)
    feed, gone = Feed(), set()
    for number in range(3000):
        feed.now += MS
        feed.poll()
        if number > 2 and number < 2990 and generator.random() < 0.05:
            gone.add(number)
        else:
            feed.push(number)
    feed.poll(patience(TRIP, True))
    whole = [frame for frame in range(1000) if not {3 * frame, 3 * frame + 1, 3 * frame + 2} & gone]
    assert [frame.timestamp // 3000 for frame in feed.frames] == whole
    assert feed.buffer.lost == len(gone)
    for before, after in zip(feed.frames, feed.frames[1:], strict=False):
        assert after.continuous == (after.timestamp - before.timestamp == 3000)


def test_a_jump_begins_anew() -> None:
    feed = Feed()
    feed.push(0, 1, 2, 4)
    assert feed.push(9000, 9001, 9002) == [3000]
    assert not feed.frames[-1].continuous
    assert feed.buffer.due(TRIP) == NEVER
    assert feed.push(9003, 9004, 9005) == [3001]
    assert feed.push(0, 1, 2) == [0]  # backwards too


def test_what_waits_is_bounded() -> None:
    feed = Feed()
    feed.push(0)
    big = BEGIN + bytes(1200)
    for number in range(2, 20_000):
        feed.buffer.push(number & 0xFFFF, (96, number, True, big, feed.now))
        assert len(feed.buffer.gaps) <= jitter._MAX_SPAN
        assert feed.buffer._early_bytes <= jitter._MAX_BYTES + len(big)
        assert len(feed.buffer._early) <= jitter._MAX_SPAN
    far = Feed()
    far.push(0)
    for number in range(2, 60_000, 700):  # every packet leaves a large gap
        far.buffer.push(number, (96, number, True, big, far.now))
        assert len(far.buffer.gaps) <= 2 * jitter._MAX_SPAN


def test_gaps_are_paid_with_packets() -> None:
    """A jump of nearly the longest span and back to the start, again and again: after the second nothing is noted of it."""
    feed = Feed()
    feed.push(0)
    noted = []
    for number in range(10):
        before = feed.buffer.lost
        feed.push(2040 + number * 6000)
        noted.append(len(feed.buffer.gaps))
        feed.push(6000 + number * 6000)  # too far: begins anew
        assert feed.buffer.lost - before == noted[-1]
    assert noted[0] == 2039
    assert noted.count(0) >= 7


def test_what_is_due_is_news_only_with_a_new_gap() -> None:
    feed = Feed()
    feed.push(0, 1)
    assert not feed.buffer.news
    feed.push(3)
    assert feed.buffer.news
    feed.buffer.due(TRIP)
    feed.push(4, 5)
    assert not feed.buffer.news
    feed.push(8)
    assert feed.buffer.news


BEGINNINGS = {
    Codec.H264: b"\x65\x88",
    Codec.HEVC: b"\x26\x01\xaf",
    Codec.VP8: b"\x10\x00",
    Codec.VP9: b"\x08\x00",
    Codec.AV1: b"\x10\x0a",
}


@pytest.mark.parametrize("codec", BEGINNINGS)
@pytest.mark.parametrize("size", [2, 1200])
@pytest.mark.parametrize("late", [False, True])
def test_a_frame_that_never_ends_holds_little_and_the_next_one_comes(codec: Codec, size: int, late: bool) -> None:
    """One timestamp and no marker: 60,000 packets of it, 72 MB, were all kept."""
    buffer = JitterBuffer(FORMATS[codec].begins, repairable=True, single=False)
    beginning = BEGINNINGS[codec].ljust(size, b"\x01")
    frames: list[ReceivedFrame] = []
    tracemalloc.start()
    try:
        for number in range(1, 60_000):
            if late and number % 50 == 0:  # one in fifty is lost, and comes 20 later
                continue
            packet = 96, 3000, False, bytes(bytearray(beginning)), number * MS
            frames += buffer.push(number & 0xFFFF, packet)
            if late and number % 50 == 20:
                frames += buffer.push(number - 20 & 0xFFFF, packet)
        assert not frames
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert buffer.oversized == 1
    for number in (60_000, 60_001):
        frames += buffer.push(number, (96, 6000, number == 60_001, beginning, number * MS))
    (frame,) = frames
    assert (frame.timestamp, len(frame.payloads), frame.continuous) == (6000, 2, False)


def test_the_largest_frame_that_may_be_is_taken() -> None:
    buffer = JitterBuffer(begins, repairable=True, single=False)
    size = jitter.FRAME_BYTES // 4096
    for number in range(4095):
        assert not buffer.push(number, (96, 0, False, BEGIN * size, 0))
    (frame,) = buffer.push(4095, (96, 0, True, MORE * size, 0))
    assert sum(map(len, frame.payloads)) == jitter.FRAME_BYTES
    assert buffer.oversized == 0
