"""Media that arrive apart go out in step, as late as the later one; media that arrive together wait for nothing, and nothing is lost."""

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sessions.lip_sync import Apart, LipSync
from gateway.sessions.pacer import LiveEdgePolicy, Pacer
from gateway.sessions.timeline import Timeline
from protocols.media import Kind
from tests.support.arriving import AUDIO, FRAME, MS, ORIGIN, SECOND, VIDEO, Arriving
from tests.support.unheard import unheard

BEFORE, AFTER = 40 * MS, 60 * MS  # that sound may be before and after the picture: EBU R 37
FROM = 3  # s
KINDS = {VIDEO: Kind.VIDEO, AUDIO: Kind.AUDIO}


@dataclass
class Sent:
    """How late each packet goes out, by track and second of capture; and how much later than it came at most."""

    late: dict[int, dict[int, list[int]]] = field(default_factory=lambda: {VIDEO: defaultdict(list), AUDIO: defaultdict(list)})
    waited: int = 0
    told: list[Apart] = field(default_factory=list)
    order: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    came: int = 0

    def sound_after(self, second: int) -> int:
        """At a player that shows each medium as soon as it comes without a gap."""
        return max(self.late[AUDIO][second]) - max(self.late[VIDEO][second])

    @property
    def in_step(self) -> bool:
        return all(
            -BEFORE <= self.sound_after(second) <= AFTER
            for second in self.late[VIDEO]
            if second in self.late[AUDIO] and second >= FROM
        )


def send(arriving: Arriving, duration: int = 20 * SECOND, known: int = 0) -> Sent:
    """`known`: ns after the first packet at which all tracks are known; what came before is handed on then."""
    sent = Sent()
    lip_sync, pacer = LipSync(sent.told.append), Pacer(LiveEdgePolicy())
    lip_sync.expect(Kind)

    def release(until: int) -> None:
        while (due := pacer.next_release) is not None and due <= until:
            give(due)

    def give(now: int) -> None:
        for packet in pacer.pop(now):
            sent.late[packet.track][packet.dts // SECOND].append(now - ORIGIN - packet.dts)
            sent.order[packet.track].append(packet.dts)
            sent.waited = max(sent.waited, now - packet.arrival)

    now = ORIGIN
    for _, packet in arriving.packets(duration):
        now = max(packet.arrival, ORIGIN + known)
        release(now)
        lip_sync.note(packet.track, KINDS[packet.track], packet.dts, packet.arrival, now)
        pacer.hold_back(lip_sync.hold, at_once=lip_sync.at_once)
        pacer.push(packet, KINDS[packet.track], now)
        give(now)
        sent.came += 1
    release(now + 2 * SECOND)
    assert sum(pacer.dropped.values()) == 0
    assert sum(map(len, sent.order.values())) == sent.came
    assert all(order == sorted(order) for order in sent.order.values())
    return sent


@pytest.mark.parametrize("spurt", [180, 340, 380])
def test_sound_in_spurts_is_in_step_from_the_third_second_on(spurt: int) -> None:
    sent = send(Arriving(spurt=spurt * MS))
    assert sent.in_step
    assert sent.waited <= (spurt + 20) * MS
    (apart,) = sent.told
    assert apart.later is Kind.AUDIO
    assert apart.by == pytest.approx(spurt * MS, abs=45 * MS)
    assert apart.text.startswith("The sound arrives ")


@pytest.mark.parametrize("spurt", [180, 340, 380])
def test_what_waited_until_the_sound_was_known_goes_out_evenly_from_the_first_packet_on(spurt: int) -> None:
    sent = send(Arriving(spurt=spurt * MS), known=spurt // 21 * FRAME)
    for track in VIDEO, AUDIO:
        late = [each for second in sorted(sent.late[track]) for each in sent.late[track][second]]
        assert max(late) - min(late) <= 30 * MS, "no spurt is left"
    assert all(abs(sent.sound_after(second)) <= 25 * MS for second in range(19))


def test_what_waited_beside_sound_that_comes_at_once_catches_up() -> None:
    sent = send(Arriving(), known=300 * MS)
    assert sent.told == []
    assert max(sent.late[VIDEO][0]) <= 301 * MS
    assert all(max(sent.late[track][second]) <= MS for track in (VIDEO, AUDIO) for second in range(3, 19))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([VIDEO, AUDIO]), st.integers(80, 380), st.integers(0, 30), st.integers(0, 10**6))
def test_a_medium_that_is_always_later_is_waited_for(later: int, by: int, jitter: int, seed: int) -> None:
    sent = send(Arriving(jitter=jitter * MS, seed=seed, late={VIDEO: 0, AUDIO: 0} | {later: by * MS}))
    assert sent.in_step
    if by >= 110:
        assert [apart.later for apart in sent.told] == [KINDS[later]]
    elif by < 90 - jitter:
        assert sent.told == [], "what a streamer need not mend"
    assert sent.waited <= (by + jitter + 35) * MS


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 95), st.integers(0, 10**6))
def test_media_that_arrive_together_wait_for_nothing_whatever_the_network_does(jitter: int, seed: int) -> None:
    sent = send(Arriving(jitter=max(1, jitter * MS), seed=seed))
    assert sent.waited == 0
    assert sent.told == []


def test_for_an_encoder_that_comes_back_what_waited_before_waits_from_its_first_packet_on_and_nothing_for_its_probing() -> None:
    for before in (0, 180 * MS):
        lip_sync = LipSync(unheard, before)
        lip_sync.expect([Kind.VIDEO, Kind.AUDIO])
        assert (lip_sync.hold, lip_sync.at_once) == (before, True)
        lip_sync.note(VIDEO, Kind.VIDEO, 0, 0, 300 * MS)
        assert lip_sync.hold == before


def test_what_waits_is_bounded() -> None:
    sent = send(Arriving(late={VIDEO: 0, AUDIO: SECOND}))
    assert sent.waited <= 420 * MS
    (apart,) = sent.told
    assert (apart.by // (10 * MS), apart.hold) == (100, 400 * MS)


def test_who_waits_for_a_track_that_has_ended_waits_no_longer() -> None:
    lip_sync = LipSync(lambda apart: None)
    for captured, packet in Arriving(spurt=340 * MS).packets(20 * SECOND):
        if packet.track == VIDEO or captured < 8 * SECOND:
            lip_sync.note(packet.track, KINDS[packet.track], packet.dts, packet.arrival, packet.arrival)
        if captured == 0 or (packet.track == AUDIO and 7 * SECOND < captured < 8 * SECOND):
            held = lip_sync.hold
    assert held > 0
    assert lip_sync.hold == 0


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([VIDEO, AUDIO]),
    st.floats(0.0, 0.95) | st.floats(1.05, 2),
    st.integers(1, 60),
    st.integers(0, 10**6),
)
def test_a_wrong_clock_is_not_taken_for_a_medium_that_comes_late(wrong: int, rate: float, jitter: int, seed: int) -> None:
    told: list[Apart] = []
    lip_sync, timeline = LipSync(told.append), Timeline(unheard)
    arriving = Arriving({VIDEO: 1.0, AUDIO: 1.0} | {wrong: rate}, jitter=jitter * MS, seed=seed)
    for _, packet in arriving.packets(20 * SECOND):
        mapped = timeline.map(packet)
        if timeline.settling(packet.track):
            lip_sync.forget(packet.track)
        else:
            lip_sync.note(packet.track, KINDS[packet.track], mapped.dts, packet.arrival, packet.arrival)
    assert told == []
