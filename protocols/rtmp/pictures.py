"""VideoReading of a video track out of its messages, one after the other: whole, or not at all. Sans-IO.

Kept true: a message is one access unit and goes on at once, but where an encoder sends each slice in a message of its own: those are
joined, and an access unit is whole where the next begins (H.264 §7.4.1.2.4, H.265 §7.4.2.4.4). After a picture was lost that others need,
none goes on up to the next key frame. What could not be read is told to `note` in words.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from protocols.bitstream import AccessUnit, h264, hevc
from protocols.bitstream.av1 import Av1Stream
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.h264_numbers import PictureNumbers
from protocols.bitstream.nal import SLICES, START, NalRole
from protocols.bitstream.unit import MAX_BYTES, MAX_UNITS
from protocols.bitstream.vpx import VpxStream
from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Track
from protocols.rtmp.nal_units import NalUnits, begins_with_start_code, by_length, by_start_code
from protocols.wire import Buffer

VIDEO_TRACK = 0
_LENGTH_SIZE: Final = 4  # where no configuration record says it
_EMPTY_BODY: Final = 16  # bytes of a message that hold no picture, whatever is broken in them
_ONE_EACH: Final = 50  # pictures of one message each after which no more slices are waited for
_MAX_BEFORE_UNITS: Final = 64  # NAL units that come in messages before that of the picture that they belong to
_MAX_BEFORE_BYTES: Final = 64 << 10

Note = Callable[[str], None]


class MessageStamp(NamedTuple):
    """When a message is due (ns of the encoder's clock), and when it came (monotonic ns)."""

    pts: int
    dts: int
    begun: int
    arrival: int


class VideoReading(Protocol):
    """The one face of the codecs."""

    @property
    def track(self) -> Track | None: ...

    @property
    def held(self) -> MessageStamp | None:
        """That of a picture to which the next message may belong: `settle` gives it out."""

    def configure(self, record: Buffer) -> None:
        """A sequence header. One that cannot be read raises `ProtocolError` and changes nothing."""

    def take(self, data: Buffer, stamp: MessageStamp) -> list[EncodedPacket]:
        """The pictures that are whole with this message. Raises `ProtocolError` where nothing of it can be read: see `lost`."""

    def settle(self) -> list[EncodedPacket]: ...

    def lost(self, size: int) -> None:
        """A message of so many bytes, of this track, could not be read."""


class FramePictures:
    """AV1, VP8 and VP9: a message is a picture."""

    held: MessageStamp | None = None

    def __init__(self, stream: Av1Stream | VpxStream) -> None:
        self._stream = stream
        self._waiting = False  # for a key frame

    @property
    def track(self) -> Track | None:
        return self._stream.track

    def configure(self, record: Buffer) -> None:
        if isinstance(self._stream, Av1Stream):  # vpcC says nothing that the frames do not
            self._stream.configure(record)

    def take(self, data: Buffer, stamp: MessageStamp) -> list[EncodedPacket]:
        stream = self._stream
        unit = stream.temporal_unit(data) if isinstance(stream, Av1Stream) else stream.frame(data)
        self._waiting = self._waiting and not unit.keyframe
        if not unit.data or self._waiting or self.track is None:
            return []
        return [_packet(unit, stamp)]

    def settle(self) -> list[EncodedPacket]:
        return []

    def lost(self, size: int) -> None:
        self._waiting = self._waiting or size > _EMPTY_BODY


_SYNTAX: Final = {Codec.H264: h264.SYNTAX, Codec.HEVC: hevc.SYNTAX}


class _OpenUnit(NamedTuple):
    """An access unit to which more may come."""

    units: list[bytes]
    stamp: MessageStamp
    cut: bool
    messages: int
    size: int


class NalPictures:
    """H.264 and HEVC. `patient`: the first picture waits for the next message, or for `settle`, which shows whether more of it comes."""

    def __init__(self, codec: Codec, note: Note, patient: bool) -> None:
        self._stream = NalStream(codec, VIDEO_TRACK, damaged=True)
        self._syntax = _SYNTAX[codec]
        self._codec = codec
        self._note = note
        self._by_start_code = False
        self._by_length = False  # seen: lengths that fit
        self._undecided = patient  # whether a message is a picture
        self._joining = False
        self._single = 0  # pictures of one message since slices were last joined
        self._held: _OpenUnit | None = None
        self._before: list[bytes] = []  # what belongs to the picture that comes next
        self._waiting = False  # for a key frame
        self._doubtful = False  # something was lost: does the next picture follow the last one?
        self._last = b""  # the first slice of the last picture given out
        self._numbers = PictureNumbers(b"")

    @property
    def track(self) -> Track | None:
        return self._stream.track

    @property
    def held(self) -> MessageStamp | None:
        return self._held.stamp if self._held is not None else None

    def configure(self, record: Buffer) -> None:
        if begins_with_start_code(record):
            self._stream.units(by_start_code(record).units)
        else:
            self._stream.configure(record)
            self._by_start_code = self._by_length = False

    def take(self, data: Buffer, stamp: MessageStamp) -> list[EncodedPacket]:
        units, flaw, cut = self._split(data)
        if flaw:
            self._note(flaw)
        first = self._first_slice(units)
        if first is None:
            return self._take_no_picture(units, cut)
        if self._before:
            units, self._before = [*self._before, *units], []
        if len(first) <= self._syntax.first_slice_byte:  # its header alone
            self._note("a slice that is cut off")
            cut = True
        elif not first[self._syntax.first_slice_byte] & 0x80:
            self._join(_OpenUnit(units, stamp, cut, 1, len(data)))
            return []
        out = self.settle()
        if self._joining or self._undecided:
            self._held = _OpenUnit(units, stamp, cut, 1, len(data))
            return out
        return out + self._give(units, first, stamp, cut)

    def settle(self) -> list[EncodedPacket]:
        held, self._held = self._held, None
        if held is None:
            return []
        self._undecided = False
        self._single = self._single + 1 if held.messages == 1 else 0
        self._joining = self._joining and self._single < _ONE_EACH
        first = self._first_slice(held.units)
        assert first is not None
        return self._give(held.units, first, held.stamp, held.cut)

    def lost(self, size: int) -> None:
        if self._codec is Codec.H264:
            self._doubtful = True  # it can be told
        else:
            self._waiting = self._waiting or size > _EMPTY_BODY

    def _split(self, data: Buffer) -> NalUnits:
        """By what the messages before were like, and by what this one is."""
        if not (self._by_start_code and data[:4] == START):
            found = by_length(data, self._stream.length_size or _LENGTH_SIZE, self._syntax)
            if not found.flaw:
                self._by_length = self._by_length or not begins_with_start_code(data)
                return found
            unsure = self._by_length and not self._by_start_code
            if data[:4] != START and (unsure or not begins_with_start_code(data)):
                return found
        self._by_start_code = True
        return by_start_code(data)

    def _first_slice(self, units: list[bytes]) -> bytes | None:
        roles = self._syntax.roles
        for unit in units:
            if roles[unit[0]] in SLICES:
                return unit
        return None

    def _role(self, unit: bytes) -> NalRole:
        return self._syntax.roles[unit[0]]

    def _take_no_picture(self, units: list[bytes], cut: bool) -> list[EncodedPacket]:
        """Parameter sets are known at once, SEI waits for the picture that it belongs to. A damaged picture may look like anything: what no
        decoder of a base layer needs is left out, and so is what is not whole."""
        out = self.settle() if units else []
        if any(self._role(unit) is NalRole.BROKEN for unit in units):
            self._note("broken NAL unit header")
            cut = True
        if cut:
            self.lost(_EMPTY_BODY + 1)
        if not cut or self.track is None:  # what looks like one in a damaged message would stand in the place of a good one
            self._assemble([unit for unit in units if self._role(unit) is NalRole.PARAMETER_SET])
        for unit in units:
            if self._role(unit) is NalRole.SEI and self._syntax.is_whole(unit.rstrip(b"\x00")):
                self._before.append(unit)
            elif self._role(unit) in (NalRole.SEI, NalRole.OTHER):
                self.lost(0)
        if len(self._before) > _MAX_BEFORE_UNITS or sum(map(len, self._before)) > _MAX_BEFORE_BYTES:
            self._before.clear()
        return out

    def _join(self, more: _OpenUnit) -> None:
        """Slices of the picture under way."""
        held, self._held = self._held, None
        self._joining, self._undecided, self._single = True, False, 0
        if held is None:
            self._note("slices of a picture that had been given out without them")
            self._waiting = True
        elif len(held.units) + len(more.units) > MAX_UNITS or held.size + more.size > MAX_BYTES:
            self._note("too many slices of one picture")
            self.lost(held.size)
        else:
            held.units.extend(more.units)
            stamp = held.stamp._replace(arrival=more.stamp.arrival)
            self._held = _OpenUnit(held.units, stamp, held.cut or more.cut, held.messages + 1, held.size + more.size)

    def _give(self, units: list[bytes], first: bytes, stamp: MessageStamp, cut: bool) -> list[EncodedPacket]:
        unit = None if cut else self._assemble(units)
        if unit is None:
            self.lost(_EMPTY_BODY + 1)
            self._waiting = self._waiting or self._role(first) is NalRole.KEY
            return []
        if not unit.data or self.track is None:
            return []
        if unit.keyframe:
            self._waiting = False
        elif self._doubtful:
            self._waiting = self._waiting or not self._follows(first)
        self._doubtful = False
        if self._waiting:
            return []
        self._last = first
        return [_packet(unit, stamp)]

    def _follows(self, first: bytes) -> bool:
        """Whether no picture is missing before this one that it needs."""
        assert self.track is not None
        if self._numbers.parameter_sets != self.track.extradata:
            self._numbers = PictureNumbers(self.track.extradata)
        return self._numbers.follow(self._last, first)

    def _assemble(self, units: list[bytes]) -> AccessUnit | None:
        """None where the picture cannot be read. A parameter set that cannot costs itself: the one before it goes on holding."""
        try:
            whole = self._stream.units(units)
        except ProtocolError as error:
            self._note(str(error))
        else:
            if whole.flaw:
                self._note(whole.flaw)
                self.lost(0)
            return whole
        readable: list[bytes] = []
        for unit in units:
            try:
                if self._role(unit) is NalRole.PARAMETER_SET:
                    self._stream.units([unit])
                    continue
            except ProtocolError:
                continue
            if self._role(unit) is not NalRole.BROKEN or self._role(bytes([unit[0] & 0x7F])) in SLICES:
                readable.append(unit)
        try:
            return self._stream.units(readable)
        except ProtocolError:
            return None


def pictures_of(codec: Codec, note: Note, patient: bool) -> VideoReading:
    """For a video codec that RTMP carries."""
    match codec:
        case Codec.AV1:
            return FramePictures(Av1Stream(VIDEO_TRACK))
        case Codec.VP8 | Codec.VP9:
            return FramePictures(VpxStream(codec, VIDEO_TRACK))
        case _:
            return NalPictures(codec, note, patient)


def _packet(unit: AccessUnit, stamp: MessageStamp) -> EncodedPacket:
    return EncodedPacket(VIDEO_TRACK, stamp.pts, stamp.dts, unit.keyframe, unit.data, stamp.begun, stamp.arrival)
