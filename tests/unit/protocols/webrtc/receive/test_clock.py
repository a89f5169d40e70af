"""Several RTP clocks on one time line: at once by arrival, then as the reports say, and never with a jump."""

from protocols.webrtc.receive.clock import SLEW, StreamClock, WallClock
from tests.unit.protocols.webrtc.loopback import MS, SECOND

ARRIVAL = 5000 * SECOND


def ntp(nanoseconds: int) -> int:
    return (nanoseconds << 32) // SECOND


def near(a: int, b: int, within: int = MS) -> bool:
    return abs(a - b) <= within


def test_a_stream_begins_at_its_arrival_and_runs_by_its_own_clock() -> None:
    clock = StreamClock(90_000, WallClock())
    assert clock.media(4_000_000_000, ARRIVAL) == ARRIVAL
    assert clock.media(4_000_003_000, ARRIVAL + 90 * MS) == ARRIVAL + SECOND // 30
    assert near(clock.media(4_000_001_500, 0), ARRIVAL + SECOND // 60, 1)  # back a little, as with B-frames


def test_timestamps_wrap() -> None:
    clock = StreamClock(90_000, WallClock())
    clock.media(0xFFFFFF00, ARRIVAL)
    assert near(clock.media(0x100, ARRIVAL), ARRIVAL + 512 * SECOND // 90_000, 1)


def test_reports_bring_the_streams_together_slowly() -> None:
    wall = WallClock()
    audio, video = StreamClock(48_000, wall, leads=True), StreamClock(90_000, wall)
    audio.media(0, ARRIVAL)
    video.media(0, ARRIVAL + 100 * MS)  # it took longer to encode, so arrival lies by 100 ms
    video.report(ntp(SECOND), 0)
    audio.report(ntp(SECOND), 0)
    video.report(ntp(2 * SECOND), 90_000)
    before = video.media(3000, 0)
    for frame in range(2, 31 * 6):
        after = video.media(3000 * frame, 0)
        step = after - before
        assert near(step, SECOND // 30, SECOND // 30 // SLEW + 1)
        before = after
    assert near(before, ARRIVAL + (31 * 6 - 1) * SECOND // 30)  # in step with the sound
    assert near(audio.media(48_000, 0), ARRIVAL + SECOND, 1)  # which leads and never moved


def test_a_wall_clock_that_is_set_moves_nothing() -> None:
    wall = WallClock()
    audio, video = StreamClock(48_000, wall, leads=True), StreamClock(90_000, wall)
    for clock in (audio, video):
        clock.media(0, ARRIVAL)
        clock.report(ntp(SECOND), 0)
    audio.report(ntp(3600 * SECOND), 48_000)
    video.report(ntp(3600 * SECOND), 90_000)
    assert near(audio.media(96_000, 0), ARRIVAL + 2 * SECOND)
    assert near(video.media(180_000, 0), ARRIVAL + 2 * SECOND)


def test_a_leading_clock_that_drifts_takes_the_others_with_it() -> None:
    wall = WallClock()
    audio, video = StreamClock(48_000, wall, leads=True), StreamClock(90_000, wall)
    for clock in (audio, video):
        clock.media(0, ARRIVAL)
    for second in range(1, 60):  # the sound's clock is slow by 0.1 %
        sound = audio.media(second * 47_952, 0)
        picture = video.media(second * 90_000, 0)
        audio.report(ntp(second * SECOND), second * 47_952)
        video.report(ntp(second * SECOND), second * 90_000)
    assert sound == ARRIVAL + 59 * 999 * MS
    assert near(picture, sound, 3 * MS)


def test_without_sound_the_pictures_lead_themselves() -> None:
    wall = WallClock()
    layers = [StreamClock(90_000, wall) for _ in range(2)]
    for number, clock in enumerate(layers):
        clock.media(0, ARRIVAL + number * 40 * MS)
        clock.report(ntp(SECOND), 0)
    for number in range(1, 300):
        times = [clock.media(3000 * number, 0) for clock in layers]
    assert times[0] == times[1] == ARRIVAL + 299 * SECOND // 30


def test_reports_before_the_first_frame_and_of_no_clock_count_nothing() -> None:
    wall = WallClock()
    clock = StreamClock(48_000, wall)
    clock.report(ntp(SECOND), 0)
    clock.media(0, ARRIVAL)
    clock.report(0, 48_000)
    assert wall.offset is None
    assert clock.media(48_000, 0) == ARRIVAL + SECOND
