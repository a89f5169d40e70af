"""Media playlists against a checker that knows the RFC, and the requests that wait for them."""

import pytest

from protocols.hls.multivariant import Variant, multivariant
from protocols.hls.playlist import HlsPart, MediaPlaylist, PlaylistAnswer, Report
from protocols.hls.segmenter import MS, SECOND, Timing
from protocols.media import Codec, Track
from tests.support.hls_checker import Follower, parse

TIMING = Timing.of(2 * SECOND, 2 * SECOND, 34 * MS)
NOW = 1_800_000_000 * SECOND


class Stream:
    """Adds parts to a playlist as a stream does: six a segment."""

    def __init__(self, window: int = 20 * SECOND) -> None:
        self.playlist = MediaPlaylist(TIMING, window)
        self.init = 0
        self.parts = 0
        self.interrupted = False

    def part(self, *, closes: bool | None = None, gap: bool = False) -> None:
        number = 0 if self.playlist.current is None else len(self.playlist.current.parts)
        self.playlist.add(
            HlsPart(333 * MS if number < 5 else 335 * MS, number == 0, gap),
            opens=number == 0,
            closes=number == 5 if closes is None else closes,
            init=self.init,
            date=NOW + self.parts * 333 * MS,
            discontinuity=self.interrupted,
        )
        self.interrupted = False
        self.parts += 1

    def interrupt(self) -> None:
        self.init += 1
        self.interrupted = True


def test_a_stream_that_is_interrupted_and_ends_keeps_every_rule() -> None:
    stream, follower = Stream(), Follower()
    for number in range(200):
        if number in (61, 62, 100):
            if stream.playlist.current is not None:
                stream.part(closes=True)
                follower.take(stream.playlist.text())
            stream.interrupt()
        stream.part()
        follower.take(stream.playlist.text([Report("../audio/index.m3u8", 3, 1)]))
    assert follower.discontinuities == 3
    assert follower.last is not None
    assert follower.last.reports == [{"URI": "../audio/index.m3u8", "LAST-MSN": "3", "LAST-PART": "1"}]
    assert sum(segment.duration for segment in follower.last.complete) <= 24
    assert stream.playlist.discontinuities == 3
    stream.playlist.end()
    follower.take(stream.playlist.text())
    assert follower.last.ended
    assert all(segment.uri for segment in follower.last.segments)


def test_only_the_end_has_parts() -> None:
    stream = Stream()
    for _ in range(100):
        stream.part()
    with_parts = [bool(segment.parts) for segment in parse(stream.playlist.text()).segments]
    assert with_parts == sorted(with_parts)
    assert 3 <= sum(with_parts) <= 5
    stream.playlist.end()
    assert not any(segment.parts for segment in parse(stream.playlist.text()).segments)


def test_a_delta_update_leaves_out_what_is_beyond_the_skip_boundary_and_nothing_else() -> None:
    stream = Stream(window=60 * SECOND)
    for _ in range(300):
        stream.part()
    whole, delta = parse(stream.playlist.text()), parse(stream.playlist.text(skip=True))
    assert delta.skipped > 10
    assert whole.segments[delta.skipped :] == delta.segments
    assert 12 <= sum(segment.duration or 2 for segment in delta.segments) <= 16
    short = Stream()
    short.part()
    assert parse(short.playlist.text(skip=True)).skipped == 0


def test_what_cannot_be_had_is_a_gap() -> None:
    stream = Stream()
    for _ in range(6):
        stream.part()
    stream.part(gap=True)
    for _ in range(6):
        stream.part()
    _, second, _ = parse(stream.playlist.text()).segments
    assert second.gap
    assert all(part.gap for part in second.parts)
    assert stream.playlist.playable


@pytest.mark.parametrize(
    ("segment", "part", "answer"),
    [
        (0, None, PlaylistAnswer.READY),  # complete
        (0, 5, PlaylistAnswer.READY),
        (1, 1, PlaylistAnswer.READY),  # listed
        (1, 2, PlaylistAnswer.WAIT),
        (1, None, PlaylistAnswer.WAIT),
        (2, 0, PlaylistAnswer.WAIT),
        (3, None, PlaylistAnswer.WAIT),
        (4, None, PlaylistAnswer.NEVER),  # more than two beyond the last
        (1, 30, PlaylistAnswer.NEVER),  # beyond the advance part limit
    ],
)
def test_requests_are_answered_when_the_playlist_is_there(segment: int, part: int | None, answer: PlaylistAnswer) -> None:
    stream = Stream()
    for _ in range(8):
        stream.part()
    assert stream.playlist.answer(segment, part) is answer
    stream.playlist.end()
    assert stream.playlist.answer(segment, part) is PlaylistAnswer.READY


def test_a_part_beyond_the_last_of_its_segment_is_the_first_of_the_next() -> None:
    stream = Stream()
    for _ in range(6):
        stream.part()
    assert stream.playlist.answer(0, 6) is PlaylistAnswer.WAIT
    stream.part()
    assert stream.playlist.answer(0, 6) is PlaylistAnswer.READY


def test_memory_may_shorten_a_playlist_but_not_below_three_target_durations() -> None:
    stream = Stream(window=60 * SECOND)
    for _ in range(60):
        stream.part()
    while stream.playlist.drop_oldest() is not None:
        pass
    left = parse(stream.playlist.text())
    assert 6 <= sum(segment.duration for segment in left.complete) < 9
    assert left.first > 0


SPS = bytes.fromhex("0000000167640028acd940780227e5c05a808080a0000003002000000781e30632c0") + bytes.fromhex(
    "0000000168ebe3cb22c0"
)
HEVC = bytes.fromhex(
    "0000000140010c01ffff01600000030090000003000003005d959809"
    "0000000142010101600000030090000003000003005da00280802d165959a4932b9a020000030002000003007810"
    "000000014401c172b46240"
)


def test_the_multivariant_playlist_says_what_a_player_must_know_to_choose() -> None:
    high = Variant("video/index.m3u8", Track(1, Codec.H264, SPS, 1920, 1080, 30.0), 5_000_000, 4_000_000)
    low = Variant("video-low/index.m3u8", Track(1, Codec.HEVC, HEVC, 640, 360), 900_000, 0)
    sound = Variant("audio/index.m3u8", Track(2, Codec.AAC, b"\x11\x90", sample_rate=48000, channels=2), 130_000, 128_000)
    lines = multivariant([high, low], sound).splitlines()
    assert lines[2] == (
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="sound",NAME="Sound",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio/index.m3u8"'
    )
    assert lines[3] == (
        "#EXT-X-STREAM-INF:BANDWIDTH=5130000,AVERAGE-BANDWIDTH=4128000,"
        'CODECS="avc1.640028,mp4a.40.2",RESOLUTION=1920x1080,FRAME-RATE=30.000,AUDIO="sound"'
    )
    assert 'CODECS="hvc1.1.6.L93.90,mp4a.40.2",RESOLUTION=640x360' in lines[5]
    assert lines[7:] == ['#EXT-X-STREAM-INF:BANDWIDTH=130000,AVERAGE-BANDWIDTH=128000,CODECS="mp4a.40.2"', "audio/index.m3u8"]
    assert "AUDIO" not in multivariant([high], None)
