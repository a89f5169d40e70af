"""The meter of one track and the advice that it gives."""

import pytest

from gateway.sessions.track_meter import LONG_WAIT, TrackMeter
from protocols.media import EncodedPacket, Kind

S = 1_000_000_000


def packet(at: int, size: int = 1000, keyframe: bool = False) -> EncodedPacket:
    return EncodedPacket(track=1, pts=at, dts=at, keyframe=keyframe, data=bytes(size), begun=at, arrival=at)


def test_rates_are_measured_over_the_last_seconds() -> None:
    meter = TrackMeter(Kind.VIDEO)
    for n in range(300):
        meter.count(packet(n * S // 30))
    assert meter.frame_rate == pytest.approx(30, abs=0.1)
    assert meter.bitrate == pytest.approx(30 * 8000, rel=0.02)
    assert (meter.packets, meter.bytes) == (300, 300_000)


def test_a_long_key_frame_interval_is_told_with_the_setting_to_change() -> None:
    meter = TrackMeter(Kind.VIDEO)
    meter.count(packet(1 * S, keyframe=True))
    meter.count(packet(11 * S, keyframe=True))
    advice = meter.keyframe_advice
    assert "10.0 s" in advice
    assert "keyframe interval to 2 s" in advice


def test_two_second_key_frames_give_no_advice() -> None:
    meter = TrackMeter(Kind.VIDEO)
    for n in range(5):
        meter.count(packet(2 * n * S + S, keyframe=True))
    assert meter.keyframe_advice == ""


def test_a_track_that_stops_is_told_after_five_seconds() -> None:
    meter = TrackMeter(Kind.AUDIO)
    meter.count(packet(S))
    assert meter.stall_advice(5 * S) == ""
    assert meter.stall_advice(8 * S).startswith("No audio for 7 s")


def test_audio_never_gets_key_frame_advice() -> None:
    meter = TrackMeter(Kind.AUDIO)
    meter.count(packet(1 * S, keyframe=True))
    meter.count(packet(21 * S, keyframe=True))
    assert meter.keyframe_advice == ""


def test_frames_that_come_evenly_have_no_jitter_and_uneven_ones_have() -> None:
    even, uneven = TrackMeter(Kind.VIDEO), TrackMeter(Kind.VIDEO)
    for n in range(300):
        even.count(packet(n * S // 30))
        at = n * S // 30
        late = at + (n % 2) * S // 100  # every other frame 10 ms late
        uneven.count(EncodedPacket(track=1, pts=at, dts=at, keyframe=False, data=b"", begun=late, arrival=late))
    assert even.jitter == 0
    assert uneven.jitter == pytest.approx(S / 100, rel=0.02)


def test_that_no_key_frame_comes_is_told_after_four_seconds_and_not_with_the_second_one() -> None:
    meter = TrackMeter(Kind.VIDEO)
    for n in range(10 * 30):
        now = S + n * S // 30
        meter.count(packet(now, keyframe=n == 0))
        advice = meter.keyframe_wait_advice(now)
        assert (advice != "") is (now - S > LONG_WAIT)
    assert advice.startswith("No key frame has come for 9 s so far: set the keyframe interval to 2 s")
    meter.count(packet(11 * S, keyframe=True))
    assert meter.keyframe_wait_advice(11 * S) == ""
    assert "10.0 s" in meter.keyframe_advice


def test_a_picture_that_never_had_a_key_frame_is_told_and_a_stall_is_none_of_its_kind() -> None:
    meter, sound = TrackMeter(Kind.VIDEO), TrackMeter(Kind.AUDIO)
    assert meter.keyframe_wait_advice(100 * S) == ""
    for n in range(6):
        meter.count(packet(100 * S + n * S))
        sound.count(packet(100 * S + n * S))
    assert meter.keyframe_wait_advice(105 * S).startswith("No key frame has come for 5 s so far")
    assert sound.keyframe_wait_advice(105 * S) == ""
    assert meter.keyframe_wait_advice(111 * S) == ""
    assert meter.stall_advice(111 * S) != ""


@pytest.mark.parametrize("every", [2, 4])
def test_key_frames_that_come_give_no_advice_between_two_of_them(every: int) -> None:
    meter = TrackMeter(Kind.VIDEO)
    for n in range(20 * 30):
        now = S + n * S // 30
        meter.count(packet(now, keyframe=n % (30 * every) == 0))
        assert meter.keyframe_wait_advice(now) == ""
