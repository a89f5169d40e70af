"""What the PIDs of a programme hold: for each line of its map, the reader that makes access units of PES payloads. Sans-IO.

What is broken raises `ProtocolError`, which on a lossy transport costs that unit and not the connection: the caller counts it and goes on.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from protocols.bitstream.h26x import NalStream
from protocols.media import Codec, Kind, Track
from protocols.srt.psi import ElementaryInfo
from protocols.srt.sound import SECOND, Opus, Unit, ac3, adts, loas, mpeg_audio

_FRAME_STEP_NS: Final = SECOND // 25  # of video without times, until two are known


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

    def split(self, data: bytes, pts: int | None, dts: int | None) -> list[Unit]:
        """The access units that became whole with this PES payload."""

    def reset(self) -> None:
        """Data was lost: forget what is in the making."""


class VideoReader:
    """H.264 or HEVC: one access unit per PES, from the first key frame on."""

    kind = Kind.VIDEO

    def __init__(self, pid: int, codec: Codec) -> None:
        self._stream = NalStream(codec, pid)
        self.frames = 0
        self._started = False
        self._dts: int | None = None
        self._step = _FRAME_STEP_NS

    @property
    def track(self) -> Track | None:
        return self._stream.track

    def split(self, data: bytes, pts: int | None, dts: int | None) -> list[Unit]:
        self.frames += 1
        unit = self._stream.annexb(data)
        if dts is None and self._dts is not None:
            dts = self._dts + self._step
        elif dts is not None and self._dts is not None and 0 < dts - self._dts < SECOND:
            self._step = dts - self._dts
        self._dts = dts
        self._started = self._started or unit.keyframe
        if not self._started or not unit.data or dts is None:
            return []
        return [Unit(unit.data, dts if pts is None else pts, dts, unit.keyframe)]

    def reset(self) -> None:
        """Nothing is in the making between two PES."""


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

_NAMES: Final[Mapping[int, str]] = {
    0x01: "MPEG-1 video",
    0x02: "MPEG-2 video",
    0x10: "MPEG-4 part 2 video",
    0x15: "metadata",
    0x21: "JPEG 2000 video",
    0x33: "VVC video",
    0x86: "SCTE-35",
    0xD1: "Dirac video",
    0xEA: "VC-1 video",
}


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


def describe(info: ElementaryInfo) -> str:
    """What a line of the PMT is, for people."""
    return _NAMES.get(info.stream_type, f"stream type 0x{info.stream_type:02x}")
