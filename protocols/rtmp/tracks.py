"""From the parts of audio and video messages to tracks and packets as `protocols/media.py` has them. Sans-IO.

One video and one audio track are taken, each the first that is seen; what belongs to others is counted. A track is told as soon as it is
known and each time that one of its facts changes; a sequence header that says nothing new changes nothing. Nothing waits for a track
that may never come.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isfinite
from typing import Protocol, TypeAlias

from protocols.bitstream import AccessUnit
from protocols.bitstream.audio import aac_track, ac3_track, flac_track, mp3_track, opus_track
from protocols.bitstream.av1 import Av1Stream
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.vpx import VpxStream
from protocols.media import Codec, EncodedPacket, Kind, Track, TracksChanged
from protocols.rtmp.chunk import RtmpMessage
from protocols.rtmp.flv import Content, TagPart, split_audio, split_video
from protocols.wire import Buffer

MediaItem: TypeAlias = TracksChanged | EncodedPacket

VIDEO_TRACK = 0
AUDIO_TRACK = 1

_NS_PER_MS = 1_000_000
_MAX_FRAME_RATE = 1000


class Unwrapper:
    """Timestamps in ms modulo 2^32 as numbers that do not wrap.

    Differences are taken modulo 2^31, which divides 2^32: so it serves senders that wrap at either (ffmpeg's FLV muxer keeps 31 bits).
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: int | None = None

    def unwrap(self, timestamp: int) -> int:
        last = self._last
        if last is None:
            self._last = timestamp
            return timestamp
        difference = (timestamp - last) & 0x7FFFFFFF
        if difference >= 0x40000000:  # a little back: audio and video need not be in order
            difference -= 0x80000000
        self._last = last + difference
        return self._last


class _VideoStream(Protocol):
    """The one face of the codecs' bitstream parsers."""

    @property
    def track(self) -> Track | None: ...

    def configure(self, record: Buffer) -> None: ...

    def access_unit(self, data: Buffer) -> AccessUnit | None:
        """None if nothing can be made of it yet."""


class _Nal:
    def __init__(self, codec: Codec) -> None:
        self._stream = NalStream(codec, VIDEO_TRACK)
        self._configured = False

    @property
    def track(self) -> Track | None:
        return self._stream.track

    def configure(self, record: Buffer) -> None:
        self._stream.configure(record)
        self._configured = True

    def access_unit(self, data: Buffer) -> AccessUnit | None:
        # The size of the NAL unit lengths is known from the configuration only.
        return self._stream.length_prefixed(data) if self._configured else None


class _Av1:
    def __init__(self) -> None:
        self._stream = Av1Stream(VIDEO_TRACK)

    @property
    def track(self) -> Track | None:
        return self._stream.track

    def configure(self, record: Buffer) -> None:
        self._stream.configure(record)

    def access_unit(self, data: Buffer) -> AccessUnit | None:
        return self._stream.temporal_unit(data)


class _Vpx:
    def __init__(self, codec: Codec) -> None:
        self._stream = VpxStream(codec, VIDEO_TRACK)

    @property
    def track(self) -> Track | None:
        return self._stream.track

    def configure(self, record: Buffer) -> None:
        """vpcC says nothing that the frames do not."""

    def access_unit(self, data: Buffer) -> AccessUnit | None:
        return self._stream.frame(data)


_VIDEO: dict[Codec, Callable[[], _VideoStream]] = {
    Codec.H264: lambda: _Nal(Codec.H264),
    Codec.HEVC: lambda: _Nal(Codec.HEVC),
    Codec.AV1: _Av1,
    Codec.VP8: lambda: _Vpx(Codec.VP8),
    Codec.VP9: lambda: _Vpx(Codec.VP9),
}
# Codecs whose facts stand in a sequence header, and those where each frame has them.
_BY_HEADER: dict[Codec, Callable[[int, Buffer], Track]] = {
    Codec.AAC: aac_track,
    Codec.OPUS: opus_track,
    Codec.FLAC: flac_track,
}
_BY_FRAME: dict[Codec, Callable[[int, Buffer], Track]] = {
    Codec.MP3: mp3_track,
    Codec.AC3: ac3_track,
    Codec.EAC3: ac3_track,
}


class MediaTracks:
    """The media of one publisher. `ignored` counts parts that were not taken."""

    def __init__(self) -> None:
        self.ignored = 0
        self._clock = Unwrapper()
        self._told: tuple[Track, ...] = ()
        self._chosen: dict[Kind, int] = {}  # the encoder's number of the track that we take
        self._video_codec: Codec | None = None
        self._stream: _VideoStream | None = None
        self._configuration = b""
        self._reordered = False  # seen: a picture leaves before one that came earlier
        self._last_dts = 0
        self._last_pts = 0
        self._frame_rate = 0.0
        self._audio: Track | None = None
        self._audio_codec: Codec | None = None

    def video(self, message: RtmpMessage) -> Iterator[MediaItem]:
        """Raises `ProtocolError`."""
        for part in split_video(message.payload):
            if self._takes(Kind.VIDEO, part):
                yield from self._video(part, message)

    def audio(self, message: RtmpMessage) -> Iterator[MediaItem]:
        """Raises `ProtocolError`."""
        for part in split_audio(message.payload):
            if self._takes(Kind.AUDIO, part):
                yield from self._sound(part, message)

    def frame_rate(self, value: float) -> Iterator[MediaItem]:
        """What the metadata says, used where the video itself does not say."""
        if isfinite(value) and 0 < value <= _MAX_FRAME_RATE:
            self._frame_rate = value
            yield from self._changes()

    def _takes(self, kind: Kind, part: TagPart) -> bool:
        if part.codec is not None and self._chosen.setdefault(kind, part.track) == part.track:
            return True
        self.ignored += 1
        return False

    def _video(self, part: TagPart, message: RtmpMessage) -> Iterator[MediaItem]:
        assert part.codec is not None
        if part.codec is not self._video_codec:
            self._video_codec, self._stream = part.codec, _VIDEO[part.codec]()
            self._configuration, self._reordered = b"", False
        stream = self._stream
        assert stream is not None
        if part.content is Content.CONFIGURATION:
            if part.data and part.data != self._configuration:
                self._configuration = bytes(part.data)
                stream.configure(self._configuration)
                self._reordered = False
                yield from self._changes()
            return
        unit = stream.access_unit(part.data) if part.data else None
        if unit is None or not unit.data or stream.track is None:
            self.ignored += 1
            return
        dts = self._clock.unwrap(message.timestamp) * _NS_PER_MS + part.offset
        pts = dts + part.composition * _NS_PER_MS
        seen_now = pts < self._last_pts and dts > self._last_dts and not self._reordered
        self._reordered |= seen_now
        self._last_dts, self._last_pts = dts, pts
        if unit.changed or seen_now:
            yield from self._changes()
        yield EncodedPacket(VIDEO_TRACK, pts, dts, unit.keyframe, unit.data, message.begun, message.arrival)

    def _sound(self, part: TagPart, message: RtmpMessage) -> Iterator[MediaItem]:
        assert part.codec is not None
        if part.codec is not self._audio_codec:
            self._audio_codec, self._audio = part.codec, None
        if part.content is Content.CONFIGURATION:
            # ffmpeg -c copy sends an empty AAC header before the right one; that of AC-3 and MP3 is empty by definition.
            describe = _BY_HEADER.get(part.codec)
            if describe and part.data:
                self._audio = describe(AUDIO_TRACK, part.data)
                yield from self._changes()
            return
        if part.data and (describe := _BY_FRAME.get(part.codec)):
            track = describe(AUDIO_TRACK, part.data)
            if track != self._audio:
                self._audio = track
                yield from self._changes()
        if not part.data or self._audio is None:
            self.ignored += 1
            return
        dts = self._clock.unwrap(message.timestamp) * _NS_PER_MS + part.offset
        yield EncodedPacket(AUDIO_TRACK, dts, dts, True, bytes(part.data), message.begun, message.arrival)

    def _changes(self) -> Iterator[MediaItem]:
        """The track set, if it is not the one last told."""
        tracks = tuple(track for track in (self._video_track(), self._audio) if track)
        if tracks != self._told:
            self._told = tracks
            yield TracksChanged(tracks)

    def _video_track(self) -> Track | None:
        track = self._stream.track if self._stream else None
        if track is None:
            return None
        if self._reordered and not track.reorder:
            track = replace(track, reorder=1)
        if self._frame_rate and not track.frame_rate:
            track = replace(track, frame_rate=self._frame_rate)
        return track
