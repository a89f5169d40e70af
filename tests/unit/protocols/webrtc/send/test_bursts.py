"""A large frame leaves as fast as the way was seen to carry it: at once where that carries it all, and not where that loses it."""

from collections import deque
from collections.abc import Callable

import pytest

from protocols.webrtc import rtcp
from protocols.webrtc.rtcp import ARRIVAL_NS
from protocols.webrtc.send.bandwidth import Heard
from protocols.webrtc.send.bursts import DISTRUST_NS, BurstRate
from protocols.webrtc.send.history import SLICE
from protocols.webrtc.send.pacing import FRAME_DRAIN_NS, PACE_NS
from protocols.webrtc.send.report import RtcpSession
from tests.unit.protocols.webrtc.loopback import (
    MS,
    SECOND,
    Peer,
    Programme,
    Timers,
    video,
    watch,
)

MBIT = 1_000_000
FEEDBACK = 100 * MS
PACKET = 1236
KEY_BYTES = 80_000
SLOW = 9 * 1250 * 8 * SECOND // (9 * MS + ARRIVAL_NS)  # 9.7 Mbit/s


def train(apart: int, *, packets: int = 10, lost: int = 0) -> Heard:
    """Packets of 1250 bytes that left together and arrived `apart` ns from each other."""
    return Heard(0, [number * apart // ARRIVAL_NS for number in range(packets)], lost, 1250)


def seen(*trains: Heard) -> BurstRate:
    bursts = BurstRate()
    bursts.add(trains, 0)
    return bursts


def test_packets_that_left_together_tell_by_how_far_apart_they_come_what_the_way_carries() -> None:
    assert seen(*[train(MS)] * 20).at(0) == SLOW
    assert seen(*[train(0)] * 20).at(0) == 1000 * MBIT  # as far as the clock of feedback tells


def test_the_slower_quarter_counts() -> None:
    assert seen(*[train(0), train(0), train(MS)] * 5).at(0) == SLOW
    assert seen(*[*[train(0)] * 9, train(MS)] * 2).at(0) == 1000 * MBIT


@pytest.mark.parametrize("trains", [[train(0)] * 7, [train(0, packets=3)] * 100])
def test_of_little_nothing_is_known(trains: list[Heard]) -> None:
    assert seen(*trains).at(0) is None


def test_after_a_loss_nothing_is_relied_on_for_a_while() -> None:
    bursts = seen(*[train(0)] * 20, train(0, lost=1))
    assert bursts.at(DISTRUST_NS - 1) is None
    assert bursts.at(DISTRUST_NS) is not None


class Way:
    """To one viewer: it carries `rate` bit/s, with a queue of so many bytes, and the viewer tells all that came and did not come."""

    def __init__(self, peer: Peer, timers: Timers, rate: int, queue: int, *, feedback: bool = True) -> None:
        self.peer, self.timers, self.rate, self.queue = peer, timers, rate, queue
        source = video(timers)
        self.sender = watch(source, peer, 0)
        self.session = RtcpSession(peer.way, [self.sender], on_answer=lambda answer: None) if feedback else None
        self.programme = Programme(source, timers, group=60, key_bytes=KEY_BYTES, delta_bytes=9_000)
        self.sent = self.lost = 0
        self._free_at = 0
        self._told = peer.transport_sequence
        self._last: list[tuple[int, int]] = []  # of what was told
        self._arrivals: deque[tuple[int, int]] = deque()

    def live(self, frames: int) -> None:
        for _ in range(frames):
            self.programme.play(1)
            end = self.timers.now + SECOND // 30
            while self.timers.now + MS < end:
                self.carry()
                self.timers.advance(self.timers.now + MS)
            if self.session is not None and self.programme.number % 3 == 0:
                self._tell(self.session)

    def carry(self) -> int:
        """What has left; how many packets that is."""
        now, packets = self.timers.now, self.peer.receive()
        for each in packets:
            self.sent += 1
            waits = max(0, self._free_at - now)
            if waits * self.rate // 8 // SECOND + PACKET > self.queue:
                self.lost += 1
                continue
            self._free_at = now + waits + PACKET * 8 * SECOND // self.rate
            number = each.extensions.transport_sequence_number
            assert number is not None
            self._arrivals.append((self._told + (number - self._told & 0xFFFF), self._free_at))
        return len(packets)

    def _tell(self, session: RtcpSession) -> None:
        """Of what has arrived; what was lost among it shows."""
        told = [each for each in self._arrivals if each[1] <= self.timers.now]
        for _ in told:
            self._arrivals.popleft()
        if told:
            session.receive(rtcp.transport_feedback(1, 1, 0, self._last + told), self.timers.now)
            self._last, self._told = told[-1:], told[-1][0] + 1


def key_frame(way: Way) -> int:
    """How many packets of the next one leave at once."""
    way.live(-way.programme.number % way.programme.group)
    way.programme.play(1)
    return way.carry()


def test_a_key_frame_leaves_at_once_where_the_way_carries_it_all(peer: Peer, timers: Timers) -> None:
    way = Way(peer, timers, 1000 * MBIT, 1 << 20)
    assert key_frame(way) <= 2 * SLICE  # nothing is known
    way.live(30)
    assert key_frame(way) > KEY_BYTES // 1200 > 2 * SLICE
    assert way.lost == 0


def test_and_in_slices_where_it_does_not(peer: Peer, timers: Timers) -> None:
    way = Way(peer, timers, 20 * MBIT, 1 << 20)
    way.live(30)
    assert key_frame(way) <= 2 * SLICE
    begun = timers.now
    while not timers.idle:
        timers.advance(timers.now + MS)
    assert timers.now - begun <= FRAME_DRAIN_NS + 2 * PACE_NS


def test_behind_a_short_queue_no_more_is_lost_than_without_knowing(peer_of: Callable[..., Peer]) -> None:
    ways = [Way(peer_of(), Timers(), 20 * MBIT, 32 << 10, feedback=feedback) for feedback in (True, False)]
    for way in ways:
        way.live(600)
    knowing, unknowing = ways
    assert knowing.sent == unknowing.sent
    assert 0 < knowing.lost <= unknowing.lost
