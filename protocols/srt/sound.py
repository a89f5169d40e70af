"""Sound in the payloads of one PID: from PES to access units, by what each kind of frame says of itself. Sans-IO.

A frame that goes on in the next PES is put together; its time is that of the PES in which it begins (ISO/IEC 13818-1 §2.4.3.7).
"""

import re
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple

from protocols.bitstream.adts import read_adts
from protocols.bitstream.audio import aac_track, ac3_track, mp3_track
from protocols.bitstream.changes import ChangeAllowance
from protocols.errors import ProtocolError
from protocols.media import Kind, Track
from protocols.srt.latm import LatmReader

SECOND: Final = 1_000_000_000
MAX_FRAMES: Final = 512  # of one PES: 10 s of AAC, and of the shortest that there are 0.6 s
_LEAST: Final = 8  # bytes of a frame: with less there is no sound behind its header
_MAX_FALSE: Final = 8  # places that look like a frame and are none, in one PES of no size; chance makes one in some kB
_BYTES_PER_FALSE: Final = 64  # and one more for so many bytes of it
_CHANGE_WORTH: Final = 2048  # bytes of the stream that a new track is worth
_AAC_SAMPLES: Final = 1024
_AC3_SAMPLES: Final = 1536


class Unit(NamedTuple):
    """One access unit in the form of `protocols/media.py`; times in ns of the source's clock."""

    data: bytes
    pts: int
    dts: int
    keyframe: bool


class AudioFrame(NamedTuple):
    """What a frame header says."""

    size: int  # with the header
    duration: int  # ns, where the header says it
    dependent: bool = False  # belongs to the frame before (E-AC-3 dependent substream)


_NO_FRAME: Final = AudioFrame(0, 0)


class Sound(NamedTuple):
    """What is in a frame."""

    units: list[bytes]  # raw access units
    track: Track | None
    duration: int  # ns, of all together


class FrameSyntax(NamedTuple):
    """How the frames of a codec are found and read.

    `header` matches where one may begin, with the byte `first`, and `header_bytes` are all that is read of one. `read(data, at)` gives the
    frame that begins there, None when the header is not whole, and raises `ProtocolError` for what is no header. `unwrap(bytes, frame)`
    gives what is in it.
    """

    first: int
    header: re.Pattern[bytes]
    header_bytes: int
    read: Callable[[bytes, int], AudioFrame | None]
    unwrap: Callable[[bytes, AudioFrame], Sound]


class Framed:
    """Audio whose frames say their own size: ADTS, LOAS, MPEG audio, AC-3."""

    kind = Kind.AUDIO
    broken = 0

    def __init__(self, syntax: FrameSyntax) -> None:
        self._read = syntax.read
        self._syntax = syntax
        self._changes = ChangeAllowance()
        self._rest = b""
        self._next: int | None = None  # ns at which the frame in `_rest` begins
        self._false = 0  # places in this PES that looked like a frame and were none
        self._dependent: list[bytes] = []  # frames that belong to the last unit
        self.frames = 0
        self.track: Track | None = None

    def split(self, data: bytes, pts: int | None, dts: int | None) -> list[Unit]:
        carried = len(self._rest)
        data, self._rest = self._rest + data, b""
        self._changes.earn(len(data) - carried)
        time, stamped = self._next, pts is None
        units: list[Unit] = []
        self._dependent.clear()
        at, size = 0, len(data)
        self._false = 0
        most = self.frames + MAX_FRAMES
        while at < size:
            if not stamped and at >= carried:
                time, stamped = pts, True
            frame = self._frame(data, at)
            if frame is None or at + frame.size > size:
                self._rest = data[at:]
                break
            if not frame.size:
                at = self._resync(data, at + 1)
                continue
            self.frames += 1
            if self.frames > most:
                raise ProtocolError(f"more than {MAX_FRAMES} frames of sound in one PES")
            if time is not None:
                time = self._add(units, data[at : at + frame.size], frame, time)
            at += frame.size
        if not stamped:  # the carried frame reached to the end of this PES or beyond: the next begins at a time of its own
            self._next = time if at < carried else pts
        else:
            self._next = time
        self._join(units)
        return units

    def lost(self, data: bytes) -> list[Unit]:
        self.reset()
        return []

    def settle(self) -> list[Unit]:
        return []

    def reset(self) -> None:
        self._rest = b""

    def _frame(self, data: bytes, at: int) -> AudioFrame | None:
        try:
            return self._read(data, at)
        except ProtocolError:
            return _NO_FRAME

    def _resync(self, data: bytes, at: int) -> int:
        """The next place that looks like a frame and, where it can be seen, is followed by another."""
        size, (first, header, header_bytes, *_) = len(data), self._syntax
        most = _MAX_FALSE + size // _BYTES_PER_FALSE
        while (found := header.search(data, at)) is not None:
            at = found.start()
            frame = self._frame(data, at)
            if frame is None or (frame.size and (at + frame.size >= size or data[at + frame.size] == first)):
                return at
            self._false += 1
            if self._false > most:
                raise ProtocolError("sound without frames")
            at += 1
        begun = data.find(first, max(at, size - header_bytes + 1))
        return size if begun == -1 else begun

    def _add(self, units: list[Unit], raw: bytes, frame: AudioFrame, time: int) -> int:
        """Take one frame that begins at `time`; gives the time at which the next does."""
        if frame.dependent:
            self._dependent.append(raw)
            return time
        if self._dependent:
            self._join(units)
        sound = self._syntax.unwrap(raw, frame)
        if sound.track is not None and sound.track is not self.track and sound.track != self.track:
            self._changes.spend(_CHANGE_WORTH)
            self.track = sound.track
        for index, unit in enumerate(sound.units):
            start = time + sound.duration * index // len(sound.units)
            units.append(Unit(unit, start, start, True))
        return time + sound.duration

    def _join(self, units: list[Unit]) -> None:
        """The frames that belong to the last unit become part of it, all at once."""
        if self._dependent and units:
            units[-1] = units[-1]._replace(data=b"".join((units[-1].data, *self._dependent)))
        self._dependent.clear()


