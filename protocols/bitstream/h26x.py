"""One H.264 or HEVC stream: access units in, in either framing, and out as the byte stream that `protocols/media.py` keeps.

What stays true: parameter sets leave the access units, are kept by their id (the latest wins), and come back in one place, before each key
frame and before the picture with which they changed. A key frame is one whose parameter sets are known. The facts of the track are those of
the SPS that the last key frame used, or of the newest before the first. Each set is read once, and what is new is paid with bytes of the
stream (`ChangeAllowance`). Where damage is met, a picture may look like a parameter set, which would stay: beside whole ones only whole
ones are taken unless a key frame comes with them.
"""

from dataclasses import replace

from protocols.bitstream import h264, hevc
from protocols.bitstream.changes import ChangeAllowance
from protocols.bitstream.nal import SPS_BYTES, START, NalRole, Syntax, split_annexb
from protocols.bitstream.unit import AccessUnit, check_size
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.wire import Buffer, Reader

MAX_SETS = 32
MAX_SET_BYTES = 64 << 10  # of all parameter sets together: they are sent with every key frame; real ones are below 10 kB
_SET_WORTH = 256  # bytes of the stream that a new parameter set is worth,
_SPS_BYTE_WORTH = 64  # and more for each byte of an SPS, which is read for its facts
_MAX_RECORD = 2 * MAX_SET_BYTES
_MAX_ARRAY = 64  # NAL units of one type in an hvcC: no more than that are kept of all types

_SYNTAX = {Codec.H264: h264.SYNTAX, Codec.HEVC: hevc.SYNTAX}


