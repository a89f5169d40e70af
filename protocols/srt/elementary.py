"""What the PIDs of a programme hold: for each line of its map, the reader that makes access units of PES payloads. Sans-IO.

What is broken raises `ProtocolError`, which on a lossy transport costs that unit and not the connection: the caller counts it and goes on.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from protocols.media import Codec, Kind, Track
from protocols.srt.opus import Opus
from protocols.srt.psi import ElementaryInfo
from protocols.srt.sound import Unit, ac3, adts, loas, mpeg_audio
from protocols.srt.video import VideoReader


class Elementary(Protocol):
    """One stream of the programme."""

    @property
    def kind(self) -> Kind: ...

    @property
    def track(self) -> Track | None:
        """The facts, once known; a new value when they change."""

    @property
    def frames(self) -> int:
        """Frames looked at since the start, taken or not: the work that was done."""

    @property
    def broken(self) -> int:
        """Units since the start that could not be read, beside those for which `split` raised."""

    def split(self, data: bytes, pts: int | None, dts: int | None) -> list[Unit]:
        """The access units that became whole with this PES payload."""

    def lost(self, data: bytes) -> list[Unit]:
        """A PES came with packets missing; forgets what is in the making, but for the access unit that had come before it."""

    def settle(self) -> list[Unit]:
        """Nothing more comes: the access unit that is held, if one is."""

    def reset(self) -> None:
        """Forget what is in the making."""


def _opus(info: ElementaryInfo) -> Opus:
    # DVB extension descriptor 0x7F with tag extension 0x80 (user defined): channel_config_code
    codes = (body[1] for tag, body in info.descriptors if tag == 0x7F and len(body) >= 2 and body[0] == 0x80)
    return Opus(info.pid, next(codes, 2))


_Factory = Callable[[ElementaryInfo], Elementary]


def _ac3(info: ElementaryInfo) -> Elementary:
    return ac3(info.pid)


def _h264(info: ElementaryInfo) -> Elementary:
    return VideoReader(info.pid, Codec.H264)


def _hevc(info: ElementaryInfo) -> Elementary:
    return VideoReader(info.pid, Codec.HEVC)


# ISO/IEC 13818-1 Table 2-34; 0x81 and 0x87 are ATSC A/53 part 3 and A/52 Annex G
_BY_STREAM_TYPE: Final[Mapping[int, _Factory]] = {
    0x03: lambda info: mpeg_audio(info.pid),
    0x04: lambda info: mpeg_audio(info.pid),
    0x0F: lambda info: adts(info.pid),
    0x11: lambda info: loas(info.pid),
    0x1B: _h264,
    0x24: _hevc,
    0x81: _ac3,
    0x87: _ac3,
}
_PRIVATE: Final = 0x06
_BY_REGISTRATION: Final[Mapping[bytes, _Factory]] = {b"Opus": _opus, b"AC-3": _ac3, b"EAC3": _ac3, b"HEVC": _hevc}
_BY_DESCRIPTOR: Final[Mapping[int, _Factory]] = {0x6A: _ac3, 0x7A: _ac3}  # ETSI EN 300 468 Annex D
_PICTURES: Final = frozenset((_h264, _hevc))


class _Media(NamedTuple):
    kind: Kind
    name: str


# What is media and not taken
_NOT_TAKEN: Final[Mapping[int, _Media]] = {
    0x01: _Media(Kind.VIDEO, "MPEG-1 video"),
    0x02: _Media(Kind.VIDEO, "MPEG-2 video"),
    0x10: _Media(Kind.VIDEO, "MPEG-4 part 2 video"),
    0x1C: _Media(Kind.AUDIO, "AAC without headers"),
    0x21: _Media(Kind.VIDEO, "JPEG 2000 video"),
    0x2D: _Media(Kind.AUDIO, "MPEG-H audio"),
    0x32: _Media(Kind.VIDEO, "JPEG XS video"),
    0x33: _Media(Kind.VIDEO, "VVC video"),
    0x42: _Media(Kind.VIDEO, "AVS video"),
    0x82: _Media(Kind.AUDIO, "DTS audio"),
    0x83: _Media(Kind.AUDIO, "TrueHD audio"),
    0xD1: _Media(Kind.VIDEO, "Dirac video"),
    0xD2: _Media(Kind.VIDEO, "AVS2 video"),
    0xD4: _Media(Kind.VIDEO, "AVS3 video"),
    0xEA: _Media(Kind.VIDEO, "VC-1 video"),
}
_NOT_TAKEN_PRIVATE: Final[Mapping[bytes, _Media]] = {
    b"BSSD": _Media(Kind.AUDIO, "SMPTE 302M audio"),
    b"AC-4": _Media(Kind.AUDIO, "AC-4 audio"),
    b"DTS1": _Media(Kind.AUDIO, "DTS audio"),
    b"DTS2": _Media(Kind.AUDIO, "DTS audio"),
    b"DTS3": _Media(Kind.AUDIO, "DTS audio"),
    b"AV01": _Media(Kind.VIDEO, "AV1 video in MPEG-TS"),
    b"VP09": _Media(Kind.VIDEO, "VP9 video in MPEG-TS"),
    b"VVC ": _Media(Kind.VIDEO, "VVC video"),
}
_NAMES: Final[Mapping[int, str]] = {0x15: "metadata", 0x86: "SCTE-35"}


def elementary(info: ElementaryInfo) -> Elementary | None:
    """The reader for a line of the PMT, None for what is not taken."""
    factory = _factory(info)
    return factory(info) if factory else None


def is_video(info: ElementaryInfo) -> bool:
    """Whether a line of the PMT is video that is taken."""
    return _factory(info) in _PICTURES


def _factory(info: ElementaryInfo) -> _Factory | None:
    factory = _BY_STREAM_TYPE.get(info.stream_type)
    if factory is None and info.stream_type == _PRIVATE:
        factory = _BY_REGISTRATION.get(info.registration)
        factory = factory or next((_BY_DESCRIPTOR[tag] for tag, _ in info.descriptors if tag in _BY_DESCRIPTOR), None)
    return factory


def not_taken(info: ElementaryInfo) -> tuple[Kind, str] | None:
    """What a line of the PMT is that viewers would get if it were taken; None for what is taken, and for what is no media."""
    if _factory(info) is not None:
        return None
    if info.stream_type == _PRIVATE:
        return _NOT_TAKEN_PRIVATE.get(info.registration)
    return _NOT_TAKEN.get(info.stream_type)


def describe(info: ElementaryInfo) -> str:
    """What a line of the PMT is, for people."""
    media = not_taken(info)
    return media[1] if media else _NAMES.get(info.stream_type, f"stream type 0x{info.stream_type:02x}")
