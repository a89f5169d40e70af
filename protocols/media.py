"""The media that moves through the gateway: tracks and their encoded packets.

Kept true by every protocol at its own edge, so that nobody after it asks "which format is this?":

* Times are integer nanoseconds. A publisher's own clock starts anywhere; `gateway/sessions/timeline.py` maps it to one from 0.
* Video data is one access unit in decoding order: H.264 and HEVC as Annex B (ITU-T H.264/H.265 Annex B, 4-byte start codes) with the
  parameter sets before each key frame and without access unit delimiters or filler; AV1 as one temporal unit of OBUs with size fields,
  without temporal delimiters, with the sequence header before each key frame; VP8 and VP9 as the raw frame.
* Audio data is one raw access unit: AAC without ADTS or LATM framing, Opus, FLAC, MP3, AC-3 as one frame; PCM and G.711 any number of whole
  samples, interleaved; Speex one or more frames.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    VIDEO = "video"
    AUDIO = "audio"


class Codec(StrEnum):
    H264 = "h264"
    HEVC = "hevc"
    AV1 = "av1"
    VP8 = "vp8"
    VP9 = "vp9"
    OPUS = "opus"
    AAC = "aac"
    MP3 = "mp3"
    MP2 = "mp2"
    AC3 = "ac3"
    EAC3 = "eac3"
    FLAC = "flac"
    G711_ALAW = "g711_alaw"
    G711_ULAW = "g711_ulaw"
    PCM = "pcm"  # of 8 bits unsigned, of 16 signed and little-endian
    SPEEX = "speex"

    @property
    def kind(self) -> Kind:
        return Kind.VIDEO if self in _VIDEO else Kind.AUDIO

    @property
    def label(self) -> str:
        """What people call it."""
        return _LABELS.get(self, self.value.upper())


_VIDEO = frozenset({Codec.H264, Codec.HEVC, Codec.AV1, Codec.VP8, Codec.VP9})

_LABELS = {
    Codec.H264: "H.264",
    Codec.OPUS: "Opus",
    Codec.AC3: "AC-3",
    Codec.EAC3: "E-AC-3",
    Codec.G711_ALAW: "G.711 A-law",
    Codec.G711_ULAW: "G.711 µ-law",
    Codec.SPEEX: "Speex",
}

WEBRTC_VIDEO = frozenset({Codec.H264, Codec.VP8, Codec.VP9, Codec.AV1})
"""The video codecs that viewers are sent over WebRTC. Which of them one takes is up to its player; beside them there is Opus."""


@dataclass(frozen=True, slots=True)
class Track:
    """What is known of one elementary stream. A changed fact makes a new value with the same `id`.

    `extradata` is what a decoder needs before the first packet: H.264/HEVC parameter sets as Annex B; AV1 the sequence header OBU; AAC the
    AudioSpecificConfig (ISO/IEC 14496-3); Opus the OpusHead body (RFC 7845 §5.1, with its magic); FLAC the STREAMINFO block body
    (34 bytes); nothing for the others. Numbers are 0 where the stream does not say.
    """

    id: int
    codec: Codec
    extradata: bytes = b""
    width: int = 0
    height: int = 0
    frame_rate: float = 0.0
    profile: str = ""
    level: int = 0  # as coded: H.264 level_idc (31 = 3.1), HEVC general_level_idc, AV1 seq_level_idx
    bit_depth: int = 8
    chroma: str = "4:2:0"
    interlaced: bool = False
    open_gop: bool = False  # some of its key frames are recovery points only (H.264 D.2.8), at which no browser starts
    reorder: int | None = None  # frames that may leave out of presentation order (B-frames); None: the stream does not say
    sample_rate: int = 0
    channels: int = 0
    bitrate: int = 0  # bit/s that it was measured to keep up; told only where that is more than the call lets pass
    layer: str = ""  # which of several renditions of the participant's video this is (simulcast, a ladder); "": the only one

    @property
    def kind(self) -> Kind:
        return self.codec.kind


@dataclass(frozen=True, slots=True)
class TracksChanged:
    """All tracks of the stream as they are from here on: an item of the stream, so that a change is no special path."""

    tracks: tuple[Track, ...]


class Lack(StrEnum):
    """Why something of a stream is left out: a bounded label."""

    CODEC = "codec_not_taken"
    TRACK = "track_left_out"
    NO_HEADER = "no_header"  # it may yet come
    UNREADABLE = "unreadable"
    CLOCK = "clock"  # its time stamps, not the media
    APART = "apart"  # nothing: sound and picture arrive apart


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something of the stream that viewers do not get: an item of the stream, once for each thing that is left out. `text` says what it is
    and what to choose instead, for the streamer; `kind` is that of the track, None where it is of none."""

    lack: Lack
    kind: Kind | None
    text: str


class EncodedPacket(NamedTuple):
    """One access unit. `pts` and `dts` in ns; `begun` and `arrival` are the monotonic ns of its first and last byte received; `layer` is
    that of its track. `payloads` are the same as RTP brought it, where that may go on to a viewer as it is; else empty."""

    track: int
    pts: int
    dts: int
    keyframe: bool
    data: bytes
    begun: int
    arrival: int
    layer: str = ""
    payloads: tuple[bytes, ...] = ()
