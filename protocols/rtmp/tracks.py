"""From the parts of audio and video messages to tracks and packets as `protocols/media.py` has them. Sans-IO.

One video and one audio track are taken: that with the number 0, which Enhanced RTMP v2 calls the default, or else the first that is seen.
What belongs to others is counted and told. A track is told as soon as it is known and each time that one of its facts changes; a sequence
header that says nothing new changes nothing. Nothing waits for a track that may never come.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import isfinite
from typing import Final, TypeAlias

from protocols.left_out import LeftOutParts
from protocols.media import Codec, EncodedPacket, Kind, Track, TracksChanged
from protocols.rtmp.chunk import RtmpMessage
from protocols.rtmp.flv import MAX_TRACKS, Content, TagPart, split_audio, split_video
from protocols.rtmp.pictures import MessageStamp, VideoReading, pictures_of
from protocols.rtmp.sound import AUDIO_TRACK, Frames
from protocols.wire import Buffer

MediaItem: TypeAlias = TracksChanged | EncodedPacket

_NS_PER_MS = 1_000_000
_MAX_FRAME_RATE = 1000
_HEADER_NS: Final = 1_500_000_000  # after which it is told that frames lack what they need
_DEFAULT_NS: Final = 500_000_000  # in which the default track is waited for where another comes first
_SETTLE_NS: Final = 100_000_000  # in which the slices of one picture come
_MAX_HEADER: Final = 64 << 10  # bytes of one that is kept while the default track is waited for
_LACKED: Final = {
    Codec.H264: "its parameter sets (SPS and PPS)",
    Codec.HEVC: "its parameter sets (VPS, SPS and PPS)",
    Codec.AV1: "its sequence header",
    Codec.VP8: "a key frame",
    Codec.VP9: "a key frame",
    Codec.AAC: "its header (AudioSpecificConfig) and without ADTS",
    Codec.FLAC: "its header (STREAMINFO)",
}
"""What frames may lack without which nothing can be made of them."""


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


class MediaTracks:
    """The media of one publisher. `ignored` counts parts that were not taken, `left_out` what is told of them."""

    def __init__(self, patient: bool = False) -> None:
        """`patient`: the owner calls `settle` at `due`, so what may yet turn out otherwise at the start is waited for."""
        self.ignored = 0
        self.left_out = LeftOutParts()
        self._patient = patient
        self._clock = Unwrapper()
        self._told: tuple[Track, ...] = ()
        self._chosen: dict[Kind, int] = {}  # the encoder's number of the track that we take
        self._others_since: dict[Kind, int] = {}  # ns: since when another track than the default has come
        self._headers: dict[Kind, dict[int, TagPart]] = {}  # of such tracks, by their numbers
        self._lacking_since: dict[Kind, int] = {}  # ns: since when frames have come of which nothing can be made
        self._codec: Codec | None = None  # of the video
        self._pictures: VideoReading | None = None
        self._candidate: tuple[Codec, VideoReading] | None = None  # of another codec: taken once something of it could be read
        self._configuration = b""
        self._seen: Track | None = None  # of the video, as its parser had it last
        self._reordered = False  # seen: a picture leaves before one that came earlier
        self._last_dts = 0
        self._last_pts = 0
        self._frame_rate = 0.0
        self._frames = self._new_frames()
        self._heard: Track | None = None

    @property
    def due(self) -> int | None:
        """Monotonic ns at which `settle` has something to do."""
        held = self._pictures.held if self._pictures is not None else None
        return held.arrival + _SETTLE_NS if held is not None else None

    def settle(self, now: int | None) -> Iterator[MediaItem]:
        """What has waited long enough by `now` (monotonic ns); all of it where nothing more comes (None)."""
        if self.due is not None and (now is None or now >= self.due):
            yield from self._shown(self._settled())

    def video(self, message: RtmpMessage) -> Iterator[MediaItem]:
        """Raises `ProtocolError`; `broken` is to be told of it."""
        for part in split_video(message.payload):
            for taken in self._taken(Kind.VIDEO, part, message):
                yield from self._video(taken, message)

    def audio(self, message: RtmpMessage) -> Iterator[MediaItem]:
        """Raises `ProtocolError`; `broken` is to be told of it."""
        for part in split_audio(message.payload):
            for taken in self._taken(Kind.AUDIO, part, message):
                yield from self._sound(taken, message)

    def broken(self, kind: Kind | None, size: int, why: str) -> None:
        """A message of `size` bytes could not be read, or not to its end; `kind` None: one without media."""
        self.left_out.broken(kind, why)
        if kind is Kind.VIDEO and self._pictures is not None:
            self._pictures.lost(size)

    def frame_rate(self, value: float) -> Iterator[MediaItem]:
        """What the metadata says, used where the video itself does not say."""
        if isfinite(value) and 0 < value <= _MAX_FRAME_RATE:
            self._frame_rate = value
            yield from self._changes()

    # Which track

    def _taken(self, kind: Kind, part: TagPart, message: RtmpMessage) -> Sequence[TagPart]:
        """The part, if it is of the track that is taken; behind the header of that, where it came while the default was waited for."""
        if part.codec is None:
            self._name(kind, part, len(message.payload))
            return ()
        chosen = self._chosen.get(kind)
        if chosen == part.track:
            return (part,)
        if chosen is None and part.track and self._patient:
            return self._after_waiting(kind, part, message.arrival)
        if chosen is None or part.track == 0:
            self._choose(kind, part.track)
            return (part,)
        self.ignored += 1
        self.left_out.track(kind, part.track)
        return ()

    def _after_waiting(self, kind: Kind, part: TagPart, arrival: int) -> Sequence[TagPart]:
        """The part of a track beside the default, once that has been waited for: of several the lowest is taken."""
        headers = self._headers.setdefault(kind, {})
        if part.content is Content.CONFIGURATION and len(part.data) <= _MAX_HEADER and len(headers) < MAX_TRACKS:
            headers[part.track] = part
        since = self._others_since.setdefault(kind, arrival)
        if arrival - since < _DEFAULT_NS or part.track > min(headers, default=part.track):
            self.ignored += 1
            return ()
        self._choose(kind, part.track)
        return (headers[part.track], part) if part.content is Content.FRAMES and part.track in headers else (part,)

    def _choose(self, kind: Kind, track: int) -> None:
        """Instead of another, which is left out, where the default comes late."""
        before = self._chosen.get(kind)
        self._chosen[kind] = track
        if before is None:
            return
        self.left_out.track(kind, before)
        if kind is Kind.VIDEO:
            self._codec = self._pictures = self._candidate = None
        else:
            self._frames = self._new_frames()

    def _name(self, kind: Kind, part: TagPart, size: int) -> None:
        """A codec that is not taken; one message of it among those of another is broken rather."""
        self.ignored += 1
        if self._chosen.get(kind, part.track) != part.track:
            self.left_out.track(kind, part.track)
        elif (self._seen if kind is Kind.VIDEO else self._heard) is not None:
            self.broken(kind, size, f"a message of {part.name}")
        else:
            self.left_out.codec(kind, part.name)

    def _lacks_header(self, kind: Kind, codec: Codec, arrival: int) -> None:
        since = self._lacking_since.setdefault(kind, arrival)
        if arrival - since >= _HEADER_NS and codec in _LACKED:
            self.left_out.header(kind, codec.label, _LACKED[codec])

    # Video

    def _video(self, part: TagPart, message: RtmpMessage) -> Iterable[MediaItem]:
        assert part.codec is not None
        pictures = self._pictures_of(part.codec)
        if part.content is Content.CONFIGURATION:
            return self._configured(part.codec, pictures, part.data)
        out: list[EncodedPacket] = []
        if part.data:
            dts = self._clock.unwrap(message.timestamp) * _NS_PER_MS + part.offset
            stamp = MessageStamp(dts + part.composition * _NS_PER_MS, dts, message.begun, message.arrival)
            out = pictures.take(part.data, stamp)
        else:
            pictures.lost(0)
        if pictures is not self._pictures:
            if pictures.track is None:
                self.ignored += 1
                self.broken(Kind.VIDEO, len(message.payload), f"a message of {part.codec.label}")
                return ()
            self._adopt(part.codec, pictures)
        if not out and pictures.held is None:
            self.ignored += 1
            if part.data and pictures.track is None:
                self._lacks_header(Kind.VIDEO, part.codec, message.arrival)
        return self._shown(out)

    def _configured(self, codec: Codec, pictures: VideoReading, record: Buffer) -> Iterator[MediaItem]:
        if not record or (pictures is self._pictures and record == self._configuration):
            return
        record = bytes(record)
        yield from self._shown(self._settled())
        pictures.configure(record)
        self._reordered = False
        self._adopt(codec, pictures)
        self._configuration = record
        yield from self._shown([])

    def _pictures_of(self, codec: Codec) -> VideoReading:
        """What reads this codec: at first, and where it is another than before, it is only a candidate until it could read something."""
        if codec is self._codec and self._pictures is not None:
            return self._pictures
        if self._candidate is None or self._candidate[0] is not codec:
            patient = self._patient and self._pictures is None  # a candidate shows at once what it is
            self._candidate = (codec, pictures_of(codec, lambda why: self._note(codec, why), patient))
        pictures = self._candidate[1]
        if self._pictures is None:
            self._adopt(codec, pictures)
        return pictures

    def _note(self, codec: Codec, why: str) -> None:
        if codec is self._codec:  # a message that a candidate cannot read is broken as a whole
            self.left_out.broken(Kind.VIDEO, why)

    def _adopt(self, codec: Codec, pictures: VideoReading) -> None:
        if pictures is not self._pictures:
            self._codec, self._pictures, self._candidate = codec, pictures, None
            self._configuration, self._reordered = b"", False

    def _settled(self) -> list[EncodedPacket]:
        return self._pictures.settle() if self._pictures is not None else []

    def _shown(self, packets: list[EncodedPacket]) -> Iterator[MediaItem]:
        """The pictures, behind what they change."""
        track = self._pictures.track if self._pictures is not None else None
        if track is not self._seen:
            self._seen = track
            yield from self._changes()
        for packet in packets:
            if packet.pts < self._last_pts and packet.dts > self._last_dts and not self._reordered:
                self._reordered = True
                yield from self._changes()
            self._last_dts, self._last_pts = packet.dts, packet.pts
            yield packet

    # Sound

    def _new_frames(self) -> Frames:
        return Frames(lambda why: self.left_out.broken(Kind.AUDIO, why))

    def _sound(self, part: TagPart, message: RtmpMessage) -> Iterator[MediaItem]:
        assert part.codec is not None
        found: list[tuple[bytes, int]] = []
        if part.content is Content.CONFIGURATION:
            self._frames.configure(part.codec, part.data)
        elif part.data:
            found = self._frames.take(part)
            if not found and self._frames.track is None:
                self._lacks_header(Kind.AUDIO, part.codec, message.arrival)
        if part.content is Content.FRAMES and not found:
            self.ignored += 1
        if self._frames.track is not self._heard:
            self._heard = self._frames.track
            yield from self._changes()
        if found:
            start = self._clock.unwrap(message.timestamp) * _NS_PER_MS + part.offset
            for data, begins in found:
                dts = start + begins
                yield EncodedPacket(AUDIO_TRACK, dts, dts, True, data, message.begun, message.arrival)

    def _changes(self) -> Iterator[MediaItem]:
        """The track set, if it is not the one last told."""
        tracks = tuple(track for track in (self._video_track(), self._heard) if track)
        if tracks != self._told:
            self._told = tracks
            yield TracksChanged(tracks)

    def _video_track(self) -> Track | None:
        track = self._seen
        if track is None:
            return None
        if self._reordered and not track.reorder:
            track = replace(track, reorder=1)
        if self._frame_rate and not track.frame_rate:
            track = replace(track, frame_rate=self._frame_rate)
        return track
