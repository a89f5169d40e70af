"""A way that narrows at one blow is known by the first feedback that shows it, else by two; what only looks like it is not taken for it."""

import random
from collections.abc import Callable

import pytest

from protocols.webrtc.rtcp import ARRIVAL_NS
from protocols.webrtc.send.bandwidth import BandwidthEstimator, Calm, Heard
from tests.unit.protocols.webrtc.loopback import MS, SECOND

KBIT = 1000
PACKET = 1200
FRAME = SECOND // 30
FEEDBACK = 60 * MS
QUEUE = 300 * MS
STRANGE = 7 * SECOND  # from our clock to the viewer's
REFERENCE = 64 * MS  # in which transport-wide feedback tells where its arrivals begin


class Link:
    """Frames of `bitrate` bit/s over a way of `rate` bit/s with a queue of `QUEUE`; the viewer tells every 60 ms what has come."""

    def __init__(self, bitrate: int, rate: int, *, even: bool = False, whole: bool = False) -> None:
        """`even`: the viewer has not noted when each packet came. It spreads them over the time since the last feedback, from a reference
        time that is rounded down. `whole`: feedback by which nothing is wrong is taken as a whole."""
        self.bitrate, self.rate, self.even, self.whole = bitrate, rate, even, whole
        self.estimate = BandwidthEstimator()
        self.collapses: list[int] = []
        self.calm = 0  # feedbacks that were
        self.now = self.free_at = 0
        self.held_until = 0  # nothing is carried before
        self._flying: list[tuple[int, int, bool]] = []  # when it is known of, when it left, whether it came
        self._number = 0

    def live(
        self, duration: int, *, loss: float = 0.0, key: int = 1, parts: int = 1, jitter: Callable[[], int] = lambda: 0
    ) -> None:
        """`key`: how many times as large each thirtieth frame is; `parts` in which feedback comes."""
        end = self.now + duration
        while self.now < end:
            self.now += MS
            if self.now // FRAME > (self.now - MS) // FRAME:
                self._number += 1
                for _ in range(max(1, self.bitrate // 30 // 8 // PACKET) * (key if self._number % 30 == 0 else 1)):
                    self._send(loss, jitter())
            if self.now % FEEDBACK == 0:
                self._hear(parts)

    def _send(self, loss: float, jitter: int) -> None:
        start = max(self.free_at, self.now, self.held_until)
        if start - self.now > QUEUE or random.random() < loss:
            self._flying.append((start, self.now, False))
            return
        self.free_at = start + PACKET * 8 * SECOND // self.rate
        self._flying.append((self.free_at + jitter, self.now, True))

    def _hear(self, parts: int) -> None:
        heard = [each for each in self._flying if each[0] <= self.now]
        self._flying = [each for each in self._flying if each[0] > self.now]
        if self.even:
            begin = (self.now - FEEDBACK) // REFERENCE * REFERENCE
            heard = [(begin + number * FEEDBACK // len(heard), *each[1:]) for number, each in enumerate(heard)]
        size = max(1, -(-len(heard) // parts))
        for begin in range(0, len(heard), size):
            told = [
                Heard(sent, [(at + STRANGE) // ARRIVAL_NS] if came else [], 0 if came else 1, PACKET)
                for at, sent, came in heard[begin : begin + size]
            ]
            if not (self.whole and self._calm(told)) and self.estimate.add(told, self.now):
                self.collapses.append(self.now)

    def _calm(self, told: list[Heard]) -> bool:
        first, last = told[0], told[-1]
        if any(each.lost for each in told):
            return False
        at = last.arrivals[0] * ARRIVAL_NS
        if not self.estimate.calm(first.sent, last.sent, at):
            return False
        least = min(first.arrivals[0] * ARRIVAL_NS - first.sent, at - last.sent)
        self.estimate.add_calm(Calm(last.sent, at, least, len(told), PACKET * len(told)), self.now)
        self.calm += 1
        return True


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("phase", range(0, 500, 70))
@pytest.mark.parametrize("rate", [250 * KBIT, 600 * KBIT, 1000 * KBIT])
def test_a_way_that_narrows_to_less_than_half_is_known_at_once_and_by_what_it_carries(
    rate: int, phase: int, parts: int
) -> None:
    link = Link(2600 * KBIT, 20_000 * KBIT)
    link.live(5 * SECOND + phase * MS, parts=parts)
    assert link.collapses == []
    link.rate, narrowed = rate, link.now
    link.live(400 * MS, parts=parts)
    assert len(link.collapses) == 1
    assert link.collapses[0] - narrowed < 300 * MS
    assert link.estimate.bits_per_second is not None
    assert 0.4 * rate < link.estimate.bits_per_second < 0.85 * rate


@pytest.mark.parametrize("phase", range(0, 500, 20))
@pytest.mark.parametrize("rate", [600 * KBIT, 1000 * KBIT])
def test_packets_that_come_one_by_one_tell_it_in_the_first_feedback(rate: int, phase: int) -> None:
    link = Link(2600 * KBIT, 20_000 * KBIT)
    link.live(5 * SECOND + phase * MS)
    link.rate, narrowed = rate, link.now
    link.live(150 * MS)  # 40 ms until there is a queue, 60 until the feedback, and where no frame has left in between 33
    assert len(link.collapses) == 1
    assert link.collapses[0] - narrowed < 150 * MS
    assert link.estimate.bits_per_second is not None
    assert 0.6 * rate < link.estimate.bits_per_second <= 0.75 * rate


def test_what_left_before_is_not_held_against_what_follows_it() -> None:
    link = Link(2600 * KBIT, 20_000 * KBIT)
    link.live(5 * SECOND)
    link.rate = 600 * KBIT
    while not link.collapses:
        link.live(FEEDBACK)
    fallen = link.estimate.bits_per_second
    link.bitrate = 300 * KBIT
    link.live(SECOND)
    assert fallen is not None
    assert link.estimate.bits_per_second is not None
    assert link.estimate.bits_per_second >= fallen
    assert len(link.collapses) == 1


def test_what_follows_and_is_still_too_much_is_known_too() -> None:
    link = Link(2600 * KBIT, 20_000 * KBIT)
    link.live(5 * SECOND)
    link.rate = 600 * KBIT
    link.live(SECOND)  # of an encoder that does not follow
    assert len(link.collapses) > 1


@pytest.mark.parametrize("rate", [3_500 * KBIT, 6_000 * KBIT, 20_000 * KBIT])
def test_the_queue_of_a_key_frame_is_none_of_a_narrow_way(rate: int) -> None:
    link = Link(2000 * KBIT, rate)
    link.live(20 * SECOND, key=8)
    assert link.collapses == []


def test_a_pause_of_the_way_is_none() -> None:
    link = Link(2600 * KBIT, 20_000 * KBIT)
    for pause in range(40, 240, 10):
        link.live(SECOND)
        link.held_until = link.now + pause * MS
        link.live(SECOND)
    assert link.collapses == []


@pytest.mark.parametrize("rate", [1500 * KBIT, 2000 * KBIT])
def test_a_way_that_narrows_by_less_is_followed_without_a_blow(rate: int) -> None:
    link = Link(2600 * KBIT, 20_000 * KBIT)
    link.live(5 * SECOND)
    link.rate = rate
    link.live(SECOND)
    assert link.collapses == []
    assert link.estimate.bits_per_second is not None
    assert link.estimate.bits_per_second < rate


def test_a_pause_in_the_middle_of_a_feedback_is_none() -> None:
    """Some packets before it, some after it: they are far apart on the whole, and not each from the next."""
    link = Link(2600 * KBIT, 20_000 * KBIT)
    for phase in range(0, 60, 4):
        for pause in (50, 90, 150):
            link.live(SECOND + phase * MS)
            link.held_until = link.now + pause * MS
            link.live(SECOND)
    assert link.collapses == []


def test_loss_and_jitter_are_none() -> None:
    random.seed(1)
    link = Link(2600 * KBIT, 20_000 * KBIT)
    link.live(20 * SECOND, loss=0.3, jitter=lambda: random.randrange(30 * MS))
    assert link.collapses == []


def test_a_scene_that_comes_to_rest_is_none() -> None:
    random.seed(2)
    link = Link(2600 * KBIT, 20_000 * KBIT)
    for _ in range(10):
        link.bitrate = 2600 * KBIT
        link.live(2 * SECOND, jitter=lambda: random.randrange(30 * MS))
        link.bitrate = 300 * KBIT
        link.live(2 * SECOND, jitter=lambda: random.randrange(30 * MS))
    assert link.collapses == []


def test_a_delay_while_little_is_sent_takes_little_from_the_figure() -> None:
    """A machine that stands still for a moment, on either side: what came in that time is not what the way carries."""
    link = Link(2600 * KBIT, 20_000 * KBIT)
    link.live(5 * SECOND)
    before = link.estimate.bits_per_second
    link.bitrate = 100 * KBIT
    link.live(600 * MS)
    link.held_until = link.now + 90 * MS
    link.live(600 * MS)
    assert before is not None
    assert link.estimate.bits_per_second is not None
    assert link.estimate.bits_per_second > before // 2


@pytest.mark.parametrize("phase", range(0, 64, 9))
def test_feedback_that_is_not_exact_shows_no_queue(phase: int) -> None:
    link = Link(2600 * KBIT, 20_000 * KBIT, even=True)
    link.now = link.free_at = phase * MS
    for _ in range(20):
        link.bitrate = 2600 * KBIT
        link.live(2 * SECOND)
        link.bitrate = 450 * KBIT
        link.live(2 * SECOND)
    assert link.collapses == []
    assert link.estimate.bits_per_second is not None
    assert link.estimate.bits_per_second > 2600 * KBIT


@pytest.mark.parametrize("phase", range(0, 500, 70))
@pytest.mark.parametrize("rate", [250 * KBIT, 600 * KBIT])
def test_a_way_that_narrows_is_known_by_such_feedback_too(rate: int, phase: int) -> None:
    link = Link(2600 * KBIT, 20_000 * KBIT, even=True)
    link.live(5 * SECOND + phase * MS)
    link.rate, narrowed = rate, link.now
    link.live(600 * MS)
    assert link.collapses
    assert link.collapses[0] - narrowed < 500 * MS
    assert link.estimate.bits_per_second is not None
    assert link.estimate.bits_per_second < rate


@pytest.mark.parametrize("phase", range(0, 500, 50))
@pytest.mark.parametrize("rate", [600 * KBIT, 1000 * KBIT, 2000 * KBIT])
def test_feedback_that_is_taken_as_a_whole_tells_the_same(rate: int, phase: int) -> None:
    links = [Link(2600 * KBIT, 20_000 * KBIT, whole=whole) for whole in (False, True)]
    for link in links:
        link.live(5 * SECOND + phase * MS, key=4)
        link.rate = rate
        link.live(SECOND)
        link.rate = 20_000 * KBIT
        link.live(5 * SECOND)
    exactly, wholly = links
    assert wholly.calm > 100
    assert exactly.calm == 0
    assert wholly.collapses == exactly.collapses
    assert wholly.estimate.bits_per_second == exactly.estimate.bits_per_second
