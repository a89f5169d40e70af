"""REMB for a publisher who has nothing better: it falls when a queue fills, and at nothing that only looks like one."""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from aiortc.rtp import RtcpPsfbPacket, unpack_remb_fci

from protocols.webrtc.receive.estimate import START
from protocols.webrtc.rtp import abs_send_time
from tests.unit.protocols.webrtc.loopback import MS, SECOND
from tests.unit.protocols.webrtc.receive.test_receiver import H264, IDR, OPUS, Peer, audio, of, rtp, video

ABS_SEND_TIME = 2
STEP = 10 * MS
PLANNED = 4_000_000
Delay = Callable[[str, int], int]
"""(video or audio, time in ns) -> ns"""


def none(kind: str, at: int) -> int:
    return 0


@dataclass
class Path:
    """A publisher of 30 pictures and 50 sounds a second, a link of `rate` bit/s (0: any) with a queue that loses nothing, and our end.

    `held` is what an encoder or a pacer holds a packet back for before it leaves, `late` what the network adds behind the queue.
    """

    rate: int = 0
    sound: bool = True
    stamped: bool = False  # with the absolute send time
    follows: bool = False  # REMB, as encoders do
    key_bytes: int = 0  # every two seconds
    skew: int = 0  # parts in a million by which the publisher's clock runs fast
    set_back: int = 0
    held: Delay = none
    late: Delay = none
    bitrate: int = PLANNED
    remb: list[tuple[int, int]] = field(default_factory=list)
    queue: int = 0  # ns that the newest packet takes

    def __post_init__(self) -> None:
        extension = ABS_SEND_TIME if self.stamped else 0
        lines = [video(frozenset({"goog-remb"}), transport_cc_extension=0, abs_send_time_extension=extension)]
        self.peer = Peer(*lines, *([audio(transport_cc_extension=0)] if self.sound else []))
        self.begun, self.now = self.peer.now, 0
        self._free_at = self._made = self._video = self._sequence = self._audio = 0
        self._leaving: list[tuple[int, int, str, int, bytes]] = []
        self._flying: list[tuple[int, int, bytes]] = []

    @property
    def falls(self) -> list[int]:
        """When the figure that is told went down, in ns."""
        return [at for (_, before), (at, bits) in pairwise([(0, START), *self.remb]) if bits < before]

    def live(self, seconds: float) -> None:
        for _ in range(int(seconds * SECOND) // STEP):
            self.now += STEP
            for item in self._make():
                heapq.heappush(self._leaving, item)
            while self._leaving and self._leaving[0][0] <= self.now:
                leaves, number, kind, _, data = heapq.heappop(self._leaving)
                heapq.heappush(self._flying, (self._through(leaves, data) + self.late(kind, leaves), number, data))
            while self._flying and self._flying[0][0] <= self.now:
                arrival, _, data = heapq.heappop(self._flying)
                self._poll(arrival)
                self.peer.receive(data)
            self._poll(self.now)

    def _make(self) -> Iterator[tuple[int, int, str, int, bytes]]:
        while (at := self._video * SECOND // 30) < self.now:
            key = self.key_bytes if self._video % 60 == 0 else 0
            parts = max(1, (key or self.bitrate // 8 // 30) // 1200)
            leaves = at + self.held("video", at)
            extensions = {ABS_SEND_TIME: abs_send_time(leaves).to_bytes(3, "big")} if self.stamped else {}
            for part in range(parts):
                data = rtp(
                    H264, self._sequence, self._ticks(at, 90_000), 7, IDR + bytes(1160), extensions, marker=part == parts - 1
                )
                self._sequence += 1
                yield leaves, self._number(), "video", at, data
            self._video += 1
        while self.sound and (at := self._audio * SECOND // 50) < self.now:
            leaves = at + self.held("audio", at)
            yield leaves, self._number(), "audio", at, rtp(OPUS, self._audio, self._ticks(at, 48_000), 8, bytes(200))
            self._audio += 1

    def _number(self) -> int:
        self._made += 1
        return self._made

    def _ticks(self, at: int, rate: int) -> int:
        return (at - self.set_back) * (1_000_000 + self.skew) * rate // (1_000_000 * SECOND) + 0xFFFF0000

    def _through(self, at: int, data: bytes) -> int:
        self._free_at = max(self._free_at, at) + (len(data) * 8 * SECOND // self.rate if self.rate else 0)
        self.queue = self._free_at - at
        return self._free_at

    def _poll(self, at: int) -> None:
        self.peer.now = max(self.peer.now, self.begun + at)
        for packet in of(RtcpPsfbPacket, self.peer.poll()):
            bits, _ = unpack_remb_fci(packet.fci)
            self.remb.append((self.now, bits))
            if self.follows:
                self.bitrate = min(PLANNED, bits)


@pytest.mark.parametrize(("sound", "stamped"), [(True, False), (False, False), (True, True), (False, True)])
@pytest.mark.parametrize("rate", [2_400_000, 3_000_000, 3_600_000])
def test_it_falls_while_the_queue_is_short_and_rises_again(rate: int, sound: bool, stamped: bool) -> None:
    path = Path(sound=sound, stamped=stamped, follows=True)
    path.live(5)
    assert path.falls == []
    path.rate = rate
    while not path.falls:
        path.live(0.01)
        assert path.queue < 300 * MS
    assert 0.7 * rate < path.remb[-1][1] < rate
    path.live(15)  # at what the way carries
    queues = []
    for _ in range(1500):
        path.live(0.01)
        queues.append(path.queue)
    assert max(queues) < 300 * MS
    assert 0.7 * rate < path.bitrate < 1.2 * rate
    path.rate = 0
    path.live(15)
    assert path.bitrate == PLANNED


def jitter(kind: str, at: int) -> int:
    return random.Random(at).choice((0, 5, 10, 20, 30, 150)) * MS


def stalls(kind: str, at: int) -> int:
    """Once in a second the network stands still for 120 ms."""
    return max(0, 120 * MS - at % SECOND)


def slow_encoder(kind: str, at: int) -> int:
    """It falls behind by 60 ms a second, as one does that is short of CPU."""
    return at % (5 * SECOND) * 6 // 100 if kind == "video" else 0


def busy_pacer(kind: str, at: int) -> int:
    return 200 * MS if kind == "video" and at > 2 * SECOND else 0


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(Path(late=jitter), id="jitter"),
        pytest.param(Path(late=jitter, sound=False), id="jitter without sound"),
        pytest.param(Path(late=jitter, sound=False, stamped=True), id="jitter with send times"),
        pytest.param(Path(late=stalls), id="stalls"),
        pytest.param(Path(rate=5_000_000, bitrate=3_000_000, key_bytes=150_000), id="large key frames"),
        pytest.param(
            Path(rate=5_000_000, bitrate=3_000_000, key_bytes=150_000, sound=False), id="large key frames without sound"
        ),
        pytest.param(Path(skew=300), id="a fast clock"),
        pytest.param(Path(skew=-300), id="a slow clock"),
        pytest.param(Path(held=slow_encoder), id="a slow encoder"),
        pytest.param(Path(held=slow_encoder, sound=False, stamped=True), id="a slow encoder with send times"),
        pytest.param(Path(held=busy_pacer), id="a busy pacer"),
        pytest.param(Path(bitrate=50_000, sound=False, late=jitter), id="few packets"),
    ],
)
def test_it_does_not_fall_at_what_is_no_queue(path: Path) -> None:
    path.live(60)
    assert path.falls == []
    assert path.remb[-1][1] == pytest.approx(50_000_000, rel=0.01)


def test_a_clock_that_was_set_is_no_queue() -> None:
    path = Path()
    path.live(5)
    path.set_back += 20 * SECOND
    path.live(5)
    assert path.falls == []