class NalStream:
    """State of one stream. Every method that takes bytes raises `ProtocolError` on those that no encoder may send."""

    def __init__(self, codec: Codec, track_id: int, *, damaged: bool = False) -> None:
        """`codec` is H.264 or HEVC. `damaged`: what comes may be; most ways lose units and leave the rest as it was."""
        self._damaged = damaged
        self._codec = codec
        self._syntax: Syntax = _SYNTAX[codec]
        self._track_id = track_id
        self._length_size = 0  # 0: no configuration record yet
        self._changes = ChangeAllowance()
        self._sets: dict[tuple[int, int], bytes] = {}
        self._facts: dict[tuple[int, int], Track] = {}  # of each SPS, without its extradata
        self._unwhole: set[int] = set()  # places (`Syntax.set_key`) of which the encoder's own sets are not whole
        self._ordered: tuple[bytes, ...] = ()
        self._unsent = False  # the sets have changed since they were last written before a picture
        self._undescribed = False  # what the track is made of has changed
        self._sps: tuple[int, int] | None = None  # whose facts are the track's
        self._started = False  # a key frame has named its SPS
        self._open_gop = False  # a key frame was a recovery point (open GOP, intra refresh) and no IDR picture
        self._told: Track | None = None
        self.track: Track | None = None
        """The facts, once parameter sets are known."""

    @property
    def settled(self) -> bool:
        """A picture that is no key frame, of slices alone, would be what it is: nothing is to be learned of it or put before it."""
        return self._started and not self._unsent

    @property
    def length_size(self) -> int:
        """Bytes of a NAL unit's length, by the configuration record; 0: there was none."""
        return self._length_size

    def configure(self, record: Buffer) -> None:
        """Take an AVCDecoderConfigurationRecord or HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3, §8.3.3).

        Its parameter sets replace all that were known; it may have none, then they come in band. One that cannot be read changes nothing.
        """
        if len(record) > _MAX_RECORD:
            raise ProtocolError(f"configuration record of {len(record)} bytes")
        self._changes.earn(len(record))
        read = _read_avcc if self._codec is Codec.H264 else _read_hvcc
        length_size, sets = read(Reader(record))
        if length_size == 3:
            raise ProtocolError("NAL unit lengths of 3 bytes")
        if tuple(sets) != self._ordered:
            before = self._sets, self._facts, self._unwhole, self._ordered, self._sps, self._started
            self._sets, self._facts, self._unwhole, self._ordered, self._sps, self._started = {}, {}, set(), (), None, False
            try:
                for unit in sets:
                    if self._role(unit) is NalRole.PARAMETER_SET:
                        self._keep(unit)
            except ProtocolError:
                self._sets, self._facts, self._unwhole, self._ordered, self._sps, self._started = before
                raise
        self._length_size = length_size
        self._describe()

    def annexb(self, data: Buffer) -> AccessUnit:
        """One access unit as a byte stream."""
        check_size(data)
        return self.units(split_annexb(bytes(data)))

    def units(self, units: list[bytes]) -> AccessUnit:
        """One access unit that is cut into its NAL units already, none of them empty."""
        self._changes.earn(sum(map(len, units)))
        passed: list[bytes] = []
        sets: list[bytes] = []
        picture = key = None
        recovery = False
        for unit in units:
            role = self._role(unit)
            if role is NalRole.DROPPED:
                continue
            if role is NalRole.PARAMETER_SET:
                sets.append(unit)
                continue
            if role is NalRole.PICTURE:
                picture = picture or unit
            elif role is NalRole.KEY:
                key = key or unit
            elif role is NalRole.SEI:
                recovery = recovery or self._syntax.recovers(unit)
            passed.append(unit)
        if key is None and recovery:
            key = picture
            if not self._open_gop:
                self._open_gop = self._undescribed = True
        kept = [self._keep(unit, doubted=key is None) for unit in sets]
        keyframe = key is not None and self._activate(key)
        self._describe()
        if picture is None and key is None:
            passed.clear()
        elif keyframe or self._unsent:
            passed[:0] = self._ordered
            self._unsent = False
        changed = self.track is not self._told
        self._told = self.track
        flaw = "" if all(kept) else "a parameter set that is damaged"
        return AccessUnit(START.join((b"", *passed)) if passed else b"", keyframe, changed, flaw)

    def _role(self, unit: bytes) -> NalRole:
        role = self._syntax.roles[unit[0]]
        if role is NalRole.BROKEN or len(unit) < self._syntax.header_bytes:
            raise ProtocolError("broken NAL unit header")
        # H.265 §7.4.2.2: nuh_layer_id above 0 is another view or layer, which a decoder of the base layer ignores
        if self._codec is Codec.HEVC and (unit[0] & 1 or unit[1] & 0xF8):
            return NalRole.DROPPED
        return role

    def _keep(self, unit: bytes, doubted: bool = False) -> bool:
        """False: it is left out. `doubted`: nothing says that it is one but its first byte."""
        unit = unit.rstrip(b"\x00")  # no NAL unit ends in zero, but those of some records do
        if unit in self._ordered:
            return True
        key = self._syntax.set_key(unit)
        others = sum(len(other) for known, other in self._sets.items() if known != key)
        if others + len(unit) > MAX_SET_BYTES or len(self._sets.keys() | {key}) > MAX_SETS:
            raise ProtocolError("too many or too large parameter sets")
        is_sps = key[0] == self._syntax.sps_rank
        self._changes.spend(_SET_WORTH + _SPS_BYTE_WORTH * min(len(unit), SPS_BYTES) * is_sps)
        whole = not self._damaged or self._syntax.is_whole(unit)
        if not whole and doubted and key[0] not in self._unwhole and any(known[0] == key[0] for known in self._sets):
            return False
        if is_sps:  # a broken one is refused before it replaces a good one
            self._facts[key] = self._syntax.describe(unit, self._track_id, b"")
            if not self._started:
                self._sps = key
        if not whole:
            self._unwhole.add(key[0])
        self._sets[key] = unit
        self._ordered = tuple(self._sets[known] for known in sorted(self._sets))
        self._unsent = self._undescribed = True
        return True

    def _activate(self, key: bytes) -> bool:
        """Take the SPS that a key frame's slice names for the facts; False if it or its PPS is not known."""
        rank = self._syntax.sps_rank
        pps = self._sets.get((rank + 1, self._syntax.slice_pps(key)))
        if pps is None:
            return False
        sps = (rank, self._syntax.pps_sps(pps))
        if sps not in self._sets:
            return False
        self._started = True
        if sps != self._sps:
            self._sps = sps
            self._undescribed = True
        return True

    def _describe(self) -> None:
        if not self._undescribed or self._sps is None:
            return
        self._undescribed = False
        extradata = START.join((b"", *self._ordered))
        track = replace(self._facts[self._sps], extradata=extradata, open_gop=self._open_gop)
        if track != self.track:
            self.track = track


def _read_avcc(reader: Reader) -> tuple[int, list[bytes]]:
    if reader.u8() != 1:
        raise ProtocolError("unknown version of avcC")
    reader.skip(3)  # profile, compatibility, level: the SPS has them too
    length_size = (reader.u8() & 3) + 1
    sets = [reader.take(reader.u16()) for _ in range(reader.u8() & 0x1F)]
    sets += [reader.take(reader.u16()) for _ in range(reader.u8())]
    return length_size, _filled(sets)


def _read_hvcc(reader: Reader) -> tuple[int, list[bytes]]:
    if reader.u8() > 1:  # 0 in files of before the standard
        raise ProtocolError("unknown version of hvcC")
    reader.skip(20)
    length_size = (reader.u8() & 3) + 1
    sets: list[bytes] = []
    for _ in range(reader.u8()):
        reader.skip(1)  # array_completeness, NAL unit type: each has its own
        count = reader.u16()
        if count > _MAX_ARRAY:
            raise ProtocolError(f"{count} parameter sets in a configuration record")
        sets += [reader.take(reader.u16()) for _ in range(count)]
    return length_size, _filled(sets)


def _filled(sets: list[bytes]) -> list[bytes]:
    if not all(sets):
        raise ProtocolError("empty parameter set in a configuration record")
    return sets
