"""The gateway's side of one track in a worker: what waits is bounded, whatever the worker's speed is from the start."""

from dataclasses import dataclass, field, replace

import pytest

from protocols.media import Codec, EncodedPacket, Track
from transcode.adaptation import Effort
from transcode.group_cache import GroupCache
from transcode.host.stream import WorkerStage
from transcode.limits import WorkerLimits
from transcode.plan import VideoTarget

MS = 1_000_000
FRAME = 33 * MS
TRACK = Track(1, Codec.H264, width=1280, height=720, frame_rate=30.0)
TARGET = VideoTarget(1280, 720, 1920, 1080, 30.0, 60.0, 2_500_000, 6_000_000)


@dataclass
class MemoryLink:
    """A link to a worker that takes a packet when the test says so."""

    limits: WorkerLimits = field(default_factory=WorkerLimits)
    up: bool = True
    backlog: int = 0
    sent: list[tuple[EncodedPacket, bool]] = field(default_factory=list)

    def send(self, message: bytes) -> None: ...

    def send_packet(self, stage: WorkerStage, packet: EncodedPacket, silent: bool) -> None:
        self.sent.append((packet, silent))

    def forget(self, stage: WorkerStage) -> None: ...


def video(count: int, gop: int = 60, start: int = 0) -> list[EncodedPacket]:
    return [EncodedPacket(1, n * FRAME, n * FRAME, n % gop == 0, b"x", 0, 0) for n in range(start, start + count)]


@pytest.mark.parametrize("begins_with", [0, 100], ids=["from nothing", "with a group of pictures"])
def test_a_worker_that_was_too_slow_from_the_start_is_not_let_fall_behind(begins_with: int) -> None:
    link, told = MemoryLink(), []
    packets = video(begins_with + 900)
    shown = packets[begins_with - 1].pts if begins_with else None
    stage = WorkerStage(
        link, 0, TRACK, TARGET, lambda packet: None, None, GroupCache(), shown, lambda effort, cheaper: told.append(effort)
    )
    for packet in packets[:begins_with]:
        stage.process(packet)
    assert stage.stats.dropped == 0
    longest = 0
    for number, packet in enumerate(packets[begins_with:]):
        stage.process(packet)
        if number % 3 == 0 and stage.queued:  # a third of the speed that it needs
            stage.on_taken()
        if number > (450 if begins_with else 0):  # what it began with is through, and what has come meanwhile
            longest = max(longest, stage.queued)
    assert longest * FRAME <= 550 * MS
    assert stage.stats.dropped > 400
    assert told[0] == Effort("superfast", 1)
    assert stage.adaptation == told[-1] == Effort("ultrafast", 2, scale=1 / 2)
    assert stage.stats.lowered == len(told) == 4


def test_a_worker_that_does_not_begin_at_all_gets_no_more_than_one_that_stands_still() -> None:
    link = MemoryLink()
    stage = WorkerStage(link, 0, TRACK, TARGET, lambda packet: None, None, GroupCache())
    for packet in video(100):
        stage.process(packet)
    assert len(link.sent) * FRAME <= 600 * MS
    assert stage.stats.dropped == 100 - len(link.sent)
    while stage.queued:
        stage.on_taken()
    assert stage.starved
    for packet in video(40, start=100):
        stage.process(packet)
        if stage.queued:
            stage.on_taken()
    assert [packet.pts for packet, _ in link.sent[-20:]] == [n * FRAME for n in range(120, 140)], "from the next key frame on"


def test_a_worker_that_keeps_up_loses_nothing_of_the_group_that_it_began_with() -> None:
    link = MemoryLink()
    packets = video(300, gop=150)
    stage = WorkerStage(link, 0, TRACK, TARGET, lambda packet: None, None, GroupCache(), packets[139].pts)
    for packet in packets[:140]:
        stage.process(packet)
    for packet in packets[140:]:
        stage.process(packet)
        for _ in range(min(stage.queued, 8)):
            stage.on_taken()
    assert [packet for packet, _ in link.sent] == packets
    assert stage.adaptation is None


def test_after_a_restart_a_slow_worker_is_shown_again_and_not_fed_in_silence_for_ever() -> None:
    link = MemoryLink()
    group = GroupCache()
    stage = WorkerStage(link, 0, TRACK, TARGET, lambda packet: None, None, group)
    packets = video(400)
    for packet in packets[:59]:
        group.add(packet)
        stage.process(packet)
        stage.on_taken()
    stage.restore(None)
    link.sent.clear()
    for number, packet in enumerate(packets[59:]):
        group.add(packet)
        stage.process(packet)
        if number % 2:
            stage.on_taken()
    assert any(silent for _, silent in link.sent)
    assert not any(silent for packet, silent in link.sent if packet.pts > packets[59 + 60].pts)


def test_a_worker_that_is_too_slow_for_its_layers_gives_them_up_from_the_top() -> None:
    link, told = MemoryLink(), []
    target = replace(TARGET, layers=3)
    stage = WorkerStage(
        link, 0, TRACK, target, lambda packet: None, None, GroupCache(), None, lambda effort, cheaper: told.append(effort)
    )
    assert [(track.layer, track.width) for track in stage.tracks] == [("f", 1280), ("h", 640), ("q", 320)]
    for number, packet in enumerate(video(900)):
        stage.process(packet)
        if number % 3 == 0 and stage.queued:
            stage.on_taken()
    assert [(effort.lower, effort.shed, effort.scale) for effort in told] == [(1, 0, 1), (2, 0, 1), (2, 1, 1), (2, 2, 1)]


@pytest.mark.parametrize(
    ("target", "spared"), [(TARGET, 0), (replace(TARGET, layers=3), 2), (replace(TARGET, layers=3, passed=True), 2)]
)
def test_layers_make_room_for_others_one_after_the_other(target: VideoTarget, spared: int) -> None:
    stage = WorkerStage(MemoryLink(), 0, TRACK, target, lambda packet: None, None, GroupCache())
    given = [stage.shed() for _ in range(4)]
    assert given == [True] * spared + [False] * (4 - spared)
    assert (stage.adaptation.shed if stage.adaptation else 0) == spared
    assert stage.stats.lowered == spared


def test_a_worker_that_had_to_skip_says_that_it_starves_once_it_has_room() -> None:
    link = MemoryLink()
    stage = WorkerStage(link, 0, TRACK, TARGET, lambda packet: None, None, GroupCache())
    packets = video(400, gop=1000)  # an encoder that makes key frames only when it is asked
    for packet in packets[:10]:
        stage.process(packet)
        stage.on_taken()
    assert not stage.starved
    for packet in packets[10:]:
        stage.process(packet)
    assert not stage.starved, "it is still full"
    while stage.queued:
        stage.on_taken()
    assert stage.starved
    stage.process(video(1, gop=1, start=400)[0])
    assert not stage.starved
