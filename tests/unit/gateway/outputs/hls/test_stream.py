"""A stream whose picture comes when it likes, beside sound that goes on: no hole in its playlists, and its pictures stay what they are."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest

from gateway.outputs.hls.policy import HlsPolicy, HlsTotals
from gateway.outputs.hls.rendition import Rendition
from gateway.outputs.hls.stream import HlsStream
from gateway.sessions.capacity import Demand
from gateway.sessions.output import Output
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.stills import StillPictures
from protocols.media import Codec, EncodedPacket, Kind, Track
from tests.support.hls_checker import Follower, Playlist
from tests.support.memory import NoFeedback
from tests.unit.transcode.media import MS, SECOND, pictures, see
from transcode.host.fragments import Done

POLICY = HlsPolicy(segment=2 * SECOND, window=600 * SECOND, memory=64 << 20, audio_bitrate=96_000)
SOUND = Track(2, Codec.AAC, b"\x11\x90", sample_rate=48_000, channels=2)
AAC_FRAME = 1024 * SECOND // 48_000


@dataclass
class Seat:
    """Of an encoder that has connected once; as its own muxer it keeps what it is given, and answers at once."""

    id: str = "seat"
    call_cid: str = "livestream:demo"
    user_id: str = "ada"
    protocol: str = "rtmp"
    muted: frozenset[Kind] = frozenset()
    reconnects: int = 0
    tracks: list[Track] = field(default_factory=list)
    given: dict[Kind, list[tuple[EncodedPacket, int]]] = field(default_factory=lambda: {Kind.AUDIO: [], Kind.VIDEO: []})

    @property
    def muxer(self) -> "Seat":
        return self

    def make(self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done) -> None:
        self.tracks.append(track)
        self.given[track.kind] += zip(packets, durations, strict=True)
        done(b"init", b"%d" % index)

    def then(self, done: Callable[[], None]) -> None:
        done()

    def cost_of(self, output: Output) -> Demand:
        return output.overhead

    def media_now(self, now: int) -> int:
        return now


def sound(seconds: float) -> list[EncodedPacket]:
    return [EncodedPacket(2, at, at, True, b"x", 1, 0) for at in range(0, round(seconds * SECOND), AAC_FRAME)]


def timed(times: Sequence[float]) -> tuple[Track, list[EncodedPacket]]:
    """Pictures at these times (s), of which only the first needs no other."""
    _, coded = pictures(size=(160, 96), seconds=len(times) / 30 + 0.1, gop=10_000)
    stream = NalStream(Codec.H264, 1)
    stream.annexb(coded[0].data)
    assert stream.track is not None
    return stream.track, [
        packet._replace(pts=round(at * SECOND), dts=round(at * SECOND)) for at, packet in zip(times, coded, strict=False)
    ]


def paused(
    codec: Codec, options: dict[str, str], begin: float, pause: float
) -> tuple[Track, list[EncodedPacket], dict[int, int]]:
    """What an encoder that reorders makes of a source that stops for so long: its pictures, and when each comes, by its pts: once the
    source has given all that it waits for."""
    _, coded = pictures(codec, size=(160, 96), seconds=12 - pause, gop=60, options=options)
    stream = NalStream(codec, 1)
    stream.annexb(coded[0].data)
    assert stream.track is not None
    moved = [packet.pts + round(pause * SECOND) * (packet.pts >= begin * SECOND) for packet in coded]
    ahead = sum(packet.dts < 0 for packet in coded)
    start = -coded[0].dts
    shown = [start + number * SECOND // 30 - start for number in range(-ahead, 0)] + sorted(moved)
    video = [
        packet._replace(pts=start + pts, dts=start + dts, begun=1)
        for packet, pts, dts in zip(coded, moved, shown, strict=False)
    ]
    coming = {
        packet.pts: start + at for packet, at in zip(video, [*shown[2 * ahead :], *[shown[-1]] * 2 * ahead], strict=False)
    }
    return stream.track, video, coming


def late(by: int) -> Callable[[EncodedPacket], int]:
    """Pictures come `by` ns after the sound of their time; below 0: before."""
    return lambda packet: packet.dts + by * (packet.track == 1)


COMING = {"in time": late(0), "late": late(300 * MS), "early": late(-SECOND)}


def played(
    track: Track, video: list[EncodedPacket], seconds: float, coming: Callable[[EncodedPacket], int]
) -> tuple[Seat, dict[str, Playlist]]:
    """All of it, `coming` at these times; playlists are looked at all along."""
    seat = Seat()
    stream = HlsStream("id", seat, POLICY, HlsTotals(), None, lambda: None)
    stream.attach(seat)
    feeds = {1: stream.publish(track, NoFeedback()), 2: stream.publish(SOUND, NoFeedback())}
    followers = {"video": Follower(), "audio": Follower()}
    media = sorted([*video, *sound(seconds)], key=lambda packet: coming(packet))
    for number, packet in enumerate(media):
        feeds[packet.track].push(packet)
        if number % 16 == 0:
            for name, rendition in stream.renditions.items():
                look(followers[name], rendition)
    stream.end()
    return seat, {name: look(followers[name], rendition) for name, rendition in stream.renditions.items()}


def look(follower: Follower, rendition: Rendition) -> Playlist:
    text = rendition.text(skip=False).plain.decode()
    return follower.take(text) if rendition.playlist.segments else Playlist(text)


def whole(seat: Seat, kind: Kind) -> list[EncodedPacket]:
    """Every part begins where the one before it ends, to the nanosecond."""
    given = seat.given[kind]
    ends = [packet.dts + duration for packet, duration in given]
    assert ends[:-1] == [packet.dts for packet, _ in given[1:]]
    return [packet for packet, _ in given]


def without_holes(playlist: Playlist) -> float:
    assert not any(segment.discontinuity or segment.gap for segment in playlist.segments)
    assert not any(part.gap for segment in playlist.segments for part in segment.parts)
    return sum(segment.duration for segment in playlist.segments)


def regular(every: float, until: float) -> list[float]:
    return [number * every for number in range(round(until / every))]


CHANCE = random.Random(3)
TIMES = {
    "one a second": regular(1, 40),
    "one in five seconds": regular(5, 40),
    "one in two seconds": regular(2, 40),
    "pauses of three seconds": [at for at in regular(1 / 30, 40) if at % 8 < 5],
    "sound alone for 20 s": [at for at in regular(1 / 30, 40) if not 8 < at < 28],
    "of a screen": sorted(CHANCE.uniform(0, 40) for _ in range(300)),
    "faster and slower": [
        *regular(1 / 60, 10),
        *(10 + at for at in regular(1 / 5, 10)),
        *(20 + at for at in regular(1 / 24, 20)),
    ],
}


@pytest.mark.parametrize("coming", COMING)
@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_a_picture_lasts_until_the_next(times: list[float], coming: str) -> None:
    track, video = timed([at - times[0] for at in times])
    seat, playlists = played(track, video, 40, COMING[coming])
    lengths = {name: without_holes(playlist) for name, playlist in playlists.items()}
    assert lengths["audio"] == pytest.approx(40, abs=0.5)
    assert lengths["video"] == pytest.approx(40, abs=1.7 if times[-1] > 39 else 5.1), "it goes on with the sound"
    shown = whole(seat, Kind.VIDEO)
    whole(seat, Kind.AUDIO)
    assert [packet.data for packet in shown if packet.begun] == [packet.data for packet in video]


def test_a_picture_that_comes_later_than_any_should_is_shown_and_what_refers_to_it_too() -> None:
    track, video = timed([at for at in regular(1 / 30, 12) if not 4 < at < 6])
    seat, playlists = played(track, video, 12, late(1200 * MS))
    without_holes(playlists["video"])
    made = whole(seat, Kind.VIDEO)
    assert [packet.data for packet in made if packet.begun] == [packet.data for packet in video]
    frames = [frame.to_ndarray() for frame in see(made)]
    plain = [frame.to_ndarray() for frame in see(video)]
    shown = [frame for frame, packet in zip(frames, made, strict=True) if packet.begun]
    assert all(np.array_equal(one, other) for one, other in zip(shown, plain, strict=True))


H264 = {"preset": "fast", "bf": "3", "x264-params": "scenecut=0:rc-lookahead=0:sync-lookahead=0"}
HEVC = "log-level=none:repeat-headers=1:keyint=60:scenecut=0:"
REORDERED = {
    "H.264": (Codec.H264, H264),
    "HEVC": (Codec.HEVC, {"x265-params": HEVC + "bframes=3"}),
    "HEVC in order": (Codec.HEVC, {"x265-params": HEVC + "bframes=0"}),
}


@pytest.mark.parametrize("pause", [0.6, 3.0])
@pytest.mark.parametrize("begin", [4.0, 5.0, 5.05, 5.1])
@pytest.mark.parametrize("encoder", REORDERED)
@pytest.mark.parametrize("live", [True, False])
def test_a_picture_lasts_until_the_next_whatever_their_order(live: bool, encoder: str, begin: float, pause: float) -> None:
    """Those that wait in the encoder when the source stops come after it; from a file they come by their decode times."""
    track, video, coming = paused(*REORDERED[encoder], begin, pause)
    seat, playlists = played(track, video, 12, lambda packet: coming[packet.pts] if live and packet.track == 1 else packet.dts)
    lengths = {name: without_holes(playlist) for name, playlist in playlists.items()}
    assert lengths == {"audio": pytest.approx(12, abs=0.3), "video": pytest.approx(12, abs=0.3)}
    given = seat.given[Kind.VIDEO]
    assert max(duration for _, duration in given) < 400 * MS, "no part is without a picture"
    assert [packet.data for packet in whole(seat, Kind.VIDEO) if packet.begun] == [packet.data for packet in video]
    shown_at = sorted(packet.pts for packet, _ in given)
    assert max(later - earlier for earlier, later in pairwise(shown_at)) < 400 * MS, "nor any moment"
    first, *others = (packet for packet, _ in given)
    first = first._replace(data=StillPictures(track).parameter_sets + first.data)
    shown = {frame.pts for frame in see([first, *others], track.codec)}
    lost = [packet for packet in (first, *others) if packet.begun and packet.pts not in shown]
    assert len(lost) <= 3, "of those that come when a later one has been shown"


class Encoder:
    """Of pictures that cannot be shown again, and of sound, on the seat's clock."""

    def __init__(self, *tracks: Track) -> None:
        self.seat = Seat()
        self.stream = HlsStream("id", self.seat, POLICY, HlsTotals(), None, lambda: None)
        self.stream.attach(self.seat)
        self.feeds = {track.id: self.stream.publish(track, NoFeedback()) for track in tracks}
        self.followers = {name: Follower() for name in ("video", "video-h", "audio")}

    def send(self, begin: float, end: float, *, of: Sequence[int] = (1, 2), gop: float = 2.0) -> None:
        """What these tracks have between these times (s), a key frame first."""
        pictures = [(begin + number / 25, id) for number in range(round((end - begin) * 25)) for id in of if id != 2]
        heard = [(begin + packet.dts / SECOND, 2) for packet in sound(end - begin) if 2 in of]
        for at, id in sorted(pictures + heard):
            time, key = round(at * SECOND), id == 2 or round((at - begin) * 25) % round(gop * 25) == 0
            self.feeds[id].push(EncodedPacket(id, time, time, key, b"x", 1, 0))

    def end(self) -> dict[str, Playlist]:
        self.stream.end()
        return {name: look(self.followers[name], rendition) for name, rendition in self.stream.renditions.items()}


