"""The live edge under steady, jittery, stalled, too fast and drifting sources. Time is simulated; nothing waits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from gateway.sessions.pacer import ENDED, LATE, OVERFLOW, LiveEdgePolicy, Pacer
from protocols.media import EncodedPacket, Kind

MS = 1_000_000
SECOND = 1000 * MS
VIDEO, AUDIO = 1, 2
FRAME, AAC = 40 * MS, 20 * MS
KINDS = {VIDEO: Kind.VIDEO, AUDIO: Kind.AUDIO}
ORIGIN = 10**15  # local time of the first packet: not 0, as no monotonic clock is

Times = Callable[[int], int]


def packets(
    duration: int, gop: int = 2 * SECOND, *, video: bool = True, audio: bool = True, start: int = 0
) -> list[EncodedPacket]:
    """Packets by dts, video first; `arrival` is for the network to set."""
    out = []
    if video:
        out += [EncodedPacket(VIDEO, t, t, t % gop == 0, b"v", 0, 0) for t in range(start, start + duration, FRAME)]
    if audio:
        out += [EncodedPacket(AUDIO, t, t, True, b"a", 0, 0) for t in range(start, start + duration, AAC)]
    return sorted(out, key=lambda p: (p.dts, p.track))


@dataclass
class Session:
    """A pacer with a clock: `sent` holds what went out and when, local time from 0."""

    pacer: Pacer = field(default_factory=lambda: Pacer(LiveEdgePolicy()))
    sent: list[tuple[int, EncodedPacket]] = field(default_factory=list)

    def run(self, source: Iterable[tuple[int, EncodedPacket]]) -> None:
        """Packets with the local time at which each comes; releases happen exactly when the pacer says."""
        for at, packet in source:
            self.advance(at)
            self.pacer.push(packet, KINDS[packet.track], ORIGIN + at)
            self._pop(at)

    def run_with_back_pressure(self, source: Iterable[EncodedPacket], interval: int) -> None:
        """A publisher that sends one packet each `interval`, and none while the pacer is paused."""
        at = 0
        for packet in source:
            while self.pacer.paused:
                at = max(at, self._next_release())
                self._pop(at)
            self.run([(at, packet)])
            at += interval
        self.advance(at + 10**12)

    def advance(self, until: int) -> None:
        """Let time pass, with the releases that are due."""
        while self.pacer.next_release is not None and self._next_release() <= until:
            at = self._next_release()
            self._pop(at)
            assert self.pacer.next_release is None or self._next_release() > at

    def _next_release(self) -> int:
        release = self.pacer.next_release
        assert release is not None
        return release - ORIGIN

    def _pop(self, at: int) -> None:
        self.sent += [(at, packet) for packet in self.pacer.pop(ORIGIN + at)]

    def of(self, track: int) -> list[tuple[int, int]]:
        """(local time sent, dts) of one track."""
        return [(at, p.dts) for at, p in self.sent if p.track == track]


def in_order(source: list[EncodedPacket], arrives: Times) -> list[tuple[int, EncodedPacket]]:
    """As over TCP: each packet comes at `arrives(dts)`, none before the one before it."""
    out: list[tuple[int, EncodedPacket]] = []
    at = 0
    for packet in source:
        at = max(at, arrives(packet.dts))
        out.append((at, packet))
    return out


def decodable(session: Session, gop: int) -> bool:
    """No frame went out whose frame before did not, but for key frames."""
    sent = {dts for _, dts in session.of(VIDEO)}
    return all(dts % gop == 0 or dts - FRAME in sent for dts in sent)


def total(pacer: Pacer) -> int:
    return sum(pacer.dropped.values())


@pytest.mark.parametrize(("video", "audio"), [(True, True), (True, False), (False, True)])
def test_a_steady_source_passes_at_once(video: bool, audio: bool) -> None:
    session = Session()
    source = in_order(packets(10 * SECOND, video=video, audio=audio), lambda t: t)
    session.run(source)
    assert session.sent == source
    assert total(session.pacer) == 0
    assert not session.pacer.paused


def test_jitter_adds_no_delay() -> None:
    session = Session()
    source = in_order(packets(30 * SECOND), lambda t: t + t * 7919 % (90 * MS))
    session.run(source)
    assert session.sent == source
    assert total(session.pacer) == 0


def test_a_short_stall_loses_nothing() -> None:
    session = Session()
    source = in_order(packets(20 * SECOND), lambda t: 10_600 * MS if 10 * SECOND <= t < 10_600 * MS else t)
    session.run(source)
    assert session.sent == source


def test_a_stall_of_three_seconds_ends_in_step_and_without_delay() -> None:
    session = Session()
    source = in_order(packets(20 * SECOND), lambda t: 13 * SECOND if 10 * SECOND < t < 13 * SECOND else t)
    session.run(source)
    assert decodable(session, 2 * SECOND)
    assert session.pacer.dropped[OVERFLOW] == 0
    # video waits for the key frame at 14 s, audio for what is in time
    video = [dts for _, dts in session.of(VIDEO) if dts > 10 * SECOND]
    audio = [dts for _, dts in session.of(AUDIO) if dts > 10 * SECOND]
    assert video[0] == 14 * SECOND
    assert audio[0] == 12_300 * MS
    assert session.pacer.dropped[LATE] == (4 * SECOND // FRAME - 1) + (2300 * MS // AAC - 1)
    # and nothing is later than it ever was
    assert all(at == dts for at, dts in session.of(VIDEO) + session.of(AUDIO) if dts >= 13 * SECOND)
    assert not session.pacer.needs_keyframe


def test_a_key_frame_in_time_within_the_backlog_is_taken() -> None:
    session = Session()
    session.run(in_order(packets(20 * SECOND), lambda t: 14_500 * MS if 10 * SECOND < t < 14_500 * MS else t))
    assert next(item for item in session.of(VIDEO) if item[1] > 10 * SECOND) == (14_500 * MS, 14 * SECOND)


def test_a_long_gop_asks_for_a_key_frame_while_audio_goes_on() -> None:
    session = Session()
    source = in_order(packets(20 * SECOND, gop=100 * SECOND), lambda t: 13 * SECOND if 10 * SECOND < t < 13 * SECOND else t)
    session.run(source)
    assert session.pacer.needs_keyframe
    assert session.of(VIDEO)[-1][1] == 10 * SECOND
    assert session.of(AUDIO)[-1] == (20 * SECOND - AAC, 20 * SECOND - AAC)
    key = EncodedPacket(VIDEO, 20 * SECOND, 20 * SECOND, True, b"k", 0, 0)
    session.run([(20 * SECOND, key)])
    assert session.sent[-1][1] is key
    assert not session.pacer.needs_keyframe


def test_a_track_that_has_ended_asks_for_no_key_frame_for_ever() -> None:
    session = Session()
    source = in_order(packets(20 * SECOND, gop=100 * SECOND), lambda t: 13 * SECOND if 10 * SECOND < t < 13 * SECOND else t)
    session.run(source)
    assert session.pacer.needs_keyframe
    session.run((packet.dts, packet) for packet in packets(5 * SECOND, video=False, start=20 * SECOND))
    assert not session.pacer.needs_keyframe


@pytest.mark.parametrize("longer", [900 * MS, 5 * SECOND])
def test_a_path_that_got_longer_for_good_is_accepted(longer: int) -> None:
    session = Session()
    session.run(in_order(packets(30 * SECOND), lambda t: t + longer if t > 10 * SECOND else t))
    back = [at for at, dts in session.of(VIDEO) if dts > 10 * SECOND]
    # two to four seconds of packets, and at most a GOP until the key frame
    assert 12 * SECOND <= back[0] <= 10 * SECOND + longer + 6 * SECOND
    assert session.of(VIDEO)[-1] == (30 * SECOND - FRAME + longer, 30 * SECOND - FRAME)
    assert abs(session.pacer.media_now(ORIGIN + 30 * SECOND + longer) - 30 * SECOND) <= 2 * FRAME
    assert not session.pacer.needs_keyframe


def test_a_backlog_that_drains_slowly_does_not_black_out_for_its_whole_length() -> None:
    """After 4 s of stall TCP brings 1.3 s of media per second: the path counts as longer, and then the edge catches up."""
    session = Session()
    source = in_order(
        packets(60 * SECOND), lambda t: t if t <= 10 * SECOND else max(t, 14 * SECOND + (t - 10 * SECOND) * 10 // 13)
    )
    session.run(source)
    gaps = [b - a for a, b in pairwise(at for at, _ in session.of(AUDIO))]
    assert max(gaps) <= 8_500 * MS
    session.advance(100 * SECOND)
    assert session.of(AUDIO)[-1][0] - session.of(AUDIO)[-1][1] <= 100 * MS


def test_a_track_that_is_always_behind_the_other_is_not_late() -> None:
    session = Session()
    source = [(p.dts + (1500 * MS if p.track == VIDEO else 0), p) for p in packets(20 * SECOND)]
    source.sort(key=lambda item: item[0])
    session.run(source)
    assert session.sent == source


def test_a_silent_track_does_not_hold_the_edge() -> None:
    session = Session()
    source = packets(3 * SECOND) + packets(30 * SECOND, audio=False, start=4 * SECOND)
    session.run(in_order(source, lambda t: t + SECOND if t >= 4 * SECOND else t))
    assert abs(session.pacer.media_now(ORIGIN + 35 * SECOND) - 34 * SECOND) <= 2 * FRAME


def test_a_file_ten_times_too_fast_is_held_back_by_back_pressure() -> None:
    session = Session()
    source = packets(120 * SECOND, gop=8 * SECOND)
    session.run_with_back_pressure(source, AAC // 10)
    assert [p for _, p in session.sent] == source
    assert total(session.pacer) == 0
    at_1s = [dts for at, dts in session.of(VIDEO) if at <= SECOND][-1]
    assert at_1s <= 100 * MS + 1250 * MS
    # after `catch_up` it is shown at its own speed
    late = {at // SECOND: dts for at, dts in session.of(VIDEO)}
    assert 57 * SECOND <= late[100] - late[42] <= 59 * SECOND


def test_never_faster_than_a_quarter_above_real_time() -> None:
    session = Session()
    session.run_with_back_pressure(packets(20 * SECOND), AAC // 10)
    video = session.of(VIDEO)
    assert all(dts - video[0][1] <= 1.25 * (at - video[0][0]) + 100 * MS for at, dts in video)


def test_a_source_that_cannot_be_paused_overflows_to_a_key_frame_in_step() -> None:
    session = Session()
    source = in_order(packets(60 * SECOND, gop=SECOND), lambda t: t // 10)
    session.run(source)
    session.advance(100 * SECOND)
    assert session.pacer.dropped[OVERFLOW] == len(source) - len(session.sent)
    assert session.pacer.dropped[LATE] == 0
    assert decodable(session, SECOND)
    assert session.sent[-1][0] <= 8 * SECOND  # a second of media is the most that waited
    for at, dts in session.of(AUDIO):  # audio stays with the picture
        before = [other for sent, other in session.of(VIDEO) if sent <= at]
        assert abs(before[-1] - dts) <= 1100 * MS


def test_overflow_of_audio_alone_keeps_the_newest() -> None:
    session = Session()
    source = [(0, p) for p in packets(5 * SECOND, video=False)]
    session.run(source)
    session.advance(100 * SECOND)
    assert session.of(AUDIO)[-1][1] == 5 * SECOND - AAC
    assert session.sent[-1][0] <= 1100 * MS
    assert session.pacer.dropped[OVERFLOW] == len(source) - len(session.sent) > 0


def test_overflow_without_a_key_frame_waits_for_the_next() -> None:
    session = Session()
    session.run([(0, p) for p in packets(2 * SECOND, gop=100 * SECOND)])
    assert session.pacer.needs_keyframe
    assert decodable(session, 100 * SECOND)


def test_overflow_takes_an_early_key_frame_if_there_is_no_other() -> None:
    session = Session()
    source = packets(1300 * MS, gop=400 * MS)
    last_key = 400 * MS
    source = [p if p.dts <= last_key else EncodedPacket(p.track, p.dts, p.dts, False, p.data, 0, 0) for p in source]
    session.run([(0, p) for p in source])
    session.advance(100 * SECOND)
    assert not session.pacer.needs_keyframe
    assert [dts for _, dts in session.of(VIDEO) if dts >= last_key] == list(range(last_key, 1300 * MS, FRAME))
    assert session.pacer.dropped[OVERFLOW] > 0


@pytest.mark.parametrize("policy", [LiveEdgePolicy(hold_bytes=2000), LiveEdgePolicy(hold_packets=20)], ids=["bytes", "packets"])
def test_what_waits_is_bounded_in_bytes_and_packets(policy: LiveEdgePolicy) -> None:
    pacer = Pacer(policy)
    pacer.push(EncodedPacket(VIDEO, 0, 0, True, b"", 0, 0), Kind.VIDEO, ORIGIN)
    pacer.pop(ORIGIN)
    for i in range(1000):
        pacer.push(EncodedPacket(VIDEO, 200 * MS + i, 200 * MS + i, True, bytes(100), 0, 0), Kind.VIDEO, ORIGIN)
    assert pacer.paused
    assert 0 < len(pacer.pop(ORIGIN + 10 * SECOND)) <= 20
    assert not pacer.paused


def test_flush_gives_all_that_waits_in_order_and_ends_the_pressure() -> None:
    session = Session()
    source = packets(900 * MS)
    session.run([(0, p) for p in source])
    assert session.pacer.paused
    flushed = session.pacer.flush()
    assert [p for _, p in session.sent] + flushed == source
    assert flushed
    assert not session.pacer.paused
    assert session.pacer.next_release is None
    assert session.pacer.pop(ORIGIN) == []


def test_at_the_end_what_waits_for_the_other_medium_goes_out_and_what_came_too_early_does_not() -> None:
    session, hold = Session(), 340 * MS
    source = in_order(packets(10 * SECOND), lambda t: t)
    session.pacer.hold_back(hold, at_once=False)
    session.run(source)
    newest = 10 * SECOND - AAC
    assert session.of(VIDEO)[-1][1] <= newest - hold
    early = [EncodedPacket(AUDIO, t, t, True, b"a", 0, 0) for t in (newest + 90 * MS, newest + 500 * MS)]
    for packet in early:
        session.pacer.push(packet, Kind.AUDIO, ORIGIN + newest)
    given = session.pacer.finish(ORIGIN + newest)
    assert [p for _, p in session.sent] + given == [*(p for _, p in source), early[0]]
    assert session.pacer.dropped[ENDED] == 1
    assert session.pacer.next_release is None


def test_what_waits_for_the_other_medium_comes_and_goes_smoothly() -> None:
    """Each packet is later than the one before by at most a quarter of what lies between them, and sooner by as much."""
    session = Session()
    session.run(in_order(packets(2 * SECOND), lambda t: t))
    session.pacer.hold_back(400 * MS, at_once=False)
    session.run(in_order(packets(4 * SECOND, start=2 * SECOND), lambda t: t))
    session.pacer.hold_back(0, at_once=False)
    session.run(in_order(packets(4 * SECOND, start=6 * SECOND), lambda t: t))
    session.advance(20 * SECOND)
    later = [at - dts for at, dts in session.of(AUDIO)]
    assert max(later) <= 401 * MS
    assert later[0] == later[-1] == 0
    assert all(abs(b - a) <= AAC // 3 + MS for a, b in pairwise(later))
    assert total(session.pacer) == 0


def test_back_pressure_starts_at_a_half_and_ends_at_a_quarter() -> None:
    session = Session()
    ahead = 100 * MS  # what may go out freely
    session.run([(0, p) for p in packets(ahead + 500 * MS + AAC, video=False)])
    assert not session.pacer.paused
    session.run([(0, p) for p in packets(AAC, video=False, start=ahead + 500 * MS + AAC)])
    assert session.pacer.paused
    paused_until = 0
    while session.pacer.paused:
        paused_until = session.pacer.next_release - ORIGIN if session.pacer.next_release else 0
        session.advance(paused_until)
    # 520 ms wait, to come down to 250 at 1.25 times real time, at the next release
    assert 216 * MS <= paused_until <= 216 * MS + AAC


def test_a_source_in_bursts_loses_nothing() -> None:
    burst = 760 * MS
    session = Session()
    source = [(p.dts // burst * burst, p) for p in packets(20 * SECOND)]
    session.run(source)
    session.advance(100 * SECOND)
    assert total(session.pacer) == 0
    assert len(session.sent) == len(source)


def test_each_burst_of_a_live_source_is_caught_up_anew() -> None:
    """Together they are more than `catch_up`, which is for a file."""
    session = Session(Pacer(LiveEdgePolicy(catch_up=750 * MS)))

    def arrives(dts: int) -> int:
        return max(dts, 500 * MS) if dts < 10 * SECOND else dts + 800 * MS if dts < 20 * SECOND else max(dts, 20_800 * MS)

    session.run(in_order(packets(40 * SECOND), arrives))
    at, dts = session.of(AUDIO)[-1]
    assert at == dts
    assert not session.pacer.paused


def test_a_burst_after_the_start_is_caught_up() -> None:
    """The first packet was held up by 800 ms on its way: in the end the session is as live as the path allows."""
    session = Session()
    session.run(in_order(packets(30 * SECOND), lambda t: max(t, 800 * MS)))
    assert total(session.pacer) == 0
    at, dts = session.of(VIDEO)[-1]
    assert at == dts
    assert session.pacer.media_now(ORIGIN + 30 * SECOND) >= 30 * SECOND - 150 * MS


@pytest.mark.parametrize("parts_per_million", [-200, 200])
def test_clock_drift_over_an_hour_neither_drops_nor_holds(parts_per_million: int) -> None:
    session = Session()
    source = [(p.dts + p.dts * parts_per_million // 1_000_000, p) for p in packets(3600 * SECOND, video=False)]
    for at, packet in source:
        session.pacer.push(packet, Kind.AUDIO, ORIGIN + at)
        assert session.pacer.pop(ORIGIN + at) == [packet]
    at = source[-1][0]
    assert abs(session.pacer.media_now(ORIGIN + at) - source[-1][1].dts) <= 5 * MS
    assert total(session.pacer) == 0


def test_the_report_clock_never_goes_back_on_a_steady_source() -> None:
    session = Session()
    clock = [session.pacer.media_now(ORIGIN)]
    for at, packet in in_order(packets(20 * SECOND), lambda t: t + t * 7919 % (50 * MS)):
        session.run([(at, packet)])
        clock.append(session.pacer.media_now(ORIGIN + at))
    assert clock == sorted(clock)
    assert clock[0] == 0
