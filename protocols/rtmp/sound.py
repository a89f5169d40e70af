"""Frames of sound out of the messages of one track, with the facts of the track: from a header, from the frames themselves, or from the
message's first byte. Sans-IO.

Kept true: what cannot be read changes nothing: the header before it goes on holding, and another codec is taken only once something of it
could be read.
"""

from collections.abc import Callable
from typing import Final

from protocols.bitstream.adts import read_adts
from protocols.bitstream.audio import aac_track, ac3_track, flac_track, mp3_track, opus_packet_duration, opus_track
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.rtmp.flv import TagPart
from protocols.wire import Buffer

AUDIO_TRACK = 1

# RFC 7845 §5.1: stereo, as every Opus decoder gives it where nothing else is said
_OPUS_HEAD: Final = b"OpusHead" + bytes((1, 2)) + bytes(2) + (48000).to_bytes(4, "little") + bytes(3)
_PCM_RATES: Final = (5512, 11025, 22050, 44100)  # FLV E.4.2.1

# Where the facts of each codec stand: in a sequence header, in each frame, or in the first byte of each message (FLV E.4.2.1), which is
# taken as `TagPart.sound`.
BY_HEADER: Final[dict[Codec, Callable[[int, Buffer], Track]]] = {
    Codec.AAC: aac_track,
    Codec.OPUS: opus_track,
    Codec.FLAC: flac_track,
}
BY_FRAME: Final[dict[Codec, Callable[[int, Buffer], Track]]] = {
    Codec.MP3: mp3_track,
    Codec.AC3: ac3_track,
    Codec.EAC3: ac3_track,
}
BY_TAG: Final[dict[Codec, Callable[[int], Track]]] = {
    Codec.PCM: lambda sound: Track(
        AUDIO_TRACK,
        Codec.PCM,
        sample_rate=_PCM_RATES[sound >> 2],
        channels=1 + (sound & 1),
        bit_depth=16 if sound & 2 else 8,
    ),
    Codec.G711_ALAW: lambda sound: Track(AUDIO_TRACK, Codec.G711_ALAW, sample_rate=8000, channels=1 + (sound & 1)),
    Codec.G711_ULAW: lambda sound: Track(AUDIO_TRACK, Codec.G711_ULAW, sample_rate=8000, channels=1 + (sound & 1)),
    Codec.SPEEX: lambda sound: Track(AUDIO_TRACK, Codec.SPEEX, sample_rate=16000, channels=1),  # whatever the byte says
}


class Frames:
    """State of one track. Every method that takes bytes raises `ProtocolError` where nothing of them can be read; what cannot be read of
    the rest is told to `note` in words."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.track: Track | None = None
        """The facts, once known; a new value when they change."""
        self._note = note
        self._known: dict[Codec, Track] = {}  # by headers
        self._adts = (b"", Track(AUDIO_TRACK, Codec.AAC))  # the configuration that the last ADTS header named, and its facts

    def configure(self, codec: Codec, header: Buffer) -> None:
        """A sequence header; empty ones say nothing (ffmpeg -c copy sends one before the right one; that of AC-3 and MP3 is empty)."""
        describe = BY_HEADER.get(codec)
        if describe is not None and header:
            self.track = self._known[codec] = describe(AUDIO_TRACK, header)

    def take(self, part: TagPart) -> list[tuple[bytes, int]]:
        """The frames of a message that is not empty, each with the ns after the message's time at which it begins; none while facts are
        missing."""
        codec, data = part.codec, bytes(part.data)
        assert codec is not None
        if codec is Codec.AAC and _looks_like_adts(data) and (codec not in self._known or _is_adts(data)):
            return self._take_adts(data)
        track: Track | None
        if codec is Codec.OPUS:
            opus_packet_duration(data)
            track = self._known.get(codec) or opus_track(AUDIO_TRACK, _OPUS_HEAD)
        elif codec in BY_HEADER:
            track = self._known.get(codec)
        elif codec in BY_FRAME:
            track = BY_FRAME[codec](AUDIO_TRACK, data)
        else:
            track = BY_TAG[codec](part.sound)
        if track is None:
            return []
        self._follow(track)
        return [(data, 0)]

    def _follow(self, track: Track) -> None:
        if track is not self.track and track != self.track:
            self.track = track

    def _take_adts(self, data: bytes) -> list[tuple[bytes, int]]:
        frames: list[tuple[bytes, int]] = []
        at = begins = 0
        while at < len(data):
            try:
                frame = read_adts(data, at)
                if frame is None or at + frame.size > len(data):
                    raise ProtocolError("an ADTS frame that is cut off")
                self._follow(self._described(frame.config))
            except ProtocolError as error:
                if not frames:
                    raise
                self._note(str(error))
                break
            frames.append((data[at + frame.header : at + frame.size], begins))
            at, begins = at + frame.size, begins + frame.duration
        return frames

    def _described(self, config: bytes) -> Track:
        if config != self._adts[0]:
            if not config[1] >> 3 & 15:
                raise ProtocolError("ADTS with channel configuration 0: choose mono or stereo")
            self._adts = (config, aac_track(AUDIO_TRACK, config))
        return self._adts[1]


def _looks_like_adts(data: bytes) -> bool:
    """As raw AAC of elements never does; that of LD, ELD and xHE-AAC may, by chance."""
    return data[0] == 0xFF and len(data) > 1 and data[1] & 0xF6 == 0xF0


def _is_adts(data: bytes) -> bool:
    """Whether frames with their headers fill it to the end."""
    at = 0
    try:
        while at < len(data) and (frame := read_adts(data, at)) is not None:
            at += frame.size
    except ProtocolError:
        return False
    return at == len(data)