class _Described:
    """The track of the frames that say the same of themselves: a header is read for its facts where it differs from the one before."""

    def __init__(self) -> None:
        self._said: Hashable = None
        self._track: Track | None = None

    def track(self, said: Hashable, read: Callable[[], Track]) -> Track:
        if self._track is None or said != self._said:
            self._said, self._track = said, read()
        return self._track


def adts(pid: int) -> Framed:
    """AAC with ADTS headers (ISO/IEC 13818-7 §6.2)."""
    described = _Described()

    def unwrap(raw: bytes, frame: AudioFrame) -> Sound:
        track = described.track((raw[2] << 8 | raw[3]) & 0xFDC0, lambda: _adts_track(pid, raw))
        return Sound([raw[7 if raw[1] & 1 else 9 :]], track, frame.duration)

    return Framed(FrameSyntax(0xFF, _ADTS, 7, _read_adts, unwrap))


_ADTS: Final = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")


def _read_adts(data: bytes, at: int) -> AudioFrame | None:
    frame = read_adts(data, at)
    return AudioFrame(frame.size, frame.duration) if frame is not None else None


def _adts_track(pid: int, raw: bytes) -> Track:
    frame = read_adts(raw)
    assert frame is not None
    try:
        return aac_track(pid, frame.config)
    except ProtocolError:  # §8.5: the layout stands in the frames; which nobody but broadcasts does
        raise ProtocolError(_NO_LAYOUT) from None


_NO_LAYOUT: Final = "AAC of channel configuration 0: choose mono, stereo or 5.1 in the encoder"