PICTURE = Track(1, Codec.H264, b"sets", 640, 360)
SMALLER = Track(3, Codec.H264, b"smaller", 320, 180, layer="h")


@pytest.mark.parametrize("hole", [2, 20, 3600])
def test_a_hole_in_the_first_group_of_pictures_is_a_discontinuity_as_any_other(hole: int) -> None:
    encoder = Encoder(PICTURE, SOUND)
    encoder.send(0, 1)
    encoder.send(1 + hole, 9 + hole)
    for playlist in encoder.end().values():
        assert [segment.discontinuity for segment in playlist.segments][:3] == [False, True, False]
        assert sum(segment.duration for segment in playlist.segments) == pytest.approx(9, abs=0.1)


def test_pictures_of_another_kind_in_the_first_group_have_their_own_parameter_sets() -> None:
    encoder = Encoder(PICTURE, SOUND)
    encoder.send(0, 1)
    encoder.feeds[1].update(replace(PICTURE, extradata=b"others"))
    encoder.send(1, 8)
    playlist = encoder.end()["video"]
    assert [(segment.discontinuity, segment.init) for segment in playlist.segments][:2] == [
        (False, "init0.mp4"),
        (True, "init1.mp4"),
    ]
    assert [track.extradata for track in encoder.seat.tracks if track.kind is Kind.VIDEO][::8] == [
        b"sets",
        b"others",
        b"others",
    ]


def test_a_track_that_has_ended_takes_no_discontinuity_from_the_others() -> None:
    encoder = Encoder(PICTURE, SOUND, SMALLER)
    encoder.send(0, 6, of=(1, 2, 3))
    encoder.feeds[3].close()
    for begin in (10, 20, 4000):
        encoder.send(begin, begin + 6)
    for name, playlist in encoder.end().items():
        assert sum(segment.discontinuity for segment in playlist.segments) == (0 if name == "video-h" else 3)


def test_no_picture_lasts_until_sound_that_begins_an_hour_later() -> None:
    track, video = timed(regular(1 / 25, 6))
    encoder = Encoder(track)
    for packet in video:
        encoder.feeds[1].push(packet._replace(keyframe=packet.dts % (2 * SECOND) == 0))
    encoder.feeds[2] = encoder.stream.publish(SOUND, NoFeedback())
    encoder.send(3600, 3606, of=(2,))
    assert len(encoder.seat.given[Kind.VIDEO]) == len(video)
    assert sum(segment.duration for segment in encoder.end()["video"].segments) == pytest.approx(6, abs=0.1)
