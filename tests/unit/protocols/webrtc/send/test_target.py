"""What one encoder is told of its viewers' ways: the narrowest decides, within bounds, and no figure gets stuck where it fell to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from protocols.webrtc.rtcp import ARRIVAL_NS
from protocols.webrtc.send.bandwidth import BandwidthEstimator, Heard
from protocols.webrtc.send.share import WayShares
from protocols.webrtc.send.simulcast import STRAINED_NS, Layer, Picture
from protocols.webrtc.send.target import INTERVAL_NS, RENEWAL_NS, UNBIND_NS, UNBOUND, TargetBitrate
from tests.unit.protocols.webrtc.loopback import MS, SECOND

HD = 1280 * 720
KBIT = 1000


# -- the target of one source ------------------------------------------------------------------------------------------------------------


def test_nothing_is_told_while_no_way_binds() -> None:
    assert TargetBitrate().judge([], HD, 0) is None


def test_the_narrowest_way_decides_and_when_it_is_gone_the_next() -> None:
    target = TargetBitrate()
    assert target.judge([2000 * KBIT, 600 * KBIT], HD, 0) == 600 * KBIT
    assert target.judge([2000 * KBIT], HD, INTERVAL_NS) == 2000 * KBIT
    assert target.judge([], HD, 2 * INTERVAL_NS) == UNBOUND
    assert target.judge([], HD, 3 * INTERVAL_NS) is None


def test_only_what_is_noticeable_is_told_and_all_again_from_time_to_time() -> None:
    target = TargetBitrate()
    assert target.judge([600 * KBIT], HD, 0) == 600 * KBIT
    assert target.judge([630 * KBIT], HD, INTERVAL_NS) is None
    assert target.judge([670 * KBIT], HD, 2 * INTERVAL_NS) == 670 * KBIT
    assert target.judge([670 * KBIT], HD, 2 * INTERVAL_NS + RENEWAL_NS - 1) is None
    assert target.judge([670 * KBIT], HD, 2 * INTERVAL_NS + RENEWAL_NS) == 670 * KBIT


def test_one_bad_way_takes_no_more_from_the_others_than_down_to_the_floor() -> None:
    floor = int(HD * 0.2)
    assert TargetBitrate().judge([floor * 3 // 4, 2000 * KBIT], HD, 0) == floor


def test_a_way_that_would_not_carry_half_of_the_floor_does_not_count() -> None:
    floor = int(HD * 0.2)
    assert TargetBitrate().judge([floor // 2 - 1], HD, 0) is None
    assert TargetBitrate().judge([floor // 2 - 1, 900 * KBIT], HD, 0) == 900 * KBIT


def test_a_moment_in_which_little_arrives_does_not_open_a_bound_encoder() -> None:
    floor = int(HD * 0.2)
    target = TargetBitrate()
    assert target.judge([600 * KBIT], HD, 0) == 600 * KBIT
    assert target.judge([floor // 4], HD, INTERVAL_NS) == floor
    assert target.judge([600 * KBIT], HD, 2 * INTERVAL_NS) == 600 * KBIT
    assert target.judge([floor // 4], HD, 3 * INTERVAL_NS) == floor
    assert target.judge([floor // 4], HD, 3 * INTERVAL_NS + UNBIND_NS - 1) is None
    assert target.judge([floor // 4], HD, 3 * INTERVAL_NS + UNBIND_NS) == UNBOUND


# -- a viewer's way, shared among its pictures -------------------------------------------------------------------------------------------


def single(bitrate: int) -> Picture:
    return Picture((Layer("", 1280, 720, bitrate),), "")


def narrow(pictures: Mapping[int, Picture], carried: int) -> tuple[WayShares, dict[int, int | None]]:
    """Of a way that has carried too little for long enough."""
    shares = WayShares()
    assert set(shares.of(pictures, carried, 0).values()) == {None}
    return shares, shares.of(pictures, carried, STRAINED_NS)


def test_an_estimate_below_what_was_never_sent_binds_nobody() -> None:
    """A still scene: little is sent, and so the estimate is small. It says nothing of the way."""
    shares, still = WayShares(), {0: single(300 * KBIT)}
    for step in range(40):
        assert shares.of(still, 450 * KBIT, step * 250 * MS) == {0: None}


def test_a_moment_of_strain_binds_nobody() -> None:
    shares = WayShares()
    for step in range(40):
        carried = 1500 * KBIT if step % 2 else 3000 * KBIT
        assert shares.of({0: single(2000 * KBIT)}, carried, step * 250 * MS) == {0: None}


def test_without_an_estimate_nothing_is_known() -> None:
    assert WayShares().of({0: single(2000 * KBIT)}, None, 0) == {0: None}


def test_what_lacks_is_taken_from_each_in_proportion() -> None:
    _, shares = narrow({0: single(2000 * KBIT), 1: single(1000 * KBIT)}, 1500 * KBIT)
    assert shares == {0: 1000 * KBIT, 1: 500 * KBIT}


def test_what_is_spare_is_shared_evenly() -> None:
    shares, _ = narrow({0: single(2000 * KBIT), 1: single(1000 * KBIT)}, 1500 * KBIT)
    now = {0: single(1000 * KBIT), 1: single(200 * KBIT)}
    assert shares.of(now, 1600 * KBIT, SECOND) == {0: 1200 * KBIT, 1: 400 * KBIT}


def test_a_picture_with_a_smaller_layer_makes_do_with_that_instead() -> None:
    layers = (Layer("h", 1280, 720, 2000 * KBIT), Layer("l", 640, 360, 500 * KBIT))
    _, shares = narrow({0: Picture(layers, "h"), 1: Picture(layers, "l")}, 1250 * KBIT)
    assert shares == {0: None, 1: 250 * KBIT}


def test_a_way_binds_until_it_carries_what_was_too_much() -> None:
    shares, _ = narrow({0: single(2000 * KBIT)}, 600 * KBIT)
    adapted = {0: single(600 * KBIT)}
    assert shares.of(adapted, 900 * KBIT, SECOND) == {0: 900 * KBIT}
    assert shares.of(adapted, 2000 * KBIT, 2 * SECOND) == {0: None}
    assert shares.of(adapted, 1000 * KBIT, 3 * SECOND) == {0: None}


# -- the whole loop, in simulated time ---------------------------------------------------------------------------------------------------

STEP = 10 * MS
PACKET = 1200


@dataclass
class Way:
    """A link that carries `rate` bit/s, with a queue of at most 300 ms, between an encoder of a planned bitrate and a viewer's feedback."""

    rate: int
    planned: int = 2500 * KBIT
    now: int = 0
    free_at: int = 0
    owed: float = 0
    lost: int = 0
    sent: int = 0
    told: list[tuple[int, int]] = field(default_factory=list)
    rates: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.encoder = self.planned
        self.estimate, self.shares, self.target = BandwidthEstimator(), WayShares(), TargetBitrate()
        self._flying: list[tuple[int, Heard]] = []

    def live(self, seconds: float) -> None:
        for _ in range(int(seconds * SECOND) // STEP):
            self.now += STEP
            self._send()
            if self.now % (100 * MS) == 0:
                self._hear()
            if self.now % (250 * MS) == 0:
                self.carried = self.shares.of({0: single(self.encoder)}, self.estimate.bits_per_second, self.now)[0]
            if self.now % INTERVAL_NS == 0:
                target = self.target.judge([] if self.carried is None else [self.carried], HD, self.now)
                if target is not None:
                    self.told.append((self.now, target))
                    self.encoder = min(self.planned, target)
            self.rates.append((self.now, self.encoder))

    def _send(self) -> None:
        self.owed += self.encoder / 8 * STEP / SECOND / PACKET
        while self.owed >= 1:
            self.owed -= 1
            self.sent += 1
            if self.free_at - self.now > 300 * MS:
                self.lost += 1
                self._flying.append((self.now + 300 * MS, Heard(self.now, [], 1, PACKET)))
            else:
                self.free_at = max(self.free_at, self.now) + PACKET * 8 * SECOND // self.rate
                self._flying.append((self.free_at, Heard(self.now, [(self.free_at + 7 * SECOND) // ARRIVAL_NS], 0, PACKET)))

    def _hear(self) -> None:
        heard = [each for at, each in self._flying if at <= self.now]
        self._flying = [each for each in self._flying if each[0] > self.now]
        if heard:
            self.estimate.add(heard, self.now)


@pytest.mark.parametrize("rate", [400 * KBIT, 600 * KBIT, 1500 * KBIT])
def test_the_encoder_follows_a_way_that_narrows_within_three_seconds_and_stays_below_it(rate: int) -> None:
    way = Way(10_000 * KBIT)
    way.live(10)
    assert way.told == []
    way.rate = rate
    way.live(3)
    assert way.encoder < rate
    way.live(5)  # what was queued is gone
    way.lost = way.sent = 0
    way.live(60)
    assert way.lost <= way.sent // 100
    lately = [encoder for at, encoder in way.rates if at > 18 * SECOND]
    assert sum(lately) / len(lately) > 0.75 * rate
    assert max(lately) < 1.3 * rate


def test_it_rises_again_to_all_that_was_planned() -> None:
    way = Way(10_000 * KBIT)
    way.live(5)
    way.rate = 600 * KBIT
    way.live(20)
    way.rate = 10_000 * KBIT
    way.live(25)
    assert way.encoder == way.planned
    assert way.told[-1][1] == UNBOUND
    told = len(way.told)
    way.live(30)
    assert len(way.told) == told