def loas(pid: int) -> Framed:
    """AAC in LATM with LOAS framing (ISO/IEC 14496-3 §1.7.2)."""
    latm = LatmReader()
    described = _Described()

    def unwrap(raw: bytes, frame: AudioFrame) -> Sound:
        units = latm.access_units(raw[3:])
        if not latm.config:
            return Sound([], None, 0)
        track = described.track(latm.config, lambda: aac_track(pid, latm.config))
        return Sound(units, track, len(units) * _AAC_SAMPLES * SECOND // latm.rate)

    return Framed(FrameSyntax(0x56, _LOAS, 3, _read_loas, unwrap))


_LOAS: Final = re.compile(rb"\x56[\xe0-\xff]")


def _read_loas(data: bytes, at: int) -> AudioFrame | None:
    if len(data) - at < 3:
        return None
    if data[at] != 0x56 or data[at + 1] & 0xE0 != 0xE0:
        raise ProtocolError("no LOAS header")
    size = 3 + ((data[at + 1] & 0x1F) << 8 | data[at + 2])
    return AudioFrame(size, 0) if size >= _LEAST else _NO_FRAME


_MPEG_RATES: Final = (44100, 48000, 32000)  # ISO/IEC 11172-3 §2.4.2.3; half and a quarter of them in the versions after
# and 13818-3: kbit/s by (MPEG-1, layer)
_MPEG_BIT_RATES: Final = {
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def mpeg_audio(pid: int) -> Framed:
    """MPEG-1 and -2 audio, layers II and III."""
    described = _Described()

    def unwrap(raw: bytes, frame: AudioFrame) -> Sound:
        return Sound([raw], described.track(_mpeg_facts(raw), lambda: mp3_track(pid, raw)), frame.duration)

    return Framed(FrameSyntax(0xFF, _MPEG, 4, _read_mpeg_audio, unwrap))


# Eleven bits of sync, a version and a layer (III or II) that there are; a bit rate that is neither free nor forbidden; a sampling frequency
_MPEG: Final = re.compile(
    rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][%b]"
    % b"".join(b"\\x%02x" % byte for byte in range(0x10, 0xF0) if byte >> 2 & 3 < len(_MPEG_RATES))
)


def _mpeg_facts(raw: bytes) -> tuple[int, int, int]:
    """What the track is made of: version and layer, sampling frequency, channels."""
    return raw[1] & 0xFE, raw[2] & 0x0C, raw[3] & 0xC0


def _read_mpeg_audio(data: bytes, at: int) -> AudioFrame | None:
    if len(data) - at < 4:
        return None
    if _MPEG.match(data, at) is None:
        raise ProtocolError("no header of MPEG audio, or one of free format")
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    first = version == 3  # MPEG-1; else the low sampling frequencies
    rate = _MPEG_RATES[data[at + 2] >> 2 & 3] >> (0 if first else 1 if version else 2)
    bit_rate = _MPEG_BIT_RATES[first, layer][data[at + 2] >> 4] * 1000
    samples = 576 if layer == 3 and not first else 1152
    size = samples // 8 * bit_rate // rate + (data[at + 2] >> 1 & 1)
    return AudioFrame(size, samples * SECOND // rate)


_AC3_RATES: Final = (48000, 44100, 32000)
_AC3_KBITS: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)


def ac3(pid: int) -> Framed:
    """AC-3 and E-AC-3 (ATSC A/52 §5.3, Annex E)."""
    described = _Described()

    def unwrap(raw: bytes, frame: AudioFrame) -> Sound:
        return Sound([raw], described.track(_ac3_facts(raw), lambda: ac3_track(pid, raw)), frame.duration)

    return Framed(FrameSyntax(0x0B, _AC3, 6, _read_ac3, unwrap))


_AC3: Final = re.compile(rb"\x0b\x77")


def _ac3_facts(raw: bytes) -> bytes:
    """What the track is made of: all from the sampling frequency to the flag of the low-frequency channel."""
    return raw[4:6] if raw[5] >> 3 > 10 else raw[4:7]


def _read_ac3(data: bytes, at: int) -> AudioFrame | None:
    if len(data) - at < 6:
        return None
    if data[at] != 0x0B or data[at + 1] != 0x77:
        raise ProtocolError("no AC-3 header")
    bsid = data[at + 5] >> 3
    if bsid > 10:
        size = 2 * ((data[at + 2] & 7) << 8 | data[at + 3]) + 2
        if data[at + 2] >> 6 == 1:  # §E.2.3.1.1: a dependent substream belongs to the frame before
            return AudioFrame(size, 0, dependent=True) if size >= _LEAST else _NO_FRAME
        code, blocks = data[at + 4] >> 6, (256, 512, 768, 1536)[data[at + 4] >> 4 & 3]
        if code == 3:
            code, blocks = data[at + 4] >> 4 & 3, 1536
            rate = (24000, 22050, 16000, 0)[code]
        else:
            rate = _AC3_RATES[code]
        if not rate or size < _LEAST:
            raise ProtocolError("broken E-AC-3 header")
        return AudioFrame(size, blocks * SECOND // rate)
    code, size_code = data[at + 4] >> 6, data[at + 4] & 0x3F
    if code == 3 or size_code > 37:
        raise ProtocolError("broken AC-3 header")
    rate, bit_rate = _AC3_RATES[code], _AC3_KBITS[size_code >> 1] * 1000
    words = _AC3_SAMPLES * bit_rate // (16 * rate) + (size_code & 1 if code == 1 else 0)  # §5.4.1.4: 44.1 kHz pads
    return AudioFrame(2 * words, _AC3_SAMPLES * SECOND // (rate >> max(0, bsid - 8)))
