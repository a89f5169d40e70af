"""A viewer goes over to another layer of a picture: at a key frame, with no gap in numbers, no jump in time, no moment without one."""

import itertools
from typing import Any

import pytest

from protocols.media import Codec, Track
from protocols.webrtc.rtcp import ARRIVAL_NS
from protocols.webrtc.send.bandwidth import BandwidthEstimator, Heard
from tests.unit.protocols.webrtc.loopback import (
    FRAME,
    MS,
    SECOND,
    Peer,
    Timers,
    access_units,
    contiguous,
    growing,
    parameters,
    push,
    sender_to,
    source_of,
    watch,
)

LARGE, SMALL = 6000, 1500


class Picture:
    """Two layers, 30 frames a second; a key frame of each where it was asked for, or at every 60th frame."""

    def __init__(self, timers: Timers, **options: Any) -> None:
        self.timers = timers
        self.asked: list[str] = []
        self.number = 0
        self.wanted: set[str] = set()
        self.layers = {
            name: source_of(Track(1, Codec.H264, layer=name), timers, on_keyframe_wanted=lambda name=name: self._ask(name))
            for name in ("h", "l")
        }
        self.units: dict[str, list[bytes]] = {"h": [], "l": []}
        self.answers = True

    def _ask(self, name: str) -> bool:
        self.asked.append(name)
        if self.answers:
            self.wanted.add(name)
        return self.answers

    def play(self, frames: int, *layers: str) -> None:
        for _ in range(frames):
            now = self.number * FRAME
            self.timers.advance(now)
            for name in layers or ("h", "l"):
                keyframe = self.number % 60 == 0 or name in self.wanted
                self.wanted.discard(name)
                size = LARGE if name == "h" else SMALL
                self.units[name].append(push(self.layers[name], size, now, key=keyframe))
            self.number += 1


def test_the_present_layer_goes_on_until_the_key_frame_of_the_other(peer: Peer, timers: Timers) -> None:
    picture = Picture(timers)
    picture.answers = False  # the next one comes by itself
    turned: list[int] = []
    sender = sender_to(peer, parameters(), on_turn=lambda: turned.append(picture.number))
    sender.attach(picture.layers["h"], 0)
    picture.play(50)
    sender.turn(picture.layers["l"], timers.now)
    picture.play(30)
    packets = peer.receive()
    assert [unit for _, unit in access_units(packets)] == picture.units["h"][:61] + picture.units["l"][60:]
    assert contiguous(packets)
    assert growing(packets)
    stamps = [stamp for stamp, _ in access_units(packets)]
    steps = [(later - earlier) & 0xFFFFFFFF for earlier, later in itertools.pairwise(stamps)]
    assert steps.pop(60) == 1  # the picture of the turn is there in both layers
    assert set(steps) <= {2999, 3000}
    assert turned == [60]
    assert picture.layers["h"].receivers == ()
    assert sender.turns == 1


def test_the_other_layer_is_asked_for_a_key_frame_and_no_other(peer: Peer, timers: Timers) -> None:
    picture = Picture(timers)
    sender = watch(picture.layers["h"], peer, 0)
    picture.play(10)
    picture.asked.clear()
    sender.turn(picture.layers["l"], timers.now)
    picture.play(10)
    assert picture.asked == ["l"]
    assert [unit for _, unit in access_units(peer.receive())] == picture.units["h"][:11] + picture.units["l"][10:]


def test_it_is_asked_for_again_while_it_does_not_come_but_rarely(peer: Peer, timers: Timers) -> None:
    picture = Picture(timers)
    picture.answers = False
    sender = watch(picture.layers["h"], peer, 0)
    picture.play(5)
    picture.asked.clear()
    for _ in range(30):
        sender.turn(picture.layers["l"], timers.now)
        picture.play(1)
    assert picture.asked == ["l"] * 2  # in a second


def test_who_turns_back_before_the_key_frame_stays(peer: Peer, timers: Timers) -> None:
    picture = Picture(timers)
    picture.answers = False
    sender = watch(picture.layers["h"], peer, 0)
    picture.play(50)
    sender.turn(picture.layers["l"], timers.now)
    sender.turn(picture.layers["h"], timers.now)
    picture.play(30)
    assert [unit for _, unit in access_units(peer.receive())] == picture.units["h"]
    assert picture.layers["l"].awaiting == {}
    assert sender.turns == 0


def test_a_viewer_who_has_no_picture_yet_begins_with_the_layer_at_once(peer: Peer, timers: Timers) -> None:
    picture = Picture(timers)
    picture.play(10)
    address, peer.address = peer.address, None  # not connected
    sender = watch(picture.layers["h"], peer, timers.now)
    sender.turn(picture.layers["l"], timers.now)
    peer.address = address
    sender.start(timers.now)
    picture.play(10)
    assert [unit for _, unit in access_units(peer.receive())] == picture.units["l"]


def test_a_layer_that_is_left_for_good_is_replaced_by_the_cached_group_of_another(peer: Peer, timers: Timers) -> None:
    picture = Picture(timers)
    sender = watch(picture.layers["h"], peer, 0)
    picture.play(20)
    picture.asked.clear()
    sender.attach(picture.layers["l"], timers.now)
    picture.play(5, "l")
    packets = peer.receive()
    assert [unit for _, unit in access_units(packets)] == picture.units["h"] + picture.units["l"]
    assert contiguous(packets)
    assert growing(packets)
    assert picture.asked == []


def test_a_viewer_who_leaves_is_not_turned(peer: Peer, timers: Timers) -> None:
    picture = Picture(timers)
    picture.answers = False
    sender = watch(picture.layers["h"], peer, 0)
    picture.play(10)
    sender.turn(picture.layers["l"], timers.now)
    sender.detach()
    picture.play(60)
    assert picture.layers["l"].awaiting == {}
    assert sender.source is None


def test_the_rate_of_a_layer_is_measured_as_it_goes_out(peer: Peer, timers: Timers) -> None:
    picture = Picture(timers)
    picture.play(90)
    assert picture.layers["h"].bitrate == pytest.approx((LARGE + 6 * 56) * 8 * 30, rel=0.1)
    assert picture.layers["l"].bitrate == pytest.approx((SMALL + 2 * 56) * 8 * 30, rel=0.1)


def test_who_is_sent_little_is_not_taken_for_one_who_could_not_get_more() -> None:
    estimator, now = BandwidthEstimator(), 0

    def send(seconds: float, size: int, delay: int = 10 * MS) -> None:
        nonlocal now
        for _ in range(int(seconds * 50)):
            now += SECOND // 50
            estimator.add([Heard(now, [(now + delay) // ARRIVAL_NS], 0, size)], now)

    send(5, 5000)  # 2 Mbit/s
    before = estimator.bits_per_second
    assert before is not None
    assert before > 2_000_000
    send(20, 100)
    assert estimator.bits_per_second == before
    send(1, 20_000)  # more than ever before, and it arrives
    assert estimator.bits_per_second > 7_000_000
