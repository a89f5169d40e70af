"""Silence of a connection: what is usual for its tracks is none."""

import pytest

from gateway.sessions.silence import SilenceWatch

MS = 1_000_000
PICTURE, SOUND = 1, 2


def fed(*tracks: tuple[int, int], until: int, start: int = 0) -> SilenceWatch:
    """A watch that has heard these tracks, each with a frame every so many ms, until then (ms)."""
    watch = SilenceWatch()
    for track, every in tracks:
        for at in range(start, until + 1, every):
            watch.heard(track, 90_000 * MS + at * MS, at * MS)
    return watch


@pytest.mark.parametrize(
    ("every", "stalled", "slate"),
    [(20, 500, 1500), (40, 500, 1500), (160, 500, 1500), (200, 600, 1500), (1000, 3000, 3000)],
    ids=str,
)
def test_three_frame_times_and_at_least_half_a_second_are_no_silence(every: int, stalled: int, slate: int) -> None:
    watch = fed((PICTURE, every), until=5 * every)
    assert watch.last == 5 * every * MS
    assert (watch.stalled_at, watch.slate_at) == ((5 * every + stalled) * MS, (5 * every + slate) * MS)


def test_a_connection_is_silent_when_all_of_its_tracks_are() -> None:
    watch = fed((PICTURE, 40), until=4000)
    for at in range(0, 9000, 20):
        watch.heard(SOUND, at * MS, at * MS)
    assert watch.stalled_at == (8980 + 500) * MS, "a picture may stand while the sound goes on"
    watch.keep({PICTURE})
    assert watch.stalled_at == 4500 * MS, "of a track that has ended nothing is expected"


def test_of_nothing_no_silence_is_told() -> None:
    watch = SilenceWatch()
    assert (watch.last, watch.stalled_at, watch.slate_at) == (None, None, None)


def test_a_jump_of_the_encoders_clock_is_soon_no_frame_time_any_more() -> None:
    watch = fed((PICTURE, 40), until=2000)
    watch.heard(PICTURE, 200_000_000 * MS, 2040 * MS)
    for at in range(2080, 10_000, 40):
        watch.heard(PICTURE, (200_000_000 + at) * MS, at * MS)
    assert watch.stalled_at == (9960 + 500) * MS


def test_a_clock_that_goes_back_is_no_frame_time_either() -> None:
    watch = fed((PICTURE, 40), until=2000)
    watch.heard(PICTURE, 0, 2040 * MS)
    assert watch.stalled_at == 2540 * MS


def test_what_our_own_side_holds_back_is_no_silence() -> None:
    watch = fed((PICTURE, 40), (SOUND, 20), until=2000)
    watch.excuse(9000 * MS)
    assert (watch.last, watch.stalled_at) == (9000 * MS, 9500 * MS)


def test_after_another_connection_silence_counts_from_the_last_of_that_one_on() -> None:
    watch = SilenceWatch(1000 * MS)
    assert (watch.stalled_at, watch.slate_at) == (1500 * MS, 2500 * MS)
    watch.heard(PICTURE, 0, 1400 * MS)
    assert watch.stalled_at == 1900 * MS
